"""Live samples of this PC, kept for an hour, taken by one background thread.

The thread asks psutil and NVML once a second; it creates no CUDA context and knows nothing of pages.
Which processes are Hearth's is looked up only every few seconds, because that walks every process.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass

import psutil

from chatbot.hardware.detect import CpuLoad, within_container
from chatbot.hardware.nvidia import nvidia_gpus
from chatbot.types import Gpu

log = logging.getLogger(__name__)

KEPT = 3600
FAMILY_EVERY = 5.0  # seconds; walking every process costs milliseconds, reading one microseconds


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment: percent of the CPU, bytes, and each GPU as the driver tells it.

    `hearth` is the resident memory of Hearth and its child processes; `gpus` carry Hearth's own share.
    On Apple silicon `gpus` is empty: its one memory is the RAM.
    """

    at: float
    cpu: float
    ram_total: int
    ram_available: int
    hearth: int
    swap_used: int
    gpus: tuple[Gpu, ...] = ()

    @property
    def ram_used(self) -> int:
        return self.ram_total - self.ram_available


class Monitor:
    """Keeps the last hour of samples; every method may be called from any thread."""

    def __init__(self, interval: float = 1.0, keep: int = KEPT) -> None:
        """Nothing runs until `start`. `interval` is in seconds, `keep` in samples."""
        self._interval = interval
        self._samples: deque[Sample] = deque(maxlen=keep)
        self._taking = threading.Lock()
        self._family: dict[int, psutil.Process] = {}
        self._family_at = float("-inf")
        self._cpu = CpuLoad()
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
        """The samples of the last `seconds`, oldest first."""
        since = time.time() - seconds
        return [sample for sample in list(self._samples) if sample.at >= since]

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            try:
                self._take()
            except (psutil.Error, OSError) as error:  # one odd second must not end the hour
                log.warning("no sample: %s", error)

    def _take(self) -> Sample:
        with self._taking:
            memory = psutil.virtual_memory()
            total, available = within_container(memory.total, memory.available)
            resident = self._resident()
            sample = Sample(
                at=time.time(),
                cpu=self._cpu.percent(),
                ram_total=total,
                ram_available=available,
                hearth=resident,
                swap_used=psutil.swap_memory().used,
                gpus=nvidia_gpus(self._family),
            )
            self._samples.append(sample)
            return sample

    def _resident(self) -> int:
        if time.monotonic() - self._family_at > FAMILY_EVERY:
            own = psutil.Process()
            self._family = {p.pid: p for p in (own, *own.children(recursive=True))}
            self._family_at = time.monotonic()
        resident = 0
        for process in self._family.values():
            with contextlib.suppress(psutil.Error):  # it ended since the last walk
                resident += process.memory_info().rss
        return resident
