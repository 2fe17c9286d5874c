"""What a command prints: one JSON object, or words; errors and progress go to stderr."""

from __future__ import annotations

import json
import locale
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from chatbot.i18n import preferred_language
from chatbot.types import Language

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def show(result: dict[str, Any], as_json: bool, as_text: Callable[[dict[str, Any]], str]) -> None:
    """Print the result, as JSON or as text for people."""
    print(json.dumps(result, ensure_ascii=False) if as_json else as_text(result))


def plain(result: dict[str, Any]) -> str:
    """A line for each entry."""
    return "\n".join(f"{key}: {value}" for key, value in result.items())


def language() -> Language:
    """The language of the terminal."""
    return preferred_language((locale.getlocale()[0] or "en").replace("_", "-"))


def wants_json() -> bool:
    """Whether the command was asked for JSON: errors are then JSON, too."""
    return "--json" in sys.argv


class Progress:
    """A line on stderr that says how far the work is; where that is no terminal, a line for each step."""

    def __init__(self) -> None:
        self._last = ""
        self._width = 0

    def show(self, step: str, fraction: float | None, words: str) -> None:
        if not sys.stderr.isatty():
            if step != self._last:
                print(step, file=sys.stderr, flush=True)
            self._last = step
            return
        percent = f"{fraction:4.0%}" if fraction is not None else "    "
        line = f"{percent}  {step}  {words}"[:110]
        print(f"\r{line.ljust(self._width)}", end="", file=sys.stderr, flush=True)
        self._width = len(line)

    def end(self) -> None:
        if self._width:
            print(file=sys.stderr)
