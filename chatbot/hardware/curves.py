"""Samples as curves: one figure over time, thinned to what a picture shows, broken where it was missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from chatbot.hardware.monitor import Sample
from chatbot.types import Gpu

POINTS = 150
GAP_SECONDS = 12.0
"""Longer than between two means of the hour; a longer silence (the PC slept) breaks the curve."""

Point = tuple[float, float]
"""Seconds before the newest sample, and the figure."""


def curve(
    samples: Sequence[Sample],
    read: Callable[[Sample], float | None],
    seconds: float,
    points: int = POINTS,
) -> list[list[Point]]:
    """The pieces of one curve over the last `seconds`, oldest first, with at most about `points` points.

    Each point is the mean of its stretch of the clock, so points stay where they are as time goes on.
    """
    if not samples:
        return []
    newest, width = samples[-1].at, seconds / points
    gap = max(GAP_SECONDS, 2 * width)
    stretches: dict[int, list[Sample]] = {}
    for sample in samples:
        if newest - sample.at <= seconds:
            stretches.setdefault(int(sample.at // width), []).append(sample)
    pieces: list[list[Point]] = [[]]
    before = newest - seconds
    for stretch in stretches.values():
        at, told = stretch[-1].at, [value for s in stretch if (value := read(s)) is not None]
        if pieces[-1] and (not told or at - before > gap):
            pieces.append([])
        if told:
            pieces[-1].append((newest - at, fmean(told)))
        before = at
    return [piece for piece in pieces if piece]


def of_card(
    key: tuple[str, str], read: Callable[[Gpu], float | None]
) -> Callable[[Sample], float | None]:
    """That figure of the card with this key; None in samples where the card is missing."""
    return lambda sample: next((read(gpu) for gpu in sample.gpus if gpu.key == key), None)
