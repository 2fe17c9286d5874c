"""Merging an adapter beside PEFT's own way: time and peak memory, each in a fresh process.

    python -m benchmarks.merge [--rounds 1] [--rank 16] [--json]

The base is the Llama of 1.1 billion random fp32 parameters that benchmarks.prepare uses; the adapter has
random weights for every linear layer. The other way is merge_and_unload().save_pretrained(). Measured as
benchmarks/two_ways.py says. Ours also compares every changed value with the base's, hashes every file and waits until
the disk has it.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.corpus import CACHE
from benchmarks.random_model import random_folder
from benchmarks.two_ways import compare, parser
from chatbot.memory.headers import read_model

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
    asked = parser(__doc__, rounds=1)
    asked.add_argument("--rank", type=int, default=16)
    options = asked.parse_args()
    base = random_folder()
    compare(WAYS, options, base, random_adapter(base, options.rank))


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
