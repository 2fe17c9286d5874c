"""One engine in a process of its own: it may die, hang or run out of memory without taking Hearth along.

Parent side: `EngineWorker`, an Engine. Child side: `main`, which loads one engine and answers
`load`, `stream` and `count`. Questions wait in a `Line`, first come first served.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Any, Protocol

from chatbot.child import Child, Event, Handler, Request, serve
from chatbot.engines.base import Cancelled, EngineSpec
from chatbot.engines.exhaustion import Witness, names_memory, place_of
from chatbot.errors import (
    BrokenModel,
    Busy,
    ChatbotError,
    ChildDied,
    ChildError,
    EngineError,
    MemoryPhase,
    OutOfMemory,
)
from chatbot.hardware.process import allocated_on_gpu, peak, resident
from chatbot.i18n import N_
from chatbot.types import (
    Delta,
    EngineInfo,
    GenerationOptions,
    GenerationStats,
    Growth,
    Source,
    Tuned,
    Turn,
)

log = logging.getLogger(__name__)

LOADING_AGAIN = N_("The model is being loaded again.")
PLACES = 16
HUNG_AFTER = 7.0
START_WITHIN = 120.0
TOGETHER_SECONDS = 0.05
"""Importing torch from a slow disk takes this long at worst."""
LOAD_SECONDS = 1800.0
COUNT_SECONDS = 60.0
KEEP_SECONDS, LAST_SECONDS = 3.0, 0.8
"""To write what was read before a model is unloaded, and before Hearth ends."""
REST_SECONDS = 20.0
"""Without a question, until what was read is written: whoever goes on has mostly asked again by then."""
DETAIL_LENGTH = 300
_CRASHES = frozenset(["SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE"])
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "GGML_NO_BACKTRACE": "1",  # llama.cpp would call a debugger before it ends: slow, and without memory in vain
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

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for the one whose turn it is."""
        return len(self._tickets) > 1

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
    `observe` hears after each load and each answer what the process takes; `exhausted` hears of each
    OutOfMemory before it is raised, when the process is gone, and may add what would help; `tuned` hears
    what `tune` measured.
    """

    def __init__(
        self,
        spec: EngineSpec,
        line: Line | None = None,
        make_room: Callable[[EngineWorker], None] | None = None,
        observe: Observer | None = None,
        exhausted: Exhausted | None = None,
        tuned: Callable[[EngineSpec, Tuned], None] | None = None,
        states: States = lambda: ("", 0),
    ) -> None:
        self.spec = spec
        self.loaded_at = 0.0
        self.load_seconds = 0.0
        self.last_used = 0.0
        self._line = line or Line()
        self._make_room = make_room
        self._observe = observe
        self._exhausted = exhausted
        self._tuned = tuned
        self._states = states
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
                "states": self._states(),
            }
            call = self._child.stream("stream", params, ticks=True)
            with self._memory_told("prefill") as witness, contextlib.closing(call) as frames:
                for frame, _ in frames:
                    if frame:
                        growth = frame.pop("growth", None)
                        delta = _delta(frame)
                        if growth and self._observe:
                            self._observe(self, Growth(**growth), delta.stats)
                        if delta.text or delta.progress == 1.0:
                            witness.phase = "decode"
                        yield delta
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
                with self._memory_told("prefill"):
                    frame, _ = child.call("count", asked, timeout=COUNT_SECONDS)
            except ChildDied:
                if child is self._child:
                    raise
                continue  # unloaded in between
            if frame["tokens"] is not None:
                return int(frame["tokens"])

    def tune(self, report: Callable[[], None] = lambda: None) -> Tuned | None:
        """Measure on the loaded model which threads, batch and attention suit it; the next load may use them.

        Takes its turn in the line and gives up at once when a question comes, or `report`, asked twice a
        second, raises. None then, where no model of llama.cpp is loaded, and where other programs keep the
        processor busy.
        """
        with self._line.turn():
            if not self.loaded or self.spec.backend != "llama_cpp":
                return None
            told: Event = {}
            call = self._child.stream("tune", ticks=True)
            with self._memory_told("prefill"), contextlib.closing(call) as frames:
                for told, _ in frames:  # noqa: B007 - the last one tells
                    report()
                    if self._line.awaited:
                        return None
            tuned = Tuned(**told["tuned"]) if told["tuned"] else None
        if tuned and self._tuned:
            self._tuned(self.spec, tuned)
        return tuned

    def unload(self) -> None:
        """Give the memory back after the answers that run or wait; the next use loads again."""
        with self._line.turn():
            self.free()

    def free(self) -> None:
        """Give the memory back at once. Only for the holder of the line's turn."""
        self._keep(KEEP_SECONDS)
        self._end_child()

    def close(self) -> None:
        """End the process now, also in the middle of an answer; the worker cannot be used again."""
        self._closed = True
        if self.idle:
            self._keep(LAST_SECONDS)
        self._child.close()

    def forget(self, conversations: Collection[str] | None) -> None:
        """Keep nothing more of these conversations on disk; None: of all."""
        if self.loaded:
            asked = {"conversations": None if conversations is None else list(conversations)}
            with contextlib.suppress(ChildError):  # what it held went with it
                self._child.call("forget", asked, timeout=COUNT_SECONDS)

    def _keep(self, seconds: float) -> None:
        """Have what was read written to disk, if that is not done yet and takes no longer."""
        if self.loaded and self._states()[0]:
            with contextlib.suppress(ChildError):  # then it is read again
                self._child.call("keep", {"seconds": seconds}, timeout=seconds)

    def _loading(self) -> Iterator[None]:
        """Load in this worker's turn; yields while it lasts, and closing it gives the load up."""
        if self.loaded:
            return
        if self._make_room:
            self._make_room(self)
        start = time.monotonic()
        asked = {"spec": asdict(self.spec), "states": self._states()}
        call = self._child.stream("load", asked, timeout=LOAD_SECONDS, ticks=True)
        try:
            with self._memory_told("load"), contextlib.closing(call) as frames:
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

    @contextlib.contextmanager
    def _memory_told(self, phase: MemoryPhase) -> Iterator[Witness]:
        """Every end for want of memory in here becomes OutOfMemory; the process and its memory are gone by then."""
        child, began = self._child, time.monotonic()
        with Witness(lambda: child.pid, phase, gpus=self.spec.gpu_layers != 0) as witness:
            try:
                yield witness
            except (OutOfMemory, ChildDied) as error:
                cause, said = str(error.values.get("detail", "")), ""
                if isinstance(error, ChildDied):
                    said = child.last_words(since=began)
                    if not witness.ran_out(cause, said):
                        raise
                witness.look()
                pid = child.pid
                if child is self._child:
                    self._end_child()
                told = self._told(witness.phase, cause, said)
                told.add(freed=witness.freed(pid))
                if self._exhausted:
                    self._exhausted(self, told)
                raise told from error

    def _told(self, phase: MemoryPhase, cause: str, said: str) -> OutOfMemory:
        named = next((line for line in said.splitlines() if names_memory(line)), "")
        detail = f"{cause}: {named}" if named else cause
        # Libraries that do not say whose memory it was use the graphics card's where they can.
        on_gpu = self.spec.gpu_layers != 0 and (not detail or place_of(detail) == "gpu")
        return OutOfMemory(
            detail[:DETAIL_LENGTH],
            name=self.spec.title,
            model_id=self.spec.model_id,
            phase=phase,
            place="gpu" if on_gpu else "ram",
        )

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
            environment={**_QUIET, **_seen(self.spec)},
            hung_after=HUNG_AFTER,
            start_within=START_WITHIN,
            keep_words=True,
        )

    def _packed(self, turns: Sequence[Turn]) -> list[dict[str, Any]]:
        if self.spec.backend == "extractive":
            return [asdict(turn) for turn in turns]
        return [{"role": turn.role, "text": turn.text} for turn in turns]


Exhausted = Callable[[EngineWorker, OutOfMemory], None]
"""Told by a worker that memory ran out under it, once its process has ended."""
Observer = Callable[[EngineWorker, Growth, GenerationStats | None], None]
"""Told by a worker what its process takes by now, after an answer with that answer's stats."""
States = Callable[[], tuple[str, int]]
"""The folder for what was read and the bytes it may take; ("", 0) keeps nothing."""


def _delta(frame: Event) -> Delta:
    if "tick" in frame:
        return Delta()
    stats = frame.pop("stats", None)
    return Delta(**frame, stats=GenerationStats(**stats) if stats else None)


def _seen(spec: EngineSpec) -> dict[str, str]:
    """Let CUDA see only the plan's GPUs, in its order and by the driver's numbers; a person's own choice stays."""
    if not spec.cards or "CUDA_VISIBLE_DEVICES" in os.environ:
        return {}
    numbers = ",".join(map(str, spec.cards))
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": numbers}


# --- the child's side -----------------------------------------------------------------------


class Recall(Protocol):
    """What an engine keeps on disk of what it read."""

    def use(self, folder: str, limit: int) -> None: ...

    def keep(self, within: float = ...) -> None: ...

    def settle(self) -> None: ...

    def forget(self, conversations: Collection[str] | None) -> None: ...


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


class _Bundle:
    """Sends text at most twenty times a second: each frame wakes a process, and writing wants every core."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._text = ""
        self._sent_at = 0.0

    def send(self, frame: Event) -> None:
        """Send the frame; text alone waits for more of it, but the first."""
        if frame.keys() != {"text"}:
            self.flush()
            self._request.event(frame)
            return
        self._text += frame["text"]
        if time.monotonic() - self._sent_at >= TOGETHER_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send the text that waits."""
        if self._text:
            self._request.event({"text": self._text})
            self._text, self._sent_at = "", time.monotonic()


class _Room:
    """The child's one engine."""

    def __init__(self) -> None:
        self._engine: Loaded | None = None
        self._before = 0
        self._grown_by_tuning = False

    def load(self, request: Request) -> Event:
        with _named_errors():
            return {**asdict(self._ready(request).info), "growth": self._growth()}

    def stream(self, request: Request) -> Event:
        turns = _turns(request)
        options = request.params["options"]
        options = GenerationOptions(**{**options, "stop": tuple(options["stop"])})
        with _named_errors():
            bundle = _Bundle(request)
            try:
                for delta in self._ready(request).stream(turns, options, lambda: request.cancelled):
                    frame = _packed_delta(delta)
                    if delta.stats is not None and not self._grown_by_tuning:
                        frame["growth"] = self._growth()
                    bundle.send(frame)
            finally:
                bundle.flush()  # what was written counts, however it ended
        return {}

    def keep(self, request: Request) -> Event:
        if self._recall:
            self._recall.keep(within=request.params["seconds"])
            self._recall.settle()
        return {}

    def forget(self, request: Request) -> Event:
        if self._recall:
            self._recall.forget(request.params["conversations"])
        return {}

    def rest(self) -> None:
        if self._recall:
            self._recall.keep()

    @property
    def _recall(self) -> Recall | None:
        return getattr(self._engine, "recall", None)

    def tune(self, request: Request) -> Event:
        engine = self._engine
        if engine is None or not hasattr(engine, "tune"):
            return {"tuned": None}
        self._grown_by_tuning = True  # from now on the peak is not the conversation's
        with _named_errors():
            tuned = engine.tune(
                lambda done: request.event({"progress": done}), lambda: request.cancelled
            )
        return {"tuned": asdict(tuned) if tuned else None}

    def count(self, request: Request) -> Event:
        # Never loads: only the holder of a turn may, and this runs beside the turns.
        engine = self._engine
        if engine is None:
            return {"tokens": None}
        thinking = request.params["thinking"]
        with _named_errors():
            return {"tokens": engine.count_tokens(_turns(request), thinking=thinking)}

    def _ready(self, request: Request) -> Loaded:
        if self._engine is None:
            spec = EngineSpec(**request.params["spec"])
            module, name = _MODULES[spec.backend]
            self._before = resident()
            self._engine = getattr(import_module(module), name)(spec)
        assert self._engine is not None
        if self._recall:
            self._recall.use(*request.params["states"])
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
def _named_errors() -> Iterator[None]:
    """Whatever the engine raises as a ChatbotError; what says that memory ran out as OutOfMemory."""
    try:
        yield
    except OutOfMemory:
        raise
    except ChatbotError as error:  # such as a file that could not be mapped, said to be broken
        if names_memory(str(error.values.get("detail", ""))):
            raise OutOfMemory(error.values["detail"]) from error
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        if names_memory(said):
            raise OutOfMemory(said[:DETAIL_LENGTH]) from error
        log.exception("the engine failed")
        raise EngineError(said) from error


def main() -> None:
    """Serve one engine of the backend named on the command line."""
    # Imported before the first sign of life, which may take long; later silence means a hang.
    with contextlib.redirect_stdout(sys.stderr):
        for library in _LIBRARIES.get(sys.argv[1], ()):
            with contextlib.suppress(ImportError):  # said as MissingBackend by the engine's load
                import_module(library)
    room = _Room()
    handlers: dict[str, Handler] = {
        "load": room.load,
        "stream": room.stream,
        "count": room.count,
        "tune": room.tune,
        "keep": room.keep,
        "forget": room.forget,
    }
    serve(handlers, beside=("count", "forget"), at_rest=(REST_SECONDS, room.rest))


if __name__ == "__main__":
    main()
