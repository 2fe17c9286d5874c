"""How far sound conversions are from what they were made from: the figures behind the limits of `verify`.

    python -m benchmarks.verify [--families llama,qwen3] [--types F16,Q4_K_M] [--stories FOLDER] [--json]

Random models of several families, small but with rows of whole blocks, and stories260K where it is given, go
through Hearth's own steps: folder → GGUF F16 → each type. For each: the weights' relative error, the logits'
(the worst prompt), the gain (logits' over what weights and arithmetic explain), KL, and the limits.
A verdict other than pass is printed in full: for sound models there must be none.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

from chatbot.models.gguf import convert, quantise
from chatbot.models.verify import thresholds, verify
from tests.tiny_models import make_hf

TYPES = ("F32", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K", "IQ4_XS")
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"tie_word_embeddings": False}),
    "llama deep": ("LlamaConfig", {"num_hidden_layers": 24, "tie_word_embeddings": True}),
    "llama 3 rope": (
        "LlamaConfig",
        {
            "rope_parameters": {
                "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 1024,
            }
        },
    ),
    "mistral": ("MistralConfig", {"sliding_window": None}),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", {"head_dim": 64}),
    "gemma2": ("Gemma2Config", {"head_dim": 64, "query_pre_attn_scalar": 64}),
    "gemma3": ("Gemma3TextConfig", {"head_dim": 64, "query_pre_attn_scalar": 64}),
    "phi3": ("Phi3Config", {"pad_token_id": 0}),
}  # fmt: skip


def ignore(_fraction: float, _message: str = "", **_values: Any) -> None:
    """Nobody listens."""


def random_model(folder: Path, family: str) -> Path:
    """A random model of that family with the tests' tokenizer."""
    import torch
    import transformers

    kind, settings = FAMILIES[family]
    make_hf(folder)
    size = json.loads((folder / "config.json").read_text("utf-8"))["vocab_size"]
    wanted = {
        "vocab_size": size, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.05,
    }  # fmt: skip
    torch.manual_seed(5)
    config = getattr(transformers, kind)(**{**wanted, **settings})
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases of trained models are not all alike
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    model.save_pretrained(folder)
    return folder


def measure(name: str, folder: Path, work: Path, types: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row for each type."""
    rows = []
    base = _made(convert, work / "F16", source=folder, type="F16")
    for kind in ("F16", *types):
        file = base if kind == "F16" else _made(quantise, work / kind, source=base, type=kind)
        for parent in (folder, base) if kind != "F16" else (folder,):
            verdict = verify(ignore, source=file, parent=parent)
            checks = {check["name"]: check for check in verdict["checks"]}
            weights, outputs = checks["weights"]["measured"], checks["outputs"]["measured"]
            limit = checks["outputs"]["limit"].get("relative", math.nan)
            layers = len({t.split(".")[1] for t in _names(file)})
            depth = max(1.0, math.sqrt(layers / 8))
            explained = limit / thresholds.GAIN / depth
            rows.append(
                {
                    "model": name,
                    "type": kind,
                    "parent": "folder" if parent is folder else "F16",
                    "verdict": verdict["verdict"],
                    "weights": weights.get("relative", math.nan),
                    "logits": outputs.get("relative", math.nan),
                    "limit": limit,
                    "gain": outputs.get("relative", math.nan) / explained,
                    "kl": outputs.get("kl", math.nan),
                    "kl_limit": checks["outputs"]["limit"].get("kl", math.nan),
                    "identical": weights.get("identical_rows", 0)
                    / max(weights.get("recomputed_rows", 0), 1),
                    "seconds": verdict["seconds"],
                    "wrong": [c for c in verdict["checks"] if c["verdict"] == "fail"]
                    + [
                        c
                        for c in verdict["checks"]
                        if c["verdict"] == "skipped" and c["name"] != "files"
                    ],
                }
            )
            _show(rows[-1])
    return rows


def _made(step: Any, target: Path, **params: Any) -> Path:
    target.mkdir(parents=True)
    done = step(ignore, target=target, **params)
    return target / done["files"][0]["name"]


def _names(file: Path) -> list[str]:
    from chatbot.memory.gguf import read_gguf

    return [t.name for t in read_gguf(file).tensors if t.name.startswith("blk.")]


def _show(row: dict[str, Any]) -> None:
    line = "{model:13} {type:7} from {parent:6} {verdict:5} weights {weights:.5f} logits {logits:.5f} of {limit:.5f}"
    rest = (
        " gain {gain:.2f} KL {kl:.2e} of {kl_limit:.2e} identical {identical:.0%} {seconds:.1f} s"
    )
    print((line + rest).format(**row), file=sys.stderr)
    for check in row["wrong"]:
        print(
            "   ",
            check["name"],
            check["verdict"],
            check["detail"],
            check["values"],
            file=sys.stderr,
        )


def main() -> None:
    """Print a row for every model and type."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--types", default=",".join(TYPES))
    parser.add_argument("--stories", type=Path)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    rows = []
    types = tuple(kind for kind in chosen.types.split(",") if kind)
    with tempfile.TemporaryDirectory() as folder:
        for family in (name for name in chosen.families.split(",") if name):
            model = random_model(Path(folder) / family, family)
            rows += measure(family, model, Path(folder) / f"{family} made", types)
        if chosen.stories:
            rows += measure("stories260K", chosen.stories, Path(folder) / "stories", types)
    if chosen.json:
        print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
