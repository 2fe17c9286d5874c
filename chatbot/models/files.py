"""A model's files: their hashes, and the room they need."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from chatbot.errors import DiskFullError

BLOCK = 4 << 20
COMPANIONS = (".json", ".txt", ".model", ".jinja", ".md")
LICENCES = ("LICENSE", "LICENCE", "NOTICE")
SPARE_DISK = int(os.environ.get("HEARTH_SPARE_DISK") or 500_000_000)
"""Bytes that stay free on the disk whatever is made; less than nothing switches the check off."""


class Report(Protocol):
    """Takes how far a step is (0..1) and what it does now. Raises Cancelled when nobody wants it any more."""

    def __call__(self, fraction: float, message: str = "", **values: Any) -> None:
        """`message` is an English msgid (N_); `values` fill its {places} once it is translated."""


def goes_along(name: str) -> bool:
    """Whether a file of that name belongs to a model beside its weights: settings, tokenizer, licence."""
    path = Path(name)
    return path.suffix.lower() in COMPANIONS or path.stem.upper() in LICENCES


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a model: its name in the folder, bytes, SHA-256, and when it was last changed."""

    name: str
    size: int
    sha256: str
    modified_ns: int


def stored(file: Path, name: str = "", read: Callable[[int], None] | None = None) -> StoredFile:
    """The file with its SHA-256; `read` hears how many bytes were read, block by block."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(BLOCK):
            digest.update(block)
            if read:
                read(len(block))
    found = file.stat()
    return StoredFile(name or file.name, found.st_size, digest.hexdigest(), found.st_mtime_ns)


def all_stored(
    folder: Path, names: Iterable[str], report: Report, message: str
) -> list[StoredFile]:
    """Those files of a folder with their SHA-256, reported as one piece of work from 0 to 1."""
    files = [folder / name for name in names]
    total, done = sum(file.stat().st_size for file in files), 0

    def read(size: int) -> None:
        nonlocal done
        done += size
        report(done / max(total, 1), message)

    return [stored(file, file.relative_to(folder).as_posix(), read) for file in files]


def room_for(size: int) -> int:
    """Bytes that must be free before `size` bytes are written: a tenth more, and what stays free."""
    return size + size // 10 + SPARE_DISK


def check_room(folder: Path, size: int) -> None:
    """Raise DiskFullError unless the disk of `folder` takes `size` bytes and some more."""
    free, needed = shutil.disk_usage(folder).free, room_for(size)
    if free < needed:
        raise DiskFullError(f"{needed / 1e9:.1f} GB > {free / 1e9:.1f} GB ({folder}).")


@contextmanager
def telling_full_disk(folder: Path) -> Iterator[None]:
    """A disk that fills up while the block writes is said as DiskFullError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(str(folder)) from error
        raise
