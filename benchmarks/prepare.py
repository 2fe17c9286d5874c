"""Preparing a model as FP16 beside transformers' own way: time and peak memory, each in a fresh process.

    python -m benchmarks.prepare [--rounds 3] [--json]

A Llama of 1.1 billion random fp32 parameters in three shards (4.4 GB) is made at first use and kept
(HEARTH_BENCH_CACHE). Measured as benchmarks/two_ways.py says. Ours also hashes every file and waits until the
disk has it.
"""

from __future__ import annotations

from benchmarks.random_model import random_folder
from benchmarks.two_ways import compare, parser

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
WAYS = {"hearth": OURS, "transformers": THEIRS}


def main() -> None:
    compare(WAYS, parser(__doc__, rounds=3).parse_args(), random_folder())


if __name__ == "__main__":
    main()
