"""A GGUF file's metadata, asked by meaning."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeGuard

from chatbot.errors import BrokenModel
from chatbot.i18n import N_
from chatbot.memory.config import MAX_FIGURE, MAX_LAYERS
from chatbot.memory.facts import AdapterFacts, Layer, ModelFacts, Tensor
from chatbot.memory.gguf import GgufHeader

# general.file_type of llama.cpp: the name people know the quantisation by.
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M",
    18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S",
    25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M",
    32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
}  # fmt: skip

# Architectures whose header gives a window but not which layers use it: every n-th layer sees all
# (src/llama-model.cpp, set_swa_pattern).
SLIDING_PATTERNS = {
    "gemma2": 2, "gemma3": 6, "gemma3n": 5, "cohere2": 4, "gpt-oss": 2, "exaone4": 4, "olmo2": 4,
}  # fmt: skip
NO_WRITERS = (
    "bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "modern-bert", "jina-bert-v2",
    "jina-bert-v3", "eurobert", "clip", "t5encoder", "wavtokenizer-dec", "gemma-embedding",
)  # fmt: skip

# Architectures whose layers all keep a recurrent state, some of them beside attention.
ALL_RECURRENT = ("mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7")
BOTH = ("falcon-h1",)
# Of the others, layers without key heads keep one, or all but every n-th.
HEADLESS = (
    "jamba", "granitehybrid", "lfm2", "lfm2moe", "nemotron_h", "nemotron_h_moe", "plamo2", "kimi-linear",
    "bailingmoe3",
)  # fmt: skip
INTERVALS = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}

_ODD = N_("its header gives no usable number for {part}.")


class Metadata:
    """One header, or the first of a split model's; `tensors` are those of all parts."""

    def __init__(self, header: GgufHeader, tensors: tuple[Tensor, ...], path: Path) -> None:
        self._header = header
        self._tensors = tensors
        self._path = path
        self._architecture = self._text("general.architecture")

    def facts(self) -> ModelFacts:
        kind = self._text("general.type") or "model"
        writes = kind == "model" and self._architecture not in NO_WRITERS
        if writes and not self._architecture:
            raise self._broken(_ODD, "general.architecture")
        return ModelFacts(
            format="adapter" if kind == "adapter" else "gguf",
            path=str(self._path),
            files=(),
            name=self._text("general.name") or self._path.stem,
            architecture=self._architecture,
            writes_text=writes,
            quantisation=self._quantisation(),
            context=self._figure("context_length") if writes else 0,
            vocabulary=self._vocabulary() if writes else 0,
            width=self._figure("embedding_length") if writes else 0,
            feed_forward=self._feed_forward() if writes else 0,
            layers=self._layers() if writes else (),
            tensors=self._tensors,
            chat_template=self._header.lengths.get("tokenizer.chat_template", 0) > 0,
            tokenizer=self._header.lengths.get("tokenizer.ggml.tokens", 0) > 0,
            tied=not any(tensor.name == "output.weight" for tensor in self._tensors),
            experts=self._figure("expert_count", 0) if writes else 0,
            experts_used=self._figure("expert_used_count", 0) if writes else 0,
            adapter=self._adapter() if kind == "adapter" else None,
        )

    def _adapter(self) -> AdapterFacts:
        """Of a LoRA file for llama.cpp: its targets by their names in the base's GGUF."""
        halves = [t for t in self._tensors if t.name.endswith(".lora_b") and len(t.shape) == 2]
        alpha = self._header.values.get("adapter.lora.alpha")
        return AdapterFacts(
            base="",
            kind="LoRA",
            rank=max((half.shape[-1] for half in halves), default=0),
            alpha=alpha if isinstance(alpha, float) and math.isfinite(alpha) else 0.0,
            targets=tuple(sorted({half.name.split(".")[-3] for half in halves})),
        )

    def _layers(self) -> tuple[Layer, ...]:
        heads = self._per_layer("attention.head_count", 0)
        kv_heads = self._per_layer("attention.head_count_kv", None) or heads
        width = self._figure("embedding_length")
        usual = width // max(*heads, 1)
        key = self._figure("attention.key_length", usual)
        value = self._figure("attention.value_length", usual)
        sliding_key = self._figure("attention.key_length_swa", key)
        sliding_value = self._figure("attention.value_length_swa", value)
        latent = 0
        if self._figure("attention.value_length_mla", 0):
            latent, kv_heads = key * max(kv_heads), heads
            key = self._figure("attention.key_length_mla")
            value = self._figure("attention.value_length_mla")
        windows, recurrent = self._windows(), self._recurrent(kv_heads)
        state = self._state(max(heads)) if any(recurrent) else 0
        keeping = len(heads) - self._figure("attention.shared_kv_layers", 0)
        both = self._architecture in BOTH
        layers = []
        for number, window in enumerate(windows):
            none = (recurrent[number] and not both) or number >= keeping
            layers.append(
                Layer(
                    heads[number],
                    0 if none else kv_heads[number],
                    sliding_key if window else key,
                    sliding_value if window else value,
                    window,
                    0 if none else latent,
                    state if recurrent[number] else 0,
                )
            )
        return tuple(layers)

    def _recurrent(self, kv_heads: list[int]) -> list[bool]:
        """Which layers keep a state of everything before, in place of every token's keys and values."""
        count = len(kv_heads)
        if self._architecture in (*ALL_RECURRENT, *BOTH):
            return [True] * count
        if self._architecture in HEADLESS:
            inner = self._per_layer("feed_forward_length", 0)
            alone = self._architecture.startswith("nemotron")  # its layers do one thing each
            return [kv_heads[n] == 0 and not (alone and inner[n]) for n in range(count)]
        if self._architecture in INTERVALS:
            every = self._figure("full_attention_interval", INTERVALS[self._architecture])
            named = self._value("attention.recurrent_layers")
            if isinstance(named, tuple) and len(named) == count:
                return [bool(n) for n in named]
            return [(n + 1) % max(every, 1) != 0 for n in range(count)]
        return [False] * count

    def _state(self, heads: int) -> int:
        """Values of one layer's recurrent state (src/llama-hparams.cpp, n_embd_r and n_embd_s)."""
        width = self._figure("embedding_length")
        if head := self._figure("wkv.head_size", 0):
            return width * (self._figure("token_shift_count", 2) + head)
        if short := self._figure("shortconv.l_cache", 0):
            return width * (short - 1)
        past = max(self._figure("ssm.conv_kernel", 0) - 1, 0)
        if head := self._figure("kda.head_dim", 0):
            return heads * head * (3 * (past or 3) + head)
        inner, state = self._figure("ssm.inner_size", 0), self._figure("ssm.state_size", 0)
        return past * (inner + 2 * self._figure("ssm.group_count", 0) * state) + inner * state

    def _feed_forward(self) -> int:
        """The inner width that a token goes through in the widest layer."""
        dense = max(self._per_layer("feed_forward_length", 0))
        if not self._figure("expert_used_count", 0):
            return dense
        one = max(self._per_layer("expert_feed_forward_length", 0)) or dense
        shared = self._figure("expert_shared_feed_forward_length", 0)
        shared = shared or one * self._figure("expert_shared_count", 0)
        return self._figure("expert_used_count") * one + shared

    def _windows(self) -> list[int | None]:
        count = self._block_count()
        window = self._figure("attention.sliding_window", 0)
        pattern = self._value("attention.sliding_window_pattern")
        if not window:
            return [None] * count
        if isinstance(pattern, tuple) and len(pattern) == count:
            return [window if slides else None for slides in pattern]
        every = pattern if type(pattern) is int else SLIDING_PATTERNS.get(self._architecture, 0)
        if every < 1:
            return [None] * count
        return [window if n % every < every - 1 else None for n in range(count)]

    def _block_count(self) -> int:
        count = self._figure("block_count")
        if not 0 < count <= MAX_LAYERS:
            raise self._broken(_ODD, "block_count")
        return count

    def _vocabulary(self) -> int:
        return self._header.lengths.get("tokenizer.ggml.tokens") or self._figure("vocab_size", 0)

    def _quantisation(self) -> str:
        label = FILE_TYPES.get(self._header.values.get("general.file_type", -1))
        if label:
            return label
        largest = max(self._tensors, key=lambda tensor: tensor.size, default=None)
        return largest.type if largest else ""

    def _per_layer(self, key: str, default: int | None) -> list[int]:
        """One number for each layer, where the file gives one for all or one for each."""
        found = self._value(key)
        count = self._block_count()
        if found is None:
            return [] if default is None else [default] * count
        numbers = list(found) if isinstance(found, tuple) else [found] * count
        if len(numbers) < count or not all(_is_figure(number) for number in numbers):
            raise self._broken(_ODD, key)
        return numbers[:count]

    def _figure(self, key: str, default: int | None = None) -> int:
        found = self._value(key)
        found = default if found is None else found
        if not _is_figure(found):
            raise self._broken(_ODD, key)
        return found

    def _value(self, key: str) -> Any:
        return self._header.values.get(f"{self._architecture}.{key}")

    def _text(self, key: str) -> str:
        found = self._header.values.get(key, "")
        if not isinstance(found, str):
            raise self._broken(_ODD, key)
        return found

    def _broken(self, detail: str, part: str) -> BrokenModel:
        return BrokenModel(detail, name=self._path.name, part=part)


def _is_figure(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < MAX_FIGURE
