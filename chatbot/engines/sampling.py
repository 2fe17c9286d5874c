"""Writing with llama.cpp: a sampler chain, and batches of one token and the draft that follows it."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Protocol

from chatbot.engines.base import REPEAT_WINDOW, seed_of
from chatbot.engines.drafting import LONGEST, Drafter
from chatbot.engines.pen import DraftingPen, Reader
from chatbot.types import GenerationOptions

_LAST = -1


class LlamaReader(Reader, Protocol):
    """llama.cpp's handles besides."""

    library: Any
    context: Any
    vocab: Any

    def take_in(self, batch: Any, token: int) -> None:
        """Read the batch, which begins with this token; what follows the token is only tried."""
        ...


class Sampling(DraftingPen):
    """The pen of one answer. With a drafter it reads several tokens at once, and writes the same ones.

    Each position is sampled by the same chain in the same order as without a draft; the draft only
    says which logits are there already.
    """

    def __init__(
        self, engine: LlamaReader, options: GenerationOptions, drafter: Drafter | None
    ) -> None:
        super().__init__(engine, drafter, options.max_tokens)
        self._engine = engine
        self._c = c = engine.library
        self._tokens = (ctypes.c_int32 * (1 + LONGEST))()
        self._batch = c.llama_batch_get_one(self._tokens, 1)
        self._every = (ctypes.c_int8 * (1 + LONGEST))(*[1] * (1 + LONGEST))
        self._batch.logits = self._every
        self._place = _LAST  # in the batch; the next token is sampled from its logits
        self._started = 0.0
        self._chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
        for step in self._steps(options):
            c.llama_sampler_chain_add(self._chain, step)

    def __enter__(self) -> Sampling:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._c.llama_sampler_free(self._chain)
        if self._draft:
            self._engine.withdraw()

    def sample(self) -> int | None:
        token = int(self._c.llama_sampler_sample(self._chain, self._engine.context, self._place))
        if self._drafter and self._started:  # only now a GPU has surely done its work
            seconds = time.perf_counter() - self._started
            self._drafter.experience.read(self._batch.n_tokens, seconds)
            self._started = 0.0
        return None if self._c.llama_vocab_is_eog(self._engine.vocab, token) else token

    def _read_on(self, token: int) -> None:
        self._tokens[0] = token
        for place, guess in enumerate(self._draft, 1):
            self._tokens[place] = guess
        self._batch.n_tokens = 1 + len(self._draft)
        self._place = 0
        if self._drafter:
            self._started = time.perf_counter()
        self._engine.take_in(self._batch, token)

    def _steps(self, options: GenerationOptions) -> Iterator[Any]:
        c = self._c
        if options.repeat_penalty != 1.0:
            size = c.llama_vocab_n_tokens(self._engine.vocab)
            yield c.llama_sampler_init_penalties(
                size, REPEAT_WINDOW, options.repeat_penalty, 0.0, 0.0
            )
        if options.temperature <= 0:
            yield c.llama_sampler_init_greedy()
            return
        if options.top_k > 0:
            yield c.llama_sampler_init_top_k(options.top_k)
        yield c.llama_sampler_init_top_p(options.top_p, 1)
        yield c.llama_sampler_init_min_p(options.min_p, 1)
        yield c.llama_sampler_init_temp(options.temperature)
        yield c.llama_sampler_init_dist(seed_of(options))
