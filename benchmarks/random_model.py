"""A Llama with random weights, to measure speed with where no real model may be downloaded."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from benchmarks.corpus import CACHE

VOCABULARY, HIDDEN, LAYERS, HEADS, KEY_HEADS, INNER, CONTEXT = 8192, 1024, 12, 16, 8, 2816, 4096
END = VOCABULARY - 1


def random_gguf() -> Path:
    """The model file (160 million parameters, F16), made at first use and kept in the temp folder."""
    file = Path(tempfile.gettempdir()) / "hearth-benchmarks" / "random-160m-f16.gguf"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        half = file.with_suffix(".half")
        _write(half)
        half.replace(file)
    return file


def random_folder() -> Path:
    """A model folder: a Llama of 1.1 billion fp32 parameters in three shards, made at first use and kept."""
    folder = CACHE / "random-1b-f32"
    if not folder.exists():
        half = folder.with_name(f"{folder.name}.half")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        _write_folder(half)
        half.rename(folder)
    return folder


LARGE = {
    "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
    "num_attention_heads": 32, "num_key_value_heads": 4, "max_position_embeddings": 2048,
}  # fmt: skip


def _write_folder(folder: Path) -> None:
    import torch

    from chatbot.memory.facts import Tensor
    from chatbot.models.weights import Writer

    width, inner, table = LARGE["hidden_size"], LARGE["intermediate_size"], LARGE["vocab_size"]
    narrow = width * LARGE["num_key_value_heads"] // LARGE["num_attention_heads"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (table, width)}
    for layer in range(LARGE["num_hidden_layers"]):
        shapes |= {
            f"model.layers.{layer}.{name}.weight": shape
            for name, shape in {
                "self_attn.q_proj": (width, width),
                "self_attn.k_proj": (narrow, width),
                "self_attn.v_proj": (narrow, width),
                "self_attn.o_proj": (width, width),
                "mlp.gate_proj": (inner, width),
                "mlp.up_proj": (inner, width),
                "mlp.down_proj": (width, inner),
                "input_layernorm": (width,),
                "post_attention_layernorm": (width,),
            }.items()
        }
    shapes |= {"model.norm.weight": (width,), "lm_head.weight": (table, width)}
    tensors = [
        Tensor(name, shape, "F32", 4 * torch.Size(shape).numel()) for name, shape in shapes.items()
    ]
    random = torch.Generator().manual_seed(1)
    with Writer(folder, tensors, shard=1_800_000_000) as writer:
        for tensor in writer.tensors:
            values = torch.randn(tensor.shape, generator=random) * 0.02
            writer.put(tensor.name, [values + 1 if len(tensor.shape) == 1 else values])
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **LARGE,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _write(file: Path) -> None:
    import numpy as np
    from gguf import GGUFWriter, LlamaFileType, TokenType

    random = np.random.default_rng(1)

    def noise(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape, np.float32) * 0.02).astype(np.float16)

    writer = GGUFWriter(file, "llama")
    writer.add_name("random")
    writer.add_file_type(LlamaFileType.MOSTLY_F16)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(VOCABULARY)
    tokens = [*alphabet(), "Ġw", *(f"Ġw{number}" for number in range(VOCABULARY - 258)), "<end>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.NORMAL] * (VOCABULARY - 1) + [TokenType.CONTROL])
    writer.add_token_merges(["Ġ w"])
    writer.add_eos_token_id(END)
    head = noise(VOCABULARY, HIDDEN)
    head[END] = 0  # the greedy choice never ends an answer
    head[:256] = 0
    norm = np.ones(HIDDEN, np.float32)
    writer.add_tensor("token_embd.weight", noise(VOCABULARY, HIDDEN))
    writer.add_tensor("output_norm.weight", norm)
    writer.add_tensor("output.weight", head)
    narrow = HIDDEN * KEY_HEADS // HEADS
    for layer in range(LAYERS):
        for name, shape in {
            "attn_q": (HIDDEN, HIDDEN),
            "attn_k": (narrow, HIDDEN),
            "attn_v": (narrow, HIDDEN),
            "attn_output": (HIDDEN, HIDDEN),
            "ffn_gate": (INNER, HIDDEN),
            "ffn_up": (INNER, HIDDEN),
            "ffn_down": (HIDDEN, INNER),
        }.items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", noise(*shape))
        writer.add_tensor(f"blk.{layer}.attn_norm.weight", norm)
        writer.add_tensor(f"blk.{layer}.ffn_norm.weight", norm)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def alphabet() -> list[str]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    names = {byte: chr(byte) for byte in printable}
    names |= {byte: chr(256 + at) for at, byte in enumerate(others)}
    return [names[byte] for byte in range(256)]
