"""What every engine shares: how it is specified, and how text leaves it whole."""

from __future__ import annotations

import codecs
import os
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Literal, Protocol

from chatbot.engines.drafting import Drafter
from chatbot.i18n import N_
from chatbot.types import Backend, Delta, GenerationOptions, GenerationStats

CONTEXT_FULL = N_("The model's context is full: the answer ends here.")
REPEAT_WINDOW = 64
"""How many of the answer's last tokens the repeat penalty looks at."""
REMEMBERED = 64
"""Prompts with their answers, the last turns of as many conversations at most; 4 bytes a token."""

Finish = Literal["stop", "length", "cancelled"]
Cancelled = Callable[[], bool]
"""Asked between tokens and, where a backend can, inside a batch: has the reader gone away?"""


def never() -> bool:
    """Nobody cancels."""
    return False


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Everything that decides how a model is loaded; equal specs mean the same engine.

    `path` is a GGUF file or a Hugging Face folder; `url` and `key` belong to remote engines.
    Zero and "" leave the choice to the backend: context (tokens), threads, precision, device.
    `gpu_layers` -1 puts every layer on the GPU. `adapter` runs a fine-tuned adapter on top of the model,
    unmerged: a PEFT folder for transformers, a LoRA GGUF for llama.cpp. Of several NVIDIA GPUs only
    `cards`, numbers as the driver has them, are used; `split` says how many layers each takes.
    `threads_batch` read a prompt, as many as `threads` where 0; `steady` keeps the threads as they are also
    while other programs keep the processor busy. `flash` is "on" or "off".
    """

    backend: Backend = "extractive"
    model_id: str = ""
    name: str = ""
    path: str = ""
    adapter: str = ""
    context: int = 0
    gpu_layers: int = 0
    kv_type: str = "f16"
    batch: int = 512
    threads: int = 0
    threads_batch: int = 0
    steady: bool = False
    flash: str = ""
    precision: str = ""
    device: str = ""
    cards: tuple[int, ...] = ()
    split: tuple[int, ...] = ()
    url: str = ""
    key: str = field(default="", repr=False)

    @property
    def title(self) -> str:
        """What people call this model."""
        return self.name or self.model_id or Path(self.path).name or self.backend


class Utf8Stream:
    """Bytes in, whole characters out; bytes that can never become a character turn into U+FFFD.

    The beginning of a character at the very end of an answer is left out.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> str:
        return self._decoder.decode(data)


class StopWords:
    """Lets text through up to the first stop word; what may become one is held back until it is clear."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """The part of what was fed so far that may be shown now."""
        if self.stopped:
            return ""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            shown, self._held = self._held[: min(found)], ""
            return shown
        return self._release(self._possible_start())

    def end(self) -> str:
        """What was held back, now that no stop word can follow."""
        return self._release(0)

    def _possible_start(self) -> int:
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0

    def _release(self, keep: int) -> str:
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown


class Clock:
    """Times one answer and turns it into its statistics."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._first: float | None = None

    def token(self) -> None:
        """A token was written now."""
        if self._first is None:
            self._first = time.perf_counter()

    def stats(
        self,
        *,
        prompt: int,
        cached: int,
        answer: int,
        context: int,
        finish: Finish,
        drafter: Drafter | None = None,
        restored: int = 0,
    ) -> GenerationStats:
        """The statistics as of now; the speed leaves reading the prompt out."""
        now = time.perf_counter()
        first = self._first if self._first is not None else now
        writing = now - first
        return GenerationStats(
            prompt_tokens=prompt,
            cached_tokens=cached,
            answer_tokens=answer,
            seconds_to_first_token=first - self._start,
            seconds=now - self._start,
            # The first token ends the reading, so the writing time holds one token less.
            tokens_per_second=(answer - 1) / writing if answer > 1 and writing > 0 else 0.0,
            context=context,
            finish=finish,
            restored_tokens=restored,
            drafted=drafter.drafted if drafter else 0,
            accepted=drafter.accepted if drafter else 0,
        )


class Tokenize(Protocol):
    """Text to tokens; `first` is False in the middle of a prompt, where no opening token belongs."""

    def __call__(self, text: str, *, first: bool) -> list[int]: ...


class Transcript:
    """Turns prompt text into tokens so that what the model wrote itself is recognised when it returns.

    A model may spell its answer with other tokens than the tokenizer would. Tokenising the whole
    conversation anew would then differ from what stands in the KV cache, and the answer would be read
    again. The transcript remembers the last prompts and answers and splices their tokens in, but
    only where the spelled text stays the same. Counting may ask while an answer is being written.
    """

    def __init__(
        self,
        tokenize: Tokenize,
        spell: Callable[[Sequence[int]], str],
    ) -> None:
        """`spell` is the inverse of `tokenize`, special tokens spelled out."""
        self._tokenize = tokenize
        self._spell = spell
        self._known: tuple[tuple[str, array[int], array[int]], ...] = ()

    def tokens(self, prompt: str) -> list[int]:
        """The tokens of this prompt; the same for the same prompt until the next `remember`."""
        begins_alike = [known for known in self._known if prompt.startswith(known[0])]
        before, prompt_tokens, answer = max(
            begins_alike, key=lambda known: len(known[0]), default=("", [], [])
        )
        if before and prompt == before:
            return list(prompt_tokens)
        plain = self._tokenize(prompt, first=True)
        if not before or not answer:
            return plain
        kept = self._returning(prompt[len(before) :], answer)
        rest = prompt[len(before) + len(self._spell(kept)) :]
        spliced = [*prompt_tokens, *kept, *self._tokenize(rest, first=False)]
        return spliced if self._spell(spliced) == self._spell(plain) else plain

    def remember(self, prompt: str, prompt_tokens: Sequence[int], answer: Sequence[int]) -> None:
        """This prompt was read as these tokens and answered with those."""
        others = tuple(known for known in self._known if known[0] != prompt)
        told = (prompt, array("i", prompt_tokens), array("i", answer))
        self._known = (*others, told)[-REMEMBERED:] if prompt else others

    def _returning(self, rest: str, answer: Sequence[int]) -> Sequence[int]:
        # The answer may return shortened: trimmed, cut before a stop word, or without its thoughts.
        spelled = self._spell(answer)
        alike = (one == other for one, other in zip(rest, spelled, strict=False))
        same = sum(takewhile(bool, alike))
        if same == len(spelled):
            return answer
        lengths = range(len(answer) + 1)
        longer = bisect_right(lengths, same, key=lambda n: len(self._spell(answer[:n])))
        kept = answer[: max(longer - 1, 0)]
        while kept and not rest.startswith(self._spell(kept)):
            kept = kept[:-1]
        return kept


class Pen(Protocol):
    """A model that has read its prompt and can go on, token by token."""

    def sample(self) -> int | None:
        """The next token; None when the model says that it has finished."""
        ...

    def piece(self, token: int) -> bytes: ...

    def read(self, token: int) -> bool:
        """Take the token in, so that the next can be sampled; False when the context is full."""
        ...


def write(
    pen: Pen,
    answer: list[int],
    max_tokens: int,
    stops: Sequence[str],
    clock: Clock,
    cancelled: Cancelled,
) -> Generator[Delta, None, Finish]:
    """Yield the answer's text and collect its tokens in `answer`; return why it ended."""
    words, characters = StopWords(stops), Utf8Stream()
    finish: Finish = "stop"
    while True:
        if cancelled():
            finish = "cancelled"
            break
        if len(answer) >= max_tokens:
            finish = "length"
            break
        token = pen.sample()
        if token is None:
            break
        clock.token()
        answer.append(token)
        if text := words.feed(characters.feed(pen.piece(token))):
            yield Delta(text=text)
        if words.stopped:
            break
        if not pen.read(token):
            finish = "length"
            yield Delta(notice=CONTEXT_FULL)
            break
    if text := words.end():
        yield Delta(text=text)
    return finish


def seed_of(options: GenerationOptions) -> int:
    """The seed asked for, or a fresh one; 32 bits, never llama.cpp's 'choose one' value."""
    seed = int.from_bytes(os.urandom(4), "big") if options.seed is None else options.seed
    return seed % 0xFFFFFFFF
