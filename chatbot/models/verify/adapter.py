"""What an adapter must have done to its base: each weight it targets, exactly, and no other.

W + scale·B·A (LoRA, rsLoRA), m·(W + scale·B·A)/‖W + scale·B·A‖ (DoRA), whole layers and single rows that
were trained along. Computed here anew, apart from the code that merges.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from chatbot.i18n import N_
from chatbot.memory.adapter import (
    EMBEDDINGS,
    OUTPUTS,
    Layers,
    Saved,
    Update,
    experts_in_first,
    is_transposed,
    parts_of,
    read_config,
)
from chatbot.memory.facts import ModelFacts, Tensor
from chatbot.memory.headers import read_model
from chatbot.models.verify.check import Check, check
from chatbot.models.verify.number_types import Values, decode
from chatbot.models.verify.stored import Stored, StoredModel, open_model

NOTHING = N_("The adapter changes nothing: every B·A is zero.")
LEFT_OUT = N_("The adapter was not applied to {count} of its layers, first {name}.")
TIMES = N_("The adapter's change of {name} was applied {times} times.")
ROWS = 4096
ROUNDING = {"F64": 0.0, "F32": 0.0, "F16": 2.0**-11, "BF16": 2.0**-8}


@dataclass(slots=True)
class Target:
    """One tensor that the adapter changes, and how much of the change was found in the result."""

    name: str
    scale: float = 0.0
    left: Values | None = None
    """Rows × rank, and rank × columns: their product times the scale is the change."""
    right: Values | None = None
    magnitude: Values | None = None
    norms: Values | None = None
    """Lengths of the columns, where magnitudes belong to those: turned weights and embeddings."""
    rows: dict[int, Values] = field(default_factory=dict)
    """Rows that were trained along, and their values."""
    turned: bool = False
    """Whether the weight is (in, out)."""
    offset: Values | None = None
    """What is added to a bias."""
    type: str = "F32"
    along: float = 0.0
    squares: float = 0.0
    changed: bool = False

    def applied(
        self, base: Values, values: Values, begin: int, end: int
    ) -> tuple[Values, Values | float]:
        """What those rows of the base must have become, and what rounding in the sums may add to it.

        `values` are the rows that were found.
        """
        base = base.astype(np.float64)
        slack: Values | float = 0.0
        expected = base
        if self.left is not None and self.right is not None:
            left = self.left[begin:end].astype(np.float64)
            change = self.scale * self._product(left, self.right, begin)
            size = abs(self.scale) * self._product(np.abs(left), np.abs(self.right), begin)
            expected = base + change
            rank = self.right.shape[-2]
            slack = (rank + 4) * 2.0**-24 * size + 2.0**-23 * np.abs(base)
        if self.offset is not None:
            expected = base + self.offset[begin:end, None]
            slack = 2.0**-23 * np.abs(expected)
        if self.magnitude is not None:
            if self.norms is None:
                norm = np.sqrt(np.einsum("ij,ij->i", expected, expected))
                factor = (self.magnitude[begin:end] / np.maximum(norm, 1e-60))[:, None]
            else:
                factor = (self.magnitude / np.maximum(self.norms, 1e-60))[None, :]
            expected = expected * factor
            slack = slack * np.abs(factor) + (2.0**-21 + ROUNDING[self.type]) * np.abs(expected)
        for row, trained in self.rows.items():
            if begin <= row < end:
                expected[row - begin] = trained
        difference = expected - base
        with np.errstate(all="ignore"):
            self.along += float(np.sum((values - base) * difference))
        self.squares += float(np.sum(difference * difference))
        self.changed = self.changed or bool((values != base).any())
        return expected, slack

    def measure(self, base: Values, begin: int, end: int) -> None:
        """Take these rows of the base into the lengths of the columns."""
        assert self.left is not None
        assert self.right is not None
        summed = base + self.scale * self._product(self.left[begin:end], self.right, begin)
        squares = np.einsum("ij,ij->j", summed, summed)
        self.norms = np.sqrt(squares if self.norms is None else self.norms**2 + squares)

    def _product(self, left: Values, right: Values, begin: int) -> Values:
        """left @ right, where each expert's rows have a right factor of their own."""
        if right.ndim == 2:
            product: Values = left @ right
            return product
        assert self.left is not None
        rows = self.left.shape[0] // right.shape[0]
        cuts = range(rows - begin % rows, len(left), rows)
        parts = np.split(left, list(cuts))
        return np.concatenate([p @ right[begin // rows + at] for at, p in enumerate(parts)])

    @property
    def times(self) -> float:
        """How many times the change was found in the result: 1 is right, 0 never, 2 twice."""
        return self.along / self.squares if self.squares else 1.0


class Change:
    """Everything an adapter does to its base. Raises ModelError, BrokenModel."""

    def __init__(self, adapter: Path, base: StoredModel) -> None:
        facts = read_model(base.path)
        self._config = read_config(adapter)
        self._stored = open_model(adapter)
        declared = [Tensor(t.name, t.shape, t.type, t.size) for t in self._stored.tensors.values()]
        parts = parts_of(declared, adapter.name)
        self._layers = Layers(facts)
        self._architecture = facts.architecture
        self.targets: dict[str, Target] = {}
        self._saved: dict[str, Stored] = {}
        self._untied: str | None = None
        for saved in parts.saved:
            self._save(saved, facts)
        for update in parts.updates:
            self._update(update)
        self._untie(facts, parts.updates)
        for target in self.targets.values():
            if target.magnitude is not None and target.turned:
                stored = self._saved.get(target.name) or self.base(base).tensors[target.name]
                for begin in range(0, stored.rows, ROWS):
                    end = min(begin + ROWS, stored.rows)
                    values = decode(stored.read(begin, end), stored.type, stored.width)
                    if values is not None:
                        target.measure(values.astype(np.float64), begin, end)

    def of(self, name: str) -> Target | None:
        """What the adapter does to that tensor of the result."""
        return self.targets.get(name)

    def base(self, base: StoredModel) -> StoredModel:
        """The base with the layers that the adapter brings whole, and an output layer of its own."""
        tensors = dict(base.tensors)
        if self._untied and self._layers.embedding:
            shared = self._layers.embedding.name
            table = base.tensors[shared]
            if shared in self._saved and not self._is_module_to_save(shared):
                table = self._saved[shared]  # both had grown before the training
            tensors[self._untied] = replace(table, name=self._untied)
        for name, saved in self._saved.items():
            tensors[name] = replace(saved, name=name)
        return replace(base, tensors=tensors)

    def check(self, wrong: Collection[str]) -> Check:
        """Whether every targeted weight was changed once, by scale·B·A; `wrong` are those that are not right.

        How often a change far below a weight's last bit was applied cannot be read off, so only they count.
        """
        changing = [target for target in self.targets.values() if target.squares]
        faulty = [target for target in changing if target.name in wrong]
        left_out = [target.name for target in faulty if not target.changed]
        measured: dict[str, Any] = {
            "targets": len(self.targets),
            "changed": sum(1 for target in changing if target.changed),
            "whole": len(self._saved),
            "scale": next((t.scale for t in changing if t.left is not None), None),
            "times": float(np.median([t.times for t in changing])) if changing else None,
            "change": math.sqrt(sum(t.squares for t in changing)),
        }
        limit = {"times": 1.0, "wrong": 0}
        if not changing and not self._saved:
            return check("adapter", NOTHING, measured=measured, limit=limit)
        if left_out:
            shown = {"count": len(left_out), "name": left_out[0]}
            return check("adapter", LEFT_OUT, measured=measured, limit=limit, **shown)
        if faulty:
            furthest = max(faulty, key=lambda target: abs(target.times - 1))
            shown = {"name": furthest.name, "times": f"{furthest.times:.3g}"}
            return check("adapter", TIMES, measured=measured, limit=limit, **shown)
        return check("adapter", measured=measured, limit=limit)

    def _values(self, name: str) -> Values:
        stored = self._stored.tensors[name]
        found = decode(stored.read(0, stored.rows), stored.type, stored.width)
        assert found is not None
        return found.astype(np.float64)

    def _update(self, update: Update) -> None:
        tensor = self._layers.weight(update.layer)
        if tensor is None:
            self._experts(update)
            return
        name = tensor.name
        if name == getattr(self._layers.embedding, "name", "") and not _is_table(update.layer):
            name = self._untied = (
                f"{update.layer}.weight"  # a tied output layer gets its own weights
            )
        a, b = self._values(update.a.name), self._values(update.b.name)
        turned = update.embedding or is_transposed(update.layer, self._architecture)
        target = self.targets.setdefault(name, Target(name))
        target.scale, target.type = self._scale(update.layer, a.shape[0]), tensor.type
        target.turned = turned
        target.left, target.right = (a.T, b.T) if turned else (b, a)
        if update.magnitude is not None:
            target.magnitude = self._values(update.magnitude.name).reshape(-1)
        if update.bias is not None and (bias := self._layers.find(f"{update.layer}.bias")):
            offset = self._values(update.bias.name).reshape(-1) * target.scale
            self.targets[bias.name] = Target(bias.name, offset=offset, type=bias.type)

    def _experts(self, update: Update) -> None:
        """A LoRA on a bare parameter with all experts of a layer: the shapes tell which one."""
        module = update.layer
        while module.endswith(".base_layer"):
            module = module.removesuffix(".base_layer")
        for named in self._config.get("target_parameters") or []:
            tensor = self._layers.find(f"{module}.{str(named).rpartition('.')[2]}")
            if tensor is None or len(tensor.shape) not in (2, 3):
                continue
            experts = tensor.shape[0] if len(tensor.shape) == 3 else 1
            made_for = (update.b.shape[0], update.a.shape[1])
            turned = experts > 1 and experts_in_first(self._architecture)
            if (made_for[::-1] if turned else made_for) != tensor.shape[-2:]:
                continue
            a, b = self._values(update.a.name), self._values(update.b.name)
            rank = a.shape[0] // experts
            a = a.reshape(experts, rank, -1)
            b = b.reshape(b.shape[0], rank, experts).transpose(2, 0, 1)
            left, right = (a.transpose(0, 2, 1), b.transpose(0, 2, 1)) if turned else (b, a)
            target = self.targets.setdefault(tensor.name, Target(tensor.name))
            target.scale, target.type = self._scale(tensor.name, rank), tensor.type
            target.left, target.right = left.reshape(-1, rank), right

    def _untie(self, facts: ModelFacts, updates: Sequence[Update]) -> None:
        """Where the embeddings alone are changed, a tied output layer keeps the table they shared."""
        table = self._layers.embedding
        together = self._config.get("ensure_weight_tying") is True
        if self._untied or together or table is None or not facts.tied:
            return
        adapted = any(self._layers.weight(update.layer) == table for update in updates)
        if adapted or (table.name in self._saved and self._is_module_to_save(table.name)):
            self._untied = f"{OUTPUTS[0]}.weight"

    def _is_module_to_save(self, name: str) -> bool:
        layer = name.removesuffix(".weight")
        listed = self._config.get("modules_to_save") or []
        return any(layer == each or layer.endswith(f".{each}") for each in listed)

    def _save(self, saved: Saved, facts: ModelFacts) -> None:
        layer, _, kind = saved.name.rpartition(".")
        tensor = self._layers.find(saved.name)
        name = tensor.name if tensor else saved.name
        if not saved.rows:
            if kind == "weight" and tensor is None and facts.tied and not _is_table(layer):
                self._untied = name
            self._saved[name] = self._stored.tensors[saved.tensor.name]
            return
        chosen = self._config.get("trainable_token_indices") or []
        if isinstance(chosen, dict):
            chosen = next((v for k, v in chosen.items() if layer.endswith(k)), [])
        target = self.targets.setdefault(name, Target(name))
        values = self._values(saved.tensor.name)
        target.rows = {int(row): values[i] for i, row in enumerate(chosen)}

    def _scale(self, layer: str, rank: int) -> float:
        alpha = float(
            _of_layer(self._config.get("alpha_pattern"), layer, self._config.get("lora_alpha", 8))
        )
        rank = int(_of_layer(self._config.get("rank_pattern"), layer, self._config.get("r", rank)))
        return alpha / (math.sqrt(rank) if self._config.get("use_rslora") else rank)


def _of_layer(patterns: Any, layer: str, otherwise: Any) -> Any:
    """The value of the first pattern that the layer's name ends with, as PEFT looks it up."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", layer):
            return value
    return otherwise


def _is_table(layer: str) -> bool:
    return layer.rpartition(".")[2] in EMBEDDINGS
