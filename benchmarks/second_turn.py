"""What the second turn of a conversation costs when the first has been read already.

    python -m benchmarks.second_turn [GGUF] [--threads N] [--rounds N] [--known 1500] [--new 200]

One worker answers a long first question and then a second one of `--new` tokens; another worker, which
has read none of it, is asked the second one at once and reads everything. The ratio of the times to
the first token is bounded from below by the share of the tokens that are new. Goal: 0.16.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

from benchmarks.random_model import random_gguf
from chatbot.engines.base import EngineSpec
from chatbot.engines.worker import EngineWorker
from chatbot.hardware.process import physical_cores
from chatbot.types import GenerationOptions, GenerationStats, Turn

ANSWER = 6
"""Tokens; few, for what a random model writes takes more tokens when another one reads it."""
OPTIONS = GenerationOptions(temperature=0.8, seed=1, max_tokens=ANSWER, drafting=False)


def ask(worker: EngineWorker, turns: list[Turn]) -> tuple[str, GenerationStats]:
    """The answer and what it cost."""
    deltas = list(worker.stream(turns, OPTIONS))
    stats = deltas[-1].stats
    assert stats is not None
    return "".join(delta.text for delta in deltas), stats


def words_for(tokens: int, count: Callable[[str], int]) -> str:
    """Words that make up about so many tokens more."""
    empty, each = count(""), count("w1 w2 w3 w4 " * 10)
    return "w1 w2 w3 w4 " * max(1, round(10 * tokens / (each - empty)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", nargs="?", type=Path)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--known", type=int, default=1500)
    parser.add_argument("--new", type=int, default=200)
    asked = parser.parse_args()
    path = str(asked.gguf or random_gguf())
    spec = EngineSpec("llama_cpp", path=path, context=4096, threads=asked.threads, steady=True)
    worker, fresh = EngineWorker(spec), EngineWorker(spec)

    def count(text: str) -> int:
        return worker.count_tokens([Turn("user", text)])

    first_words = words_for(asked.known - ANSWER, count)
    second_words = words_for(asked.new, count)
    ratios = []
    for number in range(asked.rounds):
        opening = [Turn("system", f"x{number} {first_words}"), Turn("user", "w6 w7")]
        text, first = ask(worker, opening)
        conversation = [*opening, Turn("assistant", text), Turn("user", second_words)]
        _, second = ask(worker, conversation)
        _, anew = ask(fresh, conversation)
        read = second.prompt_tokens - second.cached_tokens
        known = first.prompt_tokens + first.answer_tokens
        ratios.append(second.seconds_to_first_token / anew.seconds_to_first_token)
        print(
            f"{known} tokens were there before, {second.prompt_tokens - known} are new, {read} were read:"
            f" {second.seconds_to_first_token:.2f} s; all {anew.prompt_tokens}, {anew.cached_tokens} of them"
            f" known: {anew.seconds_to_first_token:.2f} s; ratio {ratios[-1]:.3f}",
            flush=True,
        )
    worker.close()
    fresh.close()
    print(
        f"time to first token, second turn ÷ from scratch: median {statistics.median(ratios):.3f}"
    )


if __name__ == "__main__":
    main()
