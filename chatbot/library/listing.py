"""Which documents of the library a list shows, and in which order: the filters as SQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from chatbot.library.register import in_force
from chatbot.text import fold
from chatbot.types import Language

Shown = Literal["all", "ready", "unread", "noted", "failed"]
Kind = Literal["pdf", "text", "office", "sheet", "slides", "web", "mail", "book", "picture"]
Order = Literal["newest", "oldest", "name", "largest", "smallest"]

_SHOWN: dict[Shown, str] = {
    "all": "1",
    "ready": "state = 'ready'",
    "unread": "state IN ('waiting', 'reading')",
    "noted": "warning IS NOT NULL",
    "failed": "state = 'failed'",
}
KINDS: dict[Kind, tuple[str, ...]] = {
    "pdf": ("application/pdf",),
    "text": ("text/plain", "text/markdown"),
    "office": ("%wordprocessingml%", "%opendocument.text", "application/rtf"),
    "sheet": ("%spreadsheet%", "text/csv"),
    "slides": ("%presentation%",),
    "web": ("text/html",),
    "mail": ("message/%", "application/vnd.ms-outlook"),
    "book": ("application/epub%",),
    "picture": ("image/%",),
}
"""Media types of each kind, as SQL's LIKE has them."""
_ORDERS: dict[Order, str] = {
    "newest": "added_at DESC, name, id",
    "oldest": "added_at, name, id",
    "name": "fold(name), added_at, id",
    "largest": "size DESC, name, id",
    "smallest": "size, name, id",
}


@dataclass(frozen=True, slots=True)
class Listing:
    """What a list of the library's documents is narrowed to; files of conversations are never in it.

    `words` must all occur in the name, with marks or without.
    """

    words: str = ""
    collection: str | None = None
    shown: Shown = "all"
    kind: Kind | None = None
    language: Language | None = None
    order: Order = "newest"
    official: str | None = None
    """The kind of official document, such as 'Thông tư'."""
    in_force_on: str = ""
    """An ISO date on which the document was in force, as far as it and the library say."""

    def condition(self) -> tuple[str, list[Any]]:
        """The SQL condition on `documents` and its values."""
        parts, values = ["deleted_at IS NULL", "conversation IS NULL", _SHOWN[self.shown]], []
        for column, wanted in (
            ("collection", self.collection),
            ("language", self.language),
            ("kind", self.official),
        ):
            if wanted is not None:
                parts.append(f"{column} = ?")
                values.append(wanted)
        if self.kind is not None:
            types = KINDS[self.kind]
            parts.append(f"({' OR '.join(['media_type LIKE ?'] * len(types))})")
            values += types
        if self.in_force_on:
            condition = in_force("documents")
            parts.append(condition)
            values += [self.in_force_on] * condition.count("?")
        for word in fold(self.words).split():
            parts.append("instr(fold(name), ?)")
            values.append(word)
        return " AND ".join(parts), values

    def ordering(self) -> str:
        """What SQL orders by."""
        return _ORDERS[self.order]
