"""Predicted against measured: what is kept, what is learnt from it, and how plans change by it."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chatbot.database import Database
from chatbot.engines.base import EngineSpec
from chatbot.engines.host import EngineHost
from chatbot.memory.calibration import ENOUGH, LEAST, MOST, Calibration, Load, learnt, recorded
from chatbot.memory.explain import explain
from chatbot.memory.plan import plan
from chatbot.types import GenerationOptions, GenerationStats, Growth, MemoryPlan, Turn
from tests.fakes import Card, fake_pynvml
from tests.memory.test_plan import card, pc, three_billion
from tests.tiny_models import tiny_gguf, tiny_hf

__all__ = ["tiny_gguf", "tiny_hf"]

GB = 10**9
WHOLE = GenerationStats(prompt_tokens=600, answer_tokens=40)
CPU = plan(pc(32, 24), three_billion())
GPU = plan(pc(32, 24, card(11, 12)), three_billion())


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "hearth.db")
    yield opened
    opened.close()


def load(ratio: float, planned: MemoryPlan = CPU, **changes: object) -> Load:
    """A load that measured `ratio` times what was predicted."""
    made = Load(1, 0.0, "m", planned, 0, None, gpu_runtime=True, read=600, kept=planned.batch)
    made = replace(made, **changes)  # type: ignore[arg-type]
    return replace(made, ram=int(made.predicted_in("ram") * ratio))


def test_a_load_is_kept_with_what_was_predicted_and_measured(database: Database) -> None:
    kept = Calibration(database, "this PC")
    kept.note(100.0, "Llama", CPU, 1, Growth(7 * GB))
    kept.note(200.0, "Llama", CPU, 1, Growth(6 * GB))
    kept.note(200.0, "Llama", CPU, 1, Growth(8 * GB), WHOLE)
    newest, oldest = kept.loads()
    assert (newest.ram, newest.read, newest.kept) == (8 * GB, 600, 640)
    assert newest.complete
    assert not oldest.complete, "it read nothing yet, so its buffers were not in use"
    assert newest.plan == CPU
    assert newest.gpu is None
    assert newest.error == pytest.approx(newest.predicted / (8 * GB) - 1)
    assert kept.load_at(100.0) == oldest
    assert Calibration(database, "another PC").loads() == []


def test_a_conversation_that_fills_the_context_counts_as_predicted() -> None:
    full = load(1.0, kept=CPU.context)
    assert CPU.growth > 0
    assert full.predicted == CPU.total + CPU.growth
    assert load(1.0, kept=0).predicted == CPU.total


def test_five_loads_that_agree_correct_the_plan() -> None:
    (found,) = learnt([load(1.08) for _ in range(ENOUGH)])
    assert found.applied
    assert found.factor == pytest.approx(1.08, abs=1e-6)
    assert (found.backend, found.place) == ("llama_cpp", "ram")
    corrected = plan(pc(32, 24), three_billion(), corrections={"llama_cpp/ram": found.factor})
    assert corrected.total == pytest.approx(CPU.total * 1.08, rel=1e-6)
    assert corrected.parts["weights"] == CPU.parts["weights"], "those are read from the header"
    assert sum(corrected.parts.values()) == corrected.total
    assert "+8 %" in explain(corrected, "en")
    assert plan(pc(32, 24), three_billion(), corrections={"transformers/ram": 1.2}) == CPU


def test_what_was_corrected_once_is_not_forgotten_or_doubled() -> None:
    corrected = plan(pc(32, 24), three_billion(), corrections={"llama_cpp/ram": 1.08})
    (found,) = learnt([load(1.0, corrected) for _ in range(ENOUGH)])
    assert found.factor == pytest.approx(1.08, abs=1e-3)


@pytest.mark.parametrize(
    "ratios",
    [
        [1.2] * (ENOUGH - 1),  # too few
        [0.8, 1.3, 1.0, 1.6, 0.7, 1.2],  # they do not agree
        [1.004] * 8,  # not worth a word
    ],
)
def test_nothing_is_corrected_on_thin_grounds(ratios: list[float]) -> None:
    (found,) = learnt([load(ratio) for ratio in ratios])
    assert not found.applied


def test_one_odd_load_among_many_changes_little_and_bounds_hold() -> None:
    (steady,) = learnt([load(r) for r in (1.05, 3.0, 1.05, 1.05, 1.05, 1.05)])
    assert steady.factor == pytest.approx(1.05, abs=1e-6)
    assert learnt([load(2.0)] * 6)[0].factor == MOST
    assert learnt([load(0.5)] * 6)[0].factor == LEAST


def test_loads_that_read_no_whole_batch_teach_nothing() -> None:
    assert learnt([load(1.2, read=CPU.batch - 1)] * 9) == []


def test_a_card_is_measured_by_the_driver_and_learnt_apart(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Calibration(database, "this PC")
    on_card = load(1.0, GPU).predicted_in("gpu")
    monkeypatch.setitem(
        sys.modules, "pynvml", fake_pynvml([Card(processes=[(77, int(on_card * 1.1)), (1, GB)])])
    )
    for number in range(ENOUGH):
        kept.note(float(number), "m", GPU, 77, Growth(load(1.0, GPU).ram), WHOLE)
    assert kept.loads()[0].gpu == int(on_card * 1.1)
    assert kept.factors() == {"llama_cpp/gpu": pytest.approx(1.1, abs=1e-3)}
    less = plan(pc(32, 24, card(8, 12)), three_billion(), corrections=kept.factors())
    assert less.gpu_layers <= plan(pc(32, 24, card(8, 12)), three_billion()).gpu_layers
    assert less.learnt["gpu"] == pytest.approx(1.1, abs=1e-3)


def test_torchs_allocator_does_not_see_the_cuda_context(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml([Card(processes=[(77, None)])]))
    kept = Calibration(database, "this PC")
    kept.note(1.0, "m", GPU, 77, Growth(GB, 6 * GB), WHOLE)
    (only,) = kept.loads()
    assert only.gpu == 6 * GB
    whole = replace(only, gpu_runtime=True).predicted_in("gpu")
    assert only.predicted_in("gpu") == whole - GPU.parts["gpu_runtime"]


def test_a_real_worker_tells_what_it_takes(database: Database, tiny_gguf: Path) -> None:
    kept = Calibration(database, "this PC")
    spec = EngineSpec("llama_cpp", name="tiny", path=str(tiny_gguf), context=1024)
    host = EngineHost(
        lambda worker, growth, stats: kept.note(
            worker.loaded_at, worker.spec.title, CPU, worker.pid or 0, growth, stats
        )
    )
    try:
        worker = host.use(spec)
        (loaded,) = kept.loads()
        assert 0 < loaded.ram < GB
        assert not loaded.read
        list(worker.stream([Turn("user", "Xin chào")], GenerationOptions(max_tokens=4)))
        (answered,) = kept.loads()
        assert answered.id == loaded.id
        assert answered.ram >= loaded.ram
        assert answered.kept > answered.read > 0
    finally:
        host.close()


def test_the_record_is_read_without_owning_the_folder(database: Database, tmp_path: Path) -> None:
    Calibration(database, "this PC").note(1.0, "m", CPU, 1, Growth(GB))
    assert [one.model for one in recorded(database.file, "this PC")] == ["m"]
    assert recorded(tmp_path / "none.db", "this PC") == []
    with sqlite3.connect(tmp_path / "old.db") as old:
        old.execute("CREATE TABLE other (x)")
    assert recorded(tmp_path / "old.db", "this PC") == []


def test_a_plan_of_another_version_is_still_read(database: Database) -> None:
    kept = Calibration(database, "this PC")
    kept.note(1.0, "m", CPU, 1, Growth(GB))
    row = database.row("SELECT plan FROM loads")
    assert row
    older = {**json.loads(row["plan"]), "gone": 1}
    del older["learnt"]
    database.execute("UPDATE loads SET plan = ?", (json.dumps(older),))
    assert kept.loads()[0].plan == CPU
