"""Making text safe to show as Markdown: nothing it says can load, run or disguise anything.

Document text is escaped whole. A model's Markdown keeps its lists, tables and code, but images become
text, links show where they lead, and Streamlit's own directives and stray dollar signs are literal.
The only links are our own: a sentence with a hint leads to HINT, which is no place, and shows the hint.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|~$:<>&])")
_CODE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]+`)", re.DOTALL)
_IMAGE = re.compile(r"!(?=\[)")
_LINK = re.compile(r"\](?=[(\[:])")
_HTML = re.compile(r"<(?=[a-zA-Z/!?])")
_DIRECTIVE = re.compile(r":(?=[a-zA-Z][\w-]*[\[/])")
_DOLLAR = re.compile(r"(?<![\\$])\$(?!\$)")
_CITATION = re.compile(r"( ?)\[(\d{1,3})\]")
_DRESSING = "*_`~"
_BEGIN, _END = "\ue010", "\ue011"
_HINTED = re.compile(f"{_BEGIN}([^{_BEGIN}{_END}]*){_END}|[{_BEGIN}{_END}]")

HINT = "#unsupported"
Hint = tuple[int, int, str]
"""Start and end of a sentence in the text, and what to say about it."""
_OPEN, _CLOSE = "\ue000", "\ue001"  # characters for private use: no document means anything by them
_KEPT = re.compile(rf"{_OPEN}(\d+){_CLOSE}(?=([(\[])?)")


def literal(text: str) -> str:
    """Markdown that shows exactly this text, line breaks included."""
    return _SPECIAL.sub(r"\\\1", text).replace("\n", "  \n")


def harmless(text: str, citations: Collection[int] = (), hints: Sequence[Hint] = ()) -> str:
    """A model's Markdown without images, hidden links, HTML and directives; [n] of `citations` as badges.

    The sentences of `hints` become links to HINT that show their hint; one that Markdown could not hold
    in a link (open emphasis or brackets, a row of a table) stays as it is.
    """
    said: list[str] = []
    if hints:
        text, said = _with_marks(text, hints)
    parts = _CODE.split(text)
    text = "".join(
        part if index % 2 else _harmless(part, citations) for index, part in enumerate(parts)
    )
    return _linked(text, iter(said)) if said else text


def _with_marks(text: str, hints: Sequence[Hint]) -> tuple[str, list[str]]:
    """The text with marks around the hinted sentences, and the hints in the order of their marks.

    Marks stand beside white space only, so they never part characters that must be seen together.
    """
    text = text.translate({ord(_BEGIN): "\ufffd", ord(_END): "\ufffd"})
    pieces: list[str] = []
    said: list[str] = []
    at = 0
    for start, end, hint in sorted(hints):
        if not at <= start < end <= len(text):
            continue
        while start > at and text[start - 1] in _DRESSING:
            start -= 1
        while end < len(text) and text[end] in _DRESSING:
            end += 1
        open_before = start == 0 or text[start - 1].isspace()
        open_behind = end >= len(text) or text[end].isspace()
        if open_before and open_behind:
            pieces += [text[at:start], _BEGIN, text[start:end], _END]
            said.append(hint)
            at = end
    return "".join([*pieces, text[at:]]), said


def _linked(text: str, said: Iterator[str]) -> str:
    def link(match: re.Match[str]) -> str:
        inside = match.group(1)
        if inside is None:
            return ""  # one without its other half
        hint = next(said)
        if not _fits_a_link(inside):
            return inside
        title = _SPECIAL.sub(r"\\\1", " ".join(hint.split())).replace('"', r"\"")
        return f'[{inside}]({HINT} "{title}")'

    return _HINTED.sub(link, text)


def _fits_a_link(text: str) -> bool:
    depth = 0
    for sign in re.sub(r"\\.", "", text, flags=re.DOTALL):
        depth += (sign == "[") - (sign == "]")
        if depth < 0:
            return False
    even = all(text.count(sign) % 2 == 0 for sign in ("**", "`", "~~", "_", "$"))
    stars = text.replace("**", "").count("*") % 2 == 0
    plain = not text.endswith("\\") and not text.startswith("^") and not re.search(r"[|\n<]", text)
    return depth == 0 and even and stars and plain and bool(text.strip())


def _harmless(text: str, citations: Collection[int]) -> str:
    def kept(match: re.Match[str]) -> str:
        if int(match[2]) not in citations:
            return match[0]
        space = "\N{NO-BREAK SPACE}" if match[1] else ""  # a number does not begin a line alone
        return f"{space}{_OPEN}{match[2]}{_CLOSE}"

    # Set apart first: in "[1][2]" and "[1]:" the brackets would be taken for links.
    text = _CITATION.sub(kept, text.replace(_OPEN, "").replace(_CLOSE, ""))
    text = _HTML.sub(r"\\<", text)
    text = _IMAGE.sub(r"\\!", text)
    text = _LINK.sub(r"\\]", text)
    text = _DIRECTIVE.sub(r"\\:", text)
    text = _DOLLAR.sub(r"\\$", text)
    # A badge must not become the words of a link that follows it.
    return _KEPT.sub(lambda m: f":primary-badge[{m[1]}]" + ("\\" if m[2] else ""), text)
