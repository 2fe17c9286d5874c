"""A model packed into one zip, to carry to another PC.

ID/config.json, …    the model's files, in a folder that bears its id; weights are stored as they are
                     where compressing gains little, and any zip program opens it
library.hearth       the document library, where it travels along (an exported collection)
hearth.json          last: format, version, the model's manifest, size and SHA-256 of every entry
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chatbot.errors import BrokenModel, CannotPack, DiskFullError
from chatbot.i18n import N_
from chatbot.models.archive import MAX_RATIO, SMALL
from chatbot.models.files import BLOCK, Report, StoredFile, check_room
from chatbot.settings import sync
from chatbot.text import nfc

FORMAT, VERSION = "hearth-model", 1
MANIFEST, LIBRARY = "hearth.json", "library.hearth"
WORTH = 0.9
"""A file is compressed where samples of it shrink to this or less."""
SAMPLES, SAMPLE = 8, 256 << 10
LEVEL = 1
_NEARLY = 0.99

_CHANGED = N_("{part} is not what it was when the model was added; verify it or import it again.")
_TOO_LARGE = N_(
    "files that large do not fit on that disk (FAT32 takes 4 GB); exFAT and NTFS take them."
)
_STAYS_HERE = frozenset(
    ["source", "linked", "path", "target", "parent", "adapter", "importance", "file", "library"]
)
"""What says where things lie on this PC does not travel."""


def package(
    report: Report,
    *,
    source: Path,
    file: Path,
    manifest: dict[str, Any],
    library: str | None = None,
) -> dict[str, Any]:
    """Write the model in the folder `source` into one zip that appears under `file` when it is whole.

    `manifest` is the model's own; every file must still have the hash it names. `library` is the path of
    an exported collection to take along. Returns {file, size, bytes_in, ratio, files, seconds}. Raises
    BrokenModel, CannotPack, DiskFullError or Cancelled, and then leaves nothing.
    """
    try:
        return _packed(report, source, file, manifest, library)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(str(file.parent)) from error
        detail = _TOO_LARGE if error.errno == errno.EFBIG else error.strerror or str(error)
        raise CannotPack(detail, name=manifest["name"]) from error


def _packed(
    report: Report, source: Path, file: Path, manifest: dict[str, Any], library: str | None
) -> dict[str, Any]:
    began = time.monotonic()
    known = [StoredFile(**entry) for entry in manifest["files"]]
    parts: list[tuple[Path, str, str | None]] = [
        (source / one.name, nfc(f"{manifest['id']}/{one.name}"), one.sha256) for one in known
    ]
    if library:
        parts.append((Path(library), LIBRARY, None))
    total = sum(path.stat().st_size for path, _, _ in parts)
    file.parent.mkdir(parents=True, exist_ok=True)
    check_room(file.parent, total)
    plain: set[str] = set()
    while True:
        with _beside(file) as temporary:
            entries = _write(temporary, parts, manifest, plain, report, total)
            too_small = {
                name
                for name, entry in entries.items()
                if entry["size"] > SMALL + MAX_RATIO * entry["packed"]
            }
            if not too_small:
                sync(temporary)
                os.replace(temporary, file)
                sync(file.parent)
                break
        plain |= too_small  # what shrinks that much would be refused as a bomb
    size = file.stat().st_size
    return {
        "file": str(file),
        "size": size,
        "bytes_in": total,
        "ratio": round(size / max(total, 1), 4),
        "files": [{"name": name, **entry} for name, entry in entries.items()],
        "seconds": round(time.monotonic() - began, 2),
    }


def _write(
    file: Path,
    parts: Sequence[tuple[Path, str, str | None]],
    manifest: dict[str, Any],
    plain: set[str],
    report: Report,
    total: int,
) -> dict[str, dict[str, Any]]:
    """Every part and the manifest; {entry: {size, packed, sha256}}."""
    entries: dict[str, dict[str, Any]] = {}
    done = 0

    def read(size: int) -> None:
        nonlocal done
        done += size
        report(_NEARLY * min(done / max(total, 1), 1.0), N_("Packing"))

    with zipfile.ZipFile(file, "w", compresslevel=LEVEL) as archive:
        for path, name, sha256 in parts:
            # A name opened as text takes the archive's method, and 1980 for a date: equal models, equal zips.
            shrinks = name not in plain and _shrinks(path)
            archive.compression = zipfile.ZIP_DEFLATED if shrinks else zipfile.ZIP_STORED
            entries[name] = _add(archive, path, name, read)
            if sha256 is not None and entries[name]["sha256"] != sha256:
                raise BrokenModel(_CHANGED, name=manifest["name"], part=path.name)
        about = {
            "format": FORMAT,
            "version": VERSION,
            "model": _travelling(manifest),
            "folder": manifest["id"],
            "files": {
                name: {"size": entry["size"], "sha256": entry["sha256"]}
                for name, entry in entries.items()
            },
        }
        archive.compression = zipfile.ZIP_DEFLATED
        archive.writestr(
            zipfile.ZipInfo(MANIFEST),
            json.dumps(about, ensure_ascii=False, indent=1).encode(),
            zipfile.ZIP_DEFLATED,
        )
    return entries


def _travelling(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest without what says where things lie on this PC."""
    kept = {key: value for key, value in manifest.items() if key not in _STAYS_HERE}
    made = kept.get("made")
    if isinstance(made, dict) and isinstance(made.get("params"), dict):
        params = {key: v for key, v in made["params"].items() if key not in _STAYS_HERE}
        kept["made"] = {**made, "params": params}
    return kept


def _add(
    archive: zipfile.ZipFile, path: Path, name: str, read: Callable[[int], None]
) -> dict[str, Any]:
    digest, size = hashlib.sha256(), path.stat().st_size
    large = size > 2_000_000_000
    with path.open("rb") as opened, archive.open(name, "w", force_zip64=large) as entry:
        while block := opened.read(BLOCK):
            entry.write(block)
            digest.update(block)
            read(len(block))
    info = archive.getinfo(name)
    return {
        "size": info.file_size,
        "packed": info.compress_size,
        "sha256": digest.hexdigest(),
    }


def _shrinks(path: Path) -> bool:
    """Whether compressing gains enough, by samples from all over the file."""
    size, sampled, packed = path.stat().st_size, 0, 0
    with path.open("rb") as opened:
        for number in range(SAMPLES):
            opened.seek(max(0, size - SAMPLE) * number // (SAMPLES - 1))
            sample = opened.read(SAMPLE)
            sampled += len(sample)
            packed += len(zlib.compress(sample, LEVEL))
            if size <= SAMPLE:
                break
    return packed < WORTH * sampled


def unfinished(file: Path) -> Path:
    """Where it is written until it is whole: always the same, so that a killed run's rest is overwritten."""
    return file.with_name(f".{file.name[:60]}.unfinished")


@contextmanager
def _beside(file: Path) -> Iterator[Path]:
    temporary = unfinished(file)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
