-- Conversations as trees of messages: a regenerated or edited message is a sibling, nothing is overwritten.
CREATE TABLE conversations (
    id TEXT PRIMARY KEY,
    title TEXT NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    pinned INTEGER NOT NULL DEFAULT 0,
    deleted_at REAL,
    leaf_id TEXT,
    settings TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX conversations_by_time ON conversations(updated_at);

CREATE TABLE messages (
    id TEXT PRIMARY KEY,
    conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
    parent_id TEXT REFERENCES messages(id) ON DELETE CASCADE,
    role TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant')),
    text TEXT NOT NULL,
    created_at REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('writing', 'complete', 'stopped', 'failed')),
    engine TEXT NOT NULL DEFAULT '',
    model TEXT NOT NULL DEFAULT '',
    sources TEXT NOT NULL DEFAULT '[]',
    stats TEXT,
    notices TEXT NOT NULL DEFAULT '[]',
    error TEXT,
    thumb INTEGER NOT NULL DEFAULT 0,
    note TEXT NOT NULL DEFAULT ''
);
CREATE INDEX messages_by_conversation ON messages(conversation_id, created_at);

-- Full-text search of conversations: folded text, so 'dieu' finds 'Điều'; FTS5 is enough at this size.
CREATE VIRTUAL TABLE message_words USING fts5(folded, message_id UNINDEXED, conversation_id UNINDEXED);

CREATE TABLE presets (
    name TEXT PRIMARY KEY,
    settings TEXT NOT NULL
);
