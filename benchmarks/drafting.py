"""What drafting brings where an answer quotes, and costs where it does not.

    python -m benchmarks.drafting [GGUF | --shape 1b --quantisation Q4_K_M] [--threads N] [--rounds N]

One engine, in this process, writes the same greedy answer without drafting (A) and with it (B), in turn.
What B guesses is forced, by somebody who knows the answer:

    quotes 80 %      64 tokens of every 80 stand in a passage: guessed right once three of them are
                     written, wrong where the passage ends, not at all between the quotations
    80 % kept        three guesses of a hundred are wrong, by chance: of long drafts 80 % are kept
    4 tokens of 5    each guessed token right with probability 0.8, by itself
    all right, all wrong

In `nothing quoted` nobody is forced: the engine looks up the prompt, and the answer is of tokens that the
prompt does not hold. Each line: the median of B / A by clock and by processor time, in brackets that of the
very first such answer, when nothing had been learnt; how many drafted tokens were kept; and whether the
texts were the same. The model is sure of each token: one that is not may write another text with longer
batches, which llama.cpp rounds otherwise.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.random_model import SHAPES, random_gguf
from chatbot.engines.base import EngineSpec
from chatbot.engines.drafting import RUN, Drafter, Experience, Guesses, PromptLookup
from chatbot.engines.llama_cpp import LlamaCpp
from chatbot.types import GenerationOptions, GenerationStats, Turn

QUESTION = [Turn("user", "w1 w2 w3 w4 " * 15)]
GREEDY = GenerationOptions(temperature=0, repeat_penalty=1.0)
QUOTED, OF = 64, 80
AGREE = 16
_random = random.Random(2)
CHANCE = [_random.random() for _ in range(4096)]


class Record:
    """Guesses nothing, and remembers the answer."""

    matched = 0

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def ahead(self, _count: int) -> list[int]:
        return []

    def took(self, token: int) -> bool:
        self.tokens.append(token)
        return False


class Oracle:
    """Knows the answer, and guesses wrong where it was told to."""

    def __init__(self, answer: list[int]) -> None:
        self._answer = answer
        self._at = 0

    @property
    def matched(self) -> int:
        return AGREE

    def ahead(self, count: int) -> list[int]:
        return [self._guess(at) for at in range(self._at, self._at + count)]

    def took(self, token: int) -> bool:
        right = self._guess(self._at) == token
        self._at += 1
        return right

    def wrong(self, _at: int) -> bool:
        """Whether the guess for this place of the answer is wrong."""
        return False

    def _guess(self, at: int) -> int:
        return self._answer[at] ^ self.wrong(at) if at < len(self._answer) else 0


class Quoting(Oracle):
    @property
    def matched(self) -> int:
        place = self._at % OF
        return place if RUN <= place < QUOTED else 0

    def wrong(self, at: int) -> bool:
        return at % OF >= QUOTED


class EightyPercentKept(Oracle):
    def wrong(self, at: int) -> bool:
        return CHANCE[at] < 0.03


class FourTokensOfFive(Oracle):
    def wrong(self, at: int) -> bool:
        return CHANCE[at] < 0.2


class AllWrong(Oracle):
    def wrong(self, _at: int) -> bool:
        return True


FORCED: dict[str, type[Oracle]] = {
    "quotes 80 %": Quoting,
    "80 % kept": EightyPercentKept,
    "4 tokens of 5": FourTokensOfFive,
    "all right": Oracle,
    "all wrong": AllWrong,
}


@dataclass(frozen=True)
class Run:
    """One answer: its text, what it cost, tokens per second of the clock and of the processor."""

    text: str
    stats: GenerationStats
    speeds: tuple[float, float]


class Writer:
    """The engine, with what each answer's drafter guesses and has learnt before."""

    def __init__(self, file: Path, threads: int) -> None:
        self.guesses: Callable[[list[int]], Guesses] = PromptLookup
        self.experience = Experience()
        spec = EngineSpec("llama_cpp", path=str(file), context=2048, threads=threads, steady=True)
        self.engine = LlamaCpp(spec, lambda tokens: Drafter(self.guesses(tokens), self.experience))

    def write(self, options: GenerationOptions) -> Run:
        text, begun = "", (0.0, 0.0)
        for delta in self.engine.stream(QUESTION, options):
            text += delta.text
            if delta.progress is not None:
                begun = time.perf_counter(), time.process_time()
            if delta.stats is not None:
                stats = delta.stats
        seconds, busy = time.perf_counter() - begun[0], time.process_time() - begun[1]
        return Run(text, stats, (stats.answer_tokens / seconds, stats.answer_tokens / busy))

    def tokens(self, options: GenerationOptions) -> list[int]:
        """The answer as tokens."""
        record = Record()
        self.guesses = lambda _prompt: record
        self.write(options)
        return record.tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", nargs="?", type=Path)
    parser.add_argument("--shape", default="160m", choices=SHAPES)
    parser.add_argument("--quantisation", default="F16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=2 * OF)
    asked = parser.parse_args()
    writer = Writer(
        asked.gguf or random_gguf(asked.shape, asked.quantisation, reciting=True), asked.threads
    )
    greedy = replace(GREEDY, max_tokens=asked.tokens)
    writer.write(replace(greedy, max_tokens=2))  # from here on the prompt is always read already
    answer = writer.tokens(greedy)

    def forced(kind: type[Oracle]) -> Callable[[list[int]], Guesses]:
        return lambda _prompt: kind(answer)

    cases: dict[str, Callable[[list[int]], Guesses]] = {
        **{name: forced(kind) for name, kind in FORCED.items()},
        "nothing quoted": PromptLookup,
    }
    learnt = {name: Experience() for name in cases}
    pairs: dict[str, list[tuple[Run, Run]]] = {name: [] for name in cases}
    for number in range(asked.rounds):
        for place, name in enumerate(list(cases)[:: 1 if number % 2 else -1]):
            if place % 3 == 0:
                plain = writer.write(replace(greedy, drafting=False))
            writer.guesses, writer.experience = cases[name], learnt[name]
            pairs[name].append((plain, writer.write(greedy)))
    speed = statistics.median(a.speeds[0] for a, _ in pairs["all right"])
    print(f"without drafting {speed:.1f} tokens/s, {asked.tokens} tokens, {asked.threads} threads")
    for name, runs in pairs.items():
        clock, busy = ([b.speeds[place] / a.speeds[place] for a, b in runs] for place in (0, 1))
        drafted = sum(b.stats.drafted for _, b in runs)
        kept = sum(b.stats.accepted for _, b in runs)
        same = sum(a.text == b.text for a, b in runs)
        print(
            f"{name:15} {statistics.median(clock):.2f} by clock, {statistics.median(busy):.2f} by "
            f"processor (first {clock[0]:.2f}, {busy[0]:.2f}); "
            f"kept {kept} of {drafted}; same text {same} of {len(runs)}"
        )
    costs = {size: round(learnt["all right"].cost(size), 2) for size in (2, 4, 8, 16)}
    print(f"a batch costs, in times for one token: {costs}")


if __name__ == "__main__":
    main()
