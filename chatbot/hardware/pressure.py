"""How short of memory this PC, and one of its processes, is now."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from chatbot.hardware.detect import CONTROL_GROUPS, within_container
from chatbot.hardware.nvidia import nvidia_gpus

LEAST_SHARE, LEAST = 0.05, 128 << 20
"""Below a twentieth of the memory, or 128 MiB, the systems' own guards begin to end programs."""
FULL = 0.97
"""Share of a limited address space from which a large piece is no longer found in it."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """Bytes of main memory in use and free, of GPUs in use (None: not asked), and signs of shortage.

    `limited` says that the process has nearly filled the address space it may have.
    """

    used: int
    free: int
    total: int
    gpu_used: int | None
    limited: bool

    @property
    def short(self) -> bool:
        """Whether hardly anything is left, for all programs or for this one."""
        return self.limited or self.free < max(self.total * LEAST_SHARE, LEAST)


def pressure(pid: int | None = None, *, gpus: bool = False) -> Pressure:
    """Memory as it is now, with what limits that process; about 0.3 ms without `gpus`."""
    memory = psutil.virtual_memory()
    total, free = within_container(memory.total, memory.available)
    cards = nvidia_gpus() if gpus else ()
    return Pressure(
        used=total - free,
        free=free,
        total=total,
        gpu_used=sum(card.total - card.free for card in cards) if cards else None,
        limited=_limited(pid),
    )


def programs_ended() -> int:
    """How many programs Linux has ended for want of memory; only its growth means something."""
    if sys.platform != "linux":
        return 0
    return sum(_counter(file) for file in (Path("/proc/vmstat"), *_control_group_files()))


def _control_group_files() -> Iterator[Path]:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:  # version 2
            yield CONTROL_GROUPS / group.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            yield CONTROL_GROUPS / "memory" / group.lstrip("/") / "memory.oom_control"


def _counter(file: Path) -> int:
    try:
        lines = file.read_text().splitlines()
    except OSError:  # another layout, or a container that hides it
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _limited(pid: int | None) -> bool:
    if sys.platform != "linux" or pid is None:
        return False
    try:
        process = psutil.Process(pid)
        limit = process.rlimit(psutil.RLIMIT_AS)[0]
        return bool(limit > 0 and process.memory_info().vms >= FULL * limit)
    except (psutil.Error, OSError):
        return False
