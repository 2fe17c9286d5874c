"""How many threads an answer takes while other programs keep the processor busy.

llama.cpp's threads wait for each other at every step of a token, spinning: where one of them shares its
core with another program, all wait for it. One busy core costs two threads on two cores two thirds of
their speed, and giving that core up only half (docs/benchmarks.md). What runs at the lowest priority,
as Hearth's own jobs do, gives way by itself and does not count.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import psutil

SECONDS = 0.25
"""Between two looks at the processor, while an answer is written."""
_LIST_SECONDS = 10.0
TAKEN, FREE = 0.6, 0.5
"""A core counts as taken from one share of its time, and as free again below the other: two threads on two
cores write faster than one until another program has 0.58 of a core (docs/decisions.md)."""


def threads_beside(busy: Sequence[float], now: int, most: int, cores: int) -> int:
    """How many threads to run while others keep that many cores busy, newest last; `now` run already.

    One thread for each core left over, at least one and at most `most`. Fewer at once, more only
    when the last two looks agree, so that a program that comes and goes does not set off a dance.
    """
    if not busy:
        return now

    def left(taken: float, from_share: float) -> int:
        return max(1, min(most, cores - int(taken + 1 - from_share)))

    fewer, more = left(busy[-1], TAKEN), left(max(busy[-2:]), FREE)
    if len(busy) < 2:
        more = now
    return fewer if now > fewer else max(now, more)


class GivingWay:
    """Looks at the processor in a thread of its own during one answer, and says when to run other threads.

    An answer begins with all of them: what kept the processor busy before it, its own question being
    searched for among that, is over.
    """

    def __init__(self, apply: Callable[[int], None], most: int) -> None:
        """`apply` is called in that thread with the number of threads to run from now on."""
        self._apply = apply
        self._most = self._now = most
        self._ended = threading.Event()
        apply(most)
        self._thread = threading.Thread(target=self._watch, name="giving way", daemon=True)
        self._thread.start()

    def __enter__(self) -> GivingWay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it; `apply` is not called any more afterwards."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        others, seen = OtherPrograms(), list[float]()
        while not self._ended.wait(SECONDS):
            seen = [*seen[-1:], others.busy()]
            threads = threads_beside(seen, self._now, self._most, others.cores)
            if threads != self._now:
                self._now = threads
                self._apply(threads)


class OtherPrograms:
    """How many of the cores this process may use are kept busy by others, between one look and the next."""

    def __init__(self) -> None:
        self.cores = len(_processors())
        self._lowest: list[psutil.Process] = []
        self._listed = -_LIST_SECONDS
        self._last = self._look()

    def busy(self) -> float:
        """Cores kept busy since the last time; what runs at the lowest priority does not count."""
        (at, all_, own, lowest), self._last = self._last, self._look()
        now, all_now, own_now, lowest_now = self._last
        not_counted = sum(seconds - lowest.get(pid, seconds) for pid, seconds in lowest_now.items())
        others = (all_now - all_) - (own_now - own) - not_counted
        return max(others, 0.0) / max(now - at, 1e-3)

    def _look(self) -> tuple[float, float, float, dict[int, float]]:
        """Seconds: of the clock, and of processor time of all, of this process and of the lowest ones."""
        every = sum(_working(times) for times in _processors())
        lowest = self._lowest_seconds() if sys.platform == "win32" else {}
        return time.monotonic(), every, time.process_time(), lowest

    def _lowest_seconds(self) -> dict[int, float]:
        """Processor seconds of Hearth's own work at the lowest priority, which Windows does not count apart."""
        if (
            time.monotonic() - self._listed >= _LIST_SECONDS
        ):  # going through all processes takes long
            self._listed = time.monotonic()
            self._lowest = _lowest()
        found = {}
        for process in self._lowest:
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                times = process.cpu_times()
                found[process.pid] = times.user + times.system
        return found


def _processors() -> list[Any]:
    """The times of each processor that this process may run on."""
    every = list(psutil.cpu_times(percpu=True))
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
        if max(allowed) < len(every):
            return [every[number] for number in sorted(allowed)]
    return every


def _working(times: Any) -> float:
    # 'nice' stands apart from 'user' where the system knows it.
    more = (getattr(times, name, 0.0) for name in ("irq", "softirq", "steal"))
    return float(times.user + times.system + sum(more))


def _lowest() -> list[psutil.Process]:
    """The processes of Hearth's that run at the lowest priority."""
    found = []
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(os.getppid()).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.nice() == psutil.IDLE_PRIORITY_CLASS:
                    found.append(process)
    return found
