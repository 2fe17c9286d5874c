"""How right the memory plan is: `python -m benchmarks.memory_plan [--only NAME] [--json]`.

Each geometry is written as a GGUF file of random weights, planned (from the file, and once more from its
figures alone, as from a config.json), then loaded on the CPU by a fresh process that reads one whole batch.
Predicted is the plan's `total`, measured what the process grew by at its peak. Targets: median error
≤ 2.5 %, worst ≤ 6 %.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.geometries import Geometry, write_gguf
from chatbot.hardware.detect import detect, installed
from chatbot.memory.headers import read_model
from chatbot.memory.plan import Wishes, plan
from chatbot.settings import PROJECT

BATCH = 512
MEDIAN, WORST = 0.025, 0.06
MEASURE = PROJECT / "tests" / "memory" / "measured_growth.py"

GEOMETRIES = (
    Geometry("tiny, every head its own", 4, 512, 8, 8, 1376, 8192, "F16", 2048),
    Geometry("tiny, quantised", 4, 512, 8, 2, 1536, 8192, "Q4_K_M", 2048),
    Geometry("MQA", 16, 1536, 12, 1, 4096, 32000, "F16", 16384),
    Geometry("MQA, Q8_0", 16, 1536, 12, 1, 4096, 32000, "Q8_0", 32768, "q8_0"),
    Geometry("MHA, long context", 4, 1024, 16, 16, 2816, 32000, "F16", 32768),
    Geometry("MHA, Q4_K_M", 8, 2048, 16, 16, 5504, 32000, "Q4_K_M", 4096),
    Geometry("MHA, Q4_K_M, quantised cache", 24, 1024, 16, 16, 2816, 32000, "Q4_K_M", 32768, "q8_0"),
    Geometry("Qwen3-0.6B", 28, 1024, 16, 8, 3072, 151936, "F16", 8192, head=128,
             architecture="qwen3", tied=True),
    Geometry("Qwen3-1.7B", 28, 2048, 16, 8, 6144, 151936, "Q4_K_M", 8192, head=128,
             architecture="qwen3", tied=True),
    Geometry("Gemma-3-1B, sliding window", 26, 1152, 4, 1, 6912, 262144, "Q4_K_M", 8192, head=256,
             architecture="gemma3", tied=True, window=512),
    Geometry("Gemma-3-1B, long", 26, 1152, 4, 1, 6912, 262144, "Q8_0", 32768, "q8_0", head=256,
             architecture="gemma3", tied=True, window=512),
    Geometry("Llama-3.2-1B", 16, 2048, 32, 8, 8192, 128256, "F16", 4096, tied=True),
    Geometry("Llama-3.2-1B, Q8_0", 16, 2048, 32, 8, 8192, 128256, "Q8_0", 8192, "q8_0", tied=True),
    Geometry("Llama-3.2-1B, Q4_K_M", 16, 2048, 32, 8, 8192, 128256, "Q4_K_M", 8192, tied=True),
    Geometry("Llama-3.2-3B, Q4_K_M", 28, 3072, 24, 8, 8192, 128256, "Q4_K_M", 8192, tied=True),
    Geometry("Llama-3.2-3B, long", 28, 3072, 24, 8, 8192, 128256, "Q4_K_M", 32768, "q8_0", tied=True),
)  # fmt: skip


def measured(geometry: Geometry, file: Path) -> int:
    """Bytes a fresh process grew by, loading the file as an engine worker does and reading one batch."""
    arguments = [str(file), str(geometry.context), str(BATCH), geometry.kv_type]
    command = [sys.executable, str(MEASURE), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT)
    return int(json.loads(done.stdout)["grown"])


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--only", default="")
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    hardware, libraries = detect(PROJECT), installed()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for geometry in GEOMETRIES:
            if chosen.only not in geometry.name:
                continue
            file = write_gguf(geometry, Path(folder) / "model.gguf")
            wishes = Wishes(geometry.context, geometry.kv_type, BATCH, "llama_cpp", 0)
            planned = plan(hardware, read_model(file), wishes, libraries)
            unseen = plan(hardware, geometry.facts(), wishes, libraries)
            peak = measured(geometry, file)
            file.unlink()
            row = {
                "name": geometry.name,
                "kind": geometry.kind,
                "context": geometry.context,
                "kv_type": geometry.kv_type,
                "measured": peak,
                "predicted": planned.total,
                "error": planned.total / peak - 1,
                "error_from_config": unseen.total / peak - 1,
                "parts": dict(planned.parts),
            }
            rows.append(row)
            if not chosen.json:
                print(
                    f"{geometry.name:30} {geometry.kind:7} {geometry.context:6} {geometry.kv_type:5}"
                    f" {peak / 1e6:8.1f} MB {planned.total / 1e6:8.1f} {row['error']:+7.2%}"
                    f"  from config {row['error_from_config']:+7.2%}",
                    flush=True,
                )
    verdict = {}
    for key in ("error", "error_from_config"):
        errors = [abs(row[key]) for row in rows]
        verdict[key] = {"median": statistics.median(errors), "worst": max(errors)}
    if chosen.json:
        print(json.dumps({"rows": rows, **verdict}, indent=1))
    else:
        for key, figures in verdict.items():
            print(f"{key}: median {figures['median']:.2%}, worst {figures['worst']:.2%}")
    good = all(f["median"] <= MEDIAN and f["worst"] <= WORST for f in verdict.values())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
