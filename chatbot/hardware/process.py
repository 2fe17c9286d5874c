"""Processes: what this very one holds and held at most, asked from inside it, and what others are called."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import psutil

_PARTS = {
    "chatbot.engines": "model",
    "chatbot.library.index": "index",
    "chatbot.library": "documents",
}
"""The first that a module's name begins with."""


def resident() -> int:
    """Bytes of main memory that this process holds now."""
    return int(psutil.Process().memory_info().rss)


def peak(pid: int | None = None) -> int:
    """Bytes of main memory that this process, or that one, held at most since it began.

    Of another process, where the system keeps no peak, what it holds now; 0 when it is gone.
    """
    if (
        sys.platform == "linux"
    ):  # whose getrusage also counts what the parent held when it started us
        try:
            status = Path(f"/proc/{pid or 'self'}/status").read_text("ascii", errors="replace")
        except OSError:
            return 0
        told = re.search(r"VmHWM:\s+(\d+) kB", status)
        if told:
            return int(told[1]) << 10
    try:
        memory = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0
    if sys.platform == "darwin" and pid is None:
        import resource

        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return int(getattr(memory, "peak_wset", memory.rss))


def allocated_on_gpu() -> int | None:
    """Bytes that torch's allocator took from the GPU at most; None where torch is not used on one.

    Never the first to load torch or to touch the GPU.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    if torch.cuda.is_initialized():
        cards = range(torch.cuda.device_count())
        return int(sum(torch.cuda.max_memory_reserved(card) for card in cards))
    if torch.backends.mps.is_available():
        taken: int = torch.mps.driver_allocated_memory()
        return taken or None
    return None


def name_of(pid: int) -> str:
    """What that process is called; its number where that is not told."""
    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return f"PID {pid}"


def part_of(process: psutil.Process) -> str:
    """Which part of Hearth runs in that process: 'app', 'model', 'index', 'documents' or 'jobs'."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return "jobs"
    module = next((word for word in words[1:4] if word.startswith("chatbot.")), "")
    return next((part for start, part in _PARTS.items() if module.startswith(start)), "jobs")


def largest(count: int, besides: Collection[int] = ()) -> list[tuple[str, int]]:
    """The programs that hold most main memory, by name, and what all processes of that name hold.

    Memory that several of them share counts for each. Asking every process takes tens of milliseconds.
    """
    held: Counter[str] = Counter()
    for process in psutil.process_iter(["name", "memory_info"]):
        memory = process.info["memory_info"]
        if memory is not None and process.pid not in besides:
            held[process.info["name"] or f"PID {process.pid}"] += memory.rss - getattr(
                memory, "shared", 0
            )
    return held.most_common(count)


def give_back() -> None:
    """Return to the system what Python no longer uses."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not every C library has it
        if trim is not None:
            trim(0)


def physical_cores() -> int:
    """How many threads pay for work that keeps every core busy."""
    return psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
