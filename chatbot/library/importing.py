"""Reading an exported collection: nothing in the file is believed before it was checked.

`opened` checks everything first, with sizes counted while unpacking: the zip's directory, the manifest,
the hash of every part, every row. Only a file that is whole and sound gets that far; its names are never
used as paths. Then each document is taken in in one transaction, so that an import that was killed goes
on where it was when it is begun again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from chatbot.errors import BrokenCollectionFile, NotFoundError
from chatbot.i18n import N_
from chatbot.library.bundle import (
    BYTES,
    COVERED,
    DOCUMENTS,
    FORMAT,
    MANIFEST,
    ORIGINALS,
    PAGES,
    PASSAGES,
    VECTORS,
    VERSION,
    Column,
)
from chatbot.library.documents import label
from chatbot.library.store import DocumentStore

if TYPE_CHECKING:
    import numpy as np

NOT_ONE = N_("it is not a collection that Hearth exported")
DAMAGED = N_("the file is damaged or cut off")
HARMFUL = N_("it is built as a harmful file would be")
NEWER = N_("it was exported by a newer Hearth; update this one first")

MOST_PARTS = 500_000
_DIRECTORY_BYTES = 150 * MOST_PARTS
_MANIFEST_BYTES = 200 * MOST_PARTS
_MOST_STAMPS = 20
_MOST_RATIO, _SMALL = 200, 500_000_000
"""Rows of text shrink to a tenth at most; what claims far more, and is big, is a bomb."""
_DOCUMENT_BYTES = 400_000_000
_LINE_BYTES = 100_000_000
_FACT_CHARACTERS = 20_000
_BLOCK = 1 << 20
_LARGEST_NUMBER = 1e4

_HASH = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{32}")
_VECTOR_PART = re.compile(rf"{VECTORS}(\d{{1,2}})\.f32")

OnProgress = Callable[[float], None]
Row = dict[str, Any]


@dataclass(slots=True)
class Found:
    """One document of the file with all that belongs to it; `vectors` has those of the stamp asked for."""

    row: Row
    covered: list[int]
    pages: list[Row] = field(default_factory=list)
    passages: list[Row] = field(default_factory=list)
    vectors: np.ndarray | None = None


class CollectionFile:
    """An exported collection that was found whole and sound."""

    def __init__(
        self, archive: zipfile.ZipFile, name: str, schema: dict[str, dict[str, Column]]
    ) -> None:
        self._archive = archive
        self._name = name
        self._schema = schema
        self._entries = self._checked_entries()
        self.manifest = self._checked_manifest()
        self.stamps: list[str] = [s["stamp"] for s in self.manifest["stamps"]]
        self.unpacked = sum(part["size"] for part in self.manifest["parts"].values())
        """Bytes of all parts."""

    def check(self, on_progress: OnProgress) -> None:
        """Hash every part and read every row. Raises BrokenCollectionFile."""
        done = 0
        for part, facts in self.manifest["parts"].items():
            digest = hashlib.sha256()
            with self._archive.open(part) as stream:
                left = facts["size"]
                while block := stream.read(min(_BLOCK, left + 1)):
                    left -= len(block)
                    if left < 0:
                        raise self._broken(HARMFUL)
                    digest.update(block)
                    done += len(block)
                    on_progress(0.7 * done / max(self.unpacked, 1))
            if left or digest.hexdigest() != facts["sha256"]:
                raise self._broken(DAMAGED)
            if part.startswith(ORIGINALS) and digest.hexdigest() != part.removeprefix(ORIGINALS):
                raise self._broken(DAMAGED)
        count = self.manifest["counts"]["documents"]
        for number, _found in enumerate(self.documents(None), 1):
            on_progress(0.7 + 0.3 * number / count)

    def documents(self, stamp: str | None) -> Iterator[Found]:
        """Each document with its rows, checked, and its vectors of that stamp where the file has them."""
        dimensions = [s["dimension"] for s in self.manifest["stamps"]]
        seen: set[str] = set()
        pages, passages = self._lines(PAGES, "pages"), self._lines(PASSAGES, "passages")
        with self._vector_streams() as streams:
            next_page, next_passage = next(pages, None), next(passages, None)
            documents = 0
            for row in self._lines(DOCUMENTS, "documents"):
                documents += 1
                found = Found(row, row.pop(COVERED))
                document_id = row["id"]
                if document_id in seen:
                    raise self._broken(HARMFUL)
                seen.add(document_id)
                size = 0
                while next_page and next_page["document_id"] == document_id:
                    found.pages.append(next_page)
                    size += len(next_page["text"])
                    self._require(size <= _DOCUMENT_BYTES, HARMFUL)
                    next_page = next(pages, None)
                size = 0
                while next_passage and next_passage["document_id"] == document_id:
                    found.passages.append(next_passage)
                    size += len(next_passage["text"])
                    self._require(size <= _DOCUMENT_BYTES, HARMFUL)
                    next_passage = next(passages, None)
                self._check_document(found)
                for number in found.covered:
                    vectors = self._vectors(
                        streams[number], len(found.passages), dimensions[number]
                    )
                    if self.stamps[number] == stamp:
                        found.vectors = vectors
                yield found
            self._require(next_page is None and next_passage is None, DAMAGED)
            self._require(documents == self.manifest["counts"]["documents"], DAMAGED)
            self._require(all(not stream.read(1) for stream in streams), DAMAGED)

    def original(self, sha256: str) -> IO[bytes]:
        """The original of that hash."""
        return self._archive.open(ORIGINALS + sha256)

    # --- the zip and its manifest -----------------------------------------------------------

    def _checked_entries(self) -> dict[str, zipfile.ZipInfo]:
        entries = self._archive.infolist()
        names = {entry.filename for entry in entries}
        self._require(bool(entries) and entries[-1].filename == MANIFEST, NOT_ONE)
        self._require(len(names) == len(entries) <= MOST_PARTS, HARMFUL)
        packed = 0
        for entry in entries:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            original = entry.filename.startswith(ORIGINALS)
            sound = (
                kind in (0, stat.S_IFREG)
                and not entry.flag_bits & 1
                and entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
                and (not original or _HASH.fullmatch(entry.filename.removeprefix(ORIGINALS)))
                and (not original or entry.compress_size == entry.file_size)
                and (original or _is_part(entry.filename))
            )
            self._require(bool(sound), HARMFUL)
            packed += entry.compress_size
        file = self._archive.fp
        assert file is not None
        size = file.seek(0, 2)
        self._require(packed <= size, HARMFUL)  # entries that lie over each other
        rows = sum(e.file_size for e in entries if not e.filename.startswith(ORIGINALS))
        self._require(rows <= max(_MOST_RATIO * size, _SMALL), HARMFUL)
        return {entry.filename: entry for entry in entries}

    def _checked_manifest(self) -> dict[str, Any]:
        self._require(self._entries[MANIFEST].file_size <= _MANIFEST_BYTES, HARMFUL)
        with self._archive.open(MANIFEST) as stream:
            manifest = self._parsed(stream.read(_MANIFEST_BYTES + 1))
        self._require(manifest.get("format") == FORMAT, NOT_ONE)
        version: Any = manifest.get("version")
        self._require(type(version) is int and version >= 1, NOT_ONE)
        self._require(version <= VERSION, NEWER)
        parts: Any = manifest.get("parts")
        counts: Any = manifest.get("counts")
        stamps: Any = manifest.get("stamps")
        self._require(isinstance(parts, dict) and isinstance(counts, dict), DAMAGED)
        self._require(isinstance(stamps, list) and len(stamps) <= _MOST_STAMPS, DAMAGED)
        needed = {DOCUMENTS, PAGES, PASSAGES, *(f"{VECTORS}{n}.f32" for n in range(len(stamps)))}
        there = set(parts)
        self._require(there == self._entries.keys() - {MANIFEST} and needed <= there, DAMAGED)
        self._require(needed == {part for part in there if not part.startswith(ORIGINALS)}, DAMAGED)
        for part, facts in parts.items():
            self._require(
                isinstance(facts, dict)
                and _is_count(facts.get("size"))
                and facts["size"] == self._entries[part].file_size
                and isinstance(facts.get("sha256"), str),
                DAMAGED,
            )
        self._require(_is_count(counts.get("documents")), DAMAGED)
        for stamp in stamps:
            self._require(
                isinstance(stamp, dict)
                and isinstance(stamp.get("stamp"), str)
                and len(stamp["stamp"]) <= 1000
                and _is_count(stamp.get("dimension"))
                and 0 < stamp["dimension"] <= 65_536,
                DAMAGED,
            )
        return manifest

    # --- rows -------------------------------------------------------------------------------

    def _lines(self, part: str, table: str) -> Iterator[Row]:
        with self._archive.open(part) as stream:
            while line := stream.readline(_LINE_BYTES):
                self._require(line.endswith(b"\n"), DAMAGED)
                yield self._checked_row(self._parsed(line), table)

    def _checked_row(self, row: Row, table: str) -> Row:
        """The columns that exist here, each of its type; those of a newer Hearth are left out."""
        known = self._schema[table]
        checked = {}
        for name, column in known.items():
            value = row.get(name)
            if isinstance(value, dict):
                value = self._bytes(value)
            self._require(_fits(value, column), DAMAGED)
            if value is not None:
                checked[name] = value
        if table == "documents":
            facts = (v for name, v in checked.items() if name != "headings")
            self._require(all(len(str(v)) <= _FACT_CHARACTERS for v in facts), HARMFUL)
            checked[COVERED] = row.get(COVERED)
        return checked

    def _check_document(self, found: Found) -> None:
        row, covered = found.row, found.covered
        self._require(bool(_ID.fullmatch(row["id"])), DAMAGED)
        self._require(f"{ORIGINALS}{row['sha256']}" in self._entries, DAMAGED)
        self._require(row["state"] in ("ready", "waiting"), DAMAGED)
        self._require(row.get("language") in (None, "vi", "en"), DAMAGED)
        self._require(label(row["name"]) == row["name"] != "?", DAMAGED)
        self._require(label(row["collection"]) == row["collection"] != "?", DAMAGED)
        self._require(
            isinstance(covered, list)
            and len(set(map(str, covered))) == len(covered)
            and all(type(n) is int and 0 <= n < len(self.stamps) for n in covered),
            DAMAGED,
        )
        self._require(row["state"] == "ready" or not (found.pages or found.passages), DAMAGED)
        self._check_headings(row)
        place = 0
        for ordinal, page in enumerate(found.pages):
            self._require((page["ordinal"], page["start"]) == (ordinal, place), DAMAGED)
            place += len(page["text"])
        text = "".join(page["text"] for page in found.pages)
        place = 0
        for ordinal, passage in enumerate(found.passages):
            start, end = passage["start"], passage["end"]
            self._require(passage["ordinal"] == ordinal and start == place <= end, DAMAGED)
            self._require(passage["text"] == text[start:end], DAMAGED)
            place = end
        self._require(place == len(text) or not found.passages, DAMAGED)

    def _check_headings(self, row: Row) -> None:
        if (stored := row.get("headings")) is None:
            return
        try:
            headings = json.loads(stored)
        except (ValueError, RecursionError) as error:
            raise self._broken(DAMAGED) from error
        self._require(
            isinstance(headings, list)
            and all(
                isinstance(h, list) and len(h) == 3 and all(_is_count(n) for n in h)
                for h in headings
            ),
            DAMAGED,
        )

    @contextmanager
    def _vector_streams(self) -> Iterator[list[IO[bytes]]]:
        streams: list[IO[bytes]] = []
        try:
            for number in range(len(self.stamps)):
                streams.append(self._archive.open(f"{VECTORS}{number}.f32"))  # noqa: PERF401  closed below
            yield streams
        finally:
            for stream in streams:
                stream.close()

    def _vectors(self, stream: IO[bytes], count: int, dimension: int) -> np.ndarray:
        import numpy as np

        size = count * dimension * 4
        self._require(size <= _DOCUMENT_BYTES * 10, HARMFUL)
        content = stream.read(size)
        self._require(len(content) == size, DAMAGED)
        vectors = np.frombuffer(content, "<f4").reshape(count, dimension)
        sound = bool(np.isfinite(vectors).all()) and bool((np.abs(vectors) < _LARGEST_NUMBER).all())
        self._require(sound, DAMAGED)
        return vectors

    def _parsed(self, content: bytes) -> dict[str, Any]:
        try:
            value = json.loads(content.decode())
        except (ValueError, RecursionError) as error:
            raise self._broken(DAMAGED) from error
        self._require(isinstance(value, dict), DAMAGED)
        parsed: dict[str, Any] = value
        return parsed

    def _bytes(self, value: dict[str, Any]) -> bytes:
        try:
            return base64.b64decode(value[BYTES], validate=True)
        except (KeyError, TypeError, binascii.Error, ValueError) as error:
            raise self._broken(DAMAGED) from error

    def _require(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise self._broken(otherwise)

    def _broken(self, detail: str) -> BrokenCollectionFile:
        return BrokenCollectionFile(detail, name=self._name)


@contextmanager
def opened(file: Path, store: DocumentStore, on_progress: OnProgress) -> Iterator[CollectionFile]:
    """That file, checked whole. Raises BrokenCollectionFile, DiskFullError; `on_progress` gets 0..1."""
    if not file.is_file():
        raise NotFoundError(str(file))
    try:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            collection = CollectionFile(archive, file.name, store.columns())
            store.originals.require_room(2 * collection.unpacked)
            collection.check(on_progress)
            yield collection
    except (
        zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, RuntimeError,
        UnicodeDecodeError,
    ) as error:  # fmt: skip
        raise BrokenCollectionFile(DAMAGED, name=file.name) from error


def _check_directory(file: Path) -> None:
    """Refuse a zip whose directory alone would fill the memory, before it is read."""
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - 70_000))
        tail = stream.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) - end < 22:
        raise BrokenCollectionFile(DAMAGED if tail else NOT_ONE, name=file.name)
    entries, directory = struct.unpack_from("<HI", tail, end + 10)
    if 0xFFFF in (entries, directory >> 16):  # the true figures stand in the record of large zips
        large = tail.rfind(b"PK\x06\x06", 0, end)
        if large < 0 or len(tail) - large < 56:
            raise BrokenCollectionFile(DAMAGED, name=file.name)
        entries, directory = struct.unpack_from("<QQ", tail, large + 32)
    if entries > MOST_PARTS or directory > _DIRECTORY_BYTES:
        raise BrokenCollectionFile(HARMFUL, name=file.name)


def _is_part(name: str) -> bool:
    return name in (DOCUMENTS, PAGES, PASSAGES, MANIFEST) or bool(_VECTOR_PART.fullmatch(name))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a pair, which JSON can spell
        return False
    return True


def _fits(value: Any, column: Column) -> bool:
    """Whether SQLite may take that value for the column."""
    if value is None:
        return not column.required
    if isinstance(value, str):
        return column.type == "TEXT" and _is_text(value)
    if isinstance(value, bytes):
        return column.type == "BLOB"
    if type(value) is int:
        return column.type in ("INTEGER", "REAL") and abs(value) < 1 << 62
    return type(value) is float and column.type == "REAL" and math.isfinite(value)
