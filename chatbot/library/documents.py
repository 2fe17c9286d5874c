"""A document as its row says it and as people read of it."""

from __future__ import annotations

import json
import re
import sqlite3

from chatbot.errors import ChatbotError
from chatbot.i18n import translate
from chatbot.library import register
from chatbot.text import nfc
from chatbot.types import Document, Language

CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def label(name: str) -> str:
    """A file's name as people see it: the last part of a path, NFC, no control characters."""
    last = re.split(r"[\\/]", nfc(name).rstrip("\\/"))[-1]
    return CONTROL.sub("", last).strip()[:255] or "?"


def document_of(row: sqlite3.Row) -> Document:
    """The document that a row of its table says."""
    failure = json.loads(row["error"]) if row["error"] else None
    return Document(
        id=row["id"],
        collection=row["collection"],
        name=row["name"],
        sha256=row["sha256"],
        media_type=row["media_type"],
        size=row["size"],
        state=row["state"],
        pages=row["pages"],
        passages=row["passages"],
        language=row["language"],
        warning=row["warning"],
        error=ChatbotError.from_dict(failure).text("en") if failure else None,
        added_at=row["added_at"],
        origin=row["origin"],
        conversation=row["conversation"],
        failure=failure,
        deleted_at=row["deleted_at"],
        validity=register.validity_from(row["validity"]),
    )


def failure_text(document: Document, language: Language) -> str | None:
    """Why the document failed, in that language; None when it did not."""
    return ChatbotError.from_dict(document.failure).text(language) if document.failure else None


def warning_text(document: Document, language: Language) -> str | None:
    """What a person should know about the reading, in that language."""
    lines = (document.warning or "").split("\n")
    return " ".join(translate(line, language) for line in lines) or None
