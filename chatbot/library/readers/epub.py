"""Electronic books (EPUB): the chapters in the order of reading."""

from __future__ import annotations

import posixpath
from pathlib import Path
from urllib.parse import unquote

from chatbot.errors import UnreadableDocument
from chatbot.i18n import N_
from chatbot.library.readers.archive import Element, Package, child, children, local, opened
from chatbot.library.readers.cleaning import clean_line
from chatbot.library.readers.composing import Composer, notes
from chatbot.library.readers.html import compose_html, parse_html
from chatbot.library.readers.progress import Progress
from chatbot.types import ReadDocument

MEDIA_TYPE = "application/epub+zip"
NO_BOOK = N_("it has no book inside")
LOCKED = N_("the shop it comes from has locked it (DRM)")

_FONT_LOCKS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")


def read_epub(path: Path, name: str, progress: Progress) -> ReadDocument:
    """A book; its chapters are pages without numbers.

    Raises UnreadableDocument for damaged, locked or hostile files.
    """
    with opened(path, name) as package:
        root = child(package.xml("META-INF/container.xml"), "rootfiles", "rootfile")
        main = (root.get("full-path") or "") if root is not None else ""
        book = package.xml(main)
        if book is None:
            raise UnreadableDocument(NO_BOOK, name=name)
        if _is_locked(package):
            raise UnreadableDocument(LOCKED, name=name)
        title = child(book, "metadata", "title")
        composer = Composer()
        chapters = _chapters(book, posixpath.dirname(main))
        warning = None
        for number, chapter in enumerate(chapters, 1):
            if content := package.content(chapter):
                page, noted = parse_html(content, name)
                warning = notes(warning, noted, compose_html(page, composer))
            composer.end_page(None)
            progress(number, len(chapters))
        shown = clean_line(title.text or "") if title is not None else ""
        return composer.document(MEDIA_TYPE, shown, warning)


def _chapters(book: Element, folder: str) -> list[str]:
    files = {
        item.get("id"): posixpath.normpath(posixpath.join(folder, unquote(item.get("href") or "")))
        for item in children(book, "manifest")
        if "html" in (item.get("media-type") or "")
    }
    places = [i.get("idref") for i in children(book, "spine") if local(i) == "itemref"]
    return [files[place] for place in dict.fromkeys(places) if place in files]


def _is_locked(package: Package) -> bool:
    """Whether more than its fonts is encrypted."""
    encryption = package.xml("META-INF/encryption.xml")
    methods = encryption.iter("{*}EncryptionMethod") if encryption is not None else ()
    return any((m.get("Algorithm") or "") not in _FONT_LOCKS for m in methods)
