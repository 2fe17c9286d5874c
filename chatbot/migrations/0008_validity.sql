-- What official documents say of themselves, and of each other.
ALTER TABLE documents ADD COLUMN validity TEXT;  -- library/register.py; NULL: not looked for yet
ALTER TABLE documents ADD COLUMN number TEXT AS (json_extract(validity, '$.number.value')) VIRTUAL;
ALTER TABLE documents ADD COLUMN kind TEXT AS (json_extract(validity, '$.kind.value')) VIRTUAL;
ALTER TABLE documents ADD COLUMN issued TEXT AS (json_extract(validity, '$.issued.value')) VIRTUAL;
ALTER TABLE documents ADD COLUMN effective TEXT AS (json_extract(validity, '$.effective.value')) VIRTUAL;
ALTER TABLE documents ADD COLUMN expires TEXT AS (json_extract(validity, '$.expires.value')) VIRTUAL;
CREATE INDEX documents_by_number ON documents(number);

CREATE TABLE relations (
    document_id TEXT NOT NULL REFERENCES documents(id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('amends', 'replaces', 'repeals', 'consolidates')),
    number TEXT NOT NULL,      -- of the document that this one changes, ends or contains
    PRIMARY KEY (document_id, number)
) WITHOUT ROWID;
CREATE INDEX relations_by_number ON relations(number);
