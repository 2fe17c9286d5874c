"""What writing one token reads: of a mixture of experts only those it asks, of the word table one row."""

from __future__ import annotations

import re

from chatbot.memory.facts import ModelFacts, Tensor

_EXPERTS = re.compile(r"_exps\.|\.experts\.")
_TABLE = re.compile(r"^token_embd\.|embed_tokens\.|\bwte\.|word_embeddings\.")


def read_per_token(
    facts: ModelFacts, gpu_layers: int = 0, width: int | None = None
) -> dict[str, int]:
    """Bytes of weights by place ('ram', 'gpu'); `width` bytes a number, None as they are in the file.

    `gpu_layers` counts from the last layer, the output being the first of them.
    """
    first = len(facts.layers) - max(gpu_layers - 1, 0)
    places = {"ram": 0, "gpu": 0}
    for tensor in facts.tensors:
        block = tensor.block
        on_gpu = gpu_layers > 0 if block is None else block >= first
        places["gpu" if on_gpu else "ram"] += _read(tensor, facts, width)
    return {place: size for place, size in places.items() if size}


def _read(tensor: Tensor, facts: ModelFacts, width: int | None) -> int:
    size = tensor.size if width is None else tensor.elements * width
    if _TABLE.search(tensor.name) and not facts.tied:
        return 0
    if facts.experts and _EXPERTS.search(tensor.name):
        return size * facts.experts_used // facts.experts
    return size
