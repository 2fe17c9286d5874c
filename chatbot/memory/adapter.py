"""A PEFT adapter's folder, read so that nothing in it can run, and held against the model it belongs to.

Only adapter_config.json, the header of the weights and the tokenizer's settings are looked at. An adapter
brings low-rank changes of layers (`Update`) and, for some layers, new weights (`Saved`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatbot.errors import BrokenModel, ModelError
from chatbot.i18n import N_
from chatbot.memory.facts import AdapterFacts, ModelFacts, Tensor
from chatbot.memory.folder import (
    ABSENT,
    INDEX,
    LEAVES,
    TOKENIZERS,
    has_template,
    is_inside,
    main_type,
    name_of,
    read_safetensors,
    safe_settings,
)

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
MAX_RANK = 1 << 16

# What a LoRA may be trained with that makes it more than W + scale·B·A, or changes W beforehand.
_BEYOND = (
    "layer_replication", "megatron_config", "alora_invocation_tokens", "use_qalora", "use_bdlora",
    "arrow_config", "kasa_config", "monteclora_config", "velora_config",
)  # fmt: skip
_SWITCHES = ("use_dora", "use_rslora", "lora_bias", "ensure_weight_tying")
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_CONV1D_MODELS = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp")
_CONV1D_LAYERS = ("c_attn", "c_proj", "c_fc", "q_attn")
_EXPERTS_IN_FIRST = ("gpt_oss", "aria", "aria_text", "openai_privacy_filter")
EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings")
OUTPUTS = ("lm_head", "embed_out", "output")
_PREFIX = "base_model.model."
_LORA = re.compile(
    r"(?P<layer>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.default)?(?:\.(?P<what>weight|bias))?"
)
_TOKENS = re.compile(r"(?P<layer>.+)\.token_adapter\.trainable_tokens_delta(?:\.default)?")
_WRAPPERS = re.compile(r"\.(?:base_layer|original_module|modules_to_save(?:\.default)?)(?=\.)")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_QUANTISED = re.compile(
    r"([-_.](unsloth|bnb|[48]bits?|int[48]|nf4|gptq|awq|hqq|fp8|gguf|bf16|fp16|hf))+$",
    re.IGNORECASE,
)
_OUTER = ("base_model", "model", "transformer", "language_model")

_NOT_LORA = N_(
    "it is an adapter of the kind {part}; Hearth uses LoRA adapters (QLoRA, DoRA, rsLoRA too)."
)
_BEYOND_LORA = N_("it was trained with {part}, which cannot be merged into plain weights.")
_BASE_CHANGED = N_(
    "it was trained on weights that {part} had changed first; save it as a plain LoRA"
    " (path_initial_model_for_weight_conversion in PEFT) and use that one."
)
_ODD = N_("adapter_config.json gives no usable value for {part}.")
_UNKNOWN = N_("it holds {part}, which is no part of a LoRA adapter.")
_ODD_PAIR = N_("the two halves of its change for {part} do not belong together.")
_NO_WEIGHTS = N_("it holds no weights.")
_HALF = N_("half of the change for {part} is missing; the copy is incomplete.")
NO_LAYER = N_("it changes {part}, which the base model does not have; it belongs to another model.")
OTHER_SHAPE = N_(
    "its change for {part} is made for {theirs}, but the base model has {ours}; it belongs to another model."
)
_OTHER_BASE = N_("it was trained on {theirs}, and the chosen base is {ours}.")


@dataclass(frozen=True, slots=True)
class Update:
    """The low-rank change of one layer: scale·B·A, with DoRA's magnitudes and a bias where there are some."""

    layer: str
    a: Tensor
    b: Tensor
    bias: Tensor | None = None
    magnitude: Tensor | None = None
    embedding: bool = False


@dataclass(frozen=True, slots=True)
class Saved:
    """Weights that the adapter brings whole; `rows` says that they are single rows of the table."""

    name: str
    tensor: Tensor
    rows: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything in an adapter's weights, by what it does."""

    updates: tuple[Update, ...]
    saved: tuple[Saved, ...]


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter and no model of its own."""
    whole = (folder / "model.safetensors").exists() or (folder / INDEX).exists()
    return (folder / CONFIG).is_file() and not whole


def read_adapter(folder: Path) -> ModelFacts:
    """What the adapter in that folder is. Raises BrokenModel, or ModelError for kinds we cannot use.

    Of weights kept as a pickle nothing is known but their file's name.
    """
    facts = _facts(read_config(folder), folder.name)
    file = weights_file(folder)
    tensors = read_safetensors(file) if file.name == WEIGHTS else []
    parts_of(tensors, folder.name)
    return ModelFacts(
        format="adapter",
        path=str(folder),
        files=(file.name,),
        name=name_of(folder),
        architecture=facts.kind,
        writes_text=False,
        quantisation=main_type(tensors) if tensors else "",
        context=0,
        vocabulary=0,
        width=0,
        feed_forward=0,
        layers=(),
        tensors=tuple(tensors),
        chat_template=has_template(folder),
        tokenizer=any((folder / name).is_file() for name in TOKENIZERS),
        adapter=facts,
    )


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json. Raises ModelError for every kind of adapter but plain LoRA, by name."""
    config = safe_settings(folder, CONFIG)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ModelError(_NOT_LORA, name=folder.name, part=str(kind)[:60])
    for key in _BEYOND:
        if config.get(key):
            raise ModelError(_BEYOND_LORA, name=folder.name, part=key)
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise ModelError(_BASE_CHANGED, name=folder.name, part=start[:60])
    return config


def weights_file(folder: Path) -> Path:
    """The file with the adapter's weights: safetensors, else a pickle. Raises BrokenModel."""
    for name in (WEIGHTS, PICKLED):
        if (folder / name).is_file():
            if not is_inside(folder / name, folder):
                raise BrokenModel(LEAVES, name=folder.name, part=name)
            return folder / name
    raise BrokenModel(ABSENT, name=folder.name, part=WEIGHTS)


def parts_of(tensors: Iterable[Tensor], name: str) -> Parts:
    """The tensors of an adapter, sorted by what they do. Raises BrokenModel for what has no place."""
    halves: dict[str, dict[str, Tensor]] = {}
    saved: list[Saved] = []
    for tensor in tensors:
        key = tensor.name.removeprefix(_PREFIX)
        if found := _LORA.fullmatch(key):
            part = found["part"] + (".bias" if found["what"] == "bias" else "")
            if part in halves.setdefault(found["layer"], {}) or part.endswith("A.bias"):
                raise BrokenModel(_UNKNOWN, name=name, part=tensor.name[:100])
            halves[found["layer"]][part] = tensor
        elif found := _TOKENS.fullmatch(key):
            saved.append(Saved(f"{found['layer']}.weight", tensor, rows=True))
        elif key.endswith((".weight", ".bias")) and "lora_" not in key:
            saved.append(Saved(_WRAPPERS.sub("", key), tensor))
        else:
            raise BrokenModel(_UNKNOWN, name=name, part=tensor.name[:100])
    return Parts(
        tuple(_update(layer, found, name) for layer, found in halves.items()), tuple(saved)
    )


def check_fit(adapter: ModelFacts, base: ModelFacts, base_name: str = "") -> None:
    """Raise ModelError, naming the cause, unless that adapter is made for that base.

    Names and shapes of every layer are compared; `base_name` is the base's name on the hub where that is
    known. Of an adapter kept as a pickle only the name can be compared.
    """
    assert adapter.adapter is not None
    theirs = adapter.adapter.base
    if base_name and _HUB_NAME.fullmatch(theirs) and not same_model(theirs, base_name):
        raise ModelError(_OTHER_BASE, name=adapter.name, theirs=theirs[:100], ours=base_name)
    if adapter.in_files:
        _check_lora_beside(adapter, base)
        return
    check_parts(parts_of(adapter.tensors, adapter.name), base, adapter.name)


def check_lora_file(adapter: ModelFacts) -> None:
    """Raise ModelError unless that GGUF holds the halves of low-rank changes and nothing else."""
    if not adapter.tensors:
        raise BrokenModel(_NO_WEIGHTS, name=adapter.name)
    for tensor in adapter.tensors:
        if not tensor.name.endswith((".lora_a", ".lora_b")):
            raise ModelError(_UNKNOWN, name=adapter.name, part=tensor.name[:100])


def _check_lora_beside(adapter: ModelFacts, base: ModelFacts) -> None:
    """Hold a LoRA file for llama.cpp against the GGUF that it shall run beside."""
    check_lora_file(adapter)
    weights = {tensor.name: tensor.shape for tensor in base.tensors}
    halves = {tensor.name: tensor.shape for tensor in adapter.tensors}
    for name, b in halves.items():
        layer = name.removesuffix(".lora_b")
        if layer == name:
            continue
        shape, a = weights.get(layer), halves.get(f"{layer}.lora_a")
        if shape is None or a is None:
            raise ModelError(NO_LAYER, name=adapter.name, part=layer)
        # of the embedding, llama.cpp keeps the two halves the other way round
        made_for = (a[0], b[0]) if layer == "token_embd.weight" else (b[0], a[-1])
        if made_for != shape:
            raise ModelError(
                OTHER_SHAPE, name=adapter.name, part=layer, theirs=_by(made_for), ours=_by(shape)
            )


def fits(adapter: ModelFacts, base: ModelFacts, base_name: str = "") -> bool:
    """Whether `check_fit` has nothing against the two."""
    try:
        check_fit(adapter, base, base_name)
    except ModelError:
        return False
    return True


def same_model(one: str, other: str) -> bool:
    """Whether two hub names mean the same model: mirrors and quantised copies count as the original."""
    return _plain(one) == _plain(other)


def check_parts(parts: Parts, base: ModelFacts, name: str) -> None:
    """Raise ModelError unless every part of the adapter finds a layer of its shape in the base."""
    layers = Layers(base)
    brought = {saved.name: saved.tensor for saved in parts.saved if not saved.rows}
    for update in parts.updates:
        weight = brought.get(f"{update.layer}.weight") or layers.weight(update.layer)
        if weight is not None:
            check_shape(update, weight.shape, is_transposed(update.layer, base.architecture), name)
        elif not layers.holds(_WRAPPERS.sub("", f"{update.layer}.").rstrip(".")):
            raise ModelError(NO_LAYER, name=name, part=update.layer[:100])
        # else a LoRA on a bare parameter: adapter_config.json says on which one
        if update.bias is not None and layers.find(f"{update.layer}.bias") is None:
            raise ModelError(NO_LAYER, name=name, part=f"{update.layer}.bias"[:100])
    for saved in parts.saved:
        _check_saved(saved, layers, name)


def check_shape(update: Update, shape: tuple[int, ...], transposed: bool, name: str) -> None:
    """Raise ModelError unless the update is made for a weight of that shape."""
    a, b = update.a.shape, update.b.shape
    if len(a) != 2 or len(b) != 2 or a[0] != b[1] or not 0 < a[0] <= MAX_RANK:
        raise BrokenModel(_ODD_PAIR, name=name, part=update.layer[:100])
    made_for: tuple[int, ...] = (b[0], a[1])
    if update.embedding or transposed:
        made_for = (a[1], b[0])
    ours = shape
    for vector in (update.bias, update.magnitude):
        if vector is not None and made_for == ours and vector.elements != b[0]:
            made_for, ours = vector.shape, (b[0],)
    if made_for != ours:
        raise ModelError(
            OTHER_SHAPE,
            name=name,
            part=update.layer[:100],
            theirs=_by(made_for),
            ours=_by(ours),
        )


def is_transposed(layer: str, architecture: str) -> bool:
    """Whether that layer keeps its weight as (in, out): GPT-2's Conv1D; all others are (out, in).

    The adapter's own `fan_in_fan_out` is true of the last layer it looked at only, so it is not asked.
    """
    return architecture in _CONV1D_MODELS and layer.rpartition(".")[2] in _CONV1D_LAYERS


def experts_in_first(architecture: str) -> bool:
    """Whether that architecture keeps its experts as (experts, in, out); most do (experts, out, in)."""
    return architecture in _EXPERTS_IN_FIRST


class Layers:
    """A base model's tensors, found by the name that an adapter gives them.

    Checkpoints and models differ in their outermost names: `h.0.attn` in the file is
    `transformer.h.0.attn` in the model.
    """

    def __init__(self, base: ModelFacts) -> None:
        self._exact = {tensor.name: tensor for tensor in base.tensors}
        self._inner: dict[str, list[Tensor]] = {}
        for tensor in base.tensors:
            self._inner.setdefault(_without_outer(tensor.name), []).append(tensor)
        tables = [found for name in EMBEDDINGS if (found := self.find(f"{name}.weight"))]
        self.embedding = tables[0] if tables else None
        """The table of the tokens' embeddings."""
        self.tied = base.tied
        """Whether the output layer has no weights of its own and uses that table."""

    def find(self, name: str) -> Tensor | None:
        """The tensor of that name, or the only one that bears it inside another outermost module."""
        if name in self._exact:
            return self._exact[name]
        found = self._inner.get(_without_outer(name), [])
        return found[0] if len(found) == 1 else None

    def weight(self, layer: str) -> Tensor | None:
        """The weight of that layer; of a tied output layer the embeddings."""
        if found := self.find(f"{layer}.weight"):
            return found
        return self.embedding if self.tied and layer.rpartition(".")[2] in OUTPUTS else None

    def holds(self, layer: str) -> bool:
        """Whether there is a layer of that name."""
        within = _without_outer(layer) + "."
        return any(name.startswith(within) for name in self._inner)


def _check_saved(saved: Saved, layers: Layers, name: str) -> None:
    layer, _, kind = saved.name.rpartition(".")
    target = layers.weight(layer) if kind == "weight" else layers.find(saved.name)
    if target is None:
        raise ModelError(NO_LAYER, name=name, part=saved.name[:100])
    # A table of tokens may have grown with the vocabulary.
    table = layer.rpartition(".")[2] in (*EMBEDDINGS, *OUTPUTS)
    same = saved.tensor.shape[1:] == target.shape[1:] if table or saved.rows else False
    if saved.tensor.shape != target.shape and not same:
        raise ModelError(
            OTHER_SHAPE,
            name=name,
            part=saved.name[:100],
            theirs=_by(saved.tensor.shape),
            ours=_by(target.shape),
        )


def _update(layer: str, found: dict[str, Tensor], name: str) -> Update:
    embedding = "lora_embedding_A" in found or "lora_embedding_B" in found
    a, b = (found.get(f"lora_embedding_{h}" if embedding else f"lora_{h}") for h in "AB")
    if a is None or b is None:
        raise BrokenModel(_HALF, name=name, part=layer[:100])
    return Update(
        layer, a, b, found.get("lora_B.bias"), found.get("lora_magnitude_vector"), embedding
    )


def _facts(config: dict[str, Any], name: str) -> AdapterFacts:
    rank, alpha = config.get("r", 8), config.get("lora_alpha", 8)
    if type(rank) is not int or not 0 < rank <= MAX_RANK:
        raise BrokenModel(_ODD, name=name, part="r")
    if type(alpha) not in (int, float) or not math.isfinite(alpha):
        raise BrokenModel(_ODD, name=name, part="lora_alpha")
    for key in _SWITCHES:
        if config.get(key) not in (None, True, False):
            raise BrokenModel(_ODD, name=name, part=key)
    kinds = [("use_dora", "DoRA"), ("use_rslora", "rsLoRA")]
    return AdapterFacts(
        base=str(config.get("base_model_name_or_path") or ""),
        kind=" + ".join(word for key, word in kinds if config.get(key) is True) or "LoRA",
        rank=rank,
        alpha=float(alpha),
        targets=(
            *_names(config, "target_modules", name),
            *_names(config, "target_parameters", name),
        ),
        saved=_names(config, "modules_to_save", name),
    )


def _names(config: dict[str, Any], key: str, name: str) -> tuple[str, ...]:
    """A list of names, or the one pattern that stands in its place."""
    found = config.get(key) or []
    names = [found] if isinstance(found, str) else found
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise BrokenModel(_ODD, name=name, part=key)
    return tuple(sorted(names))


def _plain(name: str) -> str:
    """What mirrors and quantised copies of a model have in common."""
    return _QUANTISED.sub("", name.rstrip("/").rpartition("/")[2]).lower()


def _without_outer(name: str) -> str:
    head, _, rest = name.partition(".")
    while head in _OUTER and rest:
        name = rest
        head, _, rest = name.partition(".")
    return name


def _by(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
