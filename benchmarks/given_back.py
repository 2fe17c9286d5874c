"""How much of what a model took is free again once it is unloaded.

    python -m benchmarks.given_back [GGUF] [--rounds 3]

Hearth is opened on an empty folder, the model loaded, asked a question and unloaded. Measured each time:
what all of Hearth's processes hold together (PSS on Linux, shared pages counted once; resident bytes
elsewhere), and what the system calls available. Goal: 99 % of what was taken.
"""

from __future__ import annotations

import argparse
import gc
import re
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.random_model import random_gguf
from chatbot.ownership import own
from chatbot.services import Services
from chatbot.settings import Paths
from chatbot.types import GenerationOptions, Turn

SETTLED_SECONDS = 3.0


def held() -> int:
    """Bytes of this process and of all below it."""
    me = psutil.Process()
    return sum(_bytes_of(process) for process in (me, *me.children(recursive=True)))


def _bytes_of(process: psutil.Process) -> int:
    try:
        told = Path(f"/proc/{process.pid}/smaps_rollup").read_text("ascii")
    except OSError:
        try:
            return int(process.memory_info().rss)
        except psutil.Error:
            return 0
    found = re.search(r"^Pss:\s+(\d+) kB", told, re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def look() -> tuple[int, int]:
    """Bytes held by Hearth, and bytes that are available, once both have settled."""
    gc.collect()
    time.sleep(SETTLED_SECONDS)
    return held(), int(psutil.virtual_memory().available)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    file = asked.gguf or random_gguf()
    with tempfile.TemporaryDirectory(prefix="hearth given back ") as folder:
        services = Services(own(Paths(Path(folder))))
        services.start()
        try:
            job = services.workshop.take_in(file)
            services.jobs.wait(job.id, 600)
            services.wait_until_read()
            model = services.chat_models()[0]
            shares: list[float] = []
            for number in range(asked.rounds + 1):  # the first warms up: Hearth's helpers start
                before, free_before = look()
                engine = services.load_model(model.id)
                options = GenerationOptions(temperature=0, max_tokens=32)
                for _ in engine.stream([Turn("user", f"x{number} " + "w1 w2 " * 100)], options):
                    pass
                loaded, free_loaded = look()
                services.engines.unload()
                after, free_after = look()
                if not number:
                    continue
                shares.append((loaded - after) / (loaded - before))
                print(
                    f"held by Hearth: {before / 1e6:.0f} MB, loaded {loaded / 1e6:.0f}, unloaded"
                    f" {after / 1e6:.0f}: {shares[-1]:.2%} given back;"
                    f" available: {free_before / 1e6:.0f} MB, {free_loaded / 1e6:.0f},"
                    f" {free_after / 1e6:.0f}: {(free_after - free_loaded) / (free_before - free_loaded):.2%}",
                    flush=True,
                )
            print(f"given back: median {statistics.median(shares):.2%} of what Hearth took")
        finally:
            services.close()


if __name__ == "__main__":
    main()
