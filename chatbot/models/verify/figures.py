"""What was measured on each tensor, and whether its number type explains it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from chatbot.models.verify import thresholds

NOT_FINITE = "not finite"
NOT_NEAREST = "not the nearest values"
NOT_SAME = "not the same bytes"
FAR = "further from its input than its type explains"
FAR_ROW = "a row is further from its input than its type explains"
ODD_ROW = "a row is further from its input than the others"
UNLIKE_ROWS = "rows differ from what llama.cpp makes of the input"
"""What `Figures.fault` says; the numbers' own words, not sentences for people."""


@dataclass(slots=True)
class Figures:
    """What was measured on one tensor; `fault` says which limit it broke."""

    name: str
    kind: str
    origin: str
    elements: int
    matrix: bool
    squares: float = 0.0
    """ε², the sum of the squared differences."""
    norm: float = 0.0
    """‖θ_in‖²."""
    unlike: int = 0
    """Float types: values that are not the nearest ones."""
    bad: int = 0
    """NaN and infinite values of the result."""
    recomputed: int = 0
    """Rows that llama.cpp quantised anew."""
    identical: int = 0
    """Those of them that agree bit for bit."""
    expected: float = 0.0
    """ε² that llama.cpp's own quantisation has, over the recomputed rows."""
    found: float = 0.0
    """ε² of the file over the same rows."""
    worst_row: float = 0.0
    """The largest ratio of a recomputed row's error to llama.cpp's."""
    row_error: float = 0.0
    """The largest relative error of a row."""
    typical_row: float = 0.0
    """The largest relative error of a row that was recomputed, by llama.cpp's own quantisation."""
    worse_rows: int = 0
    """Recomputed rows that differ and are further from the input than llama.cpp's own."""
    unknown: bool = False
    fault: str = ""
    limit: float | None = None

    @property
    def epsilon(self) -> float:
        return math.sqrt(self.squares)

    @property
    def relative(self) -> float:
        return ratio(self.squares, self.norm)

    def to_dict(self) -> dict[str, Any]:
        """For the list of the worst."""
        return {
            "name": self.name,
            "type": self.kind,
            "epsilon": self.epsilon,
            "relative": self.relative,
            "limit": self.limit,
            "fault": self.fault,
        }


@dataclass(slots=True)
class Compared:
    """Every pair's figures, and what was learnt about the whole on the way."""

    figures: list[Figures] = field(default_factory=list)
    importance_used: bool = False

    @property
    def same_build(self) -> bool:
        """Whether so many rows agree bit for bit that this llama.cpp must have made them all."""
        rows = sum(f.recomputed for f in self.figures)
        return sum(f.identical for f in self.figures) >= thresholds.SAME_BUILD * rows

    def noise(self) -> float:
        """What the weights' errors do to the outputs: the root mean square of the matrices' ε / ‖θ‖."""
        errors = [f.relative**2 for f in self.figures if f.matrix and math.isfinite(f.relative)]
        return math.sqrt(sum(errors) / len(errors)) if errors else 0.0

    def relative(self) -> float:
        """ε / ‖θ‖ of the whole model."""
        return ratio(sum(f.squares for f in self.figures), sum(f.norm for f in self.figures))


def judge(compared: Compared, *, known: bool) -> None:
    """Set `fault` and `limit` of every tensor; `known` says that the importance matrix was at hand."""
    weighted = compared.importance_used and not known
    for figures in compared.figures:
        if figures.unknown:
            continue
        if figures.bad:
            figures.fault = NOT_FINITE
        elif figures.kind not in thresholds.RELATIVE:
            figures.limit = 0.0
            figures.fault = NOT_NEAREST if figures.unlike else ""
        elif figures.unlike:
            figures.fault = NOT_SAME
        elif not figures.squares:
            figures.limit = 0.0
        else:
            figures.limit = thresholds.RELATIVE[figures.kind]
            find = _against_llama_cpp if figures.recomputed else _against_type
            figures.fault = find(figures, compared, weighted=weighted)


def _against_llama_cpp(figures: Figures, compared: Compared, *, weighted: bool) -> str:
    tensor = thresholds.WORSE_TENSOR_WEIGHTED if weighted else thresholds.WORSE_TENSOR
    row = thresholds.WORSE_ROW_WEIGHTED if weighted else thresholds.WORSE_ROW
    if not figures.found <= figures.expected * tensor**2 + 1e-30:
        return FAR
    if figures.worst_row > row:
        return FAR_ROW
    if figures.row_error > figures.typical_row * max(thresholds.ODD_ROW, row):
        return ODD_ROW
    if figures.worse_rows and not weighted and compared.same_build:
        return UNLIKE_ROWS
    return ""


def _against_type(figures: Figures, _compared: Compared, *, weighted: bool) -> str:
    limit = thresholds.RELATIVE[figures.kind] * (thresholds.WORSE_TENSOR if weighted else 1.0)
    if not figures.relative <= limit:
        return FAR
    return FAR_ROW if figures.row_error > thresholds.ODD_ROW * limit else ""


def ratio(squares: float, norm: float) -> float:
    """√(squares / norm): a length against another."""
    if squares == 0:
        return 0.0
    return math.sqrt(squares / norm) if norm else math.inf
