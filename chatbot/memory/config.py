"""What config.json says of a model: its geometry, and from it every tensor, with no weight at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from chatbot.errors import BrokenModel
from chatbot.i18n import N_
from chatbot.memory import shapes
from chatbot.memory.facts import Layer, ModelFacts, Tensor

MAX_LAYERS = 512
MAX_FIGURE = 1 << 31
ODD_FIGURE = N_("config.json gives no usable number for {part}.")

# Bytes of a number as config.json names its type, and as files do.
STORED: Mapping[str, tuple[str, int]] = {
    "float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2)
}  # fmt: skip

# What a config may leave out, because its architecture knows it.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "gemma": {"head_dim": 256},
    "gemma2": {"head_dim": 256, "sliding_window": 4096, "sliding_window_pattern": 2},
    "gemma3_text": {"head_dim": 256, "num_attention_heads": 8, "num_key_value_heads": 4,
                    "vocab_size": 262208, "sliding_window": 4096, "sliding_window_pattern": 6,
                    "max_position_embeddings": 131072},
    "cohere2": {"sliding_window": 4096, "sliding_window_pattern": 4},
    "gpt_oss": {"head_dim": 64, "sliding_window": 128, "sliding_window_pattern": 2},
    "qwen3": {"head_dim": 128},
    "mamba": {"num_attention_heads": 1},
    "mamba2": {"num_attention_heads": 1},
    "qwen3_next": {"full_attention_interval": 4},
    "falcon_h1": {"mamba_expand": 2},
}  # fmt: skip


def described(config: dict[str, Any], name: str, *, draw: bool = True) -> ModelFacts:
    """A model from its config alone, its tensors in the type that the config names. Raises BrokenModel.

    `estimated` is set where its family is not known and it was drawn as a Llama, or where it also sees. Without `draw`, no tensors.
    """
    merged = {**config, **_text_part(config)}
    kind = str(merged.get("model_type", ""))
    merged = {**DEFAULTS.get(kind, {}), **{k: v for k, v in merged.items() if v is not None}}
    figures = _Figures(merged, name)
    family = shapes.FAMILIES.get(kind)
    tied = merged.get("tie_word_embeddings", family.tied if family else False) is True
    layers = figures.layers()
    dense = figures.number(
        "intermediate_size", "n_inner", "ffn_dim", "block_ff_dim", default=4 * figures.width
    )
    mixed = shapes.experts(merged)
    used = shapes.experts_used(merged)
    if kind == "lfm2" and merged.get("block_auto_adjust_ff_dim") is True:
        dense = _adjusted(dense, figures)
    facts = ModelFacts(
        format="hf",
        path="",
        files=(),
        name=name,
        architecture=str(config.get("model_type", "")),
        writes_text=_writes_text(config),
        quantisation="",
        context=figures.number(
            "max_position_embeddings", "n_positions", "max_seq_len", default=2048
        ),
        vocabulary=figures.number("vocab_size"),
        width=figures.width,
        feed_forward=used * shapes.expert_width(merged) + shapes.shared_width(merged)
        if mixed and used
        else dense,
        layers=layers,
        tensors=(),
        chat_template=False,
        tokenizer=False,
        tied=tied,
        quantised_by=_quantised_by(config),
        experts=mixed,
        experts_used=used,
        estimated=family is None or "vision_config" in config,
    )
    if not draw:
        return replace(facts, estimated=False)
    stored, size = STORED.get(str(merged.get("torch_dtype", merged.get("dtype"))), ("BF16", 2))
    drawing = shapes.Plan(
        merged, kind, figures.number, figures.width, facts.vocabulary, dense, layers, tied
    )
    bare = (Tensor(tensor, shape, stored, 0) for tensor, shape in shapes.drawn(drawing))
    return replace(facts, tensors=tuple(replace(t, size=t.elements * size) for t in bare))


def _text_part(config: dict[str, Any]) -> dict[str, Any]:
    """Where a model that also sees or hears keeps the geometry of its writing half."""
    part = config.get("text_config")
    return part if isinstance(part, dict) else {}


def tied(config: dict[str, Any]) -> bool:
    """Whether the output layer is the embedding table."""
    return config.get("tie_word_embeddings") is True


def _writes_text(config: dict[str, Any]) -> bool:
    names = config.get("architectures")
    return isinstance(names, list) and any(
        str(name).endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))
        for name in names
    )


def _quantised_by(config: dict[str, Any]) -> str:
    settings = config.get("quantization_config")
    if settings is None:
        return ""
    return str(settings.get("quant_method", "?")) if isinstance(settings, dict) else "?"


def _adjusted(inner: int, figures: _Figures) -> int:
    """LFM2 makes its inner width two thirds of what its config says, and a multiple."""
    multiple = figures.number("block_multiple_of", default=256)
    return multiple * -(-(2 * inner // 3) // multiple)


class _Figures:
    """The numbers of a config, under any of the names that architectures give them."""

    def __init__(self, config: dict[str, Any], name: str) -> None:
        self._config = config
        self._name = name
        self.width = self.number("hidden_size", "n_embd", "d_model")

    def number(self, *names: str, default: int | None = None) -> int:
        found = next((self._config[n] for n in names if self._config.get(n) is not None), default)
        if type(found) is float and found.is_integer():
            found = int(found)
        if type(found) is not int or not 0 < found < MAX_FIGURE:
            raise BrokenModel(ODD_FIGURE, name=self._name, part=names[0])
        return found

    def layers(self) -> tuple[Layer, ...]:
        count = self.number("num_hidden_layers", "n_layer", "n_layers", "num_layers")
        if count > MAX_LAYERS:
            raise BrokenModel(ODD_FIGURE, name=self._name, part="num_hidden_layers")
        heads = self._per_layer(count, "num_attention_heads", "n_head", "n_heads")
        one_kv_head = self._config.get("multi_query") is True
        kv_heads = self._per_layer(
            count, "num_key_value_heads", "n_head_kv", default=[1] * count if one_kv_head else heads
        )
        length = self.number("head_dim", default=max(self.width // max(*heads, 1), 1))
        value, latent = length, 0
        if self._config.get("kv_lora_rank") is not None:
            rope = self.number("qk_rope_head_dim")
            length = self.number("qk_nope_head_dim") + rope
            value, kv_heads = self.number("v_head_dim"), heads
            if self._kind.startswith("deepseek"):  # llama.cpp unpacks it for every other family
                latent = self.number("kv_lora_rank") + rope
        state, attends = self._state(), self._attending(count)
        return tuple(
            Layer(
                heads[n], kv_heads[n] if attends[n] else 0, length, value, window, latent,
                state if self._always_recurrent or not attends[n] else 0,
            )
            for n, window in enumerate(self._windows(count))
        )  # fmt: skip

    @property
    def _kind(self) -> str:
        return str(self._config.get("model_type", ""))

    @property
    def _always_recurrent(self) -> bool:
        return self._kind == "falcon_h1"

    def _attending(self, count: int) -> list[bool]:
        """Which layers have attention; the others remember in another way."""
        if self._kind in ("mamba", "mamba2"):
            return [False] * count
        kinds = self._config.get("layer_types", self._config.get("layers_block_type"))
        if isinstance(kinds, list) and len(kinds) == count:
            return ["attention" in str(kind) and "linear" not in str(kind) for kind in kinds]
        for key in ("attn_layer_indices", "full_attn_idxs"):
            if isinstance(chosen := self._config.get(key), list):
                return [n in chosen for n in range(count)]
        if self._config.get("attn_layer_period") is not None:
            every = self.number("attn_layer_period")
            offset = self._config.get("attn_layer_offset")
            return [n % every == offset for n in range(count)]
        if self._config.get("full_attention_interval") is not None:
            every = self.number("full_attention_interval")
            return [(n + 1) % every == 0 for n in range(count)]
        return [True] * count

    def _state(self) -> int:
        """Values of one layer's recurrent state: its convolution's and its own."""
        kind, width = self._kind, self.width
        if kind in ("lfm2", "lfm2_moe"):
            return width * (self.number("conv_L_cache", default=3) - 1)
        if kind == "qwen3_next":
            key = self.number("linear_num_key_heads") * self.number("linear_key_head_dim")
            value = self.number("linear_num_value_heads") * self.number("linear_value_head_dim")
            past = self.number("linear_conv_kernel_dim", default=4) - 1
            return past * (2 * key + value) + self.number("linear_key_head_dim") * value
        past = self.number("mamba_d_conv", "conv_kernel", default=4) - 1
        if kind in ("mamba", "jamba"):
            inner = self.number("mamba_expand", "expand", default=2) * width
            return inner * (past + self.number("state_size", "mamba_d_state", default=16))
        if kind in ("mamba2", "falcon_h1", "bamba", "granitemoehybrid"):
            inner, state, groups, _ = shapes.mamba2(self.number, width)
            return past * (inner + 2 * groups * state) + inner * state
        return 0

    def _per_layer(self, count: int, *names: str, default: list[int] | None = None) -> list[int]:
        """One number for each layer, where the config gives one for all or one for each."""
        found = next((self._config[n] for n in names if self._config.get(n) is not None), default)
        numbers = found if isinstance(found, list) else [self.number(*names)] * count
        if len(numbers) != count or not all(
            type(n) is int and 0 <= n < MAX_FIGURE for n in numbers
        ):
            raise BrokenModel(ODD_FIGURE, name=self._name, part=names[0])
        return numbers

    def _windows(self, count: int) -> list[int | None]:
        """How far each layer looks back, None for all the way."""
        window = self._config.get("sliding_window")
        if type(window) is not int or window <= 0:
            return [None] * count
        kinds = self._config.get("layer_types")
        if isinstance(kinds, list) and len(kinds) == count:
            return [window if kind == "sliding_attention" else None for kind in kinds]
        every = self._config.get("sliding_window_pattern")
        if type(every) is int and every > 1:
            return [None if (n + 1) % every == 0 else window for n in range(count)]
        slides = self._config.get("use_sliding_window", self._config.get("model_type") == "mistral")
        return [window if slides is True else None] * count
