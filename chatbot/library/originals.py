"""Originals: what people added, each under the hash of its content in `files/`."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from chatbot.database import Database
from chatbot.errors import DiskFullError
from chatbot.failpoints import failpoint
from chatbot.settings import Paths, sync

SPARE_BYTES = 500_000_000
"""What must stay free on the disk after an addition."""

MARGIN = 1.1
_COPY_BYTES = 1 << 20


class Originals:
    """The files of one data folder; documents' rows say which of them are held."""

    def __init__(self, database: Database, paths: Paths, spare_bytes: int = SPARE_BYTES) -> None:
        """Clear what an interrupted run left behind."""
        self._database = database
        self._paths = paths
        self._spare = spare_bytes
        paths.make()
        self._sweep()

    @property
    def own_folder(self) -> Path:
        """The data folder that the copies are kept in."""
        return self._paths.data

    def require_room(self, size: int) -> None:
        """Raise DiskFullError unless that many bytes, a tenth more and the spare fit on the disk."""
        needed = int(size * MARGIN) + self._spare
        free = shutil.disk_usage(self._paths.data).free
        if free < needed:
            raise DiskFullError(f"{free // 1_000_000} MB < {needed // 1_000_000} MB")

    def add(self, stream: IO[bytes]) -> tuple[str, int]:
        """Copy what the stream holds, synced to the disk; returns its SHA-256 and its size."""
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
            target = self.path(digest.hexdigest())
            if not target.exists():
                os.replace(temporary, target)
                sync(self._paths.files)
        finally:
            temporary.unlink(missing_ok=True)
        return digest.hexdigest(), size

    def path(self, sha256: str) -> Path:
        """Where the original of that hash lies, if it is there."""
        return self._paths.files / sha256

    def drop(self, hashes: Iterable[str]) -> None:
        """Erase those that no document holds any more."""
        for sha256 in set(hashes) - {""}:
            if not self._database.row("SELECT 1 FROM documents WHERE sha256 = ?", (sha256,)):
                self.path(sha256).unlink(missing_ok=True)

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


def hash_of(path: Path) -> str:
    """The SHA-256 of a file's content."""
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
