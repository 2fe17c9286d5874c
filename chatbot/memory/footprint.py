"""How many bytes a model takes while it runs: weights, KV cache, buffers, runtime.

Weights and KV cache follow from the header alone. The buffers' formulas are fitted to measured growth
of the engine process (22 random-weight shapes, tests/memory/test_footprint.py measures some again):
they are about 5 % of the whole, so their own error of some percent vanishes in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from chatbot.memory.facts import Layer, ModelFacts

MIB = 1 << 20
CELLS = 256  # llama.cpp rounds the cache up to this many tokens

# Bytes per element of the KV cache; a quantised block holds 32 values and their scale.
KV_TYPES: Mapping[str, float] = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
PRECISIONS: Mapping[str, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
STORED_AS: Mapping[str, str] = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}

# What libraries take besides. CUDA: context, kernels and cuBLAS workspace; from general knowledge,
# to be replaced by what each load here measures.
CUDA_CONTEXT = 512 * MIB
TORCH_RUNTIME = 62 * MIB  # measured: model code and allocator after importing torch
VOCABULARY_ENTRY = 195  # measured: bytes of llama.cpp's token tables per token
LLAMA_RUNTIME = int(5.5 * MIB)  # measured over 11 shapes (benchmarks/memory_plan.py)

Place = Literal["ram", "gpu"]


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes by purpose in main memory and on the GPU; `growth` is what filling the context adds later."""

    ram: Mapping[str, int]
    gpu: Mapping[str, int]
    ram_growth: int = 0
    gpu_growth: int = 0

    def total(self, place: Place) -> int:
        """Bytes right after loading and reading a first prompt."""
        return sum((self.ram if place == "ram" else self.gpu).values())

    def peak(self, place: Place) -> int:
        """Bytes when a conversation fills the context."""
        return self.total(place) + (self.ram_growth if place == "ram" else self.gpu_growth)

    def corrected(self, ram: float, gpu: float) -> Footprint:
        """The same with other totals; the buffers take the difference, for the rest is read from headers."""
        return replace(self, ram=_corrected(self.ram, ram), gpu=_corrected(self.gpu, gpu))


def _corrected(parts: Mapping[str, int], factor: float) -> Mapping[str, int]:
    buffers = parts.get("buffers", 0) + round(sum(parts.values()) * (factor - 1))
    return {**parts, "buffers": max(buffers, 0)} if parts else parts


def kv_bytes(layers: tuple[Layer, ...], context: int, bytes_per_value: float) -> int:
    """The KV cache of these layers, every layer keeping the whole context, as llama.cpp does by default."""
    values = sum(n.kv_heads * (n.key_length + n.value_length) for n in layers)
    return int(values * context * bytes_per_value)


def llama_cpp_footprint(
    facts: ModelFacts, context: int, kv_type: str = "f16", batch: int = 512, gpu_layers: int = 0
) -> Footprint:
    """Bytes of llama.cpp: `gpu_layers` counts from the last layer, the output being the first of them.

    On the CPU the weights are read, not mapped: repacked quantised weights would stay twice otherwise.
    """
    count = len(facts.layers)
    gpu_layers = min(gpu_layers, count + 1) if gpu_layers >= 0 else count + 1
    offloaded = max(gpu_layers - 1, 0)
    blocks = facts.size_of_blocks()
    tables = LLAMA_RUNTIME + VOCABULARY_ENTRY * facts.vocabulary
    on_gpu = sum(blocks[count - offloaded :]) + (_output_bytes(facts) if gpu_layers else 0)
    copied = _output_bytes(facts) if gpu_layers and facts.tied else 0
    per_value = KV_TYPES[kv_type]
    cells = -(-context // CELLS) * CELLS
    first = min(cells, max(batch, CELLS))
    flash = kv_type != "f16" or gpu_layers > 0
    work = _llama_work(facts, batch, first, flash=flash)
    growth = _llama_work(facts, batch, cells, flash=flash) - work
    ram = {
        "weights": facts.size - on_gpu + copied,
        "kv": kv_bytes(facts.layers[: count - offloaded], cells, per_value),
        "buffers": work if offloaded < count else 2 * MIB,
        "runtime": tables,
    }
    if not gpu_layers:
        return Footprint(ram, {}, ram_growth=growth)
    gpu = {
        "weights": on_gpu,
        "kv": kv_bytes(facts.layers[count - offloaded :], cells, per_value),
        "buffers": _reserved_work(facts, batch, cells),
        "runtime": CUDA_CONTEXT,
    }
    return Footprint(ram, gpu, ram_growth=growth if offloaded < count else 0)


def transformers_footprint(
    facts: ModelFacts, context: int, precision: str, batch: int = 512, *, on_gpu: bool = False
) -> Footprint:
    """Bytes of transformers in fp32, bf16 or fp16; the cache holds the same type as the weights."""
    width = PRECISIONS[precision]
    weights = facts.parameters * width
    cache = kv_bytes(facts.layers, context, width)
    query = max((n.heads * n.key_length for n in facts.layers), default=0)
    parts = {
        "weights": weights,
        "kv": cache,
        "buffers": int(1.2 * 4 * batch * (facts.width + 4 * facts.feed_forward)) + MIB,
        "runtime": CUDA_CONTEXT if on_gpu else TORCH_RUNTIME,
    }
    growth = width * context * (2 * query + batch)
    if on_gpu:
        return Footprint({"runtime": TORCH_RUNTIME}, parts, gpu_growth=growth)
    # Weights of another type are converted while their file stays mapped.
    stored = facts.size_by_type().get(STORED_AS[precision], 0)
    converting = max(facts.size - stored - cache - parts["buffers"], 0)
    return Footprint({**parts, "loading": converting}, {}, ram_growth=growth)


def _output_bytes(facts: ModelFacts) -> int:
    name = "token_embd.weight" if facts.tied else "output.weight"
    return sum(tensor.size for tensor in facts.tensors if tensor.name == name)


def _llama_work(facts: ModelFacts, batch: int, cells: int, *, flash: bool) -> int:
    """Bytes of llama.cpp's work space that a prompt batch touches on the CPU, `cells` tokens being cached.

    Least squares over 13 and 22 measured rows: within 3 MiB with flash attention, 6 without (one of 17).
    """
    widest = max(facts.layers, key=lambda n: n.heads * n.key_length, default=None)
    if widest is None:
        return 2 * MIB
    query = widest.heads * widest.key_length
    cached = widest.kv_heads * (widest.key_length + widest.value_length)
    if flash:
        floats = (
            facts.width + 4 * facts.feed_forward + cells / 2
        )  # the mask is half a float a token
        return int(4 * batch * floats) + 3 * MIB
    floats = 0.6 * facts.width + 2.2 * facts.feed_forward + 2.5 * query + 0.9 * cached
    return int(4 * batch * (floats + widest.heads * cells)) + 2 * MIB


def _reserved_work(facts: ModelFacts, batch: int, cells: int) -> int:
    """Bytes of work space that llama.cpp reserves on a GPU: logits of a whole batch, or one layer."""
    logits = facts.vocabulary + 2 * facts.width
    layer = facts.width + 4 * facts.feed_forward + cells / 2
    return int(4 * batch * max(logits, layer))
