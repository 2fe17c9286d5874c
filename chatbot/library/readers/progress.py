"""How readers tell how far they are."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told after each page (sheet, slide, message).

    `recognising` is how many seconds text recognition took for it; they do not count against the
    time that a file may take. Raises Cancelled when nobody waits any more.
    """

    def __call__(self, page: int, pages: int, recognising: float = 0.0) -> None: ...
