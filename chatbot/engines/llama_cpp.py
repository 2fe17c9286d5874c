"""GGUF models through llama.cpp's own C API.

Driven directly rather than through llama-cpp-python's `Llama` class: its chat calls cannot end a prefill
batch early, cannot report progress and cut what does not fit.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
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
from chatbot.engines.exhaustion import names_memory
from chatbot.engines.give_way import GivingWay
from chatbot.engines.recall import Recall, facts_of
from chatbot.engines.sampling import Sampling
from chatbot.engines.states import common
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

_complaints: deque[str] = deque(maxlen=30)
_log_callback: Any = None


class LlamaCpp:
    """One GGUF model with one context; the KV cache remembers the last conversation."""

    def __init__(
        self, spec: EngineSpec, drafter: Callable[[list[int]], Drafter] | None = None
    ) -> None:
        """`drafter` makes the drafter of one answer from its prompt's tokens; else the prompt is looked up."""
        try:
            from llama_cpp import __version__, llama_cpp
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
        self.read: list[int] = []
        experience = Experience()
        self._drafter = drafter or (lambda tokens: Drafter(PromptLookup(tokens), experience))
        self.forgets_parts = self._forgets_parts()
        self._can_try = self.forgets_parts and self._batch > LONGEST
        window = llama_cpp.llama_model_n_swa(self._model)  # a state holds no more of those layers
        self.whole_states = not self.forgets_parts or window > 0
        self._transcript = Transcript(self._tokenize, self._spell)
        self._never_abort = llama_cpp.ggml_abort_callback()
        bos, eos = llama_cpp.llama_vocab_bos(self.vocab), llama_cpp.llama_vocab_eos(self.vocab)
        self._bos = self._spell([bos]) if bos >= 0 else ""
        source = llama_cpp.llama_model_chat_template(self._model, None)
        self._template = ChatTemplate(
            source.decode("utf-8", "replace") if source else None,
            {"bos_token": self._bos, "eos_token": self._spell([eos]) if eos >= 0 else ""},
        )
        self.size = int(llama_cpp.llama_n_ctx(self.context))
        if spec.context:
            self.size = min(self.size, spec.context)  # llama.cpp rounds up
        facts = facts_of(spec, __version__, self.size if self._stretched() else 0)
        self.recall = Recall(self, self._transcript, facts)
        self.info = EngineInfo(
            backend="llama_cpp",
            model=spec.title,
            context=self.size,
            device=self._device(spec),
            precision=self._precision(),
            template=self._template.kind,
        )
        self._steady = spec.steady

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
        if len(prompt) >= self.size:
            raise ContextOverflow(needed=len(prompt) + 1, context=self.size)
        if rendered.notice:
            yield Delta(notice=rendered.notice)
        restored = self.recall.bring(options.conversation, prompt)
        cached = self._keep_common(prompt)
        shared = self._shared(turns, prompt, options.thinking) if options.conversation else 0
        pause = self.recall.pause(prompt, shared, cached)
        answer: list[int] = []
        drafter = self._drafter(prompt) if options.drafting and self._can_try else None
        try:
            with self._giving_way():
                for progress in self._prefill(prompt, cached, cancelled, pause):
                    yield Delta(progress=progress)
                finish: Finish = "cancelled"
                if len(self.read) == len(prompt):
                    stops = (*options.stop, *rendered.stops)
                    with Sampling(self, options, drafter) as pen:
                        finish = yield from write(
                            pen, answer, options.max_tokens, stops, clock, cancelled
                        )
        finally:
            self._transcript.remember(rendered.text, prompt, answer)
            self.recall.ended(rendered.text, prompt, answer)
        yield Delta(
            stats=clock.stats(
                prompt=len(prompt),
                cached=cached,
                answer=len(answer),
                context=self.size,
                finish=finish,
                drafter=drafter,
                restored=min(restored, cached),
            )
        )

    def count_tokens(self, turns: Sequence[Turn], *, thinking: bool = True) -> int:
        """The tokens of the rendered prompt."""
        rendered = self._template.render(turns, thinking=thinking)
        return len(self._transcript.tokens(rendered.text))

    def tune(self, report: Callable[[float], None], cancelled: Cancelled) -> Tuned | None:
        """What engines/tuning.py measures; the conversation's cache stays."""
        return measure(self.library, self._model, report, cancelled)

    def close(self) -> None:
        """Free the weights and the KV cache."""
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
        if len(spec.split) > 1:
            room = self.library.llama_max_devices()
            self._split = (ctypes.c_float * room)(*spec.split[:room])  # read while it loads
            params.tensor_split = self._split
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
        # Only a draft needs the scores of more than one token; a GPU would reserve every token's.
        params.n_outputs_max = min(self._batch, LONGEST + 1)
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

    def _giving_way(self) -> AbstractContextManager[object]:
        """Fewer threads while other programs want the processor, unless a person chose how many."""
        if self._steady:
            return nullcontext()
        return GivingWay(self._run_on, max(self._threads, self._threads_batch))

    def _run_on(self, threads: int) -> None:
        """Use at most so many threads from the next step on; may be called while another thread decodes."""
        self.library.llama_set_n_threads(
            self.context, min(threads, self._threads), min(threads, self._threads_batch)
        )

    def _complaint(self, kind: type[ModelError], otherwise: str) -> ChatbotError:
        said = list(_complaints)
        if no_room := _no_room():
            return OutOfMemory(no_room, name=self._name)
        return kind(said[0] if said else otherwise, name=self._name)

    def _stretched(self) -> bool:
        """Whether positions depend on the context's length, as in models with two sets of factors."""
        key = self._meta("general.architecture") + ".rope.scaling.original_context_length"
        return bool(self._meta(key))

    def _meta(self, key: str) -> str:
        text = ctypes.create_string_buffer(128)
        self.library.llama_model_meta_val_str(self._model, key.encode(), text, len(text))
        return text.value.decode("utf-8", "replace")

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
        same = common(self.read, prompt[:-1])  # the last one makes the logits
        return self._forget_after(prompt[:same])

    def _forget_after(self, kept: list[int]) -> int:
        # Recurrent models cannot forget a part of what they read, and a sliding window has let go of what
        # the tokens before must see.
        c = self.library
        forgot = c.llama_memory_seq_rm(self._memory, 0, len(kept), -1)
        seen_from = max(len(kept) - c.llama_model_n_swa(self._model), 0)
        if not forgot or (kept and c.llama_memory_seq_pos_min(self._memory, 0) > seen_from):
            c.llama_memory_clear(self._memory, _WITH_DATA)
            kept = []
        self.read = kept
        return len(kept)

    def _forgets_parts(self) -> bool:
        """Whether the last tokens read can be forgotten again; recurrent models forget all or nothing."""
        recurrent = self.library.llama_model_is_recurrent(self._model)
        hybrid = self.library.llama_model_is_hybrid(self._model)
        return not recurrent and not hybrid

    def _prefill(
        self, prompt: list[int], cached: int, cancelled: Cancelled, pause: int = 0
    ) -> Iterator[float]:
        # The callback takes Python's lock between the steps of a batch: cheap here, dear while writing.
        abort = self.library.ggml_abort_callback(lambda _data: cancelled())
        self.library.llama_set_abort_callback(self.context, abort, None)
        new = len(prompt) - cached
        start = time.perf_counter()
        try:
            yield 0.0
            while (at := len(self.read)) < len(prompt):
                end = pause if at < pause <= at + self._batch else at + self._batch
                piece = prompt[at:end]
                tokens = (ctypes.c_int32 * len(piece))(*piece)
                if cancelled() or not self.decode(
                    self.library.llama_batch_get_one(tokens, len(piece))
                ):
                    self._forget_after(self.read)
                    return
                self.read.extend(piece)
                if len(self.read) == pause:
                    self.recall.keep_shared()
                yield (len(self.read) - cached) / new
            self.recall.note(new, time.perf_counter() - start)
        finally:
            self.library.llama_set_abort_callback(self.context, self._never_abort, None)

    def _shared(self, turns: Sequence[Turn], prompt: list[int], thinking: bool) -> int:
        """How many of the prompt's tokens every conversation with this system prompt begins with."""
        if turns[0].role != "system":
            return 0
        for question in ("A", "1"):  # whatever is asked
            other = self._template.render([turns[0], Turn("user", question)], thinking=thinking)
            prompt = prompt[: common(prompt, self._tokenize(other.text, first=True))]
        return len(prompt)

    def state_size(self) -> int:
        """Bytes that the state of what was read takes."""
        return int(self.library.llama_state_seq_get_size(self.context, 0))

    def save(self, file: Path) -> bool:
        """Write what was read into that file; False when that failed."""
        tokens = (ctypes.c_int32 * len(self.read))(*self.read)
        return bool(
            self.library.llama_state_seq_save_file(
                self.context, str(file).encode(), 0, tokens, len(self.read)
            )
        )

    def restore(self, file: Path, tokens: Sequence[int]) -> bool:
        """Have these tokens read, from that file; False leaves the KV cache empty."""
        stored, count = (ctypes.c_int32 * len(tokens))(), ctypes.c_size_t()
        done = self.library.llama_state_seq_load_file(
            self.context, str(file).encode(), 0, stored, len(tokens), ctypes.byref(count)
        )
        if not done or list(stored[: count.value]) != list(tokens):
            self.library.llama_memory_clear(self._memory, _WITH_DATA)
            self.read = []
            return False
        self.read = list(tokens)
        return True

    def decode(self, batch: Any) -> bool:
        """Whether the batch was read; False when it was aborted."""
        _complaints.clear()  # what went wrong before says nothing about this
        code = self.library.llama_decode(self.context, batch)
        if code == 0:
            return True
        if code == _ABORTED:
            return False
        self.library.llama_memory_clear(self._memory, _WITH_DATA)
        self.read = []
        no_room = _no_room()  # a GPU may say so, and the call only that it failed
        if code == _NO_MEMORY or no_room:
            raise OutOfMemory(f"llama_decode: {code} {no_room}".strip(), name=self._name)
        raise EngineError(f"llama_decode: {code}")

    @property
    def room(self) -> int:
        """How many more tokens fit into the context."""
        return self.size - len(self.read)

    def take_in(self, batch: Any, token: int) -> None:
        """Read the answer's next token and whatever the batch tries after it."""
        self.decode(batch)
        self.read.append(token)

    def confirm(self, token: int) -> None:
        """The next tried token stays."""
        self.read.append(token)

    def withdraw(self) -> None:
        """Forget the tokens that were tried and not confirmed."""
        if not self.library.llama_memory_seq_rm(self._memory, 0, len(self.read), -1):
            raise EngineError("llama.cpp cannot forget a part of what it read")


def _no_room() -> str:
    """What llama.cpp said when it got no memory; "" when it did not."""
    return next((line for line in reversed(_complaints) if names_memory(line)), "")


def _listen_to_complaints(c: Any) -> None:
    """Keep llama.cpp's last errors, which name the cause of a failed load, and keep it quiet."""
    global _log_callback  # noqa: PLW0603  (llama.cpp keeps one callback per process)

    def hear(level: int, text: bytes, _data: Any) -> None:
        if level == _LOG_ERROR:
            line = text.decode("utf-8", "replace").strip()
            _complaints.append(line)
            if names_memory(line):
                print(line, file=sys.stderr, flush=True)  # noqa: T201  should llama.cpp end itself now

    _complaints.clear()
    if _log_callback is None:
        _log_callback = c.llama_log_callback(hear)
        c.llama_log_set(_log_callback, None)
