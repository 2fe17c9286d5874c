"""A zip from anywhere, read so that nothing in it can reach outside the folder it is unpacked into.

The directory is checked whole before a byte is unpacked: names, kinds, sizes, places. Then each entry
is streamed: never more than it declared, and exactly that, with its checksum.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from chatbot.errors import BrokenModel
from chatbot.i18n import N_
from chatbot.models.files import BLOCK, StoredFile
from chatbot.models.names import is_safe
from chatbot.text import nfc

MAX_ENTRIES = 2000
MAX_DIRECTORY = 4_000_000
MAX_RATIO, SMALL = 200, 100_000
"""An entry may shrink to a 200th, as weights and text never do; small ones may be all alike."""

_NO_ZIP = N_("it is not a zip archive, or it was cut off.")
_DAMAGED = N_("the archive is damaged at {part}.")
_TOO_MANY = N_("the archive holds more files than any model has ({part}).")
_BAD_NAME = N_("the name {part} could reach outside the folder or is not allowed on every system.")
_TWICE = N_("two files of the archive would take the same name: {part}.")
_NOT_A_FILE = N_("{part} is a link or a device, not a file.")
_ENCRYPTED = N_("{part} is encrypted; pack it again without a password.")
_METHOD = N_("{part} is compressed in a way Hearth does not read; pack it again as a plain zip.")
_BOMB = N_("{part} would unpack to hundreds of times its size, as an archive bomb does.")
_OVERLAP = N_("the files of the archive lie over one another, as in an archive bomb ({part}).")
_LYING = N_("{part} is not as large as the archive says.")
_CHECKSUM = N_("the checksum of {part} is wrong; the archive was damaged on its way.")

_PIECE = 1 << 16
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_ENCRYPTION_BITS = 0x1 | 0x40 | 0x2000
_LINK_FIELDS = (0x000D, 0x756E)  # Unix fields that can name the target of a link


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the archive; `name` is a safe path with slashes, sizes are in bytes."""

    name: str
    size: int
    packed: int
    crc: int
    deflated: bool
    start: int
    """Where its bytes begin in the archive."""


class Archive:
    """An opened zip whose directory was found harmless; folders are not listed."""

    def __init__(self, file: Path) -> None:
        """Raises BrokenModel, naming the entry at fault, and OSError where the file cannot be read."""
        self._name = file.name
        self._file = file.open("rb")
        try:
            self.size = file.stat().st_size
            self.entries = self._checked(self._directory())
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, entry: Entry, most: int) -> bytes:
        """A small entry's content. Raises BrokenModel where it is longer than `most` or damaged."""
        if entry.size > most:
            self._refuse(_LYING, entry.name)
        return b"".join(self._checked_blocks(entry))

    def extract(self, entry: Entry, target: Path, read: Callable[[int], None]) -> StoredFile:
        """Write an entry to a new file, synced; `read` hears of every block. Raises BrokenModel."""
        digest = hashlib.sha256()
        with target.open("xb") as opened:
            for block in self._checked_blocks(entry):
                opened.write(block)
                digest.update(block)
                read(len(block))
            opened.flush()
            os.fsync(opened.fileno())
        return StoredFile(entry.name, entry.size, digest.hexdigest(), target.stat().st_mtime_ns)

    def _checked_blocks(self, entry: Entry) -> Iterator[bytes]:
        """The entry's bytes: exactly as many as declared, and with the checksum declared."""
        size = crc = 0
        self._file.seek(entry.start)
        try:
            for block in _inflated(self._file, entry) if entry.deflated else self._plain(entry):
                size += len(block)
                if size > entry.size:
                    self._refuse(_LYING, entry.name)
                crc = zlib.crc32(block, crc)
                yield block
        except (zlib.error, EOFError) as error:
            raise self._broken(_DAMAGED, entry.name) from error
        if size != entry.size:
            self._refuse(_LYING, entry.name)
        if crc != entry.crc:
            self._refuse(_CHECKSUM, entry.name)

    def _plain(self, entry: Entry) -> Iterator[bytes]:
        left = entry.packed
        while left:
            block = self._file.read(min(BLOCK, left))
            if not block:
                raise EOFError
            left -= len(block)
            yield block

    # --- the directory ----------------------------------------------------------------------

    def _directory(self) -> list[zipfile.ZipInfo]:
        """The entries as the archive lists them, once it is sure that the list is not endless."""
        declared = self._check_length()
        try:
            with zipfile.ZipFile(self._file) as archive:
                self._end = archive.start_dir
                found = archive.infolist()
        except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError) as error:
            raise self._broken(_NO_ZIP) from error
        if len(found) != declared:
            self._refuse(_NO_ZIP)
        return found

    def _check_length(self) -> int:
        """How many entries the archive declares, after refusing what would fill the memory."""
        self._file.seek(max(0, self.size - 66_000))
        tail = self._file.read()
        end = tail.rfind(b"PK\x05\x06")
        if end < 0 or len(tail) - end < 22:
            self._refuse(_NO_ZIP)
        entries, directory = struct.unpack_from("<HI", tail, end + 10)
        large = end - 20 - 56  # the record of large zips and its locator stand just before
        if large >= 0 and tail[end - 20 : end - 16] == b"PK\x06\x07":
            entries, directory = struct.unpack_from("<QQ", tail, large + 32)
        if entries > MAX_ENTRIES:
            self._refuse(_TOO_MANY, str(entries))
        if directory > MAX_DIRECTORY:
            self._refuse(_NO_ZIP)
        return int(entries)

    def _checked(self, found: list[zipfile.ZipInfo]) -> list[Entry]:
        names = _Names(self._refuse)
        entries, spans = [], []
        for info in found:
            folder = info.orig_filename.endswith("/")
            name = names.take(info.orig_filename.removesuffix("/"), folder=folder)
            self._check_kind(info, name, folder=folder)
            start = self._start(info, name)
            spans.append((info.header_offset, start + info.compress_size, name))
            if not folder:
                packed, deflated = info.compress_size, info.compress_type == zipfile.ZIP_DEFLATED
                entries.append(Entry(name, info.file_size, packed, info.CRC, deflated, start))
        spans.sort()
        begins = [begin for begin, _, _ in spans[1:]] + [self._end]
        for (_, end, name), next_begin in zip(spans, begins, strict=False):
            if end > next_begin:
                self._refuse(_OVERLAP, name)
        return entries

    def _check_kind(self, info: zipfile.ZipInfo, name: str, *, folder: bool) -> None:
        """A plain file or a folder, readable, and no larger than its packed bytes can be."""
        if info.flag_bits & _ENCRYPTION_BITS:
            self._refuse(_ENCRYPTED, name)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFDIR if folder else stat.S_IFREG) or _names_a_link(info.extra):
            self._refuse(_NOT_A_FILE, name)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            self._refuse(_METHOD, name)
        stored = info.compress_type == zipfile.ZIP_STORED
        if (stored and info.file_size != info.compress_size) or (folder and info.file_size):
            self._refuse(_LYING, name)
        if info.file_size > SMALL + MAX_RATIO * info.compress_size:
            self._refuse(_BOMB, name)

    def _start(self, info: zipfile.ZipInfo, name: str) -> int:
        """Where the entry's bytes begin; its own header must say what the directory says."""
        if not 0 <= info.header_offset < self._end:
            self._refuse(_DAMAGED, name)
        self._file.seek(info.header_offset)
        head = self._file.read(_LOCAL.size)
        if len(head) < _LOCAL.size:
            self._refuse(_DAMAGED, name)
        magic, _, flags, method, *_, name_length, extra_length = _LOCAL.unpack(head)
        own_name = self._file.read(name_length)
        try:
            same = own_name.decode("utf-8" if info.flag_bits & 0x800 else "cp437")
        except UnicodeDecodeError:
            same = ""
        if magic != b"PK\x03\x04" or method != info.compress_type or same != info.orig_filename:
            self._refuse(_DAMAGED, name)
        if flags & _ENCRYPTION_BITS:
            self._refuse(_ENCRYPTED, name)
        return info.header_offset + _LOCAL.size + int(name_length) + int(extra_length)

    def _refuse(self, detail: str, part: str = "") -> NoReturn:
        raise self._broken(detail, part)

    def _broken(self, detail: str, part: str = "") -> BrokenModel:
        return BrokenModel(detail, name=self._name, part=_shown(part))


class _Names:
    """The names of an archive so far, compared as Windows and macOS compare them."""

    def __init__(self, refuse: Callable[..., NoReturn]) -> None:
        self._refuse = refuse
        self._files: set[str] = set()
        self._folders: dict[str, str] = {}

    def take(self, raw: str, *, folder: bool) -> str:
        """The name as it may be written; refuses one that is unsafe or collides with another."""
        name = nfc(raw)
        if not is_safe(name):
            self._refuse(_BAD_NAME, raw)
        parts = name.split("/")
        above = ["/".join(parts[:n]) for n in range(1, len(parts) + folder)]
        for path in above:
            key = _key(path)
            if key in self._files or self._folders.setdefault(key, path) != path:
                self._refuse(_TWICE, name)
        if not folder:
            key = _key(name)
            if key in self._files or key in self._folders:
                self._refuse(_TWICE, name)
            self._files.add(key)
        return name


def _key(path: str) -> str:
    return unicodedata.normalize("NFC", path.casefold())


def _names_a_link(extra: bytes) -> bool:
    position = 0
    while position + 4 <= len(extra):
        field, length = struct.unpack_from("<HH", extra, position)
        # Both begin with 12 bytes or more of times and owners; what comes after names a target.
        if field in _LINK_FIELDS and length > 12:
            return True
        position += 4 + length
    return False


def _inflated(file: IO[bytes], entry: Entry) -> Iterator[bytes]:
    """The unpacked bytes in blocks; a stream must end where the entry ends."""
    inflate, left = zlib.decompressobj(-zlib.MAX_WBITS), entry.packed
    while not inflate.eof:
        packed = inflate.unconsumed_tail
        if not packed:
            packed = file.read(min(_PIECE, left))
            left -= len(packed)
        block = inflate.decompress(packed, BLOCK)
        if block:
            yield block
        elif not packed and not inflate.eof:
            raise EOFError
    if left or inflate.unused_data:
        raise EOFError


def _shown(name: str) -> str:
    """A name that may be printed: a hostile one could hold control characters or be very long."""
    return "".join(c if c.isprintable() else "�" for c in name[:120])
