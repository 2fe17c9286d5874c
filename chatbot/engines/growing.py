"""Reading with a KV cache that grows with the text: transformers' own, right for every architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Growing:
    """One model and its growing cache; `reason` says why it is not one of fixed place."""

    recorded = False

    def __init__(self, torch: Any, model: Any, device: str, reason: str = "") -> None:
        self._torch, self._model, self._device = torch, model, device
        self.reason = reason
        self._cache = self._empty()

    @property
    def rewinds(self) -> bool:
        """Whether tokens can be read on trial: a sliding window or a recurrent state cannot go back."""
        from transformers.cache_utils import DynamicLayer

        return all(type(layer) is DynamicLayer for layer in self._cache.layers)

    def read(self, tokens: Sequence[int], keep: int = 1) -> Any:
        """Read these tokens; the logits after the last `keep` of them, float32, the caller's to change."""
        torch = self._torch
        with torch.inference_mode():
            result = self._model(
                input_ids=torch.tensor([tokens], device=self._device),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=keep,
            )
            return result.logits[0].float()

    def forget(self, keep: int) -> int:
        """Wind back to the first `keep` tokens, or to none; how many stay."""
        surplus = self._cache.get_seq_length() - keep
        if surplus > 0 and keep:
            try:
                self._cache.crop(-surplus)
            except (RuntimeError, ValueError, NotImplementedError):
                keep = 0  # not every cache can be wound back
        if not keep:
            self._cache = self._empty()
        return keep

    def close(self) -> None:
        """Give the memory back."""
        self._model = self._cache = None

    def _empty(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self._model.config)
