"""A collection as one file: the zip that an export writes and an import reads.

    originals/SHA256    each original once, stored as it is
    documents.jsonl     a row of the database each; "$vectors" lists the stamps that cover all its passages
    pages.jsonl         the documents' pages in the same order, then by ordinal
    passages.jsonl      the same of their passages
    vectors/N.f32       float32, little-endian: a row for each passage of the documents that list N
    manifest.json       last: format, version, counts, stamps, and size and sha256 of every part

Rows carry whatever columns the exporting Hearth has; an older one ignores those it does not know.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

FORMAT = "hearth-collection"
VERSION = 1

ORIGINALS, VECTORS = "originals/", "vectors/"
DOCUMENTS, PAGES, PASSAGES, MANIFEST = (
    "documents.jsonl", "pages.jsonl", "passages.jsonl", "manifest.json",
)  # fmt: skip
COVERED = "$vectors"
BYTES = "$base64"

# What says where a document lies on this PC, or who asked about it, stays here; what its text says of
# itself is read from the text there.
PRIVATE = frozenset(["origin", "conversation", "deleted_at", "error", "validity"])


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table here: its SQL type, and whether a row may leave it out."""

    type: str
    required: bool


def columns(connection: sqlite3.Connection, table: str) -> dict[str, Column]:
    """The columns of that table whose values mean the same on another PC."""
    elsewhere = {
        row[3] for row in connection.execute(f"PRAGMA foreign_key_list({table})")
        if row[2] not in ("collections", "documents")
    }  # fmt: skip
    return {
        row[1]: Column(row[2].upper(), bool(row[5]) or (bool(row[3]) and row[4] is None))
        for row in connection.execute(f"PRAGMA table_info({table})")
        if row[1] not in elsewhere and row[1] not in PRIVATE
    }


def encoded(row: Mapping[str, Any]) -> bytes:
    """A row as its line."""
    values = {
        key: {BYTES: base64.b64encode(value).decode()} if isinstance(value, bytes) else value
        for key, value in row.items()
    }
    return json.dumps(values, ensure_ascii=False, sort_keys=True).encode() + b"\n"


class Writer:
    """Writes the parts of a bundle one after another; the same content gives the same bytes."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._parts: dict[str, dict[str, Any]] = {}

    @contextmanager
    def part(self, name: str, *, packed: bool = False) -> Iterator[Part]:
        """A part to write into."""
        info = zipfile.ZipInfo(name)  # its date is 1980 for every export
        info.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
        info.external_attr = 0o600 << 16
        info.create_system = 3
        with self._archive.open(info, "w", force_zip64=True) as stream:
            part = Part(stream)
            yield part
        self._parts[name] = {"size": part.size, "sha256": part.digest.hexdigest()}

    def finish(self, counts: Mapping[str, int], stamps: Sequence[Mapping[str, Any]]) -> None:
        """Write the manifest, with which the file is whole."""
        manifest = {
            "format": FORMAT, "version": VERSION, "counts": dict(counts), "stamps": list(stamps),
            "parts": self._parts,
        }  # fmt: skip
        with self.part(MANIFEST, packed=True) as part:
            part.write(json.dumps(manifest, ensure_ascii=False, indent=1, sort_keys=True).encode())


class Part:
    """One part being written: counted and hashed on its way."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.size = 0
        self.digest = hashlib.sha256()

    def write(self, content: bytes) -> None:
        self._stream.write(content)
        self.digest.update(content)
        self.size += len(content)
