-- How good the search is here: questions with known answers, the runs that asked them, and the clicks that suggest more.
CREATE TABLE questions (
    id TEXT PRIMARY KEY,       -- an edited question is a new one, so that figures compare like with like
    text TEXT NOT NULL,
    origin TEXT NOT NULL CHECK (origin IN ('typed', 'imported', 'gathered')),
    message_id TEXT REFERENCES messages(id) ON DELETE SET NULL,
    created_at REAL NOT NULL
);
CREATE INDEX questions_by_message ON questions(message_id);

-- Right places: spans of a document's text with prints of the words at both ends, by which they are found
-- again when the document is read or cut anew. No text of a document is kept here.
CREATE TABLE gold (
    question_id TEXT NOT NULL REFERENCES questions(id) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    document_id TEXT NOT NULL, -- no reference: the same file added again has another id
    sha256 TEXT NOT NULL,
    name TEXT NOT NULL,
    start INTEGER NOT NULL,
    "end" INTEGER,             -- NULL: anywhere in the document
    words INTEGER NOT NULL,
    head TEXT NOT NULL,
    tail TEXT NOT NULL,
    PRIMARY KEY (question_id, ordinal)
) WITHOUT ROWID;

CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    dataset TEXT NOT NULL,     -- a BEIR folder's path; '' for the person's own questions
    configuration TEXT NOT NULL,
    embedder TEXT NOT NULL DEFAULT '',
    questions INTEGER NOT NULL,
    created_at REAL NOT NULL,
    finished_at REAL,
    figures TEXT               -- JSON, once finished
);

CREATE TABLE outcomes (
    run_id TEXT NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
    question_id TEXT NOT NULL, -- no reference: the figures stay when a question goes
    text TEXT NOT NULL,
    golds INTEGER NOT NULL,
    ranks TEXT NOT NULL,       -- JSON list, ascending
    seconds REAL NOT NULL,
    first TEXT NOT NULL,       -- JSON: the passage that came first
    PRIMARY KEY (run_id, question_id)
) WITHOUT ROWID;
CREATE INDEX outcomes_by_question ON outcomes(question_id);
CREATE TRIGGER question_text_forgotten AFTER DELETE ON questions BEGIN
    UPDATE outcomes SET text = '' WHERE question_id = old.id;
END;

-- Citations that the person opened, and answers whose question was not wanted in the set.
CREATE TABLE opened (
    message_id TEXT NOT NULL REFERENCES messages(id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    opened_at REAL NOT NULL,
    PRIMARY KEY (message_id, number)
) WITHOUT ROWID;
CREATE TABLE dismissed (
    message_id TEXT PRIMARY KEY REFERENCES messages(id) ON DELETE CASCADE
) WITHOUT ROWID;
