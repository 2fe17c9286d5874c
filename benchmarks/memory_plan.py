"""How right the memory plan is: `python -m benchmarks.memory_plan [--only NAME] [--again] [--json]`.

Each geometry is written as a GGUF file of random weights, planned (from the file's header, and once more
from its config.json alone, no weights on disk), then loaded on the CPU by a fresh process that reads one
whole batch. Predicted is the plan's `total`, measured what the process grew by at its peak. Targets: median
error ≤ 2.5 %, worst ≤ 6 %. What was measured is kept in the benchmarks' cache, so that a run that was
broken off goes on; `--again` measures anew.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.corpus import CACHE
from benchmarks.geometries import Geometry, llama, write_gguf
from chatbot.hardware.detect import detect, installed
from chatbot.memory.folder import read_config
from chatbot.memory.headers import read_model
from chatbot.memory.outline import outlined
from chatbot.memory.plan import Wishes, plan
from chatbot.settings import PROJECT

BATCH = 512
MEDIAN, WORST = 0.025, 0.06
MEASURE = PROJECT / "tests" / "memory" / "measured_growth.py"
KEPT = CACHE / "memory_plan.json"

_MHA = llama(8, 2048, 16, 16, 5504, 32000)
_DEEP = llama(24, 1024, 16, 16, 2816, 32000)
_QWEN_SMALL = llama(28, 1024, 16, 8, 3072, 151936, head_dim=128, tie_word_embeddings=True)
_QWEN = llama(28, 2048, 16, 8, 6144, 151936, head_dim=128, tie_word_embeddings=True)
_GEMMA2 = llama(18, 1152, 8, 4, 4608, 64000, head_dim=256, sliding_window=1024)
_GEMMA3 = llama(26, 1152, 4, 1, 6912, 262144, head_dim=256, sliding_window=512)
_MIXTRAL = llama(8, 768, 12, 4, 1536, 32000, num_local_experts=8, num_experts_per_tok=2)
_QWEN_MOE = llama(10, 1024, 16, 4, 3072, 32000, head_dim=64, num_experts=32, num_experts_per_tok=8,
                  moe_intermediate_size=384)  # fmt: skip
_LATENT = llama(10, 1024, 16, 16, 2816, 32000, kv_lora_rank=512, q_lora_rank=384, qk_nope_head_dim=128, qk_rope_head_dim=64,
                v_head_dim=128, n_routed_experts=16, n_shared_experts=2, num_experts_per_tok=4,
                moe_intermediate_size=384, first_k_dense_replace=1)  # fmt: skip
_MAMBA = {"mamba_d_state": 128, "mamba_n_groups": 1, "mamba_d_conv": 4, "mamba_expand": 2}
_FALCON = llama(24, 1024, 8, 2, 2048, 32000, head_dim=64, mamba_d_ssm=1536, mamba_n_heads=24,
                mamba_d_head=64, **_MAMBA)  # fmt: skip
_GRANITE = llama(24, 1024, 16, 4, 2048, 64000, num_local_experts=0, shared_intermediate_size=2048,
                 mamba_n_heads=32, mamba_d_head=64, tie_word_embeddings=True, **_MAMBA,
                 layer_types=["attention" if n % 6 == 5 else "mamba" for n in range(24)])  # fmt: skip
_LFM = llama(16, 1024, 16, 8, 4608, 65536, conv_L_cache=3, block_auto_adjust_ff_dim=False,
             layer_types=["full_attention" if n % 3 == 2 else "conv" for n in range(16)])  # fmt: skip
_ONE = llama(16, 2048, 32, 8, 8192, 128256, tie_word_embeddings=True)
_THREE = llama(28, 3072, 24, 8, 8192, 128256, tie_word_embeddings=True)

GEOMETRIES = (
    Geometry("tiny, every head its own", "F16", 2048, "f16", "llama", llama(4, 512, 8, 8, 1376, 8192)),
    Geometry("tiny, quantised", "Q4_K_M", 2048, "f16", "llama", llama(4, 512, 8, 2, 1536, 8192)),
    Geometry("MQA", "F16", 16384, "f16", "llama", llama(16, 1536, 12, 1, 4096, 32000)),
    Geometry("MQA, quantised cache", "Q8_0", 32768, "q8_0", "llama", llama(16, 1536, 12, 1, 4096, 32000)),
    Geometry("MHA, long", "F16", 32768, "f16", "llama", llama(4, 1024, 16, 16, 2816, 32000)),
    Geometry("MHA", "Q4_K_M", 4096, "f16", "llama", _MHA),
    Geometry("MHA, deep, quantised cache", "Q4_K_M", 32768, "q8_0", "llama", _DEEP),
    Geometry("Fused matrices, as in Phi 3", "Q4_K_M", 8192, "f16", "phi3", llama(12, 1536, 16, 16, 4096, 32064)),
    Geometry("GPT-2 medium", "F16", 2048, "f16", "gpt2",
             {"n_layer": 24, "n_embd": 1024, "n_head": 16, "n_positions": 2048, "vocab_size": 50257,
              "intermediate_size": 4096}),
    Geometry("Gemma 2, sliding window", "Q4_K_M", 8192, "f16", "gemma2", _GEMMA2),
    Geometry("Gemma 2, F16", "F16", 32768, "f16", "gemma2", _GEMMA2),
    Geometry("Mixtral, 8 experts", "Q4_K_M", 4096, "f16", "mixtral", _MIXTRAL),
    Geometry("Qwen3-MoE, 32 experts", "Q8_0", 8192, "f16", "qwen3_moe", _QWEN_MOE),
    Geometry("DeepSeek-V2, latent attention", "F16", 16384, "f16", "deepseek_v2", _LATENT),
    Geometry("DeepSeek-V2, quantised", "Q4_K_M", 8192, "f16", "deepseek_v2", _LATENT),
    Geometry("Mamba-2 130M", "F16", 32768, "f16", "mamba2",
             {"num_hidden_layers": 24, "hidden_size": 768, "state_size": 128, "num_heads": 24, "head_dim": 64,
              "n_groups": 1, "vocab_size": 50288, "tie_word_embeddings": True}),
    Geometry("Falcon-H1, hybrid", "Q8_0", 8192, "f16", "falcon_h1", _FALCON),
    Geometry("Granite 4, hybrid", "Q4_K_M", 16384, "f16", "granitemoehybrid", _GRANITE),
    Geometry("LFM2-350M, hybrid", "Q8_0", 32768, "f16", "lfm2", _LFM),
    Geometry("Qwen3-0.6B", "F16", 8192, "f16", "qwen3", _QWEN_SMALL),
    Geometry("Qwen3-1.7B", "Q4_K_M", 8192, "f16", "qwen3", _QWEN),
    Geometry("Gemma-3-1B, sliding window", "Q4_K_M", 8192, "f16", "gemma3_text", _GEMMA3),
    Geometry("Gemma-3-1B, long", "Q8_0", 32768, "q8_0", "gemma3_text", _GEMMA3),
    Geometry("Llama-3.2-1B", "F16", 4096, "f16", "llama", _ONE),
    Geometry("Llama-3.2-1B, Q8_0", "Q8_0", 8192, "q8_0", "llama", _ONE),
    Geometry("Llama-3.2-1B, Q4_K_M", "Q4_K_M", 8192, "f16", "llama", _ONE),
    Geometry("Llama-3.2-3B, Q4_K_M", "Q4_K_M", 8192, "f16", "llama", _THREE),
    Geometry("Llama-3.2-3B, long", "Q4_K_M", 32768, "q8_0", "llama", _THREE),
)  # fmt: skip


def measured(geometry: Geometry, file: Path) -> int:
    """Bytes a fresh process grew by, loading the file as an engine worker does and reading one batch."""
    arguments = [str(file), str(geometry.context), str(BATCH), geometry.kv_type]
    command = [sys.executable, str(MEASURE), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT)
    if done.returncode:
        raise SystemExit(f"{geometry.name}: {done.stderr[-2000:]}")
    return int(json.loads(done.stdout)["grown"])


def rows(only: str, *, again: bool) -> Any:
    """One after the other: what was predicted and what was measured."""
    hardware, libraries = detect(PROJECT), installed()
    kept = json.loads(KEPT.read_bytes()) if KEPT.exists() else {}
    for geometry in GEOMETRIES:
        if only not in geometry.name:
            continue
        key = f"{geometry.name} {json.dumps(geometry.settings(), sort_keys=True)} {geometry.kind} {geometry.kv_type}"
        wishes = Wishes(geometry.context, geometry.kv_type, BATCH, "llama_cpp", 0)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            bare = geometry.write_config(Path(folder) / geometry.name)
            unseen = plan(
                hardware, outlined(read_config(bare), geometry.kind, gguf=True), wishes, libraries
            )
            missing = again or key not in kept
            file = write_gguf(geometry, Path(folder) / "model.gguf", weights=missing)
            planned = plan(hardware, read_model(file), wishes, libraries)
            if missing:
                kept[key] = measured(geometry, file)
                KEPT.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        yield {
            "name": geometry.name,
            "kind": geometry.kind,
            "context": geometry.context,
            "kv_type": geometry.kv_type,
            "measured": kept[key],
            "predicted": planned.total,
            "error": planned.total / kept[key] - 1,
            "error_from_config": unseen.total / kept[key] - 1,
            "parts": dict(planned.parts),
        }


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--only", default="")
    options.add_argument("--again", action="store_true")
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    found = []
    for row in rows(chosen.only, again=chosen.again):
        found.append(row)
        if not chosen.json:
            print(
                f"{row['name']:30} {row['kind']:7} {row['context']:6} {row['kv_type']:5}"
                f" {row['measured'] / 1e6:8.1f} MB {row['predicted'] / 1e6:8.1f} {row['error']:+7.2%}"
                f"  from config {row['error_from_config']:+7.2%}",
                flush=True,
            )
    verdict = {}
    for key in ("error", "error_from_config"):
        errors = [abs(row[key]) for row in found]
        verdict[key] = {"median": statistics.median(errors), "worst": max(errors)}
    if chosen.json:
        print(json.dumps({"rows": found, **verdict}, indent=1))
    else:
        for key, figures in verdict.items():
            print(f"{key}: median {figures['median']:.2%}, worst {figures['worst']:.2%}")
    good = all(f["median"] <= MEDIAN and f["worst"] <= WORST for f in verdict.values())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
