"""The journal of a download: how much of each file is safely on the disk."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from chatbot.settings import sync

SYNC_SECONDS = 1.0
"""How often the journal itself is synced at most; it stands in the system's memory when only we are killed."""


def journal_of(target: Path) -> Path:
    """Where the journal of a download into that folder lies: beside it, so that it never becomes part of it."""
    return target.with_name(f"{target.name}.journal")


class Journal:
    """How much of each file is safely on the disk; a line for each fact, the first says what is fetched."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._synced_at = 0.0
        self._good: dict[str, int] = {}
        self._tags: dict[str, str] = {}
        self.plan: dict[str, Any] = {}
        if not file.exists():
            return
        for number, line in enumerate(file.read_bytes().splitlines()):
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that was cut off
                entry = json.loads(line)
                if number == 0:
                    self.plan = dict(entry)
                else:
                    self._good[str(entry["path"])] = int(entry["good"])
                    self._tags[str(entry["path"])] = str(entry["etag"])

    def good(self, path: str) -> int:
        """Bytes from the file's start that are on the disk."""
        return self._good.get(path, 0)

    def etag(self, path: str) -> str:
        """What the server called the content when it sent these bytes."""
        return self._tags.get(path, "")

    def begin(self, plan: dict[str, Any]) -> None:
        """Say what is fetched, unless it is said already."""
        if not self.plan:
            self.plan = plan
            self._file.unlink(missing_ok=True)
            self._append(plan)
            sync(self._file.parent)

    def note(self, path: str, good: int, etag: str) -> None:
        """Say how far a file is good; its bytes must be synced before."""
        if (self.good(path), self.etag(path)) != (good, etag):
            self._good[path], self._tags[path] = good, etag
            self._append({"path": path, "good": good, "etag": etag})

    def _append(self, entry: dict[str, Any]) -> None:
        with self._file.open("ab") as opened:
            if opened.tell() and not self._ends_a_line():
                opened.write(b"\n")
            opened.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            opened.flush()
            if time.monotonic() - self._synced_at > SYNC_SECONDS:
                os.fsync(opened.fileno())
                self._synced_at = time.monotonic()

    def _ends_a_line(self) -> bool:
        with self._file.open("rb") as opened:
            opened.seek(-1, os.SEEK_END)
            return opened.read(1) == b"\n"
