"""What an official document says of itself: number, kind, issuing body, dates, what it changes or ends.

Vietnamese official texts name these in fixed places and phrases; only those are read, and nothing is
guessed: a field stays empty unless the text gives exactly one answer. Of other documents (contracts,
filings) only a date that is named as such counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date, timedelta

from chatbot.library.legal import OFFICIAL_NUMBER, official_number
from chatbot.types import Fact, Relation, RelationKind, Validity

VALIDITY_VERSION = 1
"""Rises when the same text would give other facts; stored ones of lower versions are read anew."""

CONSOLIDATED = "Văn bản hợp nhất"

KINDS = (
    "Hiến pháp", "Bộ luật", "Luật", "Pháp lệnh", "Lệnh", "Nghị quyết liên tịch", "Nghị quyết", "Nghị định",
    "Thông tư liên tịch", "Thông tư", "Quyết định", "Chỉ thị", "Công điện", "Thông báo", "Hướng dẫn",
    "Kế hoạch", "Quy chế", "Quy định", "Hợp đồng", CONSOLIDATED,
)  # fmt: skip

_BODIES = {
    "QH": "Quốc hội", "UBTVQH": "Ủy ban Thường vụ Quốc hội", "CTN": "Chủ tịch nước", "CP": "Chính phủ",
    "TTg": "Thủ tướng Chính phủ", "VPQH": "Văn phòng Quốc hội", "VPCP": "Văn phòng Chính phủ",
    "HĐTP": "Hội đồng Thẩm phán Tòa án nhân dân tối cao", "TANDTC": "Tòa án nhân dân tối cao",
    "VKSTC": "Viện kiểm sát nhân dân tối cao", "VKSNDTC": "Viện kiểm sát nhân dân tối cao",
    "KTNN": "Kiểm toán nhà nước", "TTCP": "Thanh tra Chính phủ", "NHNN": "Ngân hàng Nhà nước Việt Nam",
    "BHXH": "Bảo hiểm xã hội Việt Nam", "UBDT": "Ủy ban Dân tộc", "BCA": "Bộ Công an",
    "BCT": "Bộ Công Thương", "BGDĐT": "Bộ Giáo dục và Đào tạo", "BGTVT": "Bộ Giao thông vận tải",
    "BKHĐT": "Bộ Kế hoạch và Đầu tư", "BKHCN": "Bộ Khoa học và Công nghệ",
    "BLĐTBXH": "Bộ Lao động - Thương binh và Xã hội", "BNG": "Bộ Ngoại giao", "BNV": "Bộ Nội vụ",
    "BNNPTNT": "Bộ Nông nghiệp và Phát triển nông thôn", "BNNMT": "Bộ Nông nghiệp và Môi trường",
    "BQP": "Bộ Quốc phòng", "BTC": "Bộ Tài chính", "BTNMT": "Bộ Tài nguyên và Môi trường",
    "BTP": "Bộ Tư pháp", "BTTTT": "Bộ Thông tin và Truyền thông", "BDTTG": "Bộ Dân tộc và Tôn giáo",
    "BVHTTDL": "Bộ Văn hóa, Thể thao và Du lịch", "BXD": "Bộ Xây dựng", "BYT": "Bộ Y tế",
}  # fmt: skip
_KIND_OF_NUMBER = {
    "NĐ": "Nghị định", "NQ": "Nghị quyết", "NQLT": "Nghị quyết liên tịch", "TT": "Thông tư",
    "TTLT": "Thông tư liên tịch", "QĐ": "Quyết định", "CT": "Chỉ thị", "VBHN": CONSOLIDATED,
    "CĐ": "Công điện", "TB": "Thông báo", "KH": "Kế hoạch", "L": "Lệnh", "PL": "Pháp lệnh",
}  # fmt: skip

_HEAD = 8_000
_CLAUSE = 1_500
_QUOTATION = 20_000
"""Characters: the furthest that the beginning of a sentence, a clause, a quotation is looked for."""

_GAP = r"[\s.,]*"
_DAY = (
    rf"(?:ngày\s+(\d{{1,2}}){_GAP}tháng\s+(\d{{1,2}}){_GAP}năm\s+((?:19|20)\d\d)(?!\d\d)"
    r"|(?:ngày\s+)?(\d{1,2})[/-](\d{1,2})[/-]((?:19|20)\d\d)(?!\d))"
)
"""A day; a fifth digit of the year is the mark of a footnote."""


def _phrase(words: str) -> str:
    return words.replace(" ", r"\s+")


def _any(words: tuple[str, ...]) -> str:
    return "|".join(_phrase(w) for w in sorted(words, key=len, reverse=True))


_KIND_WORD = rf"(?:{_any(KINDS)})"
_NATION = re.compile(r"CỘNG\s+H(?:ÒA|OÀ|OA)\s+XÃ\s+HỘI\s+CHỦ\s+NGHĨA\s+VIỆT\s+NAM")
_PREAMBLE = re.compile(
    r"(?m)^\s*(?:Căn\s+cứ\s|Điều\s+1\s*[.:]|Chương\s+(?:I|1)\b|CHƯƠNG\s+(?:I|1)\b)"
)
_BODY_WORD = re.compile(
    r"(?:ỦY BAN|UỶ BAN|HỘI ĐỒNG|SỞ|CỤC|TỔNG CỤC|CHI CỤC|BAN|VIỆN|TÒA ÁN|TOÀ ÁN|CÔNG TY|TỔNG CÔNG TY|TẬP ĐOÀN"
    r"|TRƯỜNG|ĐẠI HỌC|HỌC VIỆN|BẢO HIỂM|NGÂN HÀNG|BỘ|HỘI|LIÊN ĐOÀN|TỔNG LIÊN ĐOÀN|TRUNG TÂM|BỆNH VIỆN|PHÒNG)\b"
)
_HEAD_NUMBER = re.compile(rf"(?m)(?:^[ \t]*Số|(?<!\w)[Ss]ố\s*:)\s*(?P<number>{OFFICIAL_NUMBER})")
_TITLE_LINE = re.compile(
    rf"(?m)^[ \t]*(?P<kind>{_any(tuple(k.upper() for k in KINDS if k != CONSOLIDATED))})(?P<rest>[ \t]*$|[ \t]+[^\n]*$)"
)
_DATELINE = re.compile(rf"[^\W\d_][\w. -]{{1,40}},\s*(?P<day>{_DAY})")
_ISSUED_WITH = re.compile(
    rf"\(?(?:[Bb]an\s+hành\s+)?[Kk]èm\s+theo\s+{_KIND_WORD}\s+số\s+{OFFICIAL_NUMBER}\s+(?P<day>{_DAY})"
)
_ADOPTED = re.compile(
    rf"(?:{_KIND_WORD})\s+này\s+(?:đã\s+)?được\s+[^.;]{{5,250}}?\bthông\s+qua\s+{_DAY}"
)
_AUTHENTICATED = re.compile(r"[Ss]ố\s*:\s*(?P<number>\d{1,5}(?:/\d{4})?/VBHN-[A-ZĐ][\w-]*)")
_SIGNING = (
    r"từ\s+ngày\s+(?:được\s+)?(?:Quốc\s+hội\s+|Ủy\s+ban\s+Thường\s+vụ\s+Quốc\s+hội\s+)?(?:biểu\s+quyết\s+)?"
    r"(?P<signed>ký|thông\s+qua|ban\s+hành)"
)
_IN_FORCE = re.compile(
    rf"(?P<kind>{_KIND_WORD})\s+này\s+(?:(?:đã\s+)?được\s+[^.;]{{5,250}}?\s+thông\s+qua\s+ngày\s+[^.;]{{5,40}}?\s+và\s+)?"
    rf"có\s+hiệu\s+lực(?:\s+thi\s+hành)?,?\s+(?:kể\s+)?(?:(?:sau\s+(?P<after>\d{{1,3}})(?:\s+\([^)\n]{{1,40}}\))?\s+ngày,?\s+(?:kể\s+)?)?{_SIGNING}|từ\s+{_DAY})"
)
_SUBJECT = re.compile(
    r"(?:^|[\n.;:]|\d\.|[a-zđ]\)|\bĐiều\s+\d{1,3}\w?\.?|\b[Hh]iệu\s+lực|\bthi\s+hành)[ \t]*$"
)
_UNTIL = re.compile(
    rf"(?P<kind>{_KIND_WORD})\s+này\s+(?:có\s+hiệu\s+lực[^.;\n]{{0,160}}?\s(?:đến|tới)\s+(?:hết\s+)?{_DAY}"
    rf"|hết\s+hiệu\s+lực(?:\s+thi\s+hành)?\s+(?P<from>(?:kể\s+)?từ)\s+{_DAY})"
)
_DOCUMENT = re.compile(
    rf"(?P<name>{_KIND_WORD})(?:[ \t]+(?!số\b)[^\W\d_]+,?){{0,14}}?\s+(?:số\s*:?\s*)?(?P<number>{OFFICIAL_NUMBER})"
)
_NEXT_NUMBER = re.compile(
    rf"(?:\s+ngày\s+[^,;.\n]{{1,30}}?\d{{4}})?\s*(?:[,;]|\bvà)\s+(?:số\s+)?(?P<number>{OFFICIAL_NUMBER})"
)
_NUMBERING = r"(?:Điều\s+\d{1,3}\w?\s*[.:]\s*)?(?:\d{1,3}\s*\.\s*)?(?:[a-zđ]\)\s*)?"
_VERB = re.compile(
    rf"(?m)^[ \t]*{_NUMBERING}(?P<verb>Sửa\s+đổi|Bổ\s+sung|Bãi\s+bỏ|Thay\s+thế)\b"
    rf"|\bban\s+hành\s+{_KIND_WORD}\s+(?:này\s+)?(?P<made>sửa\s+đổi|bổ\s+sung|bãi\s+bỏ|thay\s+thế)\b"
    rf"|\b{_KIND_WORD}\s+này\s+(?:có\s+hiệu\s+lực[^.;\n]{{0,120}}?\s(?:và|,)\s*)?(?P<self>thay\s+thế|bãi\s+bỏ)\b"
    rf"|\bnày\s+có\s+hiệu\s+lực(?:\s+thi\s+hành)?,\s+(?P<then>bãi\s+bỏ|thay\s+thế)\b"
)
_ENDED = re.compile(r"\bhết\s+\w+\s+lực\b(?:\s+thi\s+hành)?")
_FROM_NOW = re.compile(
    rf"[Kk]ể\s+từ\s+ngày\s+{_KIND_WORD}\s+này\s+có\s+hiệu\s+lực(?:\s+thi\s+hành)?,?\s*"
)
_NEW_LINE = (
    r"\n(?=[ \t]*(?:\n|Điều\s|\d{1,3}\.\s|[a-zđ]\)|[-+–•]\s|Chương\s|[A-ZĐ]{2,}\s+[A-ZĐ]{2}))"
)
_STOP = re.compile(rf"[.;:“”](?=\s|$)|{_NEW_LINE}")
_BEGIN = re.compile(
    rf"[.:](?=\s)|{_NEW_LINE}|(?<!,)(?<!;)(?<!và)\n(?=[ \t]*(?:{_KIND_WORD}|Kể|Các)\s)"
)
_PARTS = re.compile(
    r"\b(?:điều|khoản|điểm|mục|chương|phần|phụ\s+lục|biểu|mẫu|danh\s+mục|tên|cụm\s+từ|từ|đoạn|dòng|gạch|tiêu\s+đề"
    r"|một\s+số|số\s+thứ\s+tự|nội\s+dung|quy\s+định)\b",
    re.IGNORECASE,
)
_NO_OBJECT = re.compile(r"\b(?:theo|căn\s+cứ|được|bởi|phù\s+hợp|trừ|thực\s+hiện)\b")
_EXPLAINS = re.compile(r"\b(?:được\s+sửa|bởi|theo\s+(?:quy|Luật|Nghị|Thông|Quyết))")
_WHOLE = re.compile(r"\s*(?:(?:toàn\s+bộ|các|cho)\s+)*(?:nội\s+dung\s+)?", re.IGNORECASE)
_AND_THEN = re.compile(r"(?:\bvà|[,;])\s+(?:các\s+)?$")
_LIST_ITEM = re.compile(r"(?m)^[ \t]*(?:[a-zđ]\)|\d{1,3}[.)]|[-+–•])\s*(?P<item>[^\n]+)$")
_ANNEX = re.compile(r"(?m)^[ \t]*(?:PHỤ LỤC|Phụ lục|MẪU SỐ|Mẫu số|DANH MỤC)\b[^\n]{0,120}$")

_MONTHS = {
    name: number
    for number, name in enumerate(
        "January February March April May June July August September October November December".split(),  # noqa: SIM905
        1,
    )
}
_ENGLISH_DAY = (
    rf"(?:(?P<month>{'|'.join(_MONTHS)})\s+(?P<day>\d{{1,2}}),\s+(?P<year>(?:19|20)\d\d)"
    rf"|(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:day\s+of\s+)?(?P<month2>{'|'.join(_MONTHS)}),?\s+(?P<year2>(?:19|20)\d\d))\b"
)
_ENGLISH_EFFECTIVE = re.compile(
    rf"(?i:\beffective\s+(?:date\s*(?:is|:)?|as\s+of|from|on)|\b(?:takes?|shall\s+take|enters?\s+into|came\s+into)\s+(?:effect|force)"
    rf"\s+(?:on|from)|\b(?:is|are)\s+effective\s+(?:on|from|as\s+of)|\bin\s+force\s+(?:from|since|as\s+of))\s*(?:the\s+)?{_ENGLISH_DAY}"
)
_ENGLISH_DATED = re.compile(
    rf"(?i:\b(?:dated|made|entered\s+into|executed|signed)(?:\s+and\s+entered\s+into)?\s*(?:as\s+of|on|this)?)\s+(?:the\s+)?{_ENGLISH_DAY}"
)
_ENGLISH_TITLE = re.compile(
    r"(?m)^[ \t]*(?P<title>(?=[^\n]{6,110}$)[^\n]*\b(?:AGREEMENT|CONTRACT|LEASE|POLICY|REGULATIONS?|ACT|DEED|"
    r"HANDBOOK|RULES|Agreement|Contract|Lease|Policy|Regulations?|Act|Deed|Handbook|Rules))[ \t]*$"
)


def validity_of(text: str) -> Validity:
    """What the document of that text says of itself; takes time in proportion to its length."""
    head = text[: _end_of_head(text)]
    if not (_NATION.search(head) or _HEAD_NUMBER.search(head)):
        return _of_foreign(text)
    if consolidated := _of_consolidated(text, head):
        return consolidated
    number = _only(
        _fact(m, "number", official_number(m["number"])) for m in _HEAD_NUMBER.finditer(head)
    )
    heading = _heading(head)
    kind = _kind(number, heading)
    issued = _issued(text, head, heading)
    if (
        number
        and issued
        and (year := re.search(r"/(\d{4})/", number.value))
        and year[1] != issued.value[:4]
    ):
        issued = None  # one of the two was misread
    main = text[: _end_of_main(text)]
    return Validity(
        number=number,
        kind=kind,
        body=_body(number, head),
        title=_title(head, heading),
        issued=issued,
        effective=_in_force(main, kind, issued),
        expires=_until(main, kind),
        relations=tuple(_relations(main, head, heading, number)),
    )


# --- the head ----------------------------------------------------------------------------------


def _end_of_head(text: str) -> int:
    """Where the head ends: before the first 'Căn cứ', article or chapter."""
    match = _PREAMBLE.search(text, 0, _HEAD)
    return match.start() if match else min(len(text), _HEAD // 2)


def _end_of_main(text: str) -> int:
    """Where annexes begin: the first line that names one and stands after a signature."""
    signed = text.find("./.")
    match = _ANNEX.search(text, signed) if signed >= 0 else None
    return match.start() if match else len(text)


def _heading(head: str) -> re.Match[str] | None:
    """The line that names the kind in capitals; it stands below the nation's name."""
    nation = _NATION.search(head)
    return _TITLE_LINE.search(head, nation.end() if nation else 0)


def _kind(number: Fact | None, heading: re.Match[str] | None) -> Fact | None:
    """The kind that the heading names; none when the number says another one."""
    if heading is None:
        return None
    named = " ".join(heading["kind"].split()).capitalize()
    by_number = _KIND_OF_NUMBER.get(_suffix(number.value).split("-")[0]) if number else None
    return _fact(heading, "kind", named) if by_number in (None, named) else None


def _suffix(number: str) -> str:
    """'TT-BTC' of '02/2026/TT-BTC'."""
    return number.rpartition("/")[2]


def _body(number: Fact | None, head: str) -> Fact | None:
    """Who issued it: by the number's abbreviations, else as the letterhead says in capitals."""
    if number is None:
        return None
    first, *rest = _suffix(number.value).split("-")
    marks = rest or [re.sub(r"\d+$", "", first)]
    names = [_BODIES[mark] for mark in marks if mark in _BODIES]
    if len(names) == len(marks):
        return replace(number, value=", ".join(names))
    return _letterhead(head, number)


def _letterhead(head: str, number: Fact) -> Fact | None:
    """The lines in capitals above the number, from the last one that begins like a body's name."""
    if (heading := _heading(head)) and heading.start() < number.start:
        return None
    end = head.rfind("\n", 0, number.start)
    while end > 0:
        start = head.rfind("\n", 0, end) + 1
        line = head[start:end].strip(" _\n")
        if line and not line.isupper():
            return None
        if _BODY_WORD.match(line):
            lines = head[start : number.start].split("\n")[:-1]
            name = " ".join(" ".join(lines).split())
            fits = len(lines) <= 3 and not _NATION.search(name)
            return Fact(name, start, start + len("\n".join(lines))) if fits else None
        end = start - 1
    return None


def _title(head: str, heading: re.Match[str] | None, before: tuple[str, ...] = ()) -> Fact | None:
    """The lines below the kind, up to an empty one, one in capitals, or one that begins with a word of `before`."""
    if heading is None:
        return None
    start = end = heading.end("kind")
    for line in head[start:].splitlines(keepends=True):
        bare, so_far = line.strip(), head[start:end].strip()
        shouted = bare.isupper() and not so_far.isupper()
        if so_far and (not bare or shouted or bare.startswith(("Số", *before))):
            break
        end += len(line)
    value = " ".join(head[start:end].split())
    if not 3 <= len(value) <= 900:
        return None
    left = start + len(head[start:end]) - len(head[start:end].lstrip())
    return Fact(value, left, start + len(head[start:end].rstrip()))


def _issued(text: str, head: str, heading: re.Match[str] | None) -> Fact | None:
    """The day in the head's dateline, else the day on which parliament adopted it."""
    until = heading.start() if heading else len(head)
    adopted = (m for m in _ADOPTED.finditer(text) if not _quoted(text, m.start()))
    return (
        _only(_day_fact(m, "day") for m in _DATELINE.finditer(head, 0, until))
        or _only(_day_fact(m) for m in adopted)
        or _only(_day_fact(m, "day") for m in _ISSUED_WITH.finditer(head))
    )


# --- in force ----------------------------------------------------------------------------------


def _in_force(main: str, kind: Fact | None, issued: Fact | None) -> Fact | None:
    found = []
    for match in _IN_FORCE.finditer(main):
        if not _speaks_of_itself(main, match, kind):
            continue
        if not match["signed"]:
            found.append(_day_fact(match))
        elif issued:
            day = date.fromisoformat(issued.value) + timedelta(days=int(match["after"] or 0))
            found.append(Fact(day.isoformat(), match.start(), match.end()))
    return _only(found)


def _until(main: str, kind: Fact | None) -> Fact | None:
    found = []
    for match in _UNTIL.finditer(main):
        if (fact := _day_fact(match)) and _speaks_of_itself(main, match, kind):
            last = date.fromisoformat(fact.value) - timedelta(days=bool(match["from"]))
            found.append(replace(fact, value=last.isoformat()))
    return _only(found)


def _speaks_of_itself(text: str, match: re.Match[str], kind: Fact | None) -> bool:
    """Whether 'Thông tư này' opens a sentence of this document, and not of one it quotes."""
    named = " ".join(match["kind"].split())
    return (
        (kind is None or named == kind.value or kind.value.startswith(f"{named} "))
        and bool(_SUBJECT.search(text, max(0, match.start() - 20), match.start()))
        and not _quoted(text, match.start())
    )


def _quoted(text: str, place: int) -> bool:
    """Whether the place lies between “ and ”."""
    start = max(0, place - _QUOTATION)
    return text.rfind("“", start, place) > text.rfind("”", start, place)


# --- what it changes and ends ------------------------------------------------------------------


def _relations(
    main: str, head: str, heading: re.Match[str] | None, number: Fact | None
) -> Iterator[Relation]:
    """Each document that this one amends, replaces or repeals, once, by its strongest word."""
    found: dict[str, Relation] = {}
    strength = ("amends", "replaces", "repeals")
    own = number.value if number else ""
    for relation in (*_by_title(head, heading), *_by_verb(main), *_by_ending(main)):
        if relation.number == own or (own and _level(relation.number) < _level(own)):
            continue  # no decree repeals a law: the words mean something else
        known = found.get(relation.number)
        if known is None or strength.index(relation.kind) > strength.index(known.kind):
            found[relation.number] = relation
    yield from sorted(found.values(), key=lambda r: r.start)


def _level(number: str) -> int:
    """How high the issuing body stands; 1 parliament, 5 ministries and everybody else."""
    suffix = _suffix(number)
    if suffix.startswith("QH"):
        return 1
    if suffix.startswith(("UBTVQH", "PL-", "L-")):
        return 2
    return {"CP": 3, "TTg": 4}.get(suffix.rpartition("-")[2], 5)


def _by_title(head: str, heading: re.Match[str] | None) -> Iterator[Relation]:
    if title := _title(head, heading):
        match = re.compile(
            r"(?:Về\s+việc\s+)?(?P<verb>Sửa\s+đổi|Bổ\s+sung|Bãi\s+bỏ|Thay\s+thế)", re.IGNORECASE
        ).match(head, title.start)
        if match:
            yield from _objects(head, match["verb"], match.end(), title.end)


def _by_verb(text: str) -> Iterator[Relation]:
    for match in _VERB.finditer(text):
        if not _quoted(text, match.start()):
            verb = match["verb"] or match["made"] or match["self"] or match["then"]
            stop = _STOP.search(text, match.end(), match.end() + _CLAUSE)
            end = stop.start() if stop else min(len(text), match.end() + _CLAUSE)
            relations = list(_objects(text, verb, match.end(), end))
            if not relations and stop and stop.group() == ":":
                relations = list(_items(text, verb, stop.end()))
            yield from relations


def _objects(text: str, verb: str, start: int, end: int) -> Iterator[Relation]:
    """The documents in a clause that the verb governs: the first, and those joined to it by 'và'."""
    first: re.Match[str] | None = None
    what: RelationKind = "amends"
    for match in _DOCUMENT.finditer(text, start, end):
        if first is None:
            gap = text[start : match.start()]
            in_part = bool(_PARTS.search(gap))
            if _NO_OBJECT.search(gap) or not (
                in_part or _WHOLE.fullmatch(_without_more_verbs(gap))
            ):
                return
            first = match
        elif not _is_joined(text, first, match) or (
            what == "amends" and _suffix_of(match) != _suffix_of(first)
        ):
            continue
        what = _what(verb, in_part=in_part)
        yield _relation(match, what)
        yield from _more(text, match.end(), end, what)


def _more(text: str, start: int, end: int, what: RelationKind) -> Iterator[Relation]:
    """Further numbers in 'các Quyết định số 1/2019/QĐ-X, 2/2019/QĐ-X và 3/2020/QĐ-X'."""
    while match := _NEXT_NUMBER.match(text, start, end):
        yield Relation(what, official_number(match["number"]), *match.span("number"))
        start = match.end()


def _suffix_of(match: re.Match[str]) -> str:
    return _suffix(official_number(match["number"]))


def _without_more_verbs(gap: str) -> str:
    """', bổ sung, bãi bỏ' of 'Sửa đổi, bổ sung, bãi bỏ' is no part of what is changed."""
    return re.sub(
        r"^(?:\s*(?:,|và)?\s*(?:sửa\s+đổi|bổ\s+sung|bãi\s+bỏ|thay\s+thế)\b)+",
        "",
        gap,
        flags=re.IGNORECASE,
    )


def _what(verb: str, *, in_part: bool) -> RelationKind:
    folded = " ".join(verb.lower().split())
    if in_part or folded in ("sửa đổi", "bổ sung"):
        return "amends"
    return "replaces" if folded == "thay thế" else "repeals"


def _items(text: str, verb: str, start: int) -> Iterator[Relation]:
    """The documents in the list below 'bãi bỏ các văn bản sau đây:', one a line."""
    for line in _LIST_ITEM.finditer(text, start, min(len(text), start + 6 * _CLAUSE)):
        if text[start : line.start()].strip():
            return
        start = line.end()
        match = _DOCUMENT.search(text, line.start("item"), line.end())
        if match:
            in_part = bool(text[line.start("item") : match.start()].strip())
            yield _relation(match, _what(verb, in_part=in_part))


def _by_ending(text: str) -> Iterator[Relation]:
    """'Thông tư số … hết hiệu lực kể từ ngày Thông tư này có hiệu lực', in either order, or as a list."""
    end = 0
    for ended in _ENDED.finditer(text):
        if ended.start() < end:
            continue  # the same sentence
        left = max(0, ended.start() - _CLAUSE)
        start = max((m.end() for m in _BEGIN.finditer(text, left, ended.start())), default=left)
        stop = _STOP.search(text, ended.end(), ended.end() + _CLAUSE)
        end = stop.start() if stop else min(len(text), ended.end() + _CLAUSE)
        now = _FROM_NOW.search(text, start, end)
        if now is None or _quoted(text, start):
            continue
        begin = now.end() if now.start() < ended.start() else start
        relations = list(_subjects(text, begin, ended.start()))
        if not relations and stop and stop.group() == ":":
            relations = list(_items(text, "bãi bỏ", stop.end()))
        yield from relations


def _subjects(text: str, start: int, end: int) -> Iterator[Relation]:
    begin = re.compile(r"\s*(?:\d{1,3}\.\s+|[a-zđ]\)\s+)?(?:[Cc]ác\s+)?").match(text, start, end)
    start = begin.end() if begin else start
    first: re.Match[str] | None = None
    in_part = False
    for match in _DOCUMENT.finditer(text, start, end):
        if first is None:
            first, in_part = match, bool(text[start : match.start()].strip())
        elif in_part or not _is_joined(text, first, match):
            continue
        yield _relation(match, "amends" if in_part else "repeals")


def _is_joined(text: str, first: re.Match[str], match: re.Match[str]) -> bool:
    """Whether the document is named beside the first one, and not to explain it."""
    between = text[first.end() : match.start()]
    return bool(_AND_THEN.search(between)) and not _EXPLAINS.search(between)


def _relation(match: re.Match[str], kind: RelationKind) -> Relation:
    number = official_number(match["number"])
    return Relation(kind, number, match.start("name"), match.end("number"))


# --- consolidated texts ------------------------------------------------------------------------


def _of_consolidated(text: str, head: str) -> Validity | None:
    """A văn bản hợp nhất: its own number and day stand where it is authenticated, mostly at the end."""
    numbers = list(_AUTHENTICATED.finditer(text))
    number = _only(_fact(m, "number", official_number(m["number"])) for m in numbers)
    if number is None:
        return None
    heading = _heading(head)
    near = _DATELINE.search(text, number.end, number.end + 300)
    kind = replace(number, value=CONSOLIDATED)
    return Validity(
        number=number,
        kind=kind,
        body=_body(number, text),
        title=_title(head, heading, KINDS),
        issued=_day_fact(near, "day") if near else None,
        relations=tuple(_consolidates(text, heading)),
    )


def _consolidates(text: str, heading: re.Match[str] | None) -> Iterator[Relation]:
    """The document whose text it gives: the first number of the heading's kind before 'được sửa đổi'."""
    amended = re.compile(r"được\s+sửa\s+đổi").search(text, heading.end() if heading else 0, _HEAD)
    if heading is None or amended is None:
        return
    kind = " ".join(heading["kind"].split()).capitalize()
    for match in re.compile(OFFICIAL_NUMBER).finditer(text, heading.end(), amended.start()):
        suffix = _suffix(official_number(match.group()))
        by_number = "Luật" if suffix.startswith("QH") else _KIND_OF_NUMBER.get(suffix.split("-")[0])
        if by_number == kind or (by_number == "Luật" and kind in ("Bộ luật", "Nghị quyết")):
            yield Relation("consolidates", official_number(match.group()), *match.span())
            return


# --- other documents ---------------------------------------------------------------------------


def _of_foreign(text: str) -> Validity:
    """An English contract or rule: its title, and the days that it calls its own."""
    head = text[:_HEAD]
    title = _ENGLISH_TITLE.search(head[:1500])
    if title is None:
        return Validity()
    return Validity(
        title=_fact(title, "title", " ".join(title["title"].split())),
        issued=_only(_english_day(m) for m in _ENGLISH_DATED.finditer(head[:3000])),
        effective=_only(_english_day(m) for m in _ENGLISH_EFFECTIVE.finditer(text)),
    )


# --- facts -------------------------------------------------------------------------------------


def _only(found: Iterable[Fact | None]) -> Fact | None:
    """The one value that all of them agree on, with its first evidence; None when they do not."""
    facts = [fact for fact in found if fact is not None]
    return facts[0] if len({fact.value for fact in facts}) == 1 else None


def _fact(match: re.Match[str], group: str, value: str) -> Fact:
    return Fact(value, *match.span(group))


def _day_fact(match: re.Match[str], group: str | int = 0) -> Fact | None:
    """The day that the pattern _DAY found, with that group as its evidence."""
    digits = [g for g in match.groups() if g and g.isdigit()]
    return _day(match, group, *map(int, digits[-3:]))


def _english_day(match: re.Match[str]) -> Fact | None:
    month = match["month"] or match["month2"]
    day, year = match["day"] or match["day2"], match["year"] or match["year2"]
    return _day(match, 0, int(day), _MONTHS[month], int(year))


def _day(match: re.Match[str], group: str | int, day: int, month: int, year: int) -> Fact | None:
    try:
        return Fact(date(year, month, day).isoformat(), *match.span(group))
    except ValueError:
        return None
