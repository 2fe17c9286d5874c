-- Collections that were deleted with documents still in the trash, which undo brings back.
CREATE TABLE removed_collections (
    name TEXT PRIMARY KEY REFERENCES collections(name) ON DELETE CASCADE,
    removed_at REAL NOT NULL
);
