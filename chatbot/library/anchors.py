"""Where each word of a page stands on it: kept when a document is read, so that a passage can be lit up.

Places are parts of the page as it is shown, 0 to 1 from its upper left corner, so they hold at any zoom,
for turned pages and for those of which only a part is shown.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

STEPS = 4096
"""How finely places are kept: a sixth of a point on a sheet of A4."""

_COLUMNS = 6
_MOST_BYTES = 2_000_000
"""Far more than a page has; a collection from elsewhere may hold anything."""
_WIDEST_GAP = 0.05
"""Words of one line that are further apart, as parts of the page's width, are cells of a table."""


class Rectangle(NamedTuple):
    """A part of a page."""

    left: float
    top: float
    right: float
    bottom: float


class Box(NamedTuple):
    """A word, or the part of one that stands on one line: a span of the page's text, and its place."""

    start: int
    end: int
    place: Rectangle


def pack(starts: Sequence[int], ends: Sequence[int], sides: Sequence[Sequence[float]]) -> bytes:
    """The boxes of a page in some three bytes each, b"" for none.

    They come in columns, in the order of the page's text; `sides` are lefts, tops, rights and bottoms.
    """
    if not starts:
        return b""
    left, top, right, bottom = map(_in_steps, sides)
    height = [b - t for t, b in zip(top, bottom, strict=True)]
    # Differences column by column: there what is alike lies side by side.
    numbers = [
        *_differences(starts, [0, *ends]),
        *_differences(ends, starts),
        *_differences(left, [0, *right]),
        *_differences(right, left),
        *_differences(top, [0, *top]),
        *_differences(height, [0, *height]),
    ]
    code = "h" if min(numbers) >= -0x8000 and max(numbers) < 0x8000 else "i"
    return code.encode() + zlib.compress(struct.pack(f"<{len(numbers)}{code}", *numbers))


def _in_steps(parts: Sequence[float]) -> list[int]:
    if min(parts) < 0 or max(parts) > 1:
        parts = [min(max(p, 0.0), 1.0) for p in parts]
    return [int(p * STEPS + 0.5) for p in parts]


def _differences(numbers: Sequence[int], others: Sequence[int]) -> list[int]:
    return [a - b for a, b in zip(numbers, others, strict=False)]


def unpack(anchors: bytes) -> list[Box]:
    """The boxes that `pack` was given, their places to within one of STEPS; none where it is damaged."""
    try:
        code = {b"h": "h", b"i": "i"}[anchors[:1]]
        packed = zlib.decompressobj()
        content = packed.decompress(anchors[1:], _MOST_BYTES)
        if not packed.eof:
            return []
        numbers = struct.unpack(f"<{len(content) // struct.calcsize(code)}{code}", content)
    except (KeyError, zlib.error, struct.error):
        return []
    count = len(numbers) // _COLUMNS
    columns = [numbers[n * count : (n + 1) * count] for n in range(_COLUMNS)]
    boxes: list[Box] = []
    end = right = 0
    tops, heights = accumulate(columns[4]), accumulate(columns[5])
    for gap, length, space, width, top, height in zip(*columns[:4], tops, heights, strict=True):
        start, left = end + gap, right + space
        end, right = start + length, left + width
        place = Rectangle(left / STEPS, top / STEPS, right / STEPS, (top + height) / STEPS)
        boxes.append(Box(start, end, place))
    return boxes


def rectangles(boxes: Sequence[Box], start: int, end: int) -> list[Rectangle]:
    """The places of what stands between two offsets of the page's text, one for each line."""
    found: list[Rectangle] = []
    for box in boxes:
        if box.start >= end or box.end <= start:
            continue
        place = box.place
        if place.right <= place.left or place.bottom <= place.top:
            continue  # cut off with the page's margin
        if found and _beside(found[-1], place):
            line = found.pop()
            place = Rectangle(
                line.left,
                min(line.top, place.top),
                max(line.right, place.right),
                max(line.bottom, place.bottom),
            )
        found.append(place)
    return found


def _beside(line: Rectangle, word: Rectangle) -> bool:
    common = min(line.bottom, word.bottom) - max(line.top, word.top)
    if common < 0.5 * min(line.bottom - line.top, word.bottom - word.top):
        return False
    return line.left <= word.left <= line.right + _WIDEST_GAP
