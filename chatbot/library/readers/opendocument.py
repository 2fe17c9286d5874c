"""OpenDocument files: text (ODT), spreadsheets (ODS) and presentations (ODP)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from chatbot.errors import UnreadableDocument
from chatbot.i18n import N_
from chatbot.library.readers.archive import Element, attribute, child, local, opened
from chatbot.library.readers.cleaning import clean_line
from chatbot.library.readers.composing import Composer
from chatbot.library.readers.kinds import NEEDS_PASSWORD, Kind
from chatbot.library.readers.progress import Progress
from chatbot.library.readers.rows import Cell, write_tables
from chatbot.types import ReadDocument

MEDIA_TYPE = "application/vnd.oasis.opendocument."
NO_CONTENT = N_("it has no document inside")
MAX_REPEATED = 1_000  # a sheet's empty remainder is 'repeated' a million times

_SILENT = frozenset(["annotation", "tracked-changes", "forms", "sequence-decls", "variable-decls", "user-field-decls",
                     "shapes", "settings", "date-time-decl", "header-decl", "footer-decl"])  # fmt: skip
_FAMILIES: dict[Kind, str] = {"odt": "text", "ods": "spreadsheet", "odp": "presentation"}


def read_opendocument(path: Path, name: str, kind: Kind, progress: Progress) -> ReadDocument:
    """An OpenDocument file; slides have page numbers. Raises UnreadableDocument."""
    with opened(path, name) as package:
        manifest = package.xml("META-INF/manifest.xml")
        if manifest is not None and next(manifest.iter("{*}encryption-data"), None) is not None:
            raise UnreadableDocument(NEEDS_PASSWORD, name=name)
        family = _FAMILIES[kind]
        body = child(package.xml("content.xml"), "body", family)
        if body is None:
            raise UnreadableDocument(NO_CONTENT, name=name)
        meta = child(package.xml("meta.xml"), "meta", "title")
        writer = _Writer()
        if kind == "odp":
            slides = [e for e in body if local(e) == "page"]
            for number, slide in enumerate(slides, 1):
                writer.slide(slide)
                writer.composer.end_page(number)
                progress(number, len(slides))
        else:
            writer.blocks(body, sheets=kind == "ods")
        writer.write_notes()
        title = (meta.text or "") if meta is not None else ""
        return writer.composer.document(MEDIA_TYPE + family, title)


class _Writer:
    """Goes through blocks without recursion: files may nest their lists a million times."""

    def __init__(self) -> None:
        self.composer = Composer()
        self._notes: list[str] = []

    def blocks(self, parent: Element, *, sheets: bool = False) -> None:
        """Paragraphs, headings, lists and tables, looking through sections and frames."""
        pending = [iter(parent)]
        while pending:
            element = next(pending[-1], None)
            if element is None:
                pending.pop()
                continue
            tag = local(element)
            if tag == "h":
                level = attribute(element, "outline-level") or "1"
                self._paragraph(element, int(level) if level.isdecimal() else 1)
            elif tag == "p":
                self._paragraph(element)
            elif tag == "table":
                title = (attribute(element, "name") or "") if sheets else ""
                write_tables(self._rows(element), self.composer, title=title)
            elif tag not in _SILENT:
                pending.append(iter(element))

    def slide(self, slide: Element) -> None:
        """One slide: its title first, then its frames, then the speaker's notes."""
        frames = sorted(slide, key=lambda e: attribute(e, "class") != "title")
        for frame in frames:
            if local(frame) == "notes":
                self.composer.gap()
                for part in frame:
                    if attribute(part, "class") == "notes":
                        self.blocks(part)
            elif attribute(frame, "class") == "title":
                title = " ".join(self._text(p) for p in frame.iter("{*}p", "{*}h"))
                self.composer.paragraph(clean_line(title), level=1)
            else:
                self.blocks(frame)

    def write_notes(self) -> None:
        """Footnotes, at the end, under their marks."""
        if self._notes:
            self.composer.gap()
        for note in self._notes:
            self.composer.paragraph(note)

    def _paragraph(self, element: Element, level: int = 0) -> None:
        boxes: list[Element] = []
        self.composer.paragraph(clean_line(self._text(element, boxes)), level)
        for box in boxes:
            self.blocks(box)

    def _text(self, paragraph: Element, boxes: list[Element] | None = None) -> str:
        parts: list[str] = [paragraph.text or ""]
        pending = [iter(paragraph)]
        opened_: list[Element] = []
        while pending:
            element = next(pending[-1], None)
            if element is None:
                pending.pop()
                if opened_:
                    parts.append(opened_.pop().tail or "")
                continue
            tag = local(element)
            if tag in ("s", "tab", "line-break"):
                parts.append(" ")
            elif tag == "note":
                parts.append(self._cite(element))
            elif tag == "text-box" and boxes is not None:
                boxes.append(element)
            elif tag not in _SILENT:
                parts.append(element.text or "")
                opened_.append(element)
                pending.append(iter(element))
                continue
            parts.append(element.tail or "")
        return "".join(parts)

    def _cite(self, note: Element) -> str:
        mark = child(note, "note-citation")
        body = child(note, "note-body")
        label = ((mark.text or "") if mark is not None else "").strip()
        texts = body.iter("{*}p") if body is not None else ()
        if text := clean_line(" ".join(self._text(p) for p in texts)):
            self._notes.append(f"[{label}] {text}")
            return f" [{label}]"
        return ""

    def _rows(self, table: Element) -> Iterator[list[Cell]]:
        for row in _inside(table, "table-row"):
            cells: list[Cell] = []
            for cell in row:
                if local(cell) not in ("table-cell", "covered-table-cell"):
                    continue
                text = " ".join(self._text(p) for p in cell.iter("{*}p", "{*}h"))
                is_number = (attribute(cell, "value-type") or "string") != "string"
                cells.extend([Cell(text, is_number)] * _times(cell, "columns"))
            times = _times(row, "rows") if any(c.text.strip() for c in cells) else 1
            for _ in range(times):
                yield cells


def _inside(table: Element, tag: str) -> Iterator[Element]:
    """The rows of this table, not of tables in its cells."""
    pending = [iter(table)]
    while pending:
        element = next(pending[-1], None)
        if element is None:
            pending.pop()
        elif local(element) == tag:
            yield element
        elif local(element) in ("table-rows", "table-header-rows", "table-row-group"):
            pending.append(iter(element))


def _times(element: Element, what: str) -> int:
    value = attribute(element, f"number-{what}-repeated") or "1"
    return min(int(value), MAX_REPEATED) if value.isdecimal() else 1
