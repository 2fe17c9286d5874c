"""Builds a ReadDocument paragraph by paragraph, keeping count of offsets."""

from __future__ import annotations

from chatbot.library.readers.cleaning import clean
from chatbot.types import Heading, PageText, ReadDocument


def notes(*msgids: str | None) -> str | None:
    """Several warnings as the one of a ReadDocument: each once, one a line."""
    lines = dict.fromkeys(line for m in msgids if m for line in m.split("\n"))
    return "\n".join(lines) or None


class Composer:
    """Collects cleaned paragraphs and headings; the text of all pages is their plain concatenation."""

    def __init__(self) -> None:
        self._pages: list[PageText] = []
        self._parts: list[str] = []
        self._headings: list[Heading] = []
        self._length = 0
        self.page_length = 0
        """Characters of the page that is being filled."""

    def paragraph(self, text: str, level: int = 0, end: str = "\n") -> None:
        """Append a cleaned paragraph and its line break; `level` 1 to 6 makes it a heading."""
        text = clean(text).strip("\n")
        if not text.strip():
            return
        if level:
            self._headings.append(Heading(self._length, self._length + len(text), min(level, 6)))
        self._append(text + end)

    def gap(self) -> None:
        """An empty line, as between a table and what follows."""
        if self._parts and self._parts[-1] != "\n":
            self._append("\n")

    def end_page(self, number: int | None, anchors: bytes | None = None) -> None:
        """Close the page that was being filled; empty pages count too."""
        self._pages.append(PageText("".join(self._parts), number, anchors))
        self._parts = []
        self.page_length = 0

    def append(self, document: ReadDocument, below: int) -> None:
        """Everything of another document, its headings below that level, its pages without numbers."""
        self._headings.extend(
            Heading(self._length + h.start, self._length + h.end, min(h.level + below, 6))
            for h in document.headings
        )
        for page in document.pages:
            self._append(page.text)

    def document(
        self, media_type: str, title: str = "", warning: str | None = None
    ) -> ReadDocument:
        """What was collected; an unfinished page is closed without a number."""
        if self._parts or not self._pages:
            self.end_page(None)
        return ReadDocument(
            pages=tuple(self._pages),
            title=clean(title).strip()[:300],
            media_type=media_type,
            warning=warning,
            headings=tuple(self._headings),
        )

    def _append(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)
        self.page_length += len(text)
