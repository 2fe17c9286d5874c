"""Writing a collection, or the whole library, into one file that another PC opens without embedding anew."""

from __future__ import annotations

import shutil
import sqlite3
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatbot.errors import DiskFullError, NotFoundError
from chatbot.library.bundle import (
    COVERED,
    DOCUMENTS,
    ORIGINALS,
    PAGES,
    PASSAGES,
    VECTORS,
    Writer,
    columns,
    encoded,
)
from chatbot.library.originals import MARGIN, telling_full_disk
from chatbot.settings import replacing

_BLOCK = 1 << 20

OnProgress = Callable[[float], None]
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote: how many of each, and the file's bytes."""

    documents: int
    passages: int
    vectors: int
    size: int


def export(
    database: Path,
    originals: Path,
    file: Path,
    collection: str | None = None,
    on_progress: OnProgress | None = None,
) -> Exported:
    """Write the documents of a collection, or all, as they are at this moment; `on_progress` gets 0..1.

    Documents that are not ready travel as originals only; those refused at sight, files of conversations
    and the trash do not travel. What `on_progress` raises ends the export and leaves no file. Raises
    DiskFullError, NotFoundError for an unknown collection.
    """
    report = on_progress or (lambda _fraction: None)
    file.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True, timeout=5)
    connection.row_factory = sqlite3.Row
    with closing(connection), telling_full_disk():
        connection.execute("BEGIN")  # one moment for everything read below
        documents = _documents(connection, originals, collection)
        if not documents and collection is not None and not _exists(connection, collection):
            raise NotFoundError(collection)
        _require_room(database, file, documents)
        stamps = _stamps(connection, documents)
        with replacing(file) as temporary:
            with zipfile.ZipFile(temporary, "w") as archive:
                writer = Writer(archive)
                _write_originals(writer, originals, documents, lambda done: report(0.8 * done))
                counts = _write_rows(connection, writer, documents)
                report(0.9)
                vectors = _write_vectors(connection, writer, documents, stamps)
                writer.finish(counts, stamps)
            size = temporary.stat().st_size
    report(1.0)
    return Exported(counts["documents"], counts["passages"], vectors, size)


def _documents(
    connection: sqlite3.Connection, originals: Path, collection: str | None
) -> list[Document]:
    wanted = list(columns(connection, "documents"))
    chosen = ", ".join(f'"{name}"' for name in wanted)
    rows = connection.execute(
        f"SELECT {chosen} FROM documents WHERE deleted_at IS NULL AND conversation IS NULL"
        " AND sha256 <> '' AND (? IS NULL OR collection = ?) ORDER BY collection, added_at, id",
        (collection, collection),
    )
    documents = [dict(row) for row in rows if (originals / row["sha256"]).is_file()]
    for document in documents:
        if document["state"] != "ready":
            document.update(state="waiting", pages=0, passages=0)
    return documents


def _exists(connection: sqlite3.Connection, collection: str) -> bool:
    row = connection.execute("SELECT 1 FROM collections WHERE name = ?", (collection,)).fetchone()
    return row is not None


def _require_room(database: Path, file: Path, documents: Sequence[Document]) -> None:
    """Room for the originals and, at most, everything the database holds."""
    needed = int(sum(d["size"] for d in documents) * MARGIN) + database.stat().st_size
    free = shutil.disk_usage(file.parent).free
    if free < needed:
        raise DiskFullError(f"{free // 1_000_000} MB < {needed // 1_000_000} MB")


def _stamps(connection: sqlite3.Connection, documents: Sequence[Document]) -> list[dict[str, Any]]:
    """Every embedder's stamp with its dimension; notes in each document which of them cover it."""
    lengths = dict(
        connection.execute(
            "SELECT stamp, max(length(vector)) FROM vectors GROUP BY stamp"
        ).fetchall()
    )
    stamps = [{"stamp": stamp, "dimension": lengths[stamp] // 4} for stamp in sorted(lengths)]
    for document in documents:
        covered = connection.execute(
            "SELECT stamp FROM passages JOIN vectors ON passage_id = passages.id WHERE document_id = ?"
            " GROUP BY stamp HAVING count(*) = ? AND min(length(vector)) = max(length(vector))",
            (document["id"], document["passages"]),
        )
        known = {row[0] for row in covered} if document["passages"] else set()
        document[COVERED] = [n for n, stamp in enumerate(stamps) if stamp["stamp"] in known]
    return stamps


def _write_originals(
    writer: Writer, originals: Path, documents: Sequence[Document], report: OnProgress
) -> None:
    sizes = {d["sha256"]: d["size"] for d in documents}
    total, done = sum(sizes.values()) or 1, 0
    for sha256 in sorted(sizes):
        with (originals / sha256).open("rb") as source, writer.part(ORIGINALS + sha256) as part:
            while block := source.read(_BLOCK):
                part.write(block)
                done += len(block)
                report(min(done / total, 1.0))


def _write_rows(
    connection: sqlite3.Connection, writer: Writer, documents: Sequence[Document]
) -> dict[str, int]:
    counts = {"documents": len(documents)}
    with writer.part(DOCUMENTS, packed=True) as part:
        for document in documents:
            part.write(encoded(document))
    for table, name in (("pages", PAGES), ("passages", PASSAGES)):
        counts[table] = 0
        with writer.part(name, packed=True) as part:
            for row in _rows_of(connection, table, documents):
                part.write(encoded(row))
                counts[table] += 1
    return counts


def _rows_of(
    connection: sqlite3.Connection, table: str, documents: Sequence[Document]
) -> Iterator[dict[str, Any]]:
    chosen = ", ".join(f'"{name}"' for name in columns(connection, table))
    for document in documents:
        if document["state"] == "ready":
            yield from map(
                dict,
                connection.execute(
                    f"SELECT {chosen} FROM {table} WHERE document_id = ? ORDER BY ordinal",
                    (document["id"],),
                ),
            )


def _write_vectors(
    connection: sqlite3.Connection,
    writer: Writer,
    documents: Sequence[Document],
    stamps: Sequence[dict[str, Any]],
) -> int:
    written = 0
    for number, stamp in enumerate(stamps):
        with writer.part(f"{VECTORS}{number}.f32") as part:
            for document in documents:
                if number in document[COVERED]:
                    rows = connection.execute(
                        "SELECT vector FROM passages JOIN vectors ON passage_id = passages.id"
                        " WHERE document_id = ? AND stamp = ? ORDER BY ordinal",
                        (document["id"], stamp["stamp"]),
                    ).fetchall()
                    part.write(b"".join(row[0] for row in rows))
                    written += len(rows)
    return written
