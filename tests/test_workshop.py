"""Jobs that make models: the whole way with real steps, over kills and restarts; what fails is loud; what is used stays."""

from __future__ import annotations

import json
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from chatbot import services as rooms
from chatbot.api.model_commands import models_catalogue
from chatbot.child import Child
from chatbot.cli.models import _catalogue_text
from chatbot.errors import FailedCheck, ModelDoesNotFit, ModelError, ModelInUse, NotFoundError
from chatbot.jobs import error_of
from chatbot.models import chain
from chatbot.models.chain import Ingredients, Stage
from chatbot.models.fetching import Unfinished
from chatbot.models.files import room_for
from chatbot.models.importing import import_model
from chatbot.models.journal import Journal, journal_of
from chatbot.models.relations import base_name, bases_of, choose_base
from chatbot.models.stages import Stages, kind_of, stem
from chatbot.services import Services, open_services
from chatbot.settings import Paths, Settings, save_settings
from chatbot.types import Job, ModelArtifact
from chatbot.workshop.orders import left_documents
from chatbot.workshop.outline import Wanted
from tests.models.hub_server import serving
from tests.tiny_models import tiny_gguf, tiny_hf

__all__ = ["tiny_gguf", "tiny_hf"]

LONG = 300
"""Seconds; two busy cores take their time."""


@pytest.fixture
def services(paths: Paths):
    save_settings(paths.settings, Settings(samples_added=True))
    yield open_services(paths)
    rooms.close_services()


@pytest.fixture
def no_check(monkeypatch):
    """Every check passes at once; checks themselves are tested elsewhere."""

    def verify(self, report, *, source, parent=None):
        verdict = {"verdict": "pass", "checks": [], "types": {}, "parent": None}
        self._store.note(source.id, verdict=verdict)
        return verdict

    monkeypatch.setattr(Stages, "verify", verify)


def ended(services: Services, job: Job) -> Job:
    return services.jobs.wait(job.id, LONG)


def made(services: Services, job: Job) -> ModelArtifact:
    job = ended(services, job)
    assert job.state == "done", error_of(job)
    return services.models.get(job.message)


def states(job: Job) -> dict[str, str]:
    return {step.name: step.state for step in job.steps}


def wait_for(condition, seconds: float = LONG) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def running(services: Services, job: Job, step: str) -> bool:
    return any(
        s.name == step and s.state == "running" and s.progress >= 0
        for s in services.jobs.job(job.id).steps
    )


def helpers() -> list[psutil.Process]:
    """The children that do steps now."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if any("chatbot.models.worker" in word for word in child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


# --- the whole way --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_way_goes_on_where_a_kill_and_a_restart_stopped_it(services, paths, tiny_hf):
    job = services.workshop.make_ready(str(tiny_hf))
    wait_for(lambda: running(services, job, "convert") and helpers())
    for child in helpers():
        child.send_signal(signal.SIGKILL)
    failed = ended(services, job)
    assert failed.state == "failed"
    assert error_of(failed).code == "child_died"
    prepared = next(step.model for step in failed.steps if step.name == "prepare")
    assert prepared

    services.jobs.again(job.id)
    wait_for(lambda: running(services, job, "convert"))
    rooms.close_services()  # in the middle of a step
    again = open_services(paths)
    done = ended(again, again.jobs.job(job.id))
    assert done.state == "done", error_of(done)
    assert next(step.model for step in done.steps if step.name == "prepare") == prepared
    assert all(step.state == "done" for step in done.steps)

    model = again.models.get(done.message)
    assert model.format == "gguf"
    assert model.manifest["quantisation"] == "Q8_0"
    assert model.manifest["verdict"]["verdict"] == "pass"
    assert [one["step"] for one in model.manifest["lineage"]] == ["prepare", "convert", "quantise"]
    left = {one.id: one.manifest["quantisation"] for one in again.models.list()}
    assert prepared not in left, "nothing needs it any more"
    assert sorted(left.values()) == ["F16", "F32", "Q8_0"], (
        "its result, what that is checked against, the source"
    )
    assert not [f.name for f in again.models.folder.iterdir() if f.name.startswith(".")]
    assert "Quantising" in done.log


def test_cancelling_leaves_nothing_and_a_pause_goes_on(services, tiny_hf, no_check):
    job = services.workshop.prepare(str(tiny_hf))
    wait_for(lambda: running(services, job, "prepare"))
    services.jobs.pause(job.id)
    assert ended(services, job).state == "paused"
    (source,) = services.models.list()
    assert services.workshop.user_of(source.id) is None or "job" in services.workshop.user_of(
        source.id
    )
    services.jobs.again(job.id)
    wait_for(lambda: running(services, job, "prepare"))
    services.jobs.cancel(job.id)
    assert ended(services, job).state == "cancelled"
    assert [model.id for model in services.models.list()] == [source.id]
    assert not [f.name for f in services.models.folder.iterdir() if f.name.startswith(".")]
    assert not helpers()


def test_a_failed_check_ends_the_chain_and_marks_the_model(services, tiny_gguf, monkeypatch):
    """The check is real: it compares with a model that this one was not made from."""
    source = made(services, services.workshop.take_in(tiny_gguf))
    other = made(services, services.workshop.quantise(source.id, "Q4_0"))
    assert other.manifest["verdict"]["verdict"] == "pass"

    def fail(self, report, *, source, parent=None):
        verdict = {
            "verdict": "fail",
            "checks": [{"name": "weights", "verdict": "fail"}],
            "types": {},
        }
        self._store.note(source.id, verdict=verdict)
        return verdict

    monkeypatch.setattr(Stages, "verify", fail)
    job = ended(services, services.workshop.quantise(source.id, "Q8_0"))
    assert job.state == "failed"
    assert states(job) == {"quantise": "done", "verify": "failed"}
    assert isinstance(error_of(job), FailedCheck)
    marked = services.models.get(job.steps[0].model)
    assert marked.manifest["verdict"]["verdict"] == "fail", "it stays on the list, marked"
    with pytest.raises(FailedCheck):
        services.load_model(marked.id)
    assert services.load_model(marked.id, anyway=True).info.backend == "llama_cpp"


@pytest.mark.slow
def test_a_check_against_another_model_fails_with_figures(services, tiny_gguf, tmp_path):
    source = made(services, services.workshop.take_in(tiny_gguf))
    damaged = tmp_path / "lật bit.gguf"
    content = bytearray(tiny_gguf.read_bytes())
    content[-1000] ^= 0x40
    damaged.write_bytes(content)
    other = made(services, services.workshop.take_in(damaged))
    job = ended(services, services.workshop.verify(other.id, source.id))
    assert job.state == "done", "a check that found something did its work"
    verdict = services.models.get(other.id).manifest["verdict"]
    assert verdict["verdict"] == "fail"
    assert verdict["parent"] == source.id
    assert any(check["verdict"] == "fail" for check in verdict["checks"])


@pytest.fixture
def in_moments(services, tiny_gguf, tmp_path, monkeypatch):
    """Stages that take no time: each makes a model of its own; those named in the set fail."""
    failing: set[str] = set()

    def listed(name: str) -> ModelArtifact:
        file = tmp_path / f"{name}.gguf"
        file.write_bytes(tiny_gguf.read_bytes()[:-8] + name.encode()[:8].ljust(8))
        return import_model(services.models, file, link=False)

    def do(stage, made, context, report):
        if stage.do in failing:
            raise ModelError("no", name=stage.do)
        return None if stage.do == "verify" else listed(stage.do).id

    monkeypatch.setattr(services.workshop._work, "_do", do)
    return SimpleNamespace(failing=failing, listed=listed)


def begin_chain(services: Services) -> Job:
    stages = chain.ready_chain([Stage("download")], adapter=None, type_="Q4_0")
    return services.workshop._begin("make_ready", stages, keep="checkable", name="tiny")


def test_a_chain_tidies_away_its_own_models_only(services, in_moments):
    theirs = in_moments.listed("download")
    job = begin_chain(services)
    made(services, job)
    assert {model.name for model in services.models.list()} == {"download", "convert", "quantise"}
    assert services.models.get(theirs.id).manifest.get("job") is None


def test_what_was_removed_while_a_chain_rested_is_made_again(services, in_moments):
    in_moments.failing.add("quantise")
    job = ended(services, begin_chain(services))
    assert job.state == "failed"
    (converted,) = services.models.list()
    assert converted.name == "convert", "what came before it has served"
    services.remove_model(converted.id)
    in_moments.failing.clear()
    services.jobs.again(job.id)
    made(services, job)
    assert {model.name for model in services.models.list()} == {"convert", "quantise"}


def test_a_model_that_does_not_fit_is_not_loaded_to_be_measured(services, tiny_gguf, monkeypatch):
    model = made(services, services.workshop.take_in(tiny_gguf))
    plan = replace(services.plan_model(model), fits=False)
    monkeypatch.setattr(services, "plan_model", lambda *_, **__: plan)
    job = ended(services, services.workshop.bench(model.id))
    assert job.state == "failed"
    assert isinstance(error_of(job), ModelDoesNotFit)
    assert services.engines.loaded is None


def test_nothing_else_is_loaded_while_a_model_is_measured(services, tiny_gguf, monkeypatch):
    model = made(services, services.workshop.take_in(tiny_gguf))
    chat = threading.Thread(target=services.engine_for, args=(model.id,), daemon=True)
    loads: list[bool] = []

    def measure(report, worker, plan):
        chat.start()
        chat.join(1.0)
        loads.append(services.engines.loaded is not None)
        return {"rounds": 1}

    monkeypatch.setattr("chatbot.models.bench.bench", measure)
    job = ended(services, services.workshop.bench(model.id))
    assert job.state == "done", error_of(job)
    assert loads == [False]
    chat.join(LONG)
    assert services.engines.loaded.spec.model_id == model.id, "afterwards the chat has its turn"


@pytest.mark.timeout(300)
def test_an_adapter_runs_beside_the_gguf_of_its_base(services, tiny_hf, tiny_gguf, tmp_path):
    from tests.models.adapters import make_adapter

    folder = made(services, services.workshop.take_in(tiny_hf))
    small = made(services, services.workshop.take_in(tiny_gguf))
    adapter = made(services, services.workshop.take_in(make_adapter(tmp_path / "adapter", tiny_hf)))
    refused = ended(services, services.workshop.convert(adapter.id))
    assert refused.state == "failed", "it becomes a file only together with its base"
    choose_base(services.models, adapter, folder)
    lora = made(services, services.workshop.convert(adapter.id))
    assert (lora.format, Path(lora.path).suffix) == ("adapter", ".gguf")
    assert bases_of(services.models, lora) == [(small, True)]
    with pytest.raises(ModelError):
        choose_base(services.models, lora, folder)
    choose_base(services.models, lora, small)
    assert lora.id in [one.id for one in services.chat_models()]
    engine = services.load_model(lora.id)
    assert engine.info.backend == "llama_cpp"
    held = services.engines.loaded
    assert held is not None
    assert (held.spec.path, held.spec.adapter) == (small.path, lora.path)


# --- from the hub ---------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """A hub of our own that the environment names; the internet is allowed, and no token known."""
    with serving() as server:
        monkeypatch.delenv("HEARTH_OFFLINE")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
        yield server


def files_of(folder: Path) -> dict[str, bytes | Path]:
    return {file.name: file for file in folder.iterdir() if file.is_file()}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_adapter_of_the_hub_is_merged_into_its_base_and_made_ready(
    services, hub, tiny_hf, tmp_path, no_check
):
    from tests.models.adapters import change_config, make_adapter

    adapter = make_adapter(tmp_path / "adapter", tiny_hf, target_modules=["q_proj", "v_proj"])
    change_config(adapter, base_model_name_or_path="ai-viet/tiny")
    pinned = hub.add("ai-viet/tiny", files_of(tiny_hf))
    hub.add("sinh-vien/adapter", files_of(adapter))

    outline = services.workshop.outlines.of("sinh-vien/adapter", Wanted(type="Q4_0"))
    assert [stage.do for stage in outline.stages if stage.do != "verify"] == [
        "download", "download", "merge", "prepare", "convert", "quantise",
    ]  # fmt: skip
    assert 0 < outline.needs < outline.free
    hub.repos["ai-viet/tiny"].commit(
        {"README.md": b"moved on"}
    )  # what was looked at is what is fetched
    job = ended(services, services.workshop.make_ready("sinh-vien/adapter", Wanted(type="Q4_0")))
    assert job.state == "done", error_of(job)
    model = services.models.get(job.message)
    assert (model.format, model.manifest["quantisation"]) == ("gguf", "Q4_0")
    assert model.manifest["origin"]["revision"] == pinned
    assert [one["step"] for one in model.manifest["lineage"]] == [
        "merge", "prepare", "convert", "quantise",
    ]  # fmt: skip
    kept = {one.format: one.name for one in services.models.list()}
    assert set(kept) == {"gguf", "adapter"}, "the person's own adapter is never tidied away"

    (own,) = (one for one in services.models.list() if one.format == "adapter")
    folder = made(services, services.workshop.take_in(tiny_hf))
    assert bases_of(services.models, own)[0] == (folder, True)
    assert base_name(own) == "ai-viet/tiny"
    assert own.id not in [one.id for one in services.chat_models()]
    services.models.note(own.id, base=folder.id)
    assert own.id in [one.id for one in services.chat_models()]
    assert services.plan_model(services.models.get(own.id)).backend == "transformers"


def test_a_gguf_of_the_hub_is_only_fetched(services, hub, tiny_gguf, no_check):
    hub.add("ai-viet/tiny-GGUF", {"tiny-Q8_0.gguf": tiny_gguf, "tiny-Q4_0.gguf": tiny_gguf})
    job = services.workshop.make_ready("ai-viet/tiny-GGUF", Wanted(type="Q4_0"))
    assert [step.name for step in job.steps] == ["download", "verify"]
    model = made(services, job)
    assert Path(model.path).name == "tiny-Q4_0.gguf"
    assert model.manifest["origin"]["repo"] == "ai-viet/tiny-GGUF"


def test_a_download_goes_on_with_the_commit_it_began_with(services, monkeypatch):
    commit, other = "c" * 40, "d" * 40
    asked, refused = [], []
    begun = Unfinished(
        repo="ai-viet/tiny", revision=commit, file=None, role=None, name="", endpoint="",
        done=1, total=2, folder=services.models.folder / ".download-c",
    )  # fmt: skip
    another = replace(begun, revision=other, folder=services.models.folder / ".download-d")
    for one in (begun, another):
        one.folder.mkdir()

    def download(store, report, *, revision, pinned, **_):
        asked.append(revision)
        pinned(commit)
        try:
            services.workshop.forget(begun)
        except ModelInUse as error:
            refused.append(error)
        raise ModelError("no", name="tiny")

    monkeypatch.setattr("chatbot.models.fetching.download", download)
    job = ended(services, services.workshop.download("ai-viet/tiny"))
    services.jobs.again(job.id)
    assert ended(services, job).state == "failed"
    assert asked == ["main", commit]
    assert len(refused) == 2, "what a job fetches is not taken away"

    services.workshop.forget(another)
    assert begun.folder.exists()
    assert not another.folder.exists()
    services.workshop.forget(begun)
    assert not begun.folder.exists()


def test_a_search_on_the_command_line_says_what_fits(services, hub, tiny_gguf):
    hub.add("ai-viet/tiny-GGUF", {"tiny-Q8_0.gguf": tiny_gguf})
    hub.add("ai-viet/tiny-nothing", {"README.md": b"#"})
    rows = {row["repo"]: row for row in models_catalogue(services, "tiny")["models"]}
    assert (rows["ai-viet/tiny-GGUF"]["fits"], rows["ai-viet/tiny-GGUF"]["best"]) == (True, "Q8_0")
    assert rows["ai-viet/tiny-nothing"]["error"]
    lines = _catalogue_text({"models": list(rows.values())})
    assert "downloads  Q8_0 0.0 GB" in lines


def test_a_chain_fits_by_the_rule_that_it_is_begun_by_and_what_has_arrived_is_not_asked_twice(
    services, hub, tiny_gguf
):
    commit = hub.add("ai-viet/tiny-GGUF", {"tiny-Q8_0.gguf": tiny_gguf})
    outline = services.workshop.outlines.of("ai-viet/tiny-GGUF")
    assert outline.needs == tiny_gguf.stat().st_size
    assert replace(outline, free=room_for(outline.needs)).fits
    assert not replace(outline, free=room_for(outline.needs) - 1).fits

    folder = services.models.folder / ".download-0123"
    folder.mkdir()
    journal = Journal(journal_of(folder))
    file = {"path": "tiny-Q8_0.gguf", "size": outline.needs}
    plan = {"repo": "ai-viet/tiny-GGUF", "revision": commit, "endpoint": hub.url, "files": [file]}
    journal.begin(plan | {"file": outline.stages[0].params["file"]})
    journal.note("tiny-Q8_0.gguf", 1000, "")
    again = services.workshop.outlines.of("ai-viet/tiny-GGUF")
    assert again.needs == outline.needs - 1000


# --- what belongs together ------------------------------------------------------------------


def test_what_is_in_use_is_not_removed(services, tiny_gguf, monkeypatch):
    model = made(services, services.workshop.take_in(tiny_gguf))
    held: list[str | None] = []

    def watch(load):
        def watched(*args, **kwargs):
            for one in load(*args, **kwargs):
                held.append(services.workshop.user_of(model.id))
                yield one

        return watched

    monkeypatch.setattr(Child, "stream", watch(Child.stream))
    assert services.workshop.user_of(model.id) is None
    services.load_model(model.id)
    assert held[0], "also while it loads"
    with pytest.raises(ModelInUse):
        services.remove_model(model.id)
    services.engines.unload()
    services.change_settings(reranker=model.path)
    with pytest.raises(ModelInUse):
        services.remove_model(model.id)
    services.change_settings(reranker="", default_model=model.id)

    free = threading.Event()

    def hold(context):
        while not free.is_set():
            context.report(None)

    services.jobs.register("verify", hold, lane="models")
    job = services.workshop.verify(model.id)
    with pytest.raises(ModelInUse):
        services.remove_model(model.id)
    assert services.workshop.verify(model.id).id == job.id, "pressed twice"
    free.set()
    ended(services, job)
    services.remove_model(model.id)
    assert services.models.list() == []
    assert services.settings.default_model is None


def test_a_model_is_packed_removed_and_unpacked_with_the_documents(
    services, tiny_gguf, tmp_path, no_check
):
    services.add_documents([("thư viện.txt", "Thư viện mở cửa lúc bảy giờ.".encode())])
    services.wait_until_read()
    model = made(services, services.workshop.take_in(tiny_gguf))
    file = tmp_path / "gói" / "mô hình.zip"
    file.parent.mkdir()
    job = ended(services, services.workshop.package(model.id, file, library=True))
    assert job.state == "done", error_of(job)
    told = json.loads(job.message)
    assert {"file", "size", "ratio"} <= told.keys()
    assert Path(told["file"]) == file
    services.remove_model(model.id)
    (document,) = services.store.list()
    services.ingest.purge(document.id)

    job = ended(services, services.workshop.take_in(file))
    back = services.models.get(job.message)
    assert back.format == "gguf"
    assert not back.linked
    assert back.name == model.name
    assert left_documents(job), "nobody asked for them, so that is said"
    assert services.jobs.list(kind="import_documents") == []

    job = ended(services, services.workshop.take_in(file, documents=True))
    assert job.message == back.id
    assert not left_documents(job)
    wait_for(lambda: services.store.tally().documents == 1)


def test_what_is_made_says_where_it_comes_from(services, tiny_hf, no_check):
    source = made(services, services.workshop.take_in(tiny_hf))
    gguf = made(services, services.workshop.convert(source.id, "F16"))
    assert gguf.name == "tiny chữ F16"
    assert Path(gguf.path).name == "tiny chữ-F16.gguf"
    assert gguf.manifest["made"]["parent"] == source.id
    small = made(services, services.workshop.quantise(gguf.id, "Q4_0", documents=False))
    assert small.name == "tiny chữ Q4_0"
    assert [one["name"] for one in small.manifest["lineage"]] == [source.name, gguf.name]


def test_a_path_is_taken_by_what_it_holds(tmp_path, tiny_hf, tiny_gguf):
    assert kind_of(tiny_hf) == "import"
    assert kind_of(tiny_gguf) == "import"
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    assert kind_of(tmp_path) == "prepare"
    assert kind_of(tmp_path / "pytorch_model.bin") == "prepare"
    with pytest.raises(NotFoundError):
        kind_of(tmp_path / "nowhere")


def test_names_lose_only_their_precision():
    assert stem("Llama-3.2-3B-Instruct-Frog FP16") == "Llama-3.2-3B-Instruct-Frog"
    assert stem("qwen3-4b-instruct-Q4_K_M") == "qwen3-4b-instruct"
    assert stem("Q8_0") == "Q8_0"


def test_the_room_a_chain_needs_is_its_fullest_moment():
    stages = chain.ready_chain([Stage("download")], adapter=None, type_="Q4_K_M")
    begins = Ingredients(parameters=1_000_000, to_download=4_000_000)
    quantised = int(1_000_000 * 4.9 / 8)
    assert chain.disk_need(stages, begins, "all") == 8_000_000 + quantised
    assert chain.disk_need(stages, begins, "checkable") == 6_000_000
    assert [stage.do for stage in stages] == [
        "download", "verify", "prepare", "verify", "convert", "verify", "quantise", "verify",
    ]  # fmt: skip
    exact = chain.ready_chain([], adapter=None, type_="fp16")
    assert [stage.do for stage in exact] == ["prepare", "verify"]
    embedder = chain.ready_chain([Stage("download")], adapter=None, type_="auto", runs=True)
    assert [stage.do for stage in embedder] == ["download", "verify"]
