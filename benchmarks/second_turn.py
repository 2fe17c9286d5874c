"""What the second turn of a conversation costs when the first has been read already.

    python -m benchmarks.second_turn [GGUF] [--threads N]

One worker answers a long first question and then a short second one; another, fresh worker is asked the
second one at once and has to read everything.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.random_model import random_gguf
from chatbot.engines.base import EngineSpec
from chatbot.engines.worker import EngineWorker
from chatbot.types import GenerationOptions, GenerationStats, Turn

FIRST = [Turn("system", "w1 w2 w3 w4 w5 " * 20), Turn("user", "w6 w7 w8 w9 " * 120)]
SECOND = Turn("user", "w10 w11 w12 w13 " * 15)
OPTIONS = GenerationOptions(temperature=0.8, seed=1, max_tokens=48)


def ask(worker: EngineWorker, turns: list[Turn]) -> tuple[str, GenerationStats]:
    """The answer and what it cost."""
    deltas = list(worker.stream(turns, OPTIONS))
    stats = deltas[-1].stats
    assert stats is not None
    return "".join(delta.text for delta in deltas), stats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", nargs="?", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    spec = EngineSpec(
        "llama_cpp", path=str(asked.gguf or random_gguf()), context=4096, threads=asked.threads
    )
    worker, fresh = EngineWorker(spec), EngineWorker(spec)
    text, first = ask(worker, FIRST)
    conversation = [*FIRST, Turn("assistant", text), SECOND]
    _, second = ask(worker, conversation)
    _, anew = ask(fresh, conversation)
    worker.close()
    fresh.close()
    read = second.prompt_tokens - second.cached_tokens
    known = first.prompt_tokens + first.answer_tokens
    print(f"first turn: {first.prompt_tokens} tokens read, {first.answer_tokens} written")
    print(
        f"second turn: {second.prompt_tokens} tokens, {read} read again or new; "
        f"{second.prompt_tokens - known} of them were not there before"
    )
    print(
        f"time to first token: {second.seconds_to_first_token:.2f} s, "
        f"from scratch {anew.seconds_to_first_token:.2f} s, "
        f"ratio {second.seconds_to_first_token / anew.seconds_to_first_token:.3f}"
    )


if __name__ == "__main__":
    main()
