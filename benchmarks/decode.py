"""How much of llama.cpp's own decoding speed arrives at the reader.

    python -m benchmarks.decode [GGUF] [--threads N] [--rounds N] [--tokens N]

A drives the model directly, in this process, with the fewest calls there are: decode, sample, again.
B asks an engine worker and reads its stream. Both write the same number of tokens greedily after the same
prompt; A and B take turns, and the medians are compared. On a busy machine the seconds scatter; the
processor time per token (of the process that runs the model) is shown beside them.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from pathlib import Path

import psutil

from benchmarks.random_model import random_gguf
from chatbot.engines.base import EngineSpec
from chatbot.engines.worker import EngineWorker
from chatbot.types import GenerationOptions, Turn

PROMPT = "w1 w2 w3 " * 60


class Direct:
    """llama.cpp with nothing around it."""

    def __init__(self, file: Path, threads: int) -> None:
        from llama_cpp import llama_cpp as c

        self.c = c
        self.quiet = c.llama_log_callback(lambda _level, _text, _data: None)
        c.llama_log_set(self.quiet, None)
        c.llama_backend_init()
        parameters = c.llama_model_default_params()
        parameters.load_mode = c.LLAMA_LOAD_MODE_NONE
        self.model = c.llama_model_load_from_file(str(file).encode(), parameters)
        settings = c.llama_context_default_params()
        settings.n_ctx, settings.n_batch = 2048, 512
        settings.n_threads = settings.n_threads_batch = threads
        settings.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = c.llama_init_from_model(self.model, settings)
        self.sampler = c.llama_sampler_init_greedy()

    def write(self, tokens: int) -> tuple[float, float]:
        """Tokens per second of the clock and of the processor."""
        c = self.c
        data = PROMPT.encode()
        room = (ctypes.c_int32 * 1024)()
        vocabulary = c.llama_model_get_vocab(self.model)
        length = c.llama_tokenize(vocabulary, data, len(data), room, 1024, True, True)  # noqa: FBT003
        c.llama_memory_clear(c.llama_get_memory(self.context), True)  # noqa: FBT003
        for at in range(0, length, 512):
            part = (ctypes.c_int32 * min(512, length - at))(*room[at : min(length, at + 512)])
            c.llama_decode(self.context, c.llama_batch_get_one(part, len(part)))
        one = (ctypes.c_int32 * 1)()
        batch = c.llama_batch_get_one(one, 1)
        start, busy = time.perf_counter(), time.process_time()
        for _ in range(tokens):
            one[0] = c.llama_sampler_sample(self.sampler, self.context, -1)
            c.llama_decode(self.context, batch)
        return tokens / (time.perf_counter() - start), tokens / (time.process_time() - busy)


def through_worker(worker: EngineWorker, tokens: int) -> tuple[float, float]:
    """The same, from the end of reading the prompt to the last delta."""
    options = GenerationOptions(temperature=0, repeat_penalty=1.0, max_tokens=tokens)
    process = psutil.Process(worker.pid)
    start = busy = 0.0
    written = 0
    for delta in worker.stream([Turn("user", PROMPT)], options):
        if delta.progress is not None:
            start, busy = time.perf_counter(), _processor_seconds(process)
        if delta.stats is not None:
            written = delta.stats.answer_tokens
    if written != tokens:
        raise SystemExit(f"the model ended after {written} of {tokens} tokens")
    seconds = time.perf_counter() - start
    return tokens / seconds, tokens / (_processor_seconds(process) - busy)


def _processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", nargs="?", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=96)
    asked = parser.parse_args()
    file = asked.gguf or random_gguf()
    direct = Direct(file, asked.threads)
    worker = EngineWorker(
        EngineSpec("llama_cpp", path=str(file), context=2048, threads=asked.threads)
    )
    worker.load()
    pair = {"A direct": direct.write, "B worker and stream": lambda n: through_worker(worker, n)}
    speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in pair}
    for number in range(asked.rounds + 1):
        for name in list(pair) if number % 2 else list(pair)[::-1]:
            speed = pair[name](asked.tokens)
            if number:  # the first round warms up
                speeds[name].append(speed)
    worker.close()
    for place, unit in enumerate(("tokens per second", "tokens per processor second")):
        medians = []
        for name, measured in speeds.items():
            values = [speed[place] for speed in measured]
            medians.append(statistics.median(values))
            print(f"{name:20} {medians[-1]:6.1f} {unit}, {min(values):.1f} to {max(values):.1f}")
        print(f"B / A = {medians[1] / medians[0]:.3f}")


if __name__ == "__main__":
    main()
