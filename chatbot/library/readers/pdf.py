"""PDF files: the text of each page in reading order, lines joined to paragraphs, running heads removed.

PDFium gives the characters in the order in which the file draws them, which follows columns; where each
line stands on the page tells paragraphs, headings and running heads apart.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Callable
from pathlib import Path

from chatbot.errors import UnreadableDocument
from chatbot.i18n import N_
from chatbot.library.readers.cleaning import SPACES, clean_line
from chatbot.library.readers.composing import Composer, notes
from chatbot.library.readers.kinds import DAMAGED, NEEDS_PASSWORD
from chatbot.library.readers.layout import Line, Page, Place, compose, remove_running_lines
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

# PDFium goes on without a line break where it found a word cut at a line's end.
_DRAWN_LINE = re.compile("[^\n\x02\ufffe]+[\x02\ufffe]?")
_INKED_WORD = re.compile(rf"[^\x00-\x20{SPACES}](?:[^{SPACES}]*[^\x00-\x20{SPACES}])?")
_LETTER = re.compile(r"[^\W_]")
_LETTER_OF_NOTHING = re.compile("[\ufffd\ue000-\uf8ff]")
_NOTHING = "\0"
_UNSEEN = re.compile("[\x00\x01\x03-\x08\x0e-\x1f\uffff\u200b-\u200f\u2060\ufeff\u202a-\u202e]")
_WIDE = 0.5
"""How wide a letter may seem, as a part of its line's height, before a gap is suspected behind its word."""
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
        return Page(0, 0, [], has_pictures=False, lost=True)
    try:
        textpage = page.get_textpage()
    except pypdfium2.PdfiumError:
        page.close()
        return Page(0, 0, [], has_pictures=False, lost=True)
    try:
        width, height = page.get_size()
        lines = _lines(textpage, _shown(page))
        if not _wants_recognition(page, lines):
            return Page(width, height, lines, has_pictures=False)
        recognised = recogniser.page(_picture(page))
        if recognised is None:
            return Page(width, height, lines, has_pictures=not lines)
        # What PDFium found on a scan is part of the picture too, so never both.
        better = _letters(recognised.lines) > 1.5 * _letters(lines) or _strange(lines)
        return recognised if better else Page(width, height, lines, has_pictures=False)
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
    return sum(len(_LETTER.findall(line.text)) for line in lines)


def _strange(lines: list[Line]) -> bool:
    """Whether many of the letters stand for nothing, as in fonts that do not say which is which."""
    text = "".join(line.text for line in lines)
    return len(_LETTER_OF_NOTHING.findall(text)) > 0.2 * len(text)


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


def _shown(page: object) -> Callable[[Place], Place] | None:
    """From a place in the page's own units to one on the page as it is shown; None where they are the same.

    A page may be turned, and only a part of it may be shown.
    """
    left, bottom, right, top = page.get_bbox()  # type: ignore[attr-defined]
    quarter = page.get_rotation() // 90  # type: ignore[attr-defined]
    if not quarter and not left and not bottom:
        return None

    def shown(place: Place) -> Place:
        x1, x2, y1, y2 = place
        if quarter == 1:
            return y1 - bottom, y2 - bottom, right - x2, right - x1
        if quarter == 2:
            return right - x2, right - x1, top - y2, top - y1
        if quarter == 3:
            return top - y2, top - y1, x1 - left, x2 - left
        return x1 - left, x2 - left, y1 - bottom, y2 - bottom

    return shown


def _lines(textpage: object, shown: Callable[[Place], Place] | None) -> list[Line]:
    handle = textpage.raw  # type: ignore[attr-defined]
    drawn = _characters(handle)
    place_of = _places(handle)
    lines: list[Line] = []
    for match in _DRAWN_LINE.finditer(drawn):
        text = match.group().replace(_NOTHING, "").strip()
        words = [word.span() for word in _INKED_WORD.finditer(drawn, *match.span())]
        if not text or not words:
            continue
        firsts = [place_of(start) for start, _ in words]
        places = _word_places(firsts, words, place_of)
        line = _around(firsts[0], place_of(words[-1][1] - 1))
        if shown:
            places, line = list(map(shown, places)), shown(line)
        lines.append(Line(text, *line, places=places))
    return lines


def _characters(handle: object) -> str:
    """The page's characters, one for each index of PDFium; _NOTHING for what is no character or unseen."""
    from pypdfium2 import raw

    count = raw.FPDFText_CountChars(handle)
    buffer = (ctypes.c_ushort * (count + 1))()
    written = raw.FPDFText_GetText(handle, 0, count, buffer)
    text = bytes(buffer).decode("utf-16-le", "surrogatepass")[: written - 1]
    if len(text) != count:  # it leaves some out; asked one by one they keep their index
        codes = [raw.FPDFText_GetUnicode(handle, index) for index in range(count)]
        text = "".join(chr(c) if c <= 0x10FFFF else _NOTHING for c in codes)
    return _UNSEEN.sub(_NOTHING, text)


def _word_places(
    firsts: list[Place], spans: list[tuple[int, int]], place_of: Callable[[int], Place]
) -> list[Place]:
    """Where words stand, from the places of their first characters: mostly up to the next word.

    Asking PDFium is what costs, so the last character is asked for only where a gap follows.
    """
    places = []
    afters = [*(place[0] for place in firsts[1:]), -math.inf]
    for first, (start, end), after in zip(firsts, spans, afters, strict=True):
        left, _, bottom, top = first
        if 0 < after - left < _WIDE * (end - start + 1) * (top - bottom):
            places.append((left, after, bottom, top))
        else:
            places.append(_around(first, place_of(end - 1)) if end > start + 1 else first)
    return places


def _around(one: Place, other: Place) -> Place:
    return (
        min(one[0], other[0]),
        max(one[1], other[1]),
        min(one[2], other[2]),
        max(one[3], other[3]),
    )


def _places(handle: object) -> Callable[[int], Place]:
    """The place of a character's cell, the font's full height, by its index."""
    from pypdfium2 import raw

    box = raw.FS_RECTF()
    pointer = ctypes.byref(box)
    cell = raw.FPDFText_GetLooseCharBox

    def place_of(index: int) -> Place:
        cell(handle, index, pointer)
        return box.left, box.right, min(box.bottom, box.top), max(box.bottom, box.top)

    return place_of


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
