-- Documents, their text, passages and vectors: the truth the search indexes are rebuilt from.
CREATE TABLE collections (
    name TEXT PRIMARY KEY,
    created_at REAL NOT NULL
);
INSERT INTO collections VALUES ('documents', unixepoch()), ('samples', unixepoch());

CREATE TABLE documents (
    id TEXT PRIMARY KEY,
    collection TEXT NOT NULL REFERENCES collections(name),
    name TEXT NOT NULL,        -- a label for people, never a path
    title TEXT NOT NULL DEFAULT '',
    sha256 TEXT NOT NULL,      -- names the original under files/; '' when it was refused unread
    media_type TEXT NOT NULL,
    size INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'reading', 'ready', 'failed')),
    pages INTEGER NOT NULL DEFAULT 0,
    passages INTEGER NOT NULL DEFAULT 0,
    language TEXT,
    warning TEXT,              -- a msgid, translated where it is shown
    error TEXT,                -- ChatbotError.to_dict as JSON
    added_at REAL NOT NULL,
    origin TEXT,               -- the path it was added from, where there was one
    conversation TEXT,         -- set: the file belongs to this conversation only
    deleted_at REAL            -- set: in the trash, can be undone
);
CREATE UNIQUE INDEX documents_once
    ON documents(collection, sha256, coalesce(conversation, ''))
    WHERE deleted_at IS NULL AND sha256 <> '';
CREATE INDEX documents_by_name ON documents(collection, name);
CREATE INDEX documents_by_origin ON documents(origin);
CREATE INDEX documents_by_file ON documents(sha256);

CREATE TABLE pages (
    document_id TEXT NOT NULL REFERENCES documents(id) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    number INTEGER,            -- NULL where pages mean nothing
    start INTEGER NOT NULL,    -- offset of this page in the document's text, which is all pages joined
    text TEXT NOT NULL,
    PRIMARY KEY (document_id, ordinal)
) WITHOUT ROWID;

CREATE TABLE passages (
    id TEXT PRIMARY KEY,
    document_id TEXT NOT NULL REFERENCES documents(id) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    text TEXT NOT NULL,
    start INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    page INTEGER,
    path TEXT NOT NULL,
    UNIQUE (document_id, ordinal)
);

CREATE TABLE vectors (
    passage_id TEXT NOT NULL REFERENCES passages(id) ON DELETE CASCADE,
    stamp TEXT NOT NULL,       -- which embedder, revision, prefixes and chunker made it
    vector BLOB NOT NULL,      -- float32, little-endian
    PRIMARY KEY (passage_id, stamp)
) WITHOUT ROWID;
