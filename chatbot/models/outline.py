"""A model that is not on this disk yet, drawn from its geometry: which tensors it has, in which types.

llama.cpp gives some tensors of a mix such as Q4_K_M a finer type, and those whose rows do not fit its
blocks another one; both are followed here, so that a file's size is known to a few percent without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from chatbot.memory.facts import ModelFacts, Tensor
from chatbot.memory.gguf import TYPES

SIZES = {name: (per_block, size) for name, per_block, size in TYPES.values()}
LADDER = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
"""The types worth offering, the best first; below four bits small models lose their Vietnamese."""
HALVES = ("BF16", "F16")

_FINER = {"Q4_K_M": ("Q4_K", "Q6_K"), "Q5_K_M": ("Q5_K", "Q6_K")}
_FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_FINER_PARTS = ("attn_v", "ffn_down")


def outlined(facts: ModelFacts, kind: str, size: int = 0) -> ModelFacts:
    """The same geometry with tensors of that type, such as Q4_K_M or BF16.

    `size` are the bytes of the real files, where they are known; the tensors are then scaled to them.
    """
    tensors = list(_tensors(facts, kind))
    if size:
        scale = size / max(sum(tensor.size for tensor in tensors), 1)
        tensors = [replace(tensor, size=int(tensor.size * scale)) for tensor in tensors]
    return replace(
        facts,
        format="hf" if kind in HALVES else "gguf",
        quantisation=kind,
        tensors=tuple(tensors),
    )


def parameters(facts: ModelFacts) -> int:
    """How many numbers a model of that geometry holds, within a thousandth."""
    return sum(tensor.elements for tensor in _tensors(facts, "F16"))


def _tensors(facts: ModelFacts, kind: str) -> Iterator[Tensor]:
    usual, finer = _FINER.get(kind, (kind, kind))
    width, count = facts.width, len(facts.layers)

    def tensor(name: str, rows: int, row: int, type_: str) -> Tensor:
        per_block, size = SIZES[type_]
        if row % per_block:
            type_ = _FALLBACK.get(type_, "F16")
            per_block, size = SIZES[type_]
        return Tensor(f"{name}.weight", (rows, row), type_, -(-row // per_block) * size * rows)

    edge = {"Q4_K_M": "Q6_K", "Q5_K_M": "Q6_K"}.get(kind, kind)
    yield tensor("token_embd", facts.vocabulary, width, edge if facts.tied else usual)
    if not facts.tied:
        yield tensor("output", facts.vocabulary, width, edge)
    for number, layer in enumerate(facts.layers):
        shapes = {
            "attn_q": (layer.heads * layer.key_length, width),
            "attn_k": (layer.kv_heads * layer.key_length, width),
            "attn_v": (layer.kv_heads * layer.value_length, width),
            "attn_output": (width, layer.heads * layer.value_length),
            "ffn_up": (facts.feed_forward, width),
            "ffn_down": (width, facts.feed_forward),
        }
        if facts.architecture not in UNGATED:
            shapes["ffn_gate"] = (facts.feed_forward, width)
        for part, (rows, row) in shapes.items():
            better = part in _FINER_PARTS and _more_bits(number, count)
            yield tensor(f"blk.{number}.{part}", rows, row, finer if better else usual)


UNGATED = ("mpt", "gpt2", "gptneox", "falcon", "starcoder", "phi2")
"""Architectures whose feed-forward half has two matrices instead of three."""


def _more_bits(number: int, count: int) -> bool:
    """Whether a mix gives that layer the finer type (src/llama-quant.cpp, use_more_bits)."""
    eighth = count // 8
    return number < eighth or number >= 7 * eighth or (number - eighth) % 3 == 2
