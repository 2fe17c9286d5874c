from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chatbot.memory.facts import Layer, ModelFacts, Tensor
from chatbot.memory.footprint import (
    MIB,
    kv_bytes,
    llama_cpp_footprint,
    transformers_footprint,
)
from chatbot.memory.headers import read_model
from tests.memory.building import Shape, gguf


def llama(
    layers: int = 4, width: int = 512, heads: int = 8, kv_heads: int = 2, vocabulary: int = 1000, *,
    feed_forward: int = 1536, type_: str = "F16", tied: bool = False, window: int | None = None,
    format_: Any = "gguf",
) -> ModelFacts:  # fmt: skip
    """The facts of a llama of that geometry, without a file."""
    head = width // heads

    def tensor(name: str, *shape: int) -> Tensor:
        elements = shape[0] * (shape[1] if len(shape) > 1 else 1)
        return Tensor(name, shape, type_, elements * 2)

    tensors = [tensor("token_embd.weight", vocabulary, width)]
    if not tied:
        tensors.append(tensor("output.weight", vocabulary, width))
    for n in range(layers):
        tensors += [
            tensor(f"blk.{n}.attn_q.weight", width, width),
            tensor(f"blk.{n}.attn_k.weight", kv_heads * head, width),
            tensor(f"blk.{n}.attn_v.weight", kv_heads * head, width),
            tensor(f"blk.{n}.attn_output.weight", width, width),
            *(
                tensor(f"blk.{n}.ffn_{part}.weight", feed_forward, width)
                for part in ("gate", "up", "down")
            ),
        ]
    return ModelFacts(
        format=format_, path="/models/x.gguf", files=("x.gguf",), name="x", architecture="llama",
        writes_text=True, quantisation=type_, context=32768, vocabulary=vocabulary, width=width,
        feed_forward=feed_forward, layers=(Layer(heads, kv_heads, head, head, window),) * layers,
        tensors=tuple(tensors), chat_template=True, tokenizer=True, tied=tied,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "layers", "kv_heads", "length", "context", "gigabytes"),
    [  # published geometries, f16 cache (../shared/PEERS.md, 2.4)
        ("Qwen2.5-7B", 28, 4, 128, 32768, 1.88),
        ("Llama-3.1-8B", 32, 8, 128, 32768, 4.29),
        ("Phi-3-mini, every head its own", 32, 32, 96, 8192, 3.22),
    ],
)
def test_the_cache_follows_the_models_own_heads(
    name: str, layers: int, kv_heads: int, length: int, context: int, gigabytes: float
) -> None:
    geometry = (Layer(32, kv_heads, length, length),) * layers
    assert kv_bytes(geometry, context, 2) / 1e9 == pytest.approx(gigabytes, abs=0.005)


def test_the_cache_adds_layers_of_different_heads_up() -> None:
    layers = (Layer(8, 8, 64, 64), Layer(8, 1, 64, 32))
    assert kv_bytes(layers, 100, 1) == 100 * (8 * 128 + 96)


def test_a_quantised_cache_is_about_half_and_a_quarter() -> None:
    facts = llama()
    f16, q8, q4 = (
        llama_cpp_footprint(facts, 4096, kind).ram["kv"] for kind in ("f16", "q8_0", "q4_0")
    )
    assert q8 / f16 == pytest.approx(0.531, abs=0.001)
    assert q4 / f16 == pytest.approx(0.281, abs=0.001)


def test_every_part_grows_with_what_it_depends_on() -> None:
    facts = llama()
    base = llama_cpp_footprint(facts, 4096, batch=512)
    assert llama_cpp_footprint(facts, 8192, batch=512).ram["kv"] == 2 * base.ram["kv"]
    assert llama_cpp_footprint(facts, 8192, batch=512).ram_growth > base.ram_growth
    assert llama_cpp_footprint(facts, 4096, batch=128).ram["buffers"] < base.ram["buffers"]
    assert base.ram["weights"] == facts.size


@pytest.mark.parametrize("tied", [True, False])
def test_layers_move_to_the_gpu_from_the_last_and_nothing_is_lost(tied: bool) -> None:
    facts = llama(layers=4, tied=tied)
    everything = llama_cpp_footprint(facts, 4096)
    twice = 1000 * 512 * 2 if tied else 0  # a tied output on the GPU is a second copy of the table
    for layers in range(1, 6):
        split = llama_cpp_footprint(facts, 4096, gpu_layers=layers)
        assert split.ram["weights"] + split.gpu["weights"] == facts.size + twice
        assert split.ram["kv"] + split.gpu["kv"] == everything.ram["kv"]
    assert llama_cpp_footprint(facts, 4096, gpu_layers=-1) == llama_cpp_footprint(
        facts, 4096, gpu_layers=5
    )
    assert llama_cpp_footprint(facts, 4096, gpu_layers=5).ram["kv"] == 0
    assert not everything.gpu


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("split", [(3, 2), (5,), (1, 1, 1, 1, 1), (0, 5), (4, 1, 0), (2, 1)])
def test_several_gpus_share_what_one_would_hold(split: tuple[int, ...], tied: bool) -> None:
    facts = llama(layers=4, tied=tied)
    layers = sum(split)
    one = llama_cpp_footprint(facts, 4096, gpu_layers=layers)
    parted = llama_cpp_footprint(facts, 4096, gpu_layers=layers, split=split)
    assert len(parted.cards) == len(split)
    assert [bool(card) for card in parted.cards] == [bool(part) for part in split]
    for part in ("weights", "kv"):
        assert sum(card.get(part, 0) for card in parted.cards) == one.gpu[part] == parted.gpu[part]
    assert parted.ram == one.ram
    assert sum(parted.gpu.values()) == sum(sum(card.values()) for card in parted.cards)
    holding = [card["kv"] for card, part in zip(parted.cards, split, strict=True) if part]
    each = one.gpu["kv"] // max(layers - 1, 1)
    expected = [part for part in split if part]
    expected[-1] -= 1  # the output
    assert holding == [part * each for part in expected]


def test_a_split_of_other_than_the_gpu_layers_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="split"):
        llama_cpp_footprint(llama(), 4096, gpu_layers=3, split=(1, 1))


def test_only_what_lies_in_the_window_is_kept_where_that_is_enough() -> None:
    facts = llama(layers=4, window=512)
    whole = llama_cpp_footprint(facts, 8192).ram["kv"]
    assert llama_cpp_footprint(facts, 8192, whole_window=False).ram["kv"] == whole * 1024 // 8192


def test_a_recurrent_layer_takes_the_same_however_long_the_context() -> None:
    facts = replace(llama(layers=2), layers=(Layer(0, 0, 64, 64, state=1000),) * 2)
    for context in (1024, 32768):
        assert llama_cpp_footprint(facts, context).ram["kv"] == 2 * 4 * 1000


def test_a_latent_layer_keeps_one_row_in_place_of_every_heads() -> None:
    facts = replace(llama(layers=1), layers=(Layer(16, 16, 192, 128, latent=576),))
    assert llama_cpp_footprint(facts, 4096).ram["kv"] == 2 * 576 * 4096
    assert transformers_footprint(facts, 4096, "bf16").ram["kv"] == 2 * 16 * (192 + 128) * 4096


def test_values_of_different_widths_are_padded_without_flash_attention() -> None:
    facts = replace(llama(layers=2), layers=(Layer(8, 8, 64, 64), Layer(8, 2, 64, 64)))
    assert llama_cpp_footprint(facts, 256, flash=True).ram["kv"] == 2 * 256 * (8 + 8 + 2 + 2) * 64
    assert llama_cpp_footprint(facts, 256, flash=False).ram["kv"] == 2 * 256 * (8 + 8 + 2 + 8) * 64


def test_a_gpu_reserves_for_the_scores_that_may_be_asked_for() -> None:
    facts = llama(layers=2, vocabulary=128_256)
    few, all_ = (
        llama_cpp_footprint(facts, 1024, gpu_layers=-1, outputs=n).gpu["buffers"] for n in (16, 512)
    )
    assert all_ - few > 200 * MIB


def test_transformers_counts_parameters_by_precision() -> None:
    facts = llama(format_="hf", type_="BF16")
    bf16 = transformers_footprint(facts, 4096, "bf16")
    fp32 = transformers_footprint(facts, 4096, "fp32")
    assert bf16.ram["weights"] == 2 * facts.parameters
    assert fp32.ram["weights"] == 4 * facts.parameters
    assert fp32.ram["kv"] == 2 * bf16.ram["kv"]
    assert fp32.ram["loading"] >= 0
    on_gpu = transformers_footprint(facts, 4096, "bf16", on_gpu=True)
    assert on_gpu.gpu["weights"] == bf16.ram["weights"]
    assert "weights" not in on_gpu.ram


# --- held against the real thing ---------------------------------------------------------------


def real_gguf(
    file: Path, *, layers: int, width: int, heads: int, kv_heads: int, type_: str
) -> None:
    """A llama that llama.cpp loads: weights of zeros, 2,000 made-up words."""
    feed_forward, words = 3 * width, [f"▁w{n}" for n in range(2000 - 3)]
    kv = width // heads * kv_heads
    tensors: list[Shape] = [
        ("token_embd.weight", (width, 2000), type_),
        ("output_norm.weight", (width,), "F32"),
        ("output.weight", (width, 2000), type_),
    ]
    for n in range(layers):
        shapes = {"attn_q": (width, width), "attn_k": (width, kv), "attn_v": (width, kv),
                  "attn_output": (width, width), "ffn_gate": (width, feed_forward),
                  "ffn_up": (width, feed_forward), "ffn_down": (feed_forward, width)}  # fmt: skip
        tensors += [(f"blk.{n}.{name}.weight", shape, type_) for name, shape in shapes.items()]
        tensors += [
            (f"blk.{n}.{name}.weight", (width,), "F32") for name in ("attn_norm", "ffn_norm")
        ]
    values = {
        "general.architecture": ("str", "llama"),
        "llama.context_length": ("u32", 32768),
        "llama.embedding_length": ("u32", width),
        "llama.block_count": ("u32", layers),
        "llama.feed_forward_length": ("u32", feed_forward),
        "llama.attention.head_count": ("u32", heads),
        "llama.attention.head_count_kv": ("u32", kv_heads),
        "llama.attention.layer_norm_rms_epsilon": ("f32", 1e-5),
        "llama.rope.dimension_count": ("u32", width // heads),
        "tokenizer.ggml.model": ("str", "llama"),
        "tokenizer.ggml.tokens": ("array", ("str", ["<unk>", "<s>", "</s>", *words])),
        "tokenizer.ggml.scores": ("array", ("f32", [0.0] * 2000)),
        "tokenizer.ggml.token_type": ("array", ("i32", [2, 3, 3] + [1] * 1997)),
        "tokenizer.ggml.bos_token_id": ("u32", 1),
        "tokenizer.ggml.eos_token_id": ("u32", 2),
    }
    file.write_bytes(gguf(values, tensors))


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize(
    ("shape", "context", "batch", "kv_type"),
    [
        (
            {"layers": 4, "width": 1024, "heads": 16, "kv_heads": 16, "type_": "F16"},
            4096,
            512,
            "f16",
        ),
        (
            {"layers": 6, "width": 768, "heads": 12, "kv_heads": 1, "type_": "Q8_0"},
            16384,
            512,
            "f16",
        ),
        (
            {"layers": 6, "width": 1024, "heads": 16, "kv_heads": 4, "type_": "Q4_K"},
            8192,
            512,
            "q8_0",
        ),
        (
            {"layers": 4, "width": 1536, "heads": 12, "kv_heads": 4, "type_": "Q4_K"},
            2048,
            128,
            "f16",
        ),
    ],
    ids=["MHA F16", "MQA Q8_0", "GQA Q4_K, cache q8_0", "GQA Q4_K, small batch"],
)
def test_the_prediction_is_within_six_percent_of_the_process(
    tmp_path: Path, shape: dict[str, Any], context: int, batch: int, kv_type: str
) -> None:
    pytest.importorskip("llama_cpp")
    file = tmp_path / "model.gguf"
    real_gguf(file, **shape)
    script = Path(__file__).with_name("measured_growth.py")
    answer = subprocess.run(
        [sys.executable, str(script), str(file), str(context), str(batch), kv_type],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    grown = json.loads(answer.stdout)["grown"]
    predicted = llama_cpp_footprint(read_model(file), context, kv_type, batch).total("ram")
    print(
        f"{grown / MIB:.1f} MiB measured, {predicted / MIB:.1f} predicted, {predicted / grown - 1:+.1%}"
    )
    assert abs(predicted / grown - 1) <= 0.06


def test_the_builders_block_sizes_are_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "q.gguf"
    file.write_bytes(gguf(tensors=[("token_embd.weight", (256, 4), "Q4_K")]))
    assert read_model(file).size == 4 * 144
