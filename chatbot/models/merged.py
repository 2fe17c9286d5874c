"""A base model with an adapter in it, as a source of weights: computed while they are read.

    adapter = Adapter(folder)
    merged = Merged(adapter, base_folder, base_facts)      # raises ModelError when the two do not fit
    for tensor in merged.tensors:
        merged.blocks(tensor.name)                         # the merged weights, piece by piece

Only one piece of a tensor and its adapter are in memory. Everything is computed in float32 and rounded
once to the base's own type: so does PEFT, which loads adapters as float32. Multiplied and added in 16
bits, a change would lose digits twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from chatbot.errors import BrokenModel, ModelError
from chatbot.i18n import N_
from chatbot.memory.adapter import EMBEDDINGS, OUTPUTS, Layers, check_parts
from chatbot.memory.facts import ModelFacts, Tensor
from chatbot.models.adapters import Adapter, Change, Plan, check_complete
from chatbot.models.weights import PIECE, Weights, dtype_of

if TYPE_CHECKING:
    import torch

_NOT_FINITE = N_(
    "{part} holds values that are no numbers (NaN or infinite); the training went wrong."
)
_ZERO = N_("it changes nothing: all of its weights are zero, as before the training.")
_UNCHANGED = N_("it changes nothing: the merged weights are the base's own.")
_SWALLOWED = N_(
    "its change of {part} is too small for the base's number format; nothing of it would be left."
)
_OVERFLOW = N_("{part} with the change is beyond what the base's number format can hold.")
_VOCABULARY = N_(
    "it brings a vocabulary of {theirs} tokens, and the base's other table has {ours}."
)
_ODD = N_("adapter_config.json gives no usable value for {part}.")


class Merged:
    """The base with the adapter in it: a Source of weights, computed while they are read.

    Raises ModelError, naming the cause, when the two do not belong together.
    """

    def __init__(self, adapter: Adapter, folder: Path, base: ModelFacts) -> None:
        check_parts(adapter.parts, base, adapter.name)
        self._adapter = adapter
        self._base = Weights(folder, base.files)
        layers = Layers(base)
        check_complete(adapter, layers, base)
        changes = Plan(adapter, layers, base.architecture).changes()
        self.changes = {change.tensor.name: change for change in changes}
        """What becomes of which tensor, by its name in the merged model."""
        self.untied = layers.tied and any(name not in self._base for name in self.changes)
        """Whether the output layer has weights of its own now, which it shared before."""
        self.resized = any(_resized(change) for change in changes)
        """Whether the vocabulary has another size than the base's."""
        self.vocabulary = self._vocabulary(layers)
        """Rows of the embedding table; 0 where the base has none of a known name."""
        self.seen: dict[str, Difference] = {}
        """What was found out about each changed tensor while it was read."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor of the merged model."""
        kept = [
            self.changes[t.name].tensor if t.name in self.changes else t for t in self._base.tensors
        ]
        return (*kept, *(c.tensor for n, c in self.changes.items() if n not in self._base))

    def blocks(self, name: str) -> Iterator[torch.Tensor]:
        """The merged tensor piece by piece, flat, in its own type. Raises ModelError for infinities."""
        change = self.changes.get(name)
        return self._base.blocks(name) if change is None else self._changed(change)

    def repeats_base(self, change: Change) -> bool:
        """Whether the weights that the adapter brings whole are the base's own (PEFT saves embeddings so)."""
        return all(
            base is not None and bool((base == start.to(base.dtype)).all())
            for _, base, start in self._starts(change)
        )

    def check_values(self) -> None:
        """Raise ModelError when the adapter's values are no numbers, have no place, or are all zero."""
        import torch

        adapter, zero = self._adapter, set()
        for change in self.changes.values():
            _rows(adapter, change)
        for tensor in adapter.tensors:
            values = adapter.tensor(tensor.name)
            if not torch.isfinite(values).all():
                raise ModelError(_NOT_FINITE, name=adapter.name, part=tensor.name[:100])
            if not values.any():
                zero.add(tensor.name)
        if adapter.parts.saved:
            return
        for update in adapter.parts.updates:
            low_rank = update.a.name not in zero and update.b.name not in zero
            if low_rank or update.magnitude or (update.bias and update.bias.name not in zero):
                return
        raise ModelError(_ZERO, name=adapter.name)

    def check_differences(self) -> None:
        """After every tensor was read: raise ModelError unless each change arrived where it was meant."""
        for name, seen in self.seen.items():
            if seen.asked and not seen.changed:
                raise ModelError(_SWALLOWED, name=self._adapter.name, part=name)
        if not any(seen.changed for seen in self.seen.values()):
            raise ModelError(_UNCHANGED, name=self._adapter.name)

    def _changed(self, change: Change) -> Iterator[torch.Tensor]:
        import torch

        dtype = dtype_of(change.tensor.type)
        work = _Work(self._adapter, change)
        if work.needs_norms:
            for begin, _, start in self._starts(change):
                work.measure(begin, start)
        seen = Difference()
        for begin, base, start in self._starts(change):
            exact = work.changed(begin, start)
            rounded = exact.to(dtype)
            seen.add(base, exact, rounded)
            if not seen.finite and not torch.isfinite(rounded).all():
                raise ModelError(_OVERFLOW, name=self._adapter.name, part=change.tensor.name)
            yield rounded
        self.seen[change.tensor.name] = seen

    def _starts(self, change: Change) -> Iterator[tuple[int, torch.Tensor | None, torch.Tensor]]:
        """Where each piece begins, the base's values there, and those that the change starts from.

        The base has none where the adapter's table has another size.
        """
        brought = (
            self._adapter.tensor(change.saved.tensor.name).reshape(-1) if change.saved else None
        )
        begin = 0
        if change.source is not None and change.source.shape == change.tensor.shape:
            for piece in self._base.blocks(change.source.name):
                end = begin + piece.numel()
                yield begin, piece, piece if brought is None else brought[begin:end]
                begin = end
        elif brought is not None:
            for piece in brought.split(PIECE // 4):
                yield begin, None, piece
                begin += piece.numel()

    def _vocabulary(self, layers: Layers) -> int:
        """The rows of the embedding table, which must be those of the output layer."""
        tables = {
            tensor.name: tensor.shape[0]
            for tensor in self.tensors
            if tensor.name.removesuffix(".weight").rpartition(".")[2] in (*EMBEDDINGS, *OUTPUTS)
        }
        resized = [c.tensor.shape[0] for c in self.changes.values() if _resized(c)]
        for rows in tables.values() if self.resized else ():
            if rows != resized[0]:
                raise ModelError(_VOCABULARY, name=self._adapter.name, theirs=resized[0], ours=rows)
        return tables.get(layers.embedding.name, 0) if layers.embedding else 0


class _Work:
    """Computes one change, piece by piece; `measure` must have seen every piece first where norms count."""

    def __init__(self, adapter: Adapter, change: Change) -> None:
        import torch

        self._columns = change.tensor.shape[-1] if change.tensor.shape else 1
        self._factors = [(*each.factors(adapter), each.scale) for each in change.low_rank]
        self._bias = None
        if change.bias is not None and change.bias.update.bias is not None:
            values = adapter.tensor(change.bias.update.bias.name)
            self._bias = values.float() * change.bias.scale
        self._rows = _rows(adapter, change)
        dora = next((each for each in change.low_rank if each.update.magnitude), None)
        self.needs_norms = dora is not None
        """Whether the length of every row, or column, must be known before (DoRA)."""
        if dora is not None and dora.update.magnitude is not None:
            magnitude = adapter.tensor(dora.update.magnitude.name).reshape(-1)
            self._magnitude = magnitude.double()
            self._by_column = dora.transposed or dora.update.embedding
            self._squares = torch.zeros_like(self._magnitude)

    def measure(self, begin: int, start: torch.Tensor) -> None:
        """Take a piece into the lengths."""
        values = self._added(begin, start).double()
        self._squares.index_add_(0, self._lines(begin, values), values * values)

    def changed(self, begin: int, start: torch.Tensor) -> torch.Tensor:
        """The piece with the change in it, not yet rounded."""
        values = self._added(begin, start)
        if self.needs_norms:
            factors = (self._magnitude / self._squares.sqrt()).to(values.dtype)
            values = values * factors[self._lines(begin, values)]
        if self._bias is not None:
            values = values + self._bias[begin : begin + values.numel()]
        for row, replacement in self._rows:
            first, last = row * self._columns, (row + 1) * self._columns
            low, high = max(first, begin), min(last, begin + values.numel())
            if low < high:
                values[low - begin : high - begin] = replacement[low - first : high - first]
        return values

    def _lines(self, begin: int, values: torch.Tensor) -> torch.Tensor:
        """For each value the number of the row, or column, whose length counts for it."""
        import torch

        places = torch.arange(begin, begin + values.numel())
        if self._by_column:
            return places % self._columns
        return torch.div(places, self._columns, rounding_mode="floor")

    def _added(self, begin: int, start: torch.Tensor) -> torch.Tensor:
        """A copy of the piece, in float32 at least, with scale·left·right added."""
        import torch

        values = start.to(torch.promote_types(start.dtype, torch.float32), copy=True)
        end = begin + values.numel()
        for left, right, scale in self._factors:
            size = left.shape[1] * self._columns
            for expert in range(begin // size, (end - 1) // size + 1):
                low, high = max(begin, expert * size), min(end, (expert + 1) * size)
                first, last = (
                    (low - expert * size) // self._columns,
                    (high - expert * size - 1) // self._columns,
                )
                product = (left[expert, first : last + 1] @ right[expert]).reshape(-1)
                skip = low - expert * size - first * self._columns
                values[low - begin : high - begin].add_(
                    product[skip : skip + high - low], alpha=scale
                )
        return values


class Difference:
    """How a tensor changed: how many values, how much was asked for, and what rounding took of it."""

    def __init__(self) -> None:
        self.elements = 0
        self.changed = 0
        self.finite = True
        """False where a value may be infinite or no number; the sums of squares tell it on the way."""
        self._asked = 0.0
        self._lost = 0.0

    def add(self, base: torch.Tensor | None, exact: torch.Tensor, rounded: torch.Tensor) -> None:
        """Count a piece: the base's values (None where it has none), the exact sum, and what is kept."""
        import torch

        self.elements += rounded.numel()
        if base is None:
            self.changed += rounded.numel()
            self.finite = False
            return
        self.changed += int(torch.count_nonzero(rounded != base))
        difference = exact - base
        self._asked += float(torch.dot(difference, difference))
        if rounded.dtype != exact.dtype:
            difference = exact - rounded
            self._lost += float(torch.dot(difference, difference))
        self.finite = math.isfinite(self._asked + self._lost)

    @property
    def asked(self) -> bool:
        """Whether any change was asked for."""
        return self._asked > 0

    @property
    def squares(self) -> tuple[float, float]:
        """The squared length of the change asked for, and of what rounding did to it."""
        return self._asked, self._lost


def _rows(adapter: Adapter, change: Change) -> list[tuple[int, torch.Tensor]]:
    """The single rows that a change replaces. Raises BrokenModel where their numbers are odd."""
    if change.rows is None:
        return []
    said = adapter.config.get("trainable_token_indices")
    if isinstance(said, dict):
        layer = change.rows.name.removesuffix(".weight")
        said = next((v for k, v in said.items() if layer == k or layer.endswith(f".{k}")), None)
    values = adapter.tensor(change.rows.tensor.name)
    count = change.tensor.shape[0]
    if (
        not isinstance(said, list)
        or len(said) != values.shape[0]
        or not all(type(row) is int and 0 <= row < count for row in said)
    ):
        raise BrokenModel(_ODD, name=adapter.name, part="trainable_token_indices")
    return [(row, values[at].float()) for at, row in enumerate(said)]


def _resized(change: Change) -> bool:
    return change.source is not None and change.source.shape != change.tensor.shape
