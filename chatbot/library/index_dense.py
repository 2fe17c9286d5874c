"""The vectors of all library passages: a Chroma folder, held by a process of its own (index_chroma.py).

Chroma holds passage ids and vectors, never a text; the folder is rebuildable from SQLite. Files attached
to a conversation are few and stay out: they are compared exactly (index_scan.py), so the shared index
never has to be filtered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from chatbot.child import Child, Event
from chatbot.errors import ChatbotError, ChildDied, ChildError
from chatbot.library.embedders import Vectors

_PIECE = 5000
_HUNG_SECONDS = 60.0
"""Without a sign of life: Chroma adds and writes without letting Python beat."""
_OPENING_SECONDS = 600


class DenseProcess:
    """One process for all Chroma folders of an index worker; calls are answered in their order.

    It does not outlive a fault: once it has died, every call raises ChildDied, and whoever opened the
    folders begins anew.
    """

    def __init__(self, lock: Path) -> None:
        """`lock` is held by the process while it runs."""
        self._child = Child(
            "chatbot.library.index_chroma",
            str(lock),
            name="vectors",
            start_within=120,
            hung_after=_HUNG_SECONDS,
        )
        self._lane = ThreadPoolExecutor(1, thread_name_prefix="vectors")
        self._pid: int | None = None

    def begin(
        self, method: str, params: dict[str, Any], blob: bytes = b"", timeout: float = 60
    ) -> Future[tuple[Event, bytes]]:
        """Send a call without waiting for its answer."""
        return self._lane.submit(self._call, method, params, blob, timeout)

    def close(self) -> None:
        self._lane.shutdown()
        self._child.close()

    def _call(
        self, method: str, params: dict[str, Any], blob: bytes, timeout: float
    ) -> tuple[Event, bytes]:
        if self._pid is not None and self._pid != self._child.pid:
            raise ChildDied("it ended before", name="vectors")
        try:
            reply = self._child.call(method, params, blob, timeout)
        except ChildError:
            raise
        except ChatbotError as error:  # whatever Chroma raised
            raise ChildError(str(error)) from error
        self._pid = self._pid or self._child.pid
        return reply


class DenseIndex:
    """A Chroma folder with vectors of one stamp."""

    def __init__(self, folder: Path, process: DenseProcess) -> None:
        """Open or create. Raises ChildError for files that Chroma cannot use."""
        self._process = process
        self._folder = {"folder": str(folder)}
        process.begin("open", self._folder, timeout=_OPENING_SECONDS).result()

    def ids(self) -> set[str]:
        """Every passage in the index."""
        reply, _ = self._process.begin("ids", self._folder).result()
        return set(reply["ids"])

    def add(self, ids: Sequence[str], vectors: Vectors) -> Future[Any]:
        """Begin to add; what is asked of the index afterwards finds them."""
        blob = np.ascontiguousarray(vectors, "<f4").tobytes()
        return self._process.begin("add", {**self._folder, "ids": list(ids)}, blob)

    def remove(self, passage_ids: Sequence[str]) -> None:
        """Take out those that are there."""
        if passage_ids:
            params = {**self._folder, "ids": list(passage_ids)}
            self._process.begin("remove", params).result()

    def clear(self) -> None:
        """Take out everything, as quickly as a folder is deleted."""
        self._process.begin("clear", self._folder).result()

    def count(self) -> int:
        """How many passages are in the index."""
        reply, _ = self._process.begin("count", self._folder).result()
        return int(reply["count"])

    def query(self, vector: Vectors, limit: int) -> Future[dict[str, float]]:
        """Begin to find the nearest passages; their similarities, nearest first."""
        params = {**self._folder, "limit": limit}
        asked = self._process.begin("query", params, vector.astype("<f4").tobytes())
        found: Future[dict[str, float]] = Future()

        def tell(answered: Future[tuple[Event, bytes]]) -> None:
            if error := answered.exception():
                found.set_exception(error)
            else:
                reply, _ = answered.result()
                found.set_result(dict(zip(reply["ids"], reply["similarities"], strict=True)))

        asked.add_done_callback(tell)
        return found

    def vectors(self) -> Iterator[tuple[list[str], Vectors]]:
        """Everything stored, in pieces."""
        start = 0
        while True:
            params = {**self._folder, "start": start, "count": _PIECE}
            reply, blob = self._process.begin("vectors", params).result()
            if not reply["ids"]:
                return
            yield reply["ids"], np.frombuffer(blob, "<f4").reshape(len(reply["ids"]), -1)
            start += len(reply["ids"])

    def close(self) -> None:
        self._process.begin("close", self._folder).result()
