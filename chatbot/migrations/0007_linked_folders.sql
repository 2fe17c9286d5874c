-- Folders kept in sync, and what each of their files was when it was last taken in.
CREATE TABLE linked_folders (
    id TEXT PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,
    collection TEXT NOT NULL,
    added_at REAL NOT NULL,
    synced_at REAL,
    paused INTEGER NOT NULL DEFAULT 0,
    device TEXT                -- the disk it lay on; another one under the same path is not this folder
);

CREATE TABLE linked_files (
    folder_id TEXT NOT NULL REFERENCES linked_folders(id) ON DELETE CASCADE,
    path TEXT NOT NULL,        -- as documents.origin has it
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, -- -1: changed a moment before it was taken in, so look at the content again
    sha256 TEXT NOT NULL,      -- '' when it was refused unread
    missing_since REAL,        -- set: gone from the folder; a person decides what becomes of its document
    PRIMARY KEY (folder_id, path)
) WITHOUT ROWID;
CREATE INDEX linked_files_by_path ON linked_files(path);
