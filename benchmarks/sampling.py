"""What the background sampler costs: processor time a sample, with 0 and with 8 made-up graphics cards.

    python -m benchmarks.sampling [--samples 300]

The real thread's work, a sample a second with everything that falls into those seconds; NVML answers in
Python here, so the 8 cards count our part of the work and not the driver's.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from chatbot.hardware import monitor as monitor_module
from chatbot.hardware.monitor import Monitor
from tests.fakes import Card, fake_pynvml, pc


def seconds_a_sample(cards: Sequence[Card], samples: int) -> float:
    """Processor seconds of this thread; the questions that are seldom asked come every fifth time."""
    sys.modules["pynvml"] = fake_pynvml(cards)
    monitor = Monitor()
    monitor.latest()
    start = time.thread_time()
    for number in range(samples):
        if number % int(monitor_module.SELDOM) == 0:
            monitor._seldom_at = float("-inf")
        monitor._take()
    return (time.thread_time() - start) / samples


def main() -> None:
    """Print one line for each PC."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=300)
    samples = parser.parse_args().samples
    for name in ("none", "laptop", "eight"):
        cards = pc(name)
        cost = seconds_a_sample(cards, samples)
        print(f"{len(cards)} cards: {1e3 * cost:.2f} ms a sample = {100 * cost:.2f} % of a core")
    loaded = {"torch", "llama_cpp", "cupy", "numba", "altair"} & set(sys.modules)
    print(f"libraries that could open a GPU: {', '.join(sorted(loaded)) or 'none loaded'}")


if __name__ == "__main__":
    main()
