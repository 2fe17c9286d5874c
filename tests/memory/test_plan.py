from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.errors import MissingBackend, ModelError, SettingsError
from chatbot.hardware.detect import Installed
from chatbot.memory.explain import PART_NAMES, WHERE, explain
from chatbot.memory.facts import ModelFacts
from chatbot.memory.plan import Wishes, plan, to_dict
from chatbot.types import Gpu, Hardware
from tests.memory.test_footprint import llama

GB = 10**9
SHOWN = 1 << 30
"""What people are told in."""


def pc(
    ram: float = 16, free: float = 12, *gpus: Gpu, flags: tuple[str, ...] = ("avx2",)
) -> Hardware:
    return Hardware(
        device=gpus[0].kind if gpus else "cpu",  # type: ignore[arg-type]
        gpus=gpus, ram_total=int(ram * GB), ram_available=int(free * GB), swap_total=0, swap_used=0,
        cores=8, cores_physical=4, cpu_name="CPU", cpu_flags=flags, cpu_load=5.0,
        disk_total=GB, disk_free=GB, system="Linux", unified_memory=any(g.kind == "mps" for g in gpus),
    )  # fmt: skip


def card(free: float, total: float = 8, *, bf16: bool = True, kind: Any = "cuda") -> Gpu:
    return Gpu(
        index=0, name="RTX 4060", kind=kind, total=int(total * GB), free=int(free * GB), bf16=bf16
    )


def three_billion(format_: str = "gguf", type_: str = "F16") -> ModelFacts:
    """Llama-3.2-3B's geometry: 6.4 GB in 16 bits, 115 kB of cache a token."""
    return llama(
        28, 3072, 24, 8, 128_256, feed_forward=8192, type_=type_, tied=True, format_=format_
    )


def test_a_folder_runs_in_16_bits_on_a_gpu_that_has_the_free_memory() -> None:
    found = plan(pc(16, 12, card(11, 12)), three_billion("hf", "BF16"))
    assert (found.backend, found.device, found.precision) == ("transformers", "cuda", "bf16")
    assert found.fits
    assert found.context == 8192
    old = plan(pc(16, 12, card(11, 12, bf16=False)), three_billion("hf", "BF16"))
    assert old.precision == "fp16"


def test_free_memory_decides_not_the_size_of_the_card() -> None:
    found = plan(pc(16, 12, card(5, 12)), three_billion("hf", "BF16"))
    assert found.device == "cpu"


@pytest.mark.parametrize(
    ("flags", "free", "precision"),
    [(("avx512_bf16",), 20, "bf16"), (("avx2",), 30, "fp32"), (("avx2",), 12, "bf16")],
)
def test_on_a_cpu_a_folder_runs_in_bf16_where_the_cpu_computes_it_or_memory_is_short(
    flags: tuple[str, ...], free: float, precision: str
) -> None:
    found = plan(pc(32, free, flags=flags), three_billion("hf", "BF16"))
    assert (found.backend, found.device, found.precision) == ("transformers", "cpu", precision)
    assert found.fits
    assert found.kv_type == ("f32" if precision == "fp32" else "f16")


def test_a_gguf_takes_the_whole_gpu_where_it_fits() -> None:
    found = plan(pc(16, 12, card(11, 12)), three_billion())
    assert (found.backend, found.device, found.gpu_layers) == ("llama_cpp", "cuda", 29)


def test_what_does_not_fit_on_the_gpu_is_shared_with_the_cpu() -> None:
    found = plan(pc(16, 12, card(6, 8)), three_billion())
    assert found.device == "cuda+cpu"
    assert 0 < found.gpu_layers < 29
    assert found.context == 8192
    assert found.fits
    more = plan(pc(16, 12, card(7, 8)), three_billion())
    assert more.gpu_layers > found.gpu_layers


def test_a_full_gpu_leaves_the_cpu() -> None:
    found = plan(pc(16, 12, card(0.2, 8)), three_billion())
    assert (found.device, found.gpu_layers) == ("cpu", 0)
    assert found.fits


def test_the_freest_of_several_gpus_is_taken() -> None:
    found = plan(pc(16, 12, card(1), replace(card(11, 12), index=1)), three_billion())
    assert found.gpu_layers == 29
    assert found.free == 11 * GB


def test_apple_memory_is_one_pool() -> None:
    roomy = plan(pc(16, 11, card(10.5, 12, kind="mps")), three_billion())
    assert (roomy.device, roomy.gpu_layers) == ("mps", 29)
    full = plan(pc(16, 5, card(5, 12, kind="mps")), three_billion())
    assert not full.fits


def test_libraries_built_without_the_gpu_are_not_promised_it() -> None:
    here = pc(32, 30, card(24, 24))
    without = Installed(transformers_gpu=False, llama_cpp_gpu=False)
    assert plan(here, three_billion(), installed=without).device == "cpu"
    assert plan(here, three_billion("hf", "BF16"), installed=without).device == "cpu"


def test_the_context_is_the_models_own_up_to_8192() -> None:
    assert plan(pc(), replace(llama(), context=2048)).context == 2048
    assert plan(pc(), replace(llama(), context=131_072)).context == 8192


def test_the_context_is_shortened_until_it_fits() -> None:
    found = plan(pc(8, 7.6), three_billion())
    assert found.fits
    assert 1024 <= found.context < 8192
    assert found.context % 256 == 0
    wish = Wishes(context=found.context + 256, kv_type="f16")
    assert not plan(pc(8, 7.6), three_billion(), wish).fits


def test_a_wished_context_is_kept_even_where_it_does_not_fit() -> None:
    found = plan(pc(8, 7), three_billion(), Wishes(context=32768))
    assert (found.context, found.fits) == (32768, False)
    assert "does not fit" in found.reason


def test_memory_is_left_to_other_programs() -> None:
    facts = three_billion()
    need = plan(pc(64, 64), facts, Wishes(context=4096))
    tight = (need.total + need.growth) / GB + 0.05
    assert not plan(pc(16, tight), facts, Wishes(context=4096)).fits
    assert plan(pc(16, tight + 0.8), facts, Wishes(context=4096)).fits


def test_every_choice_can_be_wished_otherwise() -> None:
    wishes = Wishes(context=2048, kv_type="q8_0", batch=128, gpu_layers=3, threads=2)
    found = plan(pc(16, 12, card(11, 12)), three_billion(), wishes)
    assert (found.context, found.kv_type, found.batch, found.gpu_layers, found.threads) == (
        2048, "q8_0", 128, 3, 2,
    )  # fmt: skip
    every = plan(pc(16, 12, card(11, 12)), three_billion(), Wishes(gpu_layers=-1))
    assert every.gpu_layers == 29
    none = plan(
        pc(32, 30, card(24, 24)),
        three_billion("hf", "BF16"),
        Wishes(gpu_layers=0, precision="fp32"),
    )
    assert (none.device, none.precision) == ("cpu", "fp32")


def test_threads_are_the_physical_cores() -> None:
    assert plan(pc(), llama()).threads == 4


@pytest.mark.parametrize(
    "wishes",
    [Wishes(context=0), Wishes(kv_type="f15"), Wishes(batch=-1), Wishes(precision="int3"),
     Wishes(threads=0), Wishes(gpu_layers=-2)],
)  # fmt: skip
def test_odd_wishes_are_refused(wishes: Wishes) -> None:
    with pytest.raises(SettingsError):
        plan(pc(), llama(), wishes)


def test_what_cannot_run_here_says_why() -> None:
    with pytest.raises(ModelError, match="writes text"):
        plan(pc(), replace(llama(), writes_text=False))
    with pytest.raises(ModelError, match="awq"):
        plan(pc(), replace(llama(format_="hf"), quantised_by="awq"))
    with pytest.raises(ModelError, match=r"llama\.cpp"):
        plan(pc(), llama(), Wishes(backend="transformers"))
    with pytest.raises(MissingBackend):
        plan(pc(), llama(), installed=Installed(llama_cpp=False))


SITUATIONS = [
    (pc(8, 7), three_billion(), Wishes(context=32768)),
    (pc(16, 12, card(6, 8)), three_billion(), Wishes()),
    (pc(16, 12, card(11, 12)), three_billion("hf", "BF16"), Wishes()),
    (pc(16, 12), three_billion("hf", "BF16"), Wishes()),
    (pc(16, 11, card(10.5, 12, kind="mps")), three_billion(), Wishes()),
    (pc(), llama(), Wishes()),
]


@pytest.mark.parametrize(("here", "facts", "wishes"), SITUATIONS)
def test_the_reason_gives_the_numbers_in_both_languages(
    here: Hardware, facts: ModelFacts, wishes: Wishes
) -> None:
    found = plan(here, facts, wishes)
    assert found.reason == explain(found, "en")
    assert f"{found.total / SHOWN:.1f} GB" in found.reason or found.total < SHOWN / 10
    vietnamese = explain(found, "vi")
    assert f"{found.free / SHOWN:.1f}".replace(".", ",") in vietnamese
    assert "{" not in found.reason + vietnamese


@pytest.mark.parametrize(("here", "facts", "wishes"), SITUATIONS)
def test_the_parts_add_up_and_the_plan_is_json(
    here: Hardware, facts: ModelFacts, wishes: Wishes
) -> None:
    told = json.loads(json.dumps(to_dict(plan(here, facts, wishes))))
    assert sum(told["parts"].values()) == told["total"]
    assert {"backend", "precision", "gpu_layers", "context", "kv_type", "parts", "total", "free",
            "fits", "reason"} <= set(told)  # fmt: skip
    assert {key.removeprefix("gpu_") for key in told["parts"]} <= set(PART_NAMES)
    assert (told["backend"], told["device"]) in WHERE


@settings(max_examples=150, deadline=2000)
@given(
    ram=st.floats(2, 128), share=st.floats(0.05, 1), vram=st.floats(0, 80),
    context=st.none() | st.integers(1, 200_000), layers=st.integers(1, 40),
    format_=st.sampled_from(["gguf", "hf"]), kv_type=st.sampled_from([None, "f16", "q8_0", "q4_0"]),
)  # fmt: skip
def test_a_plan_that_fits_stays_within_what_is_free(
    ram: float,
    share: float,
    vram: float,
    context: int | None,
    layers: int,
    format_: str,
    kv_type: str | None,
) -> None:
    here = pc(ram, ram * share, *([card(vram, 80)] if vram >= 1 else []))
    facts = llama(layers, 1024, 16, 4, 32_000, feed_forward=4096, format_=format_)
    if format_ == "hf":
        kv_type = None
    found = plan(here, facts, Wishes(context=context, kv_type=kv_type))
    assert found.context <= facts.context
    if context is not None:
        assert found.context == min(context, facts.context)
    if found.fits:
        gpu = sum(size for key, size in found.parts.items() if key.startswith("gpu_"))
        assert gpu <= vram * GB
        assert found.total - gpu <= here.ram_available
