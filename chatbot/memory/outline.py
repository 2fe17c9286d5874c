"""A model in a form that is not on this disk: the types of its tensors, by llama.cpp's own rules.

llama.cpp gives some tensors of a mix such as Q4_K_M a finer type, and those whose rows do not fit its
blocks another one (src/llama-quant.cpp); both are followed here, so that a file's size is known without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from chatbot.errors import SettingsError
from chatbot.memory.facts import ModelFacts, Tensor
from chatbot.memory.gguf import TYPES

SIZES = {name: (per_block, size) for name, per_block, size in TYPES.values()}
LADDER = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
"""The types worth offering, the best first; below four bits small models lose their Vietnamese."""
HALVES = ("BF16", "F16")
WHOLE = ("F32", *HALVES)

# The type of most tensors in each mix that people download.
MIXES = {
    **{name: name for name in (*WHOLE, "Q8_0", "Q6_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_XS", "IQ4_NL")},
    "Q5_K_M": "Q5_K", "Q5_K_S": "Q5_K", "Q4_K_M": "Q4_K", "Q4_K_S": "Q4_K",
    "Q3_K_L": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_S": "Q3_K", "Q2_K": "Q2_K",
}  # fmt: skip
_FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
             "IQ4_XS": "IQ4_NL"}  # fmt: skip
_NEVER = ("_norm.weight", "ffn_gate_inp.weight", "ssm_conv1d.weight", "shortconv.conv.weight",
          "position_embd.weight")  # fmt: skip
_VALUES = ("attn_v", "attn_qkv", "attn_kv_b")


def outlined(facts: ModelFacts, kind: str, size: int = 0, *, gguf: bool = False) -> ModelFacts:
    """The same model with tensors of that type, such as Q4_K_M or BF16: a folder for the two halves.

    `size` are the bytes of the real files, where they are known; the tensors are then scaled to them.
    With `gguf` it is a GGUF file whatever the type. Raises SettingsError for a type that is not known.
    """
    if kind not in MIXES:
        raise SettingsError(f"type = {kind} ({', '.join(MIXES)})")
    folder = kind in HALVES and not gguf
    bare = [tensor for tensor in facts.tensors if tensor.name == "token_embd.weight"]
    shapes = facts.tensors if bare else tuple(_usual(facts))
    if folder:
        tensors = [_in(tensor, kind) for tensor in shapes]
    else:
        tensors = list(quantised(facts, shapes, kind))
    if size:
        scale = size / max(sum(tensor.size for tensor in tensors), 1)
        tensors = [replace(tensor, size=int(tensor.size * scale)) for tensor in tensors]
    return replace(
        facts,
        format="hf" if folder else "gguf",
        quantisation=kind,
        tensors=tuple(tensors),
    )


def parameters(facts: ModelFacts) -> int:
    """How many numbers a model of that geometry holds, within a thousandth."""
    return sum(tensor.elements for tensor in (facts.tensors or _usual(facts)))


def quantised(facts: ModelFacts, tensors: Iterable[Tensor], kind: str) -> Iterator[Tensor]:
    """These tensors, named as in GGUF files, in the types that llama.cpp chooses for that mix."""
    tensors = tuple(tensors)
    mix = _Mix(facts, kind, sum(_part(tensor) in _VALUES for tensor in tensors))
    seen = dict.fromkeys(("values", "down"), 0)
    for tensor in tensors:
        if kind == "F32" or _stays(tensor):
            yield _in(tensor, "F32")
            continue
        part = _part(tensor)
        chosen = mix.of(tensor, part, seen)
        seen["values"] += part in _VALUES
        seen["down"] += part.startswith("ffn_down")
        yield _in(tensor, _fitting(chosen, tensor.shape[-1]))


@dataclass(frozen=True, slots=True)
class _Mix:
    facts: ModelFacts
    kind: str
    values: int
    """How many tensors of the model make values for attention."""

    def of(self, tensor: Tensor, part: str, seen: dict[str, int]) -> str:
        """The type of that tensor, whatever its shape."""
        kind, usual = self.kind, MIXES[self.kind]
        if usual in WHOLE:
            return usual
        if part == "output" or (part == "token_embd" and self.facts.tied):
            fits = tensor.shape[-1] % SIZES[usual][0] == 0
            return "Q8_0" if usual == "Q8_0" or not fits else "Q6_K"
        count, eight = len(self.facts.layers), self.facts.experts == 8
        if part in _VALUES:
            return "Q8_0" if eight else self._of_values(seen["values"])
        if part == "attn_k" and eight:
            return "Q8_0"
        if part == "attn_output":
            if eight and kind in (
                "Q2_K",
                "Q3_K_S",
                "Q3_K_M",
                "Q4_K_S",
                "Q4_K_M",
                "IQ4_NL",
                "IQ4_XS",
            ):
                return "Q5_K"
            finer = {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K"}
            return usual if eight else finer.get(kind, usual)
        if part.startswith("ffn_down"):
            number = (tensor.block or 0) if self.facts.experts > 1 else seen["down"]
            return self._of_down(number, count)
        return usual

    def _of_values(self, number: int) -> str:
        kind, usual = self.kind, MIXES[self.kind]
        first = next((layer for layer in self.facts.layers if layer.kv_heads), None)
        shared = first.heads // first.kv_heads >= 4 if first else False
        if kind == "Q2_K":
            return "Q4_K" if shared else "Q3_K"
        if kind == "Q3_K_M":
            return "Q5_K" if number < 2 else "Q4_K"
        if kind == "Q3_K_L" or (kind == "Q4_K_S" and number < 4):
            return "Q5_K"
        if kind in ("IQ4_XS", "IQ4_NL") and shared:
            return "Q5_K"
        return "Q6_K" if kind.endswith("_K_M") and _more_bits(number, self.values) else usual

    def _of_down(self, number: int, count: int) -> str:
        kind, usual = self.kind, MIXES[self.kind]
        if kind == "Q2_K":
            return "Q3_K"
        if kind == "Q3_K_M":
            return "Q5_K" if number < count // 16 else "Q4_K"
        if kind == "Q3_K_L" or (kind in ("Q4_K_S", "IQ4_XS", "IQ4_NL") and number < count // 8):
            return "Q5_K"
        return "Q6_K" if kind in ("Q4_K_M", "Q5_K_M") and _more_bits(number, count) else usual


def _more_bits(number: int, count: int) -> bool:
    """Whether a mix gives that layer the finer type (use_more_bits)."""
    eighth = count // 8
    return number < eighth or number >= 7 * count // 8 or (number - eighth) % 3 == 2


def _stays(tensor: Tensor) -> bool:
    """Whether it is kept in F32, being small."""
    return (
        len(tensor.shape) < 2 or not tensor.name.endswith(".weight") or tensor.name.endswith(_NEVER)
    )


def _part(tensor: Tensor) -> str:
    """Such as attn_v, of blk.3.attn_v.weight."""
    return tensor.name.removesuffix(".weight").rpartition(".")[2]


def _fitting(kind: str, row: int) -> str:
    if row % SIZES[kind][0] == 0:
        return kind
    other = _FALLBACK.get(kind, "F16")
    return other if row % SIZES[other][0] == 0 else "F16"


def _in(tensor: Tensor, kind: str) -> Tensor:
    per_block, size = SIZES[kind]
    return replace(tensor, type=kind, size=tensor.elements // per_block * size)


def _usual(facts: ModelFacts) -> Iterator[Tensor]:
    """The tensors of a geometry of which nothing else is known, as those of a Llama."""
    width = facts.width
    rows: dict[str, tuple[int, int]] = {"token_embd": (facts.vocabulary, width)}
    if not facts.tied:
        rows["output"] = (facts.vocabulary, width)
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
        rows |= {f"blk.{number}.{part}": shape for part, shape in shapes.items()}
    for name, shape in rows.items():
        yield Tensor(f"{name}.weight", shape, "F32", 4 * shape[0] * shape[1])


UNGATED = ("mpt", "gpt2", "gptneox", "falcon", "starcoder", "phi2")
"""Architectures whose feed-forward half has two matrices instead of three."""
