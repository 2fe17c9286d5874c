"""How well Hearth tells what is not in the documents, with each question's own article taken away.

    python benchmarks/refusal.py [--data ../shared/data] [--questions 300] [--embedder FOLDER] [SET …]

For every set: AUROC of the strength between questions with and without their article (95 % bootstrap
interval), the share answered at the shipped threshold, and the share refused: article removed, another
set's questions, the questions of vnlaw-refusal (most are ambiguous rather than absent; for information).
Vietnamese sets are asked as written and without marks. `refused at 90 %` is at the set's own threshold
that answers nine in ten. The coefficients were fitted on every second question of three sets; those
questions are left out here. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from chatbot.evaluation.datasets import Question, load_dataset, without_accents
from chatbot.evaluation.metrics import interval, percentile
from chatbot.evaluation.retrieval import prepared
from chatbot.library.index import Candidates, Hit, Index
from chatbot.retrieval.search import ANSWERING_STRENGTH, CANDIDATES, Search
from chatbot.settings import PROJECT
from chatbot.types import Passage, SearchFilter, SearchMode

SETS = {"alqac-vi": "xquad-vi", "xquad-vi": "alqac-vi", "nq-en": "xquad-en", "xquad-en": "nq-en"}
"""Each set with the one whose questions are about another subject."""
FITTED = ("alqac-vi", "xquad-vi", "nq-en")
SPARE = 10
"""More candidates than are used, so that there are as many without the article."""


@dataclass
class Without:
    """The index as if the named documents were not in it."""

    index: Index
    gone: frozenset[str] = frozenset()

    def query(
        self,
        text: str,
        limit: int = CANDIDATES,
        filter: SearchFilter = SearchFilter(),  # noqa: A002, B008
        mode: SearchMode = "hybrid",
    ) -> Candidates:
        found = self.index.query(text, limit + SPARE, filter, mode)
        left = [hit for hit in found.hits if hit.passage_id.rsplit(":", 1)[0] not in self.gone]
        kept = {hit.passage_id for hit in sorted(left, key=_lexical)[:limit]}
        kept |= {hit.passage_id for hit in sorted(left, key=_dense)[:limit]}
        return replace(found, hits=tuple(hit for hit in left if hit.passage_id in kept))

    def passages(self, passage_ids: Sequence[str]) -> dict[str, tuple[Passage, str]]:
        return self.index.passages(passage_ids)


def _lexical(hit: Hit) -> float:
    return -(hit.lexical or 0.0)


def _dense(hit: Hit) -> float:
    return -(hit.dense or 0.0)


def auroc(present: Sequence[float], absent: Sequence[float]) -> tuple[float, list[float]]:
    """How often a question with its article is stronger than one without; ties count half."""
    ordered = sorted(absent)
    wins = [
        (bisect_left(ordered, value) + bisect_right(ordered, value)) / 2 / len(ordered)
        for value in present
    ]
    return round(sum(wins) / len(wins), 3), [round(end, 3) for end in interval(wins)]


def below(values: Sequence[float], threshold: float) -> float:
    return round(sum(value < threshold for value in values) / len(values), 3)


def chosen(questions: Sequence[Question], count: int, *, unseen: bool) -> list[Question]:
    left = [q for q in questions if not unseen or zlib.crc32(q.id.encode()) % 2]
    random.Random(7).shuffle(left)
    return left[:count]


def strengths(index: Index, asked: Sequence[tuple[str, frozenset[str]]]) -> list[float]:
    return [Search(Without(index, gone)).find(text).strength for text, gone in asked]


def measured(folder: Path, name: str, count: int, embedder: str | None) -> dict[str, object]:
    data = load_dataset(folder / name)
    own = chosen(data.questions, count, unseen=name in FITTED)
    others = chosen(load_dataset(folder / SETS[name]).questions, count // 2, unseen=False)
    figures: dict[str, object] = {"questions": len(own)}
    with prepared(data, embedder) as (search, _):
        index = search._index
        assert isinstance(index, Index)
        nothing: frozenset[str] = frozenset()
        elsewhere = strengths(index, [(q.text, nothing) for q in others])
        spellings = {"as written": str} | (
            {"without marks": without_accents} if name.endswith("-vi") else {}
        )
        for spelling, spelled in spellings.items():
            present = strengths(index, [(spelled(q.text), nothing) for q in own])
            absent = strengths(index, [(spelled(q.text), q.gold) for q in own])
            value, ends = auroc(present, absent)
            figures[spelling] = {
                "auroc": value,
                "interval": ends,
                "answered": round(1 - below(present, ANSWERING_STRENGTH), 3),
                "refused, article removed": below(absent, ANSWERING_STRENGTH),
                "refused at 90 %": below(absent, percentile(present, 0.1)),
            }
        figures["refused, another subject"] = below(elsewhere, ANSWERING_STRENGTH)
        ambiguous = folder / "vnlaw-refusal" / "queries.jsonl"
        if name == "alqac-vi" and ambiguous.exists():
            lines = ambiguous.read_text(encoding="utf-8").splitlines()
            asked = strengths(index, [(json.loads(line)["text"], nothing) for line in lines])
            figures["refused, vnlaw-refusal"] = below(asked, ANSWERING_STRENGTH)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=list(SETS), metavar="SET")
    parser.add_argument("--data", type=Path, default=PROJECT.parent / "shared/data")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--embedder")
    options = parser.parse_args()
    figures = {
        name: measured(options.data, name, options.questions, options.embedder)
        for name in options.sets
    }
    print(json.dumps(figures, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
