-- What the support check found in an answer: SentenceSupport as JSON, one object for each sentence.
ALTER TABLE messages ADD COLUMN support TEXT NOT NULL DEFAULT '[]';
