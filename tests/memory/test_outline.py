"""A model in another type is what llama.cpp makes of it, and takes what llama.cpp says it takes."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chatbot.errors import SettingsError
from chatbot.memory.config import described
from chatbot.memory.facts import ModelFacts
from chatbot.memory.footprint import MIB, _reserved_work, llama_cpp_footprint
from chatbot.memory.headers import read_model
from chatbot.memory.metadata import FILE_TYPES
from chatbot.memory.outline import MIXES, outlined
from tests.memory.building import gguf
from tests.memory.test_config import config_of
from tests.memory.test_footprint import llama, real_gguf

_heard_until_the_end: list[Any] = []
"""Callbacks that llama.cpp goes on calling."""


def _quiet(library: Any) -> None:
    silence = library.llama_log_callback(lambda *_: None)
    library.llama_log_set(silence, None)
    _heard_until_the_end.append(silence)


@pytest.fixture(scope="module")
def library() -> Any:
    return pytest.importorskip("llama_cpp")


# --- types ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of sixteen layers in F16; its second half of a layer has rows that k-quants cannot take."""
    file = tmp_path_factory.mktemp("half") / "half.gguf"
    real_gguf(file, layers=16, width=256, heads=8, kv_heads=2, type_="F16")
    return file


@pytest.mark.parametrize("kind", sorted(set(MIXES) - {"F32", "F16", "IQ4_NL", "IQ4_XS"}))
def test_every_tensor_gets_the_type_that_llama_cpp_gives_it(
    kind: str, half: Path, library: Any, tmp_path: Path
) -> None:
    file = tmp_path / "made.gguf"
    params = library.llama_model_quantize_default_params()
    params.ftype = next(number for number, name in FILE_TYPES.items() if name == kind)
    params.nthread = 1
    _quiet(library)
    assert library.llama_model_quantize(str(half).encode(), str(file).encode(), ctypes.byref(params)) == 0  # fmt: skip
    made = {tensor.name: (tensor.type, tensor.size) for tensor in read_model(file).tensors}
    drawn = outlined(read_model(half), kind, gguf=True)
    assert {tensor.name: (tensor.type, tensor.size) for tensor in drawn.tensors} == made


def test_rows_that_do_not_fit_a_block_get_another_type() -> None:
    facts = llama(layers=1, width=96, heads=4, kv_heads=4, vocabulary=50, feed_forward=100)
    kinds = {tensor.name: tensor.type for tensor in outlined(facts, "Q4_K_M").tensors}
    assert kinds["blk.0.attn_q.weight"] == "Q5_0"
    assert kinds["output.weight"] == "Q8_0"


def test_a_size_that_is_known_is_kept() -> None:
    facts = described(config_of("llama"), "x")
    assert outlined(facts, "Q4_K_M", 5_000_000).size == pytest.approx(5_000_000, rel=1e-4)


def test_a_type_that_nobody_knows_is_refused() -> None:
    with pytest.raises(SettingsError):
        outlined(described(config_of("llama"), "x"), "Q9_Z")


# --- what llama.cpp says it takes ----------------------------------------------------------------

Told = Callable[..., dict[str, float]]


@pytest.fixture
def told(library: Any, tmp_path: Path) -> Iterator[Told]:
    """MiB that llama.cpp would take for a model's cache and work space, nothing allocated."""
    lines: list[str] = []
    hear = library.llama_log_callback(lambda _level, text, _data: lines.append(text.decode("utf-8", "replace")))  # fmt: skip
    library.llama_log_set(hear, None)

    def ask(
        file: Path, context: int, *, flash: bool, whole_window: bool = True
    ) -> dict[str, float]:
        params = library.llama_model_default_params()
        params.no_alloc, params.load_mode = True, library.LLAMA_LOAD_MODE_NONE
        model = library.llama_model_load_from_file(str(file).encode(), params)
        assert model, lines[-3:]
        settings = library.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = context, 512, 512
        settings.flash_attn_type, settings.n_outputs_max = int(flash), 16
        settings.swa_full = whole_window
        lines.clear()
        opened = library.llama_init_from_model(model, settings)
        library.llama_free(opened)
        library.llama_model_free(model)
        whole = "".join(lines)
        caches = re.findall(r"size = +([\d.]+) MiB \(", whole)
        return {
            "kv": sum(map(float, caches)),
            "work": sum(map(float, re.findall(r"compute buffer size = +([\d.]+) MiB", whole))),
        }

    yield ask
    _quiet(library)


def written(facts: ModelFacts, metadata: dict[str, Any], file: Path) -> Path:
    """A GGUF of zeros with these tensors; the vocabulary is made up."""
    words = [f"w{n}" for n in range(facts.vocabulary)]
    values = {
        "general.architecture": ("str", metadata.pop("architecture")),
        "tokenizer.ggml.model": ("str", "llama"),
        "tokenizer.ggml.tokens": ("array", ("str", words)),
        "tokenizer.ggml.scores": ("array", ("f32", [0.0] * len(words))),
        "tokenizer.ggml.token_type": ("array", ("i32", [1] * len(words))),
        "tokenizer.ggml.bos_token_id": ("u32", 1),
        "tokenizer.ggml.eos_token_id": ("u32", 2),
    }
    name = values["general.architecture"][1]
    usual = {
        "context_length": 32768, "embedding_length": facts.width, "block_count": len(facts.layers),
        "feed_forward_length": facts.feed_forward,
    }  # fmt: skip
    for key, value in {**usual, **metadata}.items():
        kind = "f32" if isinstance(value, float) else "array" if isinstance(value, list) else "u32"
        values[f"{name}.{key}"] = (kind, ("u32", value) if kind == "array" else value)
    tensors = [(t.name, tuple(reversed(t.shape)), t.type) for t in facts.tensors]
    file.write_bytes(gguf(values, tensors))
    return file


EPSILON = {"attention.layer_norm_rms_epsilon": 1e-5}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "sliding window": ("gemma2", {"architecture": "gemma2", "attention.head_count": 8, "attention.sliding_window": 512,
                                  "attention.head_count_kv": 2, "attention.key_length": 256,
                                  "attention.value_length": 256}),
    "latent": ("deepseek_v2", {"architecture": "deepseek2", "attention.head_count": 8, "attention.head_count_kv": 1,
                               "attention.key_length": 80, "attention.value_length": 64,
                               "attention.key_length_mla": 48, "attention.value_length_mla": 32,
                               "attention.kv_lora_rank": 64, "rope.dimension_count": 16,
                               "attention.q_lora_rank": 96, "expert_count": 8, "expert_used_count": 2,
                               "expert_feed_forward_length": 96, "expert_shared_count": 2,
                               "leading_dense_block_count": 1, "feed_forward_length": 512}),
    "recurrent beside attention": ("granitemoehybrid", {
        "architecture": "granitehybrid", "attention.head_count": 8, "attention.head_count_kv": [0, 0, 2, 0],
        "ssm.conv_kernel": 4, "ssm.inner_size": 512, "ssm.state_size": 32, "ssm.time_step_rank": 8,
        "ssm.group_count": 1, "rope.dimension_count": 32, "expert_count": 4, "expert_used_count": 2,
        "expert_shared_feed_forward_length": 128, "feed_forward_length": 512, "logit_scale": 1.0}),
    "recurrent alone": ("mamba2", {"architecture": "mamba2", "attention.head_count": 0, "ssm.conv_kernel": 4,
                                   "ssm.inner_size": 512, "ssm.state_size": 32, "ssm.time_step_rank": 8,
                                   "ssm.group_count": 1, "feed_forward_length": 0}),
    "short convolutions": ("lfm2", {"architecture": "lfm2", "attention.head_count": 8, "shortconv.l_cache": 3,
                                    "attention.head_count_kv": [0, 2, 0, 0]}),
    "grouped": ("qwen3", {"architecture": "qwen3", "attention.head_count": 8, "attention.head_count_kv": 2,
                          "attention.key_length": 32, "attention.value_length": 32}),
}  # fmt: skip


@pytest.mark.parametrize("flash", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_cache_is_what_llama_cpp_makes_and_the_reserve_close_to_its_own(
    shape: str, flash: bool, told: Told, tmp_path: Path
) -> None:
    family, metadata = SHAPES[shape]
    config = config_of(family)
    if family == "deepseek_v2":
        config["q_lora_rank"] = 96
    drawn = outlined(described(config, shape), "F16", gguf=True)
    if family == "lfm2":
        drawn = replace(drawn, tensors=tuple(
            replace(t, name=t.name.replace("output_norm", "token_embd_norm")) for t in drawn.tensors))  # fmt: skip
    file = written(drawn, {**EPSILON, **metadata}, tmp_path / "m.gguf")
    facts = read_model(file)
    assert [(n.kv_heads, n.state, n.latent) for n in facts.layers] == [
        (n.kv_heads, n.state, n.latent) for n in drawn.layers
    ]
    for whole_window in (False, True):
        said = told(file, 8192, flash=flash, whole_window=whole_window)
        ours = llama_cpp_footprint(facts, 8192, flash=flash, whole_window=whole_window)
        assert ours.ram["kv"] / MIB == pytest.approx(said["kv"], abs=0.02)
    reserved = _reserved_work(facts, 512, 8192, flash=flash, outputs=16) / MIB
    assert reserved == pytest.approx(said["work"], rel=0.2, abs=12)
