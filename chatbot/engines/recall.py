"""When what llama.cpp has read is worth keeping on disk, and when it is worth taking back from there."""

from __future__ import annotations

import logging
import math
import threading
import time
from array import array
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from chatbot.engines.base import EngineSpec, Transcript
from chatbot.engines.states import (
    SHARED,
    Facts,
    State,
    StateFolder,
    common,
    digest_of,
    name_of,
    shared_name,
)
from chatbot.settings import sync

log = logging.getLogger(__name__)

LEAST = 32
"""Tokens; fewer are read again rather than kept or fetched."""
PAYS = 0.5
"""Fetching must take at most this part of the time that reading would."""
SLOW_DISK = 200e6
SLOW_READING = 50.0
"""Bytes and tokens a second, until they were measured."""
TELLING = 4_000_000
"""Bytes; how long less takes to fetch says nothing of the disk."""


class Reader(Protocol):
    """What this needs of the engine: the KV cache, and what stands in it."""

    whole_states: bool
    """True for recurrent models and sliding windows: there a state serves whole or not at all."""

    @property
    def read(self) -> Sequence[int]:
        """The tokens that stand in the KV cache."""
        ...

    @property
    def size(self) -> int:
        """The context's length in tokens."""
        ...

    def state_size(self) -> int:
        """Bytes that the state of what was read takes."""
        ...

    def save(self, file: Path) -> bool:
        """Write what was read into that file; False when that failed."""
        ...

    def restore(self, file: Path, tokens: Sequence[int]) -> bool:
        """Have these tokens read, from that file; False leaves the KV cache empty."""
        ...


class Recall:
    """Keeps the states of one loaded model. One thread reads, writes and keeps; any may `forget`."""

    def __init__(self, engine: Reader, transcript: Transcript, facts: Facts) -> None:
        self._reading = 0.0
        self._engine = engine
        self._transcript = transcript
        self._facts = facts
        self._folder: StateFolder | None = None
        self._limit = 0
        self._states: list[State] = []
        self._disk = 0.0
        self._conversation = ""
        self._text = ""
        self._prompt: Sequence[int] = ()
        self._answer: Sequence[int] = ()
        self._writing = ""
        self._writer: threading.Thread | None = None
        self._lock = threading.Lock()

    def use(self, folder: str, limit: int) -> None:
        """Keep states in this folder, `limit` bytes at most; "" keeps nothing."""
        self._limit = limit
        if folder and (self._folder is None or self._folder.path != Path(folder)):
            self._folder = StateFolder(Path(folder))
            Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._look()
            for state in self._states:
                answer = state.tokens[state.prompt :]
                self._transcript.remember(state.text, state.tokens[: state.prompt], answer)
        if not folder:
            self._folder, self._states = None, []

    # --- around one answer

    def bring(self, conversation: str, prompt: Sequence[int]) -> int:
        """Have read as much of the prompt as pays; returns how many tokens of it came from disk.

        What stands in memory is kept first where another conversation's tokens would be lost.
        """
        if self._folder is None:
            self._conversation = ""
            return 0
        read = self._engine.read
        here = common(read, prompt)
        if conversation != self._conversation and len(read) - here >= LEAST:
            self.keep()
        self._conversation, self._text, self._prompt, self._answer = conversation, "", (), ()
        self._look()
        known = prompt[:-1]  # the last one makes the logits
        while best := self._best(known, here):
            if self._restored(best):
                return self._usable(best, known)
            here = common(self._engine.read, prompt)
        return 0

    def pause(self, prompt: Sequence[int], shared: int, cached: int) -> int:
        """Where reading should pause for `keep_shared`, as `shared` tokens are worth keeping; else 0."""
        if not self._conversation or shared - cached < LEAST:
            return 0
        beginning = prompt[:shared]
        there = any(
            s.name.startswith(SHARED) and common(s.tokens, beginning) == shared
            for s in self._states
        )
        return 0 if there else shared

    def keep_shared(self) -> None:
        """Write down what was read, which is what many conversations begin with."""
        read = list(self._engine.read)
        self._keep(shared_name(read, self._facts), "", read, (), math.inf)

    def note(self, tokens: int, seconds: float) -> None:
        """So many tokens were read in so many seconds."""
        if tokens >= LEAST and seconds > 0:
            self._reading = tokens / seconds

    def ended(self, text: str, prompt: Sequence[int], answer: Sequence[int]) -> None:
        """The rendered prompt, its tokens and those of the answer that now stand in memory."""
        self._text, self._prompt, self._answer = text, prompt, answer

    # --- at rest

    def keep(self, within: float = math.inf) -> None:
        """Write down what stands in memory, if it belongs to a conversation and is not on disk yet.

        A write that would take longer than `within` seconds is not begun.
        """
        if self._folder is None or not self._conversation or not self._text:
            return
        name = name_of(self._conversation, self._facts)
        read = self._engine.read
        there = max(
            (common(s.tokens[: s.held], read) for s in self._states if s.name == name), default=0
        )
        if len(read) - there >= LEAST:
            self._keep(name, self._text, self._prompt, self._answer, within)

    def settle(self, timeout: float | None = None) -> None:
        """Wait until what is being written is safe on disk."""
        if self._writer:
            self._writer.join(timeout)

    def forget(self, conversations: Collection[str] | None) -> None:
        """Remove the states of these conversations, and write none of what stands in memory; None: of all."""
        with self._lock:
            gone = conversations is None or self._conversation in conversations
            if gone:
                self._conversation = ""
            names = {name_of(one, self._facts) for one in conversations or ()}
            if gone or self._writing in names or self._writing.startswith(SHARED):
                self._writing = ""
            if self._folder:
                self._folder.forget(conversations)

    # --- deciding

    def _best(self, prompt: Sequence[int], here: int) -> State | None:
        """The state that saves most time beside the `here` tokens that are in memory; None when none does."""
        gains = [(self._saved_seconds(s, self._usable(s, prompt) - here), s) for s in self._states]
        seconds, best = max(gains, key=lambda gain: gain[0], default=(0.0, None))
        return best if seconds > 0 else None

    def _usable(self, state: State, prompt: Sequence[int]) -> int:
        if state.held > self._engine.size:
            return 0
        same = common(state.tokens[: state.held], prompt)
        return same if same == state.held or not self._engine.whole_states else 0

    def _saved_seconds(self, state: State, gain: int) -> float:
        """What fetching this state saves of the time that reading `gain` tokens takes."""
        if gain < LEAST:
            return 0.0
        measured = (s.reading for s in reversed(self._states) if s.reading)  # before a restart
        reading = self._reading or next(measured, SLOW_READING)
        disk = self._disk or max(state.disk, SLOW_DISK)
        return PAYS * gain / reading - state.size / disk

    def _look(self) -> None:
        if self._folder:
            with self._lock:
                self._states = self._folder.states(self._facts)

    # --- files

    def _restored(self, state: State) -> bool:
        assert self._folder is not None
        start = time.perf_counter()
        if self._folder.sound(state) and self._engine.restore(
            self._folder.file(state), state.tokens[: state.held]
        ):
            if state.size >= TELLING:
                self._disk = state.size / (time.perf_counter() - start)
            return True
        log.warning("a state on disk could not be used and was removed")
        self._folder.drop(state.name)
        self._states = [other for other in self._states if other.name != state.name]
        return False

    def _keep(
        self,
        name: str,
        text: str,
        prompt: Sequence[int],
        answer: Sequence[int],
        within: float,
    ) -> None:
        assert self._folder is not None
        read, size = list(self._engine.read), self._engine.state_size()
        tokens = [*prompt, *answer]
        if size > self._limit or read != tokens[: len(read)]:
            return
        reading = self._reading or SLOW_READING
        seconds = size / (self._disk or SLOW_DISK)
        if seconds > within or seconds > PAYS * len(read) / reading:
            return
        self.settle()
        with self._lock:
            if not self._conversation:  # forgotten meanwhile
                return
            self._writing = name
        start = time.perf_counter()
        file = self._folder.temporary(name)
        if not self._engine.save(file):
            file.unlink(missing_ok=True)
            return
        state = State(
            name=name,
            text=text,
            prompt=len(prompt),
            tokens=array("i", tokens),
            held=len(read),
            size=0,
            digest="",
            reading=self._reading,
        )
        # Making it safe takes longer than writing it, and the next answer need not wait for that.
        self._writer = threading.Thread(
            target=self._finish, args=(self._folder, state, start), daemon=True
        )
        self._writer.start()

    def _finish(self, folder: StateFolder, state: State, start: float) -> None:
        file = folder.temporary(state.name)
        try:
            file.chmod(0o600)
            sync(file)
            size = file.stat().st_size
            state = replace(
                state,
                size=size,
                digest=digest_of(file),
                disk=size / (time.perf_counter() - start),
            )
            with self._lock:
                if self._writing == state.name:  # else it was forgotten meanwhile
                    folder.put(state, self._facts)
            folder.trim(self._limit)
        except OSError as error:
            log.warning("a state could not be kept: %s", error)
        finally:
            file.unlink(missing_ok=True)
        self._look()


def facts_of(spec: EngineSpec, library: str, context: int) -> Facts:
    """All that must be the same for a state of this model to mean the same.

    `context` is its length where positions are stretched by it, else 0.
    """
    facts: Facts = {"path": spec.path, "adapter": spec.adapter}
    for name, path in (("model", spec.path), ("lora", spec.adapter)):
        stat = Path(path).stat() if path else None
        facts[name] = [stat.st_size, stat.st_mtime_ns] if stat else None
    # With flash attention the values lie in memory the other way round.
    flash = spec.flash or ("auto" if spec.gpu_layers else "off")
    return facts | {
        "kv_type": spec.kv_type,
        "flash": "on" if spec.kv_type != "f16" else flash,
        "library": library,
        "context": context,
    }
