from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from benchmarks.sampling import seconds_a_sample
from chatbot.hardware import amd, apple, nvidia
from chatbot.hardware import monitor as monitor_module
from chatbot.hardware.monitor import STEP, Monitor, mean
from chatbot.hardware.process import largest
from chatbot.hardware.samples_file import csv_of
from chatbot.types import Gpu
from tests.fakes import GIB, AmdCard, Card, environment, fake_amdsmi, fake_pynvml, pc


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    running = Monitor(interval=0.01, keep=50, keep_means=10)
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
    # Fifty single samples, and before them the means that reach further back.
    wait_until(lambda: len(monitor.series(3600)) > 50)
    first = monitor.series(3600)[0]
    wait_until(lambda: monitor.series(3600)[0].at > first.at)
    samples = monitor.series(3600)
    assert len(samples) <= 50 + 10
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


def test_an_hour_is_kept_as_means_of_ten_samples() -> None:
    monitor = Monitor(keep=STEP, keep_means=3)
    for _ in range(6 * STEP):
        monitor._take()
    samples = monitor.series(3600)
    # Three means are kept; the newest one stands for the single samples that are still there.
    assert len(samples) == STEP + 2
    assert [s.at for s in samples] == sorted(s.at for s in samples)


def test_a_mean_is_the_mean_of_loads_and_the_end_of_everything_else() -> None:
    sample = Monitor().latest()
    gpu = Gpu(0, "card", "cuda", 8 * GIB, 4 * GIB, load=20.0, temperature=50.0)
    first = replace(sample, cpu=10.0, cores=(0.0, 20.0), ram_available=1, gpus=(gpu,))
    last = replace(
        sample, cpu=30.0, cores=(40.0, 20.0), ram_available=2, gpus=(replace(gpu, load=60.0),)
    )
    found = mean([first, replace(first, gpus=()), last])
    assert found.cpu == pytest.approx(50 / 3)
    assert found.cores == pytest.approx((40 / 3, 20.0))
    assert found.ram_available == 2
    assert found.gpus[0].load == 40.0, "where the card was away it counts as nothing, not as zero"


def test_cores_swap_and_disk_are_told(tmp_path: object) -> None:
    monitor = Monitor()
    monitor._take()
    assert sum(range(300_000)) > 0  # some work between the two
    sample = monitor._take()
    assert sample.cores
    assert all(0 <= load <= 100 for load in sample.cores)
    assert 0 < sample.disk_free <= sample.disk_total
    assert sample.swap_used <= sample.swap_total
    assert sample.disk_read >= 0 <= sample.disk_written


@pytest.mark.parametrize("count", [0, 1, 2, 8])
def test_any_number_of_cards_full_of_others_programs(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = [
        Card(
            total=size * GIB, free=GIB // 4,
            processes=[(1, (size - 3) * GIB), (os.getpid(), 2 * GIB)],
            drawing=[(1, (size - 3) * GIB), (2, None)],
        )
        for size in (4, 6, 8, 12, 16, 24, 48, 80)[:count]
    ]  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml(cards))
    gpus = Monitor().latest().gpus
    assert [gpu.total for gpu in gpus] == [card.total for card in cards]
    for gpu in gpus:
        assert gpu.used_by_hearth == 2 * GIB
        assert {(p.pid, p.ours) for p in gpu.programs} == {
            (1, False),
            (2, False),
            (os.getpid(), True),
        }
        assert gpu.programs[-1].memory is None, "the driver does not tell what that one holds"
        assert (gpu.pcie, gpu.clock, gpu.power_limit, gpu.cuda) == ((4, 8), 1980.0, 115.0, "13.0")


def test_an_amd_card_is_told_by_its_own_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        sys.modules, "amdsmi", fake_amdsmi([AmdCard(processes=[(7, 3 * GIB), (8, GIB)])])
    )
    amd._library.cache_clear()
    try:
        (gpu,) = amd.amd_gpus({7})
    finally:
        monkeypatch.undo()
        amd._library.cache_clear()
    assert (gpu.name, gpu.kind) == ("Radeon RX 7900 XT", "rocm")
    assert (gpu.total, gpu.free) == (20 * GIB, 15 * GIB)
    assert (gpu.load, gpu.temperature, gpu.power, gpu.clock) == (35.0, 48.0, 90.0, None)
    assert (gpu.used_by_hearth, gpu.pcie) == (3 * GIB, (4, 16))
    assert (gpu.power_limit, gpu.bus) == (300.0, "0000:03:00.0")


def test_apples_gpu_shares_the_memory_and_tells_its_load(monkeypatch: pytest.MonkeyPatch) -> None:
    told = """<?xml version="1.0"?><plist version="1.0"><array><dict><key>PerformanceStatistics</key>
        <dict><key>Device Utilization %</key><integer>42</integer></dict></dict></array></plist>"""
    monkeypatch.setattr(apple, "IOREG", (sys.executable, "-c", f"print({told!r})"))
    monkeypatch.setattr(monitor_module, "on_apple_silicon", lambda: True)
    sample = Monitor().latest()
    (gpu,) = sample.gpus
    assert (gpu.kind, gpu.load, gpu.power) == ("mps", 42.0, None)
    assert gpu.total <= sample.ram_total
    monkeypatch.setattr(apple, "IOREG", ("no such program",))
    assert Monitor().latest().gpus[0].load is None


def test_the_samples_become_a_table_with_gaps_where_a_card_was_away() -> None:
    sample = replace(Monitor().latest(), cores=(5.0, 7.25))
    gpu = Gpu(0, "card", "cuda", 8 * GIB, 4 * GIB, load=20.0)
    head, with_card, without = csv_of([replace(sample, gpus=(gpu,)), sample]).splitlines()
    columns = head.split(",")
    assert len(columns) == len(with_card.split(",")) == len(without.split(","))
    row = dict(zip(columns, with_card.split(","), strict=True))
    assert row["cuda_0_load"] == "20.0"
    assert row["cuda_0_power"] == ""
    assert row["core_1"] == "7.2"
    assert dict(zip(columns, without.split(","), strict=True))["cuda_0_total"] == ""


@pytest.mark.parametrize("name", ["none", "eight"])
def test_no_library_that_could_open_a_gpu_is_loaded(name: str, tmp_path: Path) -> None:
    code = (
        "import sys; from chatbot.hardware.monitor import Monitor; from pathlib import Path;"
        "gpus = Monitor().latest().gpus; maps = Path('/proc/self/maps');"
        "print(len(gpus), [m for m in ('torch', 'llama_cpp', 'cupy', 'numba') if m in sys.modules],"
        " maps.exists() and 'libcuda' in maps.read_text())"
    )
    made_up = {**os.environ, **environment(tmp_path / "cards.json", pc(name))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=made_up
    )
    assert done.stdout.strip() == f"{len(pc(name))} [] False"


@pytest.mark.parametrize("name", ["none", "eight"])
def test_sampling_each_second_costs_under_one_percent_of_a_core(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml(pc(name)))
    assert seconds_a_sample(pc(name), 30) < 0.01


def test_the_parts_of_hearth_are_told_apart() -> None:
    code = "import sys; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "chatbot.engines.worker"], stdin=subprocess.PIPE
    ):
        monitor = Monitor()
        wait_until(
            lambda: monitor._take() and {"app", "model"} <= dict(monitor.latest().parts).keys()
        )
        sample = monitor.latest()
    assert sample.hearth == sum(held for _, held in sample.parts)


def test_other_programs_are_named_and_ours_are_not_among_them() -> None:
    monitor = Monitor()
    code = "import sys; block = b'x' * 300_000_000; print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        everything = dict(largest(50))
        besides = dict(largest(50, besides={child.pid, os.getpid()}))
        monitor.latest()
    name = psutil.Process().name()
    assert everything[name] > besides.get(name, 0) + 250_000_000
    assert len(monitor.others(3)) <= 3
    assert all(isinstance(who, str) and held >= 0 for who, held in monitor.others(3))


def test_it_ends_no_hour_when_a_card_is_lost_and_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "REOPEN_SECONDS", 0.0)
    cards = pc("two")
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml(cards))
    monitor = Monitor()
    counted = []
    for _ in range(3 * STEP):
        cards[0].vanished = len(counted) % 3 == 1
        counted.append(len(monitor._take().gpus))
    assert set(counted) == {1, 2}
    head, *rows = csv_of(monitor.series(3600)).splitlines()
    first = head.split(",").index("cuda_0_name")
    second = head.split(",").index("cuda_1_name")
    assert {row.split(",")[first] for row in rows} == {"", cards[0].name}
    assert {row.split(",")[second] for row in rows} == {cards[1].name}, "each in its own column"
