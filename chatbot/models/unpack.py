"""A model out of a zip: one that Hearth packed, or one that somebody made by hand.

Every byte is checked on its way. What the manifest in the zip says of origin and verdict is a claim of
whoever packed it; only hashes are believed, and those are computed anew.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, get_args

from chatbot.errors import BrokenModel, ModelError
from chatbot.i18n import N_
from chatbot.memory import pickles
from chatbot.models.archive import Archive, Entry
from chatbot.models.chain import DOCUMENTS_LEFT
from chatbot.models.files import Report, StoredFile, check_room, goes_along
from chatbot.models.importing import MAX_COMPANION
from chatbot.models.names import is_safe
from chatbot.models.package import FORMAT, LIBRARY, MANIFEST, VERSION
from chatbot.models.store import MANIFEST as STORE_MANIFEST
from chatbot.settings import sync
from chatbot.text import nfc
from chatbot.types import ModelRole

MAX_MANIFEST = 4_000_000
_NEARLY = 0.99

_NO_MODEL = N_("the archive holds no model: neither a GGUF file nor a config.json with weights.")
_SEVERAL = N_("the archive holds several models ({part}); pack the one you want by itself.")
_NOT_OURS = N_("its manifest cannot be read.")
_NEWER = N_("it was packed by a newer Hearth; update this one first.")
_OTHER_FILES = N_("its manifest does not name the files that it holds ({part}).")
_WRONG_HASH = N_("{part} is not the file that was packed: its SHA-256 differs.")

_CLAIMS = ("id", "name", "added_at", "origin", "lineage", "made", "verdict", "bench")
_SPLIT = re.compile(r"(-\d{5}-of-\d{5})?\.gguf$", re.IGNORECASE)
_JUNK = ("thumbs.db", "desktop.ini", ".ds_store")


def unpack(
    report: Report, *, source: Path, target: Path, library: str | None = None
) -> dict[str, Any]:
    """Unpack the model of a zip into the empty folder `target`, every byte checked on its way.

    `library` is where to put a document library that travels along; without it that stays in the zip.
    Returns {files, figures, name, role, notes}: a packed model's claims stand in notes["packaged"], and
    figures["library"] says {size, sha256, unpacked}. Raises BrokenModel, ModelError, DiskFullError or
    Cancelled, and then leaves `target` empty.
    """
    began = time.monotonic()
    try:
        with Archive(source) as archive:
            made = _unpacked(archive, source, target, library, report)
            size = archive.size
    except BaseException:
        for item in target.iterdir():
            shutil.rmtree(item) if item.is_dir() else item.unlink()
        if library:
            Path(library).unlink(missing_ok=True)
        raise
    total = sum(file["size"] for file in made["files"])
    made["figures"] |= {
        "bytes_in": size,
        "bytes_out": total,
        "seconds": round(time.monotonic() - began, 2),
    }
    return made


def _unpacked(
    archive: Archive, source: Path, target: Path, library: str | None, report: Report
) -> dict[str, Any]:
    entries = {entry.name: entry for entry in archive.entries}
    if MANIFEST not in entries:
        return _by_hand(archive, source, target, report)
    about = _Packed(archive.read(entries.pop(MANIFEST), MAX_MANIFEST), source.name, entries)
    wanted = {f"{about.folder}/{name}": target / name for name in about.names}
    if about.library and library:
        wanted[LIBRARY] = Path(library)
    stored = _extract(archive, [entries[name] for name in wanted], wanted, report)
    for file in stored:
        if file.sha256 != about.hashes[file.name]:
            raise BrokenModel(_WRONG_HASH, name=source.name, part=file.name)
    figures: dict[str, Any] = {"packed_by": "hearth", "skipped": []}
    if about.library:
        figures["library"] = {
            "size": entries[LIBRARY].size,
            "sha256": about.hashes[LIBRARY],
            "unpacked": library is not None,
        }
        if library is None:
            report(_NEARLY, DOCUMENTS_LEFT)
    return {
        "files": [_within(about.folder, file) for file in stored if file.name != LIBRARY],
        "figures": figures,
        "name": about.name,
        "role": about.role,
        "notes": {"packaged": about.claims},
    }


def _by_hand(archive: Archive, source: Path, target: Path, report: Report) -> dict[str, Any]:
    """The one model of a zip that somebody made, wherever in it that lies."""
    home, wanted = _the_model(archive.entries, source.name)
    pickled = any(_is_pickle(entry.name) for entry in wanted)
    work = target / ".pickled" if pickled else target
    goals = {e.name: work / e.name.removeprefix(f"{home}/" if home else "") for e in wanted}
    stored = _extract(archive, wanted, goals, report)
    files = [_within(home, file) for file in stored]
    if pickled:
        files = _without_pickles(work, target, report)
    names = {entry.name for entry in wanted}
    return {
        "files": files,
        "figures": {
            "packed_by": "hand",
            "skipped": [e.name for e in archive.entries if e.name not in names][:100],
        },
        "name": nfc(PurePosixPath(home).name) if home else nfc(source.stem),
        "role": "chat",
        "notes": {},
    }


def _without_pickles(work: Path, target: Path, report: Report) -> list[dict[str, Any]]:
    """Weights that came as a pickle are saved as safetensors, and the pickle is gone."""
    from chatbot.models.fp16 import prepare

    done = prepare(report, source=work, target=target, precision="keep", form="hf", device="cpu")
    shutil.rmtree(work)
    files: list[dict[str, Any]] = done["files"]
    return files


def _extract(
    archive: Archive, entries: Sequence[Entry], goals: dict[str, Path], report: Report
) -> list[StoredFile]:
    total, done = sum(entry.size for entry in entries), 0

    def read(size: int) -> None:
        nonlocal done
        done += size
        report(_NEARLY * done / max(total, 1), N_("Unpacking"))

    report(0.0, N_("Unpacking"))
    for goal in {goals[entry.name].parent for entry in entries}:
        goal.mkdir(parents=True, exist_ok=True)
        check_room(goal, total)
    stored = [archive.extract(entry, goals[entry.name], read) for entry in entries]
    for folder in {goal.parent for goal in goals.values()}:
        sync(folder)
    return stored


def _within(folder: str, file: StoredFile) -> dict[str, Any]:
    return {**asdict(file), "name": file.name.removeprefix(f"{folder}/" if folder else "")}


class _Packed:
    """What hearth.json says, believed only where it fits the archive."""

    def __init__(self, content: bytes, archive: str, entries: dict[str, Entry]) -> None:
        self._archive = archive
        about = self._parsed(content)
        version, folder = about.get("version"), about.get("folder")
        if about.get("format") != FORMAT or type(version) is not int:
            self._refuse(_NOT_OURS)
        if version > VERSION:
            self._refuse(_NEWER)
        model, files = about.get("model"), about.get("files")
        if not isinstance(model, dict) or not isinstance(files, dict):
            self._refuse(_NOT_OURS)
        if not isinstance(folder, str) or not is_safe(folder):
            self._refuse(_NOT_OURS)
        self.folder = folder
        self.library = LIBRARY in entries
        if other := files.keys() ^ entries.keys():
            self._refuse(_OTHER_FILES, min(other))
        self.hashes: dict[str, str] = {}
        self.names: list[str] = []
        for name, facts in files.items():
            if not isinstance(facts, dict) or not isinstance(facts.get("sha256"), str):
                self._refuse(_NOT_OURS)
            if facts.get("size") != entries[name].size:
                self._refuse(_OTHER_FILES, name)
            self.hashes[name] = facts["sha256"]
            if name != LIBRARY:
                self.names.append(self._own(name))
        if not self.names:
            self._refuse(_NO_MODEL)
        self.name = self._text(model.get("name"))
        role = model.get("role")
        self.role = role if role in get_args(ModelRole) else "chat"
        self.claims = {key: model[key] for key in _CLAIMS if key in model}

    def _own(self, name: str) -> str:
        """The name inside the model's folder."""
        own = name.removeprefix(f"{self.folder}/")
        if own == name or own.casefold() == STORE_MANIFEST:
            self._refuse(_OTHER_FILES, name)
        return own

    def _parsed(self, content: bytes) -> dict[str, Any]:
        try:
            about = json.loads(content.decode(), parse_constant=_no_number)
            json.dumps(about, ensure_ascii=False).encode()  # fails for half a surrogate pair
        except (ValueError, RecursionError) as error:
            raise BrokenModel(_NOT_OURS, name=self._archive) from error
        if not isinstance(about, dict):
            self._refuse(_NOT_OURS)
        return about

    def _text(self, value: Any) -> str:
        return nfc(value)[:200] if isinstance(value, str) else ""

    def _refuse(self, detail: str, part: str = "") -> NoReturn:
        raise BrokenModel(detail, name=self._archive, part=part[:120])


def _no_number(text: str) -> None:
    raise ValueError(text)


# --- a zip made by hand -----------------------------------------------------------------------


def _the_model(entries: Sequence[Entry], archive: str) -> tuple[str, list[Entry]]:
    """The folder of the one model in there ("" for the top), and the files it is made of."""
    folders: dict[str, list[Entry]] = {}
    for entry in entries:
        path = PurePosixPath(entry.name)
        junk = path.parts[0] == "__MACOSX" or path.name.casefold() in _JUNK
        if not junk and not path.name.startswith("._"):
            folders.setdefault("" if str(path.parent) == "." else str(path.parent), []).append(
                entry
            )
    homes = [folder for folder, files in folders.items() if _is_home(files)]
    if not homes:
        raise ModelError(_NO_MODEL, name=archive)
    depth = min(_depth(home) for home in homes)
    homes = [home for home in homes if _depth(home) == depth]
    if len(homes) > 1:
        raise ModelError(_SEVERAL, name=archive, part=", ".join(sorted(homes)[:3]))
    home = homes[0]
    wanted = _weights(folders[home])
    models = {_SPLIT.sub("", entry.name) for entry in wanted if _is_gguf(entry.name)}
    if len(models) > 1:
        raise ModelError(_SEVERAL, name=archive, part=", ".join(sorted(models)[:3]))
    prefix = f"{home}/" if home else ""
    for folder, files in folders.items():
        if folder == home or folder.startswith(prefix):
            wanted += [entry for entry in files if _is_companion(entry)]
    return home, wanted


def _depth(folder: str) -> int:
    return len(PurePosixPath(folder).parts)


def _is_home(files: Sequence[Entry]) -> bool:
    names = {PurePosixPath(entry.name).name for entry in files}
    return bool(_weights(files)) and (
        bool(names & {"config.json", "adapter_config.json"})
        or any(name.lower().endswith(".gguf") for name in names)
    )


def _weights(files: Sequence[Entry]) -> list[Entry]:
    """The weights among a folder's files: safetensors before GGUF, a pickle where there is nothing else."""
    names = {entry.name: PurePosixPath(entry.name).suffix.lower() for entry in files}
    for kinds in ((".safetensors",), (".gguf",), pickles.SUFFIXES):
        found = [entry for entry in files if names[entry.name] in kinds]
        if found:
            return found
    return []


def _is_gguf(name: str) -> bool:
    return name.lower().endswith(".gguf")


def _is_pickle(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in pickles.SUFFIXES


def _is_companion(entry: Entry) -> bool:
    path = PurePosixPath(entry.name)
    if path.name.casefold() == STORE_MANIFEST or entry.size > MAX_COMPANION:
        return False
    return goes_along(path.name)
