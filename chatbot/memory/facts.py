"""What a model is, read from its headers: the nouns of the memory plan."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from chatbot.types import ModelFormat

_BLOCK = re.compile(r"(?:^|\.)(?:blk|layers|h|blocks)\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as its file declares it; `type` is the file's own name for it, such as Q4_K or BF16."""

    name: str
    shape: tuple[int, ...]
    type: str
    size: int
    """Bytes in the file."""

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def block(self) -> int | None:
        """The layer it belongs to; None for embeddings, output and their norms."""
        match = _BLOCK.search(self.name)
        return int(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer keeps of the tokens before; `window` is how many it looks back to, None for all.

    A layer without attention has no heads.
    """

    heads: int
    kv_heads: int
    key_length: int
    value_length: int
    window: int | None = None
    latent: int = 0
    """Values that llama.cpp keeps for a token in place of keys and values (multi-head latent attention)."""
    state: int = 0
    """Values that it keeps of everything before, however much that was: a recurrent layer's."""


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """What a fine-tuned adapter says of itself: the model it belongs to, and what it changes there."""

    base: str
    """The base model's name on the hub, or a path on the PC where it was trained; "" where it says nothing."""
    kind: str
    """LoRA, DoRA, rsLoRA, …"""
    rank: int
    alpha: float
    targets: tuple[str, ...]
    """Names of the layers it changes, or one pattern for them."""
    saved: tuple[str, ...] = ()
    """Names of the layers that it brings whole."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model's geometry and tensors, from its header alone; no weight is read.

    `files` are the names beside `path` (its parent for a GGUF file) that make up the model.
    """

    format: ModelFormat
    path: str
    files: tuple[str, ...]
    name: str
    architecture: str
    writes_text: bool
    quantisation: str
    context: int
    vocabulary: int
    width: int
    feed_forward: int
    layers: tuple[Layer, ...]
    tensors: tuple[Tensor, ...]
    chat_template: bool
    tokenizer: bool
    tied: bool = False
    """Whether the output layer is the embedding table."""
    quantised_by: str = ""
    """A Hugging Face folder's own quantisation method (gptq, awq, bitsandbytes), which we cannot run."""
    experts: int = 0
    """How many each layer chooses from, in a mixture of experts."""
    experts_used: int = 0
    estimated: bool = False
    """Whether the tensors were drawn from the usual shape of a family that is not known here."""
    adapter: AdapterFacts | None = None
    """Set where this is no model but an adapter, which needs its base."""

    @property
    def in_files(self) -> bool:
        """Whether `path` names a GGUF file, of a model or a LoRA, and no folder."""
        return self.format == "gguf" or self.path.endswith(self.files)

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def size(self) -> int:
        """Bytes of all weights as they are on disk."""
        return sum(tensor.size for tensor in self.tensors)

    def size_by_type(self) -> dict[str, int]:
        """Bytes per tensor type, the largest first."""
        sizes: dict[str, int] = {}
        for tensor in self.tensors:
            sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.size
        return dict(sorted(sizes.items(), key=lambda item: -item[1]))

    def size_of_blocks(self) -> list[int]:
        """Bytes per layer, in order; embeddings and output are not in it."""
        sizes = [0] * len(self.layers)
        for tensor in self.tensors:
            if tensor.block is not None and tensor.block < len(sizes):
                sizes[tensor.block] += tensor.size
        return sizes
