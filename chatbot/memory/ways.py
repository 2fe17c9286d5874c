"""The ways of running a model here: library, precision, device, cache type; the context still open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from chatbot.memory.facts import ModelFacts
from chatbot.memory.footprint import Footprint, llama_cpp_footprint, transformers_footprint
from chatbot.memory.room import Room
from chatbot.memory.spread import in_proportion, spread
from chatbot.types import Backend, Gpu

CONTEXT_STEP = 256
BLOCK = 32
"""Values that a quantised block of the cache holds; a head's length must be a multiple of it."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A way with a context: what it takes, on which GPUs, and the bytes by which that is too much.

    `over_ram` and `over_gpu`, of the fullest GPU, are at most 0 where it fits.
    """

    way: Way
    context: int
    footprint: Footprint
    cards: tuple[Gpu, ...]
    split: tuple[int, ...]
    over_ram: int
    over_gpu: int

    @property
    def over(self) -> int:
        return max(self.over_ram, self.over_gpu)

    @property
    def fits(self) -> bool:
        return self.over <= 0


@dataclass(frozen=True, slots=True)
class Way:
    """One way of running the model. `layers` are those on GPUs, the output layer being one of them."""

    backend: Backend
    precision: str
    kv_type: str
    layers: int
    facts: ModelFacts
    batch: int
    room: Room
    learnt: Mapping[str, float] = field(default_factory=dict)
    threads: int | None = None
    threads_batch: int = 0
    flash: bool | None = None

    @property
    def whole(self) -> bool:
        """Whether every layer is on a GPU."""
        return self.layers > len(self.facts.layers)

    def at(self, context: int) -> Seat:
        """What it takes with that context, on as few GPUs as hold it."""
        if not self.layers:
            return self._seat(context, ())
        first = self._seat(context, (self.layers,))
        limits = [limit for _, limit in self.room.cards]
        if first.over_gpu <= 0 or self.backend == "transformers" or len(limits) == 1:
            return first
        each = self._plain(context, (1,) * self.layers).cards
        plainly = [int(limit / self.learnt.get("gpu", 1.0)) for limit in limits]
        for count in range(2, len(limits) + 1):
            if split := spread(each, plainly[:count]):
                return self._seat(context, split)
        split = in_proportion(self.layers, limits)
        return min(first, self._seat(context, split), key=lambda seat: seat.over_gpu)

    def longest(self, least: int, most: int) -> Seat | None:
        """The longest context from `least` to `most` that fits; None where not even the least does."""
        best = self.at(most)
        if best.fits:
            return best
        if least >= most or not (found := self.at(least)).fits:
            return None
        low, high = least // CONTEXT_STEP, most // CONTEXT_STEP
        while low < high:  # the need only grows with the context
            middle = (low + high + 1) // 2
            seat = self.at(middle * CONTEXT_STEP)
            if seat.fits:
                low, found = middle, seat
            else:
                high = middle - 1
        return found

    def _seat(self, context: int, split: tuple[int, ...]) -> Seat:
        cards = [(*card, layers) for card, layers in zip(self.room.cards, split, strict=False)]
        used = [card for card in cards if card[2]]
        split = tuple(layers for _, _, layers in used)
        plain = self._plain(context, split)
        footprint = plain.corrected(self.learnt.get("ram", 1.0), self.learnt.get("gpu", 1.0))
        over = self.room.over(footprint, [limit for _, limit, _ in used])
        return Seat(self, context, footprint, tuple(gpu for gpu, _, _ in used), split, *over)

    def _plain(self, context: int, split: tuple[int, ...]) -> Footprint:
        metal = any(gpu.kind == "mps" for gpu, _ in self.room.cards)
        if self.backend == "transformers":
            return transformers_footprint(
                self.facts,
                context,
                self.precision,
                self.batch,
                on_gpu=self.layers > 0,
                metal=metal,
            )
        return llama_cpp_footprint(
            self.facts,
            context,
            self.kv_type,
            self.batch,
            self.layers,
            flash=self.flash,
            split=split,
            metal=metal,
        )


def most_layers(way: Way, context: int) -> int:
    """How many of the last layers the GPUs hold with that context."""
    low, high = 0, len(way.facts.layers)
    while low < high:  # the GPUs' share only grows with its layers
        middle = (low + high + 1) // 2
        if replace(way, layers=middle).at(context).over_gpu <= 0:
            low = middle
        else:
            high = middle - 1
    return low


def can_quantise_cache(facts: ModelFacts) -> bool:
    """Whether llama.cpp can keep this model's cache in blocks: heads as long as whole blocks."""
    return all(
        layer.key_length % BLOCK == 0 and layer.value_length % BLOCK == 0 and not layer.latent
        for layer in facts.layers
        if layer.kv_heads
    )
