"""Which kind of file this is, told from its content; the name decides only between TXT and Markdown."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Literal

from chatbot.errors import EmptyDocument, UnreadableDocument, UnsupportedDocument
from chatbot.i18n import N_

Kind = Literal["pdf", "docx", "html", "markdown", "text"]
HEAD_BYTES = 8192

NEEDS_PASSWORD = N_("it is protected with a password")
DAMAGED = N_("the file is damaged or cut off")

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_HTML = re.compile(rb"<!doctype\s+html|<html[\s>]|<head[\s>]|<body[\s>]", re.IGNORECASE)
# Kinds that look like text but are programs for a machine: shown raw they would only confuse a search.
_NOT_PROSE = re.compile(rb"\s*(?:\{\\rtf|%!PS|%!FDF|<svg[\s>]|begin \d{3} )")
_MAIL = re.compile(
    rb"(?:From |(?:Return-Path|Received|Delivered-To|Message-ID|MIME-Version|X-[\w-]+|From|Date|Subject|To):)",
    re.IGNORECASE,
)
_MAIL_FIELD = re.compile(
    rb"^(?:MIME-Version|Content-Type|Message-ID|Received):", re.IGNORECASE | re.MULTILINE
)
_TEXT_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\x0b\x0c\x1b"))


def kind_of(path: Path, name: str) -> Kind:
    """The kind of that file. Raises EmptyDocument, UnreadableDocument, UnsupportedDocument."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    rough = sniff(head)
    if rough == "empty":
        raise EmptyDocument(name=name)
    if rough == "zip":
        return _kind_of_zip(path, name)
    if rough == "ole":
        if "EncryptedPackage".encode("utf-16-le") in path.read_bytes():
            raise UnreadableDocument(NEEDS_PASSWORD, name=name)
        raise UnsupportedDocument(name=name)
    if rough == "text":
        return "markdown" if Path(name).suffix.lower() in (".md", ".markdown", ".mdown") else "text"
    if rough is None:
        raise UnsupportedDocument(name=name)
    return rough


def sniff(head: bytes) -> Literal["empty", "pdf", "zip", "ole", "html", "text"] | None:
    """A first guess from the first HEAD_BYTES; None for what Hearth certainly does not read."""
    if not head:
        return "empty"
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK00PK\x03\x04")):
        return "zip"
    if head.startswith(_OLE):
        return "ole"
    if _NOT_PROSE.match(head) or (_MAIL.match(head) and _MAIL_FIELD.search(head)):
        return None
    if not _looks_like_text(head):
        return None
    return "html" if _HTML.search(head.replace(b"\0", b"")[:4096]) else "text"


def _looks_like_text(head: bytes) -> bool:
    if head.startswith(_TEXT_BOMS):
        return True
    if b"\0" in head:  # UTF-16 without a mark has a zero in every second place of Latin text
        even, odd = head[0::2].count(0), head[1::2].count(0)
        return max(even, odd) > 0.3 * len(head) / 2 and min(even, odd) < 0.05 * len(head) / 2
    return sum(head.count(c) for c in _CONTROL) <= len(head) // 100


def _kind_of_zip(path: Path, name: str) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UnreadableDocument(DAMAGED, name=name) from error
    if any(n.startswith("word/") for n in names):
        return "docx"
    raise UnsupportedDocument(name=name)
