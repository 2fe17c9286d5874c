"""Models of some 50 MB that take a moment to work on: random weights, tiny tokenizer, an adapter for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.tiny_models import make_hf

HIDDEN, INNER, LAYERS, HEADS, KEY_HEADS, RANK = 512, 1536, 4, 8, 4, 8


def make_folder(folder: Path, layers: int = LAYERS) -> Path:
    """A Hugging Face folder in float32: 13 MB for each layer."""
    from safetensors.numpy import save_file

    make_hf(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    random = np.random.default_rng(11)

    def noise(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, np.float32) * np.float32(0.02)

    narrow, vocabulary = HIDDEN * KEY_HEADS // HEADS, config["vocab_size"]
    weights = {
        "model.embed_tokens.weight": noise(vocabulary, HIDDEN),
        "model.norm.weight": np.ones(HIDDEN, np.float32),
        "lm_head.weight": noise(vocabulary, HIDDEN),
    }
    for layer in range(layers):
        at = f"model.layers.{layer}."
        weights |= {
            f"{at}self_attn.q_proj.weight": noise(HIDDEN, HIDDEN),
            f"{at}self_attn.k_proj.weight": noise(narrow, HIDDEN),
            f"{at}self_attn.v_proj.weight": noise(narrow, HIDDEN),
            f"{at}self_attn.o_proj.weight": noise(HIDDEN, HIDDEN),
            f"{at}mlp.gate_proj.weight": noise(INNER, HIDDEN),
            f"{at}mlp.up_proj.weight": noise(INNER, HIDDEN),
            f"{at}mlp.down_proj.weight": noise(HIDDEN, INNER),
            f"{at}input_layernorm.weight": np.ones(HIDDEN, np.float32),
            f"{at}post_attention_layernorm.weight": np.ones(HIDDEN, np.float32),
        }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def make_adapter(folder: Path, base: Path, layers: int = LAYERS) -> Path:
    """A LoRA adapter for the queries and values of that model."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ["q_proj", "v_proj"],
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    random = np.random.default_rng(12)
    weights = {}
    for layer in range(layers):
        for name, rows in (("q_proj", HIDDEN), ("v_proj", HIDDEN * KEY_HEADS // HEADS)):
            at = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{at}.lora_A.weight"] = random.standard_normal((RANK, HIDDEN), np.float32)
            weights[f"{at}.lora_B.weight"] = random.standard_normal((rows, RANK), np.float32)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder
