"""An answer being written, as those see it who watch it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from chatbot.types import GenerationStats, Message, Phase, Source

_WATCH_SECONDS = 5.0
"""Who waits for a reply says at least this often that it is still there."""


class Reply:
    """An answer being written: watch it from any point, from any thread; it runs once.

    Iterating yields text from the beginning until the end; `message` is the state so far.
    """

    def __init__(self, message: Message, question: str) -> None:
        self.question = question
        self.started_at = time.time()
        self.followed_by: Reply | None = None
        """The next try at the same question, begun at once when memory had run out; set before `done`."""
        self._message = message
        self._phase: Phase = "queued"
        self._progress: float | None = None
        self._place: int | None = None
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._watched_at = time.monotonic()

    def __iter__(self) -> Iterator[str]:
        return self.read()

    def read(self, start: int = 0) -> Iterator[str]:
        """Pieces of the answer from character `start` on, as they come."""
        while True:
            with self._changed:
                self.watch()
                self._changed.wait_for(self._has_more(start), _WATCH_SECONDS)
                piece, done = self.text[start:], self.done
            if piece:
                yield piece
                start += len(piece)
            if done:
                return

    def wait(self, timeout: float | None = None) -> Message:
        """The finished message, or the state so far when `timeout` seconds have passed. Watches."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self.done:
                left = _WATCH_SECONDS if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    break
                self.watch()
                self._changed.wait(min(left, _WATCH_SECONDS))
        return self._message

    def last(self) -> Message:
        """The finished message of the last try at this question."""
        message = self.wait()
        return self.followed_by.last() if self.followed_by else message

    def stop(self) -> None:
        """End the answer here and keep what was written."""
        self._stopped.set()

    def watch(self) -> None:
        """Say that somebody looks at this answer now."""
        self._watched_at = time.monotonic()

    @property
    def message(self) -> Message:
        return self._message

    @property
    def text(self) -> str:
        return self._message.text

    @property
    def sources(self) -> tuple[Source, ...]:
        return self._message.sources

    @property
    def stats(self) -> GenerationStats | None:
        return self._message.stats

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def progress(self) -> float | None:
        """How much of the prompt has been read, 0..1; None in other phases."""
        return self._progress

    @property
    def queue_place(self) -> int | None:
        """How many questions are before this one; None when it is its turn."""
        return self._place

    @property
    def done(self) -> bool:
        return self._phase == "done"

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    @property
    def unwatched_seconds(self) -> float:
        return time.monotonic() - self._watched_at

    def _has_more(self, start: int) -> Callable[[], bool]:
        return lambda: len(self.text) > start or self.done

    def update(
        self,
        *,
        phase: Phase | None = None,
        progress: float | None = None,
        place: int | None = None,
        message: Message | None = None,
    ) -> None:
        """What the writer has to tell the watchers."""
        with self._changed:
            self._phase = phase or self._phase
            self._progress, self._place = progress, place
            self._message = message or self._message
            self._changed.notify_all()
