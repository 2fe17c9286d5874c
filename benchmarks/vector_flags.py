"""Two builds of llama.cpp side by side: `python benchmarks/vector_flags.py MODEL.gguf A B [rounds]`.

A and B are folders with one build each: `python -m pip install --no-deps --target A wheel`. They are
alternated in fresh processes; medians of tokens per second of CPU time, on one thread, for reading a
prompt and for writing: other programs disturb that little.
"""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import subprocess
import sys
import time

PROMPT, ANSWER = 256, 32


def measure(model: str) -> None:
    """Print [prefill, decode] in tokens per CPU second of the llama.cpp that this process finds."""
    import llama_cpp as llama

    silent = llama.llama_log_callback(lambda *_: None)
    llama.llama_log_set(silent, ctypes.c_void_p(0))
    llama.llama_backend_init()
    loading = llama.llama_model_default_params()
    loading.n_gpu_layers = 0
    weights = llama.llama_model_load_from_file(model.encode(), loading)
    params = llama.llama_context_default_params()
    params.n_ctx = params.n_batch = 512
    params.n_ubatch = 256
    params.n_threads = params.n_threads_batch = 1
    context = llama.llama_init_from_model(weights, params)

    def read(tokens: list[int]) -> None:
        array = (llama.llama_token * len(tokens))(*tokens)
        if llama.llama_decode(context, llama.llama_batch_get_one(array, len(tokens))):
            raise SystemExit("llama_decode failed")

    for warm in (False, True):
        llama.llama_memory_clear(llama.llama_get_memory(context), True)  # noqa: FBT003 - a C function
        start = time.process_time()
        read([3 + i % 200 for i in range(PROMPT)])
        between = time.process_time()
        for i in range(ANSWER):
            read([3 + i])
        end = time.process_time()
        if warm:
            print(json.dumps([PROMPT / (between - start), ANSWER / (end - between)]))


def main(model: str, builds: list[str], rounds: int) -> None:
    taken: dict[str, list[list[float]]] = {build: [] for build in builds}
    for number in range(rounds):
        for build in builds if number % 2 else builds[::-1]:
            answer = subprocess.run(
                [sys.executable, __file__, model],
                env={**os.environ, "PYTHONPATH": build},
                stdout=subprocess.PIPE,
                check=True,
            )
            taken[build].append(json.loads(answer.stdout))
    for build, values in taken.items():
        prefill, decode = (statistics.median(v) for v in zip(*values, strict=True))
        print(f"{build}: prefill {prefill:.1f} tokens/s, decode {decode:.1f} tokens/s")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        measure(sys.argv[1])
    else:
        main(sys.argv[1], sys.argv[2:4], int(sys.argv[4]) if len(sys.argv) > 4 else 9)
