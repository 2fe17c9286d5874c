"""A seal: the sizes and checksums of an index folder's files, written last.

An index is rebuildable, so its files are not synced as they grow; instead a folder at rest is sealed,
and a folder whose files do not match its seal is damaged. Writing starts by breaking the seal.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from chatbot.settings import write_atomically

_SEAL = "seal.json"
_CHUNK = 4 << 20

Files = dict[str, list[int]]


class Checked(NamedTuple):
    """A seal that was read: its facts, whether every file is still as it was, and the files as they are."""

    facts: dict[str, Any]
    holds: bool
    files: Files
    """Size, time of change and CRC-32 by relative path."""


def write_seal(folder: Path, facts: dict[str, Any], checked: Files | None = None) -> None:
    """Seal the folder as it stands now; `facts` (JSON-able) come back from `read_seal`.

    Files that did not change since they were `checked`, moments ago, are not read again.
    """
    files = {name: [size, crc] for name, (size, _, crc) in _files(folder, checked or {}).items()}
    write_atomically(folder / _SEAL, json.dumps({"facts": facts, "files": files}).encode())


def read_seal(folder: Path) -> Checked | None:
    """The sealed facts and whether every file is still as it was; None without a readable seal."""
    try:
        content = json.loads((folder / _SEAL).read_text(encoding="utf-8"))
        facts, sealed = dict(content["facts"]), content["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    files = _files(folder, {})
    return Checked(facts, sealed == {n: [size, crc] for n, (size, _, crc) in files.items()}, files)


def break_seal(folder: Path) -> None:
    """Say that the folder's files are about to change."""
    with contextlib.suppress(FileNotFoundError):
        (folder / _SEAL).unlink()


def _files(folder: Path, checked: Files) -> Files:
    """Every file but the seal and locks."""
    found: Files = {}
    for file in sorted(folder.rglob("*")):
        if not file.is_file() or file.name == _SEAL or file.suffix in (".lock", ".tmp"):
            continue
        name, about = file.relative_to(folder).as_posix(), file.stat()
        known = checked.get(name, [])
        fresh = known[:2] != [about.st_size, about.st_mtime_ns]
        crc = _checksum(file) if fresh else known[2]
        found[name] = [about.st_size, about.st_mtime_ns, crc]
    return found


def _checksum(file: Path) -> int:
    checksum = 0
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
