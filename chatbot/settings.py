"""Where things lie (Paths) and what the person chose (Settings).

The data folder is `data/` beside app.py unless HEARTH_DATA names another; it never depends on the
working directory. Settings live in `settings.json` there, written whole and renamed into place.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from chatbot.errors import SettingsError
from chatbot.types import Language

PROJECT = Path(__file__).resolve().parent.parent
SAMPLES = PROJECT / "data" / "samples"


def offline() -> bool:
    """Whether HEARTH_OFFLINE forbids every outside call."""
    return os.environ.get("HEARTH_OFFLINE", "") not in ("", "0")


@dataclass(frozen=True, slots=True)
class Paths:
    """The rooms of one data folder."""

    data: Path

    @staticmethod
    def default() -> Paths:
        """HEARTH_DATA, else `data/` beside app.py."""
        return Paths(Path(os.environ.get("HEARTH_DATA") or PROJECT / "data").resolve())

    @property
    def database(self) -> Path:
        return self.data / "hearth.db"

    @property
    def files(self) -> Path:
        """Originals, each under its sha256."""
        return self.data / "files"

    @property
    def index(self) -> Path:
        return self.data / "index"

    @property
    def models(self) -> Path:
        return self.data / "models"

    @property
    def temporary(self) -> Path:
        """Cleared at every start."""
        return self.data / "tmp"

    @property
    def states(self) -> Path:
        """What models have read of the last conversations, so that they need not read it again."""
        return self.data / "states"

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def settings(self) -> Path:
        return self.data / "settings.json"

    @property
    def token(self) -> Path:
        return self.data / "token"

    @property
    def lock(self) -> Path:
        return self.data / "owner.lock"

    @property
    def owner(self) -> Path:
        """Process id and address of the Hearth that holds the lock."""
        return self.data / "owner.json"

    def make(self) -> None:
        """Create the folders, readable by this user only."""
        self.data.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # not every file system keeps modes
            self.data.chmod(0o700)
        for folder in (self.files, self.index, self.models, self.temporary, self.states, self.logs):
            folder.mkdir(mode=0o700, exist_ok=True)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the settings page can change; defaults work offline with no model."""

    language: Language | None = None
    """None follows the browser."""
    embedder: str = "hearth-surface"
    allow_embedder_download: bool = False
    """Set when the person pressed download for an embedder that is not on disk."""
    reranker: str = ""
    """A cross-encoder's folder or Hugging Face name, used where reranking is asked for; '' none."""
    answer_style: str = "balanced"
    default_model: str | None = None
    """Artifact id of the model that chats use; None answers with quotations (the extractive engine)."""
    remote_url: str = ""
    remote_model: str = ""
    remote_key: str = ""
    idle_unload_minutes: int = 30
    """0 keeps the model loaded."""
    state_megabytes: int = 2000
    """How much of what models have read is kept on disk; 0 nothing."""
    retry_smaller: str = "ask"
    """When memory ran out: 'ask' what to do, or 'automatic' the way that harms least."""
    first_run_done: bool = False
    samples_added: bool = False

    def changed(self, **values: Any) -> Settings:
        """A copy with these values, checked."""
        known = {f.name for f in fields(self)}
        if unknown := set(values) - known:
            raise SettingsError(", ".join(sorted(unknown)))
        new = replace(self, **values)
        if new.language not in (None, "vi", "en"):
            raise SettingsError(f"language = {new.language}")
        if not 0 <= new.idle_unload_minutes <= 24 * 60:
            raise SettingsError(f"idle_unload_minutes = {new.idle_unload_minutes}")
        if new.retry_smaller not in ("ask", "automatic"):
            raise SettingsError(f"retry_smaller = {new.retry_smaller}")
        if not 0 <= new.state_megabytes <= 10**6:
            raise SettingsError(f"state_megabytes = {new.state_megabytes}")
        return new


def load_settings(file: Path) -> Settings:
    """The stored settings; defaults for what is absent, unknown keys of newer versions ignored."""
    if not file.exists():
        return Settings()
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        known = {f.name for f in fields(Settings)}
        return Settings().changed(**{k: v for k, v in stored.items() if k in known})
    except (ValueError, TypeError, AttributeError) as error:
        raise SettingsError(f"{file}: {error}") from error


def save_settings(file: Path, settings: Settings) -> None:
    """Replace the stored settings in one step."""
    write_atomically(file, json.dumps(asdict(settings), ensure_ascii=False, indent=1).encode())


def write_atomically(file: Path, content: bytes, mode: int = 0o600) -> None:
    """Write beside the goal, fsync, rename, fsync the folder: the file is old or new, never half."""
    with replacing(file) as temporary:
        temporary.write_bytes(content)
        temporary.chmod(mode)


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A temporary path beside `file` that takes its place, synced, when the block ends well."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name[:40]}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, file)
        sync(file.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """fsync a file or, where the system can, a folder."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders; its rename is journalled
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
