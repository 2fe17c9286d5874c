"""Our step `quantise` beside the bare llama_model_quantize call, on one random F16 model, by turns.

    python -m benchmarks.quantise [--parameters 1e9] [--type Q4_K_M] [--rounds 2]

Ours is the whole step as a job runs it: a process is started, the file written, opened again, shown to
llama.cpp, flushed to the disk and hashed. The bare call only writes. Both get the same threads and the
lowest priority, so that on a busy machine only processor time tells them apart; it is printed beside the
clock's, for the bare call without the start of its process.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WIDTH, INNER, HEADS, KV_HEADS, VOCABULARY = 2048, 5632, 16, 8, 32000
BARE = """
import ctypes, sys, time
from llama_cpp import llama_cpp as c
from chatbot.child import lower_priority
import os
lower_priority(os.getpid())
quiet = c.llama_log_callback(lambda *_: None)
c.llama_log_set(quiet, None)
params = c.llama_model_quantize_default_params()
params.ftype, params.nthread = int(sys.argv[3]), int(sys.argv[4])
started, before = time.monotonic(), time.process_time()
assert c.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(params)) == 0
print(time.monotonic() - started, time.process_time() - before)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=float, default=1e9)
    parser.add_argument("--type", default="Q4_K_M")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hearth quantise ") as folder:
        source = random_gguf(Path(folder) / "random-F16.gguf", arguments.parameters)
        print(f"{source.stat().st_size / 1e9:.2f} GB, {arguments.type}")
        seconds: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}
        for number in range(arguments.rounds):
            order = ("bare", "ours") if number % 2 == 0 else ("ours", "bare")
            for who in order:
                took = (bare if who == "bare" else ours)(source, arguments.type)
                seconds[who].append(took)
                print(
                    f"{who}: {took[0]:.1f} s by the clock, {took[1]:.1f} s of the processor",
                    flush=True,
                )
        for which, name in enumerate(("the clock", "processor time")):
            best = {who: min(each[which] for each in taken) for who, taken in seconds.items()}
            print(
                f"by {name}, ours runs at {best['bare'] / best['ours']:.3f} × the bare call's speed"
            )


def ours(source: Path, wanted: str) -> tuple[float, float]:
    from chatbot.models.making import run

    def quiet(_fraction: float, _message: str = "", **_values: Any) -> None:
        """Nobody listens."""

    with tempfile.TemporaryDirectory(dir=source.parent) as target:
        started, before = time.monotonic(), children_seconds()
        run("quantise", quiet, source=source, target=Path(target), type=wanted, threads=threads())
        return time.monotonic() - started, children_seconds() - before


def bare(source: Path, wanted: str) -> tuple[float, float]:
    from chatbot.memory.metadata import FILE_TYPES

    number = {name: number for number, name in FILE_TYPES.items()}[wanted]
    with tempfile.TemporaryDirectory(dir=source.parent) as target:
        file = Path(target) / "bare.gguf"
        command = [sys.executable, "-c", BARE, str(source), str(file), str(number), str(threads())]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        clock, processor = done.stdout.split()
        return float(clock), float(processor)


def children_seconds() -> float:
    """Processor seconds of every process that was started here and has ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def threads() -> int:
    import psutil

    return psutil.cpu_count(logical=False) or 1


def random_gguf(file: Path, parameters: float) -> Path:
    """A Llama of about so many random F16 weights."""
    import numpy as np
    from gguf import GGUFWriter, LlamaFileType

    random = np.random.default_rng(1)
    narrow = WIDTH * KV_HEADS // HEADS
    layer = 2 * WIDTH * WIDTH + 2 * WIDTH * narrow + 3 * WIDTH * INNER
    layers = max(1, round((parameters - 2 * VOCABULARY * WIDTH) / layer))
    noise = (random.standard_normal(VOCABULARY * WIDTH, np.float32) * 0.02).astype(np.float16)
    norm = np.ones(WIDTH, np.float32)
    writer = GGUFWriter(file, "llama")
    writer.add_file_type(LlamaFileType.MOSTLY_F16)
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"▁w{number}" for number in range(VOCABULARY)])
    writer.add_token_scores([0.0] * VOCABULARY)

    def put(name: str, rows: int, columns: int) -> None:
        writer.add_tensor(name, noise[: rows * columns].reshape(rows, columns))

    put("token_embd.weight", VOCABULARY, WIDTH)
    put("output.weight", VOCABULARY, WIDTH)
    writer.add_tensor("output_norm.weight", norm)
    for n in range(layers):
        for name, rows, columns in (
            ("attn_q", WIDTH, WIDTH), ("attn_k", narrow, WIDTH), ("attn_v", narrow, WIDTH),
            ("attn_output", WIDTH, WIDTH), ("ffn_gate", INNER, WIDTH), ("ffn_up", INNER, WIDTH),
            ("ffn_down", WIDTH, INNER),
        ):  # fmt: skip
            put(f"blk.{n}.{name}.weight", rows, columns)
        writer.add_tensor(f"blk.{n}.attn_norm.weight", norm)
        writer.add_tensor(f"blk.{n}.ffn_norm.weight", norm)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


if __name__ == "__main__":
    main()
