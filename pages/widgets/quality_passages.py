"""A passage in a line: where it stands, how it begins."""

from __future__ import annotations

from chatbot.markup import literal
from chatbot.services import services
from chatbot.types import Passage
from widgets.words import _

_EXCERPT = 180


def where(passage: Passage) -> str:
    """Document, page and place in its structure, as Markdown."""
    parts = [literal(services().store.get(passage.document_id).name)]
    parts += [_("page {page}").format(page=passage.page)] if passage.page else []
    return " · ".join([*parts, *([literal(passage.path)] if passage.path else [])])


def excerpt(text: str) -> str:
    """The beginning of a text in one line, cut between words."""
    line = " ".join(text.split())
    return line if len(line) <= _EXCERPT else line[:_EXCERPT].rsplit(" ", 1)[0] + " …"
