"""Outlook's mail (MSG): its properties become the message they describe, written like any other mail."""

from __future__ import annotations

import codecs
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.parser import HeaderParser
from email.utils import format_datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from chatbot.errors import UnreadableDocument, UnsupportedDocument
from chatbot.library.readers import lzfu
from chatbot.library.readers.kinds import DAMAGED
from chatbot.library.readers.mail import (
    MAX_ATTACHMENTS,
    MAX_BYTES,
    MAX_DEPTH,
    MailWriter,
    ReadAttachment,
    text_of,
)
from chatbot.library.readers.progress import Progress
from chatbot.library.readers.text import TOO_LARGE
from chatbot.types import ReadDocument

if TYPE_CHECKING:
    from olefile import OleFileIO

_PROPERTIES = "__properties_version1.0"
_EIGHT_BIT, _UNICODE, _BINARY, _OBJECT = "001E", "001F", "0102", "000D"
_TO, _CC = 1, 2
_UTF_8 = 65001
_CODECS = {
    1200: "utf-16-le", 20127: "ascii", 20866: "koi8-r", 20932: "euc-jp", 21866: "koi8-u", 38598: "iso-8859-8",
    50220: "iso-2022-jp", 50221: "iso-2022-jp", 50222: "iso-2022-jp", 50225: "iso-2022-kr", 51932: "euc-jp",
    51936: "gb2312", 51949: "euc-kr", 52936: "hz", 54936: "gb18030",
    **{28590 + n: f"iso-8859-{n}" for n in range(1, 17) if n != 12},
}  # fmt: skip


def read_msg(
    path: Path, name: str, progress: Progress, read_attachment: ReadAttachment, depth: int = 0
) -> ReadDocument:
    """The mail; its attachments as `read_mail` has them. Raises UnreadableDocument, UnsupportedDocument."""
    from olefile import DEFECT_INCORRECT, OleFileIO

    if path.stat().st_size > MAX_BYTES:
        raise UnreadableDocument(TOO_LARGE, name=name)
    try:
        # Strict: what it would forgive are loops, sizes beyond the file, and files cut off.
        with OleFileIO(path, raise_defects=DEFECT_INCORRECT) as file:
            if not file.exists(_PROPERTIES):  # a Word file, say, that a mail was put into
                raise UnsupportedDocument(name=name)
            message = _Mail(_Storage(file, [], header=32)).message()
    except (OSError, ValueError, IndexError, OverflowError, RecursionError) as error:
        raise UnreadableDocument(DAMAGED, name=name) from error
    writer = MailWriter(name, read_attachment, depth)
    subject = writer.message(message, level=1)
    progress(1, 1)
    return writer.composer.document("application/vnd.ms-outlook", subject, writer.warning)


class _Storage:
    """One folder of the file: a message, somebody who gets it, or something attached to it.

    Properties go by their four hexadecimal digits in MS-OXPROPS.
    """

    def __init__(self, file: OleFileIO, path: list[str], header: int = 8) -> None:
        self._file = file
        self.path = path
        folder = file.root
        for name in path:
            folder = folder.kids_dict[name.lower()]
        self._kids = {entry.name.upper(): entry for entry in folder.kids}
        table = self._read(_PROPERTIES)[header:]
        self._fixed = {
            f"{int.from_bytes(table[at + 2 : at + 4], 'little'):04X}": table[at + 8 : at + 16]
            for at in range(0, len(table) - 15, 16)
        }

    def number(self, tag: str) -> int | None:
        """A 32-bit number."""
        return int.from_bytes(self._fixed[tag][:4], "little") if tag in self._fixed else None

    def moment(self, tag: str) -> str:
        """A time as mails write it, "" for none."""
        count = int.from_bytes(self._fixed.get(tag, b""), "little")
        try:
            moment = datetime(1601, 1, 1, tzinfo=UTC) + timedelta(microseconds=count // 10)
        except OverflowError:
            return ""
        return format_datetime(moment) if count else ""

    def text(self, tag: str, charset: str | None) -> str:
        """A text; `charset` is that of texts in 8 bits."""
        if wide := self.content(tag, _UNICODE):
            return wide.decode("utf-16-le", "replace").rstrip("\0")
        return text_of(self.content(tag, _EIGHT_BIT).rstrip(b"\0"), charset)

    def content(self, tag: str, kind: str) -> bytes:
        """The bytes of a property of varying length; b"" for none."""
        return self._read(f"__substg1.0_{tag}{kind}")

    def inside(self, start: str, header: int = 8) -> list[_Storage]:
        """The folders in this one whose names start like that, in order."""
        names = sorted(n for n in self._kids if n.startswith(start.upper()))
        return [_Storage(self._file, [*self.path, n], header) for n in names if self._kids[n].kids]

    def _read(self, name: str) -> bytes:
        entry = self._kids.get(name.upper())
        if entry is None or not entry.size:  # many programs let empty streams start anywhere
            return b""
        with self._file.openstream([*self.path, name]) as stream:
            content: bytes = stream.read()
        return content


class _Mail:
    """One message, also one attached to another."""

    def __init__(self, storage: _Storage, depth: int = 0) -> None:
        self._storage = storage
        self._depth = depth
        self._texts = storage.number("3FFD")
        self._pages = storage.number("3FDE")

    def message(self) -> Message:
        """It, as mails are."""
        message = Message()
        message["Content-Type"] = "multipart/mixed"
        for field, value in (
            ("Subject", self._text("0037")),
            ("From", self._from()),
            ("To", self._recipients(_TO) or self._text("0E04")),
            ("Cc", self._recipients(_CC)),
            ("Date", self._date()),
        ):
            if value:
                message[field] = value
        message.set_payload([*self._bodies(), *map(self._attached, self._attachments())])
        return message

    def _text(self, tag: str) -> str:
        return self._storage.text(tag, self._charset)

    @cached_property
    def _charset(self) -> str | None:
        return _charset(self._texts, self._pages)

    def _from(self) -> str:
        on_behalf = _person(self._text("0042"), self._text("5D02"), self._text("0065"))
        return on_behalf or _person(self._text("0C1A"), self._text("5D01"), self._text("0C1F"))

    def _recipients(self, kind: int) -> str:
        people = [
            _person(*(recipient.text(tag, self._charset) for tag in ("3001", "39FE", "3003")))
            for recipient in self._storage.inside("__recip_version1.0_#")
            if recipient.number("0C15") == kind
        ]
        return ", ".join(filter(None, people))

    def _date(self) -> str:
        # As the sender wrote it, in the sender's time zone, where that was kept.
        sent = str(HeaderParser().parsestr(self._text("007D"), headersonly=True)["Date"] or "")
        return sent or self._storage.moment("0039") or self._storage.moment("0E06")

    def _bodies(self) -> list[Message]:
        charset = _charset(self._pages, self._texts)
        bodies: list[Message] = []
        for tag, kind in (("1000", "text/plain"), ("1013", "text/html")):
            wide = self._storage.content(tag, _UNICODE).decode("utf-16-le", "replace")
            raw = self._storage.content(tag, _EIGHT_BIT) or self._storage.content(tag, _BINARY)
            if wide.strip():
                bodies.append(_part(wide.encode("utf-8", "replace"), kind, "utf-8"))
            elif raw.strip():
                bodies.append(_part(raw, kind, charset))
        packed = self._storage.content("1009", _BINARY)
        if packed and not bodies:
            bodies.append(_part(lzfu.unpack(packed), "text/rtf"))
        return bodies

    def _attachments(self) -> list[_Storage]:
        # One more than are read, so that the writer says so.
        return self._storage.inside("__attach_version1.0_#")[: MAX_ATTACHMENTS + 1]

    def _attached(self, storage: _Storage) -> Message:
        mails = storage.inside(f"__substg1.0_3701{_OBJECT}", header=24)
        if mails and storage.number("3705") == 5:
            part = Message()
            part["Content-Type"] = "message/rfc822"
            # Deeper ones are left out by whoever writes; they need not be read.
            deep = self._depth >= MAX_DEPTH
            part.set_payload([Message() if deep else _Mail(mails[0], self._depth + 1).message()])
            return part
        part = _part(storage.content("3701", _BINARY), "application/octet-stream")
        names = (storage.text(tag, self._charset) for tag in ("3707", "3704", "3001"))
        name = next(filter(None, names), "")
        part.add_header("Content-Disposition", "attachment", filename=("utf-8", "", name))
        return part


def _part(content: bytes, kind: str, charset: str | None = None) -> Message:
    part = Message()
    part["Content-Type"] = f"{kind}; charset={charset}" if charset else kind
    part.set_payload(content)
    return part


def _person(name: str, *addresses: str) -> str:
    address = next((a for a in addresses if "@" in a), "")
    if not name or not address or address in name:
        return name or address
    return f"{name} <{address}>"


def _charset(*pages: int | None) -> str | None:
    """The first that names a charset; UTF-8 does not, it is tried before all others anyway."""
    for page in pages:
        if page is None or page == _UTF_8:
            continue
        try:
            return codecs.lookup(_CODECS.get(page, f"cp{page}")).name
        except LookupError:
            continue
    return None
