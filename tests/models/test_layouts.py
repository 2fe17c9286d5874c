"""Layouts besides Llama's: mixtures of experts and GPT-2's turned matrices stay what they were, and damage shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    MixtralConfig,
    OlmoeConfig,
    Qwen3MoeConfig,
)

from chatbot.memory.headers import read_model
from chatbot.models.fp16 import prepare
from chatbot.models.gguf import convert, quantise
from chatbot.models.verify import verify
from tests.models.adapters import give_tokenizer

VOCABULARY = 512
SHAPE = {
    "vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
CONFIGS: dict[str, Any] = {
    "mixtral": MixtralConfig(**SHAPE, num_local_experts=4, num_experts_per_tok=2),
    "qwen3_moe": Qwen3MoeConfig(**SHAPE, **EXPERTS, head_dim=16, norm_topk_prob=True),
    "olmoe": OlmoeConfig(
        **SHAPE | {"num_key_value_heads": 4}, num_experts=4, num_experts_per_tok=2
    ),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY,
        bos_token_id=0,
        eos_token_id=1,
        n_embd=64,
        n_layer=2,
        n_head=4,
        n_positions=256,
        n_ctx=256,
    ),
}


def quiet(*_: object, **__: object) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module", params=list(CONFIGS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of that layout with random weights and the tiny models' tokenizer."""
    place = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[request.param])
    with torch.no_grad():
        for values in model.parameters():
            values.add_(torch.randn_like(values) * 0.05)
    model.save_pretrained(place / "model")
    return give_tokenizer(place / "model", place / "tokenizer")


def made(step: Any, source: Path, target: Path, **options: Any) -> Path:
    target.mkdir()
    files = step(quiet, source=source, target=target, **options)["files"]
    ggufs = [file["name"] for file in files if file["name"].endswith(".gguf")]
    return target / ggufs[0] if ggufs else target


def checked(source: Path, parent: Path, step: str) -> dict[str, str]:
    verdict = verify(quiet, source=source, parent=parent, step=step, files=None)
    faults = [one for one in verdict["checks"] if one["verdict"] == "fail"]
    return {one["name"]: one["detail"] for one in faults}


def test_every_step_keeps_it_and_a_swapped_tensor_shows(folder: Path, tmp_path: Path) -> None:
    half = made(prepare, folder, tmp_path / "half")
    assert checked(half, folder, "prepare") == {}
    file = made(convert, half, tmp_path / "gguf", type="F16")
    assert read_model(file).writes_text
    assert checked(file, half, "convert") == {}
    small = made(quantise, file, tmp_path / "small", type="Q8_0")
    assert checked(small, file, "quantise") == {}

    reader = gguf.GGUFReader(file, "r+")
    alike = [one for one in reader.tensors if one.name.startswith("blk.1.") and one.data.ndim > 1]
    tensor = alike[0].data
    tensor[...] = np.flip(tensor, axis=0).copy()
    reader.data.flush()
    assert checked(file, half, "convert")


def test_what_llama_cpp_computes_otherwise_does_not_pass(tmp_path: Path) -> None:
    """It divides the shares of Qwen's experts by their sum, whatever the model's settings say."""
    torch.manual_seed(0)
    config = Qwen3MoeConfig(**SHAPE, **EXPERTS, head_dim=16, norm_topk_prob=False)
    AutoModelForCausalLM.from_config(config).half().save_pretrained(tmp_path / "model")
    folder = give_tokenizer(tmp_path / "model", tmp_path / "tokenizer")
    file = made(convert, folder, tmp_path / "gguf", type="F16")
    assert set(checked(file, folder, "convert")) == {"outputs"}
