"""Word documents (DOCX): paragraphs with their automatic numbers, headings, tables as rows, footnotes.

The zip and its XML are read with limits of our own: a bomb of half a megabyte would otherwise take
gigabytes, and an entity in the XML would silently lose text.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from lxml import etree

from chatbot.errors import UnreadableDocument
from chatbot.i18n import N_
from chatbot.library.readers.cleaning import clean_line
from chatbot.library.readers.composing import Composer
from chatbot.library.readers.kinds import DAMAGED, NEEDS_PASSWORD
from chatbot.types import ReadDocument

MAX_TOTAL = 200_000_000
MAX_PART = 100_000_000
MAX_RATIO = 100
MAX_PARTS = 5_000
SMALL_PART = (
    1_000_000  # below this a high ratio does no harm: XML of empty table cells reaches 100:1
)
MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

TOO_BIG_INSIDE = N_("it unpacks to far more than its size, as a harmful file would")
HAS_ENTITIES = N_("it contains XML declarations that a Word document never has")
NO_DOCUMENT_PART = N_("it has no Word document inside")

_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_SKIPPED = frozenset(["del", "moveFrom", "Fallback", "instrText", "delText", "rPr", "sectPr", "pict", "tblPr", "tcPr", "trPr"])  # fmt: skip

Element: TypeAlias = etree._Element


def read_docx(path: Path, name: str) -> ReadDocument:
    """A Word document; page numbers are None, since Word decides them anew at every opening.

    Raises UnreadableDocument for damaged, encrypted or hostile files.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive, name)
            package = _Package(archive, name)
            main = package.main_part()
            body = package.xml(main)
            if body is None:
                raise UnreadableDocument(NO_DOCUMENT_PART, name=name)
            folder = str(PurePosixPath(main).parent)
            return _Document(
                body,
                styles=package.xml(f"{folder}/styles.xml"),
                numbering=package.xml(f"{folder}/numbering.xml"),
                notes=[package.xml(f"{folder}/{kind}.xml") for kind in ("footnotes", "endnotes")],
                title=_title(package.xml("docProps/core.xml")),
            ).read()
    except (zipfile.BadZipFile, etree.XMLSyntaxError, EOFError, OSError, ValueError) as error:
        raise UnreadableDocument(DAMAGED, name=name) from error
    except (RuntimeError, NotImplementedError) as error:  # encrypted members, unknown compression
        raise UnreadableDocument(NEEDS_PASSWORD, name=name) from error


def _check_sizes(archive: zipfile.ZipFile, name: str) -> None:
    parts = archive.infolist()
    total = sum(p.file_size for p in parts)
    bomb = any(
        p.file_size > MAX_PART
        or (p.file_size > SMALL_PART and p.file_size > MAX_RATIO * max(p.compress_size, 1))
        for p in parts
    )
    if bomb or total > MAX_TOTAL or len(parts) > MAX_PARTS:
        raise UnreadableDocument(TOO_BIG_INSIDE, name=name)


class _Package:
    """The parts of the zip, each parsed without entities, DTDs or network."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self._archive = archive
        self._name = name
        self._members = {m.lstrip("/").lower(): m for m in archive.namelist()}

    def main_part(self) -> str:
        """The part that the package names as its document; word/document.xml when it names none."""
        relations = self.xml("_rels/.rels")
        for relation in relations if relations is not None else ():
            if (relation.get("Type") or "").endswith("/officeDocument"):
                return (relation.get("Target") or "").lstrip("/")
        return "word/document.xml"

    def xml(self, part: str) -> Element | None:
        """The root of that part; None when the package lacks it."""
        member = self._members.get(part.lower())
        if member is None:
            return None
        parser = etree.XMLParser(
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=True,
            remove_comments=True,
            remove_pis=True,
        )
        with self._archive.open(member) as file:
            tree = etree.parse(file, parser)
        if tree.docinfo.doctype or tree.docinfo.internalDTD is not None:
            raise UnreadableDocument(HAS_ENTITIES, name=self._name)
        return tree.getroot()


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

    def read(self) -> ReadDocument:
        body = _child(self._root, "body")
        if body is not None:
            self._blocks(body)
        self._write_notes()
        return self._composer.document(MEDIA_TYPE, self._title)

    def _blocks(self, parent: Element) -> None:
        for element in _content(parent):
            tag = _tag(element)
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
            if _tag(row) != "tr":
                continue
            cells = [c for c in _content(row) if _tag(c) == "tc"]
            shown = [self._cell(c) for c in cells if not _continues_merge(c)]
            self._composer.paragraph(" | ".join(t for t in shown if t))
        self._composer.gap()

    def _cell(self, cell: Element) -> str:
        texts: list[str] = []
        for element in cell.iter():
            if _tag(element) == "p" and not _inside(element, cell, _SKIPPED):
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
            tag = _tag(element)
            if tag == "t":
                parts.append(element.text or "")
            elif tag in ("tab", "br", "cr", "ptab"):
                parts.append(" ")
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
        return "".join(parts)

    def _cite(self, tag: str, reference: Element) -> str:
        note = self._notes[tag == "endnoteReference"].get(_attribute(reference, "id") or "")
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
            if _tag(style) == "style" and (identifier := _attribute(style, "styleId")):
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
            identifier = _attribute(element, "abstractNumId") or ""
            if _tag(element) == "abstractNum":
                self._levels[identifier] = dict(_numbering_levels(element))
            elif _tag(element) == "num":
                target = _value(element, "abstractNumId") or ""
                self._lists[_attribute(element, "numId") or ""] = target

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


def _numbering_levels(abstract: Element) -> Iterator[tuple[int, tuple[str, str, int]]]:
    for level in abstract:
        number = _attribute(level, "ilvl") or ""
        if _tag(level) == "lvl" and number.isdecimal():
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
        elif _tag(element) in ("sdt", "sdtContent", "ins", "moveTo", "customXml", "smartTag", "AlternateContent", "Choice"):  # fmt: skip
            pending.append(iter(element))
        elif _tag(element) not in _SKIPPED:
            yield element


def _notes_by_id(root: Element | None) -> dict[str, Element]:
    notes = (n for n in (root if root is not None else ()) if _attribute(n, "type") is None)
    return {_attribute(n, "id") or "": n for n in notes}


def _title(core: Element | None) -> str:
    return next(
        (e.text or "" for e in (core if core is not None else ()) if _tag(e) == "title"), ""
    )


def _symbol(element: Element) -> str:
    code = _attribute(element, "char") or ""
    try:
        return chr(int(code, 16))
    except (ValueError, OverflowError):
        return ""


def _continues_merge(cell: Element) -> bool:
    properties = _child(cell, "tcPr")
    merge = _child(properties, "vMerge") if properties is not None else None
    return merge is not None and _attribute(merge, "val") in (None, "continue")


def _inside(element: Element, top: Element, tags: frozenset[str]) -> bool:
    parent = element.getparent()
    while parent is not None and parent is not top:
        if _tag(parent) in tags:
            return True
        parent = parent.getparent()
    return False


def _tag(element: Element) -> str:
    # Local names only: the strict flavour of the format uses other namespaces for the same tags.
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _child(element: Element, tag: str) -> Element | None:
    return next((c for c in element if _tag(c) == tag), None)


def _attribute(element: Element, name: str) -> str | None:
    return next((v for k, v in element.attrib.items() if k.rpartition("}")[2] == name), None)


def _value(element: Element, *tags: str) -> str | None:
    """The w:val of the element at the end of that path."""
    current: Element | None = element
    for tag in tags:
        current = _child(current, tag) if current is not None else None
    return _attribute(current, "val") if current is not None else None
