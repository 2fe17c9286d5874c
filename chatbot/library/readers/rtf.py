"""Rich Text Format (RTF): its paragraphs with list numbers, headings, tables as rows, footnotes."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from chatbot.errors import UnreadableDocument
from chatbot.library.readers.cleaning import clean_line
from chatbot.library.readers.composing import Composer
from chatbot.library.readers.legacy import NOTES, detect, modern
from chatbot.library.readers.text import MAX_BYTES, TOO_LARGE
from chatbot.types import ReadDocument

_TOKEN = re.compile(
    rb"\\([a-zA-Z]{1,32})(-?\d{1,10})?[ ]?"  # a control word and its number
    rb"|\\'([0-9a-fA-F]{2})"  # a byte
    rb"|\\([^a-zA-Z])"  # a control sign
    rb"|([{}])"
    rb"|([^\\{}\r\n]+)"
)
_SKIPPED = frozenset(
    b"""fonttbl colortbl stylesheet info pict object themedata colorschememapping latentstyles datastore xmlnstbl
    listtable listoverridetable rsidtbl generator header headerl headerr headerf footer footerl footerr footerf
    fldinst bkmkstart bkmkend filetbl revtbl ftnsep ftnsepc ftncn aftnsep aftnsepc aftncn mmathPr wgrffmtfilter
    objdata shpinst nonshppict annotation atnid atnauthor atndate atnref tc xe pgdsctbl userprops docvar""".split()
)
_KEPT_THOUGH_OPTIONAL = frozenset([b"shptxt"])
_SIGNS = {
    b"tab": " ", b"line": " ", b"emdash": "—", b"endash": "–", b"bullet": "•", b"lquote": "‘", b"rquote": "’",
    b"ldblquote": "“", b"rdblquote": "”", b"emspace": " ", b"enspace": " ", b"qmspace": " ",
}  # fmt: skip
_CHARSETS = {
    0: "cp1252", 2: "cp1252", 77: "mac_roman", 128: "cp932", 129: "cp949", 134: "cp936", 136: "cp950",
    161: "cp1253", 162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251",
    222: "cp874", 238: "cp1250",
}  # fmt: skip
_HEADING = re.compile(r"(?:heading|tiêu đề|đề mục) (\d)", re.IGNORECASE)


def read_rtf(path: Path, name: str) -> ReadDocument:
    """An RTF file as one page. Raises UnreadableDocument."""
    if path.stat().st_size > MAX_BYTES:
        raise UnreadableDocument(TOO_LARGE, name=name)
    return parse_rtf(path.read_bytes())


def parse_rtf(raw: bytes) -> ReadDocument:
    """What those bytes of RTF say, as one page."""
    parser = _Parser()
    parser.run(raw)
    return parser.document()


@dataclass(slots=True)
class _State:
    """What holds inside a group, and ends with it."""

    target: str = "text"  # text, nothing, fonts, styles, title, note
    codec: str | None = None
    skip: int = 1  # how many characters stand in for one of Unicode


@dataclass(slots=True)
class _Paragraph:
    text: str
    level: int = 0
    cells: list[str] = field(default_factory=list)


class _Parser:
    """One pass over the tokens; what a paragraph says of itself is known only at its end."""

    def __init__(self) -> None:
        self._codec = "cp1252"
        self._fonts: dict[int, str] = {}
        self._font = 0
        self._levels: dict[int, int] = {}
        self._style = self._outline = -1
        self._state = _State()
        self._above: list[_State] = []
        self._bytes = bytearray()
        self._parts: dict[str, list[str]] = {t: [] for t in ("text", "fonts", "styles", "title", "note")}  # fmt: skip
        self._to_skip = 0
        self._cells: list[str] = []
        self._in_table = False
        self._paragraphs: list[_Paragraph] = []
        self._notes: list[str] = []
        self._optional = False

    def run(self, raw: bytes) -> None:
        position, end = 0, len(raw)
        while position < end:
            match = _TOKEN.match(raw, position)
            if match is None:
                position += 1  # a line break, which means nothing
                continue
            position = match.end()
            word, number, byte, sign, brace, text = match.groups()
            if text is not None:
                self._write_bytes(text)
            elif byte is not None:
                self._write_bytes(bytes([int(byte, 16)]))
            elif word == b"bin":
                position += max(0, int(number or 0))
            elif word is not None:
                self._word(word, int(number) if number else None)
            elif sign is not None:
                self._sign(sign)
            elif brace == b"{":
                self._flush()
                self._above.append(replace(self._state))
                self._to_skip = 0
            elif self._above:
                self._close_group()
        self._end_paragraph()

    def document(self) -> ReadDocument:
        """What was read, in Unicode."""
        texts = [t for p in self._paragraphs for t in (p.cells or [p.text])] + self._notes
        scheme = detect("\n".join(texts))
        composer = Composer()
        was_table = False
        for paragraph in self._paragraphs:
            if was_table and not paragraph.cells:
                composer.gap()
            was_table = bool(paragraph.cells)
            cells = [clean_line(modern(c, scheme)) for c in paragraph.cells or [paragraph.text]]
            composer.paragraph(" | ".join(c for c in cells if c), paragraph.level)
        if self._notes:
            composer.gap()
        for note in self._notes:
            composer.paragraph(clean_line(modern(note, scheme)))
        title = modern("".join(self._parts["title"]), scheme)
        return composer.document("application/rtf", title, NOTES[scheme] if scheme else None)

    def _word(self, word: bytes, number: int | None) -> None:
        self._flush()
        optional, self._optional = self._optional, False
        if word == b"u" and number is not None:
            self._write(chr(number % 65536))
            self._to_skip = self._state.skip
            return
        self._to_skip = 0
        if optional and word not in _KEPT_THOUGH_OPTIONAL:
            self._state.target = "nothing"
        elif word in _KEPT_THOUGH_OPTIONAL:
            self._state.target = "text"
        elif word in _SIGNS:
            self._write(_SIGNS[word])
        elif word in (b"par", b"page", b"sect"):
            self._write(" ") if self._state.target == "note" else self._end_paragraph()
        elif word in (b"cell", b"nestcell"):
            self._cells.append(self._taken("text"))
        elif word in (b"row", b"nestrow"):
            self._end_row()
        else:
            self._target(word)
            self._property(word, number)

    def _target(self, word: bytes) -> None:
        if word == b"fonttbl":
            self._state.target = "fonts"
        elif word == b"stylesheet":
            self._state.target = "styles"
        elif word == b"title" and self._state.target == "nothing":
            self._state.target = "title"
        elif word == b"footnote":
            mark = len(self._notes) + 1
            self._write(f" [{mark}]")
            self._state.target = "note"
        elif word in _SKIPPED:
            self._state.target = "nothing"

    def _property(self, word: bytes, number: int | None) -> None:
        if word == b"mac":
            self._codec = "mac_roman"
        elif word == b"plain":
            self._state.codec = None
        elif word == b"pard":
            self._style, self._outline, self._in_table = -1, -1, False
        elif word == b"intbl":
            self._in_table = True
        elif number is not None:
            self._numbered(word, number)

    def _numbered(self, word: bytes, number: int) -> None:
        if word == b"ansicpg":
            self._codec = _known(f"cp{number}") or self._codec
        elif word == b"uc":
            self._state.skip = max(0, number)
        elif word in (b"f", b"deff"):
            self._font = number
            self._state.codec = self._fonts.get(number)
        elif word == b"fcharset":
            if codec := _CHARSETS.get(number):
                self._fonts[self._font] = codec
        elif word == b"s":
            self._style = number
        elif word == b"outlinelevel":
            self._outline = number
            if self._state.target == "styles":
                self._levels[self._style] = number + 1

    def _sign(self, sign: bytes) -> None:
        if sign == b"*":
            self._optional = True
        elif sign in b"\\{}":
            self._write_bytes(sign)
        elif sign in b"~\t":
            self._flush()
            self._write(" ")
        elif sign == b"_":
            self._flush()
            self._write("-")
        elif sign == b"-":
            self._write_bytes(b"\xad")  # 'ư' in TCVN3; else it vanishes
        elif sign in b"\r\n":
            self._word(b"par", None)

    def _close_group(self) -> None:
        self._flush()
        target = self._state.target
        self._state = self._above.pop()
        self._to_skip = 0
        self._optional = False
        if target == "styles":
            name = self._taken("styles")
            if match := _HEADING.search(name):
                self._levels.setdefault(self._style, int(match.group(1)))
            self._style = -1
        elif target == "fonts":
            self._taken("fonts")
        elif target == "note" and self._state.target != "note":
            note = clean_line(self._taken("note"))
            self._notes.append(f"[{len(self._notes) + 1}] {note}")

    def _write_bytes(self, raw: bytes) -> None:
        if self._to_skip:
            skipped = min(self._to_skip, len(raw))
            self._to_skip -= skipped
            raw = raw[skipped:]
        if self._state.target != "nothing":
            self._bytes += raw

    def _flush(self) -> None:
        if self._bytes:
            self._write(self._bytes.decode(self._state.codec or self._codec, "replace"))
            self._bytes.clear()

    def _write(self, text: str) -> None:
        if self._state.target != "nothing":
            self._parts[self._state.target].append(text)

    def _taken(self, target: str) -> str:
        self._flush()
        # Characters beyond the first 65,536 are written as two halves.
        text = "".join(self._parts[target]).encode("utf-16-le", "surrogatepass")
        self._parts[target].clear()
        return text.decode("utf-16-le", "replace")

    def _end_paragraph(self) -> None:
        if self._in_table:  # a cell of several paragraphs
            self._write(" ")
            return
        if self._cells:
            self._end_row()
        text = self._taken("text")
        if text.strip():
            level = self._outline + 1 if self._outline >= 0 else self._levels.get(self._style, 0)
            self._paragraphs.append(_Paragraph(text, level if level <= 6 else 0))

    def _end_row(self) -> None:
        if any(c.strip() for c in self._cells):
            self._paragraphs.append(_Paragraph("", cells=self._cells))
        self._cells = []


def _known(codec: str) -> str | None:
    try:
        return codecs.lookup(codec).name
    except LookupError:
        return None
