"""One engine in a process of its own: it may die, hang or run out of memory without taking Hearth along.

Parent side: `EngineWorker`, an Engine. Child side: `main`, which loads one engine and answers
`load`, `stream` and `count`. Questions wait in a `Line`, first come first served.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Any, Protocol

from chatbot.child import Child, Event, Request, serve
from chatbot.engines.base import Cancelled, EngineSpec
from chatbot.errors import BrokenModel, Busy, ChatbotError, ChildDied, EngineError, OutOfMemory
from chatbot.hardware.process import allocated_on_gpu, peak, resident
from chatbot.i18n import N_
from chatbot.types import (
    Delta,
    EngineInfo,
    GenerationOptions,
    GenerationStats,
    Growth,
    Source,
    Turn,
)

log = logging.getLogger(__name__)

LOADING_AGAIN = N_("The model is being loaded again.")
PLACES = 16
HUNG_AFTER = 7.0
START_WITHIN = 120.0
"""Importing torch from a slow disk takes this long at worst."""
LOAD_SECONDS = 1800.0
COUNT_SECONDS = 60.0
_CRASHES = frozenset(["SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE"])
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class Line:
    """First come, first served: one turn at a time, at most `places` waiting."""

    def __init__(self, places: int = PLACES) -> None:
        self._places = places
        self._tickets: deque[object] = deque()
        self._moved = threading.Condition()

    @property
    def idle(self) -> bool:
        return not self._tickets

    def join(self, *, always: bool = False) -> object:
        """A ticket for the end of the line. Raises Busy when it is full, unless `always`."""
        with self._moved:
            if len(self._tickets) > self._places and not always:
                raise Busy(waiting=len(self._tickets) - 1)
            ticket = object()
            self._tickets.append(ticket)
            return ticket

    def wait(self, ticket: object) -> Iterator[int]:
        """Yield how many are before this ticket, at least twice a second, until it is its turn.

        The repetition lets a caller who no longer wants the turn look up and leave.
        """
        while place := self._place(ticket):
            yield place
            with self._moved:
                if self._place(ticket) == place:
                    self._moved.wait(0.5)

    def _place(self, ticket: object) -> int:
        with self._moved:  # a Condition's lock may be taken twice by one thread
            return self._tickets.index(ticket)

    def leave(self, ticket: object) -> None:
        with self._moved:
            self._tickets.remove(ticket)
            self._moved.notify_all()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn and hold it; for work that no person watches the queue of."""
        ticket = self.join(always=True)
        try:
            for _ in self.wait(ticket):
                pass
            yield
        finally:
            self.leave(ticket)


class EngineWorker:
    """An Engine whose model lives in a child process; safe to use from many threads.

    It loads with the first use and again after the child died or `unload`. Errors of the child arrive
    as ChildDied, ChildHung (within ten seconds), OutOfMemory, ContextOverflow, BrokenModel, …;
    the next call works on a fresh process. `make_room` runs before each load, in this worker's turn;
    `observe` hears after each load and each answer what the process takes.
    """

    def __init__(
        self,
        spec: EngineSpec,
        line: Line | None = None,
        make_room: Callable[[EngineWorker], None] | None = None,
        observe: Observer | None = None,
    ) -> None:
        self.spec = spec
        self.loaded_at = 0.0
        self.load_seconds = 0.0
        self.last_used = 0.0
        self._line = line or Line()
        self._make_room = make_room
        self._observe = observe
        self._child = self._new_child()
        self._loaded_pid: int | None = None
        self._info: EngineInfo | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process that holds the model; None while none does."""
        return self._child.pid if self.loaded else None

    @property
    def holds_files(self) -> bool:
        """Whether a process has the model's files open, or is about to: also while it loads."""
        return self._child.pid is not None

    @property
    def loaded(self) -> bool:
        pid = self._child.pid
        return pid is not None and pid == self._loaded_pid

    @property
    def idle(self) -> bool:
        """Whether nobody's question is being answered or waits."""
        return self._line.idle

    @property
    def info(self) -> EngineInfo:
        """What was loaded; loads when nothing was yet."""
        return self._info or self.load()

    def load(self) -> EngineInfo:
        """Have the model in memory; returns at once when it is.

        Raises BrokenModel, MissingBackend, OutOfMemory or a ChildError.
        """
        if not self.loaded:
            with self._line.turn():
                for _ in self._loading():
                    pass
        assert self._info is not None
        return self._info

    def stream(self, turns: Sequence[Turn], options: GenerationOptions) -> Iterator[Delta]:
        """Wait in line, then yield the answer as it grows; the last Delta carries the stats.

        While waiting yields Delta(queue_place=…), while nothing happens an empty Delta twice a second;
        raises Busy when sixteen wait already. Closing the iterator cancels: the child stops within
        one token or one prefill batch, and a load ends at once. Until it is closed or read to its
        end the iterator holds its turn, so read it briskly.
        """
        ticket = self._line.join()
        try:
            for place in self._line.wait(ticket):
                yield Delta(queue_place=place)
            if not self.loaded:
                if self._info is not None:
                    yield Delta(notice=LOADING_AGAIN)
                for _ in self._loading():
                    yield Delta()
            params = {
                "spec": asdict(self.spec),
                "turns": self._packed(turns),
                "options": asdict(options),
            }
            with contextlib.closing(self._child.stream("stream", params, ticks=True)) as frames:
                for frame, _ in frames:
                    if frame:
                        growth = frame.pop("growth", None)
                        delta = _delta(frame)
                        if growth and self._observe:
                            self._observe(self, Growth(**growth), delta.stats)
                        yield delta
        except OutOfMemory:
            self._end_child()
            raise
        finally:
            self.last_used = time.time()
            self._line.leave(ticket)

    def count_tokens(self, turns: Sequence[Turn], *, thinking: bool = True) -> int:
        """Exactly as many tokens as `stream` would read; does not wait for a running answer.

        `thinking` as in the options: a template may write other tokens without it.
        """
        asked = {"turns": self._packed(turns), "thinking": thinking}
        while True:
            self.load()
            child = self._child
            try:
                frame, _ = child.call("count", asked, timeout=COUNT_SECONDS)
            except ChildDied:
                if child is self._child:
                    raise
                continue  # unloaded in between
            if frame["tokens"] is not None:
                return int(frame["tokens"])

    def unload(self) -> None:
        """Give the memory back after the answers that run or wait; the next use loads again."""
        with self._line.turn():
            self.free()

    def free(self) -> None:
        """Give the memory back at once. Only for the holder of the line's turn."""
        self._end_child()

    def close(self) -> None:
        """End the process now, also in the middle of an answer; the worker cannot be used again."""
        self._closed = True
        self._child.close()

    def _loading(self) -> Iterator[None]:
        """Load in this worker's turn; yields while it lasts, and closing it gives the load up."""
        if self.loaded:
            return
        if self._make_room:
            self._make_room(self)
        start = time.monotonic()
        call = self._child.stream(
            "load", {"spec": asdict(self.spec)}, timeout=LOAD_SECONDS, ticks=True
        )
        try:
            with contextlib.closing(call) as frames:
                for frame, _ in frames:
                    if "tick" in frame:
                        yield
        except ChildDied as error:
            if error.values.get("detail") in _CRASHES:
                raise BrokenModel(error.values["detail"], name=self.spec.title) from error
            raise
        except (ChatbotError, GeneratorExit):
            self._end_child()  # what was half loaded must not keep its memory
            raise
        growth = Growth(**frame.pop("growth"))
        self._info = EngineInfo(**frame)
        self._loaded_pid = self._child.pid
        self.loaded_at = self.last_used = time.time()
        self.load_seconds = time.monotonic() - start
        if self._observe:
            self._observe(self, growth, None)

    def _end_child(self) -> None:
        self._child.close()
        self._loaded_pid = None
        if not self._closed:
            self._child = self._new_child()

    def _new_child(self) -> Child:
        return Child(
            "chatbot.engines.worker",
            self.spec.backend,
            name=self.spec.title,
            environment=_QUIET,
            hung_after=HUNG_AFTER,
            start_within=START_WITHIN,
        )

    def _packed(self, turns: Sequence[Turn]) -> list[dict[str, Any]]:
        if self.spec.backend == "extractive":
            return [asdict(turn) for turn in turns]
        return [{"role": turn.role, "text": turn.text} for turn in turns]


Observer = Callable[[EngineWorker, Growth, GenerationStats | None], None]
"""Told by a worker what its process takes by now, after an answer with that answer's stats."""


def _delta(frame: Event) -> Delta:
    if "tick" in frame:
        return Delta()
    stats = frame.pop("stats", None)
    return Delta(**frame, stats=GenerationStats(**stats) if stats else None)


# --- the child's side -----------------------------------------------------------------------


class Loaded(Protocol):
    """An engine as it lives in the child: it also asks, inside long work, whether to go on."""

    @property
    def info(self) -> EngineInfo: ...

    def stream(
        self, turns: Sequence[Turn], options: GenerationOptions, cancelled: Cancelled
    ) -> Iterator[Delta]: ...

    def count_tokens(self, turns: Sequence[Turn], *, thinking: bool) -> int: ...


_MODULES = {
    "extractive": ("chatbot.engines.extractive", "Extractive"),
    "llama_cpp": ("chatbot.engines.llama_cpp", "LlamaCpp"),
    "transformers": ("chatbot.engines.transformers", "Transformers"),
    "openai": ("chatbot.engines.openai", "OpenAI"),
}
_LIBRARIES = {"llama_cpp": ("llama_cpp",), "transformers": ("torch", "transformers")}


class _Room:
    """The child's one engine."""

    def __init__(self) -> None:
        self._engine: Loaded | None = None
        self._before = 0

    def load(self, request: Request) -> Event:
        with _named_errors(request.params["spec"]):
            return {**asdict(self._ready(request).info), "growth": self._growth()}

    def stream(self, request: Request) -> Event:
        turns = _turns(request)
        options = request.params["options"]
        options = GenerationOptions(**{**options, "stop": tuple(options["stop"])})
        with _named_errors(request.params["spec"]):
            for delta in self._ready(request).stream(turns, options, lambda: request.cancelled):
                frame = _packed_delta(delta)
                if delta.stats is not None:
                    frame["growth"] = self._growth()
                request.event(frame)
        return {}

    def count(self, request: Request) -> Event:
        # Never loads: only the holder of a turn may, and this runs beside the turns.
        engine = self._engine
        if engine is None:
            return {"tokens": None}
        thinking = request.params["thinking"]
        return {"tokens": engine.count_tokens(_turns(request), thinking=thinking)}

    def _ready(self, request: Request) -> Loaded:
        if self._engine is None:
            spec = EngineSpec(**request.params["spec"])
            module, name = _MODULES[spec.backend]
            self._before = resident()
            self._engine = getattr(import_module(module), name)(spec)
        assert self._engine is not None
        return self._engine

    def _growth(self) -> Event:
        return asdict(Growth(max(peak() - self._before, 0), allocated_on_gpu()))


def _turns(request: Request) -> list[Turn]:
    return [
        Turn(**{**turn, "sources": tuple(Source(**s) for s in turn.get("sources", ()))})
        for turn in request.params["turns"]
    ]


def _packed_delta(delta: Delta) -> Event:
    frame: Event = {}
    if delta.text:
        frame["text"] = delta.text
    if delta.progress is not None:
        frame["progress"] = delta.progress
    if delta.notice is not None:
        frame["notice"] = delta.notice
    if delta.stats is not None:
        frame["stats"] = asdict(delta.stats)
    return frame


@contextlib.contextmanager
def _named_errors(spec: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except ChatbotError:
        raise
    except MemoryError as error:
        raise OutOfMemory(name=EngineSpec(**spec).title) from error
    except Exception as error:
        log.exception("the engine failed")
        raise EngineError(f"{type(error).__name__}: {error}") from error


def main() -> None:
    """Serve one engine of the backend named on the command line."""
    # Imported before the first sign of life, which may take long; later silence means a hang.
    with contextlib.redirect_stdout(sys.stderr):
        for library in _LIBRARIES.get(sys.argv[1], ()):
            with contextlib.suppress(ImportError):  # said as MissingBackend by the engine's load
                import_module(library)
    room = _Room()
    serve({"load": room.load, "stream": room.stream, "count": room.count}, beside=("count",))


if __name__ == "__main__":
    main()
