"""What each step of a chain does on the owner's side: the step itself in a child, its outcome in the list.

A stage takes what the stage before made (`source`) and its own parameters, and returns the id of the model
it made, or None. Every made model carries where it comes from: origin, lineage, role.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from chatbot.errors import BrokenModel, Cancelled, ModelError, NotFoundError
from chatbot.i18n import N_
from chatbot.memory.headers import kind_of_file
from chatbot.memory.pickles import is_torch_zip
from chatbot.models import making
from chatbot.models.files import Report
from chatbot.models.relations import base_of, parent_of
from chatbot.models.store import ModelStore, home_of
from chatbot.settings import write_atomically
from chatbot.types import ModelArtifact, ModelRole

_PRECISION = re.compile(
    r"[ ._-]+(fp16|f16|bf16|fp32|f32|i?q\d+(_[0-9a-z]+)*|mxfp4|safetensors)$", re.IGNORECASE
)
PICKLED = (".bin", ".pt", ".pth")
IMPORTANCE = "importance.imatrix"
"""Beside a GGUF: the matrix it was quantised with, so that it can be checked bit for bit later."""


def stem(name: str) -> str:
    """A model's name without the precision at its end."""
    while (shorter := _PRECISION.sub("", name)) != name and shorter:
        name = shorter
    return name


def kind_of(path: Path) -> str:
    """How a path on this PC is taken in: 'import', 'unpack' (a zip) or 'prepare' (pickled weights)."""
    if not path.exists():
        raise NotFoundError(str(path))
    if path.is_dir():
        try:
            names = [file.suffix.lower() for file in path.iterdir() if file.is_file()]
        except OSError as error:  # a folder that this user may not read
            raise ModelError(error.strerror or str(error), name=path.name) from error
        plain = {".safetensors", ".gguf"} & set(names)
        return "prepare" if not plain and set(PICKLED) & set(names) else "import"
    if kind_of_file(path) == "zip":
        with suppress(BrokenModel):  # what is no sound zip is refused by the step, in its child
            return "prepare" if is_torch_zip(path) else "unpack"
        return "unpack"
    return "prepare" if path.suffix.lower() in PICKLED else "import"


class Stages:
    """Does single stages with one list of models."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    def take_in(self, report: Report, *, path: str, link: bool = True) -> str:
        """A GGUF file or model folder of this PC, linked or copied."""
        from chatbot.models.importing import import_model

        stopped: list[bool] = []

        def tell(fraction: float, message: str) -> None:
            try:
                report(fraction, message)
            except Cancelled:  # the import looks up between two blocks and cleans up after itself
                stopped.append(True)

        return import_model(
            self._store,
            Path(path),
            link=link,
            on_progress=tell,
            cancelled=lambda: bool(stopped),
        ).id

    def unpack(self, report: Report, *, path: str, library: str | None = None) -> str:
        """What `package` wrote, or a zip made by hand; `library` takes the documents that came along."""
        return making.make(self._store, "unpack", report, source=Path(path), library=library).id

    def download(
        self,
        report: Report,
        *,
        repo: str,
        revision: str = "main",
        file: str | None = None,
        role: ModelRole | None = None,
        pinned: Callable[[str], None],
    ) -> str:
        """A repository of the hub, or one GGUF file of it; `pinned` hears the commit before it begins."""
        from chatbot.models.fetching import download

        asked: dict[str, Any] = {"repo": repo, "revision": revision, "file": file, "role": role}
        return download(self._store, report, pinned=pinned, **asked).id

    def merge(self, report: Report, *, source: ModelArtifact, adapter: str) -> str:
        """An adapter, of the list or of this PC, merged into its base."""
        path = Path(adapter).expanduser()
        addition = self._store.get(self.take_in(report, path=adapter) if path.exists() else adapter)
        name = f"{stem(source.name)} + {addition.name}"
        return self._make(
            "merge",
            report,
            source,
            name,
            notes={"adapter": addition.id},
            adapter=Path(addition.path),
            base_name=str((source.manifest.get("origin") or {}).get("repo", "")),
        )

    def prepare(
        self,
        report: Report,
        *,
        source: ModelArtifact | Path,
        precision: str = "auto",
        form: str = "hf",
        device: str = "auto",
    ) -> str:
        """A Hugging Face folder, state_dict or GGUF in 16 bits."""
        options: dict[str, Any] = {"precision": precision, "form": form, "device": device}
        if isinstance(source, Path):
            name = source.stem if source.is_file() else source.name
            return making.make(
                self._store, "prepare", report, name=name, source=source, **options
            ).id
        if form == "hf" and source.format == "hf" and set(source.manifest["types"]) == {"F16"}:
            report(1.0, N_("It is in 16 bits already."))
            return source.id
        label = {"keep": ""}.get(precision, "FP16" if precision == "auto" else precision.upper())
        made = self._make(
            "prepare", report, source, f"{stem(source.name)} {label}".strip(), **options
        )
        if precision == "auto" and self._store.get(made).manifest["quantisation"] == "BF16":
            self._store.note(made, name=f"{stem(source.name)} BF16")
        return made

    def convert(self, report: Report, *, source: ModelArtifact, type: str = "auto") -> str:  # noqa: A002  as the command line names it
        """A folder as a GGUF file; auto keeps BF16, whose values FP16 may not hold, and takes F16 else.

        An adapter, whose base is chosen, becomes a LoRA file for llama.cpp.
        """
        if source.format == "adapter":
            base = base_of(self._store, source)
            return self._make(
                "convert", report, source, f"{source.name} LoRA", base=base and Path(base.path)
            )
        if type == "auto":
            type = "BF16" if source.manifest["quantisation"] == "BF16" else "F16"  # noqa: A001
        return self._make(
            "convert",
            report,
            source,
            f"{stem(source.name)} {type.upper()}",
            type=type,
            called=stem(source.name),
        )

    def quantise(
        self,
        report: Report,
        *,
        source: ModelArtifact,
        type: str,  # noqa: A002  as the command line names it
        importance: str | None = None,
    ) -> str:
        """A GGUF with smaller weights."""
        matrix = Path(importance) if importance else None
        made = self._make(
            "quantise", report, source, f"{stem(source.name)} {type.upper()}", type=type,
            importance=matrix,
        )  # fmt: skip
        if matrix and made != source.id:
            write_atomically(home_of(self._store.get(made)) / IMPORTANCE, matrix.read_bytes())
        return made

    def measure_importance(
        self, report: Report, *, source: ModelArtifact, file: Path, texts: list[str]
    ) -> dict[str, Any]:
        """What these texts need most of a GGUF, written to `file`."""
        return making.run(
            "measure_importance", report, source=Path(source.path), file=file, texts=texts
        )

    def verify(
        self, report: Report, *, source: ModelArtifact, parent: str | None = None
    ) -> dict[str, Any]:
        """Check a model against what it was made from; the verdict goes into its manifest.

        Without the model it was made from: its hashes, its structure, that it loads and computes.
        """
        made = source.manifest.get("made") or {}
        report(0.0, N_("Checking"))
        if parent and Path(parent).exists():
            parent = self.take_in(report, path=parent)
        before = self._store.get(parent) if parent else parent_of(self._store, source)
        against: dict[str, Any] = {}
        if before and before.id != source.id:
            adapter = self._adapter_of(source)
            step = made.get("step") if made.get("parent") == before.id else None
            against = {"step": step}
            if not (step == "merge" and adapter is None):
                against |= {
                    "parent": Path(before.path),
                    "parent_files": before.manifest["files"],
                    "adapter": adapter,
                }
        verdict = making.run(
            "verify",
            report,
            source=Path(source.path),
            files=source.manifest["files"],
            importance=_importance_of(source),
            **against,
        )
        compared = before.id if before and "parent" in against and _is_sound(verdict) else None
        verdict |= {"parent": compared, "at": time.time()}
        self._store.note(source.id, verdict=verdict)
        return verdict

    def package(
        self, report: Report, *, source: ModelArtifact, file: str, library: str | None = None
    ) -> dict[str, Any]:
        """The model in one zip: {file, size, ratio}."""
        from chatbot.models.package import unfinished

        goal = Path(file)
        try:
            return making.run(
                "package",
                report,
                source=home_of(source),
                file=goal,
                manifest={key: value for key, value in source.manifest.items() if key != "source"},
                library=library,
            )
        finally:
            unfinished(goal).unlink(missing_ok=True)  # a cancelled step has no time to do it

    def push(
        self, report: Report, *, source: ModelArtifact, repo: str, private: bool = True
    ) -> dict[str, Any]:
        """The model in the person's own repository on the hub."""
        return making.run(
            "push",
            report,
            online=True,
            source=home_of(source),
            repo=repo,
            private=private,
            manifest={key: value for key, value in source.manifest.items() if key != "source"},
        )

    def _adapter_of(self, model: ModelArtifact) -> Path | None:
        """The adapter that was merged last, where it is still here and as it was then."""
        lineage = model.manifest.get("lineage") or [{}]
        try:
            adapter = self._store.get(str(lineage[-1].get("adapter")))
        except NotFoundError:
            return None
        return Path(adapter.path) if self._store.state(adapter) == "ready" else None

    def _make(
        self,
        step: str,
        report: Report,
        source: ModelArtifact,
        name: str,
        *,
        notes: dict[str, Any] | None = None,
        **params: Any,
    ) -> str:
        if self._store.state(source) != "ready":
            raise BrokenModel(N_("its files have changed since it was added."), name=source.name)
        model = making.make(
            self._store,
            step,
            report,
            name=name,
            role=source.role,
            origin=source.manifest.get("origin"),
            parent=source.id,
            source=Path(source.path),
            **params,
        )
        made = model.manifest.get("made") or {}
        if made.get("parent") != source.id:  # the same content was here, and came from elsewhere
            return model.id
        line = {"id": source.id, "name": source.name, "format": source.format, "step": step}
        lineage = [*source.manifest.get("lineage", []), line | (notes or {})]
        return self._store.note(model.id, lineage=lineage).id


def _is_sound(verdict: dict[str, Any]) -> bool:
    """Whether the parent could be read and is what its own manifest says."""
    return all(
        check["verdict"] == "pass" for check in verdict["checks"] if check["name"] == "parent"
    )


def _importance_of(model: ModelArtifact) -> Path | None:
    """The importance matrix that a model was quantised with, where it still is."""
    kept = home_of(model) / IMPORTANCE
    return kept if kept.is_file() and not model.linked else None
