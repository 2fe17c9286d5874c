"""Reading with a KV cache of fixed place: nothing moves or grows, so that a GPU can replay its steps.

transformers' own StaticCache attends to every place it has at each step, counts the length in each layer and
cannot be wound back. Here the reader alone knows how far it read: winding back is writing over, and a
step attends to the first places only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from chatbot.engines.replay import Replay

SHAPES = (1, 8, 16)
"""Rows of the recorded steps; fewer tokens are padded: reading eight costs a GPU hardly more than two."""
WINDOW = 1024
"""A step attends to a multiple of so many places; each multiple is recorded once."""
_MOST_WINDOWS = 8
_ATTENTION = "hearth_grouped"
_NORMS = tuple(
    f"{family}RMSNorm"
    for family in ("Llama", "Mistral", "Qwen2", "Qwen3", "Phi3", "SmolLM3", "Granite")
)
"""Written alike: six small kernels that one does as well."""
_AGREE = 0.1
"""How far the logits may be from those with the growing cache, relative to how they scatter."""


class Unsuitable(Exception):
    """This model reads with a growing cache; the text says why."""


class Static:
    """One model and its cache of `size` tokens. Raises Unsuitable where the model needs another cache."""

    rewinds = True

    def __init__(self, torch: Any, model: Any, size: int, batch: int, device: str) -> None:
        self._torch, self._model, self._size, self._device = torch, model, size, device
        text = model.config.get_text_config()
        self._windows = _windows_of(model, size)
        self._groups = text.num_attention_heads // (
            getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        )
        # The last step may reach past the context with rows that nobody asked for.
        slots = _multiple(size + SHAPES[-1], 8)
        self._stride = max(WINDOW, _multiple(-(-slots // _MOST_WINDOWS), 8))
        self._counting = torch.arange(slots, device=device)
        self._given = torch.zeros(1 + SHAPES[-1], dtype=torch.long, device=device)
        self._cache: Any = _Places(torch, slots)
        self._open_or_shut = [
            torch.tensor(bias, dtype=model.dtype, device=device) for bias in (0.0, float("-inf"))
        ]
        self._logits: Any = None
        self._replay = Replay(torch, device)
        self._read = 0
        with torch.inference_mode():
            self._prove(max(min(batch, size // 2), 3))

    @property
    def recorded(self) -> bool:
        """Whether steps are replayed."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why steps are launched anew instead of replayed; empty when they are replayed."""
        return self._replay.reason

    def read(self, tokens: Sequence[int], keep: int = 1) -> Any:
        """Read these tokens; the logits after the last `keep` of them, float32, valid until the next read."""
        with self._torch.inference_mode():
            if len(tokens) <= SHAPES[-1]:
                logits = self._step(tokens)[len(tokens) - keep : len(tokens)]
            else:
                logits = self._piece(tokens, keep)
        self._read += len(tokens)
        return logits

    def forget(self, keep: int) -> int:
        """Wind back to the first `keep` tokens; how many stay."""
        if not keep:
            self._cache.clear()  # one broken number would spoil every later answer
        self._read = keep
        return keep

    def close(self) -> None:
        self._replay.forget()
        self._model = self._cache = self._logits = None

    # --- steps

    def _step(self, tokens: Sequence[int]) -> Any:
        """A step of fixed shape, replayed where that is possible; one row of logits a token."""
        torch = self._torch
        rows = next(shape for shape in SHAPES if shape >= len(tokens))
        given = [self._read, *tokens, *[tokens[-1]] * (rows - len(tokens))]
        self._given[: len(given)].copy_(torch.tensor(given))
        window = min(_multiple(self._read + rows, self._stride), len(self._counting))

        def step() -> None:
            result = self._forward(self._given[1 : 1 + rows], self._given[:1], window, rows)
            if self._logits is None:
                shape = (SHAPES[-1], result.shape[-1])
                self._logits = torch.empty(shape, dtype=torch.float32, device=self._device)
            self._logits[:rows].copy_(result)

        self._replay.run((rows, window), step)
        return self._logits

    def _piece(self, tokens: Sequence[int], keep: int) -> Any:
        """A piece of a prompt, of any length."""
        torch = self._torch
        window = min(_multiple(self._read + len(tokens), 8), len(self._counting))
        read = torch.tensor(tokens, device=self._device)
        start = torch.tensor([self._read], device=self._device)
        return self._forward(read, start, window, keep).float()

    def _forward(self, tokens: Any, start: Any, window: int, keep: int) -> Any:
        positions = start + self._counting[: len(tokens)]
        self._cache.positions, self._cache.window = positions, window
        result = self._model(
            input_ids=tokens[None],
            # Rows that nobody asked for may stand past the last position that the model knows.
            position_ids=positions.clamp(max=self._size - 1)[None],
            attention_mask=self._masks(positions, window),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        return result.logits[0]

    def _masks(self, positions: Any, window: int) -> Any:
        """One additive mask, or one for each kind of layer; a row for each query head of a group."""
        torch = self._torch
        rows, places = positions.repeat(self._groups)[:, None], self._counting[:window]
        masks = {}
        for kind, reach in self._windows.items():
            seen = places <= rows
            if reach is not None:
                seen &= places > rows - reach
            masks[kind] = torch.where(seen, *self._open_or_shut)[None, None]
        return masks if len(masks) > 1 else next(iter(masks.values()))

    # --- trust

    def _prove(self, count: int) -> None:
        """Hold some logits against those of the growing cache; this also claims a batch's memory."""
        vocabulary = self._model.get_input_embeddings().weight.shape[0]
        text = [(7 * at + 11) % vocabulary for at in range(count)]
        pieces = [(text, 1), (text[:3], 3), (text[:1], 1)]
        right = self._grown(pieces)
        with _adapted(self._model):
            try:
                found = [self.read(*piece).clone() for piece in pieces]
                self.forget(count)
                found += [self.read(*piece).clone() for piece in pieces[1:]]  # as it is replayed
            except self._torch.OutOfMemoryError:
                raise
            except Exception as error:
                raise Unsuitable(f"{type(error).__name__}: {error}") from error
            for known, ours in zip([*right, *right[1:]], found, strict=True):
                if not (known - ours).norm() <= _AGREE * (known - known.mean()).norm():
                    raise Unsuitable("the logits differ from those with a growing cache")
        self.forget(0)

    def _grown(self, pieces: Sequence[tuple[list[int], int]]) -> list[Any]:
        from transformers import DynamicCache

        cache = DynamicCache(config=self._model.config)
        logits = []
        for tokens, keep in pieces:
            result = self._model(
                input_ids=self._torch.tensor([tokens], device=self._device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=keep,
            )
            logits.append(result.logits[0].float())
        return logits


class _Places:
    """Keys and values of every layer, `slots` places each; `positions` are written, `window` places read."""

    is_compileable = True

    def __init__(self, torch: Any, slots: int) -> None:
        self._torch, self._slots = torch, slots
        self._layers: dict[int, tuple[Any, Any]] = {}
        self.positions: Any = None
        self.window = 0

    def update(
        self, keys: Any, values: Any, layer_idx: int, *_args: Any, **_named: Any
    ) -> tuple[Any, Any]:
        """Write at `positions`; all that a step may attend to."""
        if layer_idx not in self._layers:
            self._layers[layer_idx] = (self._empty(keys), self._empty(values))
        kept = self._layers[layer_idx]
        for places, new in zip(kept, (keys, values), strict=True):
            try:
                places.index_copy_(2, self.positions, new)
            except NotImplementedError:  # older MPS
                places[:, :, self.positions] = new
        return kept[0][:, :, : self.window], kept[1][:, :, : self.window]

    def get_seq_length(self, _layer_idx: int = 0) -> Any:
        """Asked by models that count positions themselves; a tensor, as a recorded step needs it."""
        return self.positions[0]

    def clear(self) -> None:
        """Zeros everywhere: what is masked is still multiplied by nothing, and nothing must not be NaN."""
        with self._torch.inference_mode():
            for places in (both for kept in self._layers.values() for both in kept):
                places.zero_()

    def _empty(self, like: Any) -> Any:
        shape = (1, like.shape[1], self._slots, like.shape[3])
        return self._torch.zeros(shape, dtype=like.dtype, device=like.device)


def _windows_of(model: Any, size: int) -> dict[str, int | None]:
    """How many tokens back each kind of layer looks; None: to the beginning. Raises Unsuitable."""
    from transformers.cache_utils import get_layer_types_and_kwargs

    if not (model._can_compile_fullgraph and model._supports_attention_backend):
        raise Unsuitable("its code changes with the length of the text")
    if model.config._attn_implementation != "sdpa":
        raise Unsuitable(f"its attention is {model.config._attn_implementation}")
    windows: dict[str, int | None] = {}
    for kind, named in zip(
        *get_layer_types_and_kwargs(model.config.get_text_config(decoder=True)), strict=True
    ):
        if kind == "full_attention":
            windows[kind] = None
        elif kind == "sliding_attention":
            reach = named["sliding_window"]
            windows[kind] = reach if reach < size else None
        else:
            raise Unsuitable(f"it has layers of the kind {kind}")
    return windows


@contextlib.contextmanager
def _adapted(model: Any) -> Iterator[None]:
    """Give the model attention by groups and norms in one kernel; take both away when that went wrong."""
    from transformers import AttentionInterface

    AttentionInterface.register(_ATTENTION, _grouped)
    before = model.config._attn_implementation
    norms = [part for part in model.modules() if type(part).__name__ in _NORMS]
    model.set_attn_implementation(_ATTENTION)
    for norm in norms:
        norm.forward = partial(_norm, norm)
    try:
        yield
    except BaseException:
        model.set_attn_implementation(before)
        for norm in norms:
            del norm.forward
        raise


def _norm(module: Any, hidden: Any) -> Any:
    from torch.nn.functional import rms_norm

    return rms_norm(hidden, (hidden.shape[-1],), module.weight, module.variance_epsilon)


def _grouped(
    _module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Any, None]:
    """Attention where the query heads of a group are rows of one head: no key or value is copied.

    query: (1, heads, rows, width), key and value: (1, key heads, places, width), attention_mask:
    (1, 1, heads in a group times rows, places). Raises ValueError for what it does not know.
    """
    from torch.nn.functional import scaled_dot_product_attention

    unknown = ("softcap", "s_aux", "position_bias", "head_mask")
    if any(others.get(name) is not None for name in unknown):
        raise ValueError("attention of its own kind")
    _, heads, rows, width = query.shape
    packed = query.reshape(1, key.shape[1], -1, width)
    found = scaled_dot_product_attention(
        packed, key, value, attn_mask=attention_mask, scale=scaling
    )
    return found.reshape(1, heads, rows, -1).transpose(1, 2).contiguous(), None


def _multiple(number: int, of: int) -> int:
    return -(-number // of) * of
