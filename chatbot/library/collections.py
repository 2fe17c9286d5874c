"""Collections: the named groups that documents are in."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass

from chatbot.database import Database
from chatbot.errors import CollectionError
from chatbot.i18n import N_
from chatbot.library.documents import label

NAME_TAKEN = N_("there is one of that name, or it is no name")


@dataclass(frozen=True, slots=True)
class Collection:
    """A named group of documents, with how much is in it."""

    name: str
    documents: int
    passages: int


class Collections:
    """All collections of the library."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> tuple[Collection, ...]:
        """Every collection with the number of its documents and passages, by name."""
        rows = self._database.rows(
            "SELECT name, count(id) AS documents, coalesce(sum(passages), 0) AS passages FROM collections"
            " LEFT JOIN (SELECT id, collection, passages FROM documents"
            "            WHERE deleted_at IS NULL AND conversation IS NULL) ON collection = name"
            " WHERE name NOT IN (SELECT name FROM removed_collections) GROUP BY name ORDER BY name"
        )
        return tuple(Collection(r["name"], r["documents"], r["passages"]) for r in rows)

    def add(self, name: str) -> str:
        """Make an empty collection of that name, as people will see it; nothing happens when it exists."""
        name = label(name)
        with self._database.transaction() as connection:
            ensure(connection, name)
        return name

    def rename(self, old: str, new: str) -> str:
        """Give a collection another name. Raises CollectionError when that is taken or not a name."""
        new = label(new)
        if new == old:
            return new
        if new == "?" or new in {c.name for c in self.all()}:
            raise CollectionError(NAME_TAKEN, name=new)
        with self._database.transaction() as connection:
            ensure(connection, new)
            for table in ("documents", "linked_folders"):
                connection.execute(
                    f"UPDATE {table} SET collection = ? WHERE collection = ?", (new, old)
                )
            connection.execute("DELETE FROM collections WHERE name = ?", (old,))
        return new

    def remove(self, name: str) -> tuple[str, ...]:
        """Take a collection away and its documents to the trash; restoring one brings it back.

        Returns the ids of the documents.
        """
        with self._database.transaction() as connection:
            rows = connection.execute(
                "UPDATE documents SET deleted_at = ? WHERE collection = ? AND deleted_at IS NULL"
                " RETURNING id",
                (time.time(), name),
            ).fetchall()
            connection.execute(
                "INSERT OR IGNORE INTO removed_collections SELECT name, ? FROM collections WHERE name = ?",
                (time.time(), name),
            )
            forget_removed(connection)
        return tuple(r["id"] for r in rows)

    def move(self, document_ids: Sequence[str], collection: str) -> tuple[str, ...]:
        """Take documents into another collection as they are: nothing is copied, read or embedded anew.

        Returns the ids of those that the collection holds already with the same content; they are in
        the trash now.
        """
        ids, now = json.dumps(list(document_ids)), time.time()
        chosen = "id IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL AND collection <> ?"
        with self._database.transaction() as connection:
            ensure(connection, collection)
            connection.execute(
                f"UPDATE OR IGNORE documents SET collection = ? WHERE {chosen}",
                (collection, ids, collection),
            )
            doubles = connection.execute(
                f"UPDATE documents SET deleted_at = ? WHERE {chosen} RETURNING id",
                (now, ids, collection),
            ).fetchall()
        return tuple(r["id"] for r in doubles)

    def size(self, collection: str) -> int:
        """Bytes of the originals in that collection."""
        row = self._database.rows(
            "SELECT coalesce(sum(size), 0) FROM documents WHERE collection = ? AND deleted_at IS NULL"
            " AND conversation IS NULL",
            (collection,),
        )
        return int(row[0][0])


def ensure(connection: sqlite3.Connection, name: str) -> None:
    """Make the collection unless there is one of that name; one that was removed is there again."""
    connection.execute("INSERT OR IGNORE INTO collections VALUES (?, ?)", (name, time.time()))
    connection.execute("DELETE FROM removed_collections WHERE name = ?", (name,))


def forget_removed(connection: sqlite3.Connection) -> None:
    """Forget collections that were removed and whose last document is gone for good."""
    connection.execute(
        "DELETE FROM collections WHERE name IN (SELECT name FROM removed_collections)"
        " AND name NOT IN (SELECT collection FROM documents)"
    )
