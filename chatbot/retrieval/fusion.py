"""Two scores of each candidate become one.

Scores of different kinds are made comparable by their spread over the candidates of this question
(z-scores) and summed by weight. Measured against reciprocal rank fusion, this keeps what the better side
is sure of (docs/decisions.md); the weight comes with the embedder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def fuse(
    lexical: Sequence[float | None], dense: Sequence[float | None], dense_weight: float
) -> list[float]:
    """One score per candidate, higher is better; `None` where a side missed it.

    `dense_weight` (0..1) is the share of the similarities; a side that found nothing leaves all to the
    other one.
    """
    has_lexical = any(score is not None for score in lexical)
    has_dense = any(score is not None for score in dense)
    share = (dense_weight if has_lexical else 1.0) if has_dense else 0.0
    return [
        (1 - share) * word_score + share * similarity
        for word_score, similarity in zip(_spread(lexical), _spread(dense), strict=True)
    ]


def _spread(scores: Sequence[float | None]) -> list[float]:
    """Distances from the mean in standard deviations; a missed candidate scores 0 before."""
    filled = [score or 0.0 for score in scores]
    if not filled:
        return []
    mean = math.fsum(filled) / len(filled)
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in filled) / len(filled))
    if deviation < 1e-9:
        return [0.0] * len(filled)
    return [(score - mean) / deviation for score in filled]
