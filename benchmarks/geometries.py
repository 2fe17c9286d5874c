"""GGUF files of any geometry and type, with weights that mean nothing: for memory and speed, not for answers.

A geometry is a config.json. Its tensors are drawn from it as a plan draws them, so that llama.cpp, which
checks every shape, is the judge of the drawing.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.random_model import alphabet

if TYPE_CHECKING:
    import numpy as np

    from chatbot.memory.facts import ModelFacts

ALIGNMENT = 32
HALF = 0.002
"""The scale inside quantised blocks: small enough that nothing overflows."""
ARCHITECTURES = {
    "mixtral": "llama", "gemma3_text": "gemma3", "qwen3_moe": "qwen3moe", "deepseek_v2": "deepseek2",
    "falcon_h1": "falcon-h1", "granitemoehybrid": "granitehybrid", "gpt_oss": "gpt-oss",
    "qwen3_next": "qwen3next",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Geometry:
    """One model's shape as its config.json gives it, the mix of its weights, and how it is to be run."""

    name: str
    kind: str
    context: int
    kv_type: str
    family: str
    config: dict[str, Any] = field(hash=False)

    def settings(self) -> dict[str, Any]:
        """The whole config.json."""
        return {
            "model_type": self.family, "architectures": ["RandomForCausalLM"], "torch_dtype": "float16",
            "max_position_embeddings": self.context, **self.config,
        }  # fmt: skip

    def write_config(self, folder: Path) -> Path:
        """A folder that holds the config and no weights."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.settings()), encoding="utf-8")
        return folder

    def facts(self) -> ModelFacts:
        """What its GGUF file is made of."""
        from chatbot.memory.config import described
        from chatbot.memory.outline import outlined

        return outlined(described(self.settings(), self.name), self.kind, gguf=True)


def llama(
    layers: int, width: int, heads: int, kv_heads: int, inner: int, vocabulary: int, **more: Any
) -> dict[str, Any]:
    """The figures that nearly every config holds."""
    return {
        "num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "intermediate_size": inner, "vocab_size": vocabulary, **more,
    }  # fmt: skip


def write_gguf(geometry: Geometry, file: Path, *, weights: bool = True) -> Path:
    """The model as a GGUF file; rows repeat, so that gigabytes are written in seconds.

    Without `weights` there is a hole in their place: a header to read, as long as the whole.
    """
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter, TokenType

    facts = geometry.facts()
    name = ARCHITECTURES.get(geometry.family, geometry.family)
    writer = GGUFWriter(file, name)
    writer.add_name(geometry.name)
    _add_metadata(writer, geometry.settings(), facts)
    size = facts.vocabulary
    letters = alphabet()
    writer.add_vocab_size(size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*letters, *(f"Ġw{n}" for n in range(size - len(letters) - 1)), "<end>"])
    writer.add_token_types([TokenType.NORMAL] * (size - 1) + [TokenType.CONTROL])
    writer.add_token_merges(["Ġ w"])
    writer.add_eos_token_id(size - 1)
    for tensor in facts.tensors:
        kind = GGMLQuantizationType[tensor.type]
        row = _row(tensor.type, tensor.shape[-1], ones="norm" in tensor.name)
        data = np.broadcast_to(row, (*tensor.shape[:-1], len(row)))
        called = _called(tensor.name, geometry.family)
        writer.add_tensor(called, data, raw_dtype=kind if row.dtype == np.uint8 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    if weights:
        writer.write_tensors_to_file()
    else:
        writer.write_ti_data_to_file()
    writer.close()
    if not weights:
        sizes = [_aligned(tensor.size) for tensor in facts.tensors]
        os.truncate(file, _aligned(file.stat().st_size) + sum(sizes))
    return file


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _called(name: str, family: str) -> str:
    if family.startswith("lfm2") and name == "output_norm.weight":
        return "token_embd_norm.weight"
    if family == "falcon_h1" and name.endswith("ffn_norm.weight"):
        return name.removesuffix(".weight")
    return name


def _add_metadata(writer: Any, config: dict[str, Any], facts: ModelFacts) -> None:
    layers = facts.layers
    attending = [layer for layer in layers if layer.kv_heads]
    writer.add_context_length(facts.context)
    writer.add_embedding_length(facts.width)
    writer.add_block_count(len(layers))
    writer.add_feed_forward_length(config.get("intermediate_size", 0))
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_layer_norm_eps(1e-5)
    if attending:
        first = attending[0]
        mixed = len(attending) < len(layers)
        writer.add_head_count(first.heads)
        rope = config.get("qk_rope_head_dim", first.key_length)
        writer.add_rope_dimension_count(rope)
        if first.latent:
            writer.add_head_count_kv(1)
            writer.add_key_length(first.latent)
            writer.add_value_length(config["kv_lora_rank"])
            writer.add_key_length_mla(first.key_length)
            writer.add_value_length_mla(first.value_length)
            writer.add_kv_lora_rank(config["kv_lora_rank"])
            writer.add_q_lora_rank(config["q_lora_rank"])
        else:
            own = [layer.kv_heads for layer in layers]
            writer.add_head_count_kv(
                own if mixed and facts.architecture != "qwen3_next" else first.kv_heads
            )
            writer.add_key_length(first.key_length)
            writer.add_value_length(first.value_length)
    else:
        writer.add_head_count(0)
    window = next((layer.window for layer in layers if layer.window), None)
    if window:
        writer.add_sliding_window(window)
    _add_mixture(writer, config, facts)
    _add_recurrent(writer, config, facts)


def _add_mixture(writer: Any, config: dict[str, Any], facts: ModelFacts) -> None:
    if not facts.experts:
        return
    from chatbot.memory import shapes

    writer.add_expert_count(facts.experts)
    writer.add_expert_used_count(facts.experts_used)
    if "moe_intermediate_size" in config:
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if shared := shapes.shared_width(config):
        writer.add_expert_shared_feed_forward_length(shared)
        writer.add_expert_shared_count(config.get("n_shared_experts", 1))
    writer.add_leading_dense_block_count(config.get("first_k_dense_replace", 0))
    writer.add_expert_weights_scale(1.0)


def _add_recurrent(writer: Any, config: dict[str, Any], facts: ModelFacts) -> None:
    family = facts.architecture
    if family.startswith("lfm2"):
        writer.add_shortconv_l_cache(config["conv_L_cache"])
    elif family == "qwen3_next":
        writer.add_ssm_conv_kernel(config["linear_conv_kernel_dim"])
        writer.add_ssm_state_size(config["linear_key_head_dim"])
        writer.add_ssm_group_count(config["linear_num_key_heads"])
        writer.add_ssm_time_step_rank(config["linear_num_value_heads"])
        writer.add_ssm_inner_size(
            config["linear_num_value_heads"] * config["linear_value_head_dim"]
        )
    elif any(layer.state for layer in facts.layers):
        heads = config.get("mamba_n_heads", config.get("num_heads", -(-facts.width // 16)))
        expanded = config.get("mamba_expand", config.get("expand", 2)) * facts.width
        writer.add_ssm_conv_kernel(config.get("mamba_d_conv", config.get("conv_kernel", 4)))
        writer.add_ssm_inner_size(config.get("mamba_d_ssm", expanded))
        writer.add_ssm_state_size(config.get("mamba_d_state", config.get("state_size")))
        writer.add_ssm_time_step_rank(heads)
        writer.add_ssm_group_count(config.get("mamba_n_groups", config.get("n_groups", 0)))


def _row(kind: str, length: int, *, ones: bool = False) -> np.ndarray[Any, Any]:
    """One row of weights of that type; for quantised ones its bytes."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if ones:
        return np.ones(length, np.float32)
    random = np.random.default_rng(1)
    if kind in ("F16", "F32"):
        row = random.standard_normal(length, np.float32) * 0.02
        return row.astype(np.float16 if kind == "F16" else np.float32)
    per_block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    blocks = random.integers(0, 256, (length // per_block, size), np.uint8)
    scale = np.frombuffer(np.float16(HALF).tobytes(), np.uint8)
    for place in _SCALES[kind]:
        blocks[:, place : place + 2] = scale
    return blocks.reshape(-1)


# Where a block keeps its half-precision scales (ggml-common.h).
_SCALES = {
    "Q8_0": (0,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
}
