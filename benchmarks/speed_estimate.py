"""How near the speed estimate comes: `python -m benchmarks.speed_estimate [GGUF…] [--rounds N]`.

Models (by default one of random weights, F16) are decoded by llama.cpp with nothing around it, in turn with
the quick benchmark's way of reading memory. Shown is the share of the memory's speed that decoding reaches:
tokens × bytes of weights ÷ bytes read. One thread and processor seconds, so that other work on the PC matters
little. The figures chose `OF_A_CORE_…` in chatbot/memory/speed.py.

With `--threads N` (of a quiet PC) it ends with what the badge says, from the quick benchmark and the plan,
against what those threads write in a second of the clock.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from benchmarks.decode import Direct
from benchmarks.random_model import random_gguf
from chatbot.hardware.detect import detect
from chatbot.hardware.speeds import READ_BYTES, measure_speeds
from chatbot.memory.headers import read_model
from chatbot.memory.plan import Wishes, plan
from chatbot.memory.reading import read_per_token
from chatbot.memory.speed import tokens_per_second

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
    options.add_argument("--threads", type=int, default=0)
    chosen = options.parse_args()
    for file in chosen.gguf or [random_gguf()]:
        weights = read_per_token(read_model(file))["ram"]
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
        if chosen.threads:
            against_the_clock(file, chosen.threads, chosen.rounds)


def against_the_clock(file: Path, threads: int, rounds: int) -> None:
    """Print what the badge says and what is measured."""
    speeds = measure_speeds(on_gpu=False)
    wishes = Wishes(context=2048, threads=threads, gpu_layers=0)
    said = tokens_per_second(plan(detect(), read_model(file), wishes), speeds) or 0.0
    model = Direct(file, threads)
    written = max(model.write(TOKENS)[0] for _ in range(rounds))
    print(
        f"{file.name}, {threads} threads: predicted {said:.1f} tokens/s, measured {written:.1f}"
        f" ({100 * (said / written - 1):+.0f} %); memory {speeds.memory / 1e9:.1f} GB a second,"
        f" of one core {(speeds.core_memory or 0) / 1e9:.1f}"
    )


if __name__ == "__main__":
    main()
