"""A seal: the sizes and checksums of an index folder's files, written last.

An index is rebuildable, so its files are not synced as they grow; instead a folder at rest is sealed,
and a folder whose files do not match its seal is damaged. Writing starts by breaking the seal.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from pathlib import Path
from typing import Any

from chatbot.settings import write_atomically

_SEAL = "seal.json"
_CHUNK = 4 << 20

Files = dict[str, list[int]]


def write_seal(folder: Path, facts: dict[str, Any]) -> None:
    """Seal the folder as it stands now; `facts` (JSON-able) come back from `read_seal`."""
    content = {"facts": facts, "files": _files(folder)}
    write_atomically(folder / _SEAL, json.dumps(content).encode())


def read_seal(folder: Path) -> tuple[dict[str, Any], bool] | None:
    """The sealed facts and whether every file is still as it was; None without a readable seal."""
    try:
        content = json.loads((folder / _SEAL).read_text(encoding="utf-8"))
        facts, files = dict(content["facts"]), content["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return facts, files == _files(folder)


def break_seal(folder: Path) -> None:
    """Say that the folder's files are about to change."""
    with contextlib.suppress(FileNotFoundError):
        (folder / _SEAL).unlink()


def _files(folder: Path) -> Files:
    """Size and CRC-32 of every file but the seal and locks, by relative path."""
    return {
        file.relative_to(folder).as_posix(): [file.stat().st_size, _checksum(file)]
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != _SEAL and file.suffix not in (".lock", ".tmp")
    }


def _checksum(file: Path) -> int:
    checksum = 0
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
