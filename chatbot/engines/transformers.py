"""Hugging Face folders through transformers: FP16 or BF16 on CUDA and MPS, BF16 or FP32 on a CPU.

Only local files, only safetensors, never code from a model's folder. The loop is our own, so that a
prompt is read in pieces that can be cancelled and the KV cache stays for the next turn.
"""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from chatbot.engines.adapter import tokenizer_of, with_adapter
from chatbot.engines.base import (
    REPEAT_WINDOW,
    Cancelled,
    Clock,
    EngineSpec,
    Finish,
    Transcript,
    never,
    seed_of,
    write,
)
from chatbot.engines.templates import ChatTemplate
from chatbot.errors import BrokenModel, ContextOverflow, MissingBackend, OutOfMemory, SettingsError
from chatbot.types import Delta, EngineInfo, GenerationOptions, Turn

DEFAULT_CONTEXT = 8192
_PRECISIONS = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
# Fine-tuned models often name only one of the tokens that end their answers.
_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "</s>")
_NO_ROOM_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


class Transformers:
    """One model folder; the KV cache remembers the last conversation."""

    def __init__(self, spec: EngineSpec) -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise MissingBackend(str(error), name=spec.title) from error
        self._torch: Any = torch
        self._transformers: Any = transformers
        self._model: Any
        self._cache: Any
        self._name = spec.title
        self._batch = max(1, spec.batch)
        self._device = spec.device or _best_device(torch)
        precision = spec.precision or _best_precision(torch, self._device)
        if precision not in _PRECISIONS:
            raise SettingsError(f"precision = {precision}")
        if spec.threads:
            torch.set_num_threads(spec.threads)
        with self._memory_watched():
            self._load(spec, getattr(torch, _PRECISIONS[precision]))
        self._read: list[int] = []
        self._cache = self._new_cache()
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
        trained = getattr(self._model.config.get_text_config(), "max_position_embeddings", 0) or 0
        wished = spec.context or DEFAULT_CONTEXT
        self._size = min(wished, trained) if trained else wished
        self._ends = self._end_tokens()
        self.info = EngineInfo(
            backend="transformers",
            model=spec.title,
            context=self._size,
            device=self._device,
            precision=precision,
            template=self._template.kind,
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
        pen = _Sampling(self, options, answer)
        try:
            with self._memory_watched():
                yield Delta(progress=0.0)
                for start in range(cached, len(prompt), self._batch):
                    if cancelled():
                        break
                    pen.logits = self.forward(prompt[start : start + self._batch])
                    yield Delta(progress=(len(self._read) - cached) / (len(prompt) - cached))
                finish: Finish = "cancelled"
                if len(self._read) == len(prompt):
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
            )
        )

    def count_tokens(self, turns: Sequence[Turn], *, thinking: bool = True) -> int:
        """The tokens of the rendered prompt."""
        rendered = self._template.render(turns, thinking=thinking)
        return len(self._transcript.tokens(rendered.text))

    def close(self) -> None:
        """Free the weights and the KV cache."""
        self._template.close()
        self._model = self._cache = None
        gc.collect()
        if self._device == "cuda":
            self._torch.cuda.empty_cache()

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
        self._bytes = _token_bytes(self._tokenizer)

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
        except self._torch.OutOfMemoryError as error:
            raise OutOfMemory(name=self._name) from error
        except RuntimeError as error:
            if any(words in str(error) for words in _NO_ROOM_WORDS):
                raise OutOfMemory(name=self._name) from error
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

    def _new_cache(self) -> Any:
        return self._transformers.DynamicCache(config=self._model.config)

    def _keep_common(self, prompt: list[int]) -> int:
        """Drop from the KV cache what differs from the prompt; return how many tokens stay."""
        same = 0
        for old, new in zip(self._read, prompt[:-1], strict=False):  # the last one makes the logits
            if old != new:
                break
            same += 1
        surplus = self._cache.get_seq_length() - same
        if surplus > 0 and same:
            try:
                self._cache.crop(-surplus)
            except (RuntimeError, ValueError, NotImplementedError):
                same = 0  # a sliding window or a recurrent state cannot be wound back
        if not same:
            self._cache = self._new_cache()
        self._read = prompt[:same]
        return same

    def forward(self, tokens: list[int]) -> Any:
        """Read these tokens; the logits after the last one, float32 on the CPU."""
        torch = self._torch
        try:
            with torch.inference_mode():
                result = self._model(
                    input_ids=torch.tensor([tokens], device=self._device),
                    past_key_values=self._cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
        except BaseException:
            # Some layers may have read these tokens and others not.
            self._cache, self._read = self._new_cache(), []
            raise
        self._read.extend(tokens)
        return result.logits[0, -1].float().cpu()

    @property
    def room(self) -> bool:
        """Whether one more token fits into the context."""
        return len(self._read) < self._size

    @property
    def ends(self) -> frozenset[int]:
        return self._ends


class _Sampling:
    """The pen of one answer: the same steps, in the same order, as llama.cpp's sampler chain."""

    def __init__(self, engine: Transformers, options: GenerationOptions, answer: list[int]) -> None:
        import torch

        self._engine = engine
        self._options = options
        self._answer = answer
        self._torch: Any = torch
        self._random = torch.Generator().manual_seed(seed_of(options))
        self.logits: Any = None

    def sample(self) -> int | None:
        token = self._choose(self.logits.clone())
        return None if token in self._engine.ends else token

    def piece(self, token: int) -> bytes:
        return self._engine.piece(token)

    def read(self, token: int) -> bool:
        if not self._engine.room:
            return False
        self.logits = self._engine.forward([token])
        return True

    def _choose(self, logits: Any) -> int:
        torch, options = self._torch, self._options
        if options.repeat_penalty != 1.0 and self._answer:
            recent = torch.tensor(sorted(set(self._answer[-REPEAT_WINDOW:])))
            found = logits[recent]
            penalty = options.repeat_penalty
            logits[recent] = torch.where(found > 0, found / penalty, found * penalty)
        if options.temperature <= 0:
            return int(logits.argmax())
        count = min(options.top_k, len(logits)) if options.top_k > 0 else len(logits)
        values, tokens = torch.topk(logits, count)
        shares = torch.softmax(values, dim=-1)
        before = shares.cumsum(-1) - shares
        likely = (before < options.top_p) & (shares >= options.min_p * shares[0])
        likely[0] = True
        values, tokens = values[likely], tokens[likely]
        chances = torch.softmax(values / options.temperature, dim=-1)
        return int(tokens[torch.multinomial(chances, 1, generator=self._random)])


class _Bytes:
    """The exact bytes that a token stands for; special tokens are silent unless asked for."""

    def __init__(self, tokens: dict[int, bytes], special: frozenset[int]) -> None:
        self._tokens = tokens
        self._special = special

    def __call__(self, token: int, *, special: bool) -> bytes:
        return b"" if token in self._special and not special else self._tokens.get(token, b"")


def _token_bytes(tokenizer: Any) -> _Bytes:
    layout = json.loads(tokenizer.backend_tokenizer.to_str())
    spell = _byte_level if "ByteLevel" in json.dumps(layout["decoder"]) else _sentence_piece
    added = {token["id"]: token for token in layout["added_tokens"]}
    tokens = {
        number: text.encode() if number in added else spell(text)
        for text, number in tokenizer.get_vocab().items()
    }
    special = frozenset(number for number, token in added.items() if token["special"])
    return _Bytes(tokens, special)


def _byte_level(text: str) -> bytes:
    # GPT-2's alphabet: a printable stand-in for each byte.
    return b"".join(_stand_ins().get(c, None) or c.encode() for c in text)


_alphabet: dict[str, bytes] = {}


def _stand_ins() -> dict[str, bytes]:
    if not _alphabet:
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in printable]
        _alphabet.update({chr(byte): bytes([byte]) for byte in printable})
        _alphabet.update({chr(256 + at): bytes([byte]) for at, byte in enumerate(others)})
    return _alphabet


def _sentence_piece(text: str) -> bytes:
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return bytes([int(text[3:5], 16)])
    return text.replace("▁", " ").encode()


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
