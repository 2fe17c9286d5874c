"""Preparing a model as FP16 beside transformers' own way: time and peak memory, each in a fresh process.

    python -m benchmarks.prepare [--rounds 3] [--json]

A Llama of 1.1 billion random fp32 parameters in three shards (4.4 GB) is made at first use and kept
(HEARTH_BENCH_CACHE). Its pages are in the cache before each run; what the run before wrote is on the disk. The
two ways take turns. Peak memory is what the process held at most, mapped files included; `anonymous` leaves
those out (the highest of 20 looks a second). Ours also hashes every file and waits until the disk has it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.corpus import CACHE
from benchmarks.random_model import random_folder
from chatbot.settings import PROJECT

OURS = """
import sys
from pathlib import Path
from chatbot.models.fp16 import prepare
Path(sys.argv[2]).mkdir()
prepare(lambda *_, **__: None, source=Path(sys.argv[1]), target=Path(sys.argv[2]))
"""
THEIRS = """
import sys
import torch
from transformers import AutoModelForCausalLM
AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float16).save_pretrained(sys.argv[2])
"""
LAST_WORD = """
from chatbot.hardware.process import peak
print(peak())
"""
WAYS = {"hearth": OURS, "transformers": THEIRS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    source = random_folder()
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    loads = [os.getloadavg()[0]]
    for number in range(options.rounds):
        for way in list(WAYS) if number % 2 == 0 else list(reversed(WAYS)):
            found[way].append(measure(way, source))
            print(number + 1, way, found[way][-1], file=sys.stderr)
        loads.append(os.getloadavg()[0])
    print(json.dumps(summary(found, loads)) if options.json else table(summary(found, loads)))


def measure(way: str, source: Path) -> dict[str, float]:
    """Seconds and bytes of one run in a process of its own."""
    target = CACHE / "prepared"
    shutil.rmtree(target, ignore_errors=True)
    os.sync()
    warm(source)
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", WAYS[way] + LAST_WORD, str(source), str(target)],
        cwd=PROJECT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    anonymous = 0
    while process.poll() is None:
        anonymous = max(anonymous, anonymous_memory(process.pid))
        time.sleep(0.05)
    seconds = time.perf_counter() - began
    assert process.stdout is not None
    assert process.returncode == 0, f"{way} failed"
    peak = int(process.stdout.read().split()[-1])
    shutil.rmtree(target)
    return {"seconds": round(seconds, 2), "peak": peak, "anonymous": anonymous}


def warm(source: Path) -> None:
    for file in source.glob("*.safetensors"):
        with file.open("rb", buffering=0) as opened:
            while opened.read(1 << 24):
                pass


def anonymous_memory(pid: int) -> int:
    """Bytes that are the process's own and no mapped file; 0 where the system does not say."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    line = next((line for line in text.splitlines() if line.startswith("RssAnon:")), "")
    return int(line.split()[1]) << 10 if line else 0


def summary(found: dict[str, list[dict[str, float]]], loads: list[float]) -> dict[str, Any]:
    middle = {
        way: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for way, runs in found.items()
    }
    ours, theirs = middle["hearth"], middle["transformers"]
    return {
        "rounds": len(found["hearth"]),
        "median": middle,
        "time_ratio": round(ours["seconds"] / theirs["seconds"], 3),
        "peak_ratio": round(ours["peak"] / theirs["peak"], 4),
        "anonymous_ratio": round(ours["anonymous"] / max(theirs["anonymous"], 1), 4),
        "load": [round(load, 1) for load in loads],
    }


def table(result: dict[str, Any]) -> str:
    lines = ["| way | seconds | peak | anonymous |", "|---|---|---|---|"]
    for way, run in result["median"].items():
        peak, anonymous = run["peak"] / 1e6, run["anonymous"] / 1e6
        lines.append(f"| {way} | {run['seconds']:.1f} | {peak:.0f} MB | {anonymous:.0f} MB |")
    lines.append(
        f"\ntime × {result['time_ratio']}, peak memory × {result['peak_ratio']} (anonymous ×"
        f" {result['anonymous_ratio']}); median of {result['rounds']}, load {result['load']}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
