"""What is recommended before any model is here: sizes that the plan itself says run well."""

from __future__ import annotations

import pytest

from chatbot.hardware.detect import Installed
from chatbot.memory.plan import ROOMY_CONTEXT, plan
from chatbot.memory.recommend import HALF, USUAL, recommend, recommend_text, usual
from chatbot.types import Gpu
from tests.memory.test_plan import card, pc

EVERYTHING = Installed()


@pytest.mark.parametrize("billions", USUAL)
def test_usual_sizes_are_of_that_size(billions: float) -> None:
    assert usual(billions, HALF).parameters / 1e9 == pytest.approx(billions, rel=0.16)


@pytest.mark.parametrize("total", [4, 6, 8, 12, 16, 24, 48, 80])
def test_what_is_recommended_runs_wholly_on_the_card_as_the_plan_says(total: float) -> None:
    here = pc(32, 24, card(total * 0.93, total))
    best = recommend(here, EVERYTHING)
    assert best
    kind = HALF if best.precision == "f16" else best.precision
    found = plan(here, usual(best.billions, kind))
    assert found.fits
    assert found.device == "cuda"
    assert found.context >= ROOMY_CONTEXT
    assert best.backend == found.backend


def test_a_larger_card_never_gets_a_smaller_model_or_a_less_exact_one() -> None:
    ranks = {"Q4_K_M": 0, "Q5_K_M": 1, "Q6_K": 2, "Q8_0": 3, "f16": 4}
    last = (0.0, 0)
    for total in (4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 80):
        best = recommend(pc(32, 24, card(total * 0.93, total)), EVERYTHING)
        assert best
        now = (best.billions, ranks[best.precision])
        assert now >= last
        last = now


def test_without_a_gpu_four_bits_that_nobody_waits_for() -> None:
    best = recommend(pc(128, 100), EVERYTHING)
    assert best
    assert (best.backend, best.precision, best.billions, best.device) == (
        "llama_cpp", "Q4_K_M", 8, "RAM",
    )  # fmt: skip
    small = recommend(pc(8, 4), EVERYTHING)
    assert small
    assert small.billions < 8
    assert recommend(pc(4, 0.5), EVERYTHING) is None
    assert "documents" in recommend_text(pc(4, 0.5), "en")


def test_a_library_that_is_not_here_is_not_recommended() -> None:
    here = pc(32, 24, card(23, 24))
    assert recommend(here, Installed(llama_cpp_gpu=False)).backend == "transformers"  # type: ignore[union-attr]
    only_cpu = recommend(here, Installed(llama_cpp_gpu=False, transformers_gpu=False))
    assert only_cpu
    assert only_cpu.device == "RAM"


def test_apples_memory_is_one_pool_with_a_limit() -> None:
    roomy: Gpu = card(17, 18, kind="mps")
    best = recommend(pc(24, 20, roomy), EVERYTHING)
    assert best
    assert best.needs <= 17e9
