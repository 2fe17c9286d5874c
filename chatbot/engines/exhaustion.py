"""Telling that memory ran out from everything else that can end an engine, and what came back then."""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Callable
from types import TracebackType

from chatbot.errors import MemoryPhase, MemoryPlace
from chatbot.hardware.nvidia import nvidia_gpus
from chatbot.hardware.pressure import pressure, programs_ended

LOOK_SECONDS = 0.25
GPU_LOOKS = 8
"""Every how many looks the graphics cards are asked too."""
GONE_SECONDS = 2.0

# What C++, the C library, llama.cpp, torch, CUDA, Metal, Rust and Windows say then.
_WORDS = re.compile(
    r"out of memory|bad_alloc|MemoryError|[Cc]annot allocate memory|can't allocate memory|not enough memory"
    r"|failed to allocate|unable to allocate|allocation failed|ALLOC_FAILED|[Ii]nsufficient [Mm]emory"
    r"|OutOfMemory|memory allocation of \d+ bytes failed|[Nn]ot enough (?:main )?memory|paging file is too small"
    r"|Resource temporarily unavailable.*thread|NO_MEMORY",
)
_ON_GPU = re.compile(r"CUDA|cuda|CUBLAS|HIP|ROCm|Metal|MTL|MPS|Vulkan|GPU")
# STATUS_NO_MEMORY and STATUS_COMMITMENT_LIMIT, as Windows tells them and as a signed number.
_WINDOWS_EXITS = frozenset(
    f"exit {code}" for status in (0xC0000017, 0xC000012D) for code in (status, status - (1 << 32))
)
_KILLED = frozenset(["SIGKILL", "SIGTERM"])
"""How the system's guards end programs: the kernel, systemd-oomd, earlyoom, macOS's jetsam."""
_CRASHED = frozenset(["SIGABRT", "SIGSEGV", "SIGBUS", "SIGTRAP", "SIGILL", "exit 1", "exit 3"])
"""How programs end that got no memory and did not ask why."""


def names_memory(text: str) -> bool:
    """Whether an error message says that memory ran out."""
    return bool(_WORDS.search(text))


def place_of(text: str) -> MemoryPlace:
    """Whose memory an error message complains of: the graphics card's where it names one."""
    return "gpu" if _ON_GPU.search(text) else "ram"


class Witness:
    """Looks at the memory while an engine loads or answers, to tell afterwards what happened.

    `phase` is what the engine was doing; whoever reads its stream moves it on.
    """

    def __init__(
        self, pid: Callable[[], int | None], phase: MemoryPhase, *, gpus: bool = False
    ) -> None:
        self.phase = phase
        self._pid = pid
        self._gpus = gpus
        self._done = threading.Event()
        self._ended_before = programs_ended()
        self._last = pressure(gpus=gpus)
        self._most = self._last.used
        self._gpu_most = self._last.gpu_used
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()

    def look(self, *, gpus: bool = True) -> None:
        """See how it stands now."""
        pid = self._pid()
        seen = pressure(pid, gpus=gpus and self._gpus)
        if pid is not None:
            self._last = seen  # of a process that has ended nothing could be said any more
        self._most = max(self._most, seen.used)
        if seen.gpu_used is not None:
            self._gpu_most = max(self._gpu_most or 0, seen.gpu_used)

    def ran_out(self, ending: str, said: str) -> bool:
        """Whether a process that ended like this, with these last words, did so for want of memory."""
        if ending in _WINDOWS_EXITS or ending == os.strerror(errno.ENOMEM) or names_memory(said):
            return True
        if ending in _KILLED and programs_ended() > self._ended_before:
            return True
        return ending in _KILLED | _CRASHED and self._last.short

    def freed(self, pid: int | None) -> dict[str, list[int]]:
        """Bytes in use at most and now, in 'ram' and 'gpu'; waits until the graphics card let that process go."""
        if self._gpus and pid is not None:
            _await_gone(pid)
        after = pressure(gpus=self._gpus)
        found = {"ram": [self._most, after.used]}
        if self._gpu_most is not None and after.gpu_used is not None:
            found["gpu"] = [self._gpu_most, after.gpu_used]
        return found

    def _watch(self) -> None:
        looks = 0
        while not self._done.wait(LOOK_SECONDS):
            looks += 1
            self.look(gpus=looks % GPU_LOOKS == 0)


def _await_gone(pid: int) -> None:
    """Until no card names that process any more; some drivers need a moment after its end."""
    deadline = time.monotonic() + GONE_SECONDS
    while time.monotonic() < deadline:
        named = {program.pid for card in nvidia_gpus() for program in card.programs}
        if pid not in named:
            return
        time.sleep(0.05)
