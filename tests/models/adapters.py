"""Tiny bases and adapters, made with transformers and PEFT themselves, and what they answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from tests.tiny_models import make_hf

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CONV1D = ["c_attn", "c_proj", "c_fc"]
VOCABULARY = 96
TOKENS = torch.arange(40).reshape(2, 20) % VOCABULARY


def make_base(
    folder: Path, *, kind: str = "llama", dtype: torch.dtype = torch.float32, **changes: Any
) -> Path:
    """A base of two layers with random weights, as transformers saves it."""
    torch.manual_seed(0)
    size = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0}
    model: Any
    if kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(**size, n_embd=32, n_layer=2, n_head=4, n_positions=512))
    else:
        shape = {
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "max_position_embeddings": 64,
        }  # fmt: skip
        if kind == "experts":
            experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8}
            model = GptOssForCausalLM(GptOssConfig(**{**size, **shape, **experts, **changes}))
        else:
            model = LlamaForCausalLM(LlamaConfig(**{**size, **shape, **changes}))
    with torch.no_grad():
        for values in model.parameters():  # biases and norms are told apart only when they differ
            values.add_(torch.randn_like(values) * 0.02)
    model.to(dtype).save_pretrained(folder)
    return folder


def make_adapter(
    folder: Path,
    base: Path,
    *,
    resize: int = 0,
    size: float = 0.05,
    safe: bool = True,
    **config: Any,
) -> Path:
    """An adapter of that base with random weights, as PEFT saves it."""
    model = AutoModelForCausalLM.from_pretrained(base)
    if resize:
        model.resize_token_embeddings(resize, mean_resizing=False)
    torch.manual_seed(1)
    wrapped = get_peft_model(model, LoraConfig(**{"task_type": "CAUSAL_LM", "r": 4, **config}))
    with torch.no_grad():
        for values in wrapped.parameters():
            if values.requires_grad:
                values.add_(torch.randn_like(values) * size)
    wrapped.save_pretrained(folder, safe_serialization=safe)
    if not safe:
        from peft import get_peft_model_state_dict

        (folder / "adapter_model.safetensors").unlink(missing_ok=True)
        torch.save(get_peft_model_state_dict(wrapped), folder / "adapter_model.bin")
    return folder


def unmerged(base: Path, adapter: Path, resize: int = 0) -> Any:
    """PEFT's own model of base and adapter, side by side."""
    model = AutoModelForCausalLM.from_pretrained(base)
    if resize:
        model.resize_token_embeddings(resize, mean_resizing=False)
    return PeftModel.from_pretrained(model, adapter).eval()


def logits(model: Any) -> torch.Tensor:
    """What a model, or the one in a folder, answers to TOKENS."""
    if isinstance(model, Path):
        model = AutoModelForCausalLM.from_pretrained(model).eval()
    with torch.no_grad():
        return model(TOKENS).logits.float()


def furthest(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference."""
    return float((one - other).abs().max())


def change_config(adapter: Path, **changes: Any) -> None:
    """adapter_config.json with these entries; a value of ... takes one out."""
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: v for key, v in config.items() if v is not ...}))


def give_tokenizer(base: Path, folder: Path) -> Path:
    """`base` with the tokenizer of the tiny models; `folder` is where those are made."""
    made = make_hf(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).write_bytes((made / name).read_bytes())
    return base
