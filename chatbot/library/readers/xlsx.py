"""Excel workbooks (XLSX): every sheet as rows that name their columns, values as Excel shows them."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterator
from pathlib import Path

from chatbot.errors import UnreadableDocument
from chatbot.i18n import N_
from chatbot.library.readers.archive import (
    Element,
    Package,
    attribute,
    child,
    children,
    core_title,
    local,
    opened,
)
from chatbot.library.readers.composing import Composer
from chatbot.library.readers.progress import Progress
from chatbot.library.readers.rows import Cell, write_tables
from chatbot.types import ReadDocument

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
MAX_COLUMNS = 16_384
NO_SHEETS = N_("it has no sheets inside")

_DATES = frozenset([*range(14, 18), 22, *range(27, 32), 34, 35, 36, *range(50, 59)])
_TIMES = frozenset([18, 19, 20, 21, 32, 33, 45, 46, 47])
_PERCENTS = {9: 0, 10: 2}
_QUOTED = re.compile(r'"[^"]*"|\\.|\[(?!h|m|s)[^\]]*\]|[_*].', re.IGNORECASE)
_EXCEL_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")


def read_xlsx(path: Path, name: str, progress: Progress) -> ReadDocument:
    """A workbook; the sheets are headings, page numbers are None.

    Raises UnreadableDocument for damaged, encrypted or hostile files.
    """
    with opened(path, name) as package:
        main = package.main_part("xl/workbook.xml")
        workbook = package.xml(main)
        if workbook is None:
            raise UnreadableDocument(NO_SHEETS, name=name)
        relations = package.relations(main)
        parts = dict(relations.values())
        values = _Values(
            package, parts.get("sharedStrings", ""), package.xml(parts.get("styles", "")), workbook
        )
        sheets = [
            (sheet.get("name") or "", relations[attribute(sheet, "id") or ""])
            for sheet in children(workbook, "sheets")
            if attribute(sheet, "id") in relations
        ]
        composer = Composer()
        for number, (title, (kind, part)) in enumerate(sheets, 1):
            if kind == "worksheet":
                write_tables(_rows(package, part, values), composer, title=title)
            progress(number, len(sheets))
        return composer.document(MEDIA_TYPE, core_title(package))


def _rows(package: Package, part: str, values: _Values) -> Iterator[list[Cell]]:
    last = 0
    for row in package.elements(part, "row"):
        number = int(row.get("r") or last + 1)
        if number > last + 1:
            yield []
        last = number
        cells: list[Cell] = []
        for cell in row:
            if local(cell) != "c":
                continue
            column = _column(cell.get("r") or "")
            if column is not None and len(cells) <= column < MAX_COLUMNS:
                cells.extend([Cell("")] * (column - len(cells)))
            cells.append(values.shown(cell))
        yield cells


def _column(reference: str) -> int | None:
    """'C7' → 2."""
    column = 0
    for letter in reference.upper():
        if not "A" <= letter <= "Z":
            break
        column = column * 26 + ord(letter) - 64
    return column - 1 if column else None


class _Values:
    """Turns cells into what Excel shows, by shared strings and number formats."""

    def __init__(
        self, package: Package, strings: str, styles: Element | None, workbook: Element
    ) -> None:
        self._strings = [_text(item) for item in package.elements(strings, "si")]
        own = {
            format_.get("numFmtId"): format_.get("formatCode") or ""
            for format_ in children(styles, "numFmts")
        }
        self._formats = [
            (int(style.get("numFmtId") or 0), own.get(style.get("numFmtId"), ""))
            for style in children(styles, "cellXfs")
        ]
        properties = child(workbook, "workbookPr")
        since_1904 = properties is not None and properties.get("date1904") in ("1", "true")
        self._epoch = dt.datetime(1904, 1, 1) if since_1904 else dt.datetime(1899, 12, 30)  # noqa: DTZ001  # fmt: skip

    def shown(self, cell: Element) -> Cell:
        """What that cell shows."""
        kind = cell.get("t") or "n"
        if kind == "inlineStr":
            inline = child(cell, "is")
            return Cell(_text(inline) if inline is not None else "")
        value = child(cell, "v")
        raw = (value.text or "").strip(" \r\n") if value is not None else ""
        if kind == "s":
            place = int(raw) if raw.isdecimal() else -1
            return Cell(self._strings[place] if 0 <= place < len(self._strings) else "")
        if kind == "b":
            return Cell({"1": "TRUE", "0": "FALSE"}.get(raw, raw), is_number=True)
        if kind == "n" and raw:
            style = int(cell.get("s") or 0)
            format_ = self._formats[style] if style < len(self._formats) else (0, "")
            return Cell(self._number(raw, *format_), is_number=True)
        return Cell(_unescaped(raw), is_number=kind == "d")

    def _number(self, raw: str, format_id: int, code: str) -> str:
        try:
            number = float(raw)
        except ValueError:
            return raw
        if not math.isfinite(number):
            return raw
        bare = _QUOTED.sub("", code.partition(";")[0]).lower()
        has_date = format_id in _DATES or bool(re.search(r"[yd]|mmm", bare))
        has_time = format_id in _TIMES or format_id == 22 or bool(re.search(r"[hs]", bare))
        if has_date or has_time:
            return self._moment(number, has_date=has_date, has_time=has_time) or raw
        if format_id in _PERCENTS or "%" in bare:
            return f"{number * 100:.10g}%"
        return f"{number:.15g}" if abs(number) < 1e15 else raw

    def _moment(self, number: float, *, has_date: bool, has_time: bool) -> str:
        try:
            moment = self._epoch + dt.timedelta(seconds=round(number * 86_400))
        except OverflowError:
            return ""
        if has_date and (moment.time() == dt.time() or not has_time):
            return moment.date().isoformat()
        if has_date:
            return moment.isoformat(" ", "minutes")
        if abs(number) >= 1:  # a duration, [h]:mm
            minutes = round(number * 1440)
            return f"{minutes // 60}:{minutes % 60:02}"
        return moment.time().isoformat("minutes" if moment.second == 0 else "seconds")


def _text(item: Element) -> str:
    """The text of a rich string, without its pronunciation guides."""
    parts = []
    for element in item:
        tag = local(element)
        if tag == "t":
            parts.append(element.text or "")
        elif tag == "r":
            text = child(element, "t")
            parts.append((text.text or "") if text is not None else "")
    return _unescaped("".join(parts))


def _unescaped(text: str) -> str:
    return _EXCEL_ESCAPE.sub(lambda m: chr(int(m.group(1), 16)), text) if "_x" in text else text
