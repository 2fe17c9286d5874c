"""GGUF models through llama.cpp's own C API.

Driven directly rather than through llama-cpp-python's `Llama` class: its chat calls cannot end a prefill
batch early, cannot report progress and cut what does not fit.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from chatbot.engines.base import (
    Cancelled,
    Clock,
    EngineSpec,
    Finish,
    Transcript,
    never,
    write,
)
from chatbot.engines.drafting import LONGEST, Drafter, Experience, PromptLookup
from chatbot.engines.give_way import GivingWay
from chatbot.engines.sampling import Sampling
from chatbot.engines.templates import ChatTemplate
from chatbot.engines.tuning import measure
from chatbot.errors import (
    BrokenModel,
    ChatbotError,
    ContextOverflow,
    EngineError,
    MissingBackend,
    ModelError,
    OutOfMemory,
    SettingsError,
)
from chatbot.hardware.process import physical_cores
from chatbot.types import Delta, EngineInfo, GenerationOptions, Tuned, Turn

DEFAULT_CONTEXT = 8192
"""Tokens, when nobody chose: enough for ten passages and an answer, 1 GB of KV cache for a 3B model."""

_KV_TYPES = {"f16": 1, "q8_0": 8, "q4_0": 2}
_PARSE_SPECIAL = _WITH_DATA = True
_ABORTED = 2
_NO_MEMORY = -2
_LOG_ERROR = 4
_NO_ROOM_WORDS = ("failed to allocate", "unable to allocate", "out of memory", "bad_alloc")

_complaints: deque[str] = deque(maxlen=30)
_log_callback: Any = None


class LlamaCpp:
    """One GGUF model with one context; the KV cache remembers the last conversation."""

    def __init__(
        self, spec: EngineSpec, drafter: Callable[[list[int]], Drafter] | None = None
    ) -> None:
        """`drafter` makes the drafter of one answer from its prompt's tokens; else the prompt is looked up."""
        try:
            from llama_cpp import llama_cpp
        except ImportError as error:
            raise MissingBackend(str(error), name=spec.title) from error
        if spec.kv_type not in _KV_TYPES:
            raise SettingsError(f"kv_type = {spec.kv_type}")
        self.library: Any = llama_cpp
        self._name = spec.title
        self._batch = max(1, spec.batch)
        _listen_to_complaints(llama_cpp)
        llama_cpp.llama_backend_init()
        self._model = self._load(spec)
        self.vocab = llama_cpp.llama_model_get_vocab(self._model)
        adapter = self._load_adapter(spec) if spec.adapter else None
        self.context = self._open(spec)
        if adapter:
            self._apply(adapter)
        self._memory = llama_cpp.llama_get_memory(self.context)
        self._read: list[int] = []
        experience = Experience()
        self._drafter = drafter or (lambda tokens: Drafter(PromptLookup(tokens), experience))
        self._can_try = self._forgets_parts()
        self._transcript = Transcript(self._tokenize, self._spell)
        self._never_abort = llama_cpp.ggml_abort_callback()
        bos, eos = llama_cpp.llama_vocab_bos(self.vocab), llama_cpp.llama_vocab_eos(self.vocab)
        self._bos = self._spell([bos]) if bos >= 0 else ""
        source = llama_cpp.llama_model_chat_template(self._model, None)
        self._template = ChatTemplate(
            source.decode("utf-8", "replace") if source else None,
            {"bos_token": self._bos, "eos_token": self._spell([eos]) if eos >= 0 else ""},
        )
        self._size = int(llama_cpp.llama_n_ctx(self.context))
        if spec.context:
            self._size = min(self._size, spec.context)  # llama.cpp rounds up
        self.info = EngineInfo(
            backend="llama_cpp",
            model=spec.title,
            context=self._size,
            device=self._device(spec),
            precision=self._precision(),
            template=self._template.kind,
        )
        most = max(self._threads, self._threads_batch)
        self._giving_way = None if spec.steady else GivingWay(self._run_on, most)

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
        cached = self._keep_common(prompt)
        answer: list[int] = []
        drafter = self._drafter(prompt) if options.drafting and self._can_try else None
        try:
            for progress in self._prefill(prompt, cached, cancelled):
                yield Delta(progress=progress)
            finish: Finish = "cancelled"
            if len(self._read) == len(prompt):
                stops = (*options.stop, *rendered.stops)
                with Sampling(self, options, drafter) as pen:
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

    def tune(self, report: Callable[[float], None], cancelled: Cancelled) -> Tuned:
        """Measure which threads, batch and attention suit this model here; the conversation's cache stays."""
        return measure(self.library, self._model, report, cancelled)

    def close(self) -> None:
        """Free the weights and the KV cache."""
        if self._giving_way:
            self._giving_way.close()
        self._template.close()
        self.library.llama_free(self.context)
        self.library.llama_model_free(self._model)

    # --- loading

    def _load(self, spec: EngineSpec) -> Any:
        path = Path(spec.path)
        if not path.is_file():
            raise BrokenModel(f"{path}: no such file", name=self._name)
        params = self.library.llama_model_default_params()
        params.n_gpu_layers = 999 if spec.gpu_layers < 0 else spec.gpu_layers
        # On a CPU llama.cpp repacks quantised weights; with mmap both copies stay in memory.
        params.load_mode = (
            self.library.LLAMA_LOAD_MODE_AUTO
            if spec.gpu_layers
            else self.library.LLAMA_LOAD_MODE_NONE
        )
        model = self.library.llama_model_load_from_file(str(path).encode(), params)
        if not model:
            raise self._complaint(BrokenModel, "llama.cpp cannot open it")
        if not self.library.llama_model_has_decoder(model):
            raise BrokenModel("it does not write text", name=self._name)
        return model

    def _load_adapter(self, spec: EngineSpec) -> Any:
        """The LoRA, which lives as long as the model does."""
        path = Path(spec.adapter)
        if not path.is_file():
            raise BrokenModel(f"{path}: no such file", name=path.name)
        adapter = self.library.llama_adapter_lora_init(self._model, str(path).encode())
        if not adapter:
            raise self._complaint(ModelError, "llama.cpp cannot put this adapter on the model")
        return adapter

    def _apply(self, adapter: Any) -> None:
        adapters = (self.library.llama_adapter_lora_p_ctypes * 1)(adapter)
        if self.library.llama_set_adapters_lora(self.context, adapters, 1, (ctypes.c_float * 1)(1)):
            raise self._complaint(ModelError, "llama.cpp cannot put this adapter on the model")

    def _open(self, spec: EngineSpec) -> Any:
        trained = int(self.library.llama_model_n_ctx_train(self._model))
        params = self.library.llama_context_default_params()
        params.n_ctx = min(spec.context or DEFAULT_CONTEXT, trained) if trained else spec.context
        params.n_batch = params.n_ubatch = self._batch
        self._threads = spec.threads or physical_cores()
        self._threads_batch = spec.threads_batch or self._threads
        params.n_threads, params.n_threads_batch = self._threads, self._threads_batch
        params.type_k = params.type_v = _KV_TYPES[spec.kv_type]
        params.no_perf = True
        # A quantised V cache needs flash attention; on a CPU it costs 11 % of decoding otherwise.
        if spec.kv_type != "f16" or spec.flash == "on":
            params.flash_attn_type = self.library.LLAMA_FLASH_ATTN_TYPE_ENABLED
        elif spec.flash == "off" or not spec.gpu_layers:
            params.flash_attn_type = self.library.LLAMA_FLASH_ATTN_TYPE_DISABLED
        context = self.library.llama_init_from_model(self._model, params)
        if not context:
            raise self._complaint(ModelError, "llama.cpp cannot make a context for it")
        return context

    def _run_on(self, threads: int) -> None:
        """Use at most so many threads from the next step on; may be called while another thread decodes."""
        self.library.llama_set_n_threads(
            self.context, min(threads, self._threads), min(threads, self._threads_batch)
        )

    def _complaint(self, kind: type[ModelError], otherwise: str) -> ChatbotError:
        said = list(_complaints)
        if any(words in line for line in said for words in _NO_ROOM_WORDS):
            return OutOfMemory(name=self._name)
        return kind(said[0] if said else otherwise, name=self._name)

    def _device(self, spec: EngineSpec) -> str:
        if not spec.gpu_layers or not self.library.llama_supports_gpu_offload():
            return "cpu"
        backends = self.library.llama_print_system_info().decode("utf-8", "replace")
        return "cuda" if "CUDA" in backends else "mps" if "MTL" in backends else "gpu"

    def _precision(self) -> str:
        """Such as 'Q4_K - Medium': the description without architecture and size."""
        text = ctypes.create_string_buffer(128)
        self.library.llama_model_desc(self._model, text, len(text))
        return text.value.decode("utf-8", "replace").split(" ", 2)[-1]

    # --- tokens

    def _tokenize(self, text: str, *, first: bool) -> list[int]:
        data = text.encode("utf-8", "replace")
        # A template that writes the first token itself must not get it twice.
        special = first and not (self._bos and text.startswith(self._bos))
        room = len(data) + 16
        while True:
            tokens = (ctypes.c_int32 * room)()
            found = self.library.llama_tokenize(
                self.vocab, data, len(data), tokens, room, special, _PARSE_SPECIAL
            )
            if found >= 0:
                break
            room = -found
        found_tokens = list(tokens[:found])
        if special and self.library.llama_vocab_get_add_eos(self.vocab):
            found_tokens.pop()  # the answer follows
        return found_tokens

    def piece(self, token: int, *, special: bool = False) -> bytes:
        room = 64
        while True:
            text = ctypes.create_string_buffer(room)
            length = self.library.llama_token_to_piece(self.vocab, token, text, room, 0, special)
            if length >= 0:
                return text.raw[:length]
            room = -length

    def _spell(self, tokens: Sequence[int]) -> str:
        return b"".join(self.piece(t, special=True) for t in tokens).decode("utf-8", "replace")

    # --- reading and writing

    def _keep_common(self, prompt: list[int]) -> int:
        """Drop from the KV cache what differs from the prompt; return how many tokens stay."""
        same = 0
        for old, new in zip(self._read, prompt[:-1], strict=False):  # the last one makes the logits
            if old != new:
                break
            same += 1
        return self._forget_after(prompt[:same])

    def _forget_after(self, kept: list[int]) -> int:
        # Recurrent models cannot forget a part of what they read.
        if not self.library.llama_memory_seq_rm(self._memory, 0, len(kept), -1):
            self.library.llama_memory_clear(self._memory, _WITH_DATA)
            kept = []
        self._read = kept
        return len(kept)

    def _forgets_parts(self) -> bool:
        """Whether tried tokens can be forgotten again, and fit into one batch."""
        recurrent = self.library.llama_model_is_recurrent(self._model)
        hybrid = self.library.llama_model_is_hybrid(self._model)
        return not recurrent and not hybrid and self._batch > LONGEST

    def _prefill(self, prompt: list[int], cached: int, cancelled: Cancelled) -> Iterator[float]:
        # The callback takes Python's lock between the steps of a batch: cheap here, dear while writing.
        abort = self.library.ggml_abort_callback(lambda _data: cancelled())
        self.library.llama_set_abort_callback(self.context, abort, None)
        new = len(prompt) - cached
        try:
            yield 0.0
            for start in range(cached, len(prompt), self._batch):
                piece = prompt[start : start + self._batch]
                tokens = (ctypes.c_int32 * len(piece))(*piece)
                if cancelled() or not self.decode(
                    self.library.llama_batch_get_one(tokens, len(piece))
                ):
                    self._forget_after(self._read)
                    return
                self._read.extend(piece)
                yield (len(self._read) - cached) / new
        finally:
            self.library.llama_set_abort_callback(self.context, self._never_abort, None)

    def decode(self, batch: Any) -> bool:
        """Whether the batch was read; False when it was aborted."""
        code = self.library.llama_decode(self.context, batch)
        if code == 0:
            return True
        if code == _ABORTED:
            return False
        self.library.llama_memory_clear(self._memory, _WITH_DATA)
        self._read = []
        if code == _NO_MEMORY:
            raise OutOfMemory(name=self._name)
        raise EngineError(f"llama_decode: {code}")

    @property
    def room(self) -> int:
        """How many more tokens fit into the context."""
        return self._size - len(self._read)

    def take_in(self, batch: Any, token: int) -> None:
        """Read the answer's next token and whatever the batch tries after it."""
        self.decode(batch)
        self._read.append(token)

    def confirm(self, token: int) -> None:
        """The next tried token stays."""
        self._read.append(token)

    def withdraw(self) -> None:
        """Forget the tokens that were tried and not confirmed."""
        if not self.library.llama_memory_seq_rm(self._memory, 0, len(self._read), -1):
            raise EngineError("llama.cpp cannot forget a part of what it read")


def _listen_to_complaints(c: Any) -> None:
    """Keep llama.cpp's last errors, which name the cause of a failed load, and keep it quiet."""
    global _log_callback  # noqa: PLW0603  (llama.cpp keeps one callback per process)

    def hear(level: int, text: bytes, _data: Any) -> None:
        if level == _LOG_ERROR:
            _complaints.append(text.decode("utf-8", "replace").strip())

    _complaints.clear()
    if _log_callback is None:
        _log_callback = c.llama_log_callback(hear)
        c.llama_log_set(_log_callback, None)
