"""The trash: documents that were removed and can come back, until they are erased for good."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from chatbot.database import Database
from chatbot.failpoints import failpoint
from chatbot.library.collections import forget_removed
from chatbot.library.documents import document_of
from chatbot.library.originals import Originals
from chatbot.types import Document

_BATCH = 500


class Trash:
    """What was removed, of the library and of conversations."""

    def __init__(self, database: Database, originals: Originals) -> None:
        self._database = database
        self._originals = originals

    def put(self, *document_ids: str) -> None:
        """Take documents out of the library; `restore` brings them back, `purge` ends them."""
        self._database.execute(
            "UPDATE documents SET deleted_at = ? WHERE deleted_at IS NULL"
            " AND id IN (SELECT value FROM json_each(?))",
            (time.time(), json.dumps(document_ids)),
        )

    def restore(self, *document_ids: str) -> tuple[str, ...]:
        """Bring documents back from the trash; returns the ids of those that came back.

        One whose content was added again meanwhile stays in the trash.
        """
        ids = json.dumps(document_ids)
        with self._database.transaction() as connection:
            rows = connection.execute(
                "UPDATE OR IGNORE documents SET deleted_at = NULL WHERE deleted_at IS NOT NULL"
                " AND id IN (SELECT value FROM json_each(?)) RETURNING id",
                (ids,),
            ).fetchall()
            connection.execute(
                "DELETE FROM removed_collections WHERE name IN (SELECT collection FROM documents"
                " WHERE deleted_at IS NULL AND id IN (SELECT value FROM json_each(?)))",
                (ids,),
            )
        return tuple(r["id"] for r in rows)

    def purge(self, *document_ids: str, on_progress: Callable[[float], None] | None = None) -> bool:
        """Erase documents for good: rows, text, vectors, originals, and their traces in the log.

        Returns whether any of them had passages, which an index may still hold.
        """
        had_passages = False
        for start in range(0, len(document_ids), _BATCH):
            batch = document_ids[start : start + _BATCH]
            with self._database.transaction() as connection:
                gone = connection.execute(
                    "DELETE FROM documents WHERE id IN (SELECT value FROM json_each(?))"
                    " RETURNING sha256, passages",
                    (json.dumps(batch),),
                ).fetchall()
                forget_removed(connection)
            failpoint("purged-rows")
            self._originals.drop(r["sha256"] for r in gone)
            had_passages |= any(r["passages"] for r in gone)
            if on_progress:
                on_progress((start + len(batch)) / len(document_ids))
        failpoint("purged-files")
        self._database.forget()
        return had_passages

    def documents(self, limit: int = -1) -> tuple[Document, ...]:
        """Documents of the library that were removed, the latest first."""
        rows = self._database.rows(
            "SELECT * FROM documents WHERE deleted_at IS NOT NULL AND conversation IS NULL"
            " ORDER BY deleted_at DESC, name LIMIT ?",
            (limit,),
        )
        return tuple(map(document_of, rows))

    def ids(self, older_than: float = 0.0, *, library_only: bool = False) -> tuple[str, ...]:
        """The ids of what was removed at least that many seconds ago, files of conversations or not."""
        only = " AND conversation IS NULL" if library_only else ""
        rows = self._database.rows(
            f"SELECT id FROM documents WHERE deleted_at <= ?{only}", (time.time() - older_than,)
        )
        return tuple(r["id"] for r in rows)
