"""The host: one model in memory, whoever asks for what, and nobody's answer is cut off."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import psutil
import pytest

from chatbot.engines.base import EngineSpec
from chatbot.engines.host import EngineHost
from chatbot.types import Turn
from tests.engines.conftest import GREEDY, QUESTION, source
from tests.tiny_models import RECITED

LONG = replace(GREEDY, thinking=True, max_tokens=100_000)


@pytest.fixture
def host():
    made = EngineHost()
    yield made
    made.close()


@pytest.fixture
def specs(spec_of) -> tuple[EngineSpec, EngineSpec]:
    """Two models that cannot be told apart but by name."""
    spec = spec_of("llama_cpp")
    return spec, replace(spec, name="another")


def test_nothing_is_loaded_at_first_and_quoting_needs_no_model(host: EngineHost) -> None:
    turn = Turn("user", "", "Khi nào bị cảnh báo?", (source("Sinh viên bị cảnh báo khi nợ môn."),))
    text = "".join(delta.text for delta in host.extractive().stream([turn], GREEDY))
    assert text == "Sinh viên bị cảnh báo khi nợ môn. [1]"
    assert host.loaded is None


def test_twenty_who_ask_at_once_cause_one_load(host: EngineHost, specs) -> None:
    pids: list[int | None] = []
    threads = [
        threading.Thread(target=lambda: pids.append(host.use(specs[0]).pid)) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(pids) == 20
    assert len(set(pids)) == 1
    loaded = host.loaded
    assert loaded is not None
    assert loaded.pid == pids[0]
    assert loaded.spec == specs[0]
    assert loaded.info.context == 8192
    assert loaded.load_seconds > 0
    assert abs(loaded.loaded_at - time.time()) < 60


def test_never_two_models_are_in_memory(host: EngineHost, specs) -> None:
    first = host.use(specs[0])
    process = psutil.Process(first.pid)
    second = host.use(specs[1])
    assert not process.is_running()
    assert second.pid
    assert host.loaded.spec == specs[1]
    # Who still holds the first worker is answered all the same, and now that one is loaded.
    assert "".join(d.text for d in first.stream(QUESTION, GREEDY)) == RECITED
    assert second.pid is None
    assert host.loaded.spec == specs[0]


def test_another_model_waits_for_the_answer_being_written(host: EngineHost, specs) -> None:
    answer = host.use(specs[0]).stream(QUESTION, replace(LONG, max_tokens=3000))
    _first_text(answer)
    other = threading.Thread(target=host.use, args=(specs[1],))
    other.start()
    deltas = list(answer)
    assert deltas[-1].stats.answer_tokens == 3000
    other.join(30)
    assert host.loaded.spec == specs[1]


def test_unload_waits_for_the_answer_being_written(host: EngineHost, specs) -> None:
    answer = host.use(specs[0]).stream(QUESTION, LONG)
    _first_text(answer)
    unloading = threading.Thread(target=host.unload)
    unloading.start()
    assert next(answer).stats is None
    assert host.loaded is not None
    assert host.busy
    answer.close()
    unloading.join(30)
    assert host.loaded is None
    assert not host.busy


def test_an_idle_model_is_unloaded_and_a_used_one_stays(host: EngineHost, specs) -> None:
    host.use(specs[0])
    assert not host.unload_idle(0)
    assert not host.unload_idle(30)
    answer = host.use(specs[0]).stream(QUESTION, LONG)
    _first_text(answer)
    assert not host.unload_idle(1e-9)
    answer.close()
    assert host.unload_idle(1e-9)
    assert host.loaded is None


def test_close_ends_every_process_also_in_the_middle_of_an_answer(specs) -> None:
    host = EngineHost()
    answer = host.use(specs[0]).stream(QUESTION, LONG)
    _first_text(answer)
    host.extractive().load()
    pids = [host.loaded.pid, host.extractive().pid]
    host.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    answer.close()


def _first_text(stream) -> None:
    for delta in stream:
        if delta.text:
            return
