"""What the measurement of threads, batch and attention chooses here, and what it gains.

    python -m benchmarks.tuning [GGUF] [--rounds 2]

Each round loads the model in a worker and measures it as Hearth does after a first answer. `plain` is the
usual way: as many threads as physical cores, 512 tokens at once, no flash attention.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.random_model import random_gguf
from chatbot.engines.base import EngineSpec
from chatbot.engines.worker import EngineWorker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    worker = EngineWorker(
        EngineSpec("llama_cpp", path=str(asked.gguf or random_gguf()), context=1024)
    )
    worker.load()
    for _ in range(asked.rounds):
        tuned = worker.tune()
        if tuned is None:
            print("other programs keep the processor busy: nothing was measured", flush=True)
            continue
        print(
            f"{tuned.threads} threads write, {tuned.threads_batch} read, {tuned.batch} tokens at once, flash"
            f" attention {'on' if tuned.flash else 'off'}: reads {tuned.prefill:.1f} tokens/s (plain"
            f" {tuned.plain_prefill:.1f}), writes {tuned.decode:.2f} (plain {tuned.plain_decode:.2f});"
            f" measured in {tuned.seconds:.1f} s",
            flush=True,
        )
    worker.close()


if __name__ == "__main__":
    main()
