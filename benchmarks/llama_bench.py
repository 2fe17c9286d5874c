"""Hearth's whole way of answering beside llama.cpp's own benchmark, by turns: reading a prompt, and writing.

    python -m benchmarks.llama_bench [GGUF] [--threads N] [--rounds N] [--program llama-bench]

A is llama-bench, compiled from the sources of the installed llama-cpp-python and linked with the very
libraries that were built from them here, so that both run the same machine code. B asks an engine
worker and reads its stream: tokens per second from the question to the first token, and between
the first and the last. Both take the same threads, batch and attention, and read the weights into memory
(no mmap). Medians, and the median of the ratio in each round; the goal is 0.97.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import distribution
from pathlib import Path

from benchmarks.random_model import random_gguf
from chatbot.engines.base import EngineSpec
from chatbot.engines.worker import EngineWorker
from chatbot.hardware.process import physical_cores
from chatbot.types import GenerationOptions, GenerationStats, Turn

PROMPT = 512


def llama_bench() -> Path:
    """The program, made in a minute at first use and kept in the temp folder: needs g++ and the network."""
    package = distribution("llama-cpp-python")
    digest = hashlib.sha256((package.read_text("RECORD") or "").encode()).hexdigest()[:8]
    program = Path(tempfile.gettempdir()) / "hearth-benchmarks" / f"llama-bench-{digest}"
    if program.exists():
        return program
    program.parent.mkdir(exist_ok=True)
    libraries = Path(str(package.locate_file("lib")))
    with tempfile.TemporaryDirectory() as folder:
        pinned = f"llama-cpp-python=={package.version}"
        command = ["-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([sys.executable, *command, "-d", folder, pinned], check=True)
        archive = next(Path(folder).glob("*.tar.gz"))
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        source = next(Path(folder).glob("*/vendor/llama.cpp"))
        headers = [source / part for part in ("include", "ggml/include", "common", "vendor")]
        linked = ("llama-common", "llama", "ggml", "ggml-base", "ggml-cpu")
        subprocess.run(
            [
                *("g++", "-O2", "-DNDEBUG", "-std=c++17", "-pthread", "-o", str(program)),
                *(f"-I{folder}" for folder in headers),
                *(str(file) for file in sorted((source / "tools/llama-bench").glob("*.cpp"))),
                *(f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-Wl,--allow-shlib-undefined"),
                *(f"-l{library}" for library in linked),
            ],
            check=True,
        )
    return program


def theirs(program: Path, file: Path, asked: argparse.Namespace) -> tuple[float, float]:
    """Tokens per second, read and written, by llama-bench."""
    command = (
        f"-p {PROMPT} -n {asked.tokens} -t {asked.threads} -b {asked.batch} -ub {asked.batch}"
        f" -fa {asked.flash} -lm none -ngl 0 -r 1 -o json"
    )
    told = subprocess.run(
        [str(program), "-m", str(file), *command.split()],
        capture_output=True,
        check=True,
        text=True,
    )
    read, written = json.loads(told.stdout)
    return float(read["avg_ts"]), float(written["avg_ts"])


def ours(file: Path, asked: argparse.Namespace) -> tuple[float, float]:
    """The same of an answer to a long question, and of one to a short question.

    In a fresh process, as llama-bench is: where its weights come to lie in memory is worth a tenth.
    """
    worker = EngineWorker(
        EngineSpec("llama_cpp", path=str(file), context=1024, batch=asked.batch,
                   threads=asked.threads, flash=asked.flash, steady=True)
    )  # fmt: skip
    try:
        worker.load()
        prompt = _prompt(worker)
        _ask(worker, f"w {prompt}", 4)  # warms up, as llama-bench does
        reading = _ask(worker, f"x {prompt}", 1)
        read = (reading.prompt_tokens - reading.cached_tokens) / reading.seconds_to_first_token
        return read, _ask(worker, "y", asked.tokens).tokens_per_second
    finally:
        worker.close()


def _ask(worker: EngineWorker, question: str, tokens: int) -> GenerationStats:
    options = GenerationOptions(
        temperature=0, repeat_penalty=1.0, max_tokens=tokens, drafting=False
    )
    *_, last = worker.stream([Turn("user", question)], options)
    if last.stats is None or last.stats.answer_tokens != tokens:
        raise SystemExit("the model ended early")
    return last.stats


def _prompt(worker: EngineWorker) -> str:
    """A question of as many tokens as llama-bench reads, or the nearest number below."""
    words = PROMPT
    while worker.count_tokens([Turn("user", f"x {'w1 ' * words}")]) > PROMPT:
        words -= 1
    return "w1 " * words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", nargs="?", type=Path)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--flash", choices=["on", "off"], default="off")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--program", type=Path, help="a llama-bench that was built before")
    asked = parser.parse_args()
    file, program = asked.gguf or random_gguf(), asked.program or llama_bench()
    measured: list[tuple[tuple[float, float], tuple[float, float]]] = []
    for number in range(1, asked.rounds + 1):
        if number % 2:
            a = theirs(program, file, asked)
            b = ours(file, asked)
        else:
            b = ours(file, asked)
            a = theirs(program, file, asked)
        measured.append((a, b))
        print(
            f"A read {a[0]:.1f} wrote {a[1]:.2f} · B read {b[0]:.1f} wrote {b[1]:.2f}", flush=True
        )
    for place, name in enumerate(("read", "wrote")):
        a, b = ([pair[who][place] for pair in measured] for who in (0, 1))
        ratios = [mine / other for other, mine in zip(a, b, strict=True)]
        print(
            f"{name}: llama-bench {statistics.median(a):.2f}, Hearth {statistics.median(b):.2f} tokens/s;"
            f" B / A = {statistics.median(b) / statistics.median(a):.3f},"
            f" by rounds {statistics.median(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
