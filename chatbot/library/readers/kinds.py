"""Which kind of file this is, told from its content; the name decides only between kinds of plain text."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from typing import Literal

from chatbot.errors import EmptyDocument, UnreadableDocument, UnsupportedDocument
from chatbot.i18n import N_

Kind = Literal[
    "pdf", "docx", "pptx", "xlsx", "odt", "ods", "odp", "epub", "rtf", "html", "mail", "outlook", "picture",
    "delimited", "markdown", "text",
]  # fmt: skip
Rough = Literal["empty", "pdf", "zip", "ole", "rtf", "html", "mail", "picture", "text"]

FILE_TYPES = [
    "pdf", "docx", "pptx", "xlsx", "odt", "ods", "odp", "epub", "rtf", "html", "htm", "eml", "msg", "csv", "tsv",
    "md", "txt", "png", "jpg", "jpeg", "tif", "tiff", "bmp", "webp",
]  # fmt: skip
"""What the endings of files that Hearth reads usually are, for choosing files; the content decides."""

HEAD_BYTES = 8192

NEEDS_PASSWORD = N_("it is protected with a password")
DAMAGED = N_("the file is damaged or cut off")

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_HTML = re.compile(rb"<!doctype\s+html|<html[\s>]|<head[\s>]|<body[\s>]", re.IGNORECASE)
# Kinds that look like text but are programs for a machine: shown raw they would only confuse a search.
_NOT_PROSE = re.compile(rb"\s*(?:%!PS|%!FDF|<svg[\s>]|begin \d{3} )")
_RTF = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{\\rtf")
_MAIL = re.compile(
    rb"(?:From |(?:Return-Path|Received|Delivered-To|Message-ID|MIME-Version|X-[\w-]+|From|Date|Subject|To):)",
    re.IGNORECASE,
)
_MAIL_FIELD = re.compile(
    rb"^(?:MIME-Version|Content-Type|Message-ID|Received):", re.IGNORECASE | re.MULTILINE
)
_PICTURE = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|II\*\0|MM\0\*|BM.{4}\0{4}.{4}[\x0c-\x80]\0\0\0|RIFF....WEBP",
    re.DOTALL,
)
_BY_NAME: dict[str, Kind] = {
    ".md": "markdown", ".markdown": "markdown", ".mdown": "markdown", ".csv": "delimited", ".tsv": "delimited",
    ".tab": "delimited",
}  # fmt: skip
_BY_MEDIA_TYPE: dict[bytes, Kind] = {
    b"application/epub+zip": "epub",
    b"application/vnd.oasis.opendocument.text": "odt",
    b"application/vnd.oasis.opendocument.spreadsheet": "ods",
    b"application/vnd.oasis.opendocument.presentation": "odp",
}
_BY_FOLDER: dict[str, Kind] = {"word/": "docx", "xl/": "xlsx", "ppt/": "pptx"}
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
        raw = path.read_bytes()
        if "__properties_version1.0".encode("utf-16-le") in raw:
            return "outlook"  # its reader looks where that stands
        if "EncryptedPackage".encode("utf-16-le") in raw:
            raise UnreadableDocument(NEEDS_PASSWORD, name=name)
        raise UnsupportedDocument(name=name)
    if rough == "text":
        return _BY_NAME.get(Path(name).suffix.lower(), "text")
    if rough is None:
        raise UnsupportedDocument(name=name)
    return rough


def sniff(head: bytes) -> Rough | None:
    """A first guess from the first HEAD_BYTES; None for what Hearth certainly does not read."""
    if not head:
        return "empty"
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK00PK\x03\x04")):
        return "zip"
    if head.startswith(_OLE):
        return "ole"
    if _PICTURE.match(head):
        return "picture"
    if _RTF.match(head):
        return "rtf"
    if _NOT_PROSE.match(head):
        return None
    if _MAIL.match(head) and _MAIL_FIELD.search(head):
        return "mail"
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
            names = archive.namelist()
            media_type = _media_type(archive) if "mimetype" in names else b""
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError) as error:  # fmt: skip
        raise UnreadableDocument(DAMAGED, name=name) from error
    if media_type in _BY_MEDIA_TYPE:
        return _BY_MEDIA_TYPE[media_type]
    if "META-INF/container.xml" in names and any(n.endswith(".opf") for n in names):
        return "epub"
    for folder, kind in _BY_FOLDER.items():
        if any(n.lstrip("/").lower().startswith(folder) for n in names):
            if "xl/workbook.bin" in names:  # Excel's binary kind
                break
            return kind
    raise UnsupportedDocument(name=name)


def _media_type(archive: zipfile.ZipFile) -> bytes:
    """What an EPUB or OpenDocument file says it is; b"" for a member that is locked."""
    try:
        with archive.open("mimetype") as file:
            return file.read(100).strip()
    except RuntimeError:
        return b""
