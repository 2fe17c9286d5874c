"""Merging an adapter beside PEFT's own way: time and peak memory, each in a fresh process.

    python -m benchmarks.merge [--rounds 1] [--rank 16] [--json]

The base is the Llama of 1.1 billion random fp32 parameters that benchmarks.prepare uses; the adapter has
random weights for every linear layer. The other way is merge_and_unload().save_pretrained(). Measured as in
benchmarks.prepare. Ours also compares every changed value with the base's, hashes every file and waits until
the disk has it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.corpus import CACHE
from benchmarks.prepare import LAST_WORD, anonymous_memory, summary, table, warm
from benchmarks.random_model import random_folder
from chatbot.memory.headers import read_model
from chatbot.settings import PROJECT

OURS = """
import sys
from pathlib import Path
from chatbot.models.merge import merge
Path(sys.argv[3]).mkdir()
merge(lambda *_, **__: None, source=Path(sys.argv[1]), adapter=Path(sys.argv[2]), target=Path(sys.argv[3]))
"""
THEIRS = """
import sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
PeftModel.from_pretrained(model, sys.argv[2]).merge_and_unload().save_pretrained(sys.argv[3])
"""
WAYS = {"hearth": OURS, "transformers": THEIRS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    base = random_folder()
    adapter = random_adapter(base, options.rank)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    loads = [os.getloadavg()[0]]
    for number in range(options.rounds):
        for way in list(WAYS) if number % 2 == 0 else list(reversed(WAYS)):
            found[way].append(measure(way, base, adapter))
            print(number + 1, way, found[way][-1], file=sys.stderr)
        loads.append(os.getloadavg()[0])
    print(json.dumps(summary(found, loads)) if options.json else table(summary(found, loads)))


def measure(way: str, base: Path, adapter: Path) -> dict[str, float]:
    """Seconds and bytes of one run in a process of its own."""
    target = CACHE / "merged"
    shutil.rmtree(target, ignore_errors=True)
    os.sync()
    warm(base)
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", WAYS[way] + LAST_WORD, str(base), str(adapter), str(target)],
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


def random_adapter(base: Path, rank: int) -> Path:
    """A LoRA on every linear layer of that base, kept beside it."""
    import torch
    from safetensors.torch import save_file

    folder = CACHE / f"random-adapter-{rank}"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    weights = {}
    for tensor in read_model(base).tensors:
        layer = tensor.name.removesuffix(".weight")
        if not layer.endswith("_proj"):
            continue
        rows, columns = tensor.shape
        weights[f"base_model.model.{layer}.lora_A.weight"] = torch.randn(rank, columns) * 0.01
        weights[f"base_model.model.{layer}.lora_B.weight"] = torch.randn(rows, rank) * 0.01
    save_file(weights, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": sorted({name.split(".")[-3] for name in weights}),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


if __name__ == "__main__":
    main()
