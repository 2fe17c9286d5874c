"""The figures on a model's card: measured in the process that answers, beside what the plan promised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chatbot.engines.base import EngineSpec
from chatbot.engines.worker import EngineWorker
from chatbot.errors import Cancelled
from chatbot.hardware.detect import detect
from chatbot.memory.headers import read_model
from chatbot.memory.plan import Wishes, plan
from chatbot.models.bench import ROUNDS, bench
from chatbot.types import MemoryPlan


@pytest.fixture(scope="module")
def planned(tiny_gguf: Path) -> MemoryPlan:
    return plan(detect(), read_model(tiny_gguf), Wishes(context=2048, threads=1, gpu_layers=0))


@pytest.fixture
def worker(tiny_gguf: Path, planned: MemoryPlan) -> Iterator[EngineWorker]:
    made = EngineWorker(
        EngineSpec(backend="llama_cpp", path=str(tiny_gguf), context=planned.context, threads=1)
    )
    yield made
    made.close()


def test_a_bench_tells_speed_and_memory_and_leaves_nothing_loaded(
    worker: EngineWorker, planned: MemoryPlan
) -> None:
    told: list[float] = []
    figures = bench(lambda fraction, *_, **__: told.append(fraction), worker, planned)
    assert figures["rounds"] == ROUNDS
    assert 256 < figures["prompt_tokens"] <= 520
    assert figures["prefill_tokens_per_second"] > figures["decode_tokens_per_second"] > 0
    assert figures["seconds_to_first_token"] == pytest.approx(
        figures["prompt_tokens"] / figures["prefill_tokens_per_second"], rel=0.01
    )
    assert 1_000_000 < figures["peak_memory"] < 200_000_000
    assert figures["predicted"] == planned.total
    assert (figures["backend"], figures["precision"]) == ("llama_cpp", "F32")
    assert "gpu_memory" not in figures
    assert told == sorted(told)
    assert not worker.loaded


def test_a_bench_can_be_cancelled(worker: EngineWorker, planned: MemoryPlan) -> None:
    def stop(_fraction: float, message: str = "", **_values: Any) -> None:
        if message.startswith("Measuring"):
            raise Cancelled

    with pytest.raises(Cancelled):
        bench(stop, worker, planned)
    assert worker.idle
