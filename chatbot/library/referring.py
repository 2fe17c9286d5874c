"""From a passage that says 'theo quy định tại Điều 12 của Luật này' to the passages of that article."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from chatbot.database import Database
from chatbot.library.embedders import readable_name
from chatbot.library.legal import Reference, references
from chatbot.text import folded_words
from chatbot.types import Passage

_MOST_FOLLOWED = 4
"""References of one passage that are followed; an enumeration of articles is no pointer to read on."""


def referred(database: Database, passages: Sequence[Passage]) -> list[tuple[str, str]]:
    """(passage that points, passage pointed to), in order, each target once, none of the given passages.

    Followed are articles of the same document, and of library documents with the official number or the
    name that the text gives.
    """
    seen = {passage.id for passage in passages}
    found: list[tuple[str, str]] = []
    for passage in passages:
        for reference in _followed(passage):
            for document in _documents(database, passage, reference):
                for target in _of_article(database, document, reference):
                    if target not in seen:
                        seen.add(target)
                        found.append((passage.id, target))
    return found


def _followed(passage: Passage) -> Iterator[Reference]:
    wanted = dict.fromkeys(
        (r.article, r.clause, r.number, r.name) for r in references(passage.text) if r.article
    )
    for article, clause, number, name in [*wanted][:_MOST_FOLLOWED]:
        yield Reference(0, 0, article, clause, number=number, name=name)


def _documents(database: Database, passage: Passage, reference: Reference) -> list[str]:
    if reference.own:
        return [passage.document_id]
    if reference.number:
        rows = database.rows(
            "SELECT id FROM documents WHERE number = ? AND deleted_at IS NULL"
            " AND conversation IS NULL ORDER BY added_at LIMIT 1",
            (reference.number,),
        )
        return [row["id"] for row in rows]
    wanted = folded_words(reference.name)
    return [
        row["id"]
        for row in database.rows(
            "SELECT id, name, title FROM documents WHERE deleted_at IS NULL"
            " AND conversation IS NULL AND state = 'ready' ORDER BY added_at"
        )
        if wanted in (_called(readable_name(row["name"])), _called(row["title"]))
    ][:1]


def _called(name: str) -> list[str]:
    """A name's words without its year or number."""
    return [word for word in folded_words(name) if not word.isdigit()]


def _of_article(database: Database, document: str, reference: Reference) -> list[str]:
    """The passages of that article, the clause's own where the article is in several pieces."""
    rows = database.rows(
        "SELECT id, path FROM passages WHERE document_id = ? AND (path LIKE ? OR path LIKE ?)"
        " ORDER BY ordinal",
        (document, f"%Điều {reference.article}%", f"%Article {reference.article}%"),
    )
    article = re.compile(rf"(?:^|› )(?:Điều|Article) {re.escape(reference.article)}\b")
    inside: list[Any] = [row for row in rows if article.search(row["path"])]
    if reference.clause:
        exact = [row for row in inside if _has_clause(row["path"], reference.clause)]
        inside = exact or inside
    return [row["id"] for row in inside[:1]]


def _has_clause(path: str, clause: str) -> bool:
    match = re.search(r"(?:Khoản|Clause) (\d+)(?:–(\d+))?", path)
    return bool(
        match and clause.isdigit() and int(match[1]) <= int(clause) <= int(match[2] or match[1])
    )
