"""Threads, batch and attention measured on the loaded model."""

from __future__ import annotations

import threading
import time

import pytest

from chatbot.engines import tuning
from chatbot.engines.base import EngineSpec
from chatbot.engines.give_way import OtherPrograms
from chatbot.engines.llama_cpp import LlamaCpp
from chatbot.engines.tuning import best_of, flash_pays, measure, thread_counts
from chatbot.engines.worker import EngineWorker
from chatbot.errors import Cancelled
from chatbot.types import GenerationOptions, Tuned, Turn

GREEDY = GenerationOptions(temperature=0, repeat_penalty=1.0, max_tokens=12, thinking=False)
QUESTION = [Turn("user", "Xin chào, học phí là bao nhiêu?")]


@pytest.mark.parametrize(
    ("physical", "logical", "fast", "counts"),
    [
        (2, 2, None, [2, 1]),
        (1, 1, None, [1]),
        (4, 8, None, [4, 2, 8]),
        (14, 20, 6, [14, 6, 7, 20]),  # six fast cores of two threads, eight slow ones
        (8, 4, None, [8, 4]),  # a container that may use four
    ],
)
def test_threads_worth_trying(physical, logical, fast, counts):
    assert thread_counts(physical, logical, fast) == counts


def test_the_usual_way_stays_where_the_difference_is_noise():
    assert best_of({512: 70.0, 256: 71.5, 128: 69.0}) == 512
    assert best_of({512: 66.7, 256: 70.3, 128: 64.6}) == 256
    assert best_of({2: 5.0, 1: 8.3}) == 1


def test_flash_attention_is_weighed_by_a_whole_answer():
    assert not flash_pays((72.0, 14.2), (78.0, 12.6))  # reads 9 % faster, writes 11 % slower
    assert flash_pays((72.0, 14.2), (90.0, 14.0))
    assert not flash_pays((72.0, 14.2), (73.0, 14.3))  # noise


@pytest.fixture
def engine(tiny_gguf):
    engine = LlamaCpp(
        EngineSpec("llama_cpp", path=str(tiny_gguf), context=512, batch=128, steady=True, threads=1)
    )
    yield engine
    engine.close()


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PC on which nothing else runs."""
    monkeypatch.setattr(OtherPrograms, "busy", lambda _self: 0.0)


@pytest.mark.usefixtures("quiet")
def test_a_model_is_measured_in_seconds_and_its_conversation_stays(engine):
    [*_, before] = engine.stream(QUESTION, GREEDY)
    done: list[float] = []
    tuned = engine.tune(done.append, lambda: False)
    assert isinstance(tuned, Tuned)
    assert tuned.threads in thread_counts(*_cores())
    assert tuned.batch in tuning.BATCHES
    assert min(tuned.decode, tuned.prefill, tuned.plain_decode, tuned.plain_prefill) > 0
    assert 0 < tuned.seconds < tuning.SECONDS * 2
    assert done == sorted(done)
    assert done
    [*_, again] = engine.stream(QUESTION, GREEDY)
    assert again.stats.cached_tokens == before.stats.prompt_tokens - 1


@pytest.mark.usefixtures("quiet")
def test_it_ends_within_a_step_when_it_is_cancelled(engine):
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 20

    with pytest.raises(Cancelled):
        measure(engine.library, engine._model, cancelled=cancelled)
    [*_, last] = engine.stream(QUESTION, GREEDY)
    assert last.stats.answer_tokens > 0


def test_nothing_is_found_while_other_programs_keep_the_processor_busy(engine, monkeypatch):
    monkeypatch.setattr(OtherPrograms, "busy", lambda _self: 1.0)
    assert engine.tune(lambda _: None, lambda: False) is None


def test_one_busy_moment_among_the_trials_is_enough_to_find_nothing(engine, monkeypatch):
    looks = iter([0.0, 0.0, 1.0])
    monkeypatch.setattr(OtherPrograms, "busy", lambda _self: next(looks, 0.0))
    monkeypatch.setattr(tuning, "_LOOK_SECONDS", 0.0)
    assert engine.tune(lambda _: None, lambda: False) is None


def test_a_question_ends_the_measurement_at_once(tiny_gguf):
    worker = EngineWorker(
        EngineSpec("llama_cpp", path=str(tiny_gguf), context=512, batch=128, threads=1)
    )
    try:
        assert worker.tune() is None  # nothing is loaded
        worker.load()
        begun, found = threading.Event(), []
        measuring = threading.Thread(
            target=lambda: found.append(worker.tune(begun.set)), daemon=True
        )
        measuring.start()
        assert begun.wait(20)
        started = time.monotonic()
        [*_, last] = worker.stream(QUESTION, GREEDY)
        measuring.join(20)
        assert last.stats.answer_tokens > 0
        assert last.stats.seconds_to_first_token < 5
        assert time.monotonic() - started < 10
        assert found == [None]
    finally:
        worker.close()


def _cores() -> tuple[int, int, int | None]:
    from chatbot.hardware.process import physical_cores

    return physical_cores(), tuning._logical_cores(), tuning._fast_cores()
