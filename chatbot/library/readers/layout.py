"""From lines on pages to text: lines joined to paragraphs, headings told by size, running heads removed."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from statistics import median

from chatbot.library.legal import opens_item
from chatbot.library.readers.cleaning import clean_line
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


@dataclass(slots=True)
class Line:
    """One line as drawn; points, the origin at the page's lower left corner."""

    text: str
    left: float
    right: float
    bottom: float
    top: float
    column_left: float = 0.0
    column_right: float = 0.0

    @property
    def height(self) -> float:
        return max(self.top - self.bottom, 0.1)


@dataclass(slots=True)
class Page:
    height: float
    lines: list[Line]
    has_pictures: bool
    lost: bool = False


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
    """Write the pages' paragraphs; one that goes on over a page border is joined with a space."""
    for page in pages:
        _find_columns(page.lines)
    body = _body_height(pages)
    words = _all_words(pages)
    filled = [p for p in pages if p.lines]
    following = dict(zip(map(id, filled), filled[1:], strict=False))
    for number, page in enumerate(pages, 1):
        paragraphs = _paragraphs(page.lines)
        for place, paragraph in enumerate(paragraphs):
            text = _joined(paragraph, words)
            level = _heading_level(paragraph, text, body)
            end = "\n"
            if place == len(paragraphs) - 1 and not level and id(page) in following:
                after = following[id(page)].lines[0]
                end = " " if _continues(paragraph[-1], after, same_page=False) else "\n"
            composer.paragraph(text, level, end)
        composer.end_page(number)


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


def _joined(paragraph: list[Line], words: frozenset[str]) -> str:
    text = paragraph[0].text
    for line in paragraph[1:]:
        hyphen = text[-1] in _HYPHENS or (
            _WORD_END.search(text[-_TAIL:]) and line.text[0].islower()
        )
        text = f"{text[:-1]}\x02{line.text}" if hyphen else f"{text} {line.text}"
    return clean_line(_HYPHENATED.sub(lambda m: _without_hyphen(m[1], m[2], words), text))


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
