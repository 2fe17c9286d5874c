"""What a child that opens files from outside may take before it ends itself."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator

import psutil

log = logging.getLogger(__name__)

MEMORY_BYTES = 1_000_000_000
"""What one file may take beyond what the child takes at rest."""

TICK_SECONDS = 0.25


@contextlib.contextmanager
def watched(sign_of_life: Callable[[], None] | None = None) -> Iterator[None]:
    """Signs of life while the block runs, and an end by our own hand when memory runs away."""
    done = threading.Event()
    process = psutil.Process()
    allowed = process.memory_info().rss + MEMORY_BYTES

    def watch() -> None:
        while not done.wait(TICK_SECONDS):
            if process.memory_info().rss > allowed:
                os._exit(99)
            if sign_of_life:
                sign_of_life()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def limit_memory() -> None:
    """A hard limit on address space where the system has one; elsewhere `watched` is the limit.

    Call it once the libraries that read the files are loaded: it counts from here on.
    """
    if sys.platform != "linux":
        return
    import resource

    # The threads of `serve` and the watch reserve stacks and arenas that are never used.
    allowed = psutil.Process().memory_info().vms + MEMORY_BYTES + 300_000_000
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
