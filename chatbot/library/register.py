"""What official documents say of themselves and of each other, kept beside them in SQLite.

The facts are read from the stored text when a document becomes ready; documents that were there before
(or were read by an older version of the rules) are taken up by `fill`, without reading their files again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from chatbot.database import Database
from chatbot.library.validity import CONSOLIDATED, VALIDITY_VERSION, validity_of
from chatbot.types import Fact, Relation, RelationKind, Validity

_UNREAD = "state = 'ready' AND (validity IS NULL OR json_extract(validity, '$.version') < ?)"


@dataclass(frozen=True, slots=True)
class Change:
    """A document of the library that is tied to another one by the words of either."""

    document_id: str
    document: str
    relation: RelationKind
    kind: str
    number: str
    effective: str
    """ISO date from which the changing document is in force, '' when it does not say."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a document stands: what it is, since when it holds, what in the library changes it.

    Dates are ISO; '' stands for what it does not say.
    """

    kind: str
    number: str
    effective: str
    expires: str
    changes: tuple[Change, ...]
    """The latest first."""

    def has_ended(self, day: str) -> bool:
        """Whether it is known to be no longer in force on that day (ISO)."""
        ended = (c.effective for c in self.changes if c.relation in ("replaces", "repeals"))
        return bool(self.expires and self.expires < day) or any(e and e <= day for e in ended)

    def is_to_come(self, day: str) -> bool:
        """Whether it is known not to be in force yet on that day (ISO)."""
        return self.effective > day


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

    def standing(self, document_ids: Sequence[str]) -> dict[str, Standing]:
        """How those of these documents stand that say anything of themselves or are changed by others."""
        changes = self._tied(
            document_ids, "r.number = b.number JOIN documents a ON a.id = r.document_id"
        )
        rows = self._database.rows(
            "SELECT id, kind, number, effective, expires FROM documents WHERE validity IS NOT NULL"
            " AND id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(document_ids)),),
        )
        return {
            row["id"]: Standing(
                row["kind"] or "",
                row["number"] or "",
                row["effective"] or "",
                row["expires"] or "",
                changes.get(row["id"], ()),
            )
            for row in rows
            if row["number"] or row["effective"]
        }

    def changed_by(self, document_id: str) -> tuple[Change, ...]:
        """What else in the library this document changes, ends or contains."""
        tied = self._tied(
            [document_id], "r.document_id = b.id JOIN documents a ON a.number = r.number"
        )
        return tied.get(document_id, ())

    def _tied(self, document_ids: Sequence[str], how: str) -> dict[str, tuple[Change, ...]]:
        rows = self._database.rows(
            "SELECT b.id AS about, a.id, a.name, a.kind, a.number, a.effective, r.kind AS relation"
            f" FROM documents b JOIN relations r ON {how}"
            " WHERE b.id IN (SELECT value FROM json_each(?)) AND a.id <> b.id"
            " AND a.deleted_at IS NULL AND a.conversation IS NULL"
            " ORDER BY coalesce(a.effective, a.issued, '') DESC, a.name",
            (json.dumps(list(document_ids)),),
        )
        found: dict[str, dict[str, Change]] = {}
        for row in rows:
            number = row["number"] or ""
            # Two copies of one document are one change.
            found.setdefault(row["about"], {}).setdefault(
                number or row["id"],
                Change(row["id"], row["name"], row["relation"], row["kind"] or "", number,
                       row["effective"] or ""),
            )  # fmt: skip
        return {about: tuple(changes.values()) for about, changes in found.items()}


def in_force(table: str) -> str:
    """The SQL condition on documents under that name to be in force on a day, which fills each '?'.

    By their own words, and by those of the library's documents that end them; a consolidated text holds
    from the day it was signed. What does not say since when it holds does not pass.
    """
    return (
        f"coalesce({table}.effective, iif({table}.kind = '{CONSOLIDATED}', {table}.issued, NULL)) <= ?"
        f" AND ({table}.expires IS NULL OR {table}.expires >= ?)"
        " AND NOT EXISTS (SELECT 1 FROM relations r JOIN documents e ON e.id = r.document_id"
        f" WHERE r.number = {table}.number AND r.kind IN ('replaces', 'repeals') AND e.effective <= ?"
        " AND e.deleted_at IS NULL AND e.conversation IS NULL)"
    )


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
    facts = {
        name: Fact(fact["value"], fact["start"], fact["end"])
        for name, fact in values.items()
        if name not in ("version", "relations")
    }
    relations = (
        Relation(r["kind"], r["number"], r["start"], r["end"]) for r in values.get("relations", ())
    )
    return Validity(**facts, relations=tuple(relations))
