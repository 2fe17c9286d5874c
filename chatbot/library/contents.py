"""What was read of documents: their pages, the passages these are cut into, and the passages' vectors."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chatbot.database import Database
from chatbot.errors import NotFoundError
from chatbot.library.chunking import Draft
from chatbot.types import Heading, PageText, Passage

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class PageSpan:
    """A page, counted from 0, as a span of the document's text; `number` is None where pages mean nothing.

    `anchored` says whether it is known where its words stand on it.
    """

    ordinal: int
    number: int | None
    start: int
    end: int
    anchored: bool


class Contents:
    """The text of documents that were read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def text(self, document_id: str) -> str:
        """The document's whole text; passages' offsets count in it."""
        return "".join(page.text for page in self.pages(document_id))

    def pages(self, document_id: str) -> tuple[PageText, ...]:
        """The document's pages in order."""
        rows = self._database.rows(
            "SELECT text, number FROM pages WHERE document_id = ? ORDER BY ordinal", (document_id,)
        )
        return tuple(PageText(r["text"], r["number"]) for r in rows)

    def page_spans(self, document_id: str) -> tuple[PageSpan, ...]:
        """Which part of the document's text each of its pages holds."""
        rows = self._database.rows(
            "SELECT ordinal, number, start, start + length(text) AS end, anchors IS NOT NULL AS anchored"
            " FROM pages WHERE document_id = ? ORDER BY ordinal",
            (document_id,),
        )
        return tuple(
            PageSpan(r["ordinal"], r["number"], r["start"], r["end"], bool(r["anchored"]))
            for r in rows
        )

    def anchors(self, document_id: str, ordinal: int) -> bytes:
        """Where the words of that page stand, for `library.anchors`; b"" where it is not known."""
        row = self._database.row(
            "SELECT anchors FROM pages WHERE document_id = ? AND ordinal = ?",
            (document_id, ordinal),
        )
        return (row and row["anchors"]) or b""

    def headings(self, document_id: str) -> tuple[Heading, ...]:
        """The lines that the source itself marks as headings."""
        row = self._database.row("SELECT headings FROM documents WHERE id = ?", (document_id,))
        try:
            stored = json.loads((row and row["headings"]) or "[]")
            return tuple(Heading(int(s), int(e), int(level)) for s, e, level in stored)
        except (ValueError, TypeError):  # a collection that came from elsewhere may hold anything
            return ()

    def passages(self, document_id: str) -> tuple[Passage, ...]:
        """All passages of the document in order; joined, they are its text."""
        rows = self._database.rows(
            "SELECT * FROM passages WHERE document_id = ? ORDER BY ordinal", (document_id,)
        )
        return tuple(map(_passage, rows))

    def passages_by_id(self, passage_ids: Sequence[str]) -> dict[str, Passage]:
        """Those passages that still exist, of documents that are not in the trash."""
        rows = self._database.rows(
            "SELECT passages.* FROM passages JOIN documents ON documents.id = document_id"
            " WHERE deleted_at IS NULL AND passages.id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(passage_ids)),),
        )
        return {r["id"]: _passage(r) for r in rows}

    def neighbours(
        self, passage_id: str, before: int = 1, after: int = 1
    ) -> tuple[tuple[Passage, ...], Passage, tuple[Passage, ...]]:
        """The passages before it, itself, those after it. Raises NotFoundError."""
        found = self.passages_by_id([passage_id])
        if passage_id not in found:
            raise NotFoundError(passage_id)
        passage = found[passage_id]
        rows = self._database.rows(
            "SELECT * FROM passages WHERE document_id = ? AND ordinal BETWEEN ? AND ? ORDER BY ordinal",
            (passage.document_id, passage.ordinal - before, passage.ordinal + after),
        )
        around = [_passage(r) for r in rows]
        return (
            tuple(p for p in around if p.ordinal < passage.ordinal),
            passage,
            tuple(p for p in around if p.ordinal > passage.ordinal),
        )


def insert_pages(
    connection: sqlite3.Connection, document_id: str, pages: Sequence[PageText]
) -> None:
    """Store the pages of a document that has none."""
    connection.executemany(
        "INSERT INTO pages (document_id, ordinal, number, start, text, anchors)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        _page_rows(document_id, pages),
    )


def _page_rows(document_id: str, pages: Sequence[PageText]) -> Iterator[tuple[object, ...]]:
    start = 0
    for ordinal, page in enumerate(pages):
        yield document_id, ordinal, page.number, start, page.text, page.anchors
        start += len(page.text)


def insert_passages(
    connection: sqlite3.Connection, document_id: str, ids: Sequence[str], drafts: Sequence[Draft]
) -> None:
    """Store the passages of a document that has none, under these ids."""
    connection.executemany(
        'INSERT INTO passages (id, document_id, ordinal, text, start, "end", page, path)'
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (passage_id, document_id, n, d.text, d.start, d.end, d.page, d.path)
            for n, (passage_id, d) in enumerate(zip(ids, drafts, strict=True))
        ),
    )


def insert_vectors(
    connection: sqlite3.Connection, passage_ids: Sequence[str], stamp: str, vectors: np.ndarray
) -> None:
    """Store what the embedder of that stamp made of the passages: one row of `vectors` for each."""
    connection.executemany(
        "INSERT INTO vectors VALUES (?, ?, ?)",
        (
            (passage_id, stamp, vector.astype("<f4").tobytes())
            for passage_id, vector in zip(passage_ids, vectors, strict=True)
        ),
    )


def _passage(row: sqlite3.Row) -> Passage:
    return Passage(
        id=row["id"],
        document_id=row["document_id"],
        ordinal=row["ordinal"],
        text=row["text"],
        start=row["start"],
        end=row["end"],
        page=row["page"],
        path=row["path"],
    )
