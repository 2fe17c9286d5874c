"""What a quantised KV cache changes: `python -m benchmarks.kv_type [GGUF] [--tokens N]`.

The same tokens are read with the cache in f16, q8_0 and q4_0, each with flash attention as the engine has it,
and the scores of every position compared with those of f16: the divergence of the distributions (KL, in
nats), how often the likeliest token is the same one, and the processor time. A first row compares f16 without
flash attention, which is what rounding alone changes. Random weights by default; a real model tells more.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from pathlib import Path

import numpy as np

from benchmarks.random_model import random_gguf

KINDS = {"f16": 1, "q8_0": 8, "q4_0": 2}


class Model:
    """A model, read with one kind of cache after another."""

    def __init__(self, file: Path, threads: int) -> None:
        from llama_cpp import llama_cpp as c

        self.c, self.threads = c, threads
        self.quiet = c.llama_log_callback(lambda _level, _text, _data: None)
        c.llama_log_set(self.quiet, None)
        c.llama_backend_init()
        parameters = c.llama_model_default_params()
        parameters.load_mode = c.LLAMA_LOAD_MODE_NONE
        self.model = c.llama_model_load_from_file(str(file).encode(), parameters)
        self.vocabulary = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self.model))

    def read(self, tokens: list[int], kind: str, *, flash: bool) -> tuple[np.ndarray, float]:
        """Logarithms of the probabilities at each position, and processor seconds."""
        c = self.c
        settings = c.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = len(tokens)
        settings.n_threads = settings.n_threads_batch = self.threads
        settings.type_k = settings.type_v = KINDS[kind]
        on, off = c.LLAMA_FLASH_ATTN_TYPE_ENABLED, c.LLAMA_FLASH_ATTN_TYPE_DISABLED
        settings.flash_attn_type = on if flash else off
        context = c.llama_init_from_model(self.model, settings)
        batch = c.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for at, token in enumerate(tokens):
            batch.token[at], batch.pos[at] = token, at
            batch.n_seq_id[at], batch.seq_id[at][0], batch.logits[at] = 1, 0, 1
        start = time.process_time()
        if c.llama_decode(context, batch):
            raise RuntimeError(kind)
        seconds = time.process_time() - start
        room = ctypes.POINTER(ctypes.c_float * (len(tokens) * self.vocabulary))
        scores = np.array(ctypes.cast(c.llama_get_logits(context), room).contents, np.float64)
        c.llama_batch_free(batch)
        c.llama_free(context)
        scores = scores.reshape(len(tokens), self.vocabulary)
        scores -= scores.max(1, keepdims=True)
        return scores - np.log(np.exp(scores).sum(1, keepdims=True)), seconds


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("gguf", nargs="?", type=Path)
    options.add_argument("--tokens", type=int, default=384)
    options.add_argument("--threads", type=int, default=2)
    chosen = options.parse_args()
    model = Model(chosen.gguf or random_gguf(), chosen.threads)
    # Words come back, as they do in text, so that attention has something to find.
    random = np.random.default_rng(1)
    tokens = [int(n) for n in random.zipf(1.3, chosen.tokens) % (model.vocabulary - 300) + 257]
    exact, _ = model.read(tokens, "f16", flash=True)
    for kind, flash in (("f16", False), ("f16", True), ("q8_0", True), ("q4_0", True)):
        scores, seconds = model.read(tokens, kind, flash=flash)
        divergence = (np.exp(exact) * (exact - scores)).sum(1)
        same = (scores.argmax(1) == exact.argmax(1)).mean()
        print(
            f"{kind:5} flash attention {'on ' if flash else 'off'}  KL {divergence.mean():.6f}"
            f"  likeliest token the same {100 * same:5.1f} %  processor {seconds:5.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
