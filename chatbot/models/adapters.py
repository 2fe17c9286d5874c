"""An adapter opened beside its base: which of the base's tensors it changes, and by what.

`models.merged` computes the values; whatever can be said from names, shapes and settings is said here,
before any work.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatbot.errors import BrokenModel, ModelError
from chatbot.i18n import N_
from chatbot.memory.adapter import (
    OUTPUTS,
    WEIGHTS,
    Layers,
    Parts,
    Saved,
    Update,
    experts_in_first,
    is_transposed,
    parts_of,
    read_adapter,
    read_config,
    weights_file,
)
from chatbot.memory.facts import ModelFacts, Tensor
from chatbot.memory.folder import DTYPES
from chatbot.models.state_dict import StateDict
from chatbot.models.weights import FLOATS, Source, Weights

if TYPE_CHECKING:
    import torch

_RANK = N_("adapter_config.json gives {part} another rank than its weights have.")
_ODD = N_("adapter_config.json gives no usable value for {part}.")
_MISSING = N_("its weights for {part} are missing; the copy is incomplete.")
_TYPE = N_(
    "its base keeps {part} in a number format that nothing can be added to; choose the 16-bit model."
)
_NOT_AS_SAID = N_("its weights for {part} are not those that adapter_config.json describes.")
_AMBIGUOUS = N_("it cannot be told which weights its change for {part} belongs to.")


@dataclass(frozen=True, slots=True)
class LowRank:
    """scale · left · right, for each expert of a layer (one where there are none)."""

    update: Update
    scale: float
    transposed: bool = False
    """Whether the weight is (in, out): then its change is (B·A) turned."""
    experts: int = 1

    def factors(self, adapter: Adapter) -> tuple[torch.Tensor, torch.Tensor]:
        """left (experts, rows, rank) and right (experts, rank, columns), float32."""
        a, b = (
            adapter.tensor(self.update.a.name).float(),
            adapter.tensor(self.update.b.name).float(),
        )
        rank = a.shape[0] // self.experts
        a = a.reshape(self.experts, rank, a.shape[1])
        b = b.reshape(b.shape[0], rank, self.experts).permute(2, 0, 1)
        if self.transposed or self.update.embedding:
            return a.transpose(1, 2).contiguous(), b.transpose(1, 2).contiguous()
        return b.contiguous(), a.contiguous()


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one tensor of the base."""

    tensor: Tensor
    """As it will be written."""
    source: Tensor | None
    """The base's tensor it starts from; None where the adapter brings it whole."""
    saved: Saved | None = None
    low_rank: tuple[LowRank, ...] = ()
    bias: LowRank | None = None
    """Its lora_B has a bias of its own, which is added to this one."""
    rows: Saved | None = None

    @property
    def is_copy(self) -> bool:
        """Whether it is only written anew: the table of a tied output layer that gets its own."""
        return not (self.saved or self.low_rank or self.bias or self.rows)


class Adapter:
    """A PEFT adapter's folder, opened: settings, facts and values. Raises BrokenModel, ModelError."""

    def __init__(self, folder: Path) -> None:
        self.facts = read_adapter(folder)
        self.config = read_config(folder)
        self.folder = folder
        self.name = self.facts.name
        self._values = _values(folder)
        self.tensors = self._values.tensors
        self._shapes = {tensor.name: tensor.shape for tensor in self.tensors}

    @cached_property
    def parts(self) -> Parts:
        """Its tensors by what they do."""
        return parts_of(self.tensors, self.name)

    def tensor(self, name: str) -> torch.Tensor:
        """That tensor whole, in its own type."""
        import torch

        blocks = list(self._values.blocks(name))
        values = torch.cat(blocks) if len(blocks) != 1 else blocks[0]
        return values.reshape(self._shapes[name])

    def scale(self, layer: str, rank: int) -> float:
        """What B·A of that layer is multiplied with. Raises ModelError where the ranks contradict."""
        said = self._for_layer("rank_pattern", layer, self.config.get("r", 8))
        alpha = self._for_layer("alpha_pattern", layer, self.config.get("lora_alpha", 8))
        if said != rank:
            raise ModelError(_RANK, name=self.name, part=layer[:100])
        if type(alpha) not in (int, float) or not math.isfinite(alpha):
            raise BrokenModel(_ODD, name=self.name, part="alpha_pattern")
        root = self.config.get("use_rslora") is True
        return float(alpha) / (math.sqrt(rank) if root else rank)

    def _for_layer(self, key: str, layer: str, usual: Any) -> Any:
        """The first entry whose pattern ends the layer's name, as PEFT looks it up."""
        found = self.config.get(key) or {}
        if not isinstance(found, dict):
            raise BrokenModel(_ODD, name=self.name, part=key)
        for pattern, value in found.items():
            try:
                if re.match(rf"(.*\.)?({pattern})$", layer):
                    return value
            except re.error as error:
                raise BrokenModel(_ODD, name=self.name, part=key) from error
        return usual


class Plan:
    """Turns an adapter's parts into changes of the base's tensors."""

    def __init__(self, adapter: Adapter, layers: Layers, architecture: str) -> None:
        self._adapter = adapter
        self._layers = layers
        self._architecture = architecture
        self._together = adapter.config.get("ensure_weight_tying") is True
        self._changes: dict[str, Change] = {}

    def changes(self) -> list[Change]:
        """One for each tensor of the merged model that differs from the base's."""
        parts, shared = self._adapter.parts, self._layers.tied
        tables = self._tables() if shared else ()
        for saved in parts.saved:
            if saved.name not in tables:
                self._save(saved, saved.name)
        for update in parts.updates:
            if f"{update.layer}.weight" not in tables:
                self._update(update)
        if tables:
            self._tied(*tables)
        for name in _texts(self._adapter.config.get("modules_to_save")):
            here = (s.name.rpartition(".")[0] for s in parts.saved)
            if not self._together and not any(_ends(layer, name) for layer in here):
                raise BrokenModel(_MISSING, name=self._adapter.name, part=name[:100])
        for change in self._changes.values():
            if change.tensor.type not in FLOATS:
                raise ModelError(_TYPE, name=self._adapter.name, part=change.tensor.name)
        return list(self._changes.values())

    def _tables(self) -> tuple[str, str] | tuple[()]:
        """The names under which the adapter would change the embeddings and the output layer."""
        table = self._layers.embedding
        if table is None:
            return ()
        parts = self._adapter.parts
        names = {*(s.name for s in parts.saved), *(f"{u.layer}.weight" for u in parts.updates)}
        embedding = [name for name in names if self._layers.find(name) == table]
        output = [
            name
            for name in names - set(embedding)
            if self._layers.weight(name.removesuffix(".weight")) == table
        ]
        if not embedding and not output:
            return ()
        return (min(embedding, default=table.name), min(output, default=f"{OUTPUTS[0]}.weight"))

    def _tied(self, embedding: str, output: str) -> None:
        """Both layers use one table: a change of one alone gives the other a table of its own.

        So it is when the adapter runs unmerged. PEFT's own merge writes into the shared table, and
        both layers change.
        """
        parts = self._adapter.parts
        saved = {s.name: s for s in parts.saved if not s.rows}
        rows = next((s for s in parts.saved if s.rows and s.name in (embedding, output)), None)
        updates = {
            name: tuple(self._low_rank(u) for u in parts.updates if f"{u.layer}.weight" == name)
            for name in (embedding, output)
        }
        own = {n: s for n, s in saved.items() if n in updates and self._is_module_to_save(n)}
        resized = next((saved[n] for n in updates if n in saved and n not in own), None)
        if self._together or self._same_values(list(own.values())):
            resized, own = next(iter(own.values()), resized), {}
        table = self._layers.embedding
        assert table is not None
        start = Change(_like(table, table.name, resized), table, resized, rows=rows)
        apart = own or (not self._together and any(updates.values()))
        if not apart:
            self._changes[table.name] = replace(start, low_rank=updates[embedding])
            return
        for name, written in ((embedding, table.name), (output, output)):
            whole = own.get(name, resized)
            change = Change(_like(table, written, whole), table, whole, updates[name], rows=rows)
            if written != table.name or whole or rows or updates[name]:
                self._changes[written] = change

    def _save(self, saved: Saved, name: str) -> None:
        layer, _, kind = name.rpartition(".")
        target = self._layers.weight(layer) if kind == "weight" else self._layers.find(name)
        assert target is not None
        change = self._changes.get(target.name) or Change(target, target)
        if saved.rows:
            self._changes[target.name] = replace(change, rows=saved)
        else:
            tensor = _like(target, target.name, saved)
            self._changes[target.name] = replace(change, tensor=tensor, saved=saved)

    def _update(self, update: Update) -> None:
        target = self._layers.weight(update.layer)
        if target is None:
            target, low_rank = self._parameter(update)
        else:
            low_rank = self._low_rank(update)
        change = self._changes.get(target.name) or Change(target, target)
        self._changes[target.name] = replace(change, low_rank=(*change.low_rank, low_rank))
        if update.bias is not None:
            bias = self._layers.find(f"{update.layer}.bias")
            assert bias is not None
            before = self._changes.get(bias.name) or Change(bias, bias)
            self._changes[bias.name] = replace(before, bias=low_rank)

    def _low_rank(self, update: Update) -> LowRank:
        config = self._adapter.config
        for key, part in (("use_dora", update.magnitude), ("lora_bias", update.bias)):
            if (config.get(key) is True) != (part is not None):
                raise BrokenModel(_NOT_AS_SAID, name=self._adapter.name, part=update.layer[:100])
        scale = self._adapter.scale(update.layer, update.a.shape[0])
        return LowRank(update, scale, is_transposed(update.layer, self._architecture))

    def _parameter(self, update: Update) -> tuple[Tensor, LowRank]:
        """A LoRA on a bare parameter, such as all experts of a layer in one tensor.

        Several on one module are nested in each other, in an order that only the model knows: the
        shapes must tell them apart.
        """
        module = update.layer
        while module.endswith(".base_layer"):
            module = module.removesuffix(".base_layer")
        found = []
        for named in _texts(self._adapter.config.get("target_parameters")):
            name = f"{module}.{named.rpartition('.')[2]}"
            if not name.endswith(f".{named}") and name != named:
                continue
            target = self._layers.find(name)
            if target is None or len(target.shape) not in (2, 3):
                continue
            experts = target.shape[0] if len(target.shape) == 3 else 1
            turned = experts > 1 and experts_in_first(self._architecture)
            rank, odd = divmod(update.a.shape[0], experts)
            made_for = (update.b.shape[0], update.a.shape[1])
            if turned:
                made_for = made_for[::-1]
            if not odd and made_for == target.shape[-2:] and update.b.shape[1] == rank * experts:
                scale = self._adapter.scale(name, rank)
                found.append((target, LowRank(update, scale, turned, experts)))
        if len(found) != 1:
            raise ModelError(_AMBIGUOUS, name=self._adapter.name, part=update.layer[:100])
        return found[0]

    def _is_module_to_save(self, name: str) -> bool:
        layer = name.removesuffix(".weight")
        listed = _texts(self._adapter.config.get("modules_to_save"))
        return any(_ends(layer, each) for each in listed)

    def _same_values(self, saved: Sequence[Saved]) -> bool:
        if len(saved) < 2:
            return False
        one, other = (self._adapter.tensor(each.tensor.name) for each in saved)
        return one.shape == other.shape and bool((one == other).all())


def _values(folder: Path) -> Source:
    file = weights_file(folder)
    return Weights(folder, (WEIGHTS,)) if file.name == WEIGHTS else StateDict([file])


def check_complete(adapter: Adapter, layers: Layers, base: ModelFacts) -> None:
    """Raise BrokenModel when the adapter has no weights for some of the layers that it targets."""
    config = adapter.config
    if config.get("layers_to_transform") is not None or config.get("exclude_modules"):
        return
    found = [layers.weight(update.layer) for update in adapter.parts.updates]
    names = {tensor.name for tensor in found if tensor is not None}
    kinds = {_numberless(name) for name in names}
    lasts = {update.layer.rpartition(".")[2] for update in adapter.parts.updates}
    targets = config.get("target_modules")
    wanted = set(targets) - lasts if isinstance(targets, list) else set()
    for tensor in base.tensors:
        layer = tensor.name.removesuffix(".weight")
        if tensor.name in names or layer == tensor.name or len(tensor.shape) != 2:
            continue
        if _numberless(tensor.name) in kinds or layer.rpartition(".")[2] in wanted:
            raise BrokenModel(_MISSING, name=adapter.name, part=layer)


def _numberless(name: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", name)


def _like(tensor: Tensor, name: str, saved: Saved | None) -> Tensor:
    """The tensor under that name, in the shape of what is brought in its place."""
    shape = saved.tensor.shape if saved else tensor.shape
    size = math.prod(shape) * DTYPES[tensor.type]
    return Tensor(name, shape, tensor.type, size)


def _ends(layer: str, name: str) -> bool:
    """Whether the layer is the one, or one of those, that PEFT means by that name."""
    return layer == name or layer.endswith(f".{name}")


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
