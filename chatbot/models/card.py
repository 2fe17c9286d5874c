"""The model card that goes to the hub with a model: what its manifest says, nothing of this PC.

It is written in English, as cards on the hub are. Paths and parameters that may hold them are left out.
"""

from __future__ import annotations

import json
import re
from typing import Any

from chatbot import __version__

LIBRARIES = {"hf": "transformers", "adapter": "peft", "gguf": "gguf", "pt": "pytorch"}
STEPS = {
    "download": "downloaded",
    "prepare": "saved in 16 bits",
    "merge": "an adapter merged into its base",
    "convert": "converted to GGUF",
    "quantise": "quantised",
    "unpack": "unpacked from a package",
}
_REPO = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_PLAIN = re.compile(r"[\w .+-]{1,60}", re.ASCII)


def model_card(manifest: dict[str, Any]) -> str:
    """README.md for a repository that holds this model."""
    origin = manifest.get("origin") or {}
    made = manifest.get("made") or {}
    head: dict[str, Any] = {
        "license": origin.get("licence"),
        "base_model": _repo(origin.get("repo")) or _repo(origin.get("base")),
        "library_name": LIBRARIES.get(str(manifest.get("format"))),
        "pipeline_tag": "text-generation" if manifest.get("role", "chat") == "chat" else None,
        "tags": ["hearth", *([str(manifest["quantisation"]).lower()] if _plain(manifest.get("quantisation")) else [])],
    }  # fmt: skip
    lines = ["---"]
    lines += [f"{key}: {json.dumps(value)}" for key, value in head.items() if value]
    lines += ["---", "", f"# {manifest.get('name', 'Model')}", ""]
    lines += _table(_about(manifest, origin, made))
    if figures := _figures(made.get("figures")):
        lines += ["", "## What the last step measured", "", *_table(figures)]
    if verdict := manifest.get("verdict"):
        lines += ["", "## Verified", "", *_verdict(verdict)]
    lines += ["", "## Files", "", "| file | bytes | sha256 |", "|---|---|---|"]
    lines += [f"| {f['name']} | {f['size']:,} | `{f['sha256']}` |" for f in manifest["files"]]
    lines += ["", f"Made with Hearth {__version__}, a private chatbot for one's own documents."]
    return "\n".join(lines) + "\n"


def _about(
    manifest: dict[str, Any], origin: dict[str, Any], made: dict[str, Any]
) -> dict[str, object]:
    params = made.get("params") or {}
    kept = [
        f"{key} {value}"
        for key in ("type", "precision", "form")
        if _plain(value := params.get(key))
    ]
    step = STEPS.get(str(made.get("step")), "")
    base = _repo(origin.get("repo"))
    commit = str(origin.get("revision", ""))[:12]
    return {
        "base": f"[{base}](https://huggingface.co/{base}) at `{commit}`" if base else "",
        "last step": f"{step} ({', '.join(kept)})" if kept else step,
        "architecture": manifest.get("architecture", ""),
        "parameters": f"{manifest.get('parameters', 0):,}",
        "context": f"{manifest.get('context', 0):,} tokens",
        "weights": manifest.get("quantisation", ""),
    }


def _verdict(verdict: dict[str, Any]) -> list[str]:
    """Every check with what it measured and its limit."""
    lines = [
        f"Verdict: **{verdict.get('verdict', '?')}**",
        "",
        "| check | verdict | measured | limit |",
        "|---|---|---|---|",
    ]
    for check in verdict.get("checks", []):
        measured, limit = _short(check.get("measured")), _short(check.get("limit"))
        lines.append(f"| {check.get('name')} | {check.get('verdict')} | {measured} | {limit} |")
    return lines


def _figures(figures: Any) -> dict[str, object]:
    if not isinstance(figures, dict):
        return {}
    shown: dict[str, object] = {
        key: value for key, value in figures.items() if isinstance(value, int | float | bool)
    }
    types = figures.get("types")
    if isinstance(types, dict):
        shown["types"] = ", ".join(f"{name} {size}" for name, size in types.items())
    return shown


def _short(values: Any) -> str:
    if not isinstance(values, dict):
        return ""
    parts = []
    for key, value in values.items():
        if isinstance(value, float):
            parts.append(f"{key} {value:.3g}")
        elif isinstance(value, int):
            parts.append(f"{key} {value}")
    return ", ".join(parts[:6])


def _table(rows: dict[str, object]) -> list[str]:
    return [
        "| | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in rows.items() if value not in ("", None)),
    ]


def _repo(value: Any) -> str:
    return value if isinstance(value, str) and _REPO.fullmatch(value) else ""


def _plain(value: Any) -> bool:
    return isinstance(value, str) and bool(_PLAIN.fullmatch(value))
