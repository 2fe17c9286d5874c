"""Right places in a document that are found again when it is read or cut into passages anew.

A place is a span of the document's text, kept with prints of the first and last words in it: enough to
know it again after its offsets moved, and nothing that could be read.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from chatbot.text import fold

EDGE = 8
"""Words in a print; fewer where the place is shorter. Stored prints rest on it."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Anchor:
    """A span and the prints of its edges; `end` None means anywhere in the document."""

    start: int
    end: int | None
    words: int = 0
    head: str = ""
    tail: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Where an answer lies now: a span of a stored document; `end` None means anywhere in it."""

    document_id: str
    start: int = 0
    end: int | None = None

    def covers(self, document_id: str, start: int, end: int) -> bool:
        """Whether a passage is right: it and the place share at least half of the shorter of the two.

        However a text is cut, at least one of its passages is.
        """
        if document_id != self.document_id:
            return False
        if self.end is None:
            return True
        shared = min(end, self.end) - max(start, self.start)
        return shared > 0 and 2 * shared >= min(end - start, self.end - self.start)


class Words:
    """The folded words of a text and where each stands."""

    def __init__(self, text: str) -> None:
        self.length = len(text)
        found = list(_WORD.finditer(text))
        self.spans = [match.span() for match in found]
        self._ends = [match.end() for match in found]
        self.folded = [fold(match.group()) for match in found]

    def within(self, start: int, end: int) -> tuple[int, int]:
        """First and one past the last of the words that lie in the span."""
        first = bisect_left(self.spans, (start, start))
        last = bisect_right(self._ends, end)
        return (first, last) if first < last else (0, 0)

    def find(self, words: Sequence[str], start: int = 0, end: int | None = None) -> list[int]:
        """Where this run of folded words begins in the span, as numbers of words."""
        first, last = self.within(start, self.length if end is None else end)
        size = len(words)
        wanted = list(words)
        return [
            n
            for n in range(first, last - size + 1)
            if self.folded[n] == wanted[0] and self.folded[n : n + size] == wanted
        ]

    def print_at(self, first: int, size: int) -> str:
        joined = " ".join(self.folded[first : first + size])
        return hashlib.sha256(joined.encode()).hexdigest()[:16]


def anchored(words: Words, start: int, end: int) -> Anchor:
    """The span with the prints by which it will be found again."""
    first, last = words.within(start, end)
    size = min(EDGE, last - first)
    return Anchor(
        start, end, last - first, words.print_at(first, size), words.print_at(last - size, size)
    )


def locate(anchor: Anchor, words: Words) -> tuple[int, int] | None:
    """The place in this text: where it was, or where its edges are now; None when it is gone."""
    if anchor.end is None:
        return 0, words.length
    if anchored(words, anchor.start, anchor.end) == anchor:
        return anchor.start, anchor.end
    size = min(EDGE, anchor.words)
    if not size:
        return None
    length = anchor.end - anchor.start
    prints = [words.print_at(n, size) for n in range(len(words.spans) - size + 1)]
    heads = [words.spans[n][0] for n, p in enumerate(prints) if p == anchor.head]
    tails = [words.spans[n + size - 1][1] for n, p in enumerate(prints) if p == anchor.tail]
    if heads:
        start = min(heads, key=lambda place: abs(place - anchor.start))
        fitting = [t for t in tails if length <= 2 * (t - start) <= 4 * length]
        end = min(fitting, key=lambda place: abs(place - start - length), default=start + length)
        return start, min(end, words.length)
    if tails:
        end = min(tails, key=lambda place: abs(place - (anchor.end or 0)))
        return max(0, end - length), end
    return None


def contiguous(numbers: Sequence[int]) -> list[int]:
    """The first unbroken run of ascending numbers."""
    run = list(numbers[:1])
    for before, number in pairwise(numbers):
        if number != before + 1:
            break
        run.append(number)
    return run
