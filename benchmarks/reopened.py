"""What the first answer costs in a conversation reopened after a restart, from cold and from what was kept.

    python -m benchmarks.reopened [GGUF] [--threads N] [--tokens N] [--new N] [--rounds N]

Each round asks in processes of its own and takes the time to the first token, once the model is loaded:
cold (nothing kept), the second turn (nothing closed in between), reopened (after a restart, from disk) and
a new conversation after a restart (only the system prompt is shared). `restored` tokens came from disk.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.random_model import random_gguf
from chatbot.engines.base import EngineSpec
from chatbot.engines.states import StateFolder
from chatbot.engines.worker import EngineWorker
from chatbot.types import GenerationOptions, GenerationStats, Turn

SYSTEM = Turn(
    "system", "Answer from the documents, name the passage, and say what they do not tell. " * 8
)
PASSAGE = (
    "The student who misses {n} of the lessons loses the right to sit the examination of term {n}. "
)
NEXT = "And what of those who were ill for week {n}, with a letter from the hospital? "
OPTIONS = GenerationOptions(temperature=0.8, seed=1, max_tokens=4, conversation="one")
# A random model's answers are spelled with far more tokens when they are read anew, hence so short a one.
LIMIT = 4 * 10**9


def grown(worker: EngineWorker, before: list[Turn], pattern: str, tokens: int, n: int) -> Turn:
    """A question with which the prompt is so many tokens long, another one for another n."""
    turn = Turn("user", "")
    while worker.count_tokens([*before, turn]) < tokens:
        turn = Turn("user", turn.text + pattern.format(n=n))
        n += 1
    return turn


def ask(
    worker: EngineWorker, turns: list[Turn], options: GenerationOptions = OPTIONS
) -> tuple[str, GenerationStats]:
    """The answer and what it cost."""
    deltas = list(worker.stream(turns, options))
    stats = deltas[-1].stats
    assert stats is not None
    return "".join(delta.text for delta in deltas), stats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", nargs="?", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=1500, help="of the first prompt")
    parser.add_argument("--new", type=int, default=200, help="tokens of the second question")
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    spec = EngineSpec(
        "llama_cpp", path=str(asked.gguf or random_gguf()), context=4096, threads=asked.threads
    )
    figures: dict[str, list[GenerationStats]] = {}
    with tempfile.TemporaryDirectory() as place:
        for number in range(asked.rounds):
            measure(spec, Path(place) / str(number), asked.tokens, asked.new, number, figures)
    cold = median(s.seconds_to_first_token for s in figures["cold"])
    print(
        f"{Path(spec.path).name}, {asked.threads} threads, median of {asked.rounds}, time to first token"
    )
    for name, all_stats in figures.items():
        seconds = median(s.seconds_to_first_token for s in all_stats)
        last = all_stats[-1]
        read = last.prompt_tokens - last.cached_tokens
        print(
            f"{name:22}{seconds:7.2f} s   {seconds / cold:5.3f} of cold   {last.prompt_tokens} tokens: "
            f"{last.restored_tokens} from disk, {last.cached_tokens - last.restored_tokens} in memory, {read} read"
        )


def measure(
    spec: EngineSpec,
    folder: Path,
    tokens: int,
    new: int,
    number: int,
    figures: dict[str, list[GenerationStats]],
) -> None:
    """One round; the cold one reads the very prompt of the second turn."""

    def worker(keeps: bool = True) -> EngineWorker:
        made = EngineWorker(spec, states=lambda: (str(folder), LIMIT) if keeps else ("", 0))
        made.load()
        return made

    def note(name: str, stats: GenerationStats) -> None:
        figures.setdefault(name, []).append(stats)

    here = worker()
    first = [SYSTEM, grown(here, [SYSTEM], PASSAGE, tokens, number * 1000)]
    text, _ = ask(here, first)
    past = [*first, Turn("assistant", text)]
    second = [*past, grown(here, past, NEXT, tokens + new, number * 1000)]
    here.unload()
    size = StateFolder(folder).used()
    cold = worker(keeps=False)
    note("cold", ask(cold, second, replace(OPTIONS, conversation=""))[1])
    cold.close()
    here.load()
    note("reopened", ask(here, second)[1])
    third = [*second[:-1], Turn("user", second[-1].text.replace("And", "But"))]
    note("second turn", ask(here, third)[1])
    here.close()
    if number == 0:
        print(f"kept on disk: {size / 1e6:.1f} MB")
    for state in StateFolder(folder).path.glob("[!s]*"):
        state.unlink()  # but the system prompt
    other = worker()
    fresh = [SYSTEM, second[-1]]
    note("new, system kept", ask(other, fresh, replace(OPTIONS, conversation="two"))[1])
    other.close()
    cold = worker(keeps=False)
    note("new, cold", ask(cold, fresh, replace(OPTIONS, conversation=""))[1])
    cold.close()


if __name__ == "__main__":
    main()
