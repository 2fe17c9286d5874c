"""What it takes to get a model ready, before it begins: the steps, and the room on the disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatbot.models import chain
from chatbot.models.chain import Keep, Stage
from chatbot.models.files import room_for
from chatbot.models.store import ModelStore
from chatbot.types import Hardware, ModelRole

if TYPE_CHECKING:
    from chatbot.models.lookup import Remote

# Imported where they are needed, for the sake of a quick start: models.stages, models.hub, models.lookup.

LOOK_UP_SECONDS = 600.0
BESIDE = ""
"""In the place of an adapter's id: the one that the same chain downloaded."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What shall come of a source: merged with which adapter, as which type, and what of it is asked for.

    `type` is a GGUF type, 'auto' or 'fp16' (`chain.ready_chain`); revision, file and role belong to a
    repository of the hub.
    """

    adapter: str | None = None
    type: str = "auto"
    keep: Keep = "checkable"
    revision: str | None = None
    file: str | None = None
    role: ModelRole | None = None


AS_USUAL = Wanted()


@dataclass(frozen=True, slots=True)
class Outline:
    """What a chain will do, before it begins: its steps, and bytes it needs of those free on the disk."""

    stages: tuple[Stage, ...]
    needs: int
    free: int
    remote: Remote | None = None
    """The repository it begins with, where it does."""

    @property
    def fits(self) -> bool:
        return room_for(self.needs) <= self.free


class Outlines:
    """Draws outlines; what the hub said about a repository is kept a while."""

    def __init__(self, models: ModelStore, hardware: Callable[[], Hardware]) -> None:
        self._models = models
        self._hardware = hardware
        self._looked_up: dict[tuple[str, Wanted], tuple[float, Remote]] = {}

    def of(self, source: str, wanted: Wanted = AS_USUAL) -> Outline:
        """What the whole way from that source (an id, a path or a repository) would do."""
        adapter = wanted.adapter
        remote: Remote | None = None
        if model := self._models.find(source):
            first, begins = [], chain.Ingredients(model.parameters, size=model.size)
            runs = model.format == "gguf" or model.role != "chat"
        elif is_repository(source) and not Path(source).expanduser().exists():
            remote = self._look_up(source, wanted)
            base = remote.base or remote
            first = [_download(base)]
            if remote.base:
                first.append(Stage("download", _download(remote).params | {"beside": True}))
                adapter = adapter or BESIDE
            begins = chain.Ingredients(base.parameters or base.size // 2, to_download=base.size)
            runs = base.gguf or base.role != "chat"
        else:
            path = Path(source).expanduser().resolve()
            first, runs = [first_stage(path)], path.is_file() and kind_of(path) == "import"
            size = _size_of(path)
            begins = chain.Ingredients(size // 2, size=size)
        stages = chain.ready_chain(first, adapter=adapter, type_=wanted.type, runs=runs)
        needs = chain.disk_need(stages, begins, wanted.keep)
        if remote:
            needs = max(needs - self._arrived(remote.base or remote), 0)
        free = shutil.disk_usage(self._models.folder).free
        return Outline(tuple(stages), needs, free, remote)

    def _look_up(self, repo: str, wanted: Wanted) -> Remote:
        from chatbot.models.lookup import look_up

        known = self._looked_up.get((repo, wanted))
        if known and time.monotonic() - known[0] <= LOOK_UP_SECONDS:
            return known[1]
        remote = look_up(
            repo,
            self._hardware(),
            revision=wanted.revision,
            file=wanted.file,
            type_=wanted.type,
            role=wanted.role,
        )
        self._looked_up[repo, wanted] = time.monotonic(), remote
        return remote

    def _arrived(self, remote: Remote) -> int:
        from chatbot.models.fetching import arrived

        return arrived(self._models, remote.repo, remote.revision, remote.file)


def first_stage(path: Path, *, link: bool = True, documents: bool = False) -> Stage:
    """The stage that brings what lies at that path into the list."""
    kind = kind_of(path)
    options: dict[str, Any] = {"link": link} if kind == "import" else {}
    options |= {"precision": "keep"} if kind == "prepare" else {}
    options |= {"documents": documents} if kind == "unpack" else {}
    return Stage(kind, {"path": str(path), **options})


def kind_of(path: Path) -> str:
    """The stage that takes such a file or folder: import, prepare or unpack."""
    from chatbot.models import stages

    return stages.kind_of(path)


def is_repository(source: str) -> bool:
    """Whether that may be a repository of the hub, such as owner/model."""
    from chatbot.models.hub import names_repository

    return names_repository(source)


def _download(remote: Remote) -> Stage:
    asked = {"repo": remote.repo, "revision": remote.revision, "file": remote.file}
    return Stage("download", {**asked, "role": remote.role})


def _size_of(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
