"""What importing Hearth costs over a bare Python: `python benchmarks/imports.py [rounds]`.

Fresh processes, the two alternated, medians. Target: at most 0.15 s more.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
TARGET = 0.15


def seconds(code: str) -> float:
    """Wall-clock seconds of a fresh Python that runs this code."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)
    return time.perf_counter() - start


def main(rounds: int) -> int:
    codes = {"bare Python": "pass", "chatbot, chatbot.services": "import chatbot, chatbot.services"}
    for code in codes.values():
        seconds(code)  # once for the byte code and the file cache
    taken: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(rounds):
        for name, code in codes.items():
            taken[name].append(seconds(code))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    for name, value in medians.items():
        print(f"{name:28} {value:.3f} s (median of {rounds})")
    bare, ours = medians.values()
    print(f"{'over bare Python':28} {ours - bare:.3f} s (target ≤ {TARGET} s)")
    return 0 if ours - bare <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 15))
