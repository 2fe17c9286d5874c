-- Adapters and state_dict files are listed beside what an engine can run; a model has a role.
CREATE TABLE models_new (
    id TEXT PRIMARY KEY,
    format TEXT NOT NULL CHECK (format IN ('gguf', 'hf', 'pt', 'adapter')),
    role TEXT NOT NULL DEFAULT 'chat' CHECK (role IN ('chat', 'embedder', 'reranker')),
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
INSERT INTO models_new (id, format, path, name, size, linked, architecture, parameters, context,
                        manifest, added_at)
SELECT id, format, path, name, size, linked, architecture, parameters, context, manifest, added_at
FROM models;
DROP TABLE models;
ALTER TABLE models_new RENAME TO models;
