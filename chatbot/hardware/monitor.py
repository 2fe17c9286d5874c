"""Live samples of this PC, kept for an hour, taken by one background thread.

The thread asks psutil and the graphics drivers once a second; it creates no CUDA context and knows
nothing of pages. The last five minutes are kept second by second, the hour as means of ten seconds.
What costs milliseconds (which processes are Hearth's, the disk's room, Apple's GPU) is asked every few
seconds only.
"""

from __future__ import annotations

import contextlib
import logging
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from chatbot.hardware.amd import amd_gpus
from chatbot.hardware.apple import gpu_load
from chatbot.hardware.detect import (
    CpuLoad,
    apple_gpu,
    existing,
    on_apple_silicon,
    within_container,
)
from chatbot.hardware.nvidia import nvidia_gpus
from chatbot.hardware.process import largest, part_of
from chatbot.settings import Paths
from chatbot.types import Gpu

log = logging.getLogger(__name__)

KEPT = 300
"""Single samples, five minutes of them."""
STEP = 10
KEPT_MEANS = 360
"""Means of ten samples, an hour of them."""
SELDOM = 5.0
"""Seconds between questions that cost milliseconds; the others cost microseconds."""

OTHERS, OTHERS_SECONDS = 5, 10.0
"""How many other programs are named, and how seldom: only while somebody looks, for all are asked."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment: percent of the CPU and of each core, bytes, bytes a second, each GPU as its driver tells.

    `hearth` is the resident memory of Hearth and its child processes; `gpus` carry Hearth's own share.
    Apple's GPU has no memory of its own: it shares the RAM. `parts` says which part of Hearth holds how much
    (`process.part_of`).
    """

    at: float
    cpu: float
    ram_total: int
    ram_available: int
    hearth: int
    swap_used: int
    gpus: tuple[Gpu, ...] = ()
    cores: tuple[float, ...] = ()
    swap_total: int = 0
    disk_total: int = 0
    disk_free: int = 0
    disk_read: float = 0.0
    disk_written: float = 0.0
    parts: tuple[tuple[str, int], ...] = ()

    @property
    def ram_used(self) -> int:
        return self.ram_total - self.ram_available


class Monitor:
    """Keeps the last hour of samples; every method may be called from any thread."""

    def __init__(
        self,
        interval: float = 1.0,
        keep: int = KEPT,
        *,
        keep_means: int = KEPT_MEANS,
        data: Path | None = None,
    ) -> None:
        """Nothing runs until `start`. `interval` is in seconds; `data` is the folder whose disk counts."""
        self._interval = interval
        self._samples: deque[Sample] = deque(maxlen=keep)
        self._means: deque[Sample] = deque(maxlen=keep_means)
        self._since_mean: list[Sample] = []
        self._data = data or Paths.default().data
        self._taking = threading.Lock()
        self._looking = threading.Lock()
        self._others: list[tuple[str, int]] = []
        self._others_at = float("-inf")
        self._family: dict[int, psutil.Process] = {}
        self._parts: dict[int, str] = {}
        self._seldom_at = float("-inf")
        self._disk = (0, 0)
        self._apple_load: float | None = None
        self._cpu = CpuLoad()
        self._cores = _Rates()
        self._traffic = _Rates()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin sampling in the background; a second call changes nothing."""
        if self._thread is None:
            self._stopped.clear()
            self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread; the samples stay readable."""
        thread, self._thread = self._thread, None
        self._stopped.set()
        if thread is not None:
            thread.join()

    def latest(self) -> Sample:
        """The newest sample; one is taken now where there is none yet."""
        return self._samples[-1] if self._samples else self._take()

    def series(self, seconds: float = 300) -> list[Sample]:
        """The last `seconds`, oldest first: single samples as far as they go back, before them means."""
        since = time.time() - seconds
        single, means = list(self._samples), list(self._means)
        oldest = single[0].at if single else float("inf")
        older = [sample for sample in means if sample.at < oldest]
        return [sample for sample in (*older, *single) if sample.at >= since]

    def others(self, count: int) -> list[tuple[str, int]]:
        """Other programs that hold most main memory and the bytes; at most OTHERS_SECONDS old."""
        with self._looking:
            if time.monotonic() - self._others_at > OTHERS_SECONDS:
                self._others_at = time.monotonic()
                self._others = largest(OTHERS, besides=self._family)
            return self._others[:count]

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            try:
                self._take()
            except (psutil.Error, OSError) as error:  # one odd second must not end the hour
                log.warning("no sample: %s", error)

    def _take(self) -> Sample:
        with self._taking:
            if time.monotonic() - self._seldom_at > SELDOM:
                self._ask_seldom()
            memory, swap = psutil.virtual_memory(), psutil.swap_memory()
            total, available = within_container(memory.total, memory.available)
            read, written = self._disk_traffic()
            parts = self._resident()
            sample = Sample(
                at=time.time(),
                cpu=self._cpu.percent(),
                cores=self._core_loads(),
                ram_total=total,
                ram_available=available,
                hearth=sum(parts.values()),
                parts=tuple(parts.items()),
                swap_used=swap.used,
                swap_total=swap.total,
                disk_total=self._disk[0],
                disk_free=self._disk[1],
                disk_read=read,
                disk_written=written,
                gpus=self._gpus(total, available),
            )
            self._samples.append(sample)
            self._since_mean.append(sample)
            if len(self._since_mean) == STEP:
                self._means.append(mean(self._since_mean))
                self._since_mean = []
            return sample

    def _ask_seldom(self) -> None:
        self._seldom_at = time.monotonic()
        own = psutil.Process()
        self._family = {p.pid: p for p in (own, *own.children(recursive=True))}
        known = {**self._parts, own.pid: "app"}
        self._parts = {pid: known.get(pid) or part_of(p) for pid, p in self._family.items()}
        disk = psutil.disk_usage(str(existing(self._data)))
        self._disk = (disk.total, disk.free)
        if on_apple_silicon():
            self._apple_load = gpu_load()

    def _gpus(self, total: int, available: int) -> tuple[Gpu, ...]:
        if on_apple_silicon():
            return (replace(apple_gpu(total, available), load=self._apple_load),)
        return (*nvidia_gpus(self._family, gently=True), *amd_gpus(self._family))

    def _resident(self) -> Counter[str]:
        """Bytes that each part of Hearth holds."""
        held: Counter[str] = Counter()
        for pid, process in self._family.items():
            with contextlib.suppress(psutil.Error):  # it ended since the last walk
                held[self._parts[pid]] += process.memory_info().rss
        return held

    def _core_loads(self) -> tuple[float, ...]:
        times = psutil.cpu_times(percpu=True)
        idle = self._cores.per_second([t.idle + getattr(t, "iowait", 0) for t in times])
        return tuple(round(min(max(100 * (1 - share), 0.0), 100.0), 1) for share in idle)

    def _disk_traffic(self) -> tuple[float, float]:
        """Bytes a second, read and written, of all disks; zeros where the system does not count them."""
        counted = psutil.disk_io_counters()
        rates = self._traffic.per_second(
            [counted.read_bytes, counted.write_bytes] if counted else [0, 0]
        )
        return (max(rates[0], 0.0), max(rates[1], 0.0)) if rates else (0.0, 0.0)


class _Rates:
    """What counters grew by, a second, since they were asked last; nothing the first time."""

    def __init__(self) -> None:
        self._at = 0.0
        self._values: list[float] = []

    def per_second(self, values: Sequence[float]) -> list[float]:
        before, at = self._values, self._at
        self._values, self._at = list(values), time.monotonic()
        passed = self._at - at
        if len(before) != len(values) or passed <= 0:
            return []
        return [(new - old) / passed for old, new in zip(before, values, strict=True)]


def mean(samples: Sequence[Sample]) -> Sample:
    """The last of these samples, its loads and rates being the mean of all."""
    last = samples[-1]
    cores = [sample.cores for sample in samples if len(sample.cores) == len(last.cores)]

    def of_gpu(gpu: Gpu) -> Gpu:
        same = [g for s in samples for g in s.gpus if g.key == gpu.key]
        return replace(
            gpu,
            load=_middle([g.load for g in same]),
            power=_middle([g.power for g in same]),
            programs=(),  # of the moment only
        )

    return replace(
        last,
        cpu=statistics.fmean(s.cpu for s in samples),
        cores=tuple(statistics.fmean(each) for each in zip(*cores, strict=True)),
        disk_read=statistics.fmean(s.disk_read for s in samples),
        disk_written=statistics.fmean(s.disk_written for s in samples),
        gpus=tuple(of_gpu(gpu) for gpu in last.gpus),
    )


def _middle(values: Sequence[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return statistics.fmean(told) if told else None
