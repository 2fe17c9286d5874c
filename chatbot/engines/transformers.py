"""Hugging Face folders through transformers: FP16 or BF16 on CUDA and MPS, BF16 or FP32 on a CPU.

Only local files, only safetensors, never code from a model's folder. The loop is our own, so that a
prompt is read in pieces that can be cancelled and the KV cache stays for the next turn.
"""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from chatbot.engines.adapter import tokenizer_of, with_adapter
from chatbot.engines.base import (
    Cancelled,
    Clock,
    EngineSpec,
    Finish,
    Transcript,
    never,
    write,
)
from chatbot.engines.drafting import Drafter, Experience, Guesses, PromptLookup
from chatbot.engines.exhaustion import names_memory
from chatbot.engines.growing import Growing
from chatbot.engines.static import Static, Unsuitable
from chatbot.engines.templates import ChatTemplate
from chatbot.engines.token_bytes import token_bytes
from chatbot.engines.torch_pen import Sampling
from chatbot.errors import BrokenModel, ContextOverflow, MissingBackend, OutOfMemory, SettingsError
from chatbot.types import Delta, EngineInfo, GenerationOptions, Turn

log = logging.getLogger(__name__)

DEFAULT_CONTEXT = 8192
_PRECISIONS = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
_TORCH_NAMES = {"rocm": "cuda"}
# Fine-tuned models often name only one of the tokens that end their answers.
_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "</s>")


class Transformers:
    """One model folder; the KV cache remembers the last conversation."""

    def __init__(
        self,
        spec: EngineSpec,
        guesses: Callable[[Sequence[int]], Guesses] = PromptLookup,
        *,
        static: bool | None = None,
    ) -> None:
        """`guesses` takes the prompt's tokens and guesses how the answer goes on.

        `static` asks for a KV cache of fixed place, or for one that grows; on a GPU it is fixed by itself.
        """
        try:
            import torch
            import transformers
        except ImportError as error:
            raise MissingBackend(str(error), name=spec.title) from error
        self._torch: Any = torch
        self._transformers: Any = transformers
        self._model: Any
        self._name = spec.title
        self._batch = max(1, spec.batch)
        self._device = _TORCH_NAMES.get(spec.device, spec.device) or _best_device(torch)
        precision = spec.precision or _best_precision(torch, self._device)
        if precision not in _PRECISIONS:
            raise SettingsError(f"precision = {precision}")
        if spec.threads:
            torch.set_num_threads(spec.threads)
        fixed = self._device != "cpu" if static is None else static
        with self._memory_watched():
            self._load(spec, getattr(torch, _PRECISIONS[precision]))
            trained = getattr(self._model.config.get_text_config(), "max_position_embeddings", 0)
            wished = spec.context or DEFAULT_CONTEXT
            self._size = min(wished, trained) if trained else wished
            self._reader = self._new_reader(fixed=fixed)
        self._read: list[int] = []
        self._guesses = guesses
        self._experience = Experience()
        self._transcript = Transcript(self._tokenize, self._spell)
        tokenizer = self._tokenizer
        self._template = ChatTemplate(
            _template_source(tokenizer),
            {
                name: text
                for name in ("bos_token", "eos_token", "unk_token", "pad_token")
                if isinstance(text := getattr(tokenizer, name, None), str)
            },
        )
        self._ends = self._end_tokens()
        self.info = EngineInfo(
            backend="transformers",
            model=spec.title,
            context=self._size,
            device=self._device,
            precision=precision,
            template=self._template.kind,
            steps="recorded" if self._reader.recorded else "launched",
            steps_reason=self._reader.reason,
        )

    def stream(
        self,
        turns: Sequence[Turn],
        options: GenerationOptions,
        cancelled: Cancelled = never,
    ) -> Iterator[Delta]:
        """Yield reading progress, text and at the end the stats. Raises ContextOverflow, OutOfMemory."""
        clock = Clock()
        rendered = self._template.render(turns, thinking=options.thinking)
        prompt = self._transcript.tokens(rendered.text)
        if len(prompt) >= self._size:
            raise ContextOverflow(needed=len(prompt) + 1, context=self._size)
        if rendered.notice:
            yield Delta(notice=rendered.notice)
        answer: list[int] = []
        cached = self._keep_common(prompt)
        drafter = None
        if options.drafting and self._reader.rewinds:
            drafter = Drafter(self._guesses(prompt), self._experience)
        pen = Sampling(self, options, answer, drafter)
        try:
            with self._memory_watched():
                yield Delta(progress=0.0)
                for start in range(cached, len(prompt), self._batch):
                    if cancelled():
                        break
                    logits = self.take_in(prompt[start : start + self._batch])
                    yield Delta(progress=(len(self._read) - cached) / (len(prompt) - cached))
                finish: Finish = "cancelled"
                if len(self._read) == len(prompt):
                    pen.look(logits)
                    stops = (*options.stop, *rendered.stops)
                    finish = yield from write(
                        pen, answer, options.max_tokens, stops, clock, cancelled
                    )
        finally:
            self._transcript.remember(rendered.text, prompt, answer)
        yield Delta(
            stats=clock.stats(
                prompt=len(prompt),
                cached=cached,
                answer=len(answer),
                context=self._size,
                finish=finish,
                drafter=drafter,
            )
        )

    def count_tokens(self, turns: Sequence[Turn], *, thinking: bool = True) -> int:
        """The tokens of the rendered prompt."""
        rendered = self._template.render(turns, thinking=thinking)
        return len(self._transcript.tokens(rendered.text))

    def close(self) -> None:
        """Free the weights and the KV cache."""
        self._template.close()
        self._reader.close()
        self._model = None
        self._give_back()

    # --- loading

    def _load(self, spec: EngineSpec, dtype: Any) -> None:
        folder = Path(spec.path)
        if not (folder / "config.json").is_file():
            raise BrokenModel(f"{folder}: no config.json", name=self._name)
        local = {"local_files_only": True, "trust_remote_code": False}
        self._transformers.utils.logging.disable_progress_bar()
        try:
            self._tokenizer = self._transformers.AutoTokenizer.from_pretrained(folder, **local)
            self._model = self._transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, **local
            )
            if spec.adapter:
                adapter = Path(spec.adapter)
                self._model = with_adapter(self._model, adapter)
                self._tokenizer = tokenizer_of(adapter, self._tokenizer)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
            raise BrokenModel(_first_line(error), name=self._name) from error
        except Exception as error:
            # safetensors and tokenizers raise bare classes of their own for damaged files.
            if type(error).__name__ == "SafetensorError" or type(error) is Exception:
                raise BrokenModel(_first_line(error), name=self._name) from error
            raise
        self._model.eval().to(self._device)
        self._bytes = token_bytes(self._tokenizer)

    def _give_back(self) -> None:
        gc.collect()
        if self._device.startswith("cuda"):
            self._torch.cuda.empty_cache()

    def _end_tokens(self) -> frozenset[int]:
        ends: set[int] = set()
        for config in (self._model.generation_config, self._tokenizer):
            named = getattr(config, "eos_token_id", None)
            ends.update([named] if isinstance(named, int) else named or ())
        vocabulary = self._tokenizer.get_vocab()
        special = set(self._tokenizer.all_special_tokens) | set(self._tokenizer.get_added_vocab())
        ends.update(vocabulary[end] for end in _ENDS if end in vocabulary and end in special)
        return frozenset(ends)

    @contextlib.contextmanager
    def _memory_watched(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, self._torch.OutOfMemoryError) or names_memory(str(error)):
                raise OutOfMemory(_first_line(error), name=self._name) from error
            raise

    # --- tokens

    def _tokenize(self, text: str, *, first: bool) -> list[int]:
        opening = self._tokenizer.bos_token
        # A template that writes the first token itself must not get it twice.
        special = first and not (opening and text.startswith(opening))
        tokens = self._tokenizer(text, add_special_tokens=special)["input_ids"]
        closing = self._tokenizer.eos_token
        if special and closing and not text.endswith(closing):
            while tokens and tokens[-1] == self._tokenizer.eos_token_id:
                tokens.pop()  # the answer follows
        return list(tokens)

    def _spell(self, tokens: Sequence[int]) -> str:
        return b"".join(self._bytes(token, special=True) for token in tokens).decode(
            "utf-8", "replace"
        )

    def piece(self, token: int) -> bytes:
        return self._bytes(token, special=False)

    # --- reading and writing

    def _new_reader(self, *, fixed: bool) -> Static | Growing:
        reason = ""
        if fixed:
            try:
                return Static(self._torch, self._model, self._size, self._batch, self._device)
            except Unsuitable as error:
                reason = str(error)
                log.warning("%s reads with a growing cache: %s", self._name, reason)
            self._give_back()
        return Growing(self._torch, self._model, self._device, reason)

    def _keep_common(self, prompt: list[int]) -> int:
        """Drop from the KV cache what differs from the prompt; return how many tokens stay."""
        same = 0
        for old, new in zip(self._read, prompt[:-1], strict=False):  # the last one makes the logits
            if old != new:
                break
            same += 1
        same = self._reader.forget(same)
        self._read = prompt[:same]
        return same

    def forward(self, tokens: list[int]) -> Any:
        """Read these tokens; the logits after the last one, float32."""
        return self.take_in(tokens)[-1]

    def take_in(self, tokens: Sequence[int], tried: Sequence[int] = ()) -> Any:
        """Read the tokens, and try those after them; logits after the last one and after each tried."""
        try:
            logits = self._reader.read([*tokens, *tried], 1 + len(tried))
        except BaseException:
            # Some layers may have read these tokens and others not.
            self._reader.forget(0)
            self._read = []
            raise
        self._read.extend(tokens)
        return logits

    def confirm(self, token: int) -> None:
        """The next tried token stays."""
        self._read.append(token)

    def withdraw(self) -> None:
        """Forget the tokens that were tried and not confirmed."""
        self._reader.forget(len(self._read))

    @property
    def room(self) -> int:
        """How many more tokens fit into the context."""
        return self._size - len(self._read)

    @property
    def ends(self) -> frozenset[int]:
        return self._ends


def _template_source(tokenizer: Any) -> str | None:
    source = getattr(tokenizer, "chat_template", None)
    return source.get("default") if isinstance(source, dict) else source


def _best_device(torch: Any) -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _best_precision(torch: Any, device: str) -> str:
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device == "mps":
        return "fp16"
    return "bf16" if _cpu_has_bf16(torch) else "fp32"


def _cpu_has_bf16(torch: Any) -> bool:
    # Without the instructions BF16 is emulated and slower than FP32.
    known = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in known)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
