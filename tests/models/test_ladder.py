"""The ladder's sizes against llama.cpp's own figures, and which rung is the best."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

from chatbot.errors import ModelError
from chatbot.memory.headers import read_model
from chatbot.memory.metadata import FILE_TYPES
from chatbot.memory.plan import Wishes
from chatbot.models.ladder import RUNGS, as_quantised, ladder, role_of
from chatbot.models.llama_log import heard
from tests.memory.building import gguf, metadata, size_of
from tests.memory.test_plan import card, pc, three_billion

# layers, width, heads, kv heads, head length, feed forward, vocabulary, tied
SHAPES = {
    "Llama-3.2-3B": (28, 3072, 24, 8, 128, 8192, 128_256, True),
    "Mistral-7B": (32, 4096, 32, 8, 128, 14336, 32_768, False),
    "Qwen2.5-0.5B": (24, 896, 14, 2, 64, 4864, 151_936, True),
    "Qwen3-4B": (36, 2560, 32, 8, 128, 9728, 151_936, True),
    "multi-head 1B": (16, 2048, 16, 16, 128, 5504, 64_000, False),
}


def sparse_gguf(file: Path, shape: tuple[int, int, int, int, int, int, int, bool]) -> Path:
    """A whole F16 model of that shape, all holes: its header is real, its size too."""
    layers, width, heads, kv_heads, length, inner, vocabulary, tied = shape
    tensors = [
        ("token_embd.weight", (width, vocabulary), "F16"),
        ("output_norm.weight", (width,), "F32"),
    ]
    if not tied:
        tensors.append(("output.weight", (width, vocabulary), "F16"))
    for n in range(layers):
        for name, columns, rows in (
            ("attn_q", width, heads * length), ("attn_k", width, kv_heads * length),
            ("attn_v", width, kv_heads * length), ("attn_output", heads * length, width),
            ("ffn_gate", width, inner), ("ffn_up", width, inner), ("ffn_down", inner, width),
        ):  # fmt: skip
            tensors.append((f"blk.{n}.{name}.weight", (columns, rows), "F16"))
        tensors += [
            (f"blk.{n}.{name}.weight", (width,), "F32") for name in ("attn_norm", "ffn_norm")
        ]
    values = metadata(
        llama__embedding_length=("u32", width),
        llama__block_count=("u32", layers),
        llama__feed_forward_length=("u32", inner),
        llama__attention__head_count=("u32", heads),
        llama__attention__head_count_kv=("u32", kv_heads),
        llama__attention__key_length=("u32", length),
        llama__attention__value_length=("u32", length),
        llama__rope__dimension_count=("u32", length),
        llama__attention__layer_norm_rms_epsilon=("f32", 1e-5),
    )
    head = gguf(values, tensors, data=b"")
    with file.open("wb") as out:
        out.write(head)
        out.truncate(len(head) + sum(-(-size_of(s, kind) // 32) * 32 for _, s, kind in tensors))
    return file


def dry_run(file: Path, wanted: str) -> int:
    """Bytes of the weights that llama.cpp itself foretells."""
    from llama_cpp import llama_cpp as c

    lines: list[str] = []
    params = c.llama_model_quantize_default_params()
    params.ftype = {name: number for number, name in FILE_TYPES.items()}[wanted]
    params.dry_run = True
    with heard(c, lines.append):
        assert c.llama_model_quantize(str(file).encode(), b"", ctypes.byref(params)) == 0, lines[
            -3:
        ]
    found = re.search(r"quant size\s+=\s+([\d.]+) MiB", "".join(lines))
    assert found
    return int(float(found[1]) * (1 << 20))


@pytest.mark.parametrize("name", SHAPES)
def test_every_size_is_the_one_llama_cpp_foretells(tmp_path: Path, name: str) -> None:
    file = sparse_gguf(tmp_path / "model.gguf", SHAPES[name])
    facts = read_model(file)
    for wanted in (*RUNGS, "Q4_K_S", "Q5_K_S", "Q3_K_L", "IQ4_XS", "Q4_0"):
        if wanted != "F16":
            ours, theirs = as_quantised(facts, wanted).size, dry_run(file, wanted)
            assert ours == pytest.approx(theirs, rel=0.005), (name, wanted, ours / theirs)


@pytest.mark.parametrize(
    ("in_a_folder", "role"),
    [
        ("model.embed_tokens.weight", "embedding"),
        ("lm_head.weight", "output"),
        ("model.layers.3.self_attn.v_proj.weight", "value"),
        ("model.layers.3.self_attn.q_proj.weight", "other"),
        ("model.layers.3.self_attn.o_proj.weight", "attention_output"),
        ("model.layers.3.mlp.down_proj.weight", "down"),
        ("model.layers.3.post_attention_layernorm.weight", "kept"),
        ("transformer.h.0.attn.c_attn.weight", "qkv"),
        ("transformer.h.0.attn.c_proj.weight", "attention_output"),
        ("transformer.h.0.mlp.c_proj.weight", "down"),
        ("blk.3.attn_v.weight", "value"),
        ("blk.3.ffn_down.weight", "down"),
        ("blk.3.attn_q_norm.weight", "kept"),
        ("output.weight", "output"),
    ],
)
def test_tensors_are_known_by_their_names_in_folders_and_files(in_a_folder: str, role: str) -> None:
    assert role_of(in_a_folder) == role


def test_a_folder_gets_a_gguf_of_every_rung_and_smaller_means_smaller() -> None:
    rungs = ladder(three_billion("hf", "BF16"), pc(64, 60))
    assert [rung.type for rung in rungs] == list(RUNGS)
    assert [r.size for r in rungs] == sorted((r.size for r in rungs), reverse=True)
    assert {rung.plan.backend for rung in rungs} == {"llama_cpp"}
    assert {rung.plan.context for rung in rungs} == {8192}


def test_the_best_is_the_most_exact_that_fits_and_never_f16() -> None:
    def best(free: float, **wishes: int) -> str | None:
        rungs = ladder(three_billion("hf", "BF16"), pc(max(free + 4, 8), free), Wishes(**wishes))
        found = [rung for rung in rungs if rung.best]
        assert len(found) <= 1
        assert all(rung.plan.fits for rung in found)
        return found[0].type if found else None

    assert best(40) == "Q8_0"
    seen = [best(free) for free in (6.5, 5.5, 4.9, 4.4, 3.9, 3.5, 1.0)]
    order = [RUNGS.index(name) if name else len(RUNGS) for name in seen]
    assert order == sorted(order)
    assert seen[-1] is None
    assert best(5.5, context=2048) in RUNGS[1 : order[1] + 1]


def test_what_runs_wholly_on_the_gpu_comes_before_what_is_more_exact() -> None:
    rungs = ladder(three_billion("hf", "BF16"), pc(32, 28, card(4.3, 6)))
    best = next(rung for rung in rungs if rung.best)
    assert best.plan.device == "cuda"
    more_exact = [r for r in rungs[1:] if r.size > best.size]
    assert more_exact, "the card was too large to make a difference"
    assert all(rung.plan.device != "cuda" for rung in more_exact)


def test_an_adapter_has_no_ladder() -> None:
    with pytest.raises(ModelError):
        as_quantised(three_billion("adapter"), "Q8_0")
