"""Which words of a passage an answer repeats, so that they can be shown where they stand.

Only what stands in the passage exactly once counts: what could be meant in two places is shown in none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from chatbot.chat import facts
from chatbot.chat.citations import MARKER, cited_numbers, split_thinking
from chatbot.text import nfc, sentences

_LEAST_WORDS = 3
_LIST_MARKER = re.compile(r"^\s*(?:[-*+•]|\d{1,3}[.)])\s+")
_DRESSING = re.compile(r"\*\*|__|~~|`")
_AROUND = " \t.…“”\"«»‘’'"


def quoted_spans(answer: str, number: int, passage: str) -> list[tuple[int, int]]:
    """Start and end in `passage` of what the answer quotes where it cites [number], in order."""
    found: list[tuple[int, int]] = []
    for words in sorted(set(_candidates(split_thinking(answer)[1], number)), key=len, reverse=True):
        span = _only_place(words, passage)
        if span and not any(span[0] < end and start < span[1] for start, end in found):
            found.append(span)
    return sorted(found)


def _candidates(answer: str, number: int) -> Iterator[str]:
    for block in _blocks(nfc(answer)):
        if number not in cited_numbers(block):
            continue
        for line in block.split("\n"):
            bare = _DRESSING.sub("", _LIST_MARKER.sub("", MARKER.sub("", line)))
            yield from (words for _start, _end, words in facts.quotations(bare))
            yield from (bare[start:end] for start, end in sentences(bare))
            yield bare


def _blocks(answer: str) -> Iterator[str]:
    """Lines with what is set below them: a list cites its passage once."""
    block: list[str] = []
    for line in answer.split("\n"):
        if block and not line.startswith("  "):
            yield "\n".join(block)
            block = []
        block.append(line)
    yield "\n".join(block)


def _only_place(words: str, passage: str) -> tuple[int, int] | None:
    """Where the passage holds these words, white space aside; None when nowhere or more than once."""
    parts = words.strip(_AROUND).split()
    if len(parts) < _LEAST_WORDS:
        return None
    pattern = re.compile(r"(?<!\w)" + r"\s+".join(map(re.escape, parts)) + r"(?!\w)")
    places = [match.span() for match in pattern.finditer(passage)]
    return places[0] if len(places) == 1 else None
