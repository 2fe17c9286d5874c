"""Where everything is built and held: one `Services` per process, owner of one data folder.

`open_services` takes the folder's lock and opens the rooms; pages, the API and the command line all
reach the same object through `services()`. Work that needs two neighbouring rooms is composed here.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatbot.chat.answer import Answers, Findings, Otherwise
from chatbot.chat.history import INCOGNITO, History
from chatbot.chat.reply import Reply
from chatbot.database import Database
from chatbot.engines.base import EngineSpec
from chatbot.engines.host import EngineHost
from chatbot.engines.states import StateFolder
from chatbot.errors import (
    Cancelled,
    ChatbotError,
    ChildError,
    ModelDoesNotFit,
    ModelError,
    NotFoundError,
    OutOfMemory,
)
from chatbot.hardware.detect import detect, fingerprint, installed
from chatbot.hardware.monitor import Monitor
from chatbot.hardware.process import give_back
from chatbot.hardware.speeds import Speeds, measure_speeds
from chatbot.i18n import GB, N_
from chatbot.jobs import JobContext, Jobs, error_of
from chatbot.library.chunking import CHUNKER_VERSION
from chatbot.library.index import Index
from chatbot.library.ingest import Ingest
from chatbot.library.page_view import PageView
from chatbot.library.readers import Reader
from chatbot.library.register import Register
from chatbot.library.renderer import Renderer
from chatbot.library.store import DocumentStore
from chatbot.library.watch import LinkedFolders
from chatbot.library.window import window_of
from chatbot.models.relations import base_of
from chatbot.models.store import ModelStore
from chatbot.ownership import Ownership, own
from chatbot.retrieval.search import Search
from chatbot.settings import (
    SAMPLES,
    Paths,
    Settings,
    load_settings,
    offline,
    save_settings,
)
from chatbot.types import (
    Document,
    Engine,
    GenerationStats,
    Growth,
    Hardware,
    Job,
    MemoryPlan,
    Message,
    ModelArtifact,
    SearchFilter,
    Tuned,
)
from chatbot.workshop.orders import Workshop
from chatbot.workshop.outline import Wanted
from chatbot.workshop.planner import Planner
from chatbot.workshop.rescue import Rescue
from chatbot.workshop.tuner import Tuner
from chatbot.workshop.work import check_passed

if TYPE_CHECKING:
    from chatbot.engines.worker import EngineWorker
    from chatbot.evaluation.quality import Quality
    from chatbot.evaluation.questions import Suggestion
    from chatbot.evaluation.runs import Configuration
    from chatbot.memory.alternatives import Alternative, Case
    from chatbot.memory.calibration import Calibration, Load
    from chatbot.memory.incidents import Incident
    from chatbot.memory.relief import Cure

# Imported where they are needed, for the sake of a quick start: chatbot.evaluation,
# chatbot.memory, library.exporting and importing, models.importing.

log = logging.getLogger(__name__)

REMOTE = "remote"
"""Model id of the endpoint named on the settings page."""
QUOTES = "extractive"
"""Model id of 'no model': answers quote the documents."""

SOURCES_PER_ANSWER = 6
TRASH_SECONDS = 30 * 86400
TEXT_FOR_IMPORTANCE, LEAST_TEXT, MOST_TEXTS = 400_000, 2_000, 200
"""Characters of the documents that tell a quantiser what matters: about four times what it reads."""
FIRST_PAGE_SECONDS = 5.0
DRAWING_SECONDS = 1.0


class Services:
    """The open rooms of one data folder; build it with `open_services`."""

    def __init__(self, ownership: Ownership) -> None:
        """Open the rooms; the index opens when it is needed, a page is shown, or soon."""
        self.ownership = ownership
        self.paths = paths = ownership.paths
        self._patience = FIRST_PAGE_SECONDS
        paths.make()
        self.settings = load_settings(paths.settings)
        self._changing = threading.Lock()
        self._loading = threading.RLock()
        self.database = Database(paths.database)
        self.states = StateFolder(paths.states)
        self.history = History(self.database, gone=self.forget_states)
        self.incognito = History(Database(Path(":memory:")), incognito=True)
        self.store = DocumentStore(self.database, paths)
        self.register = Register(self.database)
        self.reader = Reader()
        self.renderer = Renderer()
        self.page_view = PageView(self.store, self.renderer)
        self.folders = LinkedFolders(
            self.database, self.store, lambda: self.ingest, self._start_ingest
        )
        self._plans: dict[EngineSpec, MemoryPlan] = {}
        self.engines = EngineHost(
            self._note_memory,
            self._note_exhausted,
            tuned=self._note_tuning,
            states=self._states_allowed,
        )
        self.models = ModelStore(self.database, paths)
        self.monitor = Monitor(data=paths.data)
        self.jobs = Jobs(self.database)
        self._clear_temporary()
        self.tuner = Tuner(self.database, lambda: self._machine, self.engines, self.jobs)
        self.planner = Planner(
            self.models,
            self.engines,
            lambda: self.hardware(),  # noqa: PLW0108  tests put another PC in its place
            lambda: self.calibration.factors(),  # noqa: PLW0108  opened when it is asked
            self.tuner.kept,
            self._plans.get,
            lambda: (self.settings, self.index.pid),
        )
        self.rescue = Rescue(self.database, self.models, self.planner, QUOTES)
        self.workshop = Workshop(
            self.models,
            self.jobs,
            self.engines,
            lambda: self.settings,
            self.hardware,
            LibraryFile(self),
            self._loadable,
        )
        self.answers = Answers(
            self.history_of,
            self.find,
            self.engine_for,
            self._style,
            self.files_ready,
            self._instead,
        )
        self._closing = threading.Event()
        self._page_shown = threading.Event()
        self._reading: str | None = None
        """The document being taken in; it is ready only once the index has heard of it too."""
        self._open_index()  # last, for it starts a thread

    def _open_index(self) -> None:
        self.index = Index(
            self.database,
            self.paths.index,
            self.settings.embedder,
            CHUNKER_VERSION,
            allow_download=self.settings.allow_embedder_download and not offline(),
            open_after=self._patience,
            answering=lambda: self.engines.busy,
        )
        self.index.use_reranker(self.settings.reranker)
        window = partial(window_of, self.settings.embedder)
        self.ingest = Ingest(self.store, self.reader, self.index, window)
        self.search = Search(self.index)

    def _clear_temporary(self) -> None:
        """Remove what an earlier run left, but for documents that a job has still to take in."""
        unfinished = self.jobs.list(active=True, kind="import_documents")
        needed = {Path(job.params["file"]).parent for job in unfinished}
        for left in self.paths.temporary.iterdir():
            if left.is_dir() and left not in needed:
                shutil.rmtree(left, ignore_errors=True)
            elif not left.is_dir():
                left.unlink(missing_ok=True)

    def start(self) -> None:
        """Take up unfinished work, index the samples the first time, begin to watch the PC."""
        self.answers.recover(self.history)
        self.jobs.register("ingest", self._ingest_waiting)
        self.jobs.register("export", self._export)
        self.jobs.register("import_documents", self._import_documents)
        self.workshop.register()
        self.jobs.register("read_facts", self._read_facts)
        self.jobs.register("recut", self._recut)
        self.jobs.register("evaluate", self._evaluate)
        self.jobs.register("benchmark", self._benchmark, lane="benchmark")
        self.jobs.start()
        self.read_facts()
        self.recut()
        self.monitor.start()
        self._forget_files()
        self.states.tidy(self.history.ids())
        if not self.settings.samples_added:
            self.add_documents([SAMPLES], collection="samples")
            self.change_settings(samples_added=True)
        elif self.ingest.unfinished():
            self._start_ingest()
        if (
            self.ownership.address
        ):  # the owner that one command makes would be gone before anything changes
            self.folders.start()
        threading.Thread(target=self._unload_idle, name="idle", daemon=True).start()

    def page_shown(self) -> None:
        """The first page is written: once the browser has drawn it, start what would have made it wait."""
        if self._page_shown.is_set():
            return
        self._page_shown.set()
        self._patience = 0.0

        def load() -> None:
            if self._closing.wait(DRAWING_SECONDS):
                return
            self.index.open_now()
            try:
                self.engines.extractive().load()
            except ChildError as error:  # closed meanwhile; the first question would load it too
                log.info("not warmed up: %s", error)

        threading.Thread(target=load, name="warm-up", daemon=True).start()

    def close(self) -> None:
        """End what runs, keep what was written, let go of the folder."""
        self._closing.set()
        with (
            ExitStack() as rooms
        ):  # from the last to the first, each whatever becomes of the others
            for leave in (
                self.ownership.release,
                self.database.close,
                self.index.close,
                self.reader.close,
                self.renderer.close,
                self.engines.close,
                self.monitor.stop,
                self.jobs.close,
                self.folders.close,
                self.index.let_go,
                self.answers.stop_all,
            ):
                rooms.callback(leave)

    # --- conversations ----------------------------------------------------------------------

    def history_of(self, conversation_id: str) -> History:
        """The history that holds this conversation: on disk, or in memory for incognito ones."""
        return self.incognito if conversation_id.startswith(INCOGNITO) else self.history

    def find(self, question: str, chosen: SearchFilter) -> Findings:
        """The passages that answer the question best, and whether they do."""
        found = self.search.find(question, chosen, limit=SOURCES_PER_ANSWER)
        behind = self.search.referred(found.results) if found.answers else ()
        return Findings((*found.results, *behind), found.answers)

    def files_ready(self, conversation_id: str) -> bool:
        """Whether every file attached to the conversation, and every sample, has been read or failed."""
        awaited = self.store.list(conversation=conversation_id) + self.store.list("samples")
        return all(
            document.state in ("ready", "failed") and document.id != self._reading
            for document in awaited
        )

    def wait_until_read(self, timeout: float = 600) -> None:
        """Return once every document was tried and the index holds those read, or after `timeout`.

        A document may wait longer, for instance for room on a full disk.
        """
        deadline = time.monotonic() + timeout
        for job in self.jobs.list(active=True, kind="ingest")[::-1]:
            self.jobs.wait(job.id, max(deadline - time.monotonic(), 0))
        self.index.wait_ready(max(deadline - time.monotonic(), 0))

    def _style(self) -> str:
        return self.settings.answer_style

    # --- documents --------------------------------------------------------------------------

    def add_documents(
        self,
        files: Sequence[Path | tuple[str, bytes]],
        collection: str = "documents",
        conversation: str | None = None,
    ) -> list[Document]:
        """Keep the files and begin to read them; what is returned is safe on disk."""
        added = self.ingest.add(files, collection, conversation)
        if any(document.state == "waiting" for document in added):
            self._start_ingest()
        return added

    def read_facts(self) -> None:
        """Begin to read what documents say of themselves, where that was not done when they were read."""
        if self.register.unread() and not self.jobs.list(active=True, kind="read_facts"):
            self.jobs.submit("read_facts", N_("Reading numbers and dates of official documents"))

    def _read_facts(self, context: JobContext) -> None:
        waiting = self.register.unread()
        for number, document_id in enumerate(waiting):
            context.report(number / len(waiting))
            self.register.fill(document_id)

    def rename_collection(self, old: str, new: str) -> None:
        """Give a collection another name, also where conversations are narrowed to it."""
        name = self.store.collections.rename(old, new)
        for history in (self.history, self.incognito):
            for conversation in history.conversations():
                chosen = conversation.settings.filter
                if old in chosen.collections:
                    names = tuple(name if one == old else one for one in chosen.collections)
                    narrowed = replace(chosen, collections=names)
                    history.configure(
                        conversation.id, replace(conversation.settings, filter=narrowed)
                    )

    def export_documents(self, file: Path, collection: str | None = None) -> Job:
        """Begin to write a collection, or all documents, into that file."""
        params = {"file": str(file.expanduser().absolute()), "collection": collection}
        return self.jobs.submit("export", N_("Exporting documents"), params)

    def import_documents(self, file: Path, collection: str | None = None) -> Job:
        """Begin to take in what `export_documents` wrote, here or elsewhere."""
        params = {"file": str(file.expanduser().absolute()), "collection": collection}
        return self.jobs.submit("import_documents", N_("Importing documents"), params)

    def _export(self, context: JobContext) -> str:
        from chatbot.library.exporting import export

        file, collection = (context.job.params[key] for key in ("file", "collection"))
        files = self.paths.files
        done = export(self.paths.database, files, Path(file), collection, context.report)
        return json.dumps(asdict(done))

    def _import_documents(self, context: JobContext) -> str:
        file, collection = (context.job.params[key] for key in ("file", "collection"))
        done = self.ingest.take_in(Path(file), collection, context.report)
        if self.paths.temporary in Path(file).parents:
            shutil.rmtree(Path(file).parent, ignore_errors=True)
        if done.unread:
            self._start_ingest()
        self.read_facts()
        self.recut()  # for the embedder here, where another one asked for other passages
        return json.dumps(asdict(done))

    def recut(self) -> None:
        """Begin to cut documents anew whose passages another version, or another embedder, asked for."""
        if self.ingest.cut_otherwise() and not self.jobs.list(active=True, kind="recut"):
            self.jobs.submit("recut", N_("Cutting documents anew for the search"))

    def _recut(self, context: JobContext) -> None:
        waiting = self.ingest.cut_otherwise()
        for number, document_id in enumerate(waiting):
            context.report(number / len(waiting))
            self.ingest.recut(document_id, lambda: context.cancelled)

    def index_status(self) -> dict[str, Any]:
        """Where the search index stands: state, passages done and in all, and an error or None."""
        status = self.index.status()
        return {
            "state": status.state,
            "done": status.done,
            "total": status.total,
            "error": status.error.text("en") if status.error else None,
        }

    def _start_ingest(self) -> None:
        waiting = [j for j in self.jobs.list(active=True, kind="ingest") if j.state == "waiting"]
        if not waiting:
            self.jobs.submit("ingest", N_("Reading documents"))

    def _ingest_waiting(self, context: JobContext) -> None:
        """Read every waiting document; files attached to a conversation come first."""
        total = done = 0
        while waiting := self.ingest.unfinished():
            total = max(total, done + len(waiting))
            try:
                document = self.store.get(waiting[0])
            except NotFoundError:  # erased in this very moment
                continue

            def report(
                fraction: float, name: str = document.name, at: int = done, of: int = total
            ) -> None:
                context.report((at + fraction) / of, name)

            self._reading, ingest = document.id, self.ingest
            try:
                ingest.process(document.id, report, lambda: context.cancelled)
            except Cancelled:
                # Hearth ends, nobody pressed cancel: what is not stored yet is read next time.
                if self._closing.is_set() and self.store.get(document.id).state == "failed":
                    self.ingest.read_again(document.id)
                raise
            except ChildError:
                if ingest is self.ingest:
                    raise
                continue  # another embedder was chosen meanwhile: once more, with that one
            finally:
                self._reading = None
            done += 1

    def _forget_files(self) -> None:
        """Erase what lay in the trash for a month, and files of incognito conversations."""
        self.history.purge_trash(older_than=TRASH_SECONDS)
        gone = self.store.attached_to(INCOGNITO) + self.store.trash.ids(older_than=TRASH_SECONDS)
        if gone:
            self.ingest.purge(*gone)
        self.database.drop_backups(older_than=TRASH_SECONDS)

    # --- quality ----------------------------------------------------------------------------

    @cached_property
    def quality(self) -> Quality:
        """The person's questions and how the search did on them."""
        from chatbot.evaluation.quality import Live, Quality

        return Quality(
            self.database,
            self.store,
            self.paths.temporary,
            lambda: Live(self.search, self.index, self.settings.embedder, self.settings.reranker),
        )

    def evaluate(self, configurations: Sequence[Configuration], folder: Path | None = None) -> Job:
        """Begin to ask the person's questions, or a BEIR folder's, of each configuration."""
        under_way = [
            run for job in self.jobs.list(active=True) for run in job.params.get("runs", ())
        ]
        self.quality.runs.drop_unfinished(kept=under_way)
        runs = self.quality.begin(configurations, folder)
        return self.jobs.submit("evaluate", N_("Measuring the search"), {"runs": runs})

    def suggested_questions(self) -> list[Suggestion]:
        """Questions of conversations whose cited passages the person found right; never incognito ones."""
        return self.quality.questions.suggestions(self.history.approved())

    def _evaluate(self, context: JobContext) -> None:
        self.quality.work(context.job.params["runs"], context.report)

    # --- models -----------------------------------------------------------------------------

    def hardware(self) -> Hardware:
        """What this PC has now."""
        return detect(self.paths.data)

    def plan_model(self, model: ModelArtifact | Path, **wishes: Any) -> MemoryPlan:
        """How the model would run here now; what is loaded counts as free, for it would make room."""
        return self._case(model, **wishes).plan()

    def alternatives(
        self, model: ModelArtifact, found: MemoryPlan, **wishes: Any
    ) -> tuple[Alternative, ...]:
        """What else could be had from the model than `found`, the plan with the same wishes."""
        return self.planner.alternatives(self._case(model, **wishes), found, model)

    def _case(self, model: ModelArtifact | Path, **wishes: Any) -> Case:
        if isinstance(model, Path):
            return self.planner.case(model, **wishes)
        chosen = {name: wish for name, wish in wishes.items() if wish is not None}
        wishes = {**model.manifest.get("defaults", {}), **chosen}
        return self.planner.case(Path(self._base_of(model).path), model.id, **wishes)

    @cached_property
    def calibration(self) -> Calibration:
        """What the loads of models on this PC were predicted to take, and took."""
        from chatbot.memory.calibration import Calibration

        return Calibration(self.database, self._machine)

    def loaded_memory(self) -> Load | None:
        """What the model in memory was predicted to take, and takes."""
        loaded = self.engines.loaded
        return self.calibration.load_at(loaded.loaded_at) if loaded else None

    def last_out_of_memory(self) -> Incident | None:
        """When memory ran out last, where, what came back and what was chosen then; None when it never did."""
        return self.rescue.last()

    def answer_again(self, message: Message, cure: Cure) -> Reply:
        """Answer once more, as the cure says, the question of a message that memory ran out under."""
        error = ChatbotError.from_json(message.error or "{}")
        if isinstance(error, OutOfMemory):
            self.rescue.chosen(error, cure)
        otherwise = self._otherwise(cure)
        return self.answers.regenerate(message.conversation_id, message.id, otherwise)

    def make_smaller(self, cure: Cure) -> Job:
        """Begin to make the smaller version that the cure names."""
        return self.workshop.make_ready(cure.model_id, Wanted(type=cure.values["type"]))

    def load_cured(self, cure: Cure) -> Engine:
        """The engine that the cure names, loaded as it says."""
        if cure.model_id == QUOTES:
            return self.engines.extractive()
        return self.load_model(cure.model_id, **cure.wishes)

    def _otherwise(self, cure: Cure) -> Otherwise:
        quoting = cure.model_id == QUOTES
        return Otherwise(partial(self.load_cured, cure), cure.notice, quoting)

    def _instead(self, error: OutOfMemory) -> Otherwise | None:
        """The first cure that needs no waiting, where the person leaves the choice to Hearth."""
        from chatbot.memory.relief import cures_of

        if self.settings.retry_smaller != "automatic":
            return None
        cure = next((one for one in cures_of(error) if one.kind != "make"), None)
        if cure is None:
            return None
        self.rescue.chosen(error, cure)
        return self._otherwise(cure)

    def _note_exhausted(self, worker: EngineWorker, error: OutOfMemory) -> None:
        self.rescue.advise(error, self._plans.get(worker.spec))

    @cached_property
    def _machine(self) -> str:
        return fingerprint(self.hardware())

    def speeds(self) -> Speeds | None:
        """How fast this PC was when it was measured last; None before."""
        from chatbot.memory.speed import kept

        return kept(self.database, self._machine)

    def measure_speeds(self) -> Job:
        """Begin to measure how fast this PC is, unless that goes on already."""
        running = self.jobs.list(active=True, kind="benchmark")
        return running[0] if running else self.jobs.submit("benchmark", N_("Measuring this PC"))

    def _benchmark(self, context: JobContext) -> None:
        from chatbot.memory.speed import keep

        gpus = any(gpu.kind != "rocm" for gpu in self.hardware().gpus)
        on_gpu = gpus and installed().transformers_gpu
        keep(self.database, self._machine, measure_speeds(on_gpu))
        self.tuner.measure(lambda: context.report(None))  # so that it need not be waited for

    def free_memory(self) -> None:
        """Unload the model and end the helpers that start again when they are needed."""
        self.engines.unload()
        self.engines.extractive().unload()
        self.renderer.rest()
        give_back()

    def _note_memory(
        self, worker: EngineWorker, growth: Growth, stats: GenerationStats | None
    ) -> None:
        plan = self._plans.get(worker.spec)
        if plan and worker.pid:
            self.calibration.note(
                worker.loaded_at, worker.spec.title, plan, worker.pid, growth, stats
            )

    def _note_tuning(self, spec: EngineSpec, tuned: Tuned) -> None:
        self.tuner.keep(spec, tuned)

    def _spec(self, model: ModelArtifact, plan: MemoryPlan) -> EngineSpec:
        spec = spec_from(model, self._base_of(model), plan)
        self._plans[spec] = plan
        return spec

    def engine_for(self, model_id: str | None) -> Engine:
        """The engine a conversation asked for, loaded; the default one for None."""
        chosen = model_id or self.settings.default_model or QUOTES
        if chosen == QUOTES:
            return self.engines.extractive()
        if chosen == REMOTE:
            return self.engines.use(self._remote_spec())
        return self._engine_in_memory(chosen) or self._engine_loaded(chosen)

    def _engine_in_memory(self, model_id: str) -> Engine | None:
        loaded = self.engines.loaded
        if loaded and loaded.spec.model_id == model_id:
            return self.engines.use(loaded.spec)
        return None

    def _engine_loaded(self, model_id: str) -> Engine:
        with self._loading:  # the others who asked meanwhile find it in memory
            return self._engine_in_memory(model_id) or self.load_model(model_id)

    def load_model(self, model_id: str, *, anyway: bool = False, **wishes: Any) -> Engine:
        """Load a model as the plan says; one that will not fit leaves the loaded one where it is.

        What `wishes` leave open, the model's saved defaults say. Raises ModelDoesNotFit, and FailedCheck
        for a model whose check failed, unless `anyway`.
        """
        model = self.models.get(model_id)
        check_passed(model, anyway=anyway)
        with self._loading:
            plan = self.plan_model(model, **wishes)
            if plan.fits and self.engines.loaded:
                self.engines.unload()
                plan = self.plan_model(model, **wishes)  # now that the room is truly there
            if not plan.fits and not anyway:
                raise _no_room(model, plan)
            return self.engines.use(self._spec(model, plan))

    @contextmanager
    def _loadable(self, model: ModelArtifact) -> Iterator[tuple[EngineWorker, MemoryPlan]]:
        with self._loading:  # until it is measured, nothing else is loaded in its place
            plan = self.plan_model(model)
            if not plan.fits:
                raise _no_room(model, plan)
            yield self.engines.worker(self._spec(model, plan)), plan

    def _base_of(self, model: ModelArtifact) -> ModelArtifact:
        """The model itself; of an adapter the base that it runs with, unmerged."""
        if model.format != "adapter":
            return model
        if base := base_of(self.models, model):
            return base
        raise ModelError(N_("it is an adapter; choose its base first."), name=model.name)

    def chat_models(self) -> list[ModelArtifact]:
        """The models that can answer, the newest first: an adapter once its base is chosen."""
        return [
            model
            for model in self.models.list()
            if model.role == "chat"
            and (model.format in ("gguf", "hf") or base_of(self.models, model))
        ]

    def remove_model(self, model_id: str) -> None:
        """Take a model off the list (and off the disk, where it is Hearth's own). Raises ModelInUse."""
        path = self.models.get(model_id).path
        self.workshop.remove(model_id)
        self.states.forget_model(path)
        if self.settings.default_model == model_id:
            self.change_settings(default_model=None)

    def _remote_spec(self) -> EngineSpec:
        if not self.settings.remote_url:
            raise NotFoundError(N_("the remote model's address"))
        return EngineSpec(
            backend="openai",
            model_id=REMOTE,
            name=self.settings.remote_model,
            url=self.settings.remote_url,
            key=self.settings.remote_key,
        )

    def _unload_idle(self) -> None:
        while not self._closing.wait(30):
            try:
                self._tidy_up()
            except (
                ChatbotError,
                OSError,
            ) as error:  # a full disk, a model taken away: next time again
                log.warning("idle work failed: %s", error)

    def _tidy_up(self) -> None:
        if self.settings.idle_unload_minutes:
            self.engines.unload_idle(self.settings.idle_unload_minutes)
        self.states.tidy(self.history.ids())  # one deleted while its answer was being written
        self.tuner.measure_when_quiet()

    # --- settings and privacy ---------------------------------------------------------------

    def forget_states(self, conversations: Sequence[str] | None = None) -> None:
        """Remove what models have read of these conversations from the disk; None: of all."""
        self.states.forget(conversations)
        self.engines.forget(conversations)

    def _states_allowed(self) -> tuple[str, int]:
        allowed = self.settings.state_megabytes
        return (str(self.paths.states), self.states.limit(allowed)) if allowed else ("", 0)

    def change_settings(self, **values: Any) -> Settings:
        """Store changed settings; a new embedder begins to index everything anew at once."""
        with self._changing:  # two tabs may change different things at the same moment
            old, new = self.settings, self.settings.changed(**values)
            save_settings(self.paths.settings, new)
            self.settings = new
            if (old.embedder, old.allow_embedder_download) != (
                new.embedder,
                new.allow_embedder_download,
            ):
                before = self.index
                self._open_index()
                before.close()
                self.recut()
            self.index.use_reranker(new.reranker)
        if new.state_megabytes < old.state_megabytes:
            self.states.trim(self.states.limit(new.state_megabytes))
            if not new.state_megabytes:
                self.forget_states()
        return new

    def delete_everything(self) -> None:
        """Erase all conversations and documents from this PC; models and settings stay."""
        self.answers.stop_all()
        self.history.purge_everything()
        self.incognito.purge_everything()
        self.quality.purge()
        self.folders.forget()
        self.ingest.purge(*self.store.every_id())
        self.database.execute("DELETE FROM jobs WHERE state NOT IN ('waiting', 'running')")
        self.database.drop_backups()
        self.database.forget()

    def diagnostic_report(self) -> dict[str, Any]:
        """Facts that help to find a fault; no titles, file names, paths or texts."""
        from chatbot import __version__

        hardware = self.hardware()
        loaded = self.engines.loaded
        documents = self.store.list(every=True)
        return {
            "hearth": __version__,
            "hardware": asdict(hardware),
            "documents": len(documents),
            "passages": sum(d.passages for d in documents),
            "failed_documents": sum(d.state == "failed" for d in documents),
            "conversations": len(self.history.conversations()),
            "models": [
                {"format": m.format, "architecture": m.architecture, "size": m.size}
                for m in self.models.list()
            ],
            "loaded": loaded.info.backend if loaded else None,
            "embedder": "folder"
            if Path(self.settings.embedder).exists()
            else self.settings.embedder,
            "index": {**self.index_status(), "error": _code(self.index.status().error)},
            "offline": offline(),
            "jobs": [
                {"kind": j.kind, "state": j.state, "error": _code(error_of(j))}
                for j in self.jobs.list()[:20]
            ],
        }


class LibraryFile:
    """All documents as one file, for the models that take them along."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def place(self) -> Path:
        folder = self._services.paths.temporary / uuid.uuid4().hex
        folder.mkdir()
        return folder / "library.hearth"

    def pack(self, file: Path, report: Callable[[float], None]) -> None:
        from chatbot.library.exporting import export

        paths = self._services.paths
        export(paths.database, paths.files, file, None, report)

    def take_in(self, file: Path) -> Job:
        return self._services.import_documents(file)

    def texts(self) -> list[str]:
        store = self._services.store
        ids = [d.id for d in store.list() if d.state == "ready"]
        each = TEXT_FOR_IMPORTANCE // max(len(ids), 1)
        return [store.contents.text(i)[: max(each, LEAST_TEXT)] for i in ids[:MOST_TEXTS]]


def _code(error: ChatbotError | None) -> str | None:
    return error.code if error else None


def _no_room(model: ModelArtifact, plan: MemoryPlan) -> ModelDoesNotFit:
    needed = plan.total + plan.growth  # a full context must fit too
    return ModelDoesNotFit(name=model.name, needed=needed / GB, free=plan.free / GB)


def spec_from(model: ModelArtifact, base: ModelArtifact, plan: MemoryPlan) -> EngineSpec:
    """What the engine worker must know to run this model as planned; an adapter runs on its base."""
    apart = model.format == "adapter"
    return EngineSpec(
        backend=plan.backend,
        model_id=model.id,
        name=f"{base.name} + {model.name}" if apart else model.name,
        path=base.path,
        adapter=model.path if apart else "",
        context=plan.context,
        gpu_layers=plan.gpu_layers,
        kv_type=plan.kv_type,
        batch=plan.batch,
        threads=plan.threads,
        threads_batch=plan.threads_batch,
        steady=plan.steady,
        flash=plan.flash,
        precision=plan.precision,
        device=plan.device,
        cards=tuple(card.index for card in plan.cards if plan.device.startswith("cuda")),
        split=tuple(card.layers for card in plan.cards),
    )


_services: Services | None = None
_opening = threading.Lock()


def open_services(paths: Paths | None = None) -> Services:
    """Open the data folder, or return what is open. Raises OwnerError when another process owns it."""
    global _services  # noqa: PLW0603 - the one place that holds the process's single owner
    with _opening:
        if _services is None:
            ownership = own(paths or Paths.default())
            try:
                opened = Services(ownership)
            except BaseException:
                ownership.release()
                raise
            try:
                opened.start()
            except BaseException:
                opened.close()
                raise
            _services = opened
        return _services


def services() -> Services:
    """The open services of this process."""
    return open_services()


def close_services() -> None:
    """Close what `open_services` opened; opening again afterwards is fine."""
    global _services  # noqa: PLW0603 - see open_services
    with _opening:
        if _services is not None:
            _services.close()
            _services = None
