"""The jobs of the workshop, done: each stage a step in a child process, what it made kept in the job's steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from chatbot.errors import FailedCheck, NotFoundError
from chatbot.jobs import JobContext, StepContext
from chatbot.models import chain
from chatbot.models.chain import Keep, Stage
from chatbot.models.files import Report
from chatbot.models.store import ModelStore
from chatbot.types import Job, MemoryPlan, ModelArtifact
from chatbot.workshop.outline import BESIDE

if TYPE_CHECKING:
    from chatbot.engines.worker import EngineWorker
    from chatbot.models.stages import Stages

# Imported where they are needed, for the sake of a quick start: models.stages, models.bench.

Loadable = Callable[[ModelArtifact], AbstractContextManager[tuple["EngineWorker", MemoryPlan]]]
"""A model's worker, not loaded yet, and the plan it would load by; inside it no other model is loaded."""


class Library(Protocol):
    """The documents as far as a packed model takes them along."""

    def pack(self, file: Path, report: Callable[[float], None]) -> None:
        """Write every document, its text and vectors into that file."""

    def take_in(self, file: Path) -> object:
        """Begin to take in what `pack` wrote; the file may be deleted afterwards."""

    def place(self) -> Path:
        """A path for such a file, in a folder that is cleared at the next start."""

    def texts(self) -> list[str]:
        """What the documents say, as much as an importance matrix needs."""


class Shop(Protocol):
    """What the work asks about the models around it."""

    def best_type(self, source: ModelArtifact) -> str:
        """The best quantisation that fits this PC now; '' where none is needed."""

    def spared(self, model: ModelArtifact, job: Job) -> bool:
        """Whether the model must stay although that job made it: somebody uses it."""


class Work:
    """Does the jobs that `Workshop` begins."""

    def __init__(
        self, models: ModelStore, library: Library, loadable: Loadable, shop: Shop
    ) -> None:
        self._models = models
        self._library = library
        self._loadable = loadable
        self._shop = shop

    @cached_property
    def _stages(self) -> Stages:
        from chatbot.models.stages import Stages

        return Stages(self._models)

    def do(self, context: JobContext) -> str:
        """The whole chain of that job; goes on where an earlier try stopped. Returns what it made."""
        stages = [Stage(one["do"], dict(one["params"])) for one in context.job.params["stages"]]
        made: str | None = context.job.params.get("source")
        beside: str | None = None
        said: dict[str, Any] = {}
        begin = self._first_left(context, stages)
        for number, stage in enumerate(stages):
            apart = stage.params.pop("beside", False)
            if stage.do == "merge" and stage.params["adapter"] == BESIDE:
                stage.params["adapter"] = beside
            if number >= begin:
                with context.step(number) as report:
                    before = {model.id for model in self._models.list()}
                    outcome = self._do(stage, made, context, report)
                    if isinstance(outcome, str):
                        if outcome not in before:  # its own, to tidy away once it has served
                            self._models.note(outcome, job=context.job.id)
                        report.made(outcome)
                    elif outcome:
                        said = outcome
            if apart:
                beside = context.steps[number].model
            else:
                made = context.steps[number].model or made
            if stage.do == "verify":
                self._tidy(context, number)
        if context.job.params.get("keep") == "result":
            self._tidy(context, len(stages))
        return json.dumps(said, default=str) if said else made or ""

    def _first_left(self, context: JobContext, stages: Sequence[Stage]) -> int:
        """The stage to begin with: what is done stays done while the models it left are still here."""
        done = [step.state == "done" for step in context.steps]
        first = done.index(False) if False in done else len(done)
        for number in reversed(range(first)):
            model_id = context.steps[number].model
            if model_id and not self._models.find(model_id):
                first = number  # removed since then: it is made again
            elif model_id and not stages[number].params.get("beside"):
                break
        return first

    def _do(
        self, stage: Stage, made: str | None, context: JobContext, report: StepContext
    ) -> str | dict[str, Any] | None:
        params = {key: value for key, value in stage.params.items() if value is not None}
        if stage.do == "import":
            return self._stages.take_in(report, **params)
        if stage.do == "download":
            return self._download(report, context, **params)
        if stage.do == "unpack":
            return self._unpack(report, **params)
        if stage.do == "prepare" and "path" in params:
            return self._stages.prepare(report, source=Path(params.pop("path")), **params)
        if made is None:
            raise NotFoundError(stage.do)
        source = self._models.get(made)
        if stage.do in ("package", "quantise", "bench"):
            return getattr(self, f"_{stage.do}")(report, source, **params)  # type: ignore[no-any-return]
        if stage.do == "verify" and context.job.kind != "verify":
            self._stages.verify(report, source=source)
            check_passed(self._models.get(made))
            return None
        return getattr(self._stages, stage.do)(report, source=source, **params)  # type: ignore[no-any-return]

    def _download(
        self, report: StepContext, context: JobContext, *, revision: str = "main", **params: Any
    ) -> str:
        pins: dict[str, str] = context.job.params.get("pins", {})
        asked = pin_of(params["repo"], revision)

        def pinned(commit: str) -> None:
            pins[asked] = commit
            context.remember(pins=pins)

        revision = pins.get(asked, revision)
        return self._stages.download(report, revision=revision, pinned=pinned, **params)

    def _package(
        self, report: StepContext, source: ModelArtifact, *, file: str, library: bool
    ) -> dict[str, Any]:
        if not library:
            return self._stages.package(report, source=source, file=file)
        documents = self._library.place()
        try:
            self._library.pack(documents, report)
            return self._stages.package(report, source=source, file=file, library=str(documents))
        finally:
            documents.unlink(missing_ok=True)

    def _quantise(
        self,
        report: StepContext,
        source: ModelArtifact,
        *,
        type: str,  # noqa: A002  as the command line names it
        importance: str | None = None,
        documents: bool = False,
    ) -> str:
        chosen = self._shop.best_type(source) if type == "auto" else type
        if chosen == "":
            return source.id
        if not documents:
            return self._stages.quantise(report, source=source, type=chosen, importance=importance)
        matrix = self._library.place()
        try:
            self._stages.measure_importance(
                partly(report, 0.0, 0.5), source=source, file=matrix, texts=self._library.texts()
            )
            return self._stages.quantise(
                partly(report, 0.5, 1.0), source=source, type=chosen, importance=str(matrix)
            )
        finally:
            matrix.unlink(missing_ok=True)

    def _bench(self, report: StepContext, source: ModelArtifact) -> dict[str, Any]:
        from chatbot.models.bench import bench

        with self._loadable(source) as (worker, plan):
            figures = bench(report, worker, plan)
        self._models.note(source.id, bench=figures)
        return figures

    def _unpack(self, report: StepContext, *, path: str, documents: bool = False) -> str:
        if not documents:
            return self._stages.unpack(report, path=path)
        place = self._library.place()
        made = self._stages.unpack(report, path=path, library=str(place))
        if place.exists():
            self._library.take_in(place)
        return made

    def _tidy(self, context: JobContext, number: int) -> None:
        """Remove models of this chain that nothing needs any more, once the one after them is checked."""
        keep: Keep = context.job.params.get("keep", "all")
        if keep == "all":
            return
        stages = context.job.params["stages"]
        before = [
            step.model
            for step, stage in zip(context.steps[:number], stages, strict=False)
            if step.model and not stage["params"].get("beside")
        ]
        before = list(dict.fromkeys(before))  # a step with nothing to do gives back what it got
        ended = number == len(context.steps)
        goes_on = any(stage["do"] in chain.MAKES for stage in stages[number:])
        needed = before[-1:] if ended or goes_on else before[-2:]
        for model_id in before:
            model = self._models.find(model_id)
            if model is None or model.linked or model_id in needed:
                continue
            own = model.manifest.get("job") == context.job.id
            if own and not self._shop.spared(model, context.job):
                self._models.remove(model_id)


def partly(report: StepContext, start: float, end: float) -> Report:
    """A report for a part of a step, from one fraction of it to another."""

    def tell(fraction: float, message: str = "", **values: Any) -> None:
        report(start + (end - start) * fraction, message, **values)

    return tell


def check_passed(model: ModelArtifact, *, anyway: bool = False) -> None:
    """Raise FailedCheck for a model whose check failed, unless it is wanted `anyway`."""
    verdict = model.manifest.get("verdict") or {}
    if verdict.get("verdict") == "fail" and not anyway:
        failed = sum(check["verdict"] == "fail" for check in verdict["checks"])
        raise FailedCheck(name=model.name, failed=failed, checks=len(verdict["checks"]))


def pin_of(repo: str, revision: str | None) -> str:
    """Under which name a job keeps the commit that it found there."""
    return f"{repo}@{revision or 'main'}"
