"""Which threads, batch and attention suit a model on this PC: measured once, on the loaded model.

Only for what the CPU computes. A context of its own is made beside the conversation's, a short prompt
read and a few tokens written in several ways, and each way compared with the usual one. What is not
clearly better stays as it is, and what there is no time for is not tried.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

import psutil

from chatbot.engines.base import Cancelled, never
from chatbot.engines.give_way import TAKEN, OtherPrograms
from chatbot.errors import Cancelled as CancelledError
from chatbot.errors import EngineError
from chatbot.hardware.process import physical_cores
from chatbot.types import Tuned

SECONDS = 30.0
"""About as long as it takes at most: a billion weights on two cores, 25 s (docs/benchmarks.md)."""
DEPTH = 512
"""Tokens that stand in the cache while tokens are written."""
CONTEXT = DEPTH + 256
"""Tokens of the context that is made for it."""
BATCHES = (512, 256, 128)
"""Tokens read at once, the usual number first; 64 and 1,024 lost everywhere (docs/benchmarks.md)."""
WORTH = 0.03
"""What differs by less is noise, and the usual way stays."""
READ, WRITTEN = 1000, 200
"""Tokens of a usual answer: reading and writing are weighed by what they take of its time."""
_WARM_UP, _TRIED, _SHORTER = 16, 64, 256
_EVERY_TRIAL = 3 * DEPTH + 2 * _TRIED
_LEAST, _MOST, _WRITE_SECONDS = 4, 16, 0.7
_LOOK_SECONDS = 0.5
_ABORTED = 2

Report = Callable[[float], None]
Speed = tuple[float, float]
"""Tokens per second, read and written."""


def thread_counts(physical: int, logical: int, fast: int | None = None) -> list[int]:
    """The numbers of threads worth trying, the usual one first: physical, fast, half and logical cores."""
    wanted = (physical, fast or physical, max(physical // 2, 1), max(logical, physical))
    return list(dict.fromkeys(wanted))


def best_of(speeds: Mapping[int, float]) -> int:
    """The fastest where it beats the usual one, which is named first, by more than noise."""
    usual = next(iter(speeds))
    fastest = max(speeds, key=lambda way: speeds[way])
    return fastest if speeds[fastest] > speeds[usual] * (1 + WORTH) else usual


def flash_pays(plain: Speed, flash: Speed) -> bool:
    """Whether flash attention makes a usual answer clearly faster."""

    def seconds(speed: Speed) -> float:
        return READ / speed[0] + WRITTEN / speed[1]

    return seconds(flash) < seconds(plain) * (1 - WORTH)


def measure(
    library: Any, model: Any, report: Report = lambda _: None, cancelled: Cancelled = never
) -> Tuned | None:
    """What suits this model of llama.cpp's here; None while other programs keep cores busy, which falsifies it.

    Raises Cancelled, within one step of llama.cpp, and EngineError.
    """
    try:
        return _measured(library, model, report, cancelled)
    except _Disturbed:
        return None


def _measured(library: Any, model: Any, report: Report, cancelled: Cancelled) -> Tuned:
    started, quiet = time.monotonic(), _Quiet()
    time.sleep(_LOOK_SECONDS)
    quiet.look()
    threads = thread_counts(physical_cores(), _logical_cores(), _fast_cores())
    with _Trial(library, model, cancelled, quiet, flash=False) as trial:
        trial.read(_WARM_UP, _WARM_UP, threads[0])
        tried = {count: trial.read(_TRIED, _TRIED, count) for count in threads}
        reading = best_of(tried)
        depth = min(DEPTH, max(int(tried[reading] * SECONDS / 4), _TRIED))
        report(0.1)
        read = {BATCHES[0]: trial.read(depth, BATCHES[0], reading, after=0)}
        report(0.4)
        written = {count: trial.write(count) for count in threads}
        if _EVERY_TRIAL / tried[reading] < SECONDS:
            middle = (DEPTH - _SHORTER) // 2  # as many tokens before each, on average
            for size in BATCHES[1:]:
                read[size] = trial.read(_SHORTER, size, reading, after=middle)
    report(0.7)
    batch, writing = best_of(read), best_of(written)
    plain = read[batch], written[writing]
    with _Trial(library, model, cancelled, quiet, flash=True) as trial:
        trial.read(_WARM_UP, _WARM_UP, reading)
        flash = trial.read(depth, batch, reading, after=0), trial.write(writing)
    pays = flash_pays(plain, flash)
    prefill, decode = flash if pays else plain
    return Tuned(
        threads=writing,
        threads_batch=reading,
        batch=batch,
        flash=pays,
        decode=decode,
        prefill=prefill,
        plain_decode=written[threads[0]],
        plain_prefill=read[BATCHES[0]],
        seconds=time.monotonic() - started,
        at=time.time(),
    )


class _Disturbed(Exception):
    """Other programs kept a core busy meanwhile."""


class _Quiet:
    """Looks after each trial whether others kept a core busy: one second of it can turn a comparison round."""

    def __init__(self) -> None:
        self._others = OtherPrograms()
        self._looked = time.monotonic()

    def look(self) -> None:
        """Raises _Disturbed; says nothing of moments too short to tell."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            if self._others.busy() >= TAKEN:
                raise _Disturbed


class _Trial:
    """A context of its own, beside the conversation's."""

    def __init__(
        self, library: Any, model: Any, cancelled: Cancelled, quiet: _Quiet, *, flash: bool
    ) -> None:
        self._c = c = library
        self._cancelled = cancelled
        self._quiet = quiet
        params = c.llama_context_default_params()
        params.n_ctx = CONTEXT
        params.n_batch = params.n_ubatch = BATCHES[0]
        params.no_perf = True
        params.flash_attn_type = (
            c.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else c.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        self._context = c.llama_init_from_model(model, params)
        if not self._context:
            raise EngineError("llama_init_from_model")
        self._memory = c.llama_get_memory(self._context)
        self._vocabulary = c.llama_vocab_n_tokens(c.llama_model_get_vocab(model))
        self._never_abort = c.ggml_abort_callback()
        self._abort = c.ggml_abort_callback(lambda _data: cancelled())
        self._next = 0

    def __enter__(self) -> _Trial:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._c.llama_free(self._context)

    def read(self, tokens: int, piece: int, threads: int, after: int | None = None) -> float:
        """Tokens per second of reading so many, so many at once; `after` that many of those read before."""
        if after is not None and not self._c.llama_memory_seq_rm(self._memory, 0, after, -1):
            self._c.llama_memory_clear(self._memory, False)  # noqa: FBT003 - a C function
        self._c.llama_set_n_threads(self._context, threads, threads)
        self._c.llama_set_abort_callback(self._context, self._abort, None)
        started = time.perf_counter()
        for start in range(0, tokens, piece):
            self._decode(min(piece, tokens - start))
        seconds = time.perf_counter() - started
        self._quiet.look()
        return tokens / seconds

    def write(self, threads: int) -> float:
        """Tokens per second of writing, by the token in the middle."""
        self._c.llama_set_n_threads(self._context, threads, threads)
        # Asked in each step, Python would slow the writing down.
        self._c.llama_set_abort_callback(self._context, self._never_abort, None)
        seconds: list[float] = []
        self._decode(1)
        while len(seconds) < _LEAST or (sum(seconds) < _WRITE_SECONDS and len(seconds) < _MOST):
            started = time.perf_counter()
            self._decode(1)
            seconds.append(time.perf_counter() - started)
        self._quiet.look()
        return 1 / median(seconds)

    def _decode(self, count: int) -> None:
        if self._cancelled():
            raise CancelledError
        # Any tokens will do, but not the same one again and again: a mixture of experts would read but a few.
        first, self._next = self._next, self._next + count
        tokens = ((number * 7919) % self._vocabulary for number in range(first, first + count))
        array = (ctypes.c_int32 * count)(*tokens)
        code = self._c.llama_decode(self._context, self._c.llama_batch_get_one(array, count))
        if code == _ABORTED:
            raise CancelledError
        if code:
            raise EngineError(f"llama_decode: {code}")


def _logical_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return psutil.cpu_count() or 1


def _fast_cores() -> int | None:
    """The performance cores of a processor that has slow ones too; None where that is not told."""
    try:
        told = Path("/sys/devices/cpu_core/cpus").read_text("ascii").strip()
    except OSError:
        return None
    threads = 0
    for part in told.split(","):  # such as 0-11,14
        first, _, last = part.partition("-")
        threads += int(last or first) - int(first) + 1
    logical, physical = psutil.cpu_count() or 1, physical_cores()
    # Each of them may run two threads, the slow ones run one: performance cores are what is left over.
    doubled = logical - physical
    return doubled or threads
