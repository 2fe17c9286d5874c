"""Which layers go to which GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

STEPS = 12


def spread(layers: Sequence[Mapping[str, int]], limits: Sequence[int]) -> tuple[int, ...] | None:
    """How many layers each GPU takes, in order, each about as full as the others; None without room.

    `layers` are the bytes of a GPU that held just that layer (its weights and cache, and what every GPU
    takes besides), `limits` the bytes of each GPU.
    """
    found = _filled(layers, limits)
    low, high = 0.0, 1.0
    for _ in range(STEPS if found else 0):
        middle = (low + high) / 2
        fuller = _filled(layers, [limit * middle for limit in limits])
        if fuller is None:
            low = middle
        else:
            found, high = fuller, middle
    return found


def in_proportion(count: int, limits: Sequence[int]) -> tuple[int, ...]:
    """Layers by the bytes of each GPU, whether they fit or not."""
    whole = [max(limit, 1) for limit in limits]
    marks = [round(count * sum(whole[:number]) / sum(whole)) for number in range(len(whole) + 1)]
    return tuple(b - a for a, b in pairwise(marks))


def _filled(layers: Sequence[Mapping[str, int]], limits: Sequence[float]) -> tuple[int, ...] | None:
    """Each GPU takes what it can before the next one does; None when some layers are left over."""
    counts, at = [], 0
    for limit in limits:
        held, count = 0, 0
        while at < len(layers):
            layer = layers[at]
            own = layer["weights"] + layer["kv"]
            if held + own + layer["buffers"] + layer["runtime"] > limit:
                break
            held, count, at = held + own, count + 1, at + 1
        counts.append(count)
    return tuple(counts) if at == len(layers) else None
