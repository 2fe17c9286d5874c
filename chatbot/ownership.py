"""Who owns a data folder: one process, held by an OS lock and named to others in a small file.

The lock is taken before the first page is served; the rooms open afterwards (services.py).
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from chatbot.errors import OwnerError
from chatbot.settings import Paths, write_atomically


class Ownership:
    """This process owns the folder until `release`; `address` is where it serves its pages, or empty."""

    def __init__(self, paths: Paths, lock: FileLock, address: str) -> None:
        self.paths = paths
        self.address = address
        self.token = _token(paths.token)
        self._lock = lock
        self._announce()

    def renew_token(self) -> str:
        """A fresh API token; the old one stops working at once."""
        self.paths.token.unlink(missing_ok=True)
        self.token = _token(self.paths.token)
        self._announce()
        return self.token

    def release(self) -> None:
        """Let another process own the folder."""
        _held.pop(self.paths.lock, None)
        try:
            self.paths.owner.unlink(missing_ok=True)
        finally:
            self._lock.release()

    def _announce(self) -> None:
        """Tell a second start and the command line, through a file of this user's, who owns the folder."""
        owner = {"pid": os.getpid(), "address": self.address, "token": self.token}
        write_atomically(self.paths.owner, json.dumps(owner).encode())


_held: dict[Path, Ownership] = {}


def own(paths: Paths, address: str = "") -> Ownership:
    """Take the folder, or return what this process has taken. Raises OwnerError when another has it."""
    if paths.lock in _held:
        return _held[paths.lock]
    os.umask(0o077)  # what this process and its helpers write is for this user only
    paths.data.mkdir(parents=True, exist_ok=True)
    lock = FileLock(paths.lock, mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        owner = owner_of(paths) or {}
        where = owner.get("address") or f"PID {owner.get('pid', '?')}"
        raise OwnerError(address=where) from None
    try:
        _held[paths.lock] = Ownership(paths, lock, address)
    except BaseException:
        lock.release()
        raise
    return _held[paths.lock]


def owner_of(paths: Paths) -> dict[str, Any] | None:
    """Process id, address and token of the Hearth that holds this data folder now, or None."""
    lock = FileLock(paths.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        try:
            owner: dict[str, Any] = json.loads(paths.owner.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            owner = {"pid": 0, "address": ""}
        return owner
    except OSError:
        return None  # the folder does not exist yet
    lock.release()
    return None


def _token(file: Path) -> str:
    """HEARTH_API_TOKEN, else the stored token, made at first run and readable by this user only."""
    if given := os.environ.get("HEARTH_API_TOKEN", "").strip():
        return given
    stored = file.read_text(encoding="utf-8").strip() if file.exists() else ""
    if not stored:  # an empty token would open the door to everyone
        stored = secrets.token_urlsafe(32)
        write_atomically(file, stored.encode())
    return stored
