"""A PEFT adapter on top of a loaded transformers model, unmerged.

Only the settings that describe a LoRA are taken from adapter_config.json: others name modules to import or
files to unpickle. Its weights must be safetensors, and every one of them must find its place.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from chatbot.errors import BrokenModel
from chatbot.i18n import N_

_SETTINGS = (
    "r", "lora_alpha", "target_modules", "exclude_modules", "target_parameters", "rank_pattern",
    "alpha_pattern", "use_rslora", "use_dora", "fan_in_fan_out", "bias", "lora_bias",
    "modules_to_save", "trainable_token_indices", "layers_to_transform", "layers_pattern",
    "ensure_weight_tying",
)  # fmt: skip
_TABLES = ("embed_tokens", "wte", "word_embeddings", "embed_in")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")

_MISMATCH = re.compile(r"size mismatch for (\S+):")

_NOT_LORA = N_("it is an adapter of the kind {part}; only LoRA adapters can run here.")
_NO_WEIGHTS = N_("the file {part} is missing; merge the adapter into its base instead.")
_STRAY = N_("its weights do not fit the base model ({part}).")


def with_adapter(model: Any, folder: Path) -> Any:
    """The same model with the adapter in its layers. Raises BrokenModel when they do not fit."""
    from peft import LoraConfig, PeftModel, set_peft_model_state_dict
    from safetensors.torch import load_file

    said = json.loads((folder / "adapter_config.json").read_bytes())
    if said.get("peft_type") != "LORA":
        raise BrokenModel(_NOT_LORA, name=folder.name, part=str(said.get("peft_type"))[:60])
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise BrokenModel(_NO_WEIGHTS, name=folder.name, part=file.name)
    weights = load_file(file)
    rows = {values.shape[0] for name, values in weights.items() if _is_table(name)}
    if len(rows) == 1 and rows != {model.get_input_embeddings().weight.shape[0]}:
        model.resize_token_embeddings(*rows, mean_resizing=False)
    settings = {key: said[key] for key in _SETTINGS if said.get(key) is not None}
    config = LoraConfig(task_type="CAUSAL_LM", inference_mode=True, **settings)
    wrapped = PeftModel(model, config)
    try:
        result: Any = set_peft_model_state_dict(wrapped, weights)
    except RuntimeError as error:
        if mismatch := _MISMATCH.search(str(error)):
            raise BrokenModel(_STRAY, name=folder.name, part=mismatch[1][:100]) from error
        raise
    missing = [name for name in result.missing_keys if ".lora_" in name or "_to_save." in name]
    if stray := [*result.unexpected_keys, *missing]:
        raise BrokenModel(_STRAY, name=folder.name, part=str(stray[0])[:100])
    return wrapped.get_base_model()


def tokenizer_of(folder: Path, base: Any) -> Any:
    """The tokenizer that the adapter was trained with: its own, or the base's with its chat template."""
    from transformers import AutoTokenizer

    tokenizer = base
    if any((folder / name).is_file() for name in _TOKENIZERS):
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    tokenizer.chat_template = _template(folder) or tokenizer.chat_template or base.chat_template
    return tokenizer


def _template(folder: Path) -> str | None:
    file, settings = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    said = json.loads(settings.read_bytes()) if settings.is_file() else {}
    found = said.get("chat_template")
    return found if isinstance(found, str) else None


def _is_table(name: str) -> bool:
    layer = name.removesuffix(".weight").removesuffix(".base_layer")
    return name.endswith(".weight") and layer.rpartition(".")[2] in _TABLES
