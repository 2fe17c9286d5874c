"""Characters as Hearth keeps them: NFC, no control characters, plain spaces and line breaks.

Readers clean every paragraph before its offsets are counted, so nothing downstream ever changes a
stored text again.
"""

from __future__ import annotations

import re
import unicodedata

# Ligatures that fonts draw as one letter; NFC keeps them, and then "file" is not found in "ﬁle".
_LIGATURES = {
    "ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st",
}  # fmt: skip
_BULLETS = (
    "\uf0b7\uf0a7\uf0a8\uf0d8\uf076\uf0fc\uf02d"  # Symbol and Wingdings bullets in Word files
)
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\ufeff\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
_SPACES_LIKE = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u202f\u3000\t"
_BREAKS_LIKE = "\u2028\u2029\u0085\u000b\u000c"
_CHARACTERS = str.maketrans(
    {
        **_LIGATURES,
        **dict.fromkeys(_BULLETS, "•"),
        **dict.fromkeys(_INVISIBLE),
        **dict.fromkeys(_SPACES_LIKE, " "),
        **dict.fromkeys(_BREAKS_LIKE, "\n"),
    }
)
SPACES = f" \r\n{_SPACES_LIKE}{_BREAKS_LIKE}"
WORD = re.compile(f"[^{SPACES}]+")
"""What `clean_line` leaves apart: it cleans every word for itself and puts one space between them."""
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_SPACES = re.compile(r" {2,}")
_WIDE_GAP = re.compile(r" {41,}")
_EMPTY_LINES = re.compile(r"\n{3,}")


def clean(text: str) -> str:
    """The text in NFC, lines ending in \\n, at most one empty line in a row, without invisible characters."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_CHARACTERS)
    text = _SURROGATE.sub("\ufffd", _CONTROL.sub("", text))
    text = _WIDE_GAP.sub(" " * 40, text)
    text = "\n".join(line.rstrip(" ") for line in text.split("\n"))
    return unicodedata.normalize("NFC", _EMPTY_LINES.sub("\n\n", text))


def clean_line(text: str) -> str:
    """The text as one line: every run of white space becomes one space."""
    return _SPACES.sub(" ", clean(text).replace("\n", " ")).strip()
