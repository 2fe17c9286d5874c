"""What a model has read, kept as files, so that a conversation goes on without being read again.

A state is two files in one private folder: `NAME.state`, written by llama.cpp, and `NAME.json`, its
manifest, written last. NAME is made of hashes of the conversation and of the model, so that the
owner can remove a conversation's states without opening any. A state whose manifest is missing,
broken, of another model or does not fit its bytes is removed and never loaded.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from array import array
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatbot.settings import sync, write_atomically

log = logging.getLogger(__name__)

Facts = dict[str, Any]
"""All that must be the same for a state to mean the same: the model's files, its KV type, the library."""

SHARED = "shared-"
"""Names of states that hold a system prompt only, which many conversations begin with."""
SHARE_OF_DISK = 10
"""Never more than one part in so many of what is free."""
WRITING_SECONDS = 60.0
"""What has no manifest for so long is not about to get one."""


@dataclass(frozen=True, slots=True)
class State:
    """One state on disk, as its manifest tells.

    The prompt `text` was read as the first `prompt` of `tokens`, the others are its answer; the state
    holds the first `held` of them. `reading` is how many tokens a second the model read when it was
    made, `disk` how many bytes a second were written.
    """

    name: str
    text: str
    prompt: int
    tokens: array[int]
    held: int
    size: int
    digest: str
    reading: float = 0.0
    disk: float = 0.0


def name_of(conversation: str, facts: Facts) -> str:
    """The name of the state of this conversation with that model."""
    return f"{_key(conversation)}-{_model_key(facts)}"


def shared_name(tokens: Sequence[int], facts: Facts) -> str:
    """The name of the state of a system prompt."""
    return f"{SHARED}{_key(array('i', tokens).tobytes())}-{_model_key(facts)}"


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    for same, (token, likewise) in enumerate(zip(one, other, strict=False)):
        if token != likewise:
            return same
    return min(len(one), len(other))


class StateFolder:
    """The folder of states. The owner removes, the engine's process adds; both may at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, tuple[int, State]] = {}

    # --- for the owner

    def used(self) -> int:
        """Bytes that all states take."""
        return sum(size for _, size, _ in self._files())

    def limit(self, megabytes: int) -> int:
        """Bytes that the states may take where the person allows so many: a part of what is free at most."""
        try:
            free = shutil.disk_usage(self.path).free
        except OSError:
            return 0
        return min(megabytes * 10**6, (free + self.used()) // SHARE_OF_DISK)

    def forget(self, conversations: Collection[str] | None = None) -> None:
        """Remove the states of these conversations, and what conversations share; None removes all."""
        keys = None if conversations is None else {_key(one) for one in conversations}
        for file, _, _ in self._files():
            if keys is None or file.name.startswith(SHARED) or _conversation_key(file) in keys:
                _remove(file)

    def forget_model(self, path: str) -> None:
        """Remove the states of the model, or of the adapter, at this path."""
        for manifest in self._manifests():
            facts = _read(manifest).get("model") or {}
            if path in (facts.get("path"), facts.get("adapter")):
                self.drop(manifest.stem)

    def tidy(self, conversations: Collection[str]) -> None:
        """Remove what a crash left half written, and states of all conversations but these."""
        keys = {_key(one) for one in conversations}
        names = {manifest.stem for manifest in self._manifests()}
        for file, _, changed in self._files():
            kept = file.name.startswith(SHARED) or _conversation_key(file) in keys
            whole = file.stem in names or time.time() - changed < WRITING_SECONDS
            if not (kept and whole):
                _remove(file)

    def trim(self, limit: int) -> None:
        """Remove the states used longest ago until all take no more than `limit` bytes."""
        used = self.used()
        for manifest in sorted(self._manifests(), key=_last_use):
            if used <= limit:
                return
            used -= sum(_size(f) for f in (manifest, manifest.with_suffix(".state")))
            self.drop(manifest.stem)

    # --- for the engine

    def states(self, facts: Facts) -> list[State]:
        """The states of this model, the one used last at the end; what does not belong is removed."""
        found: list[State] = []
        ending = f"-{_model_key(facts)}"
        for manifest in sorted(self._manifests(), key=_last_use):
            if not manifest.stem.endswith(ending):
                continue
            state = self._state(manifest, facts)
            if state:
                found.append(state)
            else:
                self.drop(manifest.stem)
        return found

    def temporary(self, name: str) -> Path:
        """Where the state's bytes are written first."""
        return self.path / f".{name}.tmp"

    def file(self, state: State) -> Path:
        return self.path / f"{state.name}.state"

    def put(self, state: State, facts: Facts) -> None:
        """Make what lies at `temporary` the state of that name. Raises OSError."""
        os.replace(self.temporary(state.name), self.file(state))
        sync(self.path)
        content = {
            "model": facts,
            "text": state.text,
            "prompt": state.prompt,
            "tokens": state.tokens.tolist(),
            "held": state.held,
            "size": state.size,
            "digest": state.digest,
            "reading": state.reading,
            "disk": state.disk,
        }
        data = json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")
        write_atomically(self.path / f"{state.name}.json", data)

    def sound(self, state: State) -> bool:
        """Whether the bytes on disk are those that were written; they count as used now."""
        file = self.file(state)
        try:
            if file.stat().st_size != state.size or digest_of(file) != state.digest:
                return False
            os.utime(self.path / f"{state.name}.json")
        except OSError:
            return False
        return True

    def drop(self, name: str) -> None:
        """Remove one state: the manifest first, without which nothing is loaded."""
        for ending in (".json", ".state"):
            _remove(self.path / f"{name}{ending}")

    def _state(self, manifest: Path, facts: Facts) -> State | None:
        try:
            # Not st_ctime: on Windows a file put in place of another may keep it.
            changed = manifest.stat().st_mtime_ns
        except OSError:
            return None
        known = self._known.get(manifest.stem)
        if known and known[0] == changed:
            return known[1]
        content = _read(manifest)
        if content.pop("model", None) != facts:
            return None
        try:
            tokens = array("i", content.pop("tokens"))
            state = State(name=manifest.stem, tokens=tokens, **content)
            whole = 0 < state.held <= len(tokens) and state.prompt <= len(tokens)
        except (TypeError, ValueError, KeyError, OverflowError):
            return None
        if not whole:
            return None
        self._known[manifest.stem] = (changed, state)
        return state

    def _manifests(self) -> list[Path]:
        return [file for file, _, _ in self._files() if file.suffix == ".json"]

    def _files(self) -> Iterator[tuple[Path, int, float]]:
        """Every file with its bytes and when it was changed last."""
        with suppress(OSError), os.scandir(self.path) as entries:
            for entry in list(entries):
                with suppress(OSError):  # removed meanwhile
                    facts = entry.stat()
                    yield Path(entry.path), facts.st_size, facts.st_mtime


def digest_of(file: Path) -> str:
    """The BLAKE2b of a file: damage is found, at a gigabyte a second."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _key(text: str | bytes) -> str:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def _model_key(facts: Facts) -> str:
    return _key(f"{facts['path']}\0{facts['adapter']}")


def _conversation_key(file: Path) -> str:
    return file.name.lstrip(".").partition("-")[0]


def _read(manifest: Path) -> dict[str, Any]:
    try:
        content = json.loads(manifest.read_bytes().decode("utf-8", "surrogatepass"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _last_use(manifest: Path) -> float:
    try:
        return manifest.stat().st_mtime
    except OSError:
        return 0.0


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:  # Windows, while it is being read; the next tidying takes it
        log.warning("a state could not be removed: %s", error)
