"""Questions with known answers: a folder in the BEIR layout.

corpus.jsonl      {"_id", "title", "text"} a line
queries.jsonl     {"_id", "text"} a line
qrels/test.tsv    query-id, corpus-id, score, with a header line
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatbot.errors import NotFoundError, SettingsError


@dataclass(frozen=True, slots=True)
class CorpusDocument:
    """One entry of the corpus."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question with the ids of the documents that answer it."""

    id: str
    text: str
    gold: frozenset[str]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A corpus and the questions that have a gold document in it."""

    name: str
    documents: tuple[CorpusDocument, ...]
    questions: tuple[Question, ...]


def load_dataset(folder: Path) -> Dataset:
    """The data set in that folder. Raises NotFoundError, SettingsError for a broken line."""
    for part in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        if not (folder / part).is_file():
            raise NotFoundError(str(folder / part))
    try:
        documents = tuple(
            CorpusDocument(row["_id"], (row.get("title") or "").replace("_", " "), row["text"])
            for row in _lines(folder / "corpus.jsonl")
        )
        known = {document.id for document in documents}
        gold: dict[str, set[str]] = {}
        for line in (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]:
            question_id, document_id, score = line.split("\t")
            if float(score) > 0 and document_id in known:
                gold.setdefault(question_id, set()).add(document_id)
        questions = tuple(
            Question(row["_id"], row["text"], frozenset(gold[row["_id"]]))
            for row in _lines(folder / "queries.jsonl")
            if row["_id"] in gold
        )
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{folder.name}: {type(error).__name__} {error}") from error
    return Dataset(folder.name, documents, questions)


def without_accents(text: str) -> str:
    """The text as typed without marks: 'Điều lệ' → 'Dieu le'; case and punctuation stay."""
    decomposed = unicodedata.normalize("NFD", text)
    bare = "".join(c for c in decomposed if not unicodedata.combining(c))
    return bare.replace("đ", "d").replace("Đ", "D")


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)
