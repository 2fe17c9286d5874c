"""What was measured on this PC, in the plan: used where nobody wished otherwise, its memory promised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from chatbot.database import Database
from chatbot.memory import tuning
from chatbot.memory.explain import explain
from chatbot.memory.footprint import llama_cpp_footprint
from chatbot.memory.plan import Wishes, plan
from chatbot.types import Tuned
from tests.memory.test_plan import card, pc, three_billion

TUNED = Tuned(3, 4, 256, True, 12.0, 80.0, 11.0, 70.0, 9.5, 1e9)


def test_what_was_measured_is_planned_and_its_memory_promised():
    facts = three_billion()
    found = plan(pc(32, 24), facts, Wishes(context=4096, measured=TUNED))
    assert (found.threads, found.threads_batch, found.batch, found.flash) == (3, 4, 256, "on")
    assert not found.steady
    expected = llama_cpp_footprint(facts, 4096, batch=256, flash=True)
    assert found.total == expected.total("ram")
    assert found.total < plan(pc(32, 24), facts, Wishes(context=4096)).total
    assert "3 threads write, 4 read 256 tokens at once, with flash" in explain(found, "en")
    plain = plan(pc(32, 24), facts, Wishes(measured=replace(TUNED, flash=False)))
    assert plain.flash == "off"
    assert "without flash" in explain(plain, "en")


def test_a_wish_always_wins():
    wishes = Wishes(batch=128, threads=2, flash=False, measured=TUNED)
    found = plan(pc(32, 24), three_billion(), wishes)
    assert (found.threads, found.batch, found.flash) == (2, 128, "off")
    assert found.threads_batch in (0, 2)
    assert found.steady


def test_a_quantised_cache_needs_flash_attention_whatever_was_measured():
    slow = replace(TUNED, flash=False)
    found = plan(pc(32, 24), three_billion(), Wishes(kv_type="q8_0", measured=slow))
    assert found.flash != "off"


def test_what_the_cpu_was_measured_with_is_not_used_on_a_gpu():
    found = plan(pc(32, 24, card(20, 24)), three_billion(), Wishes(measured=TUNED))
    if found.gpu_layers:
        assert (found.threads_batch, found.flash, found.batch) == (0, "", 512)
    folder = plan(pc(32, 24), three_billion("hf", "BF16"), Wishes(measured=TUNED))
    assert (folder.threads_batch, folder.flash) == (0, "")


@pytest.fixture
def database(tmp_path: Path):
    opened = Database(tmp_path / "hearth.db")
    yield opened
    opened.close()


def test_kept_for_each_machine_shape_and_build(database):
    shape = tuning.shape(three_billion())
    tuning.keep(database, "this PC", shape, "0.3.36 abc", TUNED)
    assert tuning.kept(database, "this PC", shape, "0.3.36 abc") == TUNED
    assert tuning.kept(database, "another", shape, "0.3.36 abc") is None
    assert tuning.kept(database, "this PC", shape, "0.3.37 abc") is None
    newer = replace(TUNED, threads=2)
    tuning.keep(database, "this PC", shape, "0.3.36 abc", newer)
    assert tuning.kept(database, "this PC", shape, "0.3.36 abc") == newer


def test_fine_tuned_weights_share_what_was_measured_and_another_type_does_not():
    facts = three_billion()
    assert tuning.shape(replace(facts, name="mine", path="/x")) == tuning.shape(facts)
    assert tuning.shape(facts) != tuning.shape(replace(facts, quantisation="Q4_K_M"))


def test_the_build_is_named_without_loading_it():
    assert tuning.build().startswith("0.")
