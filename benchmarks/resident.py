"""What a model on the CPU takes of main memory, beside its weights and KV cache: the peak after a full batch.

    python -m benchmarks.resident [GGUF] [--context N] [--batch N]

An engine worker loads the model and reads a prompt of more than one batch; what its process grew by at its
peak is divided by the bytes of the weights and of the whole KV cache. Goal: 1.12 for Q4_K_M. Beside it the
same with the file mapped into memory, as llama.cpp does by default: on a CPU the mapped file and the
repacked copy of its weights both stay.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.random_model import random_gguf
from chatbot.engines.base import EngineSpec
from chatbot.engines.worker import EngineWorker
from chatbot.memory.footprint import llama_cpp_footprint
from chatbot.memory.headers import read_model
from chatbot.memory.plan import USUAL_BATCH, USUAL_CONTEXT
from chatbot.types import GenerationOptions, GenerationStats, Growth, Turn

MAPPED = """
import ctypes, sys
from llama_cpp import llama_cpp as c
from chatbot.hardware.process import peak, resident
quiet = c.llama_log_callback(lambda *_: None)
c.llama_log_set(quiet, None)
before, batch = resident(), int(sys.argv[3])
loading = c.llama_model_default_params()
loading.load_mode = c.LLAMA_LOAD_MODE_MMAP
model = c.llama_model_load_from_file(sys.argv[1].encode(), loading)
params = c.llama_context_default_params()
params.n_ctx, params.n_batch, params.n_ubatch = int(sys.argv[2]), batch, batch
params.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_DISABLED
context = c.llama_init_from_model(model, params)
tokens = (ctypes.c_int32 * batch)(*range(3, 3 + batch))
assert c.llama_decode(context, c.llama_batch_get_one(tokens, batch)) == 0
print(peak() - before)
"""


def hearths(file: Path, context: int, batch: int) -> int:
    """Bytes that the engine worker grew by at its peak."""
    grown: list[int] = []

    def note(_worker: EngineWorker, growth: Growth, stats: GenerationStats | None) -> None:
        if stats:
            print(f"{stats.prompt_tokens} tokens read", flush=True)
        grown.append(growth.ram)

    spec = EngineSpec("llama_cpp", path=str(file), context=context, batch=batch)
    worker = EngineWorker(spec, observe=note)
    options = GenerationOptions(temperature=0, repeat_penalty=1.0, max_tokens=4)
    for _ in worker.stream([Turn("user", "w1 " * (batch // 2))], options):
        pass
    worker.close()
    return grown[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", nargs="?", type=Path)
    parser.add_argument("--context", type=int, default=USUAL_CONTEXT)
    parser.add_argument("--batch", type=int, default=USUAL_BATCH)
    asked = parser.parse_args()
    file = asked.gguf or random_gguf()
    parts = llama_cpp_footprint(read_model(file), asked.context, batch=asked.batch).ram
    needed = parts["weights"] + parts["kv"]
    command = [sys.executable, "-c", MAPPED, str(file), str(asked.context), str(asked.batch)]
    mapped = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    grown = hearths(file, asked.context, asked.batch)
    print(f"weights {parts['weights'] / 1e6:.0f} MB + KV cache {parts['kv'] / 1e6:.0f} MB")
    print(f"Hearth: {grown / 1e6:.0f} MB, {grown / needed:.3f} × weights and KV")
    print(f"mapped, as by default: {mapped / 1e6:.0f} MB, {mapped / needed:.3f} ×")


if __name__ == "__main__":
    main()
