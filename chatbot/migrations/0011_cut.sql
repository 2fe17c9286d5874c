-- By which rules a document's passages were cut, and for which embedder's window; others are cut anew.
ALTER TABLE documents ADD COLUMN cut TEXT NOT NULL DEFAULT '';
-- Everything that filters ask, so that no document's facts are parsed to be left out.
CREATE INDEX documents_by_facts
    ON documents(conversation, deleted_at, kind, issued, effective, expires, number, id);
