-- Models on disk. The manifest beside the files is written last; a row exists only with one.
CREATE TABLE models (
    id TEXT PRIMARY KEY,
    format TEXT NOT NULL CHECK (format IN ('gguf', 'hf')),
    path TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    linked INTEGER NOT NULL,
    architecture TEXT NOT NULL DEFAULT '',
    parameters INTEGER NOT NULL DEFAULT 0,
    context INTEGER NOT NULL DEFAULT 0,
    manifest TEXT NOT NULL DEFAULT '{}',
    added_at REAL NOT NULL
);
