"""A passage where it stands: the pages of its document, and what on them is to be lit up.

A page of a PDF or picture is shown as it looks, other documents as text with their headings. What is lit
up rests on the offsets kept when the document was read; where these are not certain, nothing is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from chatbot.errors import NotFoundError
from chatbot.library.anchors import Rectangle, rectangles, unpack
from chatbot.library.contents import PageSpan
from chatbot.library.legal import ARTICLE, legal_marks
from chatbot.library.renderer import PagePicture, Renderer
from chatbot.library.store import DocumentStore
from chatbot.types import Document, Heading, Source

PART = 8_000
"""Characters: a text without pages is shown in parts of at most this size."""

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class View:
    """A document opened at a passage."""

    document: Document
    sheets: tuple[PageSpan, ...]
    """Its pages; a text without pages is cut into parts."""
    drawn: bool
    """Whether its pages are shown as pictures."""
    anchored: bool
    """Whether it is known where words stand on them; not for documents that an older Hearth read."""
    passage: Span | None
    """Where the passage stands in the document's text; None when it cannot be told with certainty."""
    quotes: tuple[Span, ...]
    """What of it the answer quotes."""
    page: int | None
    """The page that it was on when it was quoted."""

    @property
    def first(self) -> int:
        """The place among the sheets of that on which the passage begins."""
        if self.lit:
            return self.lit[0]
        numbers = [sheet.number for sheet in self.sheets]
        return numbers.index(self.page) if self.page in numbers else 0

    @property
    def lit(self) -> tuple[int, ...]:
        """The sheets on which something of the passage stands."""
        if self.passage is None:
            return ()
        start, end = self.passage
        return tuple(n for n, s in enumerate(self.sheets) if s.start < end and start < s.end)


@dataclass(frozen=True, slots=True)
class Block:
    """One line of a text: a heading of that level, or a paragraph (0); its pieces, some of them lit up."""

    level: int
    pieces: tuple[tuple[str, str], ...]
    """Text and "", "passage" or "quote"."""


class PageView:
    """Opens documents at their passages."""

    def __init__(self, store: DocumentStore, renderer: Renderer) -> None:
        self._store = store
        self._renderer = renderer

    def open(self, source: Source, quotes: Sequence[Span] = ()) -> View:
        """The document of a source at its passage; `quotes` are spans of the source's text.

        Raises NotFoundError when the document is gone.
        """
        document_id, text = source.document_id, source.text
        document = self._store.get(document_id)
        if document.deleted_at:
            raise NotFoundError(document.name)
        drawn = document.media_type == "application/pdf" or document.media_type.startswith("image/")
        sheets = self._store.contents.page_spans(document_id)
        passage = self._place(document_id, source.passage_id, text)
        if not drawn:
            sheets = tuple(_in_parts(self._store.contents.text(document_id), sheets))
        return View(
            document,
            sheets,
            drawn,
            anchored=drawn and all(s.anchored for s in sheets),
            passage=passage and _without_margins(text, passage[0]),
            quotes=tuple((passage[0] + s, passage[0] + e) for s, e in quotes) if passage else (),
            page=source.page,
        )

    def picture(self, view: View, place: int) -> PagePicture:
        """The page as it looks. Raises UndrawablePage, NotFoundError."""
        path = self._store.file(view.document.id)
        return self._renderer.draw(path, view.document.name, view.sheets[place].ordinal)

    def rectangles(self, view: View, place: int) -> tuple[list[Rectangle], list[Rectangle]]:
        """Where on that page the passage stands, and where what is quoted of it."""
        sheet = view.sheets[place]
        boxes = unpack(self._store.contents.anchors(view.document.id, sheet.ordinal))

        def of(span: Span) -> list[Rectangle]:
            return rectangles(boxes, span[0] - sheet.start, span[1] - sheet.start)

        passage = of(view.passage) if view.passage else []
        return passage, [rectangle for quote in view.quotes for rectangle in of(quote)]

    def blocks(self, view: View, place: int) -> list[Block]:
        """That part of the text, line by line."""
        sheet = view.sheets[place]
        text = self._store.contents.text(view.document.id)[sheet.start : sheet.end]
        headings = [
            *self._store.contents.headings(view.document.id),
            *_legal_headings(text, sheet.start),
        ]
        levels = {
            h.start + indent: h.level
            for h in headings
            if sheet.start <= h.start < sheet.end
            for line in [text[h.start - sheet.start : h.end - sheet.start]]
            for indent in [len(line) - len(line.lstrip())]
        }
        blocks = []
        start = sheet.start
        for line in text.split("\n"):
            first = start + len(line) - len(line.lstrip())
            if line.strip():
                level = min(max(levels.get(first, 0), 0), 6)
                if level:  # Markdown's signs say what the size already shows
                    first += len(line.strip()) - len(line.strip().lstrip("#= "))
                last = start + len(line.rstrip().rstrip("#= " if level else " "))
                pieces = _pieces(text, sheet.start, first, max(last, first), view)
                blocks.append(Block(level, tuple(pieces)))
            start += len(line) + 1
        return blocks

    def _place(self, document_id: str, passage_id: str, text: str) -> Span | None:
        """Where the passage stands now: where it stood, or the only place that reads the same."""
        passage = self._store.contents.passages_by_id([passage_id]).get(passage_id)
        if passage and passage.document_id == document_id and passage.text == text:
            return passage.start, passage.end
        whole = self._store.contents.text(document_id)  # the document was read again since
        start = whole.find(text) if text.strip() else -1
        if start < 0 or whole.find(text, start + 1) >= 0:
            return None
        return start, start + len(text)


def _without_margins(text: str, start: int) -> Span:
    lead = len(text) - len(text.lstrip())
    return start + lead, start + max(len(text.rstrip()), lead)


def _in_parts(text: str, sheets: Sequence[PageSpan]) -> Iterator[PageSpan]:
    """The sheets, those that are too long cut between lines."""
    for sheet in sheets:
        start = sheet.start
        while sheet.end - start > PART:
            end = text.rfind("\n", start + PART // 2, start + PART) + 1 or start + PART
            yield replace(sheet, start=start, end=end)
            start = end
        yield replace(sheet, start=start)


def _legal_headings(text: str, start: int) -> Iterator[Heading]:
    for mark in legal_marks(text):
        if mark.rank <= ARTICLE:
            yield Heading(start + mark.start, start + mark.end, 3 if mark.rank == ARTICLE else 2)


def _pieces(text: str, offset: int, first: int, last: int, view: View) -> Iterator[tuple[str, str]]:
    """The text from `first` to `last`, cut where something lit up begins or ends."""
    spans = [*([view.passage] if view.passage else []), *view.quotes]
    borders = sorted({first, last, *(min(max(b, first), last) for span in spans for b in span)})
    for start, end in pairwise(borders):
        kind = ""
        if view.passage and view.passage[0] <= start < view.passage[1]:
            kind = "passage"
        if any(s <= start < e for s, e in view.quotes):
            kind = "quote"
        yield text[start - offset : end - offset], kind
