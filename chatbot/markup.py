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
    text = _HTML.sub(r"\\<", text)
    text = _IMAGE.sub(r"\\!", text)
    text = _LINK.sub(r"\\]", text)
    text = _DIRECTIVE.sub(r"\\:", text)
    text = _DOLLAR.sub(r"\\$", text)

    def badge(match: re.Match[str]) -> str:
        known = int(match.group(1)) in citations
        return f":primary-badge[{match.group(1)}]" if known else match.group()

    return _CITATION.sub(badge, text)
