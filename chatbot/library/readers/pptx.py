"""PowerPoint presentations (PPTX): slide by slide, titles as headings, tables as rows, notes of the speaker."""

from __future__ import annotations

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
from chatbot.library.readers.cleaning import clean_line
from chatbot.library.readers.composing import Composer
from chatbot.library.readers.progress import Progress
from chatbot.library.readers.rows import Cell, write_tables
from chatbot.types import ReadDocument

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
NO_SLIDES = N_("it has no presentation inside")

_EDGES = frozenset(["dt", "ftr", "sldNum", "hdr"])  # repeated on every slide
_TITLES = frozenset(["title", "ctrTitle"])


def read_pptx(path: Path, name: str, progress: Progress) -> ReadDocument:
    """A presentation; the page numbers are the slides'.

    Raises UnreadableDocument for damaged, encrypted or hostile files.
    """
    with opened(path, name) as package:
        main = package.main_part("ppt/presentation.xml")
        presentation = package.xml(main)
        if presentation is None:
            raise UnreadableDocument(NO_SLIDES, name=name)
        relations = package.relations(main)
        listed = [attribute(s, "id") for s in _slide_ids(presentation)]
        slides = [relations[i][1] for i in listed if i in relations]
        composer = Composer()
        for number, part in enumerate(slides, 1):
            _slide(package, part, composer)
            composer.end_page(number)
            progress(number, len(slides))
        return composer.document(MEDIA_TYPE, core_title(package))


def _slide_ids(presentation: Element) -> Iterator[Element]:
    for slide in children(presentation, "sldIdLst"):
        # Both the slide's number and its relation are called 'id'; only the latter has a namespace.
        slide.attrib.pop("id", None)
        yield slide


def _slide(package: Package, part: str, composer: Composer) -> None:
    root = package.xml(part)
    if root is None:
        return
    relations = package.relations(part)
    shapes = list(_shapes(root))
    shapes.sort(key=lambda shape: _placeholder(shape) not in _TITLES)  # the title comes first
    for shape in shapes:
        _shape(shape, composer)
    for kind, target in relations.values():
        if kind == "diagramData":
            _diagram(package.xml(target), composer)
    for kind, target in relations.values():
        notes = package.xml(target) if kind == "notesSlide" else None
        for shape in _shapes(notes) if notes is not None else ():
            if _placeholder(shape) == "body":
                composer.gap()
                _shape(shape, composer)


def _shapes(root: Element) -> Iterator[Element]:
    """Shapes with text and tables, also inside groups; drawn alternatives for old programs left out."""
    pending = [iter(root)]
    while pending:
        element = next(pending[-1], None)
        if element is None:
            pending.pop()
        elif local(element) in ("sp", "tbl"):
            if _placeholder(element) not in _EDGES:
                yield element
        elif local(element) != "Fallback":
            pending.append(iter(element))


def _placeholder(shape: Element) -> str:
    for wrapper in shape:
        mark = child(wrapper, "nvPr", "ph") if local(wrapper) == "nvSpPr" else None
        if mark is not None:
            return mark.get("type") or "body"
    return ""


def _shape(shape: Element, composer: Composer) -> None:
    if local(shape) == "tbl":
        rows = (
            [Cell(" ".join(_paragraphs(c))) for c in row if local(c) == "tc"]
            for row in shape
            if local(row) == "tr"
        )
        write_tables(rows, composer)
    elif _placeholder(shape) in _TITLES:
        composer.paragraph(clean_line(" ".join(_paragraphs(shape))), level=1)
    else:
        for text in _paragraphs(shape):
            composer.paragraph(text)


def _paragraphs(parent: Element) -> Iterator[str]:
    for paragraph in parent.iter("{*}p"):
        parts = []
        for element in paragraph.iter():
            tag = local(element)
            if tag == "t":
                parts.append(element.text or "")
            elif tag in ("br", "tab"):
                parts.append(" ")
        if text := clean_line("".join(parts)):
            yield text


def _diagram(data: Element | None, composer: Composer) -> None:
    for point in data.iter("{*}pt") if data is not None else ():
        if point.get("type") not in ("pres", "parTrans", "sibTrans"):
            for text in _paragraphs(point):
                composer.paragraph(text)
