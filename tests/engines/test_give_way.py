"""How many threads an answer takes beside other programs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import namedtuple

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.engines.base import EngineSpec
from chatbot.engines.give_way import GivingWay, OtherPrograms, threads_beside

BUSY = "while True: pass"


@pytest.mark.parametrize(
    ("busy", "now", "most", "cores", "threads"),
    [
        ((0.0, 0.0), 2, 2, 2, 2),  # alone
        ((0.1, 0.3), 2, 2, 2, 2),  # a page is being drawn
        ((0.0, 0.7), 2, 2, 2, 1),  # another program shares one of two cores
        ((1.0, 1.0), 1, 2, 2, 1),  # and keeps it
        ((1.0, 0.0), 1, 2, 2, 1),  # it may only be waiting for its disk
        ((0.0, 0.1), 1, 2, 2, 2),  # it has ended
        ((0.5, 0.55), 1, 2, 2, 1),  # between the two marks nothing changes
        ((0.5, 0.55), 2, 2, 2, 2),
        ((0.3, 0.4), 1, 2, 2, 2),  # a page that is drawn is no reason to stay behind
        ((3.0, 3.0), 8, 8, 16, 8),  # cores enough for both
        ((9.8, 9.8), 8, 8, 16, 6),
        ((16.0, 16.0), 8, 8, 16, 1),
        ((0.9,), 2, 2, 2, 1),  # fewer after one look,
        ((0.0,), 1, 2, 2, 1),  # more only after two
        ((), 2, 2, 2, 2),
    ],
)
def test_one_thread_for_each_core_that_others_leave(busy, now, most, cores, threads):
    assert threads_beside(busy, now, most, cores) == threads


@given(
    st.lists(st.floats(0, 70), min_size=1, max_size=2),
    st.integers(1, 64),
    st.integers(1, 64),
    st.integers(1, 64),
)
def test_always_one_thread_never_more_than_wanted_and_at_rest_after_one_change(
    busy, now, most, cores
):
    threads = threads_beside(busy, min(now, most), most, cores)
    assert 1 <= threads <= most
    assert threads_beside(busy, threads, most, cores) == threads


def test_what_runs_at_the_lowest_priority_does_not_count_and_what_this_process_does_neither(
    monkeypatch: pytest.MonkeyPatch,
):
    Times = namedtuple("Times", "user nice system idle iowait softirq steal")
    seconds = {
        "clock": 100.0,
        "own": 5.0,
        "processors": [Times(10, 0, 2, 50, 0, 0, 0), Times(20, 0, 2, 40, 0, 0, 0)],
    }
    monkeypatch.setattr("chatbot.engines.give_way._processors", lambda: seconds["processors"])
    monkeypatch.setattr("chatbot.engines.give_way.time.monotonic", lambda: seconds["clock"])
    monkeypatch.setattr("chatbot.engines.give_way.time.process_time", lambda: seconds["own"])
    monkeypatch.setattr("chatbot.engines.give_way.sys.platform", "linux")
    others = OtherPrograms()
    # Two seconds on: 1.5 of this process, 1.3 of a job at nice 19, 0.6 of others, and a wait for the disk.
    seconds["clock"], seconds["own"] = 102.0, 6.5
    seconds["processors"] = [
        Times(11.4, 0, 2.1, 50.1, 0.4, 0, 0),
        Times(20.4, 1.3, 2.1, 40.2, 0, 0.05, 0.05),
    ]
    assert others.busy() == pytest.approx(0.3)
    seconds["clock"] = 103.0  # nothing happened
    assert others.busy() == 0.0


@pytest.mark.skipif(os.name == "nt", reason="os.nice")
def test_where_the_system_does_not_tell_it_apart_hearths_lowest_work_is_counted(monkeypatch):
    monkeypatch.setattr(psutil, "IDLE_PRIORITY_CLASS", 19, raising=False)  # Windows' way, here
    monkeypatch.setattr("chatbot.engines.give_way.os.getppid", os.getpid)
    program = subprocess.Popen([sys.executable, "-c", f"import os; os.nice(19)\n{BUSY}"])
    try:
        assert _within(20, lambda: psutil.Process(program.pid).nice() == 19)
        others = OtherPrograms()
        first = others._lowest_seconds()
        assert program.pid in first
        assert _within(20, lambda: others._lowest_seconds()[program.pid] > first[program.pid])
    finally:
        program.kill()
        program.wait()
    assert _within(20, lambda: program.pid not in others._lowest_seconds())


def test_an_engine_is_told_to_use_fewer_threads_and_more_again(monkeypatch: pytest.MonkeyPatch):
    busy, told = [1.0], []
    monkeypatch.setattr("chatbot.engines.give_way.SECONDS", 0.01)
    monkeypatch.setattr(OtherPrograms, "busy", lambda _self: busy[0])
    monkeypatch.setattr("chatbot.engines.give_way._processors", lambda: [None] * 2)
    monkeypatch.setattr(OtherPrograms, "_look", lambda _self: None)
    with GivingWay(told.append, most=2):
        assert _within(5, lambda: told == [2, 1])
        busy[0] = 0.0
        assert _within(5, lambda: told == [2, 1, 2])
    busy[0] = 1.0
    time.sleep(0.05)
    assert told == [2, 1, 2]  # after its end nothing is told any more
    with GivingWay(told.append, most=2):
        assert told[3] == 2, "each answer begins with all threads"


def test_the_model_runs_on_so_many_threads_unless_a_person_chose_them(tiny_gguf):
    from chatbot.engines.llama_cpp import LlamaCpp

    def threads(engine: LlamaCpp) -> tuple[int, int]:
        c = engine.library
        return c.llama_n_threads(engine.context), c.llama_n_threads_batch(engine.context)

    def spec(**values) -> EngineSpec:
        return EngineSpec("llama_cpp", path=str(tiny_gguf), context=256, batch=64, **values)

    engine = LlamaCpp(spec(threads=3, threads_batch=4))
    try:
        assert threads(engine) == (3, 4)
        engine._run_on(2)
        assert threads(engine) == (2, 2)
        engine._run_on(4)
        assert threads(engine) == (3, 4)
    finally:
        engine.close()
    chosen = LlamaCpp(spec(threads=3, steady=True))
    try:
        with chosen._giving_way() as nobody:
            assert nobody is None
        assert threads(chosen) == (3, 3)
    finally:
        chosen.close()


def _within(seconds: float, condition) -> bool:
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.01)
    return True
