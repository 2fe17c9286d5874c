"""Citations that exist, and thinking kept apart: what every shown answer goes through."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from chatbot.types import Source

MARKER = re.compile(r"[ \t]*\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\]")
_THINK = re.compile(r"<think>(.*?)(?:</think>|\Z)", re.DOTALL)


def split_thinking(text: str) -> tuple[str, str]:
    """The model's thinking and its answer; thinking that has not ended yet counts as thinking.

    Some templates open <think> in the prompt, so a lone </think> ends a thinking part too.
    """
    if "</think>" in text and "<think>" not in text:
        text = "<think>" + text
    thinking = "\n".join(part.strip() for part in _THINK.findall(text))
    return thinking, _THINK.sub("", text).lstrip()


def cited_numbers(text: str) -> list[int]:
    """The numbers the answer cites as [n], in the order of their first use."""
    numbers = [int(n) for marker in MARKER.findall(text) for n in re.findall(r"\d+", marker)]
    return list(dict.fromkeys(numbers))


def keep_real_citations(text: str, known: Collection[int]) -> str:
    """The text with every [n] that was not in the prompt removed; [1, 2] becomes [1][2]."""

    def resolved(match: re.Match[str]) -> str:
        numbers = [int(n) for n in re.findall(r"\d+", match.group(1))]
        real = [n for n in numbers if n in known]
        space = match.group()[: len(match.group()) - len(match.group().lstrip())]
        return space + "".join(f"[{n}]" for n in real) if real else ""

    return MARKER.sub(resolved, text)


def numbers_of(sources: Sequence[Source]) -> set[int]:
    """The numbers under which these sources stood in the prompt."""
    return {source.number for source in sources}
