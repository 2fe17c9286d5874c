from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from chatbot.hardware.monitor import Monitor
from tests.hardware.fake_pynvml import GIB, Card, fake_pynvml


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    running = Monitor(interval=0.01, keep=50)
    yield running
    running.stop()


def wait_until(condition: object, within: float = 10) -> None:
    deadline = time.monotonic() + within
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_there_is_a_sample_before_the_first_second_is_over() -> None:
    sample = Monitor().latest()
    assert 0 < sample.ram_used < sample.ram_total
    assert sample.hearth > 10_000_000  # this Python


def test_the_buffer_keeps_the_newest_and_no_more(monitor: Monitor) -> None:
    monitor.start()
    monitor.start()
    wait_until(lambda: len(monitor.series(3600)) == 50)
    first = monitor.series(3600)[0]
    wait_until(lambda: monitor.series(3600)[0].at > first.at)
    samples = monitor.series(3600)
    assert len(samples) == 50
    assert [s.at for s in samples] == sorted(s.at for s in samples)
    assert all(0 <= s.cpu <= 100 for s in samples)
    assert monitor.latest().at >= samples[-1].at
    assert [t.name for t in threading.enumerate()].count("monitor") == 1


def test_series_gives_only_the_window_asked_for(monitor: Monitor) -> None:
    monitor.latest()
    assert len(monitor.series(60)) == 1
    assert monitor.series(-1) == []


def test_stopping_ends_the_thread_and_keeps_the_samples(monitor: Monitor) -> None:
    monitor.start()
    wait_until(monitor.series)
    monitor.stop()
    assert "monitor" not in [thread.name for thread in threading.enumerate()]
    assert monitor.series()


def test_memory_of_children_counts_as_hearths() -> None:
    alone = Monitor().latest().hearth
    code = "import sys; block = b'x' * 60_000_000; print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert Monitor().latest().hearth > alone + 60_000_000


def test_a_gpus_memory_is_split_into_ours_and_others(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(processes=[(os.getpid(), 2 * GIB), (1, GIB)])
    monkeypatch.setitem(
        sys.modules, "pynvml", fake_pynvml([card, Card(processes=[(os.getpid(), None)])])
    )
    first, second = Monitor().latest().gpus
    assert first.used_by_hearth == 2 * GIB
    assert second.used_by_hearth is None


def test_a_card_that_vanishes_does_not_end_the_sampling(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card()
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml([card]))
    monitor.start()
    wait_until(lambda: monitor.series() and monitor.latest().gpus)
    card.vanished = True
    wait_until(lambda: not monitor.latest().gpus)


def test_sampling_each_second_costs_under_one_percent_of_a_core() -> None:
    monitor = Monitor()
    monitor.latest()
    before = time.thread_time()
    for _ in range(30):  # thirty seconds' worth, with the walks that fall into them
        monitor._take()
    for _ in range(6):
        monitor._family_at = float("-inf")
        monitor._take()
    assert (time.thread_time() - before) / 30 < 0.01
