"""Take a model that lies on this PC into the list, by linking it or by copying it.

Its bytes decide what it is. Every file is read once: hashed, and copied on the way when asked for.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from chatbot.errors import BrokenModel, Cancelled, DiskFullError, ModelError
from chatbot.i18n import N_
from chatbot.memory.adapter import check_lora_file, is_adapter
from chatbot.memory.facts import ModelFacts
from chatbot.memory.folder import INDEX, is_inside
from chatbot.memory.headers import kind_of_file, read_model, split_parts
from chatbot.memory.pickles import NOT_YET
from chatbot.models.files import BLOCK, StoredFile, check_room, goes_along
from chatbot.models.store import MANIFEST, ModelStore
from chatbot.settings import sync
from chatbot.types import ModelArtifact

MAX_COMPANION = 100_000_000

Progress = Callable[[float, str], None]


def import_model(
    store: ModelStore,
    path: Path,
    *,
    link: bool = True,
    on_progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> ModelArtifact:
    """The listed model; the same content twice is listed once.

    `link` uses the files where they lie. Raises ModelError, BrokenModel, DiskFullError or Cancelled,
    and then leaves nothing behind.
    """
    path = located(path.expanduser().absolute())
    facts = read_model(path)
    check_usable(facts)
    known = store.linked_from(Path(facts.path))
    if link and known and store.state(known) == "ready":
        return known
    files = model_files(facts)
    total = sum(file.stat().st_size for file in files)
    begun = None
    if not link:
        check_room(store.folder, total)
        begun = store.begin()
    reading = _Reading(
        facts.name, total, N_("Checking") if link else N_("Copying"), on_progress, cancelled
    )
    try:
        stored = [reading.read(file, begun / file.name if begun else None) for file in files]
        if begun is not None:
            copied = begun / Path(facts.path).name if facts.in_files else begun
            if read_model(copied).tensors != facts.tensors:
                raise BrokenModel(_CHANGED, name=facts.name)
            sync(begun)
        return store.add(facts, stored, begun)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(str(store.folder)) from error
        raise ModelError(str(error), name=facts.name) from error
    finally:
        if begun is not None:  # `add` moved it away where all went well
            shutil.rmtree(begun, ignore_errors=True)


_CHANGED = N_("its files changed while they were read; wait until they are complete.")


def located(path: Path) -> Path:
    """The model meant by that path: a folder holding one GGUF model means that file."""
    if not path.is_dir() or (path / "config.json").exists() or is_adapter(path):
        return path
    ggufs = [f for f in path.iterdir() if f.is_file() and f.suffix.lower() == ".gguf"]
    models = {split_parts(file)[0] for file in ggufs if kind_of_file(file) == "gguf"}
    if len(models) > 1:
        raise ModelError(
            N_("the folder holds several GGUF files; choose one of them."), name=path.name
        )
    if not models:
        raise ModelError(
            N_("the folder holds no model: neither a GGUF file nor a config.json."), name=path.name
        )
    return models.pop()


def check_usable(facts: ModelFacts) -> None:
    """Raise ModelError or BrokenModel when no engine here could chat with that model.

    An adapter passes: it chats with its base, or merged into it.
    """
    if facts.format == "adapter":
        if facts.in_files:
            check_lora_file(facts)
        return
    if facts.format == "pt":
        raise ModelError(NOT_YET, name=facts.name)
    if not facts.writes_text:
        raise ModelError(N_("it is not a model that writes text."), name=facts.name)
    if facts.quantised_by:
        raise ModelError(
            N_("its weights are quantised with {part}; choose the plain model or a GGUF file."),
            name=facts.name,
            part=facts.quantised_by,
        )
    if not facts.tokenizer:
        raise BrokenModel(N_("its tokenizer is missing; the copy is incomplete."), name=facts.name)


def model_files(facts: ModelFacts) -> list[Path]:
    """Every file the model is made of, with a folder's settings, tokenizer and licence."""
    if facts.in_files:
        return [Path(facts.path).with_name(name) for name in facts.files]
    folder = Path(facts.path)
    return [*(folder / name for name in facts.files), *companions(folder, facts.files)]


def companions(folder: Path, weights: Collection[str] = ()) -> tuple[Path, ...]:
    """A model folder's settings, tokenizer and licence: what goes along with the weights. Raises BrokenModel."""
    files = [
        file
        for file in sorted(folder.iterdir())
        if file.name not in weights and file.is_file() and _is_companion(file)
    ]
    for file in files:
        if not is_inside(file, folder):
            raise BrokenModel(
                N_("{part} points outside the model's folder."), name=folder.name, part=file.name
            )
    return tuple(files)


def _is_companion(file: Path) -> bool:
    if file.name.endswith(".index.json"):
        return file.name == INDEX
    if file.name == MANIFEST:  # ours, where a copied model is imported from its own folder
        return False
    return goes_along(file.name) and file.stat().st_size <= MAX_COMPANION


class _Reading:
    """Reads files block by block: hashes, copies, reports and can be stopped between blocks."""

    def __init__(
        self,
        name: str,
        total: int,
        message: str,
        on_progress: Progress | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self._name = name
        self._total = total
        self._message = message
        self._on_progress = on_progress
        self._cancelled = cancelled
        self._done = 0

    def read(self, file: Path, copy: Path | None) -> StoredFile:
        """Read a file once, writing it to `copy` where that is given, synced to the disk."""
        before = file.stat()
        digest = hashlib.sha256()
        with file.open("rb") as source:
            if copy is None:
                self._pass(source.read, digest.update)
            else:
                with copy.open("xb") as target:
                    self._pass(source.read, digest.update, target.write)
                    target.flush()
                    os.fsync(target.fileno())
        after = file.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise BrokenModel(_CHANGED, name=file.name)
        return StoredFile(file.name, after.st_size, digest.hexdigest(), after.st_mtime_ns)

    def _pass(self, read: Callable[[int], bytes], *takers: Callable[[bytes], object]) -> None:
        while block := read(BLOCK):
            if self._cancelled and self._cancelled():
                raise Cancelled
            self._done += len(block)
            if self._done > self._total:  # a download still writes to it
                raise BrokenModel(_CHANGED, name=self._name)
            for take in takers:
                take(block)
            if self._on_progress:
                self._on_progress(self._done / max(self._total, 1), self._message)
