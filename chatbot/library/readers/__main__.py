"""The child that reads files: limits its memory, tells its progress, answers one file at a time."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil

from chatbot.child import Event, Request, serve
from chatbot.errors import ChatbotError, UnreadableDocument
from chatbot.i18n import N_
from chatbot.library.chunking import cut, document_text
from chatbot.library.readers.every import read_file
from chatbot.library.readers.reader import Reading, to_bytes
from chatbot.text import language_of

log = logging.getLogger(__name__)

MEMORY_BYTES = 1_000_000_000
"""What reading one file may take beyond what the child takes at rest."""

TICK_SECONDS = 0.25
NEEDS_TOO_MUCH_MEMORY = N_("it needs more memory than a document may")
UNEXPECTED = N_("its structure is not what its kind promises")


def read(request: Request) -> tuple[Event, bytes]:
    """{path, name, folder} → the reading as a blob; events {page, pages} on the way and {} as signs of life."""
    path, name = Path(request.params["path"]), str(request.params["name"])

    def progress(page: int, pages: int, recognising: float = 0.0) -> None:
        request.check()
        request.event({"page": page, "pages": pages, "recognising": recognising})

    with _watched(request):
        try:
            document = read_file(path, name, Path(request.params["folder"]), progress)
            passages = tuple(cut(document.pages, document.headings))
        except MemoryError as error:
            raise UnreadableDocument(NEEDS_TOO_MUCH_MEMORY, name=name) from error
        except ChatbotError:
            raise
        except Exception as error:
            # Whatever a broken file provokes in a parser is that file's fault; the log keeps the kind.
            log.warning("reading failed: %s", type(error).__name__)
            raise UnreadableDocument(UNEXPECTED, name=name) from error
    text = document_text(document.pages)
    return {}, to_bytes(Reading(document, passages, language_of(text) if text.strip() else None))


@contextlib.contextmanager
def _watched(request: Request) -> Iterator[None]:
    """Signs of life for the parent, and an end by our own hand when memory runs away."""
    done = threading.Event()
    process = psutil.Process()
    allowed = process.memory_info().rss + MEMORY_BYTES

    def watch() -> None:
        while not done.wait(TICK_SECONDS):
            if process.memory_info().rss > allowed:
                os._exit(99)
            request.event({})

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _limit_memory() -> None:
    """A hard limit on address space where the system has one; elsewhere the watch above is the limit."""
    if sys.platform != "linux":
        return
    import resource

    import lxml.etree
    import pypdfium2

    log.debug("limits count from %s and %s on", lxml.etree.__name__, pypdfium2.__name__)
    # The threads of `serve` and the watch reserve stacks and arenas that are never used.
    allowed = psutil.Process().memory_info().vms + MEMORY_BYTES + 300_000_000
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))


if __name__ == "__main__":
    _limit_memory()
    serve({"read": read})
