"""A Llama with random weights, to measure speed with where no real model may be downloaded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.corpus import CACHE


@dataclass(frozen=True)
class Shape:
    """The geometry of a Llama; the last token of the vocabulary ends an answer."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    key_heads: int
    inner: int
    context: int = 4096

    @property
    def end(self) -> int:
        return self.vocabulary - 1


SHAPES = {
    "160m": Shape(8192, 1024, 12, 16, 8, 2816),
    "1b": Shape(32000, 2048, 16, 32, 8, 8192, 8192),  # Llama 3.2 1B's, with a smaller vocabulary
}


def random_gguf(shape: str = "160m", quantisation: str = "F16", *, reciting: bool = False) -> Path:
    """The model file, made at first use and kept in the temp folder.

    A reciting model names the tokens of its vocabulary in their order, by far more likely than any other:
    its greedy text does not hang on how an engine rounds. F16 takes seconds, a quantised 1b about two
    minutes of two cores, at the lowest priority.
    """
    file = (
        Path(tempfile.gettempdir())
        / "hearth-benchmarks"
        / f"{'reciting' if reciting else 'random'}-{shape}-{quantisation.lower()}.gguf"
    )
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        half = file.with_suffix(".half")
        if quantisation == "F16":
            _write(half, SHAPES[shape], reciting=reciting)
        else:
            source = random_gguf(shape, reciting=reciting)
            subprocess.run([sys.executable, "-c", QUANTISE, source, half, quantisation], check=True)
        half.replace(file)
    return file


QUANTISE = """
import ctypes, os, sys
from llama_cpp import llama_cpp as c
from chatbot.child import lower_priority
from gguf import LlamaFileType
lower_priority(os.getpid())
quiet = c.llama_log_callback(lambda *_: None)
c.llama_log_set(quiet, None)
params = c.llama_model_quantize_default_params()
params.ftype = LlamaFileType["MOSTLY_" + sys.argv[3]]
params.nthread = os.cpu_count()
assert c.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(params)) == 0
"""


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


def _write(file: Path, shape: Shape, *, reciting: bool) -> None:
    import numpy as np
    from gguf import GGUFWriter, LlamaFileType, TokenType

    random = np.random.default_rng(1)
    narrow = shape.hidden * shape.key_heads // shape.heads
    # One block for all: what the weights are does not change the speed, and making them takes long.
    most = shape.hidden * max(shape.vocabulary, shape.inner)
    block = (random.standard_normal(most, np.float32) * 0.02).astype(np.float16)

    def noise(rows: int, columns: int) -> np.ndarray:
        first = int(random.integers(0, max(most - rows * columns, 1)))
        return block[first : first + rows * columns].reshape(rows, columns)

    writer = GGUFWriter(file, "llama")
    writer.add_name("random")
    writer.add_file_type(LlamaFileType.MOSTLY_F16)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.key_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.hidden // shape.heads)
    writer.add_vocab_size(shape.vocabulary)
    tokens = [
        *alphabet(),
        "Ġw",
        *(f"Ġw{number}" for number in range(shape.vocabulary - 258)),
        "<end>",
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.NORMAL] * (shape.vocabulary - 1) + [TokenType.CONTROL])
    writer.add_token_merges(["Ġ w"])
    writer.add_eos_token_id(shape.end)
    embedding = noise(shape.vocabulary, shape.hidden)
    head = noise(shape.vocabulary, shape.hidden).copy()
    if reciting:  # each token's output row is the one before's embedding, and the layers add little
        head = np.roll(embedding, 1, axis=0)
        embedding = embedding * np.float16(50)
    head[shape.end] = 0  # the greedy choice never ends an answer
    head[:256] = 0
    norm = np.ones(shape.hidden, np.float32)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output_norm.weight", norm)
    writer.add_tensor("output.weight", head)
    for layer in range(shape.layers):
        for name, sides in {
            "attn_q": (shape.hidden, shape.hidden),
            "attn_k": (narrow, shape.hidden),
            "attn_v": (narrow, shape.hidden),
            "attn_output": (shape.hidden, shape.hidden),
            "ffn_gate": (shape.inner, shape.hidden),
            "ffn_up": (shape.inner, shape.hidden),
            "ffn_down": (shape.hidden, shape.inner),
        }.items():
            quiet = reciting and name in ("attn_output", "ffn_down")
            weights = noise(*sides) * np.float16(0.05 if quiet else 1)
            writer.add_tensor(f"blk.{layer}.{name}.weight", weights)
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
