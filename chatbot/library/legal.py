"""Where a legal text has its parts, chapters, sections, articles, clauses and points.

Vietnamese: Phần › Chương › Mục › Tiểu mục › Điều › Khoản › Điểm, and after them Phụ lục › Mẫu số. English: Part › Chapter › Section ›
Article, with clauses numbered 1. or 1.1 and points (a). A heading is a line of its own; a mention of
an article inside a sentence is not one, wherever the line happened to break.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

PART, CHAPTER, SECTION, SUBSECTION, ARTICLE, CLAUSE, QUOTED, POINT = range(10, 90, 10)


@dataclass(frozen=True, slots=True)
class Mark:
    """The start of one piece of structure: `start` is the first character of its line, `end` of its heading.

    Lower ranks stand above higher ones; `label` names it ('Điều 20. Tên điều'), `short` without its title.
    """

    start: int
    end: int
    rank: int
    label: str
    short: str


class _Line(NamedTuple):
    start: int
    text: str


_NUMERAL = r"(?:[IVXLCDM]+|\d{1,3}[A-Za-z]?)"
_ORDINAL = r"(?:THỨ\s+\w+(?:\s+\w+)?|thứ\s+\w+(?:\s+\w+)?)"
_UPPER = (
    (PART, re.compile(rf"(PHẦN|Phần|PART|Part)\s+({_ORDINAL}|{_NUMERAL})\b(.*)")),
    (PART, re.compile(rf"(PHỤ LỤC|Phụ lục|ANNEX|Annex|APPENDIX|Appendix|SCHEDULE|Schedule)(?:\s+(?:số\s+)?({_NUMERAL}|[A-Z])\b)?(.*)")),
    (CHAPTER, re.compile(r"((?:MẪU|Mẫu)\s+(?:SỐ|số))\s+(\d{1,3}[A-Za-zđ]?(?:[/.-][\w-]{1,8})*)((?:\s*[.:].*)?)")),
    (CHAPTER, re.compile(rf"(CHƯƠNG|Chương|CHAPTER|Chapter)\s+({_NUMERAL})\b(.*)")),
    (SUBSECTION, re.compile(rf"(TIỂU MỤC|Tiểu mục)\s+({_NUMERAL})\b(.*)")),
    (SECTION, re.compile(rf"(MỤC|Mục|SECTION|Section)\s+({_NUMERAL})\b(.*)")),
)  # fmt: skip
_ARTICLE = re.compile(
    r"([“\"]?)\s*(Điều|ĐIỀU|Article|ARTICLE)\s+(\d{1,4}[a-zđA-Z]?)\s*(?:([.:])\s*(.*)|$)"
)
_CLAUSE = re.compile(r"(\d{1,3})\.\s+\S")
_SUBCLAUSE = re.compile(r"(\d{1,3}(?:\.\d{1,3}){1,3})\.?\s+\S")
_POINT = re.compile(r"\(?([a-zđ]{1,2})\)\s*\S")
_ITEM = re.compile(
    rf"(?:[“\"]?\s*(?:Điều|ĐIỀU|Article|ARTICLE)\s+\d+[a-zđ]?\s*[.:]|\d{{1,3}}(?:\.\d{{1,3}})*[.)]\s|\d{{1,3}}(?:\.\d{{1,3}})+\s"
    rf"|\(?[a-zđ]{{1,2}}\)\s|[-–—•+*]\s"
    rf"|(?:Phần|Chương|Mục|Tiểu mục|PHẦN|CHƯƠNG|MỤC|TIỂU MỤC|PHỤ LỤC|PART|CHAPTER|SECTION|Part|Chapter|Section)\s+(?:{_NUMERAL}|{_ORDINAL})(?:\s*$|\s*[.:–-]\s|\s+[^\Wa-z_]{{2,}}))"
)
# A line that ends like this goes on: what follows is a mention, not a heading.
_UNFINISHED = re.compile(
    r"(?:,|\b(?:điểm|khoản|điều)\s+\w{1,3}|\b(?:tại|theo|của|và|hoặc|với|từ|đến|các|điểm|khoản|quy định|sửa đổi|bổ sung|bãi bỏ|thay thế|"
    r"and|or|of|to|in|under|by|with|see|from|the))$",
    re.IGNORECASE,
)
_ANNEX_WORDS = ("phụ lục", "mẫu", "annex", "appendix", "schedule")
_ANNEX_TITLE = re.compile(r"([IVX]{1,5}|[A-H])\s*[.)]\s+(\S.*)")
_AMENDS = re.compile(r"(?:sửa đổi|bổ sung|thay thế)\b", re.IGNORECASE)
_FORMS_APART = 300
"""Characters: forms (Mẫu số) that follow each other closer are lines of a list, not forms."""
_CONTENTS_LINE = re.compile(r"(?:\.{4,}|…{2,}|\s\.\s\.\s\.)\s*\d+$")
_TITLE_LENGTH = 110
_TAIL = 80
"""How much of a line's end is looked at; a line may be millions of characters long."""


def opens_item(line: str) -> bool:
    """Whether the line begins like an article, clause, point, list item or a heading above them."""
    return bool(_ITEM.match(line))


def legal_marks(text: str) -> list[Mark]:
    """The structure of a legal text in order; empty when it has fewer than two articles."""
    marks = _Scan(text).run()
    return marks if sum(m.rank == ARTICLE for m in marks) >= 2 else []


def in_one_line(title: str) -> str:
    """A title as a path shows it: one line, at most about a hundred characters."""
    title = " ".join(title.split()).rstrip(" .:;")
    if len(title) <= _TITLE_LENGTH:
        return title
    return title[:_TITLE_LENGTH].rsplit(" ", 1)[0].rstrip(" ,;:") + "…"


class _Scan:
    """One pass over the lines, remembering which article, clause and quotation is open."""

    def __init__(self, text: str) -> None:
        self._lines = _lines(text)
        self._marks: list[Mark] = []
        self._inside_article = False
        self._clause = 0
        self._point = ""
        self._article = 0
        self._quotes = 0
        self._amending = False
        self._annex = False
        self._after_text = False

    def run(self) -> list[Mark]:
        for place, line in enumerate(self._lines):
            if not _CONTENTS_LINE.search(line.text[-_TAIL:]):
                before = self._lines[place - 1].text if place else ""
                self._visit(place, line, before)
            self._quotes = max(0, self._quotes + line.text.count("“") - line.text.count("”"))
        forms = [m for m in self._marks if m.short.lower().startswith("mẫu")]
        listed = {id(m) for m, after in pairwise(forms) if after.start - m.start < _FORMS_APART}
        return [m for m in self._marks if id(m) not in listed]

    def _visit(self, place: int, line: _Line, before: str) -> None:
        if match := _ARTICLE.match(line.text):
            # A preamble ends with a comma before the first article.
            first = not self._article and match.group(3) == "1" and before.endswith(",")
            if first or not _goes_on(before):
                self._open_article(line, match, before)
            return
        if not self._quotes and self._open_upper(place, line, before):
            return
        if self._annex and not self._quotes and (match := _ANNEX_TITLE.match(line.text)):
            if match.group(2).isupper():
                self._clause = 0
                self._add(line, CLAUSE, in_one_line(f"{match.group(1)}. {match.group(2)}"))
            return
        if not self._inside_article or self._quotes:
            return
        if (match := _CLAUSE.match(line.text)) and int(match.group(1)) == self._clause + 1:
            self._clause += 1
            self._point = ""
            self._add(line, CLAUSE, f"{_words_for(self._marks)[0]} {self._clause}")
        elif match := _SUBCLAUSE.match(line.text):
            self._add(line, POINT, match.group(1))
        elif match := _POINT.match(line.text):
            self._add(line, POINT, f"{_words_for(self._marks)[1]} {match.group(1)}")

    def _open_article(self, line: _Line, match: re.Match[str], before: str) -> None:
        quote, word, number, _, title = match.groups()
        digits = int(re.match(r"\d+", number)[0])  # type: ignore[index]
        told = self._quotes > 0 or (self._amending and before.endswith("như sau:"))
        quoted = bool(quote) or (told and digits != self._article + 1)
        short = f"{word.capitalize()} {number}"
        label = in_one_line(f"{short}. {title}") if title else short
        if quoted:
            self._add(line, QUOTED, f"“{label}”", f"“{short}”")
            return
        self._amending = bool(_AMENDS.match(title or ""))
        self._annex = False
        self._quotes = 0
        self._inside_article = True
        self._article = digits
        self._clause = 0
        self._add(line, ARTICLE, label, short)

    def _open_upper(self, place: int, line: _Line, before: str) -> bool:
        for rank, pattern in _UPPER:
            match = pattern.fullmatch(line.text)
            if not match or not _is_title(match.group(3)):
                continue
            if _goes_on(before) and not self._stands_alone(place, match.group(3)):
                continue
            word, number, rest = match.groups()
            in_text = self._inside_article and not self._after_text
            if in_text and rest.strip() and word.lower().startswith("mẫu"):
                continue  # an article lists its forms
            short = (
                f"{word.capitalize()} {_numeral(number)}".strip() if number else word.capitalize()
            )
            end = line.start + len(line.text)
            if not rest.strip(" .:–-"):
                end = self._end_of_title(place)
            self._marks.append(Mark(line.start, end, rank, short, short))
            self._inside_article = False
            self._quotes = 0
            self._annex = word.lower().startswith(_ANNEX_WORDS)
            self._after_text = self._after_text or self._annex
            if self._annex or word.lower() in ("phần", "part"):
                self._article = 0
            return True
        return False

    def _stands_alone(self, place: int, rest: str) -> bool:
        """Whether the line is 'Chương I' and nothing else, with a title in capitals below it."""
        below = self._lines[place + 1].text if place + 1 < len(self._lines) else ""
        return not rest.strip() and below.isupper()

    def _end_of_title(self, place: int) -> int:
        """A chapter's title stands on the one to three lines below its number."""
        line = self._lines[place]
        end = line.start + len(line.text)
        for below in self._lines[place + 1 : place + 4]:
            if (
                opens_item(below.text)
                or below.text.endswith((".", ";", ":"))
                or len(below.text) > 160
            ):
                break
            if below.text != below.text.upper() and end != line.start + len(line.text):
                break
            end = below.start + len(below.text)
        return end

    def _add(self, line: _Line, rank: int, label: str, short: str = "") -> None:
        end = line.start + (len(line.text) if rank == ARTICLE else 0)
        self._marks.append(Mark(line.start, end, rank, label, short or label))


# --- what a text points to ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reference:
    """A place that a text points to; `start` and `end` are the offsets of the words that name it.

    `article` is '' for "this article" (khoản 2 Điều này). Of the document pointed to, `number` is its
    official number (100/2019/NĐ-CP) and `name` its name (Bộ luật Lao động), as far as the text tells;
    both are '' when the text points into its own document. Numbers as written, without 'Điều', 'khoản'.
    """

    start: int
    end: int
    article: str
    clause: str = ""
    point: str = ""
    number: str = ""
    name: str = ""

    @property
    def own(self) -> bool:
        """Whether it points into the document it stands in."""
        return not (self.number or self.name)


OFFICIAL_NUMBER = r"(?<![\d/-])\d{1,5}(?:/\s?\d{4})?/\s?[A-ZĐ][A-Za-zĐđƯư\d]*(?:[-–](?:\s{1,3}(?=[A-ZĐ]{2}))?[A-ZĐ][A-Za-zĐđƯư\d]*)*(?![\w–-])"
"""A pattern for 100/2019/NĐ-CP, 51/2024/QH15, 333/QĐ-BTC, also where a line broke inside."""


def official_number(written: str) -> str:
    """An official number as one compares it: no white space, plain hyphens."""
    return re.sub(r"\s", "", written).replace("–", "-")


_AND = r"(?:\s*[,;]\s*(?:và\s+|hoặc\s+)?|\s+(?:và|hoặc|and|or)\s+)"
_UNTIL = rf"(?:{_AND}|\s+đến\s+)"
_NO_COUNT = (
    r"(?!\s*[/%]|\s+(?:ngày|tháng|năm|giờ|người|lần|tuổi|đồng|triệu|tỷ|bản|trường|loại|nhóm)\b)"
)
_THEN = r"(?:[^\S\n]+|\s+(?!\d{1,3}[.)]\s))"  # "… điều\n1. Theo": a title's end, then a clause
_PLACE_NUMBER = rf"\d{{1,3}}(?:\.\d{{1,3}})?[a-zđ]?\b{_NO_COUNT}"
_LETTER = r"[a-zđ](?:\.?\d{1,2})?(?![\w)])"
_POINTS = rf"(?:các\s+)?[Đđ]iểm{_THEN}{_LETTER}(?:{_UNTIL}(?:điểm\s+)?{_LETTER}){{0,30}}+"
_CLAUSES = (
    rf"(?:các\s+)?[Kk]hoản\s+{_PLACE_NUMBER}(?:{_UNTIL}(?:khoản\s+)?{_PLACE_NUMBER}){{0,30}}+"
)
_ARTICLES = rf"(?:[Cc]ác\s+)?\b[Đđ]iều{_THEN}(?:này\b|{_PLACE_NUMBER}(?:{_UNTIL}(?:[Đđ]iều\s+)?{_PLACE_NUMBER})*+)"
_INSIDE = re.compile(rf"(?:(?P<points>{_POINTS})\s+)?(?P<clauses>{_CLAUSES})|(?P<alone>{_POINTS})")
_PLACE = re.compile(
    rf"(?P<inside>(?:\b(?:(?:{_POINTS}\s+)?{_CLAUSES}|{_POINTS})(?:{_AND}|\s+)){{0,12}}+)(?P<articles>{_ARTICLES})"
)
_KIND = (
    r"(?:Bộ\s+luật|Luật|Pháp\s+lệnh|Nghị\s+định|Nghị\s+quyết|Thông\s+tư\s+liên\s+tịch|Thông\s+tư"
    r"|Quyết\s+định|Chỉ\s+thị|Hiến\s+pháp|Quy\s+chế|Điều\s+lệ|Hợp\s+đồng|Quy\s+định|Phụ\s+lục)"
)
_NAME_ENDS = (
    "và|hoặc|thì|được|quy|ngày|năm|số|có|là|về|của|tại|này|đã|phải|để|khi|theo|nhưng|như|đối|với"
    "|bị|do|từ|đến|không|nêu|trên|sau|hiện|sửa|thuộc|cho|các"
)
_WHOSE = re.compile(
    rf"\s*,?\s*(?:(?:của|tại|thuộc|trong)\s+)?(?:(?P<this>{_KIND}\s+này\b)|(?P<kind>{_KIND})"
    rf"(?P<name>\s+[^\W\d_](?<=[A-ZĐÀ-Ỹ])[^\W\d_]*(?:\s+(?!(?:{_NAME_ENDS})\b)[^\W\d_]+)*)?"
    rf"(?:\s+(?:số\s*:?\s*)?(?P<number>{OFFICIAL_NUMBER}))?)"
)
_JOINED = re.compile(_AND)
_ITEMS = re.compile(
    r"(\bđến\s+)?(?:(?<=\s)(?:khoản|[Đđ]iều|điểm)\s+)?\b(\d+(?:\.\d+)?[a-zđ]?|[a-zđ](?:\.?\d{1,2})?)\b"
)
_ENGLISH = re.compile(
    r"\b(?:[Cc]lause\s+(\d{1,3})(?:\s*,|\s+of)\s+)?(?:Article|Section)\s+(\d{1,4}(?:\.\d{1,3})*[A-Z]?)\b"
)
_MOST_IN_A_RANGE = 30


def references(text: str) -> tuple[Reference, ...]:
    """Every article, clause and point that the text points to, in order; headings are not pointers.

    'điểm a, b khoản 1 Điều 5' gives two; 'Điều 5 đến Điều 7' gives three. A place named before another
    one belongs to the same document: 'Điều 3 và Điều 4 Nghị định số 100/2019/NĐ-CP'.
    """
    found: list[Reference] = []
    number = name = ""
    following = -1
    for place in reversed([m for m in _PLACE.finditer(text) if not _is_heading(text, m)]):
        end = place.end()
        whose = _WHOSE.match(text, end)
        if whose and (whose["this"] or whose["number"] or whose["name"]):
            end = whose.end()
            number = official_number(whose["number"] or "")
            name = " ".join(f"{whose['kind']}{whose['name']}".split()) if whose["name"] else ""
        elif not _JOINED.fullmatch(text, end, following):
            number = name = ""
        following = place.start()
        found.extend(
            Reference(place.start(), end, *parts, number, name) for parts in reversed(_parts(place))
        )
    english = () if found else (m for m in _ENGLISH.finditer(text) if not _is_heading(text, m))
    found.extend(Reference(m.start(), m.end(), m[2], m[1] or "") for m in reversed([*english]))
    return tuple(reversed(found))


def _parts(place: re.Match[str]) -> list[tuple[str, str, str]]:
    """(article, clause, point) of each thing that one place names; the clauses are the first article's."""
    articles = _listed(place["articles"]) or [""]
    inside: list[tuple[str, str, str]] = []
    for match in _INSIDE.finditer(place["inside"]):
        clauses = _listed(match["clauses"] or "") or [""]
        letters = _listed(match["points"] or match["alone"] or "") or [""]
        inside += [(articles[0], clauses[0], letter) for letter in letters]
        inside += [(articles[0], clause, "") for clause in clauses[1:]]
    return [*(inside or [(articles[0], "", "")]), *((a, "", "") for a in articles[1:])]


def _listed(text: str) -> list[str]:
    """'1, 2 và khoản 5 đến khoản 7' as its numbers: 1, 2, 5, 6, 7; letters the same way."""
    found: list[str] = []
    for until, item in _ITEMS.findall(text):
        if until and found and found[-1].isdigit() and item.isdigit():
            first, last = int(found[-1]) + 1, int(item)
            found += map(str, range(first, min(last, first + _MOST_IN_A_RANGE)))
        found.append(item)
    return found


def _is_heading(text: str, place: re.Match[str]) -> bool:
    """Whether the place opens its line as 'Điều 5. Tên điều' does."""
    start = text.rfind("\n", 0, place.start()) + 1
    line = text[start : start + 200].split("\n", 1)[0].strip()
    if text[start : place.start()].strip(' \t“"') or not _ARTICLE.match(line):
        return False
    before = text[:start].rstrip()
    return not _goes_on(before[before.rfind("\n") + 1 :])


def _goes_on(line: str) -> bool:
    """Whether the line's sentence is unfinished; a title in capitals is never one."""
    return bool(_UNFINISHED.search(line[-_TAIL:])) and not line.isupper()


def _is_title(rest: str) -> bool:
    """What follows 'Chương II' in its line: nothing, a mark and a title, or capitals."""
    rest = rest.strip()
    if not rest:
        return True
    if rest[0] in ".:–-—":
        return len(rest) < 200
    letters = [c for c in rest if c.isalpha()]
    return bool(letters) and sum(c.isupper() for c in letters) > 0.8 * len(letters)


def _numeral(number: str) -> str:
    return number.lower() if number[:3].upper() == "THỨ" else number


def _words_for(marks: list[Mark]) -> tuple[str, str]:
    article = next((m for m in reversed(marks) if m.rank == ARTICLE), None)
    english = article is not None and article.short.startswith("Article")
    return ("Clause", "Point") if english else ("Khoản", "Điểm")


def _lines(text: str) -> list[_Line]:
    """The lines with something on them, white space at both ends left out."""
    found = []
    start = 0
    for line in text.split("\n"):
        bare = line.strip()
        if bare:
            found.append(_Line(start + len(line) - len(line.lstrip()), bare))
        start += len(line) + 1
    return found
