"""What official documents say of themselves and of each other, kept beside them in SQLite.

The facts are read from the stored text when a document becomes ready; documents that were there before
(or were read by an older version of the rules) are taken up by `fill`, without reading their files again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from chatbot.database import Database
from chatbot.library.validity import VALIDITY_VERSION, validity_of
from chatbot.types import Fact, Relation, Validity

_UNREAD = "state = 'ready' AND (validity IS NULL OR json_extract(validity, '$.version') < ?)"


@dataclass(frozen=True, slots=True)
class Change:
    """A document of the library that by its own words changes, ends or contains another one."""

    document_id: str
    document: str
    relation: str
    kind: str
    number: str
    effective: str
    """ISO date from which it is in force, '' when it does not say."""


class Register:
    """The facts and relations of one data folder's documents."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unread(self) -> tuple[str, ...]:
        """Ready documents whose text has not been asked yet, or by older rules."""
        rows = self._database.rows(f"SELECT id FROM documents WHERE {_UNREAD}", (VALIDITY_VERSION,))
        return tuple(row["id"] for row in rows)

    def fill(self, document_id: str) -> None:
        """Read the facts from the document's stored text."""
        rows = self._database.rows(
            "SELECT text FROM pages WHERE document_id = ? ORDER BY ordinal", (document_id,)
        )
        validity = validity_of("".join(row["text"] for row in rows))
        with self._database.transaction() as connection:
            write(connection, document_id, validity)

    def kinds(self) -> tuple[str, ...]:
        """The kinds of official documents that the library holds, the commonest first."""
        rows = self._database.rows(
            "SELECT kind FROM documents WHERE kind IS NOT NULL AND deleted_at IS NULL"
            " AND conversation IS NULL GROUP BY kind ORDER BY count(*) DESC, kind"
        )
        return tuple(row["kind"] for row in rows)

    def changes_of(self, document_ids: Sequence[str]) -> dict[str, tuple[Change, ...]]:
        """For each of these documents, what else in the library changes it; the latest first."""
        return self._changes(
            "SELECT b.id AS about, a.*, r.kind AS relation FROM documents b"
            " JOIN relations r ON r.number = b.number JOIN documents a ON a.id = r.document_id",
            document_ids,
        )

    def changed_by(self, document_ids: Sequence[str]) -> dict[str, tuple[Change, ...]]:
        """For each of these documents, what else in the library it changes."""
        return self._changes(
            "SELECT b.id AS about, a.*, r.kind AS relation FROM documents b"
            " JOIN relations r ON r.document_id = b.id JOIN documents a ON a.number = r.number",
            document_ids,
        )

    def _changes(self, select: str, document_ids: Sequence[str]) -> dict[str, tuple[Change, ...]]:
        rows = self._database.rows(
            f"{select} WHERE b.id IN (SELECT value FROM json_each(?)) AND a.id <> b.id"
            " AND a.deleted_at IS NULL AND a.conversation IS NULL"
            " ORDER BY coalesce(a.effective, a.issued, '') DESC, a.name",
            (json.dumps(list(document_ids)),),
        )
        found: dict[str, list[Change]] = {}
        for row in rows:
            known = found.setdefault(row["about"], [])
            if all(change.number != (row["number"] or "") for change in known):
                known.append(
                    Change(row["id"], row["name"], row["relation"], row["kind"] or "",
                           row["number"] or "", row["effective"] or "")
                )  # fmt: skip
        return {document_id: tuple(changes) for document_id, changes in found.items()}


def write(connection: sqlite3.Connection, document_id: str, validity: Validity) -> None:
    """Store a document's facts and relations, inside the caller's transaction."""
    values = {name: value for name, value in asdict(validity).items() if value}
    connection.execute(
        "UPDATE documents SET validity = ? WHERE id = ?",
        (json.dumps({"version": VALIDITY_VERSION, **values}, ensure_ascii=False), document_id),
    )
    connection.execute("DELETE FROM relations WHERE document_id = ?", (document_id,))
    connection.executemany(
        "INSERT OR IGNORE INTO relations SELECT id, ?, ? FROM documents WHERE id = ?",
        ((r.kind, r.number, document_id) for r in validity.relations),
    )


def validity_from(stored: str | None) -> Validity:
    """What `write` stored; nothing where nothing was stored yet."""
    if not stored:
        return Validity()
    values: dict[str, Any] = json.loads(stored)
    relations = tuple(Relation(**relation) for relation in values.pop("relations", ()))
    del values["version"]
    return Validity(**{name: Fact(**fact) for name, fact in values.items()}, relations=relations)


def numbers(changes: Iterable[Change]) -> str:
    """The changing documents in one line: 'Thông tư 06/2024/TT-BLĐTBXH, …'."""
    return ", ".join(f"{change.kind} {change.number}".strip() for change in changes)
