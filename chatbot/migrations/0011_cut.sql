-- By which rules a document's passages were cut, and for which embedder's window; others are cut anew.
ALTER TABLE documents ADD COLUMN cut TEXT NOT NULL DEFAULT '';
