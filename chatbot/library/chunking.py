"""Cuts a document into passages that together are the document, character by character.

A passage follows the document's own structure: it never mixes two articles or two headed sections, a
short article stays whole, a long one is cut before a clause, point, paragraph or sentence. `path` says
where it stands ('Chương II › Điều 20. Tên điều › Khoản 1') and goes before the text when it is searched.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from chatbot.library.legal import ARTICLE, CLAUSE, POINT, QUOTED, Mark, in_one_line, legal_marks
from chatbot.text import sentences
from chatbot.types import Heading, PageText

CHUNKER_VERSION = "2"
"""Part of every index's stamp: rises when the same document would be cut differently."""

LIMIT = 1200
TARGET = 1000
"""Characters: pieces are gathered up to TARGET; what is within LIMIT stays whole."""

_SMALLEST = 150
"""Characters: below this, passages are not cut smaller for an embedder's sake."""

Fits = Callable[[str, str], bool]
"""Whether a passage with that path and text is short enough to be read as a whole."""

SEPARATOR = " › "
_MOST_LEVELS = 6
_NUMBERED = re.compile(r"((?:\d{1,2}\.){0,3}\d{1,2})(\.?)\s+(\S.*)")
_ROMAN = re.compile(r"([IVX]{1,5})\.\s+(\S.*)")
_NAMED = re.compile(r"(?:Chapter|CHAPTER|Section|SECTION|Part|PART|Appendix|APPENDIX|Annex|ANNEX)\s+(?:\d{1,3}|[IVXLC]+|[A-Z])\b[.:]?\s?(.*)")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Draft:
    """A passage before it has an id: `text` is the document's text from `start` to `end`."""

    text: str
    start: int
    end: int
    page: int | None
    path: str


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int
    end: int
    short: str
    """Its own label below the section, such as 'Khoản 1'; '' for the section's opening words."""


def document_text(pages: Sequence[PageText]) -> str:
    """The document's text: its pages one after another, with nothing between them."""
    return "".join(page.text for page in pages)


def cut(
    pages: Sequence[PageText], headings: Sequence[Heading] = (), fits: Fits | None = None
) -> list[Draft]:
    """The document's passages in order; joined, their texts are exactly the document's text.

    A passage's page is the one on which it starts. Empty documents have none. Where passages of LIMIT
    characters do not fit, their section is cut smaller.
    """
    text = document_text(pages)
    if not text.strip():
        return []
    starts = _page_starts(pages)
    marks = legal_marks(text) or _general_marks(text, headings)
    drafts: list[Draft] = []
    for start, end, path, inner in _sections(text, marks):
        for piece in _pieces(text, start, end, path, inner, fits):
            label = _label(path, piece)
            number = pages[bisect_right(starts, _first_ink(text, piece)) - 1].number
            drafts.append(
                Draft(text[piece.start : piece.end], piece.start, piece.end, number, label)
            )
    return drafts


# --- sections: what no passage may cross -----------------------------------------------------


def _sections(text: str, marks: list[Mark]) -> Iterator[tuple[int, int, str, list[Mark]]]:
    """(start, end, path, marks inside) of each article or headed section, in order, without gaps."""
    borders = [m for m in marks if m.rank <= ARTICLE]
    inner = [m for m in marks if m.rank > ARTICLE]
    inner_starts = [m.start for m in inner]
    open_marks: list[Mark] = []
    start = 0
    for place, mark in enumerate(borders):
        if place == 0 and text[: mark.start].strip():
            yield 0, mark.start, "", []
            start = mark.start
        open_marks = [*(m for m in open_marks if m.rank < mark.rank), mark]
        end = borders[place + 1].start if place + 1 < len(borders) else len(text)
        deeper_follows = place + 1 < len(borders) and borders[place + 1].rank > mark.rank
        if deeper_follows and not text[mark.end : end].strip():
            continue  # a bare heading opens the passage of what stands below it
        path = SEPARATOR.join(m.label for m in open_marks[-_MOST_LEVELS:])
        first, last = bisect_right(inner_starts, mark.start), bisect_right(inner_starts, end - 1)
        yield start, end, path, inner[first:last]
        start = end
    if start < len(text):
        yield start, len(text), "", []


def _general_marks(text: str, headings: Sequence[Heading]) -> list[Mark]:
    """Headings of a document that is no law: those the source marks, else numbered lines that look like one."""
    if headings:
        marks = [
            Mark(h.start, h.end, h.level, label, label)
            for h in headings
            if (label := in_one_line(text[h.start : h.end].lstrip("#= ").rstrip("# ")))
        ]
    else:
        marks = list(_numbered_marks(text))
    taken = {m.start for m in marks}
    clauses = (m for m in _clause_marks(text) if m.start not in taken)
    return sorted([*marks, *clauses], key=lambda m: m.start) if marks else []


def _numbered_marks(text: str) -> Iterator[Mark]:
    lines = _lines(text)
    for place, (start, line) in enumerate(lines):
        after = lines[place + 1][1] if place + 1 < len(lines) else ""
        if len(line) > 90 or line.endswith((".", ";", ",", ":")) or not after:
            continue
        label = in_one_line(line)
        if (match := _NAMED.fullmatch(line)) and not match.group(1)[:1].islower():
            yield Mark(start, start + len(line), 1, label, label)
        elif (match := _ROMAN.fullmatch(line)) and match.group(2)[0].isupper():
            yield Mark(start, start + len(line), 2, label, label)
        elif (match := _NUMBERED.fullmatch(line)) and match.group(3)[0].isupper():
            number, dot, _ = match.groups()
            depth = number.count(".")
            # "1. Milk" followed by "2. Bread" is a list; a heading has words of its own below it.
            sibling = _NUMBERED.match(after)
            if (depth or dot) and not (sibling and sibling.group(1).count(".") <= depth):
                yield Mark(start, start + len(line), 3 + depth, label, label)


def _clause_marks(text: str) -> Iterator[Mark]:
    """Numbered clauses such as '3.2 The company …' below a heading: good places to cut, good to cite."""
    for start, line in _lines(text):
        match = _NUMBERED.fullmatch(line)
        if match and "." in match.group(1) and len(match.group(3)) > 20:
            yield Mark(start, start, CLAUSE, match.group(1), match.group(1))


# --- pieces: where a long section may be cut ---------------------------------------------------


def _pieces(
    text: str, start: int, end: int, path: str, inner: list[Mark], fits: Fits | None
) -> list[_Piece]:
    """The section's passages, as long as they may be."""
    limit = LIMIT
    while True:
        pieces = list(_gathered(text, _cut_section(text, start, end, inner, limit), limit))
        small = limit <= _SMALLEST or fits is None
        if small or all(fits(_label(path, p), text[p.start : p.end]) for p in pieces):  # type: ignore[misc]
            return pieces
        limit = max(_SMALLEST, limit * 3 // 4)


def _label(path: str, piece: _Piece) -> str:
    return SEPARATOR.join(p for p in (path, piece.short) if p)


def _cut_section(text: str, start: int, end: int, inner: list[Mark], limit: int) -> list[_Piece]:
    """The section in pieces of at most `limit` characters, cut at the highest border that helps."""
    if end - start <= limit:
        return [_Piece(start, end, "")]
    pieces: list[_Piece] = []
    for piece in _at_marks(start, end, [m for m in inner if m.rank == CLAUSE], ""):
        if piece.end - piece.start <= limit:
            pieces.append(piece)
            continue
        points = [
            m for m in inner if m.rank in (POINT, QUOTED) and piece.start < m.start < piece.end
        ]
        for part in _at_marks(piece.start, piece.end, points, piece.short):
            pieces.extend(
                _Piece(s, e, part.short) for s, e in _at_words(text, part.start, part.end, limit)
            )
    return pieces


def _at_marks(start: int, end: int, marks: list[Mark], above: str) -> Iterator[_Piece]:
    borders = [start, *(m.start for m in marks), end]
    labels = [above, *(SEPARATOR.join(p for p in (above, m.short) if p) for m in marks)]
    for left, right, label in zip(borders, borders[1:], labels, strict=False):
        if right > left:
            yield _Piece(left, right, label)


def _at_words(text: str, start: int, end: int, limit: int) -> Iterator[tuple[int, int]]:
    """Spans of at most `limit` characters, cut at paragraphs, else sentences, else words, else anywhere."""
    while end - start > limit:
        right = start + _best_cut(text[start : start + limit * TARGET // LIMIT])
        yield start, right
        start = right
    yield start, end


def _best_cut(window: str) -> int:
    """The last good place to end a passage in the second half of the window."""
    least = len(window) // 2
    paragraph = window.rfind("\n") + 1
    sentence = max((start for start, _ in sentences(window)), default=0)
    space = window.rfind(" ") + 1
    return next((place for place in (paragraph, sentence, space) if place > least), len(window))


def _gathered(text: str, pieces: list[_Piece], limit: int) -> Iterator[_Piece]:
    """Neighbouring pieces of one section joined while they stay within five sixths of the limit.

    None is only white space.
    """
    target = limit * TARGET // LIMIT
    group: list[_Piece] = []
    inked = False
    for piece in pieces:
        ink = not text[piece.start : piece.end].isspace()
        if inked and ink and piece.end - group[0].start > target:
            yield _as_one(group)
            group, inked = [], False
        group.append(piece)
        inked = inked or ink
    if group:
        yield _as_one(group)


def _as_one(group: list[_Piece]) -> _Piece:
    labels = list(dict.fromkeys(p.short for p in group if p.short))
    labels = [a for a in labels if not any(b.startswith(a + SEPARATOR) for b in labels)]
    label = labels[0] if labels else ""
    if len(labels) > 1:
        first, last = labels[0].split(SEPARATOR), labels[-1].split(SEPARATOR)
        same = sum(a == b for a, b in zip(first, last, strict=False))
        label = SEPARATOR.join([*first[:same], _range(first[same:], last[same:])])
    return _Piece(group[0].start, group[-1].end, label)


def _range(first: list[str], last: list[str]) -> str:
    """'Khoản 1–3' for 'Khoản 1' and 'Khoản 3'."""
    if not first:
        return SEPARATOR.join(last)
    word, _, number = first[0].rpartition(" ")
    other, _, until = last[0].rpartition(" ") if last else ("", "", "")
    if last and word == other:
        return f"{word} {number}–{until}".strip()
    return f"{first[0]} – {last[0]}" if last else first[0]


# --- pages and lines ---------------------------------------------------------------------------


def _page_starts(pages: Sequence[PageText]) -> list[int]:
    starts, offset = [], 0
    for page in pages:
        starts.append(offset)
        offset += len(page.text)
    return starts


def _first_ink(text: str, piece: _Piece) -> int:
    """The first character that can be seen, so that white space left on a page does not count."""
    match = re.compile(r"\S").search(text, piece.start, piece.end)
    return match.start() if match else piece.start


def _lines(text: str) -> list[tuple[int, str]]:
    found, start = [], 0
    for line in text.split("\n"):
        if line.strip():
            found.append((start + len(line) - len(line.lstrip()), line.strip()))
        start += len(line) + 1
    return found
