"""How good a ranking is, counted so that ties never flatter.

A gold document that shares its score with others gets the worst rank among them. `recall@k` is the
hit rate: the share of questions with at least one gold document in the first k.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean

DEPTH = 10


def gold_ranks(ranking: Sequence[tuple[str, float]], gold: Collection[str]) -> list[int]:
    """The rank (from 1) of every gold document in (id, score) pairs, pessimistic on ties, ascending.

    A gold document outranks only what scores strictly less, and other gold documents.
    """
    others = [score for document, score in ranking if document not in gold]
    scores = sorted((score for document, score in ranking if document in gold), reverse=True)
    return [place + sum(o >= score for o in others) for place, score in enumerate(scores, 1)]


def measures(ranks: Sequence[int], gold: int) -> dict[str, float]:
    """One question's figures from the ranks of its gold documents, of which there are `gold`."""
    best = min(ranks, default=0)
    gain = sum(1 / math.log2(rank + 1) for rank in ranks if rank <= DEPTH)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(gold, DEPTH) + 1))
    return {
        **{f"recall@{k}": float(0 < best <= k) for k in (1, 5, 10)},
        f"mrr@{DEPTH}": 1 / best if 0 < best <= DEPTH else 0.0,
        f"ndcg@{DEPTH}": gain / ideal,
    }


def mean_measures(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each figure over all questions."""
    return {name: fmean(row[name] for row in rows) for name in rows[0]} if rows else {}


def interval(values: Sequence[float], rounds: int = 1000, seed: int = 1) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean: resampled questions, always the same draw."""
    if not values:
        return 0.0, 0.0
    draw = random.Random(seed)  # noqa: S311  a statistic, not a secret
    means = sorted(fmean(draw.choices(values, k=len(values))) for _ in range(rounds))
    return means[int(0.025 * rounds)], means[min(rounds - 1, int(0.975 * rounds))]


def difference_interval(
    first: Sequence[float], second: Sequence[float], rounds: int = 1000, seed: int = 1
) -> tuple[float, float]:
    """The paired 95 % bootstrap interval of the mean of `first - second`, question by question."""
    return interval([a - b for a, b in zip(first, second, strict=True)], rounds, seed)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least that share (0..1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
