"""Two ways to make a model out of another, each run in a fresh process: seconds and peak memory.

The pages of the source are in the cache before each run; what the run before wrote is on the disk. The two
ways take turns. Peak memory is what the process held at most, mapped files included; `anonymous` leaves
those out (the highest of 20 looks a second).
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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.corpus import CACHE
from chatbot.settings import PROJECT

LAST_WORD = """
from chatbot.hardware.process import peak
print(peak())
"""


def parser(words: str, rounds: int) -> argparse.ArgumentParser:
    """The options that every such comparison has."""
    found = argparse.ArgumentParser(description=words.splitlines()[0])
    found.add_argument("--rounds", type=int, default=rounds)
    found.add_argument("--json", action="store_true")
    return found


def compare(ways: Mapping[str, str], options: argparse.Namespace, *sources: Path) -> None:
    """Run the scripts `hearth` and `transformers` in turns and print both; each gets the sources and a target."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    loads = [os.getloadavg()[0]]
    for number in range(options.rounds):
        for way in list(ways) if number % 2 == 0 else list(reversed(ways)):
            found[way].append(measure(ways[way], *sources))
            print(number + 1, way, found[way][-1], file=sys.stderr)
        loads.append(os.getloadavg()[0])
    print(json.dumps(summary(found, loads)) if options.json else table(summary(found, loads)))


def measure(script: str, *sources: Path) -> dict[str, float]:
    """Seconds and bytes of one run in a process of its own."""
    target = CACHE / "made"
    shutil.rmtree(target, ignore_errors=True)
    os.sync()
    warm(sources[0])
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", script + LAST_WORD, *map(str, sources), str(target)],
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
    assert process.returncode == 0, "it failed"
    peak = int(process.stdout.read().split()[-1])
    shutil.rmtree(target)
    return {"seconds": round(seconds, 2), "peak": peak, "anonymous": anonymous}


def warm(source: Path) -> None:
    """Have the system read the weights into its cache."""
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
    """Medians of both ways, and ours over theirs."""
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
    """The summary as a table for docs/benchmarks.md."""
    lines = ["| way | seconds | peak | anonymous |", "|---|---|---|---|"]
    for way, run in result["median"].items():
        peak, anonymous = run["peak"] / 1e6, run["anonymous"] / 1e6
        lines.append(f"| {way} | {run['seconds']:.1f} | {peak:.0f} MB | {anonymous:.0f} MB |")
    lines.append(
        f"\ntime × {result['time_ratio']}, peak memory × {result['peak_ratio']} (anonymous ×"
        f" {result['anonymous_ratio']}); median of {result['rounds']}, load {result['load']}"
    )
    return "\n".join(lines)
