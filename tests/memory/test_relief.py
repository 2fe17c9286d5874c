"""What helps when memory ran out: always truly less in the place that ran out, the least harm first."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.errors import ChatbotError, OutOfMemory
from chatbot.memory.alternatives import Case
from chatbot.memory.plan import Wishes, plan
from chatbot.memory.relief import Cure, Other, cures_of, need, quotes, relieve
from chatbot.models.ladder import as_quantised
from chatbot.types import MemoryPlan
from tests.memory.test_footprint import llama
from tests.memory.test_plan import card, pc, three_billion

ON_CPU = pc(32, 28)
WITH_CARD = pc(32, 28, card(7.5))


def kinds(found: tuple[Cure, ...]) -> list[str]:
    return [cure.kind for cure in found]


def relieved(
    hardware, facts, place="ram", phase="prefill", failed: MemoryPlan | None = None, **more
):
    failed = failed or plan(hardware, facts)
    return relieve(failed, Case(hardware, facts), "m", place=place, phase=phase, **more)


def test_reading_is_helped_by_smaller_pieces_first() -> None:
    found = relieved(ON_CPU, three_billion())
    assert kinds(found) == ["batch", "kv", "context"]
    assert found[0].wishes["batch"] == 128
    assert "128" in found[0].text("en")
    assert "128" in found[0].text("vi")


def test_loading_on_the_processor_is_not_helped_by_smaller_pieces_first() -> None:
    assert kinds(relieved(ON_CPU, three_billion(), phase="load")) == ["kv", "context", "batch"]


def test_on_a_card_fewer_layers_and_then_the_processor_help_too() -> None:
    found = relieved(WITH_CARD, three_billion(), place="gpu", phase="load")
    assert kinds(found)[-1] == "cpu"
    assert kinds(found).index("layers") < kinds(found).index("context")
    layers = next(cure for cure in found if cure.kind == "layers")
    assert 0 < layers.wishes["gpu_layers"] < 29


def test_a_model_folder_on_a_card_has_no_layers_to_take_down_and_no_cache_to_quantise() -> None:
    hardware = pc(32, 28, card(11, 12))
    found = relieved(hardware, three_billion("hf", "BF16"), place="gpu", phase="decode")
    assert kinds(found) == ["context", "cpu"]


def test_a_cache_whose_rows_do_not_fill_blocks_is_not_quantised() -> None:
    facts = three_billion()
    narrow = replace(facts, layers=tuple(replace(n, key_length=40) for n in facts.layers))
    assert "kv" not in kinds(relieved(ON_CPU, narrow))


def test_the_smaller_version_goes_before_another_model_and_one_on_disk_before_one_to_be_made() -> (
    None
):
    small, tiny = as_quantised(three_billion(), "Q4_K_M"), llama(16, 2048, 32, 8, 128_256)
    others = [
        Other("other", tiny, "Llama 1B"),
        Other("version", small, "3B Q4", same=True),
        Other("source", as_quantised(three_billion(), "Q8_0"), "3B", same=True, type="Q8_0"),
    ]
    found = relieved(ON_CPU, three_billion(), others=others)
    assert [(cure.kind, cure.model_id) for cure in found[-2:]] == [
        ("version", "version"),
        ("model", "other"),
    ]
    found = relieved(ON_CPU, three_billion(), others=others[::2])
    assert [(cure.kind, cure.model_id) for cure in found[-2:]] == [
        ("make", "source"),
        ("model", "other"),
    ]
    assert "Q8_0" in found[-2].text("vi")


def test_what_does_not_fit_what_is_free_now_is_not_offered() -> None:
    failed = plan(ON_CPU, three_billion())
    assert relieved(pc(32, 3), three_billion(), failed=failed) == ()


def test_each_time_it_goes_further_down_until_only_quotations_are_left() -> None:
    facts, hardware = three_billion(), ON_CPU
    failed, needed = plan(hardware, facts), []
    while found := relieved(hardware, facts, failed=failed):
        needed.append(need(failed, "ram"))
        failed = plan(hardware, facts, Wishes(**found[0].wishes))
    assert len(needed) >= 4
    assert all(after < before for before, after in pairwise(needed))


@settings(max_examples=60)
@given(
    layers=st.integers(1, 40),
    heads=st.sampled_from([4, 8, 32]),
    free=st.floats(1, 30),
    on_card=st.floats(1, 24),
    place=st.sampled_from(["ram", "gpu"]),
    phase=st.sampled_from(["load", "prefill", "decode"]),
    format_=st.sampled_from(["gguf", "hf"]),
)
def test_every_way_needs_less_where_memory_ran_out_and_says_how_much(
    layers, heads, free, on_card, place, phase, format_
) -> None:
    type_ = "F16" if format_ == "gguf" else "BF16"
    facts = llama(layers, heads * 64, heads, heads, 32_000, type_=type_, format_=format_)
    hardware = pc(32, free, card(on_card, 24))
    failed = plan(hardware, facts)
    before = need(failed, place)
    for cure in relieved(hardware, facts, place, phase, failed):
        found = plan(hardware, facts, Wishes(**cure.wishes))
        assert found.fits
        assert cure.needs == need(found, place)
        assert cure.saves == before - cure.needs > 0


def test_a_cure_and_its_error_survive_being_stored() -> None:
    cures = [*relieved(ON_CPU, three_billion()), quotes("extractive")]
    error = OutOfMemory(
        "SIGKILL", name="3B", phase="prefill", place="ram", freed={"ram": [9 << 30, 1 << 30]}
    )
    error.add(cures=[cure.to_dict() for cure in cures])
    back = ChatbotError.from_json(error.to_json())
    assert isinstance(back, OutOfMemory)
    assert list(cures_of(back)) == cures
    assert "9.0 GB then, 1.0 GB now" in back.text("en")
    assert "lúc đó 9,0 GB, bây giờ 1,0 GB" in back.text("vi")
    assert "128" in back.text("vi")


@pytest.mark.parametrize("language", ["en", "vi"])
def test_every_kind_has_its_words_and_its_price(language) -> None:
    from chatbot.memory.relief import LABELS, PRICES, WORDS

    assert WORDS.keys() == PRICES.keys() == LABELS.keys()
    for kind, words in WORDS.items():
        cure = Cure(
            kind,
            "m",
            words=words,
            values={"old": "512", "new": "128", "name": "N", "type": "Q4_K_M"},
        )
        said = cure.text(language) + cure.label(language) + cure.price(language)
        assert "{" not in said + (cure.notice(language) if kind != "make" else "")
