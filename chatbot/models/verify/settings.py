"""What a model says of itself: layers, heads, rotary embedding, context, and how its answers are written."""

from __future__ import annotations

import math
from typing import Any

from chatbot.i18n import N_
from chatbot.memory.folder import read_json
from chatbot.models.verify.check import Check, check
from chatbot.models.verify.stored import StoredModel

OTHER = N_("The setting {part} is {after}, and was {before}.")

FREE = (
    "torch_dtype", "dtype", "transformers_version", "_name_or_path", "architectures", "use_cache",
    "quantization_config", "tie_word_embeddings", "vocab_size", "pad_token_id",
)  # fmt: skip
"""Settings of a folder that a step may change."""
GENERATION = "generation_config.json"
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "do_sample")
"""How answers are written; what a folder leaves out is a default, what it says must stay."""
FREE_OF_GGUF = ("general.", "tokenizer.", "quantize.", "split.", "GGUF.")
COUNTERPARTS = {
    "block_count": ("num_hidden_layers", "n_layer"),
    "context_length": ("max_position_embeddings", "n_positions"),
    "embedding_length": ("hidden_size", "n_embd"),
    "feed_forward_length": ("intermediate_size", "n_inner"),
    "attention.head_count": ("num_attention_heads", "n_head"),
    "attention.head_count_kv": ("num_key_value_heads",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps",),
    "attention.sliding_window": ("sliding_window",),
    "attention.key_length": ("head_dim",),
    "rope.freq_base": ("rope_theta",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
}


def compare(made: StoredModel, origin: StoredModel) -> Check:
    """Whether both say the same of what the weights mean."""
    if made.form == origin.form == "gguf":
        after, before = _plain(made), _plain(origin)
        keys = sorted({*after, *before})
    elif "gguf" not in (made.form, origin.form):
        after, before = _normal(made.settings), _normal(origin.settings)
        # A newer transformers writes settings out that were left to their defaults before.
        keys = [key for key in before if key not in FREE and key in after]
        keys += [key for key in before if key not in FREE and key not in after and before[key]]
        after, before = after | _generation(made), before | _generation(origin)
        keys += [key for key in before if key.startswith(GENERATION)]
    else:
        after, before = _counterparts(made, origin)
        keys = list(after)
    unlike = [key for key in keys if not _same(after.get(key), before.get(key))]
    measured = {"compared": len(keys), "different": unlike[:5]}
    shown: dict[str, Any] = {}
    if unlike:
        key = unlike[0]
        shown = {
            "part": key,
            "after": str(after.get(key))[:60],
            "before": str(before.get(key))[:60],
        }
    return check(
        "settings", OTHER if unlike else "", measured=measured, limit={"different": 0}, **shown
    )


def _plain(model: StoredModel) -> dict[str, Any]:
    return {k: v for k, v in model.settings.items() if not k.startswith(FREE_OF_GGUF)}


def _generation(model: StoredModel) -> dict[str, Any]:
    """When that folder's answers end, wherever it says so, and how it wants its words chosen."""
    file = model.home / GENERATION
    said = read_json(file) if file.is_file() else {}
    ends = said.get("eos_token_id", model.settings.get("eos_token_id"))
    ends = sorted(ends, key=str) if isinstance(ends, list) else [ends]
    found = {key: said[key] for key in SAMPLING if said.get(key) is not None}
    return {f"{GENERATION}: {key}": v for key, v in {"eos_token_id": ends, **found}.items()}


def _normal(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the rotary embedding's in one place, as different versions of transformers write it."""
    found = dict(settings)
    rope = found.pop("rope_parameters", None) or found.pop("rope_scaling", None) or {}
    found.pop("rope_scaling", None)
    if isinstance(rope, dict):
        for key, value in rope.items():
            name = "rope_type" if key == "type" else key
            found[name if name.startswith("rope_") else f"rope_{name}"] = value
        if found.get("rope_type") == "default":
            found.pop("rope_type")
    return found


def _counterparts(made: StoredModel, origin: StoredModel) -> tuple[dict[str, Any], dict[str, Any]]:
    file, folder = (made, origin) if made.form == "gguf" else (origin, made)
    text = folder.settings.get("text_config")
    settings = _normal({**folder.settings, **(text if isinstance(text, dict) else {})})
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    for key, names in COUNTERPARTS.items():
        full = f"{file.architecture}.{key}"
        value = next((settings[n] for n in names if settings.get(n) is not None), None)
        if full in file.settings and value is not None:
            ours[full], theirs[full] = file.settings[full], value
    return (ours, theirs) if file is made else (theirs, ours)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, int | float) and not isinstance(other, bool):
        return math.isclose(one, other, rel_tol=1e-6)
    if isinstance(other, float) and isinstance(one, int) and not isinstance(one, bool):
        return math.isclose(one, other, rel_tol=1e-6)
    return bool(one == other)
