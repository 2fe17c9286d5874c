"""Where models are fetched, made and checked: every such job begins here.

A job is a chain of stages (`models.chain`), each a step in a child process (`models.stages`). What a
stage made stands in the job's own steps, so that a chain cut by a restart goes on where it stopped. The
jobs of this room have a lane of their own, at the lowest priority, while people chat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from chatbot.engines.host import EngineHost
from chatbot.errors import ModelInUse, NotFoundError
from chatbot.i18n import N_
from chatbot.jobs import Jobs
from chatbot.models import chain
from chatbot.models.chain import Stage
from chatbot.models.files import check_room
from chatbot.models.store import ModelStore
from chatbot.settings import Settings
from chatbot.types import Hardware, Job, ModelArtifact, ModelRole
from chatbot.workshop.outline import AS_USUAL, Outlines, Wanted, first_stage, is_repository, kind_of
from chatbot.workshop.work import Library, Loadable, Work, pin_of

if TYPE_CHECKING:
    from chatbot.models.fetching import Unfinished
    from chatbot.models.ladder import Rung

LANE = "models"
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
        loadable: Loadable,
    ) -> None:
        self._models = models
        self._jobs = jobs
        self._engines = engines
        self._settings = settings
        self._hardware = hardware
        self.outlines = Outlines(models, hardware)
        self._work = Work(models, library, loadable, self)

    def register(self) -> None:
        """Name the kinds of jobs that are done here."""
        for kind in TITLES:
            self._jobs.register(kind, self._work.do, lane=LANE)

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
        stages = chain.checked([first_stage(path, link=link, documents=documents)])
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
        addition = self._models.find(adapter)
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

    def make_ready(self, source: str, wanted: Wanted = AS_USUAL) -> Job:
        """Begin the whole way from a hub repository, a path or an id to a model that runs here, checked."""
        outline = self.outlines.of(source, wanted)
        check_room(self._models.folder, outline.needs)
        known = self._models.find(source)
        name = known.name if known else source if is_repository(source) else Path(source).name
        return self._begin("make_ready", outline.stages, source, keep=wanted.keep, name=name)

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

    def best_type(self, source: ModelArtifact) -> str:
        """The best quantisation that fits this PC now, the smallest where none does; '' for none needed."""
        if str(source.manifest.get("quantisation", "")).upper() not in ("F32", "F16", "BF16"):
            return ""
        rungs = self.ladder(source.id)
        return next((rung.type for rung in rungs if rung.best), rungs[-1].type)

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

    def spared(self, model: ModelArtifact, job: Job) -> bool:
        """Whether the model must stay although that job made it: somebody else uses it."""
        default = self._settings().default_model == model.id
        return default or self.user_of(model.id, apart_from=job) is not None

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

    # --- planning ---------------------------------------------------------------------------

    def _begin(self, kind: str, stages: Sequence[Stage], source: str = "", **values: str) -> Job:
        keep = values.pop("keep", "all")
        params = {
            "stages": [asdict(stage) for stage in stages],
            "source": source if self._models.find(source) else None,
            "keep": keep,
            "values": values,
        }
        for job in self.jobs(active=True):  # pressed twice
            if job.kind == kind and {**job.params, "pins": {}} == {**params, "pins": {}}:
                return job
        return self._jobs.submit(kind, TITLES[kind], params, chain.steps(stages))

    def _from(self, source: str, pickled: Stage | None = None) -> tuple[list[Stage], str]:
        """The stages that bring an id (none) or a path into the list, and what to call the model."""
        if model := self._models.find(source):
            return [], model.name
        path = Path(source).expanduser().resolve()
        if pickled and path.exists() and kind_of(path) == "prepare":
            return [Stage(pickled.do, {**pickled.params, "path": str(path)})], path.name
        return [first_stage(path)], path.name


def left_documents(job: Job) -> bool:
    """Whether the job unpacked a model beside which documents lie that nobody asked for."""
    return any(step.message == chain.DOCUMENTS_LEFT for step in job.steps)


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
            commit = job.params.get("pins", {}).get(pin_of(asked["repo"], asked["revision"]))
            if commit == begun.revision or (not commit and asked["repo"] == begun.repo):
                return True
    return False
