"""Making text safe to show as Markdown: nothing it says can load, run or disguise anything.

Document text is escaped whole. A model's Markdown keeps its lists, tables and code, but images become
text, links show where they lead, and Streamlit's own directives and stray dollar signs are literal.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|~$:<>&])")
_CODE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]+`)", re.DOTALL)
_IMAGE = re.compile(r"!(?=\[)")
_LINK = re.compile(r"\](?=[(\[:])")
_HTML = re.compile(r"<(?=[a-zA-Z/!?])")
_DIRECTIVE = re.compile(r":(?=[a-zA-Z][\w-]*[\[/])")
_DOLLAR = re.compile(r"(?<![\\$])\$(?!\$)")
_CITATION = re.compile(r"\[(\d{1,3})\]")
_OPEN, _CLOSE = "\ue000", "\ue001"  # characters for private use: no document means anything by them
_KEPT = re.compile(rf"{_OPEN}(\d+){_CLOSE}(?=([(\[])?)")


def literal(text: str) -> str:
    """Markdown that shows exactly this text, line breaks included."""
    return _SPECIAL.sub(r"\\\1", text).replace("\n", "  \n")


def harmless(text: str, citations: Collection[int] = ()) -> str:
    """A model's Markdown without images, hidden links, HTML and directives; [n] of `citations` as badges."""
    parts = _CODE.split(text)
    return "".join(
        part if index % 2 else _harmless(part, citations) for index, part in enumerate(parts)
    )


def _harmless(text: str, citations: Collection[int]) -> str:
    def kept(match: re.Match[str]) -> str:
        known = int(match.group(1)) in citations
        return f"{_OPEN}{match.group(1)}{_CLOSE}" if known else match.group()

    # Set apart first: in "[1][2]" and "[1]:" the brackets would be taken for links.
    text = _CITATION.sub(kept, text.replace(_OPEN, "").replace(_CLOSE, ""))
    text = _HTML.sub(r"\\<", text)
    text = _IMAGE.sub(r"\\!", text)
    text = _LINK.sub(r"\\]", text)
    text = _DIRECTIVE.sub(r"\\:", text)
    text = _DOLLAR.sub(r"\\$", text)
    # A badge must not become the words of a link that follows it.
    return _KEPT.sub(lambda m: f":primary-badge[{m[1]}]" + ("\\" if m[2] else ""), text)
