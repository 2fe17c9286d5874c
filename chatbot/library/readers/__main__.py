"""The child that reads files: limits its memory, tells its progress, answers one file at a time."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from chatbot.child import Event, Request, serve
from chatbot.errors import ChatbotError, UnreadableDocument
from chatbot.i18n import N_
from chatbot.library.chunking import Fits, cut, document_text
from chatbot.library.limits import limit_memory, watched
from chatbot.library.readers.every import read_file
from chatbot.library.readers.reader import Reading, spans_of, to_bytes
from chatbot.library.window import Window, fits
from chatbot.text import language_of
from chatbot.types import Heading, PageText

log = logging.getLogger(__name__)

NEEDS_TOO_MUCH_MEMORY = N_("it needs more memory than a document may")
UNEXPECTED = N_("its structure is not what its kind promises")


def read(request: Request) -> tuple[Event, bytes]:
    """{path, name, folder, window} → the reading as a blob; events {page, pages} on the way and {} as signs of life."""
    path, name = Path(request.params["path"]), str(request.params["name"])

    def progress(page: int, pages: int, recognising: float = 0.0) -> None:
        request.check()
        request.event({"page": page, "pages": pages, "recognising": recognising})

    with watched(lambda: request.event({})):
        try:
            document = read_file(path, name, Path(request.params["folder"]), progress)
            passages = tuple(cut(document.pages, document.headings, _fits(request, name)))
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


def cut_again(request: Request) -> tuple[Event, bytes]:
    """{pages, headings, name, window} → the passages' spans of a text that was read before."""
    pages = [PageText(text, number) for text, number in request.params["pages"]]
    headings = [Heading(*heading) for heading in request.params["headings"]]
    with watched(lambda: request.event({})):
        passages = cut(pages, headings, _fits(request, request.params["name"]))
    return {}, json.dumps(spans_of(passages)).encode()


def _fits(request: Request, name: str) -> Fits | None:
    window = request.params.get("window")
    return fits(Window(**window) if window else None, name)


if __name__ == "__main__":
    import lxml.etree
    import pypdfium2

    log.debug("limits count from %s and %s on", lxml.etree.__name__, pypdfium2.__name__)
    limit_memory()
    serve({"read": read, "cut": cut_again})
