"""How many bytes a model takes while it runs: weights, KV cache, buffers, runtime.

Weights and KV cache follow from the header alone. The buffers' formulas are fitted to measured growth
of the engine process (22 random-weight shapes, tests/memory/test_footprint.py measures some again):
they are about 5 % of the whole, so their own error of some percent vanishes in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from chatbot.memory.facts import Layer, ModelFacts

MIB = 1 << 20
CELLS = 256  # llama.cpp rounds the cache up to this many tokens

# Bytes per element of the KV cache; a quantised block holds 32 values and their scale.
KV_TYPES: Mapping[str, float] = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
PRECISIONS: Mapping[str, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
STORED_AS: Mapping[str, str] = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}

# What libraries take besides. CUDA: context, kernels and cuBLAS workspace; this and Metal's from general
# knowledge, to be replaced by what each load here measures.
CUDA_CONTEXT = 512 * MIB
METAL_CONTEXT = 64 * MIB  # shaders and command queues; the memory itself is the computer's
TORCH_RUNTIME = 62 * MIB  # measured: model code and allocator after importing torch
SCORES = (
    16  # tokens of a batch whose scores the engine asks for at most: a draft and the one before
)
STATE_VALUE = 4  # llama.cpp keeps recurrent states in F32
VOCABULARY_ENTRY = 195  # measured: bytes of llama.cpp's token tables per token
LLAMA_RUNTIME = int(5.5 * MIB)  # measured over 11 shapes (benchmarks/memory_plan.py)

Place = Literal["ram", "gpu"]


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes by purpose in main memory and on the GPUs; `growth` is what filling the context adds later.

    `gpu` is the sum of `cards`, one mapping for each GPU in order, empty for one that holds nothing.
    """

    ram: Mapping[str, int]
    gpu: Mapping[str, int]
    ram_growth: int = 0
    gpu_growth: int = 0
    cards: tuple[Mapping[str, int], ...] = ()

    def total(self, place: Place) -> int:
        """Bytes right after loading and reading a first prompt."""
        return sum((self.ram if place == "ram" else self.gpu).values())

    def peak(self, place: Place) -> int:
        """Bytes when a conversation fills the context."""
        return self.total(place) + (self.ram_growth if place == "ram" else self.gpu_growth)

    def corrected(self, ram: float, gpu: float) -> Footprint:
        """The same with other totals; the buffers take the difference, for the rest is read from headers."""
        return replace(
            self,
            ram=_corrected(self.ram, ram),
            gpu=_corrected(self.gpu, gpu),
            cards=tuple(_corrected(card, gpu) for card in self.cards),
        )


def _corrected(parts: Mapping[str, int], factor: float) -> Mapping[str, int]:
    buffers = parts.get("buffers", 0) + round(sum(parts.values()) * (factor - 1))
    return {**parts, "buffers": max(buffers, 0)} if parts else parts


def kv_bytes(layers: Iterable[Layer], context: int, bytes_per_value: float) -> int:
    """The KV cache of these layers, every layer keeping the whole context, plain keys and values."""
    values = sum(n.kv_heads * (n.key_length + n.value_length) for n in layers)
    return int(values * context * bytes_per_value)


def llama_cpp_footprint(
    facts: ModelFacts,
    context: int,
    kv_type: str = "f16",
    batch: int = 512,
    gpu_layers: int = 0,
    *,
    flash: bool | None = None,
    split: Sequence[int] = (),
    whole_window: bool = True,
    outputs: int = SCORES,
    metal: bool = False,
) -> Footprint:
    """Bytes of llama.cpp: `gpu_layers` counts from the last layer, the output being the first of them.

    On the CPU the weights are read, not mapped: repacked quantised weights would stay twice otherwise.
    `flash` None is what the engine chooses; `split` is how many of the `gpu_layers` lie on each GPU, in
    order, the output on the last. Without `whole_window` sliding layers keep their window alone, and
    nothing older can be reused. `outputs` is for how many tokens of a batch scores are asked for at most.
    """
    count = len(facts.layers)
    gpu_layers = min(gpu_layers, count + 1) if gpu_layers >= 0 else count + 1
    split = tuple(split) or ((gpu_layers,) if gpu_layers else ())
    if sum(split) != gpu_layers:
        raise ValueError(f"split {split} of {gpu_layers} layers")
    offloaded = max(gpu_layers - 1, 0)
    cells = -(-context // CELLS) * CELLS
    batch = min(batch, cells)
    flash = (kv_type != "f16" or gpu_layers > 0) if flash is None else flash
    cache = _Cache(facts.layers, cells, kv_type, batch, flash=flash, whole_window=whole_window)
    blocks = facts.size_of_blocks()
    first = min(cells, max(batch, CELLS))
    work = _llama_work(facts, batch, first, flash=flash)
    growth = _llama_work(facts, batch, cells, flash=flash) - work + _scores(facts, outputs)
    copied = _output_bytes(facts) if gpu_layers and facts.tied else 0
    on_gpu = sum(blocks[count - offloaded :]) + (_output_bytes(facts) if gpu_layers else 0)
    inputs = batch * (4 * facts.width + (2 if flash else 4) * cells)
    ram = {
        "weights": facts.size - on_gpu + copied,
        "kv": cache.bytes(range(count - offloaded)),
        "buffers": work if offloaded < count else inputs + 2 * MIB,
        "runtime": LLAMA_RUNTIME + VOCABULARY_ENTRY * facts.vocabulary,
    }
    cards = []
    start = count - offloaded
    holding_output = max((n for n, layers in enumerate(split) if layers), default=-1)
    for number, layers in enumerate(split):
        last = number == holding_output
        own = range(start, start + layers - last) if layers else range(0)
        start = own.stop if layers else start
        asked = min(outputs, batch) if last else 1
        reserved = _reserved_work(facts, batch, cells, flash=flash, outputs=asked)
        # With every layer on several GPUs llama.cpp works on four batches at once.
        ahead = 3 * inputs if len(split) > 1 and offloaded == count else 0
        cards.append(
            {
                "weights": sum(blocks[n] for n in own) + (_output_bytes(facts) if last else 0),
                "kv": cache.bytes(own),
                "buffers": reserved + ahead,
                "runtime": METAL_CONTEXT if metal else CUDA_CONTEXT,
            }
            if layers
            else {}
        )
    return Footprint(
        ram,
        {key: sum(card.get(key, 0) for card in cards) for key in ram} if cards else {},
        ram_growth=growth if offloaded < count else 0,
        cards=tuple(cards),
    )


@dataclass(frozen=True, slots=True)
class _Cache:
    """llama.cpp's memory of what was read, layer by layer."""

    layers: tuple[Layer, ...]
    cells: int
    kv_type: str
    batch: int
    flash: bool
    whole_window: bool

    def bytes(self, numbers: Iterable[int]) -> int:
        return sum(self._of(self.layers[number]) for number in numbers)

    def _of(self, layer: Layer) -> int:
        values = layer.latent or layer.kv_heads * layer.key_length + self._value_row(layer)
        cells = self.cells
        if layer.window and not self.whole_window:
            cells = -(-min(cells, layer.window + self.batch) // CELLS) * CELLS
        return int(values * cells * KV_TYPES[self.kv_type]) + STATE_VALUE * layer.state

    def _value_row(self, layer: Layer) -> int:
        """Without flash attention the values lie transposed, as wide in every layer as in the widest."""
        if self.flash or not layer.kv_heads:
            return layer.kv_heads * layer.value_length
        return max(n.kv_heads * n.value_length for n in self.layers)


def transformers_footprint(
    facts: ModelFacts,
    context: int,
    precision: str,
    batch: int = 512,
    *,
    on_gpu: bool = False,
    metal: bool = False,
) -> Footprint:
    """Bytes of transformers in fp32, bf16 or fp16; the cache holds the same type as the weights."""
    width = PRECISIONS[precision]
    weights = facts.parameters * width
    cache = kv_bytes(facts.layers, context, width)
    cache += width * sum(layer.state for layer in facts.layers)
    query = max((n.heads * n.key_length for n in facts.layers), default=0)
    parts = {
        "weights": weights,
        "kv": cache,
        "buffers": int(1.2 * 4 * batch * (facts.width + 4 * facts.feed_forward)) + MIB,
        "runtime": (METAL_CONTEXT if metal else CUDA_CONTEXT) if on_gpu else TORCH_RUNTIME,
    }
    growth = width * context * (2 * query + batch)
    if on_gpu:
        return Footprint({"runtime": TORCH_RUNTIME}, parts, gpu_growth=growth, cards=(parts,))
    # Weights of another type are converted while their file stays mapped.
    stored = facts.size_by_type().get(STORED_AS[precision], 0)
    converting = max(facts.size - stored - cache - parts["buffers"], 0)
    return Footprint({**parts, "loading": converting}, {}, ram_growth=growth)


def _output_bytes(facts: ModelFacts) -> int:
    name = "token_embd.weight" if facts.tied else "output.weight"
    return sum(tensor.size for tensor in facts.tensors if tensor.name == name)


def _llama_work(facts: ModelFacts, batch: int, cells: int, *, flash: bool) -> int:
    """Bytes of llama.cpp's work space that a prompt batch touches on the CPU, `cells` tokens being cached.

    With flash attention what is reserved; without, less is touched than reserved: least squares over 22
    measured Llamas (within 6 MiB, one of 17), then what mixtures, latent and recurrent layers take more.
    """
    if flash:
        return int(4 * batch * _widest(facts, cells, flash=True)) + 3 * MIB
    widest = max(
        facts.layers, key=lambda n: n.heads * n.key_length * (n.kv_heads > 0), default=None
    )
    floats = 0.6 * facts.width
    attends = widest is not None and widest.kv_heads > 0
    if widest is not None and attends:
        cached = widest.kv_heads * (widest.key_length + widest.value_length)
        floats += 2.5 * widest.heads * widest.key_length + 0.9 * cached + widest.heads * cells
        floats += 1.8 * widest.heads * widest.latent
    if any(layer.state for layer in facts.layers):
        floats += (6 if attends else 13) * facts.width
    if attends:
        floats += 2.2 * facts.feed_forward
    if facts.experts_used:
        floats = max(floats, 1.15 * (5 + 2 * facts.experts_used) * facts.width)
    return int(4 * batch * floats) + 2 * MIB


def _scores(facts: ModelFacts, outputs: int) -> int:
    """Bytes of the scores of more than one token, where they are made and where they are handed out."""
    return 2 * 4 * facts.vocabulary * max(outputs - 1, 0)


def _reserved_work(facts: ModelFacts, batch: int, cells: int, *, flash: bool, outputs: int) -> int:
    """Bytes of work space that llama.cpp reserves on a GPU: the scores of a batch, or its widest step."""
    scores = facts.vocabulary * outputs + 2 * facts.width * batch
    return int(4 * max(scores, batch * _widest(facts, cells, flash=flash)))


def _widest(facts: ModelFacts, cells: int, *, flash: bool) -> float:
    """Numbers a token of a batch needs at the widest step of the model, `cells` tokens being cached.

    Held against what llama.cpp says it reserves (`no_alloc`) of 13 shapes at two contexts each.
    """
    width = facts.width
    sliding, attends = (
        any(n.window for n in facts.layers), any(n.kv_heads for n in facts.layers),
    )  # fmt: skip
    masks = cells * (0.5 if flash else 1) * (1 + sliding) if attends else 0
    attention = max((_attention_floats(n, cells, flash=flash) for n in facts.layers), default=0)
    inner = width + 4 * facts.feed_forward
    mixture = (5 + 2 * facts.experts_used) * width
    recurrent = 15 * width if any(layer.state for layer in facts.layers) else 0
    return masks + max(attention, inner, mixture, recurrent)


def _attention_floats(layer: Layer, cells: int, *, flash: bool) -> float:
    """Numbers a token of a batch needs to attend in that layer, the weights of every cell among them."""
    if not layer.kv_heads:
        return 0
    products = 0 if flash else layer.heads * cells
    if layer.latent:
        return 2.9 * layer.heads * layer.latent + products
    cached = layer.kv_heads * (layer.key_length + layer.value_length)
    return 5 * layer.heads * layer.key_length + cached + products
