"""GGUF files of any geometry and type, with weights that mean nothing: for memory and speed, not for answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.random_model import alphabet

if TYPE_CHECKING:
    import numpy as np

    from chatbot.memory.facts import ModelFacts

HALF = 0.002
"""The scale inside quantised blocks: small enough that nothing overflows."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """One model's shape, the types of its weights, and how it is to be run."""

    name: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int
    kind: str
    context: int
    kv_type: str = "f16"
    head: int = 0
    architecture: str = "llama"
    tied: bool = False
    window: int = 0

    @property
    def head_length(self) -> int:
        return self.head or self.width // self.heads

    def facts(self) -> ModelFacts:
        """What a header would say of it; the tensors are those of `kind`."""
        from chatbot.memory.facts import Layer, ModelFacts
        from chatbot.memory.outline import outlined

        length = self.head_length
        layer = Layer(self.heads, self.kv_heads, length, length)
        layers = tuple(
            replace(layer, window=self.window if self.window and (n + 1) % 6 else None)
            for n in range(self.layers)
        )
        bare = ModelFacts(
            format="gguf", path=self.name, files=(), name=self.name, architecture=self.architecture,
            writes_text=True, quantisation=self.kind, context=self.context,
            vocabulary=self.vocabulary, width=self.width, feed_forward=self.feed_forward,
            layers=layers, tensors=(), chat_template=True, tokenizer=True, tied=self.tied,
        )  # fmt: skip
        return replace(outlined(bare, self.kind), format="gguf")


def write_gguf(geometry: Geometry, file: Path) -> Path:
    """The model as a GGUF file; rows repeat, so that gigabytes are written in seconds."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter, TokenType

    name = geometry.architecture
    writer = GGUFWriter(file, name)
    writer.add_name(geometry.name)
    writer.add_context_length(geometry.context)
    writer.add_embedding_length(geometry.width)
    writer.add_block_count(geometry.layers)
    writer.add_feed_forward_length(geometry.feed_forward)
    writer.add_head_count(geometry.heads)
    writer.add_head_count_kv(geometry.kv_heads)
    writer.add_key_length(geometry.head_length)
    writer.add_value_length(geometry.head_length)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(geometry.head_length)
    if geometry.window:
        writer.add_sliding_window(geometry.window)
    size = geometry.vocabulary
    writer.add_vocab_size(size)
    letters = alphabet()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*letters, *(f"Ġw{n}" for n in range(size - len(letters) - 1)), "<end>"])
    writer.add_token_types([TokenType.NORMAL] * (size - 1) + [TokenType.CONTROL])
    writer.add_token_merges(["Ġ w"])
    writer.add_eos_token_id(size - 1)
    for tensor in geometry.facts().tensors:
        kind = GGMLQuantizationType[tensor.type]
        row = _row(tensor.type, tensor.shape[1])
        data = np.broadcast_to(row, (tensor.shape[0], len(row)))
        writer.add_tensor(tensor.name, data, raw_dtype=kind if row.dtype == np.uint8 else None)
    for norm, length in _norms(geometry):
        writer.add_tensor(f"{norm}.weight", np.ones(length, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _norms(geometry: Geometry) -> Iterator[tuple[str, int]]:
    parts = {"attn_norm": geometry.width, "ffn_norm": geometry.width}
    if geometry.architecture in ("qwen3", "gemma3"):
        parts |= {"attn_q_norm": geometry.head_length, "attn_k_norm": geometry.head_length}
    if geometry.architecture == "gemma3":
        parts |= {"post_attention_norm": geometry.width, "post_ffw_norm": geometry.width}
    yield "output_norm", geometry.width
    for layer in range(geometry.layers):
        for part, length in parts.items():
            yield f"blk.{layer}.{part}", length


def _row(kind: str, length: int) -> np.ndarray[Any, Any]:
    """One row of weights of that type; for quantised ones its bytes."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

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
