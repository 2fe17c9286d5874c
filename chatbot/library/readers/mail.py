"""Mail (EML, MBOX): who wrote what to whom, then the attachments under their names."""

from __future__ import annotations

import email
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from email.errors import MessageError
from email.header import decode_header
from email.message import Message
from email.policy import compat32
from pathlib import Path

from chatbot.errors import DocumentError, UnreadableDocument
from chatbot.i18n import N_
from chatbot.library.readers.cleaning import clean_line
from chatbot.library.readers.composing import Composer, notes
from chatbot.library.readers.html import compose_html, parse_html
from chatbot.library.readers.legacy import modernised
from chatbot.library.readers.picture import NO_TEXT_SEEN
from chatbot.library.readers.progress import Progress
from chatbot.library.readers.rtf import parse_rtf
from chatbot.library.readers.text import TOO_LARGE, decode
from chatbot.types import ReadDocument

MAX_BYTES = 100_000_000
MAX_ATTACHMENTS = 200
MAX_DEPTH = 3
"""How deep attached mails may carry attachments of their own."""

SOME_ATTACHMENTS_LEFT_OUT = N_("Some attachments could not be read and were left out.")

_FIELDS = ("From", "To", "Cc", "Date")
_NEXT_MESSAGE = re.compile(rb"\r?\n\r?\n(?=From [^\r\n]*\d{4}[^\r\n]*\r?\n[\w-]+:)")
_FOLDS = re.compile(r"[\r\n]+")

ReadAttachment = Callable[[bytes, str], ReadDocument]


@dataclass(slots=True)
class _Content:
    """The parts of one message, sorted by what they are for."""

    texts: list[Message] = field(default_factory=list)
    pages: list[Message] = field(default_factory=list)
    rich: list[Message] = field(default_factory=list)
    attached: list[Message] = field(default_factory=list)


def read_mail(
    path: Path, name: str, progress: Progress, read_attachment: ReadAttachment, depth: int = 0
) -> ReadDocument:
    """Every message of the file; attachments go through `read_attachment(content, name)`.

    Attachments that cannot be read are left out with a warning. Raises UnreadableDocument.
    """
    if path.stat().st_size > MAX_BYTES:
        raise UnreadableDocument(TOO_LARGE, name=name)
    raw = path.read_bytes()
    messages = _NEXT_MESSAGE.split(raw) if raw.startswith(b"From ") else [raw]
    writer = MailWriter(name, read_attachment, depth)
    subjects = []
    for number, content in enumerate(messages, 1):
        try:
            message = email.message_from_bytes(content.lstrip(b"\r\n"), policy=compat32)
        except (MessageError, ValueError, LookupError):
            writer.left_out()
            continue
        subjects.append(writer.message(message, level=1))
        progress(number, len(messages))
    title = subjects[0] if len(subjects) == 1 else ""
    return writer.composer.document("message/rfc822", title, writer.warning)


class MailWriter:
    """Writes messages one after the other into `composer`; what had to be left out is in `warning`."""

    def __init__(self, name: str, read_attachment: ReadAttachment, depth: int) -> None:
        self.composer = Composer()
        self.warning: str | None = None
        self._name = name
        self._read_attachment = read_attachment
        self._depth = depth
        self._attachments = 0

    def left_out(self) -> None:
        self.warning = notes(self.warning, SOME_ATTACHMENTS_LEFT_OUT)

    def message(self, message: Message, level: int, depth: int = 0) -> str:
        """Write one message and what it carries; returns its subject."""
        subject = _field(message, "Subject")
        self.composer.paragraph(subject, level)
        for label in _FIELDS:
            if value := _field(message, label):
                self.composer.paragraph(f"{label}: {value}")
        self.composer.gap()
        content = _Content()
        _sort(message, content)
        if not self._bodies(content.texts, self._text):
            written = self._bodies(content.pages, self._page)
            for part in content.rich if not written else ():
                self._rich(part, level)
        for part in content.attached:
            self._attachment(part, level, depth)
        return subject

    def _bodies(self, parts: list[Message], write: Callable[[Message], None]) -> bool:
        written = False
        for part in parts:
            if _payload(part).strip():
                write(part)
                written = True
        return written

    def _text(self, part: Message) -> None:
        decoded, guessed = decode(_payload(part), self._name, _charset(part))
        text, converted = modernised(decoded)
        self.warning = notes(self.warning, guessed, converted)
        for paragraph in text.splitlines():
            if paragraph.strip():
                self.composer.paragraph(paragraph)
            else:
                self.composer.gap()

    def _page(self, part: Message) -> None:
        root, guessed = parse_html(_payload(part), self._name, _charset(part))
        self.warning = notes(self.warning, guessed, compose_html(root, self.composer))

    def _rich(self, part: Message, level: int) -> None:
        document = parse_rtf(_payload(part))
        self.composer.append(document, below=level)
        self.warning = notes(self.warning, document.warning)

    def _attachment(self, part: Message, level: int, depth: int) -> None:
        self._attachments += 1
        if self._attachments > MAX_ATTACHMENTS:
            self.left_out()
            return
        name = _filename(part)
        self.composer.gap()
        if part.get_content_type() == "message/rfc822":
            inner = part.get_payload()
            if depth >= MAX_DEPTH or not isinstance(inner, list) or not inner:
                self.left_out()
            elif isinstance(inner[0], Message):
                self.message(inner[0], min(level + 1, 6), depth + 1)
            return
        try:
            if self._depth >= MAX_DEPTH:
                raise UnreadableDocument(name=name)
            document = self._read_attachment(_payload(part), name)
        except DocumentError:
            self.left_out()
            self.composer.paragraph(name, min(level + 1, 6))
            return
        self.composer.paragraph(name, min(level + 1, 6))
        self.composer.append(document, below=level + 1)
        if document.warning != NO_TEXT_SEEN:  # a logo in a signature is nothing to be warned of
            self.warning = notes(self.warning, document.warning)


def _sort(message: Message, content: _Content) -> None:
    """Which parts are the letter itself, in up to three versions, and which hang on it."""
    pending = [message]
    while pending:
        part = pending.pop()
        payload = part.get_payload()
        kind = part.get_content_type()
        if part.is_multipart() and isinstance(payload, list) and kind != "message/rfc822":
            pending.extend(p for p in reversed(payload) if isinstance(p, Message))
        elif part is not message and (
            kind == "message/rfc822" or part.get_content_disposition() == "attachment"
        ):
            content.attached.append(part)
        elif kind == "text/html":
            content.pages.append(part)
        elif kind == "text/rtf" and not part.get_filename():
            content.rich.append(part)
        elif part.get_content_maintype() == "text" and not part.get_filename():
            content.texts.append(part)
        elif part.get_filename():
            content.attached.append(part)


def _payload(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _charset(part: Message) -> str | None:
    charset = part.get_content_charset()
    return charset.removesuffix("-i") if charset else None  # Hebrew's 'iso-8859-8-i'


def _field(message: Message, name: str) -> str:
    """That header as a person reads it."""
    found = (value for key, value in message.raw_items() if key.lower() == name.lower())
    return clean_line(_shown(str(next(found, ""))))


def _shown(value: str) -> str:
    # Bytes beyond ASCII, which no header should hold, arrive as halves of surrogate pairs.
    value = _FOLDS.sub("", value)
    raw = value.encode("utf-8", "surrogateescape")
    if not raw.isascii():
        return text_of(raw, None)
    try:
        pieces = decode_header(value)
    except (MessageError, ValueError):
        return value
    return "".join(p if isinstance(p, str) else text_of(p, charset) for p, charset in pieces)


def text_of(raw: bytes, charset: str | None) -> str:
    """Those bytes of a header as text, for better or worse."""
    try:
        return decode(raw, "", charset)[0]
    except UnreadableDocument:
        return raw.decode("utf-8", "replace")


def _filename(part: Message) -> str:
    try:
        name = part.get_filename()
    except (MessageError, ValueError, LookupError, TypeError):
        name = None
    shown = clean_line(_shown(name)) if name else ""
    return Path(shown.replace("\\", "/")).name[:200] or part.get_content_type()
