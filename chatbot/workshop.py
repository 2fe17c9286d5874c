"""Where models are fetched, made and checked: every such job begins here and is done here.

A job is a chain of stages (`models.chain`), each a step in a child process (`models.stages`). What a
stage made stands in the job's own steps, so that a chain cut by a restart goes on where it stopped. The
jobs of this room have a lane of their own, at the lowest priority, while people chat.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from chatbot.engines.host import EngineHost
from chatbot.errors import FailedCheck, ModelInUse, NotFoundError
from chatbot.i18n import N_
from chatbot.jobs import JobContext, Jobs, StepContext
from chatbot.models import chain
from chatbot.models.chain import Keep, Stage
from chatbot.models.files import Report, check_room, room_for
from chatbot.models.store import ModelStore
from chatbot.settings import Settings
from chatbot.types import Hardware, Job, ModelArtifact, ModelRole

if TYPE_CHECKING:
    from chatbot.engines.worker import EngineWorker
    from chatbot.models.fetching import Unfinished
    from chatbot.models.ladder import Rung
    from chatbot.models.lookup import Remote
    from chatbot.models.stages import Stages
    from chatbot.types import MemoryPlan

# Imported where they are needed, for the sake of a quick start: models.stages, models.hub, models.bench.

LANE = "models"
LOOK_UP_SECONDS = 600.0
BESIDE = ""
"""In the place of an adapter's id: the one that the same chain downloaded."""
TITLES = {
    "import_model": N_("Adding {name}"),
    "download": N_("Downloading {name}"),
    "prepare": N_("Saving {name} in 16 bits"),
    "merge": N_("Merging {adapter} into {name}"),
    "convert": N_("Converting {name} to GGUF"),
    "quantise": N_("Quantising {name} to {type}"),
    "verify": N_("Checking {name}"),
    "package": N_("Packing {name} into one file"),
    "push": N_("Uploading {name} to {repo}"),
    "bench": N_("Measuring how fast {name} is"),
    "make_ready": N_("Getting {name} ready"),
}
"""What each kind of job is called, with the names of its models filled in."""

ACTIVE = ("waiting", "running", "paused")


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


class Workshop:
    """Begins and does the jobs that make models; knows which models are in use."""

    def __init__(
        self,
        models: ModelStore,
        jobs: Jobs,
        engines: EngineHost,
        settings: Callable[[], Settings],
        hardware: Callable[[], Hardware],
        library: Library,
        loadable: Callable[
            [ModelArtifact], AbstractContextManager[tuple[EngineWorker, MemoryPlan]]
        ],
    ) -> None:
        """`loadable` gives a model's worker, not loaded yet, and the plan it would load by.

        Inside it no other model is loaded.
        """
        self._models = models
        self._jobs = jobs
        self._engines = engines
        self._settings = settings
        self._hardware = hardware
        self._library = library
        self._loadable = loadable
        self._looked_up: dict[tuple[str | None, ...], tuple[float, Remote | None]] = {}

    @cached_property
    def _stages(self) -> Stages:
        from chatbot.models.stages import Stages

        return Stages(self._models)

    def register(self) -> None:
        """Name the kinds of jobs that are done here."""
        for kind in TITLES:
            self._jobs.register(kind, self._work, lane=LANE)

    def jobs(self, *, active: bool = False) -> list[Job]:
        """The jobs of this room, the latest first."""
        return [
            job
            for job in self._jobs.list()
            if job.kind in TITLES and (not active or job.state in ACTIVE)
        ]

    # --- beginning --------------------------------------------------------------------------

    def take_in(self, path: Path, *, link: bool = True, documents: bool = False) -> Job:
        """Begin to take a model of this PC into the list: GGUF, folder, adapter, pickled weights or zip.

        Only with `documents` those in a zip become sources of answers here.
        """
        path = path.expanduser().resolve()
        stages = chain.checked(self._first(path, link=link, documents=documents))
        return self._begin("import_model", stages, name=path.name)

    def download(
        self,
        repo: str,
        *,
        revision: str | None = None,
        file: str | None = None,
        role: ModelRole | None = None,
    ) -> Job:
        """Begin to fetch a repository of the hub, or one GGUF file of it."""
        asked = {"repo": repo, "revision": revision, "file": file, "role": role}
        stages = chain.checked([Stage("download", asked)])
        return self._begin("download", stages, name=repo)

    def prepare(self, source: str, **options: str) -> Job:
        """Begin to save a model in 16 bits; `source` is an id or a path, as it is everywhere here."""
        stages, name = self._from(source, pickled=Stage("prepare", {"path": source, **options}))
        if not stages or stages[-1].do != "prepare":
            stages = [*stages, Stage("prepare", dict(options))]
        return self._begin("prepare", chain.checked(stages), source, name=name)

    def merge(self, source: str, adapter: str) -> Job:
        """Begin to merge an adapter into its base."""
        stages, name = self._from(source)
        addition = self._known(adapter)
        if not addition and not Path(adapter).expanduser().exists():
            raise NotFoundError(adapter)
        stages = [*stages, Stage("merge", {"adapter": adapter})]
        title = {"name": name, "adapter": addition.name if addition else Path(adapter).name}
        return self._begin("merge", chain.checked(stages), source, **title)

    def convert(self, source: str, type_: str = "auto") -> Job:
        """Begin to turn a folder into a GGUF file."""
        stages, name = self._from(source)
        stages = [*stages, Stage("convert", {"type": type_.lower()})]
        return self._begin("convert", chain.checked(stages), source, name=name)

    def quantise(
        self, source: str, type_: str, *, importance: str | None = None, documents: bool = False
    ) -> Job:
        """Begin to make a GGUF smaller; 'auto' takes the best that fits when its turn comes.

        `importance` is an importance matrix; with `documents` one is made from the person's own.
        """
        stages, name = self._from(source)
        options = {"type": type_, "importance": importance, "documents": documents}
        stages = [*stages, Stage("quantise", options)]
        return self._begin("quantise", chain.checked(stages), source, name=name, type=type_)

    def verify(self, source: str, parent: str | None = None) -> Job:
        """Begin to check a model against the one it was made from, or against `parent`."""
        stages, name = self._from(source)
        return self._begin(
            "verify", [*stages, Stage("verify", {"parent": parent})], source, name=name
        )

    def package(self, source: str, file: Path, *, library: bool = False) -> Job:
        """Begin to write a model into one zip; with `library` all documents travel along."""
        stages, name = self._from(source)
        options = {"file": str(file.expanduser().resolve()), "library": library}
        return self._begin("package", [*stages, Stage("package", options)], source, name=name)

    def push(self, source: str, repo: str, *, private: bool = True) -> Job:
        """Begin to upload a model to the person's own repository."""
        stages, name = self._from(source)
        stages = [*stages, Stage("push", {"repo": repo, "private": private})]
        return self._begin("push", stages, source, name=name, repo=repo)

    def bench(self, source: str) -> Job:
        """Begin to measure how fast a model reads and writes here."""
        stages, name = self._from(source)
        return self._begin("bench", [*stages, Stage("bench")], source, name=name)

    def make_ready(
        self,
        source: str,
        *,
        adapter: str | None = None,
        type_: str = "auto",
        keep: Keep = "checkable",
        revision: str | None = None,
        file: str | None = None,
        role: ModelRole | None = None,
    ) -> Job:
        """Begin the whole way from a hub repository, a path or an id to a model that runs here, checked."""
        outline = self.outline(
            source, adapter=adapter, type_=type_, keep=keep, revision=revision, file=file, role=role
        )
        check_room(self._models.folder, outline.needs)
        known = self._known(source)
        name = known.name if known else source if is_repository(source) else Path(source).name
        return self._begin("make_ready", outline.stages, source, keep=keep, name=name)

    def outline(
        self,
        source: str,
        *,
        adapter: str | None = None,
        type_: str = "auto",
        keep: Keep = "checkable",
        revision: str | None = None,
        file: str | None = None,
        role: ModelRole | None = None,
    ) -> Outline:
        """What `make_ready` would do. The hub is asked about a repository; what it says is kept a while."""
        remote: Remote | None = None
        if model := self._known(source):
            first, begins = [], chain.Ingredients(model.parameters, size=model.size)
            runs = model.format == "gguf" or model.role != "chat"
        elif is_repository(source) and not Path(source).expanduser().exists():
            remote = self._look_up(source, revision, file, type_, role)
            base = remote.base or remote
            first = [_download(base)]
            if remote.base:
                first.append(Stage("download", _download(remote).params | {"beside": True}))
                adapter = adapter or BESIDE
            begins = chain.Ingredients(base.parameters or base.size // 2, to_download=base.size)
            runs = base.gguf or base.role != "chat"
        else:
            path = Path(source).expanduser().resolve()
            first, runs = self._first(path), path.is_file() and _kind_of(path) == "import"
            size = _size_of(path)
            begins = chain.Ingredients(size // 2, size=size)
        stages = chain.ready_chain(first, adapter=adapter, type_=type_, runs=runs)
        needs = chain.disk_need(stages, begins, keep)
        if remote:
            needs = max(needs - self._arrived(remote.base or remote), 0)
        free = shutil.disk_usage(self._models.folder).free
        return Outline(tuple(stages), needs, free, remote)

    def _look_up(
        self,
        repo: str,
        revision: str | None,
        file: str | None,
        type_: str,
        role: ModelRole | None,
    ) -> Remote:
        from chatbot.models.lookup import look_up

        asked = (repo, revision, file, type_, role)
        at, remote = self._looked_up.get(asked, (0.0, None))
        if remote is None or time.monotonic() - at > LOOK_UP_SECONDS:
            remote = look_up(
                repo, self._hardware(), revision=revision, file=file, type_=type_, role=role
            )
            self._looked_up[asked] = time.monotonic(), remote
        return remote

    def _arrived(self, remote: Remote) -> int:
        from chatbot.models.fetching import arrived

        return arrived(self._models, remote.repo, remote.revision, remote.file)

    # --- what belongs together ---------------------------------------------------------------

    def ladder(self, model_id: str) -> Sequence[Rung]:
        """How large the model would be in each quantisation, how it would run, and the best that fits."""
        from chatbot.hardware.detect import installed, without
        from chatbot.memory.headers import read_model
        from chatbot.models.ladder import ladder

        hardware, loaded = self._hardware(), self._engines.loaded
        if loaded:
            hardware = without(hardware, loaded.pid)
        facts = read_model(Path(self._models.get(model_id).path))
        return ladder(facts, hardware, installed=installed())

    # --- what is in use ---------------------------------------------------------------------

    def user_of(self, model_id: str, *, apart_from: Job | None = None) -> str | None:
        """Why the model must stay as it is, as a msgid; None when nobody uses it, but for that job."""
        path = self._models.get(model_id).path
        if any(path in (spec.path, spec.adapter) for spec in self._engines.held):
            return N_("it is loaded.")
        others = (j for j in self.jobs(active=True) if not apart_from or j.id != apart_from.id)
        if any(_reads(job, model_id) for job in others):
            return N_("a job reads it.")
        if path in (self._settings().embedder, self._settings().reranker):
            return N_("the search uses it.")
        return None

    def remove(self, model_id: str) -> None:
        """Take a model off the list, and off the disk where it is Hearth's own. Raises ModelInUse."""
        if reason := self.user_of(model_id):
            raise ModelInUse(reason, name=self._models.get(model_id).name)
        self._models.remove(model_id)

    def forget(self, begun: Unfinished) -> None:
        """Delete what has arrived of a download. Raises ModelInUse while a job fetches it."""
        from chatbot.models.fetching import forget

        if any(_fetches(job, begun) for job in self.jobs(active=True)):
            raise ModelInUse(N_("a job fetches it."), name=begun.repo)
        forget(begun)

    # --- doing ------------------------------------------------------------------------------

    def _work(self, context: JobContext) -> str:
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
            if model_id and not self._known(model_id):
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
        asked = _name_of(params["repo"], revision)

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
        chosen = self._best_type(source) if type == "auto" else type
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

    def _best_type(self, source: ModelArtifact) -> str:
        """The best quantisation that fits this PC now, the smallest where none does; '' for none needed."""
        if str(source.manifest.get("quantisation", "")).upper() not in ("F32", "F16", "BF16"):
            return ""
        rungs = self.ladder(source.id)
        return next((rung.type for rung in rungs if rung.best), rungs[-1].type)

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
            model = self._known(model_id)
            if model is None or model.linked or model_id in needed:
                continue
            own = model.manifest.get("job") == context.job.id
            default = self._settings().default_model == model_id
            if own and not default and not self.user_of(model_id, apart_from=context.job):
                self._models.remove(model_id)

    # --- planning ---------------------------------------------------------------------------

    def _begin(self, kind: str, stages: Sequence[Stage], source: str = "", **values: str) -> Job:
        keep = values.pop("keep", "all")
        params = {
            "stages": [asdict(stage) for stage in stages],
            "source": source if self._known(source) else None,
            "keep": keep,
            "values": values,
        }
        for job in self.jobs(active=True):  # pressed twice
            if job.kind == kind and {**job.params, "pins": {}} == {**params, "pins": {}}:
                return job
        return self._jobs.submit(kind, TITLES[kind], params, chain.steps(stages))

    def _known(self, source: str) -> ModelArtifact | None:
        try:
            return self._models.get(source)
        except NotFoundError:
            return None

    def _from(self, source: str, pickled: Stage | None = None) -> tuple[list[Stage], str]:
        """The stages that bring an id (none) or a path into the list, and what to call the model."""
        if model := self._known(source):
            return [], model.name
        path = Path(source).expanduser().resolve()
        if pickled and path.exists() and _kind_of(path) == "prepare":
            return [Stage(pickled.do, {**pickled.params, "path": str(path)})], path.name
        return self._first(path), path.name

    def _first(self, path: Path, *, link: bool = True, documents: bool = False) -> list[Stage]:
        kind = _kind_of(path)
        options: dict[str, Any] = {"link": link} if kind == "import" else {}
        options |= {"precision": "keep"} if kind == "prepare" else {}
        options |= {"documents": documents} if kind == "unpack" else {}
        return [Stage(kind, {"path": str(path), **options})]


def partly(report: StepContext, start: float, end: float) -> Report:
    """A report for a part of a step, from one fraction of it to another."""

    def tell(fraction: float, message: str = "", **values: Any) -> None:
        report(start + (end - start) * fraction, message, **values)

    return tell


def left_documents(job: Job) -> bool:
    """Whether the job unpacked a model beside which documents lie that nobody asked for."""
    return any(step.message == chain.DOCUMENTS_LEFT for step in job.steps)


def check_passed(model: ModelArtifact, *, anyway: bool = False) -> None:
    """Raise FailedCheck for a model whose check failed, unless it is wanted `anyway`."""
    verdict = model.manifest.get("verdict") or {}
    if verdict.get("verdict") == "fail" and not anyway:
        failed = sum(check["verdict"] == "fail" for check in verdict["checks"])
        raise FailedCheck(name=model.name, failed=failed, checks=len(verdict["checks"]))


def _kind_of(path: Path) -> str:
    from chatbot.models.stages import kind_of

    return kind_of(path)


def _download(remote: Remote) -> Stage:
    asked = {"repo": remote.repo, "revision": remote.revision, "file": remote.file}
    return Stage("download", {**asked, "role": remote.role})


def _reads(job: Job, model_id: str) -> bool:
    """Whether an unfinished job needs that model: what it begins with, names, or made itself."""
    named = [job.params.get("source"), *(step.model for step in job.steps)]
    named += [value for stage in job.params.get("stages", ()) for value in stage["params"].values()]
    return model_id in named


def _fetches(job: Job, begun: Unfinished) -> bool:
    """Whether an unfinished job fetches that; one that does not know its commit yet may well."""
    for stage in job.params.get("stages", ()):
        asked = stage["params"]
        if stage["do"] == "download" and asked["file"] == begun.file:
            commit = job.params.get("pins", {}).get(_name_of(asked["repo"], asked["revision"]))
            if commit == begun.revision or (not commit and asked["repo"] == begun.repo):
                return True
    return False


def _name_of(repo: str, revision: str | None) -> str:
    return f"{repo}@{revision or 'main'}"


def is_repository(source: str) -> bool:
    """Whether that may be a repository of the hub, such as owner/model."""
    from chatbot.models.hub import REPOSITORY

    return bool(REPOSITORY.fullmatch(source)) and "/" in source


def _size_of(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
