-- Where passages stand on the original page, and which lines are headings; NULL for what was read before.
ALTER TABLE pages ADD COLUMN anchors BLOB;      -- each word's place, packed by library.anchors
ALTER TABLE documents ADD COLUMN headings TEXT; -- [[start, end, level], ...] as JSON
