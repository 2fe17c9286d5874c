"""What a sentence states that can be looked up: numbers, dates, references, names, quotations.

A number written out and one in digits are the same number, '50.000' and '50 000' too; a value with two
readings (1,500 as thousands or as a decimal) carries both. Offsets are characters of the text read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from chatbot.text import fold, has_marks, language_of
from chatbot.types import Language

_TOKEN = re.compile(
    r"[^\W\d]+\d\w*|\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?![\d\w])|\d+(?:[.,]\d+)*[½¼¾]?|[½¼¾]|[^\W\d]+(?:['’][^\W\d]+)?|\w+"
)


@dataclass(frozen=True, slots=True)
class Token:
    """A word or number; `word` is in lower case with its marks, `folded` without them."""

    start: int
    end: int
    word: str
    folded: str


@dataclass(frozen=True, slots=True)
class Number:
    """A number and its readings; `unit` is the folded word after it, '%' for per cent, '' for none."""

    start: int
    end: int
    values: frozenset[float]
    unit: str
    text: str
    certain: bool = True
    """False for a word that may be no number, such as 'năm' or 'ba': it can prove but need not be proved."""


@dataclass(frozen=True, slots=True)
class Date:
    """A day, month or year as far as the text tells; None is open."""

    start: int
    end: int
    day: int | None
    month: int | None
    year: int | None
    text: str
    swapped: bool = False
    """True when day and month may stand the other way round."""

    def within(self, other: Date) -> bool:
        """Whether the other date says all that this one says."""
        mine = (self.day, self.month, self.year)
        orders = [(other.day, other.month, other.year)]
        if other.swapped or self.swapped:
            orders.append((other.month, other.day, other.year))
        return any(
            all(m is None or m == o for m, o in zip(mine, order, strict=True)) for order in orders
        )


@dataclass(frozen=True, slots=True)
class Reference:
    """A place in a document's structure: kind ('article', 'clause', …) and its number, '16' or 'a'."""

    start: int
    end: int
    kind: str
    number: str
    text: str


_folded = lru_cache(maxsize=20_000)(fold)


def tokens(text: str) -> list[Token]:
    """The words and numbers of the text in order; '50 000' is one, 'twenty-five' two."""
    return [
        Token(m.start(), m.end(), m.group().lower(), _folded(m.group()))
        for m in _TOKEN.finditer(text)
    ]


# --- numbers --------------------------------------------------------------------------------

_VI_DIGIT = {
    "không": 0, "một": 1, "mốt": 1, "hai": 2, "ba": 3, "bốn": 4, "tư": 4, "năm": 5, "lăm": 5, "nhăm": 5,
    "sáu": 6, "bảy": 7, "bẩy": 7, "tám": 8, "chín": 9,
}  # fmt: skip
_VI_SCALE = {"nghìn": 1e3, "ngàn": 1e3, "triệu": 1e6, "tỷ": 1e9, "tỉ": 1e9}
_EN_SMALL = {
    word: value
    for value, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ]
    )
}
_EN_TENS = {
    word: 10 * value
    for value, word in enumerate(
        ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], start=2
    )
}
_EN_SCALE = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_EN_ORDINAL = {
    word: value
    for value, word in enumerate(
        [
            "first",
            "second",
            "third",
            "fourth",
            "fifth",
            "sixth",
            "seventh",
            "eighth",
            "ninth",
            "tenth",
            "eleventh",
            "twelfth",
        ],
        1,
    )
}
_SHARES = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4,
           "fifth": 5, "fifths": 5, "tenth": 10, "tenths": 10}  # fmt: skip
_SIGNS = {"½": 0.5, "¼": 0.25, "¾": 0.75}
_LOOSE = {
    word: frozenset(values)
    for words, values in (
        ("đôi twice double doubled", {2.0}), ("triple tripled", {3.0}), ("nửa half", {0.5, 50.0}),
        ("mỗi hằng hàng a an each every per", {1.0}),
    )
    for word in words.split()
}  # fmt: skip
"""Words that may stand for a number."""
_VI_STARTS = frozenset({*_VI_DIGIT, "mười", *_LOOSE})
_EN_STARTS = frozenset({*_EN_SMALL, *_EN_TENS, *_EN_ORDINAL, *_LOOSE})
_UNITS = frozenset(
    [
        "ngay",
        "thang",
        "nam",
        "tuan",
        "gio",
        "phut",
        "giay",
        "lan",
        "nguoi",
        "dong",
        "met",
        "tan",
        "hoc",
        "diem",
        "tin",
        "mon",
        "phan",
        "trieu",
        "nghin",
        "ty",
        "quy",
        "ky",
        "thanh",
        "ban",
        "muc",
        "cap",
        "loai",
        "truong",
        "nhom",
        "bac",
        "to",
        "chuong",
        "nghia",
        "hop",
        "day",
        "days",
        "month",
        "months",
        "year",
        "years",
        "week",
        "weeks",
        "hour",
        "hours",
        "minute",
        "minutes",
        "time",
        "times",
        "percent",
        "person",
        "people",
        "million",
        "billion",
        "thousand",
    ]
)
TIME_UNITS = {
    unit: name
    for name, units in {
        "day": "ngay day days", "month": "thang month months", "year": "nam year years",
        "week": "tuan week weeks", "hour": "gio hour hours", "minute": "phut minute minutes",
    }.items()
    for unit in units.split()
}  # fmt: skip


def numbers(text: str, words: Sequence[Token], language: Language) -> list[Number]:
    """Every number of the text, in digits, in words or mixed ('3 triệu', 'hai phần ba', '25 %')."""
    marked = language != "vi" or has_marks(text)
    found = []
    at = 0
    while at < len(words):
        read = _number_at(text, words, at, language, marked=marked)
        if read is None:
            at += 1
            continue
        values, after, certain = read
        start, end = words[at].start, words[after - 1].end
        unit, certain = _unit_after(text, words, after, certain)
        found.append(Number(start, end, values, unit, text[start:end], certain))
        at = after
    return found


def _unit_after(
    text: str, words: Sequence[Token], after: int, certain: bool | None
) -> tuple[str, bool]:
    end = words[after - 1].end
    if re.match(r"\s?%", text[end : end + 2]):
        return "%", True
    unit = ""
    if after < len(words) and not text[end : words[after].start].strip(" -\u00a0"):
        unit = words[after].folded
        if unit in ("percent", "per") or [w.word for w in words[after : after + 2]] == [
            "phần",
            "trăm",
        ]:
            return "%", True
    if certain is None:
        certain = unit in _UNITS
    return unit, certain


def _number_at(
    text: str, words: Sequence[Token], at: int, language: Language, *, marked: bool
) -> tuple[frozenset[float], int, bool | None] | None:
    """(readings, index after it, certain); certain None: only when a unit follows."""
    token = words[at]
    if token.word[0].isdigit() or token.word in _SIGNS:
        return _digits(text, words, at, language)
    if token.word[-1] in "½¼¾":
        return None
    if not marked or token.word not in (_VI_STARTS if language == "vi" else _EN_STARTS):
        return None
    run = [token]  # a number in words does not go on behind a comma
    for following in words[at + 1 : at + 16]:
        if text[run[-1].end : following.start].strip(" -\n\u00a0"):
            break
        run.append(following)
    read = _vietnamese(run, 0) if language == "vi" else _english(run, 0)
    return read and (read[0], at + read[1], read[2])


def _digits(
    text: str, words: Sequence[Token], at: int, language: Language
) -> tuple[frozenset[float], int, bool | None] | None:
    values = _readings(words[at].word, language)
    if not values:
        return None
    after = at + 1
    follows = words[after] if after < len(words) else None
    between = text[words[at].end : follows.start] if follows else ""
    if follows and between == "/" and follows.word.isdigit() and float(follows.word):
        divisor = float(follows.word)
        more = text[follows.end : follows.end + 1]
        if more != "/" and text[words[at].start - 1 : words[at].start] != "/":
            return frozenset({next(iter(values)) / divisor}), after + 1, True
    while follows and not between.strip() and (scale := _scale(follows.word)):
        values = frozenset(round(v * scale, 6) for v in values)
        end = follows.end
        after += 1
        follows = words[after] if after < len(words) else None
        between = text[end : follows.start] if follows else ""
    return values, after, True


def _scale(word: str) -> float | None:
    return _VI_SCALE.get(word) or _EN_SCALE.get(word)


def _readings(written: str, language: Language) -> frozenset[float]:
    extra = _SIGNS.get(written[-1], 0.0)
    body = written.rstrip("½¼¾")
    if not body:
        return frozenset({extra})
    if not re.fullmatch(r"[\d.,\s]+", body):
        return frozenset()
    if re.search(r"\s", body):
        return frozenset({float(re.sub(r"\s", "", body))})
    signs = re.findall(r"[.,]", body)
    plain = re.sub(r"[.,]", "", body)
    if not signs:
        return frozenset({float(plain) + extra})
    thousands = "." if language == "vi" else ","
    grouped = re.fullmatch(r"\d{1,3}(?:[.,]\d{3})+", body) and len(set(signs)) == 1
    if len(set(signs)) == 2 and signs[-1] not in signs[:-1]:
        head, tail = body[: body.rindex(signs[-1])], body[body.rindex(signs[-1]) + 1 :]
        return frozenset({float(re.sub(r"[.,]", "", head) + "." + tail)})
    if len(signs) > 1:
        return frozenset({float(plain)}) if grouped else frozenset()
    decimal = float(body.replace(",", "."))
    if grouped:
        return (
            frozenset({float(plain)})
            if signs[0] == thousands
            else frozenset({decimal, float(plain)})
        )
    return frozenset({decimal})


def _below_thousand(words: Sequence[Token], at: int) -> tuple[int, int]:
    """The number that Vietnamese words spell from `at` on, below 1000, and how many words it took."""

    def word(place: int) -> str:
        return words[place].word if place < len(words) else ""

    value = taken = 0
    if word(at) in _VI_DIGIT and word(at + 1) == "trăm":
        value, taken = 100 * _VI_DIGIT[word(at)], 2
        if word(at + 2) in ("linh", "lẻ") and word(at + 3) in _VI_DIGIT:
            return value + _VI_DIGIT[word(at + 3)], 4
    place = at + taken
    if word(place) == "mười":
        value, taken = value + 10, taken + 1
    elif word(place) in _VI_DIGIT and word(place + 1) in ("mươi", "chục"):
        value, taken = value + 10 * _VI_DIGIT[word(place)], taken + 2
    elif taken:
        return value, taken
    # After 'mười' five is 'lăm': 'mười năm' is ten years.
    one = word(at + taken)
    if one in _VI_DIGIT and one != "không" and (not taken or one not in ("năm",)):
        if not taken and one in ("mốt", "lăm", "nhăm", "tư"):
            return 0, 0
        value, taken = value + _VI_DIGIT[one], taken + 1
    return value, taken


def _whole_vietnamese(words: Sequence[Token], at: int) -> tuple[float, int]:
    """The whole number spelled from `at` on, and the index after it."""
    total = 0.0
    while True:
        value, taken = _below_thousand(words, at)
        if not taken:
            return total, at
        at += taken
        scale = 1.0
        while at < len(words) and (step := _VI_SCALE.get(words[at].word)):
            scale *= step
            at += 1
        total += value * scale
        if scale == 1.0:
            return total, at


def _vietnamese(
    words: Sequence[Token], at: int
) -> tuple[frozenset[float], int, bool | None] | None:
    if (said := words[at].word) in _LOOSE:
        return _LOOSE[said], at + 1, False
    if [w.word for w in words[at : at + 2]] == ["một", "nửa"]:
        return _LOOSE["nửa"], at + 2, False
    total, place = _whole_vietnamese(words, at)
    if place == at:
        return None
    rest = [w.word for w in words[place : place + 2]]
    if rest[:1] == ["rưỡi"]:
        return frozenset({total + 0.5}), place + 1, True
    if rest[:1] == ["phần"] and rest != ["phần", "trăm"]:
        divisor, taken = _below_thousand(words, place + 1)
        if divisor:
            return frozenset({total / divisor}), place + 1 + taken, True
    small = place == at + 1 and total < 10 and rest != ["phần", "trăm"]
    return frozenset({total}), place, None if small else True


def _whole_english(words: Sequence[Token], at: int) -> tuple[float, int]:
    """The whole number spelled from `at` on, and the index after it."""
    total = group = 0.0
    start, room = at, 1e15
    while at < len(words):
        word = words[at].word
        value = _EN_SMALL.get(word) or _EN_TENS.get(word) or (word == "a" and at == start)
        if value and value < room:
            group, room = group + value, 10 if word in _EN_TENS else 0
        elif word == "hundred" and group:
            group, room = group * 100, 100
        elif word in _EN_SCALE and group:
            total, group, room = total + group * _EN_SCALE[word], 0.0, 1e15
        elif not (word == "and" and at > start and _joins(words, at)):
            break
        at += 1
    return total + group, at


def _joins(words: Sequence[Token], at: int) -> bool:
    """Whether the 'and' stands inside a number: 'one hundred and five'."""
    following = words[at + 1].word if at + 1 < len(words) else ""
    return words[at - 1].word in _EN_SCALE and (following in _EN_SMALL or following in _EN_TENS)


def _english(words: Sequence[Token], at: int) -> tuple[frozenset[float], int, bool | None] | None:
    word, *rest = (w.word for w in words[at : at + 2])
    following = rest[0] if rest else ""
    if word == "a" and following in _SHARES:
        return frozenset({1 / _SHARES[following], 100 / _SHARES[following]}), at + 2, False
    if word in _LOOSE and not (word == "a" and following in _EN_SCALE):
        return _LOOSE[word], at + 1, False
    if word in _EN_ORDINAL:
        return frozenset({float(_EN_ORDINAL[word])}), at + 1, False
    total, place = _whole_english(words, at)
    if place == at:
        return None
    after = [w.word for w in words[place : place + 3]]
    if after[:1] and after[0] in _SHARES:
        return frozenset({total / _SHARES[after[0]]}), place + 1, True
    if after == ["and", "a", "half"]:
        return frozenset({total + 0.5}), place + 3, True
    return frozenset({total}), place, None if total <= 1 else True


# --- dates ----------------------------------------------------------------------------------

_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "january jan", "february feb", "march mar", "april apr", "may", "june jun", "july jul",
            "august aug", "september sep sept", "october oct", "november nov", "december dec",
        ),
        1,
    )
    for name in names.split()
}  # fmt: skip
_MONTH = "(?:" + "|".join(sorted(_MONTHS, key=len, reverse=True)) + r")\b\.?"
_DATES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?:ngày|ngay|mùng|mồng)\s+(?P<d>\d{1,2})\s+(?:tháng|thang)\s+(?P<m>\d{1,2})(?:\s*(?:,\s*)?(?:năm|nam)\s+(?P<y>\d{4}))?",
        r"(?:tháng|thang)\s+(?P<m>\d{1,2})\s*(?:/|,?\s*(?:năm|nam)\s+)(?P<y>\d{4})",
        r"\b(?P<y>(?:19|20)\d\d)-(?P<m>\d{2})-(?P<d>\d{2})\b",
        r"(?<![\d/])(?P<d>\d{1,2})\s?(?P<s>[/.-])\s?(?P<m>\d{1,2})\s?(?P=s)\s?(?P<y>\d{4})(?![\d/])",
        r"(?:ngày|ngay)\s+(?P<d>\d{1,2})[/-](?P<m>\d{1,2})(?![\d/])",
        r"(?<![\d/.])(?P<m>0?[1-9]|1[0-2])/(?P<y>(?:19|20)\d\d)(?![\d/])",
        rf"\b(?P<d>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<n>{_MONTH})(?:,?\s+(?P<y>\d{{4}}))?\b",
        rf"\b(?P<n>{_MONTH})\s+(?P<d>\d{{1,2}})(?:st|nd|rd|th)?\b(?!\s*[:%])(?:,?\s+(?P<y>\d{{4}})\b)?",
        rf"\b(?P<n>{_MONTH}),?\s+(?:of\s+)?(?P<y>(?:1\d|20)\d\d)\b",
    )
]


def dates(text: str) -> list[Date]:
    """Every date of the text, however it is written; '15/9/2024' may be read in both orders."""
    found: list[Date] = []
    for pattern in _DATES:
        for match in pattern.finditer(text):
            if any(d.start < match.end() and match.start() < d.end for d in found):
                continue
            part = match.groupdict()
            if part.get("n") == "may":
                continue
            month = _MONTHS[part["n"].lower().rstrip(".")] if part.get("n") else int(part["m"])
            day = int(part["d"]) if part.get("d") else None
            if month > 12 and (day is None or day > 12):
                continue
            if day is not None and not 1 <= day <= 31:
                continue
            year = int(part["y"]) if part.get("y") else None
            swapped = bool(part.get("s")) and language_of(text) == "en"
            found.append(Date(match.start(), match.end(), day, month, year, match.group(), swapped))
    return sorted(found, key=lambda d: d.start)


# --- references -----------------------------------------------------------------------------

_KINDS = {
    "dieu": "article", "article": "article", "articles": "article", "section": "section",
    "sections": "section", "khoan": "clause", "clause": "clause", "clauses": "clause",
    "paragraph": "clause", "diem": "point", "point": "point", "chuong": "chapter",
    "chapter": "chapter", "muc": "division", "phan": "part", "part": "part", "item": "item", "note": "note",
    "phu luc": "annex", "annex": "annex", "appendix": "annex", "bang": "table", "table": "table",
    "bieu": "table", "mau": "form",
}  # fmt: skip
_LABEL = re.compile(
    r"\b(?P<label>Điều|Khoản|Điểm|Chương|Mục|Phần|Phụ lục|Bảng|Biểu|Mẫu"
    r"|Articles?|Sections?|Clauses?|Paragraph|Point|Chapter|Part|Annex|Appendix|Item|Note|Table)\s+(?:số\s+)?"
    r"(?P<list>(?:\d+(?:\.\d+)*[a-zđ]?|[IVXLC]+|[a-zđ])\b(?!\))(?:(?:\s*[,;]\s*|\s+(?:và|hoặc|and|or|đến|to)\s+)"
    r"(?:\d+(?:\.\d+)*[a-zđ]?|[IVXLC]+|[a-zđ])\b(?![\s.,]*\d))*)",
    re.IGNORECASE,
)
_ROMAN_LABELS = frozenset({"chapter", "division", "part", "annex", "item", "table"})
_COUNTED = frozenset({"part", "point", "note", "table", "item", "form", "division"})


def references(text: str) -> list[Reference]:
    """Every article, clause, point, section … that the text names; lists are taken apart."""
    found: list[Reference] = []
    for match in _LABEL.finditer(text):
        kind = _KINDS[fold(match["label"])]
        if "điểm" in match["label"].lower() and match["list"][0].isdigit():
            continue  # a mark such as 'điểm 8,5', no place
        offset = match.start("list")
        for part in re.finditer(
            r"\b(?:\d+(?:\.\d+)*[a-zđ]?|[IVXLC]+|[a-zđ])\b", match["list"], re.IGNORECASE
        ):
            number = part.group()
            if re.fullmatch(r"[IVXLC]+", number) and kind in _ROMAN_LABELS:
                number = str(_roman(number))
            elif not number[0].isdigit():
                # A lone letter is a point; anything else is a word that happens to follow.
                if kind not in ("point", "annex", "form") or len(number) > 1:
                    break
            elif kind in _COUNTED and match["label"][0].islower() and kind != "point":
                break
            found.append(
                Reference(
                    match.start() if not found or part.start() == 0 else offset + part.start(),
                    offset + part.end(),
                    kind,
                    number.lower().strip("."),
                    f"{match['label']} {part.group()}",
                )
            )
    return found


def _roman(number: str) -> int:
    values = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}
    digits = [values[c] for c in number.upper()]
    return sum(-a if a < b else a for a, b in zip(digits, [*digits[1:], 0], strict=True))


# --- names and quotations -------------------------------------------------------------------

_DOCUMENT_NUMBER = re.compile(r"\b\d{1,4}(?:/\d{4})?/[\w-]*[^\W\d_][\w-]*|\b\w+-[\w-]*\d[\w-]*|\b(?=\w*\d)(?=\w*[^\W\d])\w{3,}\b")  # fmt: skip
_QUOTE = re.compile(
    r"“([^“”]{2,900})”|«([^«»]{2,900})»|\"([^\"\n]{2,900})\"|‘([^‘’]{8,900})’(?!\w)"
)


def quotations(text: str) -> list[tuple[int, int, str]]:
    """(start, end, words) of every text in quotation marks; the span includes the marks."""
    return [(m.start(), m.end(), next(g for g in m.groups() if g)) for m in _QUOTE.finditer(text)]


def document_numbers(text: str) -> list[tuple[int, int, str]]:
    """(start, end, text) of every code such as 06/2024/TT-BLĐTBXH, QH15 or COVID-19."""
    return [
        (m.start(), m.end(), m.group())
        for m in _DOCUMENT_NUMBER.finditer(text)
        if not re.fullmatch(r"\d+(?:st|nd|rd|th|[a-zđ%])?", m.group())
        and any(c.isdigit() for c in m.group())
    ]


def names(text: str, words: Sequence[Token]) -> Iterator[list[Token]]:
    """Runs of neighbouring words with capitals."""
    run: list[Token] = []
    for token in words:
        joined = run and not text[run[-1].end : token.start].strip(" \u00a0.&'’-")
        if run and not (text[token.start].isupper() and joined):
            yield run
            run = []
        if text[token.start].isupper():
            run.append(token)
    if run:
        yield run


def pieces(text: str) -> Iterator[str]:
    """The parts of a quotation between its ellipses; each must occur."""
    yield from (part for part in re.split(r"…|\.\.\.|\[[^\]]*\]", text) if part.strip())
