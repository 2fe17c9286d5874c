"""How fast a model runs on this PC and what it takes: the figures on its card, beside the plan's promise."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager, closing
from dataclasses import asdict
from typing import Any

from chatbot.child import Child
from chatbot.engines.worker import EngineWorker
from chatbot.errors import ContextOverflow, EngineError
from chatbot.hardware.detect import detect
from chatbot.hardware.process import peak
from chatbot.i18n import N_
from chatbot.models.files import Report
from chatbot.types import GenerationOptions, GenerationStats, MemoryPlan, Turn

PROMPT, ANSWER, ROUNDS = 512, 128, 3
"""Tokens read and written in a round; of the rounds the middle one counts."""
LONG_ENOUGH = 120.0  # seconds after which no further round begins
_SAMPLED = 0.5  # seconds between two looks at the memory
_LINE = "Điều {n}. Sinh viên nộp học phí trước ngày {n} hằng tháng; the fee of room {n} is paid monthly.\n"
_LOADING, _MEASURING = N_("Loading the model"), N_("Measuring, round {part} of {parts}")
_TUNING = N_("Trying threads, batches and attention")


def bench(report: Report, worker: EngineWorker, plan: MemoryPlan) -> dict[str, Any]:
    """What the model does here, loaded afresh as `plan` says and left unloaded: a dict to keep.

    prefill_tokens_per_second, decode_tokens_per_second, seconds_to_first_token (of `prompt_tokens`),
    load_seconds, peak_memory and predicted (bytes the process grew by in main memory), gpu_memory and
    gpu_predicted where a GPU computes; with backend, precision, device, context, threads, rounds, at, and
    `tuned`, what a measurement found to suit the model (`EngineWorker.tune`), None where it did not measure.
    Raises what the engine raises, and Cancelled.
    """
    report(0.0, _LOADING)
    worker.unload()
    empty = _resident_when_empty(plan.backend)
    gpu_free = _gpu_free()
    started = time.monotonic()
    with _Sampler(worker) as sampler:
        worker.load()
        load_seconds = time.monotonic() - started
        prompt = _prompt(worker, min(PROMPT, plan.context // 2))
        rounds: list[GenerationStats] = []
        while len(rounds) < ROUNDS and time.monotonic() - started < LONG_ENOUGH:
            done = len(rounds)
            report((1 + done) / (1 + ROUNDS), _MEASURING, part=done + 1, parts=ROUNDS)
            rounds.append(_round(report, worker, prompt, done))
        most = sampler.peak()
    tuned = None
    if not plan.gpu_layers:
        tuned = worker.tune(lambda: report(0.95, _TUNING))  # the next load runs so
    worker.unload()
    rounds.sort(key=lambda stats: stats.seconds_to_first_token)
    middle = rounds[len(rounds) // 2]
    writing = sorted(stats.tokens_per_second for stats in rounds)[len(rounds) // 2]
    parts = plan.parts.items()
    figures = {
        "prefill_tokens_per_second": _rounded(
            (middle.prompt_tokens - middle.cached_tokens) / middle.seconds_to_first_token
        ),
        "decode_tokens_per_second": _rounded(writing),
        "seconds_to_first_token": round(middle.seconds_to_first_token, 4),
        "prompt_tokens": middle.prompt_tokens,
        "answer_tokens": middle.answer_tokens,
        "load_seconds": round(load_seconds, 3),
        "peak_memory": max(most - empty, 0),
        "predicted": sum(size for name, size in parts if not name.startswith("gpu_")),
        "backend": plan.backend,
        "precision": plan.precision,
        "device": plan.device,
        "context": plan.context,
        "threads": plan.threads,
        "rounds": len(rounds),
        "tuned": asdict(tuned) if tuned else None,
        "at": time.time(),
    }
    if plan.gpu_layers:
        figures["gpu_memory"] = max(gpu_free - sampler.gpu_free, 0)
        figures["gpu_predicted"] = sum(size for name, size in parts if name.startswith("gpu_"))
    return figures


def _round(report: Report, worker: EngineWorker, prompt: str, number: int) -> GenerationStats:
    # Another beginning each time: what the model remembers of the round before must not help it.
    turns = [Turn("user", f"({number}) {prompt}")]
    options = GenerationOptions(
        temperature=0.0, repeat_penalty=1.0, max_tokens=ANSWER, thinking=False
    )
    stats: GenerationStats | None = None
    stream: Any = worker.stream(turns, options)  # a generator, which can be closed
    with closing(stream) as deltas:
        for delta in deltas:
            report((1 + number) / (1 + ROUNDS), _MEASURING, part=number + 1, parts=ROUNDS)
            stats = delta.stats or stats
    if stats is None:
        raise EngineError("stats")
    return stats


def _prompt(worker: EngineWorker, tokens: int) -> str:
    """Text of about that many tokens, chat template and all."""

    def text(lines: int) -> str:
        return "".join(_LINE.format(n=n) for n in range(1, lines + 1))

    low, high = 1, max(tokens // 8, 2)
    while low < high:
        middle = (low + high + 1) // 2
        if worker.count_tokens([Turn("user", f"(0) {text(middle)}")]) <= tokens:
            low = middle
        else:
            high = middle - 1
    if worker.count_tokens([Turn("user", text(low))]) >= 2 * tokens:
        raise ContextOverflow(needed=2 * tokens, context=tokens)
    return text(low)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


# --- memory ---------------------------------------------------------------------------------


def _resident_when_empty(backend: str) -> int:
    """Bytes of a worker that imported its libraries and loaded nothing."""
    child = Child("chatbot.engines.worker", backend, start_within=120.0)
    try:
        child.call("count", {"turns": [], "thinking": True})
        return peak(child.pid)
    finally:
        child.close(grace=0.0)


def _gpu_free() -> int:
    return sum(gpu.free for gpu in detect().gpus)


class _Sampler(AbstractContextManager["_Sampler"]):
    """Looks at the worker's memory while it loads and answers."""

    def __init__(self, worker: EngineWorker) -> None:
        self._worker = worker
        self._most = 0
        self.gpu_free = _gpu_free()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="bench", daemon=True)

    def __enter__(self) -> _Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def peak(self) -> int:
        """The most bytes seen until now; ask while the worker still runs."""
        self._look()
        return self._most

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLED):
            self._look()

    def _look(self) -> None:
        self._most = max(self._most, peak(self._worker.pid))
        self.gpu_free = min(self.gpu_free, _gpu_free())
