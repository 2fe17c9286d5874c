"""How near the speed estimate comes: `python -m benchmarks.speed_estimate [GGUF…] [--rounds N]`.

Models (by default one of random weights, F16) are decoded by llama.cpp with nothing around it, in turn with
the quick benchmark's way of reading memory. Shown is the share of the memory's speed that decoding reaches:
tokens × bytes of weights ÷ bytes read. One thread and processor seconds by default, so that other work on
the PC matters little. The figures chose `REACHED` in chatbot/memory/speed.py.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from benchmarks.decode import Direct
from benchmarks.random_model import random_gguf
from chatbot.hardware.speeds import READ_BYTES
from chatbot.memory.headers import read_model

TOKENS = 24


def read_speed() -> float:
    """Bytes that one core reads in a second of its time."""
    block = np.ones(READ_BYTES // 4, dtype=np.float32)
    start = time.thread_time()
    np.dot(block, block)
    return block.nbytes / (time.thread_time() - start)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("gguf", nargs="*", type=Path)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    for file in chosen.gguf or [random_gguf()]:
        weights = read_model(file).size
        model = Direct(file, 1)
        model.write(TOKENS)
        shares = []
        for _ in range(chosen.rounds):
            memory, written = read_speed(), model.write(TOKENS)[1]
            shares.append(written * weights / memory)
            print(
                f"{weights / 1e6:7.0f} MB  {written:5.1f} tokens"
                f"  memory {memory / 1e9:5.1f} GB a second  reached {shares[-1]:.2f}",
                flush=True,
            )
        print(f"{file.name}: median {statistics.median(shares):.2f}")


if __name__ == "__main__":
    main()
