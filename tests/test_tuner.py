"""The loaded model is measured when nobody waits, and its next load runs so; jobs run at the lowest priority."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace

import psutil
import pytest

import chatbot.services as rooms
from chatbot.services import open_services
from chatbot.settings import Settings, save_settings
from chatbot.types import GenerationOptions, Tuned, Turn
from chatbot.workshop import tuner
from chatbot.workshop.tuner import QUIET_SECONDS, quiet
from tests.tiny_models import tiny_gguf, tiny_hf

__all__ = ["tiny_gguf", "tiny_hf"]

LOWEST = psutil.IDLE_PRIORITY_CLASS if os.name == "nt" else 19
TUNED = Tuned(1, 1, 128, True, 12.0, 80.0, 11.0, 70.0, 9.5, 1e9)
SHORT = GenerationOptions(temperature=0, max_tokens=4, thinking=False)


@pytest.fixture
def services(paths, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HEARTH_API_TOKEN", raising=False)
    save_settings(paths.settings, Settings(samples_added=True))
    opened = open_services(paths)
    yield opened
    rooms.close_services()


@pytest.fixture
def model_id(services, tiny_gguf) -> str:
    job = services.jobs.wait(services.workshop.take_in(tiny_gguf).id, 60)
    assert job.state == "done", job.error
    return job.message


def ask(engine) -> None:
    for _ in engine.stream([Turn("user", "Xin chào")], SHORT):
        pass


def test_the_next_load_runs_as_measured_and_a_wish_wins(services, model_id):
    first = services.load_model(model_id, context=512)
    assert (first.spec.batch, first.spec.flash) == (512, "")
    services._note_tuning(first.spec, TUNED)
    again = services.load_model(model_id, context=512)
    assert (again.spec.batch, again.spec.flash, again.spec.threads_batch) == (128, "on", 1)
    ask(again)
    wished = services.load_model(model_id, context=512, batch=64, threads=1)
    assert (wished.spec.batch, wished.spec.threads, wished.spec.steady) == (64, 1, True)


def test_measured_once_after_the_first_answer_when_nothing_goes_on(
    services, model_id, monkeypatch: pytest.MonkeyPatch
):
    measured: list[str] = []

    def measure(_report: object) -> Tuned:
        spec = services.engines.loaded.spec
        measured.append(spec.model_id)
        services._note_tuning(spec, TUNED)
        return TUNED

    monkeypatch.setattr(services.engines, "tune", measure)
    monkeypatch.setattr(tuner, "QUIET_SECONDS", 0.0)
    when_quiet = services.tuner.measure_when_quiet
    assert when_quiet() is None  # nothing is loaded
    engine = services.load_model(model_id, context=512)
    assert when_quiet() is None  # it has not answered yet
    ask(engine)
    assert when_quiet() == TUNED
    assert when_quiet() is None  # once is enough
    assert measured == [model_id]


def test_a_quiet_moment_comes_after_an_answer(services, model_id):
    services.load_model(model_id, context=512)
    loaded = services.engines.loaded
    assert not quiet(loaded, loaded.loaded_at + 1000)
    answered = replace(loaded, last_used=loaded.loaded_at + 5)
    assert not quiet(answered, answered.last_used + QUIET_SECONDS / 2)
    assert quiet(answered, answered.last_used + QUIET_SECONDS)


def test_a_measurement_by_the_button_can_be_ended(services, monkeypatch: pytest.MonkeyPatch):
    begun = threading.Event()

    def tune(report: Callable[[], None]) -> None:
        begun.set()
        while True:
            report()
            threading.Event().wait(0.01)

    monkeypatch.setattr(rooms, "measure_speeds", lambda _on_gpu: None)
    monkeypatch.setattr("chatbot.memory.speed.keep", lambda *_: None)
    monkeypatch.setattr(services.engines, "tune", tune)
    job = services.measure_speeds()
    assert begun.wait(20)
    services.jobs.cancel(job.id)
    assert services.jobs.wait(job.id, 20).state == "cancelled"


def test_jobs_run_at_the_lowest_priority_and_answers_do_not(services, model_id, tmp_path):
    usual = psutil.Process().nice()
    engine = services.load_model(model_id, context=512)
    ask(engine)
    assert psutil.Process(engine.pid).nice() == usual
    services.add_documents([("phí.txt", "Học phí nộp trước ngày 5.".encode())])
    services.wait_until_read()
    assert nice_of("chatbot.library.readers") == {LOWEST}
    assert nice_of("chatbot.library.index_worker") == {usual}  # questions wait for it
    seen: set[int] = set()
    watching = watch("chatbot.models.worker", seen)
    job = services.workshop.quantise(model_id, "Q8_0")
    assert services.jobs.wait(job.id, 120).state == "done"
    watching()
    assert LOWEST in seen
    assert seen <= {LOWEST, usual}  # for a moment after its start it still has its parent's


def nice_of(module: str) -> set[int]:
    """The priorities of the running processes of that module below this one."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            if module in process.cmdline():
                found.add(int(process.nice()))
        except psutil.Error:  # it has ended
            continue
    return found


def watch(module: str, seen: set[int]) -> Callable[[], None]:
    """Collect their priorities until what is returned is called."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            seen.update(nice_of(module))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()

    def end() -> None:
        ended.set()
        thread.join()

    return end
