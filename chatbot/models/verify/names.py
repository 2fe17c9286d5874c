"""Which tensor of one model is which of another, and what the form of the file does to its values.

Between Hugging Face folders names stay. GGUF has names of its own (the package gguf knows them), writes
shapes the other way round, and llama.cpp's rotary embedding wants the rows of q and k of Llama's
family in another order; Gemma's norms are stored with 1 added.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from chatbot.models.verify.number_types import Values, decode
from chatbot.models.verify.stored import Stored, StoredModel

Way = Literal["same", "permuted", "transposed", "stacked"]

PERMUTED = ("llama", "granite", "deci", "arctic", "smollm3", "minicpm", "mistral3")
"""GGUF architectures whose rotary embedding pairs neighbours, while Hugging Face's pairs halves."""
ONE_ADDED = ("gemma", "gemma2", "gemma3", "gemma-embedding")
KNOWN = (
    *PERMUTED, *ONE_ADDED, "qwen2", "qwen3", "qwen2moe", "qwen3moe", "phi3", "olmo2", "starcoder2",
    "gpt2", "exaone", "smollm", "internlm2", "stablelm", "command-r", "cohere2", "glm4",
)  # fmt: skip
"""Architectures whose tensors all have a counterpart, so that one without is lost."""
_NO_WEIGHTS = re.compile(
    r"(rotary_emb\.inv_freq|\.masked_bias|\.attention\.bias|\.attn\.bias)$|^(visual|vision_|multi_modal|audio_)"
)
_MADE = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""GGUF tensors computed from the settings."""
_EXPERT = re.compile(r"^(.*\.experts)\.(\d+)\.(.+)$")
_WAYS = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


@dataclass(frozen=True, slots=True)
class Pair:
    """A tensor of the result and what it was made from, in the layout of the result."""

    name: str
    made: Stored
    origin: tuple[Stored, ...]
    """Several where experts were stacked into one."""
    order: Values | None = None
    """Row i of the result is row order[i] of the origin."""
    group: int = 1
    """Rows change places only inside groups of this many."""
    added: float = 0.0
    transposed: bool = False
    across: bool = False
    """Whether the two lie in files of different kinds: they may be several steps apart."""

    @property
    def kind(self) -> str:
        """The number type of the origin."""
        return self.origin[0].type

    @property
    def plain(self) -> bool:
        """Whether the bytes must be the same where the type is."""
        return (
            self.order is None
            and not self.added
            and not self.transposed
            and len(self.origin) == 1
            and self.kind == self.made.type
        )

    def expected(self, begin: int, end: int) -> Values | None:
        """The origin's values for those rows of the result; None where its type is unknown."""
        if self.transposed:
            whole = decode(
                self.origin[0].read(0, self.origin[0].rows), self.kind, self.origin[0].width
            )
            return None if whole is None else np.ascontiguousarray(whole.T[begin:end])
        parts = []
        for number, origin in enumerate(self.origin):
            first = number * origin.rows
            low, high = max(begin, first), min(end, first + origin.rows)
            if low < high:
                part = decode(origin.read(low - first, high - first), origin.type, self.made.width)
                if part is None:
                    return None
                parts.append(part)
        values: Values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if self.order is not None:
            values = values[self.order[begin:end] - begin]
        return values + np.float32(self.added) if self.added else values


@dataclass(frozen=True, slots=True)
class Matched:
    """Every pair, and what stands alone on either side; `odd` are pairs of different shapes."""

    pairs: list[Pair]
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    computed: dict[str, Values | None] = field(default_factory=dict)
    """Tensors that were made from the settings, with the values they should have where we know them."""
    unknown: bool = False
    """True for an architecture whose tensors we cannot all name; what is missing may be meant so."""


def match(made: StoredModel, origin: StoredModel) -> Matched:
    """Which tensor of `made` came from which of `origin`."""
    if (made.form == "gguf") == (origin.form == "gguf"):
        return _by_name(made, origin)
    if made.form == "gguf":
        return _to_gguf(made, origin)
    return _from_gguf(made, origin)


def _by_name(made: StoredModel, origin: StoredModel) -> Matched:
    names = [n for n in made.tensors if n in origin.tensors]
    missing = [n for n in origin.tensors if n not in made.tensors]
    unexpected = [n for n in made.tensors if n not in origin.tensors]
    if made.form != "gguf":
        missing = [n for n in missing if not _NO_WEIGHTS.search(n)]
        missing = _without_tied(missing, made, origin)
        unexpected = _without_tied(unexpected, origin, made)
    pairs = [Pair(n, made.tensors[n], (origin.tensors[n],)) for n in names]
    return _sorted_out(pairs, missing, unexpected)


def _without_tied(alone: list[str], there: StoredModel, here: StoredModel) -> list[str]:
    """An output layer that is the embedding table may be written or left out."""
    head = "lm_head.weight"
    if head in alone and (there.settings.get("tie_word_embeddings") or here is there):
        table = next(
            (t for n, t in here.tensors.items() if n.endswith("embed_tokens.weight")), None
        )
        if table is not None and _same_bytes(table, here.tensors[head]):
            return [n for n in alone if n != head]
    return alone


def _same_bytes(one: Stored, other: Stored) -> bool:
    if (one.type, one.shape) != (other.type, other.shape):
        return False
    step = max(1, (4 << 20) // max(one.row_size, 1))
    return all(
        np.array_equal(one.read(b, min(b + step, one.rows)), other.read(b, min(b + step, one.rows)))
        for b in range(0, one.rows, step)
    )


def gguf_names(origin: StoredModel, architecture: str) -> dict[str, list[str]]:
    """For each GGUF name the Hugging Face tensors it is made of; what has no GGUF name under ''."""
    import gguf

    numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    if architecture not in numbers:
        return {"": list(origin.tensors)}
    text = origin.settings.get("text_config", origin.settings)
    count = int(text.get("num_hidden_layers", text.get("n_layer", 0)) or 0)
    known = gguf.get_tensor_name_map(numbers[architecture], count)

    def find(name: str) -> str | None:
        plain = name.replace("language_model.", "")
        for candidate in (name, plain, f"model.{plain}", plain.removeprefix("model.")):
            if found := known.get_name(candidate, try_suffixes=(".weight", ".bias")):
                return str(found)
        return None

    names: dict[str, list[str]] = {}
    experts: dict[str, list[tuple[int, str]]] = {}
    for name in origin.tensors:
        if _NO_WEIGHTS.search(name):
            continue
        if expert := _EXPERT.match(name):
            stem, number, rest = expert.groups()
            part = rest.removesuffix(".weight")
            found = find(f"{stem}.{part}.weight") or find(f"{stem}.{_WAYS.get(part, part)}.weight")
            found = found or find(f"layers.{_layer(name)}.feed_forward.experts.{part}.weight")
            experts.setdefault(found or "", []).append((int(number), name))
        else:
            names.setdefault(find(name) or "", []).append(name)
    for key, members in experts.items():
        names.setdefault(key, []).extend(name for _, name in sorted(members))
    return names


def _layer(name: str) -> str:
    return next((part for part in name.split(".") if part.isdecimal()), "")


def _to_gguf(made: StoredModel, origin: StoredModel) -> Matched:
    names = gguf_names(origin, made.architecture)
    missing = [n for n in names.pop("", []) if n != "lm_head.weight" or not _is_tied(origin)]
    pairs = []
    for name, members in names.items():
        sources = tuple(origin.tensors[member] for member in members)
        if (tensor := made.tensors.get(name)) is None:
            if not (name == "output.weight" and _is_tied(origin)):
                missing.extend(members)
            continue
        pairs.append(_pair(name, tensor, sources, made, inverse=False))
    computed = _computed(made, origin)
    unexpected = []
    for name in made.tensors:
        if name in names or name in computed:
            continue
        table = names.get("token_embd.weight")
        if name == "output.weight" and table and _is_tied(origin):
            pairs.append(Pair(name, made.tensors[name], (origin.tensors[table[0]],), across=True))
        else:
            unexpected.append(name)
    unknown = made.architecture not in KNOWN
    return _sorted_out(pairs, missing, unexpected, computed, unknown=unknown)


def _from_gguf(made: StoredModel, origin: StoredModel) -> Matched:
    names = gguf_names(made, origin.architecture)
    unexpected = names.pop("", [])
    pairs = []
    for name, members in names.items():
        stored = origin.tensors.get(name)
        if stored is None and name == "output.weight":
            stored = origin.tensors.get("token_embd.weight")
        if stored is None or len(members) > 1:
            unexpected.extend(members)
            continue
        pairs.append(_pair(members[0], made.tensors[members[0]], (stored,), origin, inverse=True))
    missing = [n for n in origin.tensors if n not in names and n not in _MADE]
    unknown = origin.architecture not in KNOWN
    return _sorted_out(pairs, missing, unexpected, unknown=unknown)


def _is_tied(model: StoredModel) -> bool:
    """Whether the output layer is the embedding table; Gemma's settings leave it unsaid."""
    settings = {**model.settings, **(model.settings.get("text_config") or {})}
    said = settings.get("tie_word_embeddings")
    return (
        bool(said) if said is not None else str(settings.get("model_type", "")).startswith("gemma")
    )


def _pair(
    name: str, made: Stored, origin: tuple[Stored, ...], model: StoredModel, *, inverse: bool
) -> Pair:
    """`model` is the GGUF side; `inverse` where it is the origin."""
    key = origin[0].name if inverse else name
    order, group = None, 1
    if model.architecture in PERMUTED and (
        part := re.search(r"\.attn_([qk])\.(weight|bias)$", key)
    ):
        heads = _heads(model, part[1])
        rows = made.rows
        if heads and rows % (2 * heads) == 0:
            order, group = _order(rows, heads), rows // heads
            if inverse:
                order = np.argsort(order)
    added = 0.0
    if model.architecture in ONE_ADDED and key.endswith("norm.weight"):
        added = -1.0 if inverse else 1.0
    shape, other = made.shape, origin[0].shape
    conv = len(shape) == 2 and shape == tuple(reversed(other)) and shape != other
    turned = conv or (model.architecture == "gpt2" and _is_conv(origin[0].name + made.name))
    return Pair(name, made, origin, order, group, added, turned, across=True)


def _is_conv(names: str) -> bool:
    return bool(re.search(r"(c_attn|c_proj|c_fc)\.weight", names))


def _heads(model: StoredModel, part: str) -> int:
    """The heads that the rows of q or k are cut into."""
    stem = f"{model.architecture}.attention.head_count"
    count = model.settings.get(stem, 0)
    if part == "k":
        count = model.settings.get(f"{stem}_kv", count)
    return int(count) if isinstance(count, int) else 0


def _order(rows: int, heads: int) -> Values:
    """Halves of each head shuffled into pairs: the row of the Hugging Face tensor for each GGUF row."""
    length = rows // heads
    inside = np.arange(length).reshape(2, length // 2).T.reshape(-1)
    return (np.arange(heads)[:, None] * length + inside[None, :]).reshape(-1)


def _computed(made: StoredModel, origin: StoredModel) -> dict[str, Values | None]:
    found: dict[str, Values | None] = {name: None for name in _MADE if name in made.tensors}
    settings = {**origin.settings, **(origin.settings.get("text_config") or {})}
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type")
    if kind == "llama3":
        found["rope_freqs.weight"] = _llama3_factors(settings, rope)
    return found


def _llama3_factors(settings: dict[str, Any], rope: dict[str, Any]) -> Values:
    """By how much Llama 3.x slows each frequency down for long contexts (as its authors published it)."""
    width = settings.get("head_dim") or settings["hidden_size"] // settings["num_attention_heads"]
    base = rope.get("rope_theta") or settings.get("rope_theta") or 10000.0
    length = rope.get("original_max_position_embeddings", 8192)
    factor, low, high = (
        rope.get("factor", 8.0),
        rope.get("low_freq_factor", 1.0),
        rope.get("high_freq_factor", 4.0),
    )
    factors = []
    for i in range(0, width, 2):
        wave = 2 * math.pi * base ** (i / width)
        if wave < length / high:
            factors.append(1.0)
        elif wave > length / low:
            factors.append(factor)
        else:
            smooth = (length / wave - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, np.float32)


def _sorted_out(
    pairs: list[Pair],
    missing: Iterable[str],
    unexpected: Iterable[str],
    computed: dict[str, Values | None] | None = None,
    *,
    unknown: bool = False,
) -> Matched:
    fitting: list[Pair] = []
    odd: list[Pair] = []
    for pair in pairs:
        (fitting if _fits(pair) else odd).append(pair)
    return Matched(
        fitting,
        sorted(missing),
        sorted(unexpected),
        [pair.name for pair in odd],
        computed or {},
        unknown,
    )


def _fits(pair: Pair) -> bool:
    shape = pair.origin[0].shape
    if len(pair.origin) > 1:
        shape = (len(pair.origin), *shape)
    if pair.transposed:
        shape = tuple(reversed(shape))
    return _squeezed(shape) == _squeezed(pair.made.shape)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)
