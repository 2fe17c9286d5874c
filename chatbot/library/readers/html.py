"""HTML pages: their visible text with headings, tables as rows; nothing is fetched, nothing is run."""

from __future__ import annotations

import re
from pathlib import Path

from lxml import etree

from chatbot.errors import UnreadableDocument
from chatbot.i18n import N_
from chatbot.library.readers.archive import Element
from chatbot.library.readers.cleaning import clean_line
from chatbot.library.readers.composing import Composer, notes
from chatbot.library.readers.kinds import DAMAGED
from chatbot.library.readers.legacy import NOTES, Scheme, detect, modern
from chatbot.library.readers.text import TOO_LARGE, decode
from chatbot.types import ReadDocument

MAX_BYTES = 20_000_000
TOO_DEEP = N_("its parts are nested too deeply")

_DECLARED = re.compile(
    rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w-]+)|<\?xml[^>]+encoding\s*=\s*[\"']([\w-]+)", re.I
)
_SILENT = frozenset(
    [
        "script",
        "style",
        "noscript",
        "template",
        "head",
        "iframe",
        "object",
        "svg",
        "math",
        "canvas",
        "select",
        "button",
    ]
)
_BLOCK = frozenset(
    [
        "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dialog", "dir",
        "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6",
        "header", "hgroup", "hr", "html", "legend", "li", "main", "menu", "nav", "ol", "p", "pre", "section",
        "summary", "table", "tbody", "tfoot", "thead", "tr", "ul",
    ]
)  # fmt: skip
_CELL = frozenset(["td", "th"])
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)


def read_html(path: Path, name: str) -> ReadDocument:
    """An HTML file as one page. Raises UnreadableDocument."""
    if path.stat().st_size > MAX_BYTES:
        raise UnreadableDocument(TOO_LARGE, name=name)
    root, guessed = parse_html(path.read_bytes(), name)
    composer = Composer()
    converted = compose_html(root, composer)
    titles = root.xpath("//title/text()") if root is not None else []
    title = clean_line(titles[0]) if titles else ""
    return composer.document("text/html", title, notes(guessed, converted))


def parse_html(
    raw: bytes, name: str, declared: str | None = None
) -> tuple[Element | None, str | None]:
    """The tree of a page, and a warning where its encoding is a guess; `declared` is said outside of it."""
    inside = _DECLARED.search(raw[:4096])
    if inside:
        declared = (inside.group(1) or inside.group(2)).decode("ascii")
    text, warning = decode(raw, name, declared)
    # huge_tree: without it libxml2 stops at 256 levels; with it, at 2048.
    parser = etree.HTMLParser(
        encoding="utf-8", huge_tree=True, no_network=True, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(text.encode("utf-8", "replace"), parser)
    except etree.XMLSyntaxError as error:
        raise UnreadableDocument(DAMAGED, name=name) from error
    if parser.error_log.filter_from_fatals():
        raise UnreadableDocument(
            TOO_DEEP, name=name
        )  # libxml2 stopped there: the rest would be lost
    return root, warning


def compose_html(root: Element | None, composer: Composer) -> str | None:
    """Write what a reader of the page sees; returns a note where an old encoding was converted."""
    if root is None:
        return None
    scheme = detect(" ".join(root.itertext()))
    _Walk(composer, scheme).run(root)
    return NOTES[scheme] if scheme else None


class _Walk:
    """Goes through the tree without recursion, so that a million nested tags cannot exhaust the stack."""

    def __init__(self, composer: Composer, scheme: Scheme | None) -> None:
        self._composer = composer
        self._scheme = scheme
        self._line: list[str] = []
        self._level = 0
        self._numbers: list[int | None] = []  # one counter per open list, None for bullets

    def run(self, root: Element) -> None:
        walker = etree.iterwalk(root, events=("start", "end"))
        for event, element in walker:
            tag = element.tag if isinstance(element.tag, str) else "#"
            if event == "start":
                if tag in _SILENT or tag == "#" or _is_hidden(element):
                    walker.skip_subtree()
                    continue
                self._open(tag, element)
                self._line.append(element.text or "")
            else:
                if not (tag in _SILENT or tag == "#" or _is_hidden(element)):
                    self._close(tag)
                self._line.append(element.tail or "")
        self._flush()

    def _open(self, tag: str, element: Element) -> None:
        if tag in _BLOCK:
            self._flush()
        if tag in ("ul", "ol", "menu", "dir"):
            start = element.get("start", "1")
            self._numbers.append((int(start) if start.isdecimal() else 1) if tag == "ol" else None)
        elif tag == "li":
            self._line.append(self._bullet())
        elif tag == "br":
            self._flush()
        elif tag in _CELL and "".join(self._line).strip():
            self._line.append(" | ")
        elif tag in ("h1", "h2", "h3", "h4", "h5", "h6"):
            self._level = int(tag[1])

    def _close(self, tag: str) -> None:
        if tag in _BLOCK:
            self._flush()
        if tag in ("ul", "ol", "menu", "dir") and self._numbers:
            self._numbers.pop()
        elif tag == "table":
            self._composer.gap()
        elif tag in ("h1", "h2", "h3", "h4", "h5", "h6"):
            self._level = 0

    def _bullet(self) -> str:
        if not self._numbers or self._numbers[-1] is None:
            return "• "
        number = self._numbers[-1]
        self._numbers[-1] = number + 1
        return f"{number}. "

    def _flush(self) -> None:
        line = clean_line(modern("".join(self._line), self._scheme))
        self._line = []
        if line not in ("", "•"):
            self._composer.paragraph(line, self._level)


def _is_hidden(element: Element) -> bool:
    return element.get("hidden") is not None or bool(
        _HIDDEN_STYLE.search(element.get("style") or "")
    )
