"""Zip archives byte by byte: whole ones, and ones that lie."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

STORED, DEFLATED = 0, 8


@dataclass
class Raw:
    """One entry; what is None is told truly."""

    name: bytes | str
    data: bytes = b""
    method: int = STORED
    flags: int = 0x800
    mode: int = 0
    extra: bytes = b""
    crc: int | None = None
    size: int | None = None
    packed_size: int | None = None
    packed: bytes | None = None
    offset: int | None = None
    local_name: bytes | str | None = None
    local_method: int | None = None
    local_flags: int | None = None
    hidden: bool = False
    """Its bytes lie in the archive, but the directory does not list it."""
    only_listed: bool = False
    """The directory lists it, but it has no bytes of its own."""


def encoded(name: bytes | str) -> bytes:
    return name if isinstance(name, bytes) else name.encode()


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def archive(
    *entries: Raw,
    count: int | None = None,
    directory_size: int | None = None,
    directory_offset: int | None = None,
    zip64: tuple[int, int, int] | None = None,
    tail: bytes = b"",
) -> bytes:
    """The whole archive; `zip64` is (entries, directory size, offset) of a record for large zips."""
    body, directory, listed = b"", b"", 0
    for entry in entries:
        packed = entry.packed
        if packed is None:
            packed = deflated(entry.data) if entry.method == DEFLATED else entry.data
        crc = zlib.crc32(entry.data) if entry.crc is None else entry.crc
        size = len(entry.data) if entry.size is None else entry.size
        packed_size = len(packed) if entry.packed_size is None else entry.packed_size
        offset = len(body) if entry.offset is None else entry.offset
        name = encoded(entry.name)
        local = name if entry.local_name is None else encoded(entry.local_name)
        method = entry.method if entry.local_method is None else entry.local_method
        flags = entry.flags if entry.local_flags is None else entry.local_flags
        if not entry.only_listed:
            body += struct.pack(
                "<4sHHHHHIIIHH", b"PK\3\4", 20, flags, method, 0, 0x21, crc, packed_size, size,
                len(local), 0,
            ) + local + packed  # fmt: skip
        if not entry.hidden:
            listed += 1
            directory += struct.pack(
                "<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20 | 3 << 8, 20, entry.flags, entry.method, 0, 0x21,
                crc, packed_size, size, len(name), len(entry.extra), 0, 0, 0, entry.mode << 16, offset,
            ) + name + entry.extra  # fmt: skip
    start = len(body)
    if zip64:
        entries64, size64, offset64 = zip64
        directory += struct.pack(
            "<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, entries64, entries64, size64, offset64
        )
        directory += struct.pack("<4sIQI", b"PK\6\7", 0, start + len(directory) - 56, 1)
    return (
        body
        + directory
        + struct.pack(
            "<4sHHHHIIH", b"PK\5\6", 0, 0,
            listed if count is None else count, listed if count is None else count,
            len(directory) if directory_size is None else directory_size,
            start if directory_offset is None else directory_offset, 0,
        )
        + tail
    )  # fmt: skip


def files_of(folder: Path, prefix: str = "") -> list[Raw]:
    """Every file of a folder as an honest entry."""
    return [
        Raw(prefix + file.relative_to(folder).as_posix(), file.read_bytes())
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]
