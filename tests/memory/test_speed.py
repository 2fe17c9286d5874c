"""How fast a plan will write: what was measured, kept for this PC, divided by what must be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatbot.database import Database
from chatbot.hardware.speeds import Speeds, measure_speeds
from chatbot.memory.plan import plan
from chatbot.memory.speed import REACHED, keep, kept, kept_in, tokens_per_second
from tests.memory.test_plan import card, pc, three_billion

SLOW = Speeds(at=1.0, seconds=3.0, memory=10e9, matmul=1e11)
CARD = Speeds(at=2.0, seconds=3.0, memory=10e9, matmul=1e11, gpu="RTX", gpu_memory=250e9)


def test_the_weights_are_read_once_for_each_token() -> None:
    on_cpu = plan(pc(32, 24), three_billion())
    found = tokens_per_second(on_cpu, SLOW)
    assert found == pytest.approx(REACHED * 10e9 / on_cpu.parts["weights"])
    assert tokens_per_second(on_cpu, None) is None


def test_layers_on_the_card_are_read_faster_and_those_left_over_hold_it_up() -> None:
    whole = plan(pc(32, 24, card(11, 12)), three_billion())
    part = plan(pc(32, 24, card(4, 12)), three_billion())
    assert part.device == "cuda+cpu"
    speeds = [
        tokens_per_second(one, CARD) for one in (whole, part, plan(pc(32, 24), three_billion()))
    ]
    assert all(speeds)
    assert speeds == sorted(speeds, reverse=True)  # type: ignore[type-var]
    assert tokens_per_second(whole, SLOW) is None, "the card was not measured"


def test_figures_belong_to_one_pc(tmp_path: Path) -> None:
    database = Database(tmp_path / "hearth.db")
    keep(database, "here", SLOW)
    keep(database, "here", CARD)
    assert kept(database, "here") == kept_in(database.file, "here") == CARD
    assert kept(database, "elsewhere") is None
    assert kept_in(tmp_path / "none.db", "here") is None
    database.close()


def test_this_pc_is_measured_in_a_child() -> None:
    found = measure_speeds(on_gpu=False)
    assert 1e8 < found.memory < 1e13
    assert 1e8 < found.matmul < 1e15
    assert found.gpu_memory is None
