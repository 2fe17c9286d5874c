"""Reads files in a child process that may die: hostile input costs a file, never the application."""

from __future__ import annotations

import base64
import json
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chatbot.child import Child
from chatbot.errors import Cancelled, ChildDied, ChildHung, ChildTimeout, UnreadableDocument
from chatbot.i18n import N_
from chatbot.library.chunking import CHUNKER_VERSION, Draft
from chatbot.library.window import Window, cut_by
from chatbot.types import Heading, Language, PageText, ReadDocument

SECONDS = 60.0
"""How long one file may take without finishing a page; ten times that is the limit for all of it.

Recognising the text of scans has a limit of its own and does not count."""

TOOK_TOO_LONG = N_("reading it took too long")
CRASHED = N_("it made the reader crash or needs more memory than a document may")

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading a file gives: the document, its passages, its language."""

    document: ReadDocument
    passages: tuple[Draft, ...]
    language: Language | None
    cut: str = CHUNKER_VERSION
    """By which rules the passages were cut (window.cut_by)."""


class Reader:
    """A child process that reads one file at a time; it starts with the first file and again after a crash."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._one_at_a_time = threading.Lock()
        self._child = Child(
            "chatbot.library.readers",
            name="reader",
            environment={"MALLOC_ARENA_MAX": "2"},  # arenas count as memory in use
            lowest_priority=True,
        )

    def read(
        self,
        path: Path,
        name: str,
        on_progress: OnProgress | None = None,
        cancelled: Callable[[], bool] | None = None,
        window: Window | None = None,
    ) -> Reading:
        """Read that file and cut it for that window; `name` is what the person calls it.

        `on_progress(page, pages)`.

        Raises UnsupportedDocument, EmptyDocument, UnreadableDocument (also for a crash or a standstill),
        Cancelled.
        """
        with (
            self._one_at_a_time,  # ending the child for one file must not cost another one
            # For attachments; ours, so that it goes even when the child is killed.
            tempfile.TemporaryDirectory(prefix="hearth-", ignore_cleanup_errors=True) as folder,
        ):
            asked = {"path": str(path), "name": name, "folder": folder, "window": _asked(window)}
            reading = self._read(asked, on_progress, cancelled)
            return replace(reading, cut=cut_by(window))

    def cut(
        self,
        pages: Sequence[PageText],
        headings: Sequence[Heading],
        name: str,
        window: Window | None = None,
    ) -> tuple[Draft, ...]:
        """The passages of a text that was read before. Raises ChildError."""
        asked = {
            "pages": [[p.text, p.number] for p in pages],
            "headings": [[h.start, h.end, h.level] for h in headings],
            "name": name,
            "window": _asked(window),
        }
        with self._one_at_a_time:
            _, blob = self._child.call("cut", asked, timeout=10 * self._seconds)
        return _drafts("".join(p.text for p in pages), json.loads(blob))

    def close(self) -> None:
        self._child.close()

    def _read(
        self,
        asked: dict[str, Any],
        on_progress: OnProgress | None,
        cancelled: Callable[[], bool] | None,
    ) -> Reading:
        name = asked["name"]
        deadline = time.monotonic() + self._seconds
        latest = time.monotonic() + 10 * self._seconds
        answer = self._child.stream("read", asked, ticks=True)
        try:
            for message, blob in answer:
                if blob:
                    return _reading(blob)
                if cancelled and cancelled():
                    self._child.restart()  # it may be deep in native code and hear no request
                    raise Cancelled
                if "page" in message:
                    latest += message.get("recognising", 0.0)
                    deadline = min(time.monotonic() + self._seconds, latest)
                    if on_progress:
                        on_progress(message["page"], message["pages"])
                if time.monotonic() > deadline:
                    self._child.restart()
                    raise UnreadableDocument(TOOK_TOO_LONG, name=name)
        except (ChildTimeout, ChildHung) as error:
            raise UnreadableDocument(TOOK_TOO_LONG, name=name) from error
        except ChildDied as error:
            if cancelled and cancelled():  # Hearth ends its helpers: the file is not to blame
                raise Cancelled from error
            raise UnreadableDocument(CRASHED, name=name) from error
        raise UnreadableDocument(CRASHED, name=name)


def to_bytes(reading: Reading) -> bytes:
    """The reading as it travels from the child."""
    document = reading.document
    return json.dumps(
        {
            "pages": [[p.text, p.number, _as_text(p.anchors)] for p in document.pages],
            "title": document.title,
            "media_type": document.media_type,
            "warning": document.warning,
            "headings": [[h.start, h.end, h.level] for h in document.headings],
            "passages": spans_of(reading.passages),
            "language": reading.language,
        },
        ensure_ascii=False,
    ).encode()


def _as_text(anchors: bytes | None) -> str | None:
    return None if anchors is None else base64.b64encode(anchors).decode()


def _reading(blob: bytes) -> Reading:
    data = json.loads(blob)
    document = ReadDocument(
        pages=tuple(
            PageText(text, number, None if anchors is None else base64.b64decode(anchors))
            for text, number, anchors in data["pages"]
        ),
        title=data["title"],
        media_type=data["media_type"],
        warning=data["warning"],
        headings=tuple(Heading(*h) for h in data["headings"]),
    )
    text = "".join(p.text for p in document.pages)
    passages = _drafts(text, data["passages"])
    return Reading(document, passages, data["language"])


def spans_of(passages: Sequence[Draft]) -> list[list[Any]]:
    """Passages as they travel: without their text, which the other side has."""
    return [[d.start, d.end, d.page, d.path] for d in passages]


def _drafts(text: str, spans: list[list[Any]]) -> tuple[Draft, ...]:
    return tuple(Draft(text[start:end], start, end, page, path) for start, end, page, path in spans)


def _asked(window: Window | None) -> dict[str, Any] | None:
    return window.to_dict() if window else None
