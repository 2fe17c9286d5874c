"""Which folders are linked, and what each of their files was when it was last taken in: rows in SQLite."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chatbot.database import Database
from chatbot.errors import ChatbotError, NotFoundError
from chatbot.library.changes import Borne, Changes, Known, Seen

FolderState = Literal["looking", "reading", "current", "paused", "unreachable", "failed"]

UNSETTLED = -1
"""The time of a file that had changed just before it was taken in: it may change again unnoticed."""
_GRAIN_NS = 2_000_000_000
"""The coarsest clock of a file system in use (FAT): within it, a change may leave the time as it was."""
_IN_LIBRARY = (
    "JOIN documents d ON d.origin = f.path AND d.collection = l.collection"
    " AND d.deleted_at IS NULL AND d.conversation IS NULL"
)


@dataclass(frozen=True, slots=True)
class LinkedFolder:
    """A folder kept in sync: `files` there, `unread` of them, `missing` ones that wait for review."""

    id: str
    path: str
    collection: str
    added_at: float
    synced_at: float | None
    paused: bool
    device: str
    files: int = 0
    unread: int = 0
    missing: int = 0
    state: FolderState = "current"
    error: ChatbotError | None = None
    """Why the last look failed."""


@dataclass(frozen=True, slots=True)
class MissingFile:
    """A file that is gone from its folder, and the documents that are left of it."""

    path: str
    since: float
    documents: tuple[str, ...]


class Links:
    """The linked folders of one data folder."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, path: Path, collection: str) -> LinkedFolder:
        """Note the link; one that is there already comes back as it is, whatever its collection."""
        self._database.execute(
            "INSERT OR IGNORE INTO linked_folders (id, path, collection, added_at, device)"
            " VALUES (?, ?, ?, ?, ?)",
            (uuid.uuid4().hex, str(path), collection, time.time(), str(path.stat().st_dev)),
        )
        return self.at(path)

    def remove(self, folder_id: str) -> None:
        """Forget the link and its files; documents are not touched."""
        self._database.execute("DELETE FROM linked_folders WHERE id = ?", (folder_id,))

    def change(self, folder_id: str, **values: str | float | bool) -> None:
        """Set columns of a link."""
        columns = ", ".join(f"{name} = ?" for name in values)
        self._database.execute(
            f"UPDATE linked_folders SET {columns} WHERE id = ?", (*values.values(), folder_id)
        )

    def get(self, folder_id: str) -> LinkedFolder:
        """That link. Raises NotFoundError."""
        for folder in self.list():
            if folder.id == folder_id:
                return folder
        raise NotFoundError(folder_id)

    def at(self, path: Path) -> LinkedFolder:
        """The link of the folder at that path. Raises NotFoundError."""
        for folder in self.list():
            if folder.path == str(path):
                return folder
        raise NotFoundError(str(path))

    def missing(self, folder_id: str) -> tuple[MissingFile, ...]:
        """Files that are gone from the folder while their documents are still in the library."""
        rows = self._database.rows(
            "SELECT f.path, f.missing_since, group_concat(d.id) AS documents FROM linked_files f"
            f" JOIN linked_folders l ON l.id = f.folder_id {_IN_LIBRARY}"
            " WHERE l.id = ? AND f.missing_since IS NOT NULL GROUP BY f.path ORDER BY f.path",
            (folder_id,),
        )
        return tuple(
            MissingFile(r["path"], r["missing_since"], tuple(r["documents"].split(",")))
            for r in rows
        )

    def let_go_of_missing(self, folder_id: str, paths: Sequence[str]) -> None:
        """These missing files are reviewed: the folder has no more say in their documents."""
        self._database.execute(
            "DELETE FROM linked_files WHERE folder_id = ? AND missing_since IS NOT NULL"
            " AND path IN (SELECT value FROM json_each(?))",
            (folder_id, json.dumps(paths)),
        )

    def known(self, folder: LinkedFolder) -> dict[str, Known]:
        """Each file of the folder as it was taken in, by its path."""
        rows = self._database.rows("SELECT * FROM linked_files WHERE folder_id = ?", (folder.id,))
        return {
            r["path"]: Known(r["size"], r["mtime_ns"], r["sha256"], r["missing_since"] is not None)
            for r in rows
        }

    def documents(self, folder: LinkedFolder) -> list[Borne]:
        """The documents of the folder's collection that bear a path in the folder."""
        root = beneath(folder.path)
        rows = self._database.rows(
            "SELECT id, origin, sha256 FROM documents WHERE collection = ? AND origin IS NOT NULL"
            " AND deleted_at IS NULL AND conversation IS NULL",
            (folder.collection,),
        )
        return [Borne(*row) for row in rows if str(row["origin"]).startswith(root)]

    def elsewhere(self, folder: LinkedFolder) -> dict[str, str]:
        """Contents that other linked folders hold for the same collection, and where."""
        rows = self._database.rows(
            "SELECT f.sha256, f.path FROM linked_files f JOIN linked_folders l ON l.id = f.folder_id"
            " WHERE l.id <> ? AND l.collection = ? AND f.missing_since IS NULL AND f.sha256 <> ''",
            (folder.id, folder.collection),
        )
        return {r["sha256"]: r["path"] for r in rows}

    def holds(self, path: str | None, sha256: str, collection: str) -> bool:
        """Whether a folder linked for the collection has that content at that path."""
        found = self._database.row(
            "SELECT 1 FROM linked_files f JOIN linked_folders l ON l.id = f.folder_id"
            " WHERE f.path = ? AND f.sha256 = ? AND f.missing_since IS NULL AND l.collection = ?",
            (path, sha256, collection),
        )
        return found is not None

    def existing(self, document_ids: Sequence[str]) -> set[str]:
        """Those of the documents that have not been replaced or erased."""
        rows = self._database.rows(
            "SELECT id FROM documents WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(document_ids),),
        )
        return {r["id"] for r in rows}

    def apply(self, folder: LinkedFolder, changes: Changes) -> None:
        """Drop what was renamed or forgotten and mark what is missing."""
        with self._database.transaction() as connection:
            connection.executemany(
                "DELETE FROM linked_files WHERE folder_id = ? AND path = ?",
                ((folder.id, path) for path in (*changes.renamed, *changes.forgotten)),
            )
            connection.executemany(
                "UPDATE linked_files SET missing_since = ?"
                " WHERE folder_id = ? AND path = ? AND missing_since IS NULL",
                ((time.time(), folder.id, path) for path in changes.missing),
            )

    def note(
        self, folder: LinkedFolder, files: Iterable[tuple[str, Seen, str]], looked_at: int
    ) -> None:
        """Files as they were at `looked_at` (ns since the epoch): path, size and time, content."""
        # A file that changed a moment ago may change again within the same tick of the clock. For a refused
        # one that does not matter: it is judged by its first bytes.
        rows = (
            (folder.id, path, seen.size, seen.mtime_ns, sha256)
            if not sha256 or abs(looked_at - seen.mtime_ns) > _GRAIN_NS
            else (folder.id, path, seen.size, UNSETTLED, sha256)
            for path, seen, sha256 in files
        )
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO linked_files (folder_id, path, size, mtime_ns, sha256)"
                " SELECT ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM linked_folders WHERE id = ?)",
                ((*row, folder.id) for row in rows),
            )

    # Last, because inside the class its name hides the built-in type.
    def list(self) -> list[LinkedFolder]:
        """Every link by its path, with how many files it has."""
        rows = self._database.rows(
            "SELECT l.*, (SELECT count(*) FROM linked_files f"
            "  WHERE f.folder_id = l.id AND f.missing_since IS NULL) AS files,"
            f" (SELECT count(*) FROM linked_files f {_IN_LIBRARY}"
            "  WHERE f.folder_id = l.id AND d.state IN ('waiting', 'reading')) AS unread,"
            f" (SELECT count(DISTINCT f.path) FROM linked_files f {_IN_LIBRARY}"
            "  WHERE f.folder_id = l.id AND f.missing_since IS NOT NULL) AS missing"
            " FROM linked_folders l ORDER BY l.path"
        )
        return [LinkedFolder(**{**dict(row), "paused": bool(row["paused"])}) for row in rows]


def beneath(folder: str) -> str:
    """What the paths of everything in a folder begin with."""
    return str(Path(folder) / "_")[:-1]
