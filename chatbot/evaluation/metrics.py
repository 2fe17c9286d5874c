"""How good a ranking is, counted so that ties never flatter.

A gold document that shares its score with others gets the worst rank among them. `recall@k` is the
hit rate: the share of questions with at least one gold document in the first k.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Any

DEPTH = 10


def gold_ranks(ranking: Sequence[tuple[str, float]], gold: Collection[str]) -> list[int]:
    """The rank (from 1) of every gold document in (id, score) pairs, pessimistic on ties, ascending."""
    return ranks_of([({document} & set(gold), score) for document, score in ranking])


def ranks_of(ranking: Sequence[tuple[Collection[Hashable], float]]) -> list[int]:
    """The rank (from 1) of every gold that was found, ascending, in (golds it answers, score) pairs.

    A gold counts once, where it scores best, and outranks only what scores strictly less, and other
    golds.
    """
    others = [score for golds, score in ranking if not golds]
    best: dict[Hashable, float] = {}
    for golds, score in ranking:
        for gold in golds:
            best[gold] = max(score, best.get(gold, score))
    scores = sorted(best.values(), reverse=True)
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


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean of `first - second` over the same questions, and what chance leaves of it.

    `certain` when the 95 % interval excludes 0 and, for the sake of small sets, a sign test agrees.
    """

    mean: float
    low: float
    high: float
    certain: bool


def difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """How much better the first is, question by question; needs at least one question."""
    gains = [a - b for a, b in zip(first, second, strict=True)]
    low, high = interval(gains)
    wins, losses = sum(g > 0 for g in gains), sum(g < 0 for g in gains)
    excluded = low > 0 or high < 0
    return Difference(fmean(gains), low, high, excluded and sign_test(wins, losses) < 0.05)


def sign_test(wins: int, losses: int) -> float:
    """How likely a split at least as uneven is when either side wins by the toss of a coin."""
    tosses = wins + losses
    tail = sum(math.comb(tosses, k) for k in range(max(wins, losses), tosses + 1))
    return min(1.0, 2 * tail / (1 << tosses))


def likely_share(hits: int, questions: int) -> tuple[float, float]:
    """The 95 % interval (Wilson's) of a share, which does not shrink to a point when all went well."""
    if not questions:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.975)
    share, grown = hits / questions, 1 + z * z / questions
    middle = (share + z * z / (2 * questions)) / grown
    spread = z * math.sqrt(share * (1 - share) / questions + z * z / (4 * questions**2)) / grown
    return max(0.0, middle - spread), min(1.0, middle + spread)


def summary(rows: Sequence[Mapping[str, float]], seconds: Sequence[float]) -> dict[str, Any]:
    """All questions in one table: means, their intervals, latencies in milliseconds."""
    return {
        "questions": len(rows),
        **{name: round(value, 4) for name, value in mean_measures(rows).items()},
        "intervals": {
            name: [round(end, 4) for end in interval([row[name] for row in rows])]
            for name in (rows[0] if rows else {})
        },
        "latency_p50_ms": round(1000 * percentile(seconds, 0.5), 2),
        "latency_p95_ms": round(1000 * percentile(seconds, 0.95), 2),
    }


def differences(
    first: Sequence[Mapping[str, float]], second: Sequence[Mapping[str, float]]
) -> dict[str, Difference]:
    """Figure by figure, how much better the first rows are than the second, question by question."""
    names = first[0] if first else {}
    return {n: difference([r[n] for r in first], [r[n] for r in second]) for n in names}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least that share (0..1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
