"""PDF files: the text of each page in reading order, lines joined to paragraphs, running heads removed.

PDFium gives the characters in the order in which the file draws them, which follows columns; where each
line stands on the page tells paragraphs, headings and running heads apart.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from chatbot.errors import UnreadableDocument
from chatbot.i18n import N_
from chatbot.library.readers.cleaning import clean_line
from chatbot.library.readers.composing import Composer, notes
from chatbot.library.readers.kinds import DAMAGED, NEEDS_PASSWORD
from chatbot.library.readers.layout import Line, Page, compose, remove_running_lines
from chatbot.library.readers.legacy import NOTES, detect, modern
from chatbot.library.readers.ocr import DPI, MAX_PIXELS, Picture, Recogniser
from chatbot.library.readers.progress import Progress
from chatbot.types import ReadDocument

MAX_PAGES = 20_000
LOOKS_SCANNED = N_("There is no text in this file; it looks like a scan.")
SOME_PAGES_EMPTY = N_("Some pages have no text; they look like scans and cannot be searched.")
UNDECODABLE = N_("The letters of this PDF cannot be decoded reliably; search in it will miss much.")
SOME_PAGES_LOST = N_("Some pages of this PDF are damaged and were left out.")
TOO_MANY_PAGES = N_("it has more pages than Hearth reads")

_FORMAT, _PASSWORD, _SECURITY = 3, 4, 5
_FEW_LETTERS = 150
"""A picture of a page may carry this much besides: a signature's text, the scanner's mark."""


def read_pdf(path: Path, name: str, progress: Progress) -> ReadDocument:
    """A PDF, page by page; `progress(page, pages)` after each.

    Raises UnreadableDocument for damaged and password-protected files; a file without text comes back
    with a warning.
    """
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        locked = error.err_code in (_PASSWORD, _SECURITY)
        raise UnreadableDocument(NEEDS_PASSWORD if locked else DAMAGED, name=name) from error
    with document:
        count = len(document)
        if count > MAX_PAGES:
            raise UnreadableDocument(TOO_MANY_PAGES, name=name)
        if count == 0:
            raise UnreadableDocument(DAMAGED, name=name)
        pages = []
        recogniser = Recogniser()
        for number in range(count):
            pages.append(_read_page(document, number, recogniser))
            progress(number + 1, count, recogniser.seconds)
            recogniser.seconds = 0.0
        title = document.get_metadata_value("Title") or ""
    if all(page.lost for page in pages):
        raise UnreadableDocument(DAMAGED, name=name)
    warning = notes(_warning(pages), recogniser.notes, _modernise(pages))
    remove_running_lines(pages)
    composer = Composer()
    compose(pages, composer)
    return composer.document("application/pdf", clean_line(title), warning)


def _read_page(document: object, number: int, recogniser: Recogniser) -> Page:
    import pypdfium2

    try:
        page = document[number]  # type: ignore[index]
    except pypdfium2.PdfiumError:
        return Page(0, [], has_pictures=False, lost=True)
    try:
        textpage = page.get_textpage()
    except pypdfium2.PdfiumError:
        page.close()
        return Page(0, [], has_pictures=False, lost=True)
    try:
        lines = _lines(textpage)
        if not _wants_recognition(page, lines):
            return Page(page.get_height(), lines, has_pictures=False)
        recognised = recogniser.page(_picture(page))
        if recognised is None:
            return Page(page.get_height(), lines, has_pictures=not lines)
        # What PDFium found on a scan is part of the picture too, so never both.
        better = _letters(recognised.lines) > 1.5 * _letters(lines) or _strange(lines)
        return recognised if better else Page(page.get_height(), lines, has_pictures=False)
    finally:
        textpage.close()
        page.close()


def _wants_recognition(page: object, lines: list[Line]) -> bool:
    if _strange(lines):
        return True
    return _letters(lines) < _FEW_LETTERS and _shows_picture(page)


def _picture(page: object) -> Picture:
    """The page in grey as it would be printed, smaller where it is huge."""
    import numpy as np

    width, height = page.get_size()  # type: ignore[attr-defined]
    dpi = min(DPI, 72 * (MAX_PIXELS / max(width * height, 1.0)) ** 0.5)
    bitmap = page.render(scale=dpi / 72, grayscale=True)  # type: ignore[attr-defined]
    try:
        pixels = bitmap.to_numpy()
        return Picture(np.ascontiguousarray(pixels.reshape(pixels.shape[:2])), dpi)
    finally:
        bitmap.close()


def _letters(lines: list[Line]) -> int:
    return sum(c.isalnum() for line in lines for c in line.text)


def _strange(lines: list[Line]) -> bool:
    """Whether many of the letters stand for nothing, as in fonts that do not say which is which."""
    text = "".join(line.text for line in lines)
    return sum(c == "\ufffd" or "\ue000" <= c <= "\uf8ff" for c in text) > 0.2 * len(text)


def _modernise(pages: list[Page]) -> str | None:
    """Convert what is written in an old Vietnamese encoding; returns the note that says so."""
    scheme = detect("\n".join(line.text for page in pages for line in page.lines))
    if scheme is None:
        return None
    for line in (line for page in pages for line in page.lines):
        line.text = modern(line.text, scheme)
    return NOTES[scheme]


def _shows_picture(page: object) -> bool:
    """Whether a picture covers a good part of the page, as a scan does."""
    from pypdfium2 import raw

    area = page.get_width() * page.get_height()  # type: ignore[attr-defined]
    for picture in page.get_objects([raw.FPDF_PAGEOBJ_IMAGE], max_depth=3):  # type: ignore[attr-defined]
        left, bottom, right, top = picture.get_bounds()
        if (right - left) * (top - bottom) > 0.3 * area:
            return True
    return False


def _lines(textpage: object) -> list[Line]:
    from pypdfium2 import raw

    count = raw.FPDFText_CountChars(textpage)
    characters = [raw.FPDFText_GetUnicode(textpage, i) for i in range(count)]
    lines: list[Line] = []
    start = 0
    for end in [i for i, c in enumerate(characters) if c == 10] + [count]:
        codes = characters[start:end]
        inked = [start + i for i, c in enumerate(codes) if c > 32 and c != 0xA0]
        if inked:
            text = "".join(_character(c) for c in codes)
            tight, first = _box(textpage, inked[-1]), _box(textpage, inked[0])
            lines.append(
                Line(
                    text.strip(),
                    left=min(first[0], tight[0]),
                    right=max(first[1], tight[1]),
                    bottom=min(first[2], tight[2]),
                    top=max(first[3], tight[3]),
                )
            )
        start = end + 1
    return lines


def _character(code: int) -> str:
    return chr(code) if 0 < code <= 0x10FFFF else ""


def _box(textpage: object, index: int) -> tuple[float, float, float, float]:
    """Left, right, bottom, top of a character's cell, the font's full height."""
    from pypdfium2 import raw

    box = raw.FS_RECTF()
    raw.FPDFText_GetLooseCharBox(textpage, index, ctypes.byref(box))
    return box.left, box.right, min(box.bottom, box.top), max(box.bottom, box.top)


def _warning(pages: list[Page]) -> str | None:
    if not any(page.lines for page in pages):
        return LOOKS_SCANNED
    if _strange([line for page in pages for line in page.lines]):
        return UNDECODABLE
    if any(page.lost for page in pages):
        return SOME_PAGES_LOST
    if any(page.has_pictures for page in pages):
        return SOME_PAGES_EMPTY
    return None
