"""From lines on pages to text: lines joined to paragraphs, headings told by size, running heads removed."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from chatbot.library.anchors import pack
from chatbot.library.legal import opens_item
from chatbot.library.readers.cleaning import WORD, clean, clean_line
from chatbot.library.readers.composing import Composer

_HYPHENS = "\x02\ufffe\u00ad"  # what PDFium puts for a hyphen at the end of a line
_DIGITS = re.compile(r"\d+")
_PAGE_NUMBER = re.compile(
    r"\W*(?:(?:trang|page|tr\.?|p\.?)\s*)?(\d{1,5})(?:\s*(?:/|of|trên)\s*\d{1,5})?\W*", re.I
)
_TERMINAL = (".", ";", ":", "!", "?", "”", '"', "…", "./.")
_REFERENCE_OPEN = re.compile(r"(?:\b(?:Điều|điều|khoản|Khoản|điểm|số|Chương|Mục|Article|Section|Chapter|and|và|or|hoặc|theo|tại|của|các)|,)$")  # fmt: skip
_HYPHENATED = re.compile(rf"(\w{{0,60}})[{_HYPHENS}](\w{{0,60}})")
_TAIL = 80
_WORD_END = re.compile(r"([^\W\d_]+)-$")

Place = tuple[float, float, float, float]
"""Left, right, bottom, top in points; the origin is the lower left corner of the page as it is shown."""


@dataclass(slots=True)
class Line:
    """One line as drawn; its place as in Place."""

    text: str
    left: float
    right: float
    bottom: float
    top: float
    places: list[Place] = field(default_factory=list)
    """Where each of its words stands."""
    column_left: float = 0.0
    column_right: float = 0.0

    def words(self) -> tuple[list[str], list[Place]]:
        """Its words and where they stand; the whole line's place where that is not known of each."""
        found = WORD.findall(self.text)
        if len(self.places) == len(found):
            return found, self.places
        return found, [(self.left, self.right, self.bottom, self.top)] * len(found)

    @property
    def height(self) -> float:
        return max(self.top - self.bottom, 0.1)


@dataclass(slots=True)
class Page:
    """The lines of a page and its size in points; `turned` so many degrees clockwise to be read."""

    width: float
    height: float
    lines: list[Line]
    has_pictures: bool
    lost: bool = False
    turned: int = 0

    def parts(self, places: Sequence[Place]) -> tuple[list[float], ...]:
        """Lefts, tops, rights and bottoms as parts of the page as it lies in the file."""
        width, height = max(self.width, 0.1), max(self.height, 0.1)
        left = [place[0] / width for place in places]
        right = [place[1] / width for place in places]
        bottom = [1 - place[2] / height for place in places]
        top = [1 - place[3] / height for place in places]
        for _quarter in range(self.turned // 90):
            left, top, right, bottom = top, [1 - p for p in right], bottom, [1 - p for p in left]
        return left, top, right, bottom


def remove_running_lines(pages: list[Page]) -> None:
    """Drop the lines at the top and bottom edges that return, but for their numbers, on three pages or more."""
    seen: defaultdict[str, set[int]] = defaultdict(set)
    steps: Counter[int] = Counter()
    for number, page in enumerate(pages):
        for line in _edge_lines(page):
            if match := _PAGE_NUMBER.fullmatch(line.text[:_TAIL]):
                steps[int(match.group(1)) - number] += 1
            else:
                seen[_pattern(line.text)].add(number)

    def returns(number: int, line: Line) -> bool:
        if match := _PAGE_NUMBER.fullmatch(line.text[:_TAIL]):
            return steps[int(match.group(1)) - number] >= 3
        return len(seen[_pattern(line.text)]) >= 3

    kept = [
        [line for line in page.lines if line not in edge or not returns(number, line)]
        for number, page in enumerate(pages)
        for edge in [_edge_lines(page)]
    ]
    # Slides and forms may consist of such lines; what is most of a document is no running head.
    if sum(map(len, kept)) * 2 > sum(len(page.lines) for page in pages):
        for page, lines in zip(pages, kept, strict=True):
            page.lines = lines


def _edge_lines(page: Page) -> list[Line]:
    top, bottom = 0.88 * page.height, 0.10 * page.height
    return [line for line in page.lines if line.bottom > top or line.top < bottom]


def _pattern(text: str) -> str:
    return _DIGITS.sub("#", " ".join(text.split())).strip("# ")


def compose(pages: list[Page], composer: Composer) -> None:
    """Write the pages' paragraphs with their words' places; one that goes on over a page border is joined
    with a space."""
    for page in pages:
        _find_columns(page.lines)
    body = _body_height(pages)
    words = _all_words(pages)
    filled = [p for p in pages if p.lines]
    following = dict(zip(map(id, filled), filled[1:], strict=False))
    for number, page in enumerate(pages, 1):
        paragraphs = _paragraphs(page.lines)
        starts: list[int] = []
        ends: list[int] = []
        places: list[Place] = []
        for place, paragraph in enumerate(paragraphs):
            text, spans, found = _joined(paragraph, words)
            level = _heading_level(paragraph, text, body)
            end = "\n"
            if place == len(paragraphs) - 1 and not level and id(page) in following:
                after = following[id(page)].lines[0]
                end = " " if _continues(paragraph[-1], after, same_page=False) else "\n"
            first = composer.page_length
            composer.paragraph(text, level, end)
            starts += [first + start for start, _ in spans]
            ends += [first + end for _, end in spans]
            places += found
        composer.end_page(number, pack(starts, ends, page.parts(places)))


def _find_columns(lines: list[Line]) -> None:
    """Tell every line the left and right edge of the block of text it stands in."""
    for place, line in enumerate(lines):
        near = lines[max(0, place - 12) : place + 13]
        block = [
            o for o in near
            if min(o.right, line.right) - max(o.left, line.left) > 0.3 * min(o.right - o.left, line.right - line.left)
        ]  # fmt: skip
        line.column_left = min((o.left for o in block), default=line.left)
        line.column_right = max((o.right for o in block), default=line.right)


def _body_height(pages: list[Page]) -> float:
    heights = [line.height for page in pages for line in page.lines if len(line.text) > 20]
    return median(heights) if heights else 0.0


def _all_words(pages: list[Page]) -> frozenset[str]:
    return frozenset(
        word
        for page in pages
        for line in page.lines
        for word in re.findall(r"[\w-]+", line.text.lower())
    )


def _paragraphs(lines: list[Line]) -> list[list[Line]]:
    paragraphs: list[list[Line]] = []
    for line in lines:
        if paragraphs and _continues(paragraphs[-1][-1], line):
            paragraphs[-1].append(line)
        else:
            paragraphs.append([line])
    return paragraphs


def _continues(line: Line, after: Line, *, same_page: bool = True) -> bool:
    """Whether `after` goes on with the sentence or paragraph of `line`."""
    if not 0.85 < after.height / line.height < 1.18:
        return False
    if same_page:
        if after.bottom > line.top or line.bottom - after.top > 0.9 * line.height:
            return False  # another column, or a gap
        if abs(line.bottom - after.bottom) < 0.3 * line.height:
            return False  # beside it: another cell of a table
    if line.text[-1] in _HYPHENS:
        return True
    finished = line.text.endswith(_TERMINAL)
    if opens_item(after.text) and not (_REFERENCE_OPEN.search(line.text[-_TAIL:]) and not finished):
        return False
    width = max(line.column_right - line.column_left, 1.0)
    letter = (line.right - line.left) / max(len(line.text), 1)
    first_word = len(after.text.split(maxsplit=1)[0])
    full = line.right + (first_word + 1) * letter > line.column_right - 0.01 * width
    if after.text[0].islower() and not finished:
        return full or not same_page or line.right - line.left > 0.5 * width
    if not full:
        return False
    if not same_page:
        return not finished and after.left - after.column_left < 6
    indented = after.left - after.column_left > 6
    if indented:
        return abs(after.left - line.left) < 3 and not finished
    return True


def _joined(
    paragraph: list[Line], words: frozenset[str]
) -> tuple[str, list[tuple[int, int]], list[Place]]:
    """The paragraph as one clean line, the spans of its words in it, and their places.

    A word that was cut at the end of a line is two spans.
    """
    drawn: list[str] = []
    places: list[Place] = []
    cuts: dict[int, list[str]] = {}  # of a word that goes on in another line: its parts before
    for line in paragraph:
        found, where = line.words()
        places += where
        if drawn and found and _is_cut(drawn[-1], line.text):
            before = drawn.pop()[:-1]
            cuts.setdefault(len(drawn), []).append(before.rstrip(_HYPHENS).rpartition("\x02")[2])
            found = [f"{before}\x02{found[0]}", *found[1:]]
        drawn += found
    text = " ".join(drawn)
    if any(sign in text for sign in _HYPHENS):
        text = _HYPHENATED.sub(lambda m: _without_hyphen(m[1], m[2], words), text)
    text = clean_line(text)
    cleaned = text.split(" ")
    if len(cleaned) != len(drawn):  # a word of signs that are never seen
        return text, [], []
    spans = zip(_spans(cleaned, cuts), places, strict=True)
    lettered = [
        (span, place) for span, place in spans if span[0] < span[1]
    ]  # not a part of hyphens alone
    return text, [span for span, _ in lettered], [place for _, place in lettered]


def _spans(words: list[str], cuts: dict[int, list[str]]) -> Iterator[tuple[int, int]]:
    """Where the words stand in their line; of a word that was cut, each part."""
    start = 0
    for index, word in enumerate(words):
        end = start + len(word)
        for part in cuts.get(index, ()):
            stop = min(start + len(clean(part)), end)
            stop += word.startswith("-", stop - end + len(word)) and stop < end
            yield start, stop
            start = stop
        yield start, end
        start = end + 1


def _is_cut(word: str, after: str) -> bool:
    """Whether a word at a line's end goes on at the beginning of the next line."""
    return word[-1] in _HYPHENS or bool(_WORD_END.search(word[-_TAIL:]) and after[0].islower())


def _without_hyphen(before: str, after: str, words: frozenset[str]) -> str:
    """Join a word cut at the end of a line; its hyphen stays where the document writes it elsewhere."""
    if not (before[-1:].islower() and after[:1].islower()):
        return f"{before}-{after}"  # 'TT-BLĐTBXH', '2023-2024'
    compound = f"{before}-{after}".lower()
    if compound in words and compound.replace("-", "") not in words:
        return f"{before}-{after}"
    return before + after


def _heading_level(paragraph: list[Line], text: str, body: float) -> int:
    """1 to 3 for short paragraphs in clearly larger letters, else 0."""
    if not body or len(text) > 160 or len(paragraph) > 3 or not any(c.isalpha() for c in text):
        return 0
    ratio = paragraph[0].height / body
    return 1 if ratio > 1.7 else 2 if ratio > 1.35 else 3 if ratio > 1.14 else 0
