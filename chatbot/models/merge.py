"""A fine-tuned adapter merged into its base: the step `merge`, one tensor at a time.

The base must be the plain 16- or 32-bit model, also for adapters trained on a 4-bit copy of it (QLoRA):
what was learnt is a difference, and added to the unrounded weights nothing of them is lost.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chatbot.errors import BrokenModel, ModelError
from chatbot.i18n import N_
from chatbot.memory.adapter import CONFIG, check_fit, weights_file
from chatbot.memory.facts import ModelFacts
from chatbot.memory.folder import INDEX, NO_JSON, TOKENIZERS, has_template, read_json
from chatbot.memory.headers import read_model
from chatbot.models.adapters import Adapter, Change
from chatbot.models.files import Report, StoredFile, check_room
from chatbot.models.importing import companions
from chatbot.models.merged import Merged
from chatbot.models.weights import Writer, one_thread, write_file
from chatbot.settings import sync

TEMPLATE = "chat_template.jinja"
TOKENIZER_FILES = (
    *TOKENIZERS, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "merges.txt", "vocab.txt", TEMPLATE,
)  # fmt: skip

_CHECKING = N_("Holding the adapter against its base")
_MERGING = N_("Merging: {name}")
_NO_BASE = N_(
    "an adapter is merged into a model folder with safetensors; prepare this model first."
)
_QUANTISED = N_(
    "its weights are quantised with {part}. Choose the 16-bit model that it was made from, also for an"
    " adapter trained on a 4-bit copy (QLoRA)."
)
_TOKENS = N_(
    "its tokenizer knows {theirs} tokens, but with it the model has room for {ours}; save the adapter"
    " together with its embeddings (save_embedding_layers=True)."
)
_NO_MODEL = N_("it is no adapter: {part} is missing.")


def merge(
    report: Report, *, source: Path, adapter: Path, target: Path, base_name: str = ""
) -> dict[str, Any]:
    """Merge the adapter into the model folder `source`; the merged folder is written to `target`.

    Base and adapter are held against each other before anything is written; `base_name` is the base's
    name on the hub where that is known. The adapter's tokenizer and chat template win over the base's.
    Returns {files, figures}. Raises ModelError or BrokenModel, naming the cause, or DiskFullError.
    """
    started = time.monotonic()
    report(0.0, _CHECKING)
    base, opened = _base(source), _adapter(adapter)
    check_fit(opened.facts, base, base_name)
    merged = Merged(opened, source, base)
    settings = _settings(source, opened, merged)
    merged.check_values()
    check_room(target, sum(tensor.size for tensor in merged.tensors))
    with one_thread():
        files = _write(report, merged, target)
    merged.check_differences()
    files += [write_file(target / name, content) for name, content in settings.items()]
    sync(target)
    figures = _figures(base, opened, merged) | {"seconds": time.monotonic() - started}
    return {"files": [asdict(file) for file in files], "figures": figures}


def _base(folder: Path) -> ModelFacts:
    facts = read_model(folder)
    if facts.quantised_by:
        raise ModelError(_QUANTISED, name=facts.name, part=facts.quantised_by)
    if facts.format != "hf":
        raise ModelError(_NO_BASE, name=facts.name)
    return facts


def _adapter(folder: Path) -> Adapter:
    if not (folder / CONFIG).is_file():
        raise ModelError(_NO_MODEL, name=folder.name, part=CONFIG)
    weights_file(folder)
    return Adapter(folder)


def _write(report: Report, merged: Merged, target: Path) -> list[StoredFile]:
    total = sum(tensor.size for tensor in merged.tensors)
    done = 0
    with Writer(target, merged.tensors) as writer:
        for tensor in writer.tensors:

            def blocks(name: str = tensor.name) -> Any:
                nonlocal done
                for block in merged.blocks(name):
                    report(done / max(total, 1), _MERGING, name=name)
                    done += block.numel() * block.element_size()
                    yield block

            writer.put(tensor.name, blocks())
    return writer.files


def _settings(source: Path, adapter: Adapter, merged: Merged) -> dict[str, bytes]:
    """The small files of the merged model, by name."""
    files = {f.name: f.read_bytes() for f in companions(source) if f.name != INDEX}
    config = read_json(source / "config.json")
    changed = _config(config, merged)
    if changed != config:
        files["config.json"] = json.dumps(changed, ensure_ascii=False, indent=2).encode()
    own = {f.name: f.read_bytes() for f in companions(adapter.folder) if f.name in TOKENIZER_FILES}
    template = files.get(TEMPLATE) or _template(files.get("tokenizer_config.json"))
    if any(name in own for name in TOKENIZERS):
        files = {name: content for name, content in files.items() if name not in TOKENIZER_FILES}
        if template and not has_template(adapter.folder):
            own[TEMPLATE] = template
        _check_tokens(own, adapter.name, merged.vocabulary)
    else:  # half a tokenizer would not fit the base's other half
        theirs = own.get(TEMPLATE) or _template(own.get("tokenizer_config.json"))
        own = {TEMPLATE: theirs} if theirs else {}
    return files | own


def _config(config: dict[str, Any], merged: Merged) -> dict[str, Any]:
    """The base's config.json with the merged model's vocabulary, and whether its tables are one."""
    new: dict[str, Any] = {}
    if merged.resized:
        new["vocab_size"] = merged.vocabulary
    if merged.untied:
        new["tie_word_embeddings"] = False
    part = config.get("text_config")
    if not isinstance(part, dict):
        return {**config, **new}
    inner = {key: value for key, value in new.items() if key in part or key == "vocab_size"}
    outer = {key: value for key, value in new.items() if key in config or key != "vocab_size"}
    return {**config, **outer, "text_config": {**part, **inner}}


def _check_tokens(files: dict[str, bytes], name: str, vocabulary: int) -> None:
    """Raise ModelError when the adapter's tokenizer has tokens that the model has no embedding for."""
    if "tokenizer.json" not in files or not vocabulary:
        return
    try:
        layout = json.loads(files["tokenizer.json"])
        known = layout["model"].get("vocab", {})
        numbers = [*known.values()] if isinstance(known, dict) else [len(known) - 1]
        numbers += [token["id"] for token in layout.get("added_tokens", ())]
        highest = max(numbers)
        odd = type(highest) is not int
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenModel(NO_JSON, name=name, part="tokenizer.json") from error
    if odd:
        raise BrokenModel(NO_JSON, name=name, part="tokenizer.json")
    if highest >= vocabulary:
        raise ModelError(_TOKENS, name=name, theirs=highest + 1, ours=vocabulary)


def _template(content: bytes | None) -> bytes | None:
    """The chat template kept in a tokenizer_config.json, where it is one text."""
    try:
        settings = json.loads(content or b"{}")
    except ValueError:
        return None
    found = settings.get("chat_template") if isinstance(settings, dict) else None
    return found.encode() if isinstance(found, str) and found else None


def _figures(base: ModelFacts, adapter: Adapter, merged: Merged) -> dict[str, Any]:
    """What a person, and the check afterwards, want to know of the merge."""
    facts = adapter.facts.adapter
    assert facts is not None
    changes = {name: change for name, change in merged.changes.items() if not change.is_copy}
    seen = {name: merged.seen[name] for name in changes}
    asked = sum(each.squares[0] for each in seen.values())
    lost = sum(each.squares[1] for each in seen.values())
    kinds = Counter(_kind(change) for change in changes.values())
    return {
        "kind": facts.kind,
        "base": facts.base,
        "rank": facts.rank,
        "alpha": facts.alpha,
        "scale": sorted({each.scale for change in changes.values() for each in change.low_rank}),
        "targets": len(changes),
        "changed": sum(bool(each.changed) for each in seen.values()),
        "unchanged": sorted(name for name, each in seen.items() if not each.changed),
        "kinds": dict(kinds),
        "tensors": len(merged.tensors),
        "values_changed": sum(each.changed for each in seen.values()),
        "values_targeted": sum(each.elements for each in seen.values()),
        "change": math.sqrt(asked),
        "rounding": math.sqrt(lost / asked) if asked else 0.0,
        "untied": merged.untied,
        "vocabulary": merged.vocabulary,
        "added_tokens": max(merged.vocabulary - base.vocabulary, 0) if merged.resized else 0,
        "bytes_out": sum(tensor.size for tensor in merged.tensors),
    }


def _kind(change: Change) -> str:
    if change.low_rank:
        return "low rank"
    return "rows" if change.rows else "bias" if change.bias else "whole"
