"""Documents on disk: originals under their hash, everything else in SQLite, the truth.

A document is acknowledged when its original lies synced in `files/` and its row is committed; it is
ready when its pages, passages and vectors were committed in one transaction. Nothing in between can be
seen, and what a crash leaves in `files/` or half-read is cleared or taken up again at the next start.
"""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from chatbot.database import Database
from chatbot.errors import ChatbotError, NotFoundError
from chatbot.failpoints import failpoint
from chatbot.library import register
from chatbot.library.bundle import Column, columns
from chatbot.library.chunking import Draft
from chatbot.library.collections import Collections, ensure
from chatbot.library.contents import (
    Contents,
    insert_pages,
    insert_passages,
    insert_vectors,
)
from chatbot.library.documents import CONTROL, document_of, label
from chatbot.library.listing import Listing
from chatbot.library.originals import SPARE_BYTES, Originals, hash_of, telling_full_disk
from chatbot.library.readers import Reading
from chatbot.library.trash import Trash
from chatbot.library.validity import validity_of
from chatbot.settings import Paths
from chatbot.text import nfc
from chatbot.types import Document

if TYPE_CHECKING:
    import numpy as np

_LONGEST_PLACE = 1000
_TABLES = ("documents", "pages", "passages")
_SAME_PLACE = (
    "collection = ? AND coalesce(conversation, '') = coalesce(?, '') AND deleted_at IS NULL"
)


@dataclass(frozen=True, slots=True)
class Tally:
    """How many documents the library has, and how many of them are ready or still unread."""

    documents: int
    ready: int
    unread: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What keeping a file did: the document that holds it, whether it is new, whom it put out of date."""

    document: Document
    new: bool
    superseded: tuple[str, ...] = ()


class DocumentStore:
    """All documents of one data folder; only the folder's owner may open it.

    Its parts: `originals` on the disk, `contents` as they were read, `collections`, and the `trash`.
    """

    def __init__(self, database: Database, paths: Paths, spare_bytes: int = SPARE_BYTES) -> None:
        """Open the store and clear what an interrupted run left behind in `files/`."""
        self._database = database
        self.originals = Originals(database, paths, spare_bytes)
        self.contents = Contents(database)
        self.collections = Collections(database)
        self.trash = Trash(database, self.originals)

    # --- adding -----------------------------------------------------------------------------

    def keep(
        self,
        source: Path | bytes | IO[bytes],
        name: str,
        collection: str = "documents",
        conversation: str | None = None,
    ) -> Kept:
        """Copy a file into the store and acknowledge it as a waiting document.

        A file of an uploaded folder has its path in there as its name, by which its next version is known.
        Content that the collection already holds is not stored again: its document comes back, taken up
        anew if it had failed. Raises DiskFullError with nothing stored.
        """
        origin = (
            str(Path(source).absolute()) if isinstance(source, Path) else _place_in_folder(name)
        )
        with telling_full_disk():
            if isinstance(source, Path):
                known = self._known(hash_of(source), collection, conversation, origin)
                if known:
                    return known
                size = source.stat().st_size
                self.originals.require_room(size)
                with source.open("rb") as stream:
                    sha256, size = self.originals.add(stream)
            else:
                self.originals.require_room(len(source) if isinstance(source, bytes) else 0)
                content = io.BytesIO(source) if isinstance(source, bytes) else source
                sha256, size = self.originals.add(content)
                known = self._known(sha256, collection, conversation, origin)
                if known:
                    return known
        failpoint("stored")
        document_id = self._insert(label(name), collection, conversation, origin, sha256, size)
        failpoint("acknowledged")
        return Kept(self.get(document_id), new=True)

    def refuse(
        self,
        name: str,
        error: ChatbotError,
        origin: Path | None = None,
        collection: str = "documents",
        conversation: str | None = None,
    ) -> Document:
        """A failed document without an original, so that the person sees what was not taken and why."""
        place = str(origin.absolute()) if origin else None
        failure = error.to_json()
        document_id = self._insert(
            label(name), collection, conversation, place, "", 0, state="failed", error=failure
        )
        return self.get(document_id)

    def _known(
        self, sha256: str, collection: str, conversation: str | None, origin: str | None
    ) -> Kept | None:
        row = self._database.row(
            f"SELECT * FROM documents WHERE sha256 = ? AND {_SAME_PLACE}",
            (sha256, collection, conversation),
        )
        if row is None:
            return None
        if row["state"] == "failed":
            self.take_up_again(row["id"])
        superseded: tuple[str, ...] = ()
        if origin:
            # What else bears that path is out of date, but for a version that answers until this one is ready.
            stale = self._database.rows(
                f"SELECT id FROM documents WHERE origin = ? AND id <> ? AND {_SAME_PLACE}"
                " AND (? OR added_at > ?)",
                (
                    *(origin, row["id"], collection, conversation),
                    origin != row["origin"] or row["state"] == "ready",
                    row["added_at"],
                ),
            )
            superseded = tuple(r["id"] for r in stale)
        return Kept(self.get(row["id"]), new=False, superseded=superseded)

    def _insert(
        self,
        name: str,
        collection: str,
        conversation: str | None,
        origin: str | None,
        sha256: str,
        size: int,
        state: str = "waiting",
        error: str | None = None,
    ) -> str:
        document_id = uuid.uuid4().hex
        now = time.time()
        with self._database.transaction() as connection:
            ensure(connection, collection)
            # What was waiting under the same name and never became ready has nothing to answer with.
            same, values = _same_file(name, origin)
            connection.execute(
                f"DELETE FROM documents WHERE {same} AND {_SAME_PLACE} AND passages = 0",
                (*values, collection, conversation),
            )
            connection.execute(
                "INSERT INTO documents (id, collection, name, sha256, media_type, size, state, error,"
                " added_at, origin, conversation) VALUES (?, ?, ?, ?, '', ?, ?, ?, ?, ?, ?)",
                (document_id, collection, name, sha256, size, state, error, now, origin, conversation),
            )  # fmt: skip
        return document_id

    def take_in(
        self,
        row: Mapping[str, Any],
        pages: Sequence[Mapping[str, Any]],
        passages: Sequence[Mapping[str, Any]],
        vectors: tuple[str, np.ndarray] | None,
        original: IO[bytes],
    ) -> Document | None:
        """Store a document that was read elsewhere, with its rows as they are and (stamp, vectors).

        All of it or nothing; None when the collection holds its content already. The rows were checked
        (importing.py); the id stays where it is free here. Raises NotFoundError for another original.
        """
        collection, sha256 = row["collection"], row["sha256"]
        if self._known(sha256, collection, None, None):
            return None
        copied, size = self.originals.add(original)
        if copied != sha256:
            raise NotFoundError(sha256)
        failpoint("stored")
        validity = validity_of("".join(page["text"] for page in pages))
        with self._database.transaction() as connection:
            taken = connection.execute("SELECT 1 FROM documents WHERE id = ?", (row["id"],))
            document_id = uuid.uuid4().hex if taken.fetchone() else row["id"]
            ensure(connection, collection)
            counted = {"size": size, "pages": len(pages), "passages": len(passages)}
            _insert_row(connection, "documents", {**row, "id": document_id, **counted})
            for page in pages:
                _insert_row(connection, "pages", {**page, "document_id": document_id})
            parts = [(passage["path"], passage["text"]) for passage in passages]
            ids = _passage_ids(document_id, parts, row.get("title", ""))
            for passage_id, passage in zip(ids, passages, strict=True):
                values = {**passage, "id": passage_id, "document_id": document_id}
                _insert_row(connection, "passages", values)
            failpoint("half-taken-in")
            if row["state"] == "ready":
                register.write(connection, document_id, validity)
            if vectors is not None:
                insert_vectors(connection, ids, *vectors)
        failpoint("taken-in")
        return self.get(document_id)

    def columns(self) -> dict[str, dict[str, Column]]:
        """The columns of documents, pages and passages that mean the same on another PC."""
        with self._database.transaction() as connection:
            return {table: columns(connection, table) for table in _TABLES}

    # --- reading ----------------------------------------------------------------------------

    def begin(self, document_id: str) -> Document:
        """Note that the document is being read. Raises NotFoundError."""
        document = self.get(document_id)
        self._database.execute(
            "UPDATE documents SET state = 'reading' WHERE id = ?", (document_id,)
        )
        return document

    def commit(
        self, document_id: str, reading: Reading, stamp: str, vectors: np.ndarray | None
    ) -> tuple[str, ...]:
        """Store pages, passages and vectors and make the document ready, in one transaction.

        `vectors` has one row per passage, None when there is no embedder. Returns the ids of the
        documents that this one replaces: older ready ones of the same origin, or of the same name
        where there is no origin; they are gone with the same transaction. Raises NotFoundError when the
        document was removed meanwhile, DiskFullError with nothing changed.
        """
        drafts, pages = reading.passages, reading.document.pages
        assert vectors is None or len(vectors) == len(drafts)
        validity = validity_of("".join(page.text for page in pages))
        characters = sum(len(p.text) for p in pages)
        self.originals.require_room(
            characters * 6 + (vectors.nbytes * 2 if vectors is not None else 0)
        )
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT * FROM documents WHERE id = ? AND deleted_at IS NULL", (document_id,)
            ).fetchone()
            if row is None:
                raise NotFoundError(document_id)
            connection.execute("DELETE FROM pages WHERE document_id = ?", (document_id,))
            connection.execute("DELETE FROM passages WHERE document_id = ?", (document_id,))
            insert_pages(connection, document_id, pages)
            ids = _passage_ids(document_id, _parts(drafts), reading.document.title)
            insert_passages(connection, document_id, ids, drafts)
            failpoint("half-committed")
            if vectors is not None:
                insert_vectors(connection, ids, stamp, vectors)
            connection.execute(
                "UPDATE documents SET state = 'ready', error = NULL, pages = ?, passages = ?, language = ?,"
                " warning = ?, title = ?, media_type = ?, headings = ?, cut = ? WHERE id = ?",
                (len(pages), len(drafts), reading.language, reading.document.warning,
                 reading.document.title, reading.document.media_type,
                 json.dumps([[h.start, h.end, h.level] for h in reading.document.headings]),
                 reading.cut, document_id),
            )  # fmt: skip
            register.write(connection, document_id, validity)
            same, values = _same_file(row["name"], row["origin"])
            replaced = connection.execute(
                f"SELECT id, sha256 FROM documents WHERE {same} AND {_SAME_PLACE}"
                " AND id <> ? AND added_at <= ?",
                (*values, row["collection"], row["conversation"], document_id, row["added_at"]),
            ).fetchall()
            connection.executemany(
                "DELETE FROM documents WHERE id = ?", ((r["id"],) for r in replaced)
            )
            failpoint("before-commit")
        self.originals.drop(r["sha256"] for r in replaced)
        if replaced:
            self._database.forget()
        return tuple(r["id"] for r in replaced)

    def cut_otherwise(self, cut: str) -> tuple[str, ...]:
        """Ready documents whose passages were cut by other rules than these (window.cut_by)."""
        rows = self._database.rows(
            "SELECT id FROM documents WHERE state = 'ready' AND passages > 0 AND cut <> ?"
            " AND deleted_at IS NULL ORDER BY added_at, rowid",
            (cut,),
        )
        return tuple(r["id"] for r in rows)

    def recut(
        self,
        document_id: str,
        drafts: Sequence[Draft],
        cut: str,
        stamp: str,
        vectors: np.ndarray | None,
    ) -> None:
        """Put other passages of the same text in place of the document's, in one transaction.

        Raises NotFoundError when the document was removed or is being read anew, DiskFullError.
        """
        if vectors is not None:
            self.originals.require_room(vectors.nbytes * 2)
        ids = _passage_ids(document_id, _parts(drafts), cut)
        with self._database.transaction() as connection:
            changed = connection.execute(
                "UPDATE documents SET passages = ?, cut = ? WHERE id = ? AND state = 'ready'"
                " AND deleted_at IS NULL",
                (len(drafts), cut, document_id),
            )
            if not changed.rowcount:
                raise NotFoundError(document_id)
            connection.execute("DELETE FROM passages WHERE document_id = ?", (document_id,))
            insert_passages(connection, document_id, ids, drafts)
            failpoint("half-recut")
            if vectors is not None:
                insert_vectors(connection, ids, stamp, vectors)

    def fail(self, document_id: str, error: ChatbotError, *, retry: bool = False) -> None:
        """Note why the document could not be read; with `retry` it waits for the next attempt."""
        self._database.execute(
            "UPDATE documents SET state = ?, error = ? WHERE id = ?",
            ("waiting" if retry else "failed", error.to_json(), document_id),
        )  # fmt: skip

    def take_up_again(self, *document_ids: str) -> None:
        """Let documents be read once more; what they have stays until the new reading is ready."""
        self._database.execute(
            "UPDATE documents SET state = 'waiting', error = NULL WHERE sha256 <> ''"
            " AND id IN (SELECT value FROM json_each(?))",
            (json.dumps(document_ids),),
        )

    def follow(self, places: Mapping[str, Path]) -> tuple[str, ...]:
        """Documents' files lie elsewhere now: origin and name change, text and vectors stay.

        Returns the ids of those that are still there, the trash left out.
        """
        followed = []
        with self._database.transaction() as connection:
            for document_id, path in places.items():
                moved = connection.execute(
                    "UPDATE documents SET origin = ?, name = ? WHERE id = ? AND deleted_at IS NULL",
                    (str(path), label(path.name), document_id),
                )
                if moved.rowcount:
                    followed.append(document_id)
        return tuple(followed)

    def unfinished(self) -> tuple[str, ...]:
        """Documents that wait or were interrupted: files of a conversation first, then by age."""
        rows = self._database.rows(
            "SELECT id FROM documents WHERE state IN ('waiting', 'reading') AND deleted_at IS NULL"
            " ORDER BY conversation IS NULL, added_at, rowid"
        )
        return tuple(r["id"] for r in rows)

    # --- looking ----------------------------------------------------------------------------

    def get(self, document_id: str) -> Document:
        """That document, also from the trash. Raises NotFoundError."""
        row = self._database.row("SELECT * FROM documents WHERE id = ?", (document_id,))
        if row is None:
            raise NotFoundError(document_id)
        return document_of(row)

    def page(self, wanted: Listing, limit: int, offset: int = 0) -> tuple[Document, ...]:
        """Some of the documents that the listing asks for, in its order."""
        where, values = wanted.condition()
        rows = self._database.rows(
            f"SELECT * FROM documents WHERE {where} ORDER BY {wanted.ordering()} LIMIT ? OFFSET ?",
            (*values, limit, offset),
        )
        return tuple(map(document_of, rows))

    def ids(self, wanted: Listing) -> tuple[str, ...]:
        """The ids of all documents that the listing asks for, in no particular order."""
        where, values = wanted.condition()
        rows = self._database.rows(f"SELECT id FROM documents WHERE {where}", values)
        return tuple(r["id"] for r in rows)

    def count(self, wanted: Listing) -> int:
        """How many documents the listing asks for."""
        where, values = wanted.condition()
        return int(
            self._database.rows(f"SELECT count(*) FROM documents WHERE {where}", values)[0][0]
        )

    def tally(self, collection: str | None = None) -> Tally:
        """How far the library is, or one collection of it."""
        where, values = Listing(collection=collection).condition()
        row = self._database.rows(
            "SELECT count(*), coalesce(sum(state = 'ready'), 0),"
            f" coalesce(sum(state IN ('waiting', 'reading')), 0) FROM documents WHERE {where}",
            values,
        )[0]
        return Tally(*row)

    def named(self, document_ids: Sequence[str]) -> dict[str, str]:
        """The names of those documents that are not in the trash."""
        rows = self._database.rows(
            "SELECT id, name FROM documents WHERE deleted_at IS NULL"
            " AND id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(document_ids)),),
        )
        return {r["id"]: r["name"] for r in rows}

    def file(self, document_id: str) -> Path:
        """The original's path in the store. Raises NotFoundError."""
        sha256 = self.get(document_id).sha256
        if not sha256 or not self.originals.path(sha256).exists():
            raise NotFoundError(document_id)
        return self.originals.path(sha256)

    def every_id(self) -> tuple[str, ...]:
        """The ids of all documents there are: of the library, of conversations, in the trash."""
        return tuple(r["id"] for r in self._database.rows("SELECT id FROM documents"))

    def attached_to(self, prefix: str = "") -> tuple[str, ...]:
        """The ids of files that belong to conversations whose ids begin like that."""
        rows = self._database.rows(
            "SELECT id FROM documents WHERE substr(conversation, 1, ?) = ?", (len(prefix), prefix)
        )
        return tuple(r["id"] for r in rows)

    # Last, because inside the class its name hides the built-in type.
    def list(
        self,
        collection: str | None = None,
        conversation: str | None = None,
        *,
        every: bool = False,
    ) -> list[Document]:
        """The library's documents by name; a conversation's own files when one is named.

        `every` lists all there are: every conversation's files and the trash too.
        """
        conditions, values = ["deleted_at IS NULL", "conversation IS ?"], [conversation]
        if every:
            conditions, values = ["1"], []
        if collection is not None:
            conditions.append("collection = ?")
            values.append(collection)
        rows = self._database.rows(
            f"SELECT * FROM documents WHERE {' AND '.join(conditions)} ORDER BY name COLLATE NOCASE, added_at",
            values,
        )
        return [document_of(r) for r in rows]


def _insert_row(connection: sqlite3.Connection, table: str, values: Mapping[str, Any]) -> None:
    names = ", ".join(f'"{name}"' for name in values)
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))


def _place_in_folder(name: str) -> str | None:
    """The path of a file inside an uploaded folder; None for a file that came alone."""
    place = CONTROL.sub("", nfc(name).replace("\\", "/")).strip("/")
    return place[:_LONGEST_PLACE] if "/" in place else None


def _same_file(name: str, origin: str | None) -> tuple[str, tuple[str, ...]]:
    """Which other documents are the same file in an earlier state: by path, else by name."""
    return ("origin = ?", (origin,)) if origin else ("origin IS NULL AND name = ?", (name,))


def _parts(drafts: Sequence[Draft]) -> list[tuple[str, str]]:
    return [(draft.path, draft.text) for draft in drafts]


def _passage_ids(document_id: str, parts: Sequence[tuple[str, str]], made_of: str) -> list[str]:
    """Ids for passages of these (path, text): others get others, so an index that missed it can tell."""
    mark = hashlib.sha256(json.dumps([made_of, parts]).encode()).hexdigest()[:8]
    return [f"{document_id}-{mark}-{number}" for number in range(len(parts))]
