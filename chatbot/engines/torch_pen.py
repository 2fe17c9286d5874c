"""Writing with transformers: the same steps, in the same order, as llama.cpp's sampler chain.

The vocabulary's logits stay on the device; what may be drawn comes over in one small copy a read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

from chatbot.engines.base import REPEAT_WINDOW, seed_of
from chatbot.engines.drafting import Drafter
from chatbot.engines.pen import DraftingPen, Reader
from chatbot.types import GenerationOptions


class TorchReader(Reader, Protocol):
    """Reads on the device besides."""

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end an answer."""
        ...

    def take_in(self, tokens: Sequence[int], tried: Sequence[int] = ()) -> Any:
        """Read the tokens, and try those after them; logits after the last one and after each tried."""
        ...


class Sampling(DraftingPen):
    """The pen of one answer. With a drafter it reads several tokens at once, and writes the same ones."""

    def __init__(
        self,
        engine: TorchReader,
        options: GenerationOptions,
        answer: list[int],
        drafter: Drafter | None,
    ) -> None:
        import torch

        super().__init__(engine, drafter, options.max_tokens)
        self._torch: Any = torch
        self._engine = engine
        self._options = options
        self._answer = answer
        self._random = torch.Generator().manual_seed(seed_of(options))
        self._rows: list[tuple[Any, Any]] = []

    def look(self, logits: Any) -> None:
        """These logits, a row for each position, say what comes after what was read last."""
        self._rows, self._place = self._shortlists(logits), 0

    def sample(self) -> int | None:
        token = self._choose(*self._rows[self._place])
        return None if token in self._engine.ends else token

    def _read_on(self, token: int) -> None:
        started = time.perf_counter()
        self.look(self._engine.take_in([token], self._draft))
        if self._drafter:
            self._drafter.experience.read(1 + len(self._draft), time.perf_counter() - started)

    def _shortlists(self, logits: Any) -> list[tuple[Any, Any]]:
        """For each row the logits and numbers of the tokens that may be drawn, best first, on the CPU."""
        torch, options = self._torch, self._options
        with torch.inference_mode():
            if options.repeat_penalty != 1.0:
                self._penalise(logits)
            if options.temperature <= 0:
                return [(None, token) for token in logits.argmax(-1).tolist()]
            size = logits.shape[-1]
            count = min(options.top_k, size) if options.top_k > 0 else size
            values, tokens = torch.topk(logits, count)
            # One copy for both: the logits travel as their bits.
            both = torch.stack((values.view(torch.int32), tokens.int())).cpu()
        return list(zip(both[0].view(torch.float32), both[1], strict=True))

    def _penalise(self, logits: Any) -> None:
        torch, penalty = self._torch, self._options.repeat_penalty
        written = [*self._answer, *self._draft]
        ends = [len(self._answer) + row for row in range(len(logits))]
        recent = [sorted(set(written[:end][-REPEAT_WINDOW:])) for end in ends]
        if not recent[0]:
            return
        # Rows of one length: a token named twice is still penalised once.
        longest = max(map(len, recent))
        filled = [[*row, *row[:1] * (longest - len(row))] for row in recent]
        places = torch.tensor(filled, device=logits.device)
        found = logits.gather(1, places)
        logits.scatter_(1, places, torch.where(found > 0, found / penalty, found * penalty))

    def _choose(self, values: Any, tokens: Any) -> int:
        torch, options = self._torch, self._options
        if values is None:
            return int(tokens)
        shares = torch.softmax(values, dim=-1)
        before = shares.cumsum(-1) - shares
        likely = (before < options.top_p) & (shares >= options.min_p * shares[0])
        likely[0] = True
        values, tokens = values[likely], tokens[likely]
        chances = torch.softmax(values / options.temperature, dim=-1)
        return int(tokens[torch.multinomial(chances, 1, generator=self._random)])
