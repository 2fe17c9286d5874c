"""Plain text and Markdown: which encoding it is in, and where Markdown has headings."""

from __future__ import annotations

import codecs
import contextlib
import re
from pathlib import Path

from chatbot.errors import UnreadableDocument
from chatbot.i18n import N_
from chatbot.library.readers.cleaning import clean
from chatbot.library.readers.composing import notes
from chatbot.library.readers.legacy import detect, modernised
from chatbot.text import language_of
from chatbot.types import Heading, PageText, ReadDocument

MAX_BYTES = 50_000_000
TOO_LARGE = N_("it is larger than Hearth reads of this kind")
GUESSED = N_(
    "Its encoding had to be guessed. If letters look wrong, save the file as UTF-8 and add it again."
)
NOT_TEXT = N_("its letters are in no encoding Hearth knows")

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SEVEN_BIT = ("iso-2022", "hz", "utf-7")
_TONE = re.compile("[\u0300\u0301\u0303\u0309\u0323]")
_TONE_ON_VOWEL = re.compile("[aeiouyăâêôơư][\u0300\u0301\u0303\u0309\u0323]", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]{0,1000}>|&#?\w{1,12};")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+\S")
_SETEXT = re.compile(r" {0,3}(=+|-{2,})\s*$")
_NOT_A_TITLE = re.compile(r"\s*(?:[-*+>|#]|\d+[.)]\s|$)")


def read_text(path: Path, name: str) -> ReadDocument:
    """A text file as one page. Raises UnreadableDocument."""
    text, warning = _content(path, name)
    return ReadDocument((PageText(text),), warning=warning)


def read_markdown(path: Path, name: str) -> ReadDocument:
    """A Markdown file as it was written, its headings marked; the first level-1 heading is the title."""
    text, warning = _content(path, name)
    headings = tuple(_markdown_headings(text))
    title = next((text[h.start : h.end].strip("# \t") for h in headings if h.level == 1), "")
    return ReadDocument(
        (PageText(text),),
        title=title,
        media_type="text/markdown",
        warning=warning,
        headings=headings,
    )


def decode(raw: bytes, name: str, declared: str | None = None) -> tuple[str, str | None]:
    """The bytes as text: by their mark, as UTF-8, as declared, as UTF-16, else by the likeliest old encoding.

    Returns the text and a warning where the encoding is a guess. Raises UnreadableDocument rather than
    return letters that mean nothing.
    """
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return raw.decode(encoding, "replace"), None
    if b"\0" in raw[:4096]:
        little = raw[1:4096:2].count(0) >= raw[0:4096:2].count(0)
        return raw.decode("utf-16-le" if little else "utf-16-be", "replace"), None
    if declared and declared.lower().startswith(_SEVEN_BIT):  # they would pass as UTF-8 too
        with contextlib.suppress(UnicodeDecodeError, LookupError):
            return raw.decode(declared), None
    for encoding in ("utf-8", *([declared] if declared else [])):
        try:
            return raw.decode(encoding), None
        except (UnicodeDecodeError, LookupError):
            continue
    return _decode_old(raw, name)


def _decode_old(raw: bytes, name: str) -> tuple[str, str | None]:
    # windows-1258 writes the tones behind their vowels; in any other text the same bytes stand anywhere.
    text = raw.decode("cp1258", "replace")
    tones, placed = len(_TONE.findall(text)), len(_TONE_ON_VOWEL.findall(text))
    if placed and placed >= 0.95 * tones and language_of(text) == "vi":
        return text, None
    text = raw.decode("latin-1")
    if detect(_TAG.sub(" ", text)):  # whoever called converts it
        return text, None
    from charset_normalizer import from_bytes

    best = from_bytes(raw[:500_000]).best()
    if best is not None:
        return raw.decode(best.encoding, "replace"), GUESSED
    text = raw.decode("utf-8", "replace")  # UTF-8 with a few broken bytes is still worth reading
    if text.count("\ufffd") > len(text) / 50:
        raise UnreadableDocument(NOT_TEXT, name=name)
    return text, GUESSED


def _content(path: Path, name: str) -> tuple[str, str | None]:
    if path.stat().st_size > MAX_BYTES:
        raise UnreadableDocument(TOO_LARGE, name=name)
    decoded, guessed = decode(path.read_bytes(), name)
    decoded, converted = modernised(decoded)
    text = clean(decoded)
    return text if text.endswith("\n") or not text else text + "\n", notes(guessed, converted)


def _markdown_headings(text: str) -> list[Heading]:
    found: list[Heading] = []
    start = 0
    before: tuple[int, str] | None = None
    fence = ""
    for line in text.splitlines(keepends=True):
        bare = line.rstrip("\n")
        if match := _FENCE.match(bare):
            if not fence:
                fence = match.group(1)
            elif match.group(1).startswith(fence):
                fence = ""
        elif not fence:
            if match := _ATX.match(bare):
                found.append(Heading(start, start + len(bare), len(match.group(1))))
            elif before and (match := _SETEXT.match(bare)) and not _NOT_A_TITLE.match(before[1]):
                level = 1 if match.group(1)[0] == "=" else 2
                found.append(Heading(before[0], before[0] + len(before[1]), level))
        before = None if fence or not bare.strip() else (start, bare)
        start += len(line)
    return found
