"""Pictures of pages, drawn in a child process that may die: the original is a file from outside."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from chatbot.child import Child
from chatbot.errors import ChildDied, ChildHung, ChildTimeout, UndrawablePage
from chatbot.i18n import N_

SECONDS = 20.0
"""How long drawing one page may take."""
IDLE_SECONDS = 120.0
CACHE_BYTES = 24_000_000

TOOK_TOO_LONG = N_("drawing it took too long")
CRASHED = N_("drawing it fails or needs more memory than a page may")


@dataclass(frozen=True, slots=True)
class PagePicture:
    """A page as a JPEG; its size in pixels."""

    content: bytes
    width: int
    height: int


class Renderer:
    """Draws pages one at a time and keeps the last ones; its child starts when needed and ends when idle."""

    def __init__(self, seconds: float = SECONDS, idle_seconds: float = IDLE_SECONDS) -> None:
        self._seconds = seconds
        self._idle_seconds = idle_seconds
        self._one_at_a_time = threading.Lock()
        self._kept: OrderedDict[tuple[Path, int], PagePicture] = OrderedDict()
        self._idle: threading.Timer | None = None
        self._child = Child(
            "chatbot.library.renderer_worker",
            name="renderer",
            environment={"MALLOC_ARENA_MAX": "2"},  # arenas count as memory in use
        )

    def draw(self, path: Path, name: str, page: int) -> PagePicture:
        """That page of a PDF or picture, the first being 0; `name` is what the person calls the file.

        The content of `path` must never change: pictures are kept by path. Raises UndrawablePage, also for
        a file that brings the drawing process down.
        """
        with self._one_at_a_time:
            picture = self._kept.get((path, page)) or self._drawn(path, name, page)
            self._keep((path, page), picture)
            return picture

    def close(self) -> None:
        if self._idle:
            self._idle.cancel()
        self._child.close()

    def _drawn(self, path: Path, name: str, page: int) -> PagePicture:
        asked = {"path": str(path), "name": name, "page": page}
        try:
            size, content = self._child.call("draw", asked, timeout=self._seconds)
        except (ChildTimeout, ChildHung) as error:
            raise UndrawablePage(TOOK_TOO_LONG, name=name, page=page + 1) from error
        except ChildDied as error:
            raise UndrawablePage(CRASHED, name=name, page=page + 1) from error
        self._rest_later()
        return PagePicture(content, size["width"], size["height"])

    def _keep(self, key: tuple[Path, int], picture: PagePicture) -> None:
        self._kept[key] = picture
        self._kept.move_to_end(key)
        while sum(len(p.content) for p in self._kept.values()) > CACHE_BYTES:
            self._kept.popitem(last=False)

    def _rest_later(self) -> None:
        if self._idle:
            self._idle.cancel()
        self._idle = threading.Timer(self._idle_seconds, self.rest)
        self._idle.daemon = True
        self._idle.start()

    def rest(self) -> None:
        """End the process that draws, after the page it is at."""
        with self._one_at_a_time:
            self._child.restart()  # the next page starts a fresh one
