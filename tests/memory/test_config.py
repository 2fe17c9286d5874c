"""A model's tensors follow from its config.json: held against the models that transformers makes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chatbot.errors import BrokenModel
from chatbot.memory.config import described
from chatbot.memory.footprint import llama_cpp_footprint
from chatbot.memory.headers import read_model, read_or_draw
from chatbot.memory.outline import outlined
from tests.memory.test_footprint import real_gguf

BASE = {
    "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2,
    "intermediate_size": 512, "vocab_size": 1000, "max_position_embeddings": 512, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
OWN = {"vocab_size": 1000, "bos_token_id": 1, "eos_token_id": 2}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 64, "mamba_n_groups": 1, "mamba_d_state": 32,
         "mamba_d_conv": 4, "mamba_expand": 2}  # fmt: skip
MIXTURE = {"moe_intermediate_size": 96, "num_experts_per_tok": 2}
LATENT = {"kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
          "num_key_value_heads": 8}  # fmt: skip
HYBRID = ["mamba", "mamba", "attention", "mamba"]
SHORT = ["conv", "full_attention", "conv", "conv"]

MODELS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("llama", "mistral", "granite", "qwen2", "gemma", "gemma2", "gemma3_text", "phi3", "phi", "olmo2", "exaone4", "stablelm", "cohere", "cohere2", "starcoder2", "smollm3"), BASE),
    "llama, biased": {**BASE, "model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "qwen3": {**BASE, "head_dim": 32},
    "gpt2": {**OWN, "n_embd": 256, "n_layer": 4, "n_head": 8, "n_positions": 512},
    "gpt_neox": {**BASE, "num_key_value_heads": 8},
    "mpt": {**OWN, "d_model": 256, "n_layers": 4, "n_heads": 8, "max_seq_len": 512},
    "mixtral": {**BASE, "num_local_experts": 8},
    "granitemoe": {**BASE, "num_local_experts": 4, "num_experts_per_tok": 2},
    "granitemoeshared": {**BASE, "num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 128},
    "qwen2_moe": {**BASE, **MIXTURE, "num_experts": 8, "shared_expert_intermediate_size": 128},
    "qwen3_moe": {**BASE, **MIXTURE, "num_experts": 8, "head_dim": 32},
    "olmoe": {**BASE, "num_experts": 8, "num_experts_per_tok": 2},
    "gpt_oss": {**BASE, "num_local_experts": 4, "head_dim": 32},
    "deepseek_v2": {**BASE, **MIXTURE, **LATENT, "n_routed_experts": 8, "n_shared_experts": 2,
                    "first_k_dense_replace": 1, "q_lora_rank": None},
    "deepseek_v3": {**BASE, **MIXTURE, **LATENT, "n_routed_experts": 8, "n_shared_experts": 1,
                    "first_k_dense_replace": 1, "q_lora_rank": 96, "n_group": 1, "topk_group": 1},
    "minicpm3": {**BASE, **LATENT, "q_lora_rank": 96},
    "mamba": {**OWN, "hidden_size": 256, "num_hidden_layers": 4, "state_size": 16},
    "mamba2": {**OWN, "hidden_size": 256, "num_hidden_layers": 4, "state_size": 32, "num_heads": 8,
               "head_dim": 64, "n_groups": 1},
    "falcon_h1": {**BASE, **MAMBA, "mamba_d_ssm": 512, "head_dim": 32},
    "jamba": {**BASE, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
              "expert_layer_offset": 1, "num_experts": 4, "mamba_d_state": 16},
    "bamba": {**BASE, **MAMBA, "attn_layer_indices": [1]},
    "granitemoehybrid": {**BASE, **MAMBA, "layer_types": HYBRID, "num_local_experts": 4,
                         "num_experts_per_tok": 2, "shared_intermediate_size": 128},
    "lfm2": {**BASE, "layer_types": SHORT, "conv_L_cache": 3, "block_auto_adjust_ff_dim": True,
             "block_multiple_of": 64},
    "lfm2_moe": {**BASE, **MIXTURE, "layer_types": SHORT, "num_dense_layers": 1, "num_experts": 4},
    "qwen3_next": {**BASE, **MIXTURE, "num_experts": 4, "head_dim": 32, "linear_num_key_heads": 4,
                   "shared_expert_intermediate_size": 64, "linear_num_value_heads": 8,
                   "linear_key_head_dim": 32, "linear_value_head_dim": 32},
}  # fmt: skip

COUNTING = """
import json, sys, torch
from transformers import AutoConfig, AutoModelForCausalLM
found = {}
for name, config in json.load(sys.stdin).items():
    settings = AutoConfig.for_model(config.pop("model_type"), **config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(settings)
    found[name] = sum(parameter.numel() for parameter in model.parameters())
print(json.dumps(found))
"""


def config_of(name: str) -> dict[str, Any]:
    return {"model_type": name, "architectures": ["SomeForCausalLM"], **MODELS[name]}


@pytest.fixture(scope="module")
def counted() -> dict[str, int]:
    """Parameters of each model as transformers makes it, no memory taken."""
    pytest.importorskip("transformers")
    asked = {name: {"model_type": name, **config} for name, config in MODELS.items()}
    done = subprocess.run(
        [sys.executable, "-c", COUNTING], input=json.dumps(asked), capture_output=True, text=True, check=True
    )  # fmt: skip
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", MODELS)
def test_a_config_alone_tells_every_parameter(name: str, counted: dict[str, int]) -> None:
    facts = described(config_of(name), name)
    assert facts.parameters == pytest.approx(counted[name], rel=1e-5)
    assert not facts.estimated
    names = [tensor.name for tensor in facts.tensors]
    assert len(set(names)) == len(names)
    assert facts.size == 2 * facts.parameters


def test_an_unknown_family_is_drawn_as_a_llama_and_called_an_estimate() -> None:
    facts = described({**config_of("llama"), "model_type": "tomorrow"}, "tomorrow")
    assert facts.estimated
    assert facts.parameters == described(config_of("llama"), "llama").parameters


def test_a_latent_cache_is_kept_in_place_of_keys_and_values() -> None:
    layer = described(config_of("deepseek_v3"), "x").layers[0]
    assert (layer.kv_heads, layer.key_length, layer.value_length, layer.latent) == (8, 48, 32, 80)


@pytest.mark.parametrize(
    ("name", "attending", "state"),
    [
        ("granitemoehybrid", [False, False, True, False], 3 * (512 + 64) + 512 * 32),
        ("falcon_h1", [True] * 4, 3 * (512 + 64) + 512 * 32),
        ("mamba", [False] * 4, 512 * (3 + 16)),
        ("jamba", [False, True, False, True], 512 * (3 + 16)),
        ("lfm2", [False, True, False, False], 256 * 2),
        ("qwen3_next", [False, False, False, True], 3 * (2 * 128 + 256) + 32 * 256),
    ],
)
def test_a_recurrent_layer_keeps_a_state_of_one_size(
    name: str, attending: list[bool], state: int
) -> None:
    layers = described(config_of(name), name).layers
    assert [layer.kv_heads > 0 for layer in layers] == attending
    assert {layer.state for layer in layers if layer.state} == {state}
    if name != "falcon_h1":
        assert all(bool(layer.state) != bool(layer.kv_heads) for layer in layers)


def test_gemma_says_little_of_itself() -> None:
    bare = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "vision_config": {},
            "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
                            "num_hidden_layers": 34, "sliding_window": 1024}}  # fmt: skip
    facts = described(bare, "gemma-3-4b-it")
    assert facts.parameters == pytest.approx(3_880_099_328, rel=1e-3)  # of its writing half
    assert [layer.window for layer in facts.layers[:6]] == [1024] * 5 + [None]
    assert facts.estimated


@pytest.mark.parametrize(
    "wrong",
    [{"kv_lora_rank": 64}, {"model_type": "qwen3_next"}, {"num_hidden_layers": 10**9}, {"vocab_size": -1}],
)  # fmt: skip
def test_a_config_that_leaves_out_what_is_needed_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BrokenModel):
        described({**config_of("llama"), **wrong}, "x")


def test_a_folder_with_only_a_config_can_be_planned(tmp_path: Path) -> None:
    folder = tmp_path / "mô hình mới"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({**config_of("llama"), "torch_dtype": "float16"})
    )
    facts = read_or_draw(folder)
    assert (facts.name, facts.format, facts.quantisation) == ("mô hình mới", "hf", "F16")
    with pytest.raises(BrokenModel):  # to load it is another matter
        read_model(folder)
    (folder / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(BrokenModel):
        read_or_draw(folder)


def test_a_config_plans_like_the_file_of_the_same_shape(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    real_gguf(file, layers=4, width=512, heads=8, kv_heads=2, type_="F16")
    config = {
        **config_of("llama"),
        "hidden_size": 512,
        "intermediate_size": 1536,
        "vocab_size": 2000,
    }
    drawn = outlined(described(config, "x"), "F16", gguf=True)
    for context, gpu_layers in ((2048, 0), (32768, 0), (8192, 3), (8192, -1)):
        there = llama_cpp_footprint(read_model(file), context, gpu_layers=gpu_layers)
        alone = llama_cpp_footprint(drawn, context, gpu_layers=gpu_layers)
        assert (alone.ram, alone.gpu) == (there.ram, there.gpu)
