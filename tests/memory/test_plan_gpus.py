"""Plans on PCs with no, one and many GPUs: what fits really fits, and more memory never makes it worse."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.engines import worker
from chatbot.engines.base import EngineSpec
from chatbot.hardware.detect import detect
from chatbot.hardware.nvidia import nvidia_gpus
from chatbot.memory.alternatives import Case, Variant, alternatives
from chatbot.memory.beside import after_ending, search_models
from chatbot.memory.explain import explain, fullness
from chatbot.memory.facts import ModelFacts
from chatbot.memory.outline import outlined
from chatbot.memory.plan import ROOMY_CONTEXT, Wishes, plan
from chatbot.memory.room import Beside, allowed, spare, spare_of
from chatbot.memory.spread import spread
from chatbot.services import spec_from
from chatbot.types import Evicted, Gpu, Hardware, MemoryPlan, ModelArtifact
from tests.fakes.nvidia import GIB, Card, fake_pynvml
from tests.fakes.nvidia import pc as cards_of
from tests.memory.test_footprint import llama
from tests.memory.test_plan import GB, card, pc, three_billion


def several(*free: float, total: float = 24) -> tuple[Gpu, ...]:
    return tuple(
        replace(card(size, max(size, total)), index=number) for number, size in enumerate(free)
    )


def seventy_billion(type_: str = "Q4_K_M") -> ModelFacts:
    """Llama-3.1-70B's geometry: 42 GB in Q4_K_M."""
    return outlined(llama(80, 8192, 64, 8, 128_256, feed_forward=28_672), type_)


def with_cards(monkeypatch: pytest.MonkeyPatch, cards: list[Card]) -> Hardware:
    """A PC that NVML tells these cards of."""
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml(cards))
    return replace(pc(64, 48), gpus=nvidia_gpus(), device="cuda" if nvidia_gpus() else "cpu")


def check(found: MemoryPlan, here: Hardware) -> None:
    """Every promise that a plan makes about bytes."""
    assert sum(found.parts.values()) == found.total
    by_card = sum(sum(share.parts.values()) for share in found.cards)
    assert by_card == sum(size for key, size in found.parts.items() if key.startswith("gpu_"))
    assert sum(share.layers for share in found.cards) == found.gpu_layers
    if not found.fits:
        return
    free = {(gpu.index): gpu for gpu in here.gpus}
    on_gpu = found.backend == "transformers" and found.cards
    for share in found.cards:
        gpu = free[share.index]
        spared = 0 if here.unified_memory else spare_of(gpu)
        growth = found.growth if on_gpu else 0
        assert sum(share.parts.values()) + growth <= gpu.free - spared
    main = found.total - (0 if here.unified_memory else by_card)
    assert main + (0 if on_gpu else found.growth) <= here.ram_available - spare(here)


# --- which cards ----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "cards"), [("none", 0), ("laptop", 1), ("two", 1), ("eight", 1)])
def test_a_model_takes_as_few_cards_as_hold_it(
    name: str, cards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = with_cards(monkeypatch, cards_of(name))
    found = plan(here, outlined(three_billion(), "Q4_K_M"))
    check(found, here)
    assert found.fits
    assert len(found.cards) == cards
    assert found.device == ("cuda" if cards else "cpu")
    if cards:
        roomiest = max(here.gpus, key=lambda gpu: gpu.free)
        assert found.cards[0].index == roomiest.index


def test_what_one_card_cannot_hold_is_spread_evenly_over_several() -> None:
    here = pc(64, 48, *several(22, 22, 20))
    found = plan(here, seventy_billion(), Wishes(context=8192))
    check(found, here)
    assert found.fits
    assert (found.device, found.gpu_layers) == ("cuda", 81)
    assert len(found.cards) == 3
    full = [sum(share.parts.values()) / share.free for share in found.cards]
    assert max(full) - min(full) < 0.15
    assert "Layers on each GPU" in found.reason
    assert "GPU" in explain(found, "vi")


def test_eight_cards_of_which_some_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    here = with_cards(monkeypatch, cards_of("eight"))
    found = plan(here, replace(outlined(seventy_billion(), "F16"), format="gguf"))
    check(found, here)
    assert found.fits
    assert found.device == "cuda"
    freest = sorted(here.gpus, key=lambda gpu: -gpu.free)[: len(found.cards)]
    assert {share.index for share in found.cards} == {gpu.index for gpu in freest}
    assert len(found.cards) == 2


def test_what_all_cards_together_cannot_hold_is_shared_with_the_cpu() -> None:
    here = pc(64, 56, *several(7.5, 5.5, total=8))
    found = plan(here, seventy_billion())
    check(found, here)
    assert found.device == "cuda+cpu"
    assert len(found.cards) == 2
    assert found.gpu_layers > plan(pc(64, 56, card(7.5)), seventy_billion()).gpu_layers


def test_transformers_keeps_to_one_card() -> None:
    found = plan(pc(64, 48, *several(5, 7)), three_billion("hf", "BF16"))
    assert found.device == "cpu"
    assert "shared by the 2 of this PC" in found.reason
    roomy = plan(pc(64, 48, *several(5, 12)), three_billion("hf", "BF16"))
    assert [share.index for share in roomy.cards] == [1]


def test_a_card_full_of_other_programs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    here = with_cards(monkeypatch, cards_of("full"))
    found = plan(here, outlined(three_billion(), "Q4_K_M"))
    assert (found.device, found.gpu_layers) == ("cpu", 0)
    assert "RTX 4070 has only 0.5 of 12.0 GB free" in found.reason
    busy = plan(
        with_cards(monkeypatch, [Card(total=8 * GIB, free=5 * GIB)]),
        outlined(three_billion(), "Q4_K_M"),
    )
    assert "Other programs hold 3.0 of the 8.0 GB on the GPU" in busy.reason


def test_a_card_that_vanishes_between_two_looks_is_no_longer_planned_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cards = [Card(total=24 * GIB, free=22 * GIB), Card(total=8 * GIB, free=7 * GIB)]
    before = with_cards(monkeypatch, cards)
    facts = outlined(three_billion(), "Q4_K_M")
    assert plan(before, facts).cards[0].index == 0
    cards[0].vanished = True
    after, gone = after_ending(before, "model", 1)  # asks the driver anew
    assert gone.gpu == 0
    assert len(after.gpus) == 2
    now = replace(before, gpus=nvidia_gpus())
    check(plan(now, facts), now)
    assert [share.name for share in plan(now, facts).cards] == [gpu.name for gpu in now.gpus]
    cards[1].vanished = True
    assert plan(replace(before, gpus=nvidia_gpus(), device="cpu"), facts).device == "cpu"
    assert detect().ram_total > 0


@pytest.mark.parametrize("total", [4, 6, 8, 12, 16, 24, 48, 80])
def test_cards_of_every_size(total: int) -> None:
    here = pc(64, 48, card(total * 0.95, total))
    for facts in (three_billion(), three_billion("hf", "BF16"), seventy_billion()):
        check(plan(here, facts), here)


def test_layers_are_never_lost_or_doubled() -> None:
    each = [{"weights": 10, "kv": 2, "buffers": 5, "runtime": 3}] * 7
    assert spread(each, [100, 100]) in ((4, 3), (3, 4))
    assert spread(each, [40, 80]) == (2, 5)
    assert spread(each, [7, 100]) == (0, 7)
    assert spread(each, [20, 30]) is None


def test_the_fullest_place_decides_how_tight_it_is() -> None:
    facts = outlined(three_billion(), "Q4_K_M")
    found = plan(pc(64, 48, card(4.5, 8)), facts)
    assert found.device == "cuda"
    assert fullness(found) == pytest.approx(sum(found.cards[0].parts.values()) / 4.5e9)
    on_cpu = plan(pc(64, 8), facts)
    assert fullness(on_cpu) == pytest.approx((on_cpu.total + on_cpu.growth) / 8e9)
    both = plan(pc(64, 48, card(2, 8)), facts)
    assert both.device == "cuda+cpu"
    assert fullness(both) < 0.2, "a card that is shared with the CPU is filled on purpose"


def test_cards_that_a_person_hides_from_cuda_are_not_planned_with() -> None:
    here = pc(64, 48, *several(22, 10))
    assert allowed(here, None) == here
    assert [gpu.index for gpu in allowed(here, "1").gpus] == [1]
    assert allowed(here, "").device == "cpu"
    assert allowed(here, "GPU-8a1f").gpus == here.gpus
    assert plan(allowed(here, "1"), three_billion()).cards[0].index == 1


# --- unified memory -------------------------------------------------------------------------


def test_apples_limit_for_the_gpu_holds_though_more_is_free() -> None:
    facts = outlined(llama(40, 5120, 40, 8, 128_256, feed_forward=13_824), "Q8_0")
    here = pc(24, 23, card(12, 18, kind="mps"))
    found = plan(here, facts, Wishes(context=8192))
    check(found, here)
    on_gpu = sum(size for key, size in found.parts.items() if key.startswith("gpu_"))
    assert on_gpu <= 12 * GB
    more = pc(24, 23, card(22, 22, kind="mps"))
    assert plan(more, facts, Wishes(context=8192)).gpu_layers > found.gpu_layers


# --- beside and instead ---------------------------------------------------------------------


def test_what_search_will_still_take_is_kept_free_and_said() -> None:
    facts = outlined(three_billion(), "Q4_K_M")
    alone = plan(pc(8, 4.2), facts)
    shared = plan(pc(8, 4.2), facts, beside=Beside(("bge-m3",), ram=1_000_000_000))
    assert alone.context > shared.context
    assert "0.9 GB are kept for searching your documents (bge-m3)" in shared.reason
    on_card = pc(32, 24, card(5, 8))
    assert plan(on_card, facts).device == "cuda"
    squeezed = plan(on_card, facts, beside=Beside(("bge-m3",), gpu=3_000_000_000))
    assert squeezed.device == "cuda+cpu"


def test_search_models_count_until_their_process_holds_them(tmp_path: Any) -> None:
    folder = tmp_path / "e5"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "xlm-roberta"}')
    (folder / "model.safetensors").write_bytes(bytes(3_000_000))
    here = pc(16, 12)
    waiting = search_models({"e5": folder}, None, here, on_gpu=False)
    assert waiting.names == ("e5",)
    assert waiting.ram > 3_000_000
    assert waiting.gpu == 0
    card_here = pc(16, 12, card(6))
    assert search_models({"e5": folder}, None, card_here, on_gpu=True).gpu > 3_000_000
    (folder / "config.json").write_text('{"model_type": "model2vec"}')
    assert search_models({"e5": folder}, None, here, on_gpu=False) == Beside()


def test_where_the_driver_does_not_tell_the_plan_of_the_loaded_model_says_what_comes_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts = outlined(three_billion(), "Q4_K_M")
    silent = [Card(total=8 * GIB, free=3 * GIB, processes=[(77, None)])]
    here = with_cards(monkeypatch, silent)
    loaded = plan(replace(here, gpus=(replace(here.gpus[0], free=7 * GIB),)), facts)
    freed, gone = after_ending(here, "Llama", 77, loaded)
    assert gone.gpu == sum(loaded.cards[0].parts.values())
    assert freed.gpus[0].free == here.gpus[0].free + gone.gpu
    silent[0].processes = [(77, 2 * GIB)]
    assert after_ending(here, "Llama", 77, loaded)[1].gpu == 2 * GIB


def test_what_makes_room_is_named_with_what_it_gives_back() -> None:
    found = plan(pc(), llama(), evicts=[Evicted("Qwen3-4B", 3 * GB, GB)])
    assert "Qwen3-4B makes room for it and gives back 3.7 GB" in found.reason


# --- the cache's type -----------------------------------------------------------------------


def test_the_cache_is_quantised_only_where_that_keeps_a_roomy_context_on_the_gpu() -> None:
    facts = outlined(three_billion(), "Q4_K_M")

    def on_card(free: float, **wishes: Any) -> MemoryPlan:
        return plan(pc(16, 12, card(free, 8)), facts, Wishes(**wishes))

    seen = [on_card(hundredths / 100) for hundredths in range(500, 250, -4)]
    stages = dict.fromkeys((found.device, found.kv_type) for found in seen)
    assert list(stages) == [("cuda", "f16"), ("cuda", "q8_0"), ("cuda+cpu", "f16")]
    assert min(found.context for found in seen) >= ROOMY_CONTEXT
    small = next(found for found in seen if found.kv_type == "q8_0")
    assert small.context == ROOMY_CONTEXT
    assert "in f16 only" in small.reason
    shorter = next(found for found in seen if found.context < 8192)
    assert shorter.kv_type == "f16"
    wished = on_card(shorter.free / GB, context=8192)
    assert (wished.device, wished.kv_type) == ("cuda", "q8_0"), "for the sake of a wish"
    assert on_card(small.free / GB, kv_type="f16").kv_type == "f16"
    odd = replace(facts, layers=tuple(replace(n, key_length=80) for n in facts.layers))
    assert plan(pc(16, 12, card(small.free / GB, 8)), odd).kv_type == "f16", "not of whole blocks"


def test_on_the_cpu_it_is_quantised_only_to_reach_a_roomy_context() -> None:
    facts = outlined(three_billion(), "Q4_K_M")
    seen = [plan(pc(8, hundredths / 100), facts) for hundredths in range(450, 260, -4)]
    fitting = [found for found in seen if found.fits]
    exact = [found for found in fitting if found.kv_type == "f16"]
    small = [found for found in fitting if found.kv_type == "q8_0"]
    assert fitting == exact + small
    assert min(found.context for found in exact) >= ROOMY_CONTEXT
    assert max(found.context for found in small) == ROOMY_CONTEXT
    assert "a third slower" in small[0].reason


# --- properties -----------------------------------------------------------------------------

GEOMETRIES = [
    three_billion(),
    outlined(three_billion(), "Q4_K_M"),
    three_billion("hf", "BF16"),
    llama(12, 1024, 16, 4, 32_000, feed_forward=4096),
    llama(6, 480, 6, 2, 5000, feed_forward=1280, tied=True),  # heads of 80: no quantised cache
    outlined(llama(40, 5120, 40, 8, 128_256, feed_forward=13_824), "Q6_K"),
]
PCS = st.builds(
    lambda ram, share, cards, unified: pc(
        ram,
        ram * share,
        *(
            (card(ram * share * 0.7, ram * 0.75, kind="mps"),)
            if unified
            else several(*cards, total=24)
        ),
    ),
    st.floats(4, 128),
    st.floats(0.05, 1),
    st.lists(st.floats(0, 24), max_size=4),
    st.booleans(),
)
FACTS = st.sampled_from(GEOMETRIES)


@settings(max_examples=120, deadline=None)
@given(here=PCS, facts=FACTS, context=st.none() | st.integers(256, 40_000))
def test_what_fits_stays_within_every_device(
    here: Hardware, facts: ModelFacts, context: int | None
) -> None:
    check(plan(here, facts, Wishes(context=context)), here)


def rank(found: MemoryPlan) -> tuple[Any, ...]:
    roomy = found.context >= min(ROOMY_CONTEXT, 4096)
    return found.fits, roomy, found.gpu_layers, found.context, found.kv_type != "q8_0"


@settings(max_examples=120, deadline=None)
@given(here=PCS, facts=FACTS, more=st.floats(0.1, 30), where=st.sampled_from(["ram", "gpu"]))
def test_more_free_memory_never_makes_a_worse_plan(
    here: Hardware, facts: ModelFacts, more: float, where: Any
) -> None:
    case = Case(here, facts)
    if where == "gpu" and not here.gpus:
        where = "ram"
    before, after = case.plan(), case.with_more(where, int(more * GB)).plan()
    assert rank(after) >= rank(before)


@settings(max_examples=60, deadline=None)
@given(here=PCS, facts=FACTS, context=st.none() | st.sampled_from([2048, 8192, 32_768]))
def test_every_alternative_fits_under_the_condition_it_names(
    here: Hardware, facts: ModelFacts, context: int | None
) -> None:
    case = Case(here, facts, Wishes(context=context))
    others: list[Variant] = []
    if facts.format == "gguf":
        others = [Variant(kind, outlined(facts, kind)) for kind in ("Q8_0", "Q4_K_M")]
    found = case.plan()
    offered = alternatives(case, found, others)
    assert len(offered) <= 4
    assert [one.more > 0 for one in offered] == sorted(one.more > 0 for one in offered)
    for one in offered:
        there = case
        if one.model:
            there = replace(case, facts=next(o.facts for o in others if o.model == one.model))
        there = there.with_more(one.place, one.more) if one.more else there
        again = there.wishing(**one.wishes).plan()
        assert again.fits
        assert (again.context, again.kv_type, again.gpu_layers) == (
            one.plan.context, one.plan.kv_type, one.plan.gpu_layers,
        )  # fmt: skip
        for language in ("vi", "en"):
            assert "{" not in one.words(language)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    here=PCS, context=st.integers(1, 32_768), kv_type=st.sampled_from(["f16", "q8_0", "q4_0"]),
    batch=st.sampled_from([64, 256, 2048]), layers=st.integers(-1, 40), threads=st.integers(1, 64),
)  # fmt: skip
def test_every_choice_is_kept_exactly(
    here: Hardware, context: int, kv_type: str, batch: int, layers: int, threads: int
) -> None:
    facts = outlined(three_billion(), "Q4_K_M")
    wishes = Wishes(context, kv_type, batch, "llama_cpp", layers, "Q4_K_M", threads)
    found = plan(here, facts, wishes)
    assert (found.context, found.kv_type, found.batch, found.threads) == (
        context, kv_type, batch, threads,
    )  # fmt: skip
    wanted = 29 if layers < 0 else min(layers, 29)
    assert found.gpu_layers == (wanted if here.gpus else 0)
    check(found, here)


def test_a_longer_context_for_fewer_layers_on_the_gpu_is_named() -> None:
    case = Case(pc(32, 24, card(3.2, 4)), outlined(three_billion(), "Q8_0"))
    found = case.plan()
    assert found.device == "cuda+cpu"
    fewer = alternatives(case, found)[0]
    assert fewer.plan.context == 16_384
    assert (
        fewer.words("en") == f"{fewer.plan.gpu_layers} layers on the GPU · context of 16,384 tokens"
    )


def test_the_alternatives_of_a_tight_pc_read_as_people_speak() -> None:
    facts = {kind: outlined(three_billion(), kind) for kind in ("Q8_0", "Q6_K", "Q4_K_M")}
    case = Case(pc(8, 4), facts["Q4_K_M"])
    words = [
        one.words("en")
        for one in alternatives(
            case, case.plan(), [Variant(kind, facts[kind]) for kind in ("Q6_K", "Q8_0")]
        )
    ]
    assert words[0] == "KV cache q8_0 (reads slower) · context of 16,384 tokens"
    assert any(
        text.startswith("With ") and "more free memory: context of" in text for text in words
    )


# --- the engine is told ----------------------------------------------------------------------


def test_a_child_sees_only_the_cards_of_its_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = plan(pc(64, 48, *several(20, 22, 5)), outlined(seventy_billion(), "Q2_K"))
    model = ModelArtifact("m", "gguf", "/m.gguf", "m", 1, linked=True, added_at=0.0)
    spec = spec_from(model, model, found)
    assert spec.cards == (1, 0)
    assert sum(spec.split) == spec.gpu_layers == 81
    seen = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1,0"}
    assert worker._seen(spec) == seen
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert worker._seen(spec) == {}, "a person's own choice"
    assert worker._seen(EngineSpec()) == {}
