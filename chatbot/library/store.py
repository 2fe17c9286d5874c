"""Documents on disk: originals under their hash, everything else in SQLite, the truth.

A document is acknowledged when its original lies synced in `files/` and its row is committed; it is
ready when its pages, passages and vectors were committed in one transaction. Nothing in between can be
seen, and what a crash leaves in `files/` or half-read is cleared or taken up again at the next start.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from chatbot.database import Database
from chatbot.errors import ChatbotError, CollectionError, DiskFullError, NotFoundError
from chatbot.failpoints import failpoint
from chatbot.i18n import N_, translate
from chatbot.library import register
from chatbot.library.bundle import Column, columns
from chatbot.library.chunking import Draft
from chatbot.library.listing import Listing
from chatbot.library.readers import Reading
from chatbot.library.validity import validity_of
from chatbot.settings import Paths, sync
from chatbot.text import nfc
from chatbot.types import Document, Heading, Language, PageText, Passage

if TYPE_CHECKING:
    import numpy as np

SPARE_BYTES = 500_000_000
"""What must stay free on the disk after an addition."""

MARGIN = 1.1
NAME_TAKEN = N_("there is one of that name, or it is no name")
_COPY_BYTES = 1 << 20
_LONGEST_PLACE = 1000
_BATCH = 500
_TABLES = ("documents", "pages", "passages")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SAME_PLACE = (
    "collection = ? AND coalesce(conversation, '') = coalesce(?, '') AND deleted_at IS NULL"
)


@dataclass(frozen=True, slots=True)
class Collection:
    """A named group of documents, with how much is in it."""

    name: str
    documents: int
    passages: int


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


class DocumentStore:
    """All documents of one data folder; only the folder's owner may open it."""

    def __init__(self, database: Database, paths: Paths, spare_bytes: int = SPARE_BYTES) -> None:
        """Open the store and clear what an interrupted run left behind in `files/`."""
        self._database = database
        self._paths = paths
        self._spare = spare_bytes
        paths.make()
        self._sweep()

    @property
    def own_folder(self) -> Path:
        """The data folder that this store keeps its copies in."""
        return self._paths.data

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
                known = self._known(_hash_of(source), collection, conversation, origin)
                if known:
                    return known
                size = source.stat().st_size
                self.require_room(size)
                with source.open("rb") as stream:
                    sha256, size = self._copy(stream)
            else:
                self.require_room(len(source) if isinstance(source, bytes) else 0)
                content = io.BytesIO(source) if isinstance(source, bytes) else source
                sha256, size = self._copy(content)
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

    def require_room(self, size: int) -> None:
        """Raise DiskFullError unless that many bytes, a tenth more and the spare fit on the disk."""
        needed = int(size * MARGIN) + self._spare
        free = shutil.disk_usage(self._paths.data).free
        if free < needed:
            raise DiskFullError(f"{free // 1_000_000} MB < {needed // 1_000_000} MB")

    def _copy(self, stream: IO[bytes]) -> tuple[str, int]:
        digest, size = hashlib.sha256(), 0
        handle, temporary_name = tempfile.mkstemp(dir=self._paths.temporary, prefix="add-")
        temporary = Path(temporary_name)
        try:
            with os.fdopen(handle, "wb") as copy:
                while block := stream.read(_COPY_BYTES):
                    digest.update(block)
                    size += len(block)
                    copy.write(block)
                copy.flush()
                os.fsync(copy.fileno())
            failpoint("copied")
            target = self._paths.files / digest.hexdigest()
            if not target.exists():
                os.replace(temporary, target)
                sync(self._paths.files)
        finally:
            temporary.unlink(missing_ok=True)
        return digest.hexdigest(), size

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
            _ensure_collection(connection, collection)
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
        copied, size = self._copy(original)
        if copied != sha256:
            raise NotFoundError(sha256)
        failpoint("stored")
        validity = validity_of("".join(page["text"] for page in pages))
        with self._database.transaction() as connection:
            taken = connection.execute("SELECT 1 FROM documents WHERE id = ?", (row["id"],))
            document_id = uuid.uuid4().hex if taken.fetchone() else row["id"]
            _ensure_collection(connection, collection)
            counted = {"size": size, "pages": len(pages), "passages": len(passages)}
            _insert_row(connection, "documents", {**row, "id": document_id, **counted})
            for page in pages:
                _insert_row(connection, "pages", {**page, "document_id": document_id})
            ids = [f"{document_id}-{number}" for number in range(len(passages))]
            for passage_id, passage in zip(ids, passages, strict=True):
                values = {**passage, "id": passage_id, "document_id": document_id}
                _insert_row(connection, "passages", values)
            failpoint("half-taken-in")
            if row["state"] == "ready":
                register.write(connection, document_id, validity)
            if vectors is not None:
                connection.executemany(
                    "INSERT INTO vectors VALUES (?, ?, ?)", _vector_rows(ids, *vectors)
                )
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
        self.require_room(characters * 6 + (vectors.nbytes * 2 if vectors is not None else 0))
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT * FROM documents WHERE id = ? AND deleted_at IS NULL", (document_id,)
            ).fetchone()
            if row is None:
                raise NotFoundError(document_id)
            connection.execute("DELETE FROM pages WHERE document_id = ?", (document_id,))
            connection.execute("DELETE FROM passages WHERE document_id = ?", (document_id,))
            connection.executemany(
                "INSERT INTO pages (document_id, ordinal, number, start, text, anchors)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                _page_rows(document_id, pages),
            )
            ids = _passage_ids(document_id, drafts, reading.document.title)
            _insert_passages(connection, document_id, ids, drafts)
            failpoint("half-committed")
            if vectors is not None:
                connection.executemany(
                    "INSERT INTO vectors VALUES (?, ?, ?)", _vector_rows(ids, stamp, vectors)
                )
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
        self._drop_files(r["sha256"] for r in replaced)
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
            self.require_room(vectors.nbytes * 2)
        ids = _passage_ids(document_id, drafts, cut)
        with self._database.transaction() as connection:
            changed = connection.execute(
                "UPDATE documents SET passages = ?, cut = ? WHERE id = ? AND state = 'ready'"
                " AND deleted_at IS NULL",
                (len(drafts), cut, document_id),
            )
            if not changed.rowcount:
                raise NotFoundError(document_id)
            connection.execute("DELETE FROM passages WHERE document_id = ?", (document_id,))
            _insert_passages(connection, document_id, ids, drafts)
            failpoint("half-recut")
            if vectors is not None:
                connection.executemany(
                    "INSERT INTO vectors VALUES (?, ?, ?)", _vector_rows(ids, stamp, vectors)
                )

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
        return _document(row)

    def page(self, wanted: Listing, limit: int, offset: int = 0) -> tuple[Document, ...]:
        """Some of the documents that the listing asks for, in its order."""
        where, values = wanted.condition()
        rows = self._database.rows(
            f"SELECT * FROM documents WHERE {where} ORDER BY {wanted.ordering()} LIMIT ? OFFSET ?",
            (*values, limit, offset),
        )
        return tuple(map(_document, rows))

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

    def size(self, collection: str) -> int:
        """Bytes of the originals in that collection."""
        row = self._database.rows(
            "SELECT coalesce(sum(size), 0) FROM documents WHERE collection = ? AND deleted_at IS NULL"
            " AND conversation IS NULL",
            (collection,),
        )
        return int(row[0][0])

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
        if not sha256 or not (self._paths.files / sha256).exists():
            raise NotFoundError(document_id)
        return self._paths.files / sha256

    def text(self, document_id: str) -> str:
        """The document's whole text; passages' offsets count in it."""
        return "".join(page.text for page in self.pages(document_id))

    def pages(self, document_id: str) -> tuple[PageText, ...]:
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
        found: dict[str, Passage] = {}
        for batch in _batches(passage_ids):
            rows = self._database.rows(
                "SELECT passages.* FROM passages JOIN documents ON documents.id = document_id"
                f" WHERE deleted_at IS NULL AND passages.id IN ({', '.join('?' * len(batch))})",
                batch,
            )
            found.update((r["id"], _passage(r)) for r in rows)
        return found

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

    def collections(self) -> tuple[Collection, ...]:
        """Every collection with the number of its documents and passages, by name."""
        rows = self._database.rows(
            "SELECT name, count(id) AS documents, coalesce(sum(passages), 0) AS passages FROM collections"
            " LEFT JOIN (SELECT id, collection, passages FROM documents"
            "            WHERE deleted_at IS NULL AND conversation IS NULL) ON collection = name"
            " WHERE name NOT IN (SELECT name FROM removed_collections) GROUP BY name ORDER BY name"
        )
        return tuple(Collection(r["name"], r["documents"], r["passages"]) for r in rows)

    def add_collection(self, name: str) -> str:
        """Make an empty collection of that name, as people will see it; nothing happens when it exists."""
        name = label(name)
        with self._database.transaction() as connection:
            _ensure_collection(connection, name)
        return name

    def rename_collection(self, old: str, new: str) -> str:
        """Give a collection another name. Raises CollectionError when that is taken or not a name."""
        new = label(new)
        if new == old:
            return new
        if new == "?" or new in {c.name for c in self.collections()}:
            raise CollectionError(NAME_TAKEN, name=new)
        with self._database.transaction() as connection:
            _ensure_collection(connection, new)
            for table in ("documents", "linked_folders"):
                connection.execute(
                    f"UPDATE {table} SET collection = ? WHERE collection = ?", (new, old)
                )
            connection.execute("DELETE FROM collections WHERE name = ?", (old,))
        return new

    def remove_collection(self, name: str) -> tuple[str, ...]:
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
            _forget_removed_collections(connection)
        return tuple(r["id"] for r in rows)

    def move(self, document_ids: Sequence[str], collection: str) -> tuple[str, ...]:
        """Take documents into another collection as they are: nothing is copied, read or embedded anew.

        Returns the ids of those that the collection holds already with the same content; they are in
        the trash now.
        """
        ids, now = json.dumps(list(document_ids)), time.time()
        chosen = "id IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL AND collection <> ?"
        with self._database.transaction() as connection:
            _ensure_collection(connection, collection)
            connection.execute(
                f"UPDATE OR IGNORE documents SET collection = ? WHERE {chosen}",
                (collection, ids, collection),
            )
            doubles = connection.execute(
                f"UPDATE documents SET deleted_at = ? WHERE {chosen} RETURNING id",
                (now, ids, collection),
            ).fetchall()
        return tuple(r["id"] for r in doubles)

    @staticmethod
    def error_text(document: Document, language: Language) -> str | None:
        """Why the document failed, in that language; None when it did not."""
        return ChatbotError.from_dict(document.failure).text(language) if document.failure else None

    @staticmethod
    def warning_text(document: Document, language: Language) -> str | None:
        """What a person should know about the reading, in that language."""
        lines = (document.warning or "").split("\n")
        return " ".join(translate(line, language) for line in lines) or None

    # --- vectors ----------------------------------------------------------------------------

    def vectors(self, stamp: str) -> Iterator[tuple[list[str], np.ndarray]]:
        """Batches of (passage ids, float32 rows) that this embedder made for documents not in the trash."""
        import numpy as np

        last = ""
        while rows := self._database.rows(
            "SELECT passage_id, vector FROM vectors JOIN passages ON passages.id = passage_id"
            " JOIN documents ON documents.id = document_id"
            " WHERE stamp = ? AND deleted_at IS NULL AND passage_id > ? ORDER BY passage_id LIMIT ?",
            (stamp, last, _BATCH),
        ):
            last = rows[-1]["passage_id"]
            matrix = np.frombuffer(b"".join(r["vector"] for r in rows), dtype="<f4")
            yield [r["passage_id"] for r in rows], matrix.reshape(len(rows), -1)

    def without_vectors(self, stamp: str, limit: int = _BATCH) -> tuple[Passage, ...]:
        """Some of the passages that this embedder has made no vector for."""
        rows = self._database.rows(
            "SELECT passages.* FROM passages JOIN documents ON documents.id = document_id"
            " WHERE deleted_at IS NULL AND NOT EXISTS"
            " (SELECT 1 FROM vectors WHERE passage_id = passages.id AND stamp = ?)"
            " ORDER BY passages.id LIMIT ?",
            (stamp, limit),
        )
        return tuple(map(_passage, rows))

    def put_vectors(self, stamp: str, passage_ids: Sequence[str], vectors: np.ndarray) -> None:
        """Store vectors of passages that exist; those removed meanwhile are left out."""
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO vectors SELECT ?, ?, ? WHERE EXISTS"
                " (SELECT 1 FROM passages WHERE id = ?)",
                ((*row, row[0]) for row in _vector_rows(passage_ids, stamp, vectors)),
            )

    def drop_vectors(self, stamp: str) -> None:
        """Forget the vectors of an embedder that is no longer used."""
        self._database.execute("DELETE FROM vectors WHERE stamp = ?", (stamp,))

    # --- removing ---------------------------------------------------------------------------

    def remove(self, *document_ids: str) -> None:
        """Move documents to the trash; `restore` brings them back, `purge` ends them."""
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
        had_passages, done = False, 0
        for batch in _batches(document_ids):
            with self._database.transaction() as connection:
                gone = connection.execute(
                    "DELETE FROM documents WHERE id IN (SELECT value FROM json_each(?))"
                    " RETURNING sha256, passages",
                    (json.dumps(batch),),
                ).fetchall()
                _forget_removed_collections(connection)
            failpoint("purged-rows")
            self._drop_files(r["sha256"] for r in gone)
            had_passages |= any(r["passages"] for r in gone)
            done += len(batch)
            if on_progress:
                on_progress(done / len(document_ids))
        failpoint("purged-files")
        self._database.forget()
        return had_passages

    def trash(self, limit: int = -1) -> tuple[Document, ...]:
        """Documents of the library that were removed, the latest first."""
        rows = self._database.rows(
            "SELECT * FROM documents WHERE deleted_at IS NOT NULL AND conversation IS NULL"
            " ORDER BY deleted_at DESC, name LIMIT ?",
            (limit,),
        )
        return tuple(map(_document, rows))

    def trash_ids(self, older_than: float = 0.0, *, library_only: bool = False) -> tuple[str, ...]:
        """The ids of what was removed at least that many seconds ago, files of conversations or not."""
        only = " AND conversation IS NULL" if library_only else ""
        rows = self._database.rows(
            f"SELECT id FROM documents WHERE deleted_at <= ?{only}", (time.time() - older_than,)
        )
        return tuple(r["id"] for r in rows)

    def every_id(self) -> tuple[str, ...]:
        """The ids of all documents there are: of the library, of conversations, in the trash."""
        return tuple(r["id"] for r in self._database.rows("SELECT id FROM documents"))

    def attached_to(self, prefix: str = "") -> tuple[str, ...]:
        """The ids of files that belong to conversations whose ids begin like that."""
        rows = self._database.rows(
            "SELECT id FROM documents WHERE substr(conversation, 1, ?) = ?", (len(prefix), prefix)
        )
        return tuple(r["id"] for r in rows)

    def _drop_files(self, hashes: Iterable[str]) -> None:
        for sha256 in set(hashes) - {""}:
            if not self._database.row("SELECT 1 FROM documents WHERE sha256 = ?", (sha256,)):
                (self._paths.files / sha256).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """An original without a row was never acknowledged, or its document was purged: it goes."""
        known = {r["sha256"] for r in self._database.rows("SELECT sha256 FROM documents")}
        strays = [f for f in self._paths.files.iterdir() if f.is_file() and f.name not in known]
        for file in strays:
            file.unlink()
        for file in self._paths.temporary.glob("add-*"):
            file.unlink()
        if strays:
            self._database.forget()

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
        return [_document(r) for r in rows]


def _ensure_collection(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("INSERT OR IGNORE INTO collections VALUES (?, ?)", (name, time.time()))
    connection.execute("DELETE FROM removed_collections WHERE name = ?", (name,))


def _insert_row(connection: sqlite3.Connection, table: str, values: Mapping[str, Any]) -> None:
    names = ", ".join(f'"{name}"' for name in values)
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))


def _forget_removed_collections(connection: sqlite3.Connection) -> None:
    """Those that were deleted and whose last document is gone for good."""
    connection.execute(
        "DELETE FROM collections WHERE name IN (SELECT name FROM removed_collections)"
        " AND name NOT IN (SELECT collection FROM documents)"
    )


def label(name: str) -> str:
    """A file's name as people see it: the last part of a path, NFC, no control characters."""
    last = re.split(r"[\\/]", nfc(name).rstrip("\\/"))[-1]
    return _CONTROL.sub("", last).strip()[:255] or "?"


def _place_in_folder(name: str) -> str | None:
    """The path of a file inside an uploaded folder; None for a file that came alone."""
    place = _CONTROL.sub("", nfc(name).replace("\\", "/")).strip("/")
    return place[:_LONGEST_PLACE] if "/" in place else None


def _same_file(name: str, origin: str | None) -> tuple[str, tuple[str, ...]]:
    """Which other documents are the same file in an earlier state: by path, else by name."""
    return ("origin = ?", (origin,)) if origin else ("origin IS NULL AND name = ?", (name,))


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def telling_full_disk() -> Iterator[None]:
    """Say DiskFullError where the system says there is no room."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            raise DiskFullError(error.strerror or "") from error
        raise


def _page_rows(document_id: str, pages: Sequence[PageText]) -> Iterator[tuple[object, ...]]:
    start = 0
    for ordinal, page in enumerate(pages):
        yield document_id, ordinal, page.number, start, page.text, page.anchors
        start += len(page.text)


def _passage_ids(document_id: str, drafts: Sequence[Draft], made_of: str) -> list[str]:
    """Other passages, other ids: an index that missed the change can tell."""
    content = json.dumps([made_of, [[d.path, d.text] for d in drafts]])
    mark = hashlib.sha256(content.encode()).hexdigest()[:8]
    return [f"{document_id}-{mark}-{n}" for n in range(len(drafts))]


def _insert_passages(
    connection: sqlite3.Connection, document_id: str, ids: Sequence[str], drafts: Sequence[Draft]
) -> None:
    connection.executemany(
        'INSERT INTO passages (id, document_id, ordinal, text, start, "end", page, path)'
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (passage_id, document_id, n, d.text, d.start, d.end, d.page, d.path)
            for n, (passage_id, d) in enumerate(zip(ids, drafts, strict=True))
        ),
    )


def _vector_rows(
    passage_ids: Sequence[str], stamp: str, vectors: np.ndarray
) -> Iterator[tuple[str, str, bytes]]:
    for passage_id, vector in zip(passage_ids, vectors, strict=True):
        yield passage_id, stamp, vector.astype("<f4").tobytes()


def _batches(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]


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


def _document(row: sqlite3.Row) -> Document:
    failure = json.loads(row["error"]) if row["error"] else None
    return Document(
        id=row["id"],
        collection=row["collection"],
        name=row["name"],
        sha256=row["sha256"],
        media_type=row["media_type"],
        size=row["size"],
        state=row["state"],
        pages=row["pages"],
        passages=row["passages"],
        language=row["language"],
        warning=row["warning"],
        error=ChatbotError.from_dict(failure).text("en") if failure else None,
        added_at=row["added_at"],
        origin=row["origin"],
        conversation=row["conversation"],
        failure=failure,
        deleted_at=row["deleted_at"],
        validity=register.validity_from(row["validity"]),
    )
