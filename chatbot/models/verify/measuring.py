"""One tensor and what it was made from, read together a few rows at a time and measured."""

from __future__ import annotations

import numpy as np

from chatbot.models.verify import thresholds
from chatbot.models.verify.adapter import Change
from chatbot.models.verify.figures import Figures
from chatbot.models.verify.names import Pair
from chatbot.models.verify.number_types import (
    FLOATS,
    Requantiser,
    Values,
    decode,
    half_step,
    rounded,
)

_WAYS = ("", "F16", "BF16")


class Measuring:
    """Measures one pair, piece by piece."""

    def __init__(
        self,
        pair: Pair,
        requantiser: Requantiser | None,
        importance: Values | None,
        change: Change | None,
        share: float,
        via: str,
        *,
        direct: bool = False,
    ) -> None:
        self.via: str | None = None
        self._guess = via
        # A GGUF made in several steps may have been rounded to a narrower type on the way; one made in a
        # single step only where the converter adds one to the norms before it widens them.
        self._ways = _WAYS if pair.across and (pair.added or not direct) else ("",)
        self._pair = pair
        self._requantiser = requantiser
        self._importance = importance
        self._change = change
        self._share = share
        self._debt = 1.0  # the first piece is always recomputed
        made = pair.made
        self.figures = Figures(
            pair.name, made.type, pair.kind, made.elements, matrix=made.width > 1
        )

    def take(self, begin: int, end: int) -> None:
        pair, figures = self._pair, self.figures
        raw = pair.made.read(begin, end)
        change = self._change.of(pair.name) if self._change else None
        before = None
        if pair.plain and change is None:
            before = pair.origin[0].read(begin, end)
            if not np.array_equal(raw, before):
                before = None
        values = decode(raw, pair.made.type, pair.made.width)
        if values is None:
            figures.unknown = before is None
            return
        figures.bad += values.size - int(np.isfinite(values).sum())
        if before is not None:  # the same bytes
            figures.norm += _squares(values)
            return
        expected = pair.expected(begin, end)
        if expected is None:
            figures.unknown = True
            return
        slack: Values | float = 0.0
        if change is not None:
            expected, slack = change.applied(expected, values, begin, end)
        if pair.made.type in FLOATS:
            self._float(values, expected, slack, changed=change is not None)
        elif pair.made.type in thresholds.RELATIVE:
            self._quantised(raw, values, expected)
        else:
            figures.unlike += int((values != expected).sum())
        with np.errstate(all="ignore"):
            figures.squares += _squares(values.astype(np.float64) - expected)
            figures.norm += _squares(expected)
        if pair.plain and change is None and np.array_equal(values, expected):
            figures.unlike += 1  # equal as numbers, but not the same bytes: a zero's sign

    def _float(
        self, values: Values, expected: Values, slack: Values | float, *, changed: bool
    ) -> None:
        kind = self._pair.made.type
        if changed:
            with np.errstate(all="ignore"):
                near = np.abs(values.astype(np.float64) - expected)
                allowed = half_step(expected, kind) * (1 + 1e-6) + slack
                self.figures.unlike += int((~(near <= allowed)).sum())
            return
        if self.via is None:
            unlike = {via: _unlike(values, expected, kind, via) for via in self._ways}
            least = min(unlike.values())
            guess = self._guess
            likeliest = min(unlike, key=lambda way: unlike[way])
            self.via = guess if unlike.get(guess) == least else likeliest
        self.figures.unlike += _unlike(values, expected, kind, self.via)

    def _quantised(self, raw: Values, values: Values, expected: Values) -> None:
        figures, kind = self.figures, self._pair.made.type
        with np.errstate(all="ignore"):
            errors = _row_squares(values.astype(np.float64) - expected)
            norms = _row_squares(expected)
            relative = np.sqrt(errors / np.maximum(norms, 1e-60))
        # Rows of nothing but dust are rounded to nothing: their relative error says nothing.
        worth = norms > 1e-8 * max(float(norms.max()), 1e-30)
        if worth.any():
            figures.row_error = max(figures.row_error, _highest(relative[worth]))
        if not self._wanted():
            return
        assert self._requantiser is not None
        rows = raw.reshape(expected.shape[0], -1)
        best: tuple[int, str, Values, Values] | None = None
        for via in (self.via,) if self.via is not None else _WAYS:
            source = expected.astype(np.float32) if not via else rounded(expected, via)
            again = self._requantiser.rows(source, kind, self._importance)
            same = (again == rows).all(axis=1)
            if best is None or int(same.sum()) > best[0]:
                best = (int(same.sum()), via, again, same)
            if same.all():
                break
        assert best is not None
        count, self.via, again, same = best
        figures.recomputed += len(rows)
        figures.identical += count
        decoded = decode(again.reshape(-1), kind, self._pair.made.width)
        assert decoded is not None
        ideal = _row_squares(decoded.astype(np.float64) - expected)
        figures.expected += float(ideal.sum())
        figures.found += float(errors.sum())
        if worth.any():
            typical = np.sqrt(ideal[worth] / np.maximum(norms[worth], 1e-60))
            figures.typical_row = max(figures.typical_row, _highest(typical))
        differ = ~same
        if differ.any():
            with np.errstate(all="ignore"):
                ratio = np.sqrt(
                    errors[differ] / np.maximum(ideal[differ], 1e-12 * norms[differ] + 1e-60)
                )
            figures.worst_row = max(figures.worst_row, _highest(ratio))
            figures.worse_rows += int((~(errors[differ] <= ideal[differ] * 1.0001)).sum())

    def _wanted(self) -> bool:
        """Whether this piece is among those that are quantised anew."""
        if self._requantiser is None or self._pair.made.type not in thresholds.RELATIVE:
            return False
        if self._importance is None and self._requantiser.needs_importance(self._pair.made.type):
            return False
        self._debt += self._share
        if self._debt < 1.0:
            return False
        self._debt -= 1.0
        return True


def _unlike(values: Values, expected: Values, kind: str, via: str) -> int:
    on_the_way = rounded(expected, via) if via else expected
    nearest = rounded(on_the_way, kind)
    with np.errstate(invalid="ignore"):
        same = (values == nearest) | (np.isnan(values) & np.isnan(nearest))
    # A product may flush what is below the smallest normal number to zero.
    dust = (values == 0) & (np.abs(nearest) < 2.0**-126) if kind == "BF16" else False
    return int(values.size - np.count_nonzero(same | dust))


def _row_squares(values: Values) -> Values:
    wide = values.astype(np.float64, copy=False)
    found: Values = np.einsum("ij,ij->i", wide, wide)
    return found


def _squares(values: Values) -> float:
    flat = values.reshape(-1).astype(np.float64, copy=False)
    return float(np.dot(flat, flat))


def _highest(values: Values) -> float:
    return float(np.nan_to_num(values, nan=np.inf, posinf=np.inf).max())
