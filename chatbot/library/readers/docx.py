"""Word documents (DOCX): paragraphs with their automatic numbers, headings, tables as rows, footnotes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from chatbot.errors import UnreadableDocument
from chatbot.i18n import N_
from chatbot.library.readers.archive import Element, attribute, child, core_title, local, opened
from chatbot.library.readers.cleaning import clean_line
from chatbot.library.readers.composing import Composer
from chatbot.library.readers.legacy import NOTES, detect, modern
from chatbot.types import ReadDocument

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

NO_DOCUMENT_PART = N_("it has no Word document inside")

_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_SKIPPED = frozenset(["del", "moveFrom", "Fallback", "instrText", "delText", "rPr", "sectPr", "pict", "tblPr", "tcPr", "trPr"])  # fmt: skip

_RAW = {"softHyphen": "\u00ad", "tab": " ", "br": " "}
_RAW_TAGS = ("{*}t", *(f"{{*}}{tag}" for tag in _RAW))


def read_docx(path: Path, name: str) -> ReadDocument:
    """A Word document; page numbers are None, since Word decides them anew at every opening.

    Raises UnreadableDocument for damaged, encrypted or hostile files.
    """
    with opened(path, name) as package:
        main = package.main_part("word/document.xml")
        body = package.xml(main)
        if body is None:
            raise UnreadableDocument(NO_DOCUMENT_PART, name=name)
        folder = str(PurePosixPath(main).parent)
        return _Document(
            body,
            styles=package.xml(f"{folder}/styles.xml"),
            numbering=package.xml(f"{folder}/numbering.xml"),
            notes=[package.xml(f"{folder}/{kind}.xml") for kind in ("footnotes", "endnotes")],
            title=core_title(package),
        ).read()


class _Document:
    """Turns the document's XML into paragraphs, looking up styles, numbers and notes on the way."""

    def __init__(
        self,
        root: Element,
        styles: Element | None,
        numbering: Element | None,
        notes: list[Element | None],
        title: str,
    ) -> None:
        self._root = root
        self._styles = _Styles(styles)
        self._numbering = _Numbering(numbering)
        self._notes = [_notes_by_id(n) for n in notes]
        self._cited: list[tuple[str, str]] = []
        self._title = title
        self._composer = Composer()
        everything = [root, *(n for n in notes if n is not None)]
        self._scheme = detect("\n".join(_raw_lines(everything)))

    def read(self) -> ReadDocument:
        body = child(self._root, "body")
        if body is not None:
            self._blocks(body)
        self._write_notes()
        note = NOTES[self._scheme] if self._scheme else None
        return self._composer.document(MEDIA_TYPE, self._title, note)

    def _blocks(self, parent: Element) -> None:
        for element in _content(parent):
            tag = local(element)
            if tag == "p":
                self._paragraph(element)
            elif tag == "tbl":
                self._table(element)

    def _paragraph(self, paragraph: Element) -> None:
        boxes: list[Element] = []
        text = clean_line(self._text(paragraph, boxes))
        style = _value(paragraph, "pPr", "pStyle")
        if text:
            number = self._numbering.next(
                _value(paragraph, "pPr", "numPr", "numId") or self._styles.number(style),
                _value(paragraph, "pPr", "numPr", "ilvl") or self._styles.number_level(style),
            )
            own = _value(paragraph, "pPr", "outlineLvl")
            level = int(own) + 1 if own and own.isdecimal() else self._styles.heading_level(style)
            self._composer.paragraph(number + text, level if level <= 6 else 0)
        for box in boxes:  # what stands in a text box follows the paragraph it hangs on
            self._blocks(box)

    def _table(self, table: Element) -> None:
        for row in _content(table):
            if local(row) != "tr":
                continue
            cells = [c for c in _content(row) if local(c) == "tc"]
            shown = [self._cell(c) for c in cells if not _continues_merge(c)]
            self._composer.paragraph(" | ".join(t for t in shown if t))
        self._composer.gap()

    def _cell(self, cell: Element) -> str:
        texts: list[str] = []
        for element in cell.iter():
            if local(element) == "p" and not _inside(element, cell, _SKIPPED):
                number = self._numbering.next(
                    _value(element, "pPr", "numPr", "numId"),
                    _value(element, "pPr", "numPr", "ilvl"),
                )
                text = clean_line(self._text(element, []))
                texts.append(number + text if text else "")
        return " ".join(t for t in texts if t)

    def _text(self, paragraph: Element, boxes: list[Element]) -> str:
        parts: list[str] = []
        pending = [iter(paragraph)]
        while pending:
            element = next(pending[-1], None)
            if element is None:
                pending.pop()
                continue
            tag = local(element)
            if tag == "t":
                parts.append(element.text or "")
            elif tag in ("tab", "br", "cr", "ptab"):
                parts.append(" ")
            elif tag == "softHyphen":
                parts.append("\u00ad")  # which is 'ư' in TCVN3 and else vanishes
            elif tag == "noBreakHyphen":
                parts.append("-")
            elif tag == "sym":
                parts.append(_symbol(element))
            elif tag in ("footnoteReference", "endnoteReference"):
                parts.append(self._cite(tag, element))
            elif tag == "txbxContent":
                boxes.append(element)
            elif tag not in _SKIPPED and tag != "pPr":
                pending.append(iter(element))
        return modern("".join(parts), self._scheme)

    def _cite(self, tag: str, reference: Element) -> str:
        note = self._notes[tag == "endnoteReference"].get(attribute(reference, "id") or "")
        if note is None:
            return ""
        mark = str(len(self._cited) + 1).translate(_SUPERSCRIPT)
        self._cited.append((mark, clean_line(self._text(note, []))))
        return mark

    def _write_notes(self) -> None:
        cited = [f"{mark} {text}" for mark, text in self._cited if text]
        if cited:
            self._composer.gap()
        for note in cited:
            self._composer.paragraph(note)


class _Styles:
    """What paragraph styles say about headings and numbering, through their basedOn chains."""

    def __init__(self, root: Element | None) -> None:
        self._styles: dict[str, Element] = {}
        for style in root if root is not None else ():
            if local(style) == "style" and (identifier := attribute(style, "styleId")):
                self._styles[identifier] = style

    def heading_level(self, identifier: str | None) -> int:
        """1 to 9 for headings, 0 for others; 'Title' counts as 1."""
        for style in self._chain(identifier):
            outline = _value(style, "pPr", "outlineLvl")
            if outline is not None and outline.isdecimal():
                return int(outline) + 1 if int(outline) < 9 else 0
            label = (_value(style, "name") or "").lower()
            if label == "title":
                return 1
            if label.startswith("heading ") and label[8:].isdecimal():
                return int(label[8:])
        return 0

    def number(self, identifier: str | None) -> str | None:
        return self._first(identifier, "numId")

    def number_level(self, identifier: str | None) -> str | None:
        return self._first(identifier, "ilvl")

    def _first(self, identifier: str | None, key: str) -> str | None:
        return next(
            (v for s in self._chain(identifier) if (v := _value(s, "pPr", "numPr", key))), None
        )

    def _chain(self, identifier: str | None) -> Iterator[Element]:
        for _ in range(20):  # a file may claim a style is based on itself
            style = self._styles.get(identifier or "")
            if style is None:
                return
            yield style
            identifier = _value(style, "basedOn")


class _Numbering:
    """Counts automatic numbers as Word does: 'Điều 3.', '2.1', 'b)' are nowhere in the text itself."""

    def __init__(self, root: Element | None) -> None:
        self._levels: dict[str, dict[int, tuple[str, str, int]]] = {}
        self._lists: dict[str, str] = {}
        self._counts: dict[str, dict[int, int]] = {}
        for element in root if root is not None else ():
            identifier = attribute(element, "abstractNumId") or ""
            if local(element) == "abstractNum":
                self._levels[identifier] = dict(_numbering_levels(element))
            elif local(element) == "num":
                target = _value(element, "abstractNumId") or ""
                self._lists[attribute(element, "numId") or ""] = target

    def next(self, list_id: str | None, level_id: str | None) -> str:
        """The number that this paragraph carries, with a space behind it; '' when it has none."""
        levels = self._levels.get(self._lists.get(list_id or "", ""))
        level = int(level_id) if level_id and level_id.isdecimal() else 0
        if not levels or level not in levels:
            return ""
        kind, pattern, start = levels[level]
        if kind == "bullet":
            return "• "
        counts = self._counts.setdefault(self._lists[list_id or ""], {})
        counts[level] = counts.get(level, start - 1) + 1
        for deeper in [d for d in counts if d > level]:
            del counts[deeper]
        for upper in range(level):
            counts.setdefault(upper, levels[upper][2] if upper in levels else 1)
        label = pattern
        for other, count in counts.items():
            form = _FORMS.get(levels[other][0], str) if other in levels else str
            label = label.replace(f"%{other + 1}", form(count))
        return f"{label.strip()} " if label.strip() else ""


def _raw_lines(roots: list[Element]) -> Iterator[str]:
    for root in roots:
        for paragraph in root.iter("{*}p"):
            yield "".join(_RAW.get(local(e)) or e.text or "" for e in paragraph.iter(*_RAW_TAGS))


def _numbering_levels(abstract: Element) -> Iterator[tuple[int, tuple[str, str, int]]]:
    for level in abstract:
        number = attribute(level, "ilvl") or ""
        if local(level) == "lvl" and number.isdecimal():
            start = _value(level, "start") or "1"
            kind = _value(level, "numFmt") or "decimal"
            pattern = "" if kind == "none" else (_value(level, "lvlText") or "")
            yield int(number), (kind, pattern, int(start) if start.isdecimal() else 1)


def _letters(count: int) -> str:
    return chr(ord("a") + (count - 1) % 26) * ((count - 1) // 26 % 5 + 1) if count > 0 else ""


def _roman(count: int) -> str:
    values = ((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"),
              (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))  # fmt: skip
    text = ""
    for value, sign in values:
        while 0 < value <= count < 5000:
            text += sign
            count -= value
    return text


_FORMS: dict[str, Callable[[int], str]] = {
    "lowerLetter": _letters,
    "upperLetter": lambda n: _letters(n).upper(),
    "lowerRoman": _roman,
    "upperRoman": lambda n: _roman(n).upper(),
    "decimalZero": lambda n: f"{n:02}",
}


def _content(parent: Element) -> Iterator[Element]:
    """Children that count as content, looking through wrappers (content controls, insertions)."""
    pending = [iter(parent)]
    while pending:
        element = next(pending[-1], None)
        if element is None:
            pending.pop()
        elif local(element) in ("sdt", "sdtContent", "ins", "moveTo", "customXml", "smartTag", "AlternateContent", "Choice"):  # fmt: skip
            pending.append(iter(element))
        elif local(element) not in _SKIPPED:
            yield element


def _notes_by_id(root: Element | None) -> dict[str, Element]:
    notes = (n for n in (root if root is not None else ()) if attribute(n, "type") is None)
    return {attribute(n, "id") or "": n for n in notes}


def _symbol(element: Element) -> str:
    code = attribute(element, "char") or ""
    try:
        return chr(int(code, 16))
    except (ValueError, OverflowError):
        return ""


def _continues_merge(cell: Element) -> bool:
    merge = child(cell, "tcPr", "vMerge")
    return merge is not None and attribute(merge, "val") in (None, "continue")


def _inside(element: Element, top: Element, tags: frozenset[str]) -> bool:
    parent = element.getparent()
    while parent is not None and parent is not top:
        if local(parent) in tags:
            return True
        parent = parent.getparent()
    return False


def _value(element: Element, *tags: str) -> str | None:
    """The w:val of the element at the end of that path."""
    found = child(element, *tags)
    return attribute(found, "val") if found is not None else None
