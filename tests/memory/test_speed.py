"""How fast a plan will write: what was measured, kept for this PC, divided by what must be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from chatbot.database import Database
from chatbot.hardware.speeds import Speeds, measure_speeds
from chatbot.memory.facts import Tensor
from chatbot.memory.outline import outlined
from chatbot.memory.plan import Wishes, plan
from chatbot.memory.reading import read_per_token
from chatbot.memory.speed import (
    OF_A_CORE_EXACT,
    OF_A_CORE_QUANTISED,
    OF_ALL_CORES,
    REACHED,
    keep,
    kept,
    kept_in,
    tokens_per_second,
)
from tests.memory.test_footprint import llama
from tests.memory.test_plan import card, pc, three_billion

SLOW = Speeds(at=1.0, seconds=3.0, memory=10e9, matmul=1e11)
CARD = Speeds(at=2.0, seconds=3.0, memory=10e9, matmul=1e11, gpu="RTX", gpu_memory=250e9)


def test_the_weights_are_read_once_for_each_token() -> None:
    on_cpu = plan(pc(32, 24), three_billion())
    found = tokens_per_second(on_cpu, SLOW)
    assert found == pytest.approx(REACHED * 10e9 / on_cpu.reads["ram"])
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


CORES = replace(SLOW, memory=40e9, core_memory=12e9)


def test_unpacking_quantised_weights_keeps_few_cores_busy_and_the_memory_idle() -> None:
    facts = {kind: outlined(three_billion(), kind) for kind in ("F16", "Q4_K_M")}
    gguf = replace(facts["F16"], format="gguf")
    for threads, exact, quantised in (
        (1, 12e9 * OF_A_CORE_EXACT, 12e9 * OF_A_CORE_QUANTISED),
        (2, 24e9 * OF_A_CORE_EXACT, 24e9 * OF_A_CORE_QUANTISED),
        (16, 40e9 * OF_ALL_CORES, 40e9 * OF_ALL_CORES),
    ):
        for one, rate in ((gguf, exact), (facts["Q4_K_M"], quantised)):
            found = plan(pc(32, 24), one, Wishes(threads=threads))
            assert tokens_per_second(found, CORES) == pytest.approx(rate / found.reads["ram"])


def test_a_long_conversation_is_read_again_for_every_token() -> None:
    found = plan(pc(32, 24), outlined(three_billion(), "Q4_K_M"), Wishes(context=32_768))
    empty, full = (tokens_per_second(found, CORES, filled) for filled in (0.0, 1.0))
    assert empty
    assert full
    assert full / empty == pytest.approx(
        found.reads["ram"] / (found.reads["ram"] + found.parts["kv"])
    )


def test_a_mixture_of_experts_reads_those_it_asks() -> None:
    def tensor(name: str, elements: int) -> Tensor:
        return Tensor(name, (elements,), "F16", 2 * elements)

    tensors = (
        tensor("token_embd.weight", 1000), tensor("output.weight", 1000),
        tensor("blk.0.attn_q.weight", 100), tensor("blk.0.ffn_up_exps.weight", 8000),
        tensor("blk.1.ffn_gate_inp.weight", 10), tensor("blk.1.ffn_down_exps.weight", 8000),
    )  # fmt: skip
    facts = replace(llama(2), tensors=tensors, experts=8, experts_used=2)
    assert read_per_token(facts) == {"ram": 2 * (1000 + 100 + 2000 + 10 + 2000)}
    assert read_per_token(facts, 2) == {"ram": 2 * 2100, "gpu": 2 * (1000 + 2010)}
    assert read_per_token(facts, 3, 4) == {"gpu": 4 * (1000 + 100 + 2000 + 10 + 2000)}
    tied = replace(facts, tied=True, tensors=tensors[:1] + tensors[2:])
    assert read_per_token(tied) == read_per_token(facts), "the table is the output, too"


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
    assert found.core_memory
    assert found.core_memory < 2 * found.memory
    assert 1e8 < found.matmul < 1e15
    assert found.gpu_memory is None
