"""A loaded model that gives the logits of tokens: a folder through transformers, a GGUF through llama.cpp."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from chatbot.errors import BrokenModel, OutOfMemory
from chatbot.hardware.process import physical_cores
from chatbot.models.verify.llama import quiet
from chatbot.models.verify.number_types import Values
from chatbot.models.verify.stored import StoredModel, state_of

PIECE = 128
"""Tokens read at once, between two looks at whether the work is still wanted."""
CONTEXT = 2048
"""Tokens, where a model does not say how many it can read."""
SMALL = 50_000_000
_WITH_DATA = True


@dataclass(frozen=True, slots=True)
class Prompt:
    """Tokens to read; the logits from position `first` on are compared."""

    ids: list[int]
    first: int
    passage: bool = False


class Runner(Protocol):
    """A loaded model."""

    context: int
    precision: str

    def logits(self, prompt: Prompt) -> Iterator[Values]:
        """The logits after each position from `first` on, as they come: float32, positions × vocabulary."""

    def close(self) -> None: ...


def run(model: StoredModel, longest: int, *, wide: bool, adapter: Path | None = None) -> Runner:
    """The model, loaded on the CPU to read `longest` tokens; `wide` for float32 instead of bfloat16.

    Raises BrokenModel, OutOfMemory.
    """
    if model.form == "gguf":
        return GgufRunner(model, longest)
    return FolderRunner(model, wide=wide, adapter=adapter)


class FolderRunner:
    """A model folder through transformers, on the CPU, in float32 where there is room."""

    def __init__(self, model: StoredModel, *, wide: bool, adapter: Path | None = None) -> None:
        import torch
        import transformers

        self._torch: Any = torch
        self._transformers: Any = transformers
        transformers.utils.logging.disable_progress_bar()
        dtype = torch.float32 if wide else torch.bfloat16
        self.precision = "float32" if wide else "bfloat16"
        local = {"local_files_only": True, "trust_remote_code": False}
        try:
            if model.form == "pt":
                config = transformers.AutoConfig.from_pretrained(model.home, **local)
                loaded = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
                state = {name: t for file in model.files for name, t in state_of(file).items()}
                missing = loaded.load_state_dict(state, strict=False)
                tied = set(loaded.all_tied_weights_keys or ())
                if lost := [k for k in missing.missing_keys if k not in tied]:
                    raise BrokenModel(", ".join(lost[:3]), name=model.path.name)
            else:
                loaded, info = transformers.AutoModelForCausalLM.from_pretrained(
                    model.path, dtype=dtype, use_safetensors=True, output_loading_info=True, **local
                )
                if info["missing_keys"]:  # transformers would fill them with chance
                    raise BrokenModel(
                        ", ".join(sorted(info["missing_keys"])[:3]), name=model.path.name
                    )
            if adapter is not None:
                import peft

                loaded = peft.PeftModel.from_pretrained(
                    loaded, adapter, autocast_adapter_dtype=False
                )
                loaded = loaded.to(dtype)
        except BrokenModel:
            raise
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(name=model.path.name) from error
        except Exception as error:  # libraries raise bare classes of many kinds for damaged folders
            text = (str(error) or type(error).__name__).splitlines()[0]
            raise BrokenModel(text, name=model.path.name) from error
        self._model: Any = loaded.eval()
        config = loaded.config.get_text_config()
        self.context = int(getattr(config, "max_position_embeddings", 0) or CONTEXT)

    def logits(self, prompt: Prompt) -> Iterator[Values]:
        torch = self._torch
        cache = self._transformers.DynamicCache(config=self._model.config)
        for start in range(0, len(prompt.ids), PIECE):
            ids = prompt.ids[start : start + PIECE]
            kept = min(len(ids), max(0, start + len(ids) - prompt.first))
            with torch.inference_mode():
                result = self._model(
                    input_ids=torch.tensor([ids]),
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=max(kept, 1),
                )
            if kept:
                rows: Values = result.logits[0, -kept:].float().numpy()
                yield rows

    def close(self) -> None:
        self._model = None
        gc.collect()


class GgufRunner:
    """A GGUF file through llama.cpp, on the CPU, with a KV cache that rounds nothing."""

    def __init__(self, model: StoredModel, longest: int) -> None:
        self._c = quiet()
        self._name = model.path.name
        self.precision = "llama.cpp"
        params = self._c.llama_model_default_params()
        params.n_gpu_layers = 0
        self._model = self._c.llama_model_load_from_file(str(model.files[0]).encode(), params)
        if not self._model:
            raise BrokenModel("llama.cpp", name=self._name)
        trained = int(self._c.llama_model_n_ctx_train(self._model))
        self.context = min(longest, trained) if trained else longest
        options = self._c.llama_context_default_params()
        options.n_ctx = self.context
        options.n_batch = options.n_ubatch = PIECE
        options.type_k = options.type_v = 0  # GGML_TYPE_F32
        options.flash_attn_type = self._c.LLAMA_FLASH_ATTN_TYPE_DISABLED
        # Threads that wait for each other cost more than a small model's whole work.
        threads = physical_cores() if model.size > SMALL else 1
        options.n_threads = options.n_threads_batch = threads
        options.no_perf = True
        self._context = self._c.llama_init_from_model(self._model, options)
        if not self._context:
            self._c.llama_model_free(self._model)
            raise OutOfMemory(name=self._name)
        vocab = self._c.llama_model_get_vocab(self._model)
        self._width = int(self._c.llama_vocab_n_tokens(vocab))
        self._batch = self._c.llama_batch_init(PIECE, 0, 1)

    def logits(self, prompt: Prompt) -> Iterator[Values]:
        c, batch = self._c, self._batch
        c.llama_memory_clear(c.llama_get_memory(self._context), _WITH_DATA)
        for start in range(0, len(prompt.ids), PIECE):
            ids = prompt.ids[start : start + PIECE]
            wanted = []
            batch.n_tokens = len(ids)
            for i, token in enumerate(ids):
                batch.token[i], batch.pos[i] = token, start + i
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
                batch.logits[i] = start + i >= prompt.first
                if start + i >= prompt.first:
                    wanted.append(i)
            if code := c.llama_decode(self._context, batch):
                raise BrokenModel(f"llama_decode: {code}", name=self._name)
            if wanted:
                pointer = c.llama_get_logits(self._context)
                size = len(wanted) * self._width
                flat = np.ctypeslib.as_array(
                    ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (size,)
                )
                yield flat.reshape(len(wanted), self._width).copy()

    def close(self) -> None:
        if self._model:
            self._c.llama_batch_free(self._batch)
            self._c.llama_free(self._context)
            self._c.llama_model_free(self._model)
            self._model = None
