"""Any file by the reader of its kind; what a mail carries is read the same way, to a limited depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from chatbot.i18n import N_
from chatbot.library.readers.delimited import read_delimited
from chatbot.library.readers.docx import read_docx
from chatbot.library.readers.epub import read_epub
from chatbot.library.readers.html import read_html
from chatbot.library.readers.kinds import Kind, kind_of
from chatbot.library.readers.mail import ReadAttachment, read_mail
from chatbot.library.readers.msg import read_msg
from chatbot.library.readers.opendocument import read_opendocument
from chatbot.library.readers.pdf import read_pdf
from chatbot.library.readers.picture import read_picture
from chatbot.library.readers.pptx import read_pptx
from chatbot.library.readers.progress import Progress
from chatbot.library.readers.rtf import read_rtf
from chatbot.library.readers.text import read_markdown, read_text
from chatbot.library.readers.xlsx import read_xlsx
from chatbot.types import ReadDocument

_AT_ONCE: dict[Kind, Callable[[Path, str], ReadDocument]] = {
    "docx": read_docx,
    "rtf": read_rtf,
    "html": read_html,
    "delimited": read_delimited,
    "markdown": read_markdown,
    "text": read_text,
}
_PAGE_BY_PAGE: dict[Kind, Callable[[Path, str, Progress], ReadDocument]] = {
    "pdf": read_pdf,
    "pptx": read_pptx,
    "xlsx": read_xlsx,
    "epub": read_epub,
    "picture": read_picture,
}

NO_TEXT = N_("There is no text in this file.")


def read_file(
    path: Path, name: str, folder: Path, progress: Progress, depth: int = 0
) -> ReadDocument:
    """The file's text by pages; without any it always carries a warning.

    `folder` is where attachments may lie while they are read; `depth` counts the mails around this file.

    Raises UnsupportedDocument, EmptyDocument, UnreadableDocument.
    """
    document = _read(path, name, folder, progress, depth)
    if not document.warning and not any(page.text.strip() for page in document.pages):
        return replace(document, warning=NO_TEXT)
    return document


def _attachments(folder: Path, progress: Progress, depth: int) -> ReadAttachment:
    def read(content: bytes, name: str) -> ReadDocument:
        path = folder / f"attachment {depth}"
        path.write_bytes(content)

        def go_on(page: int, pages: int, recognising: float = 0.0) -> None:
            del page, pages  # what is counted are the mail's own messages
            progress(0, 1, recognising)

        return read_file(path, name, folder, go_on, depth + 1)

    return read


def _read(path: Path, name: str, folder: Path, progress: Progress, depth: int) -> ReadDocument:
    kind = kind_of(path, name)
    if kind in _AT_ONCE:
        return _AT_ONCE[kind](path, name)
    if kind in _PAGE_BY_PAGE:
        return _PAGE_BY_PAGE[kind](path, name, progress)
    if kind == "mail":
        return read_mail(path, name, progress, _attachments(folder, progress, depth), depth)
    if kind == "outlook":
        return read_msg(path, name, progress, _attachments(folder, progress, depth), depth)
    return read_opendocument(path, name, kind, progress)
