"""What a model may take on this PC: the memory that is free, less what must stay so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from chatbot.memory.footprint import Footprint
from chatbot.types import Gpu, Hardware

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Beside:
    """Bytes that Hearth's own search models will still take while the model runs, and their names."""

    names: tuple[str, ...] = ()
    ram: int = 0
    gpu: int = 0


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes of main memory, and GPUs that a model library can use with the bytes of each.

    The roomiest GPU comes first. With unified memory the one GPU's bytes are part of `ram`.
    """

    ram: int
    cards: tuple[tuple[Gpu, int], ...]
    unified: bool

    def over(self, footprint: Footprint, limits: Sequence[int]) -> tuple[int, int]:
        """Bytes by which a model in use outgrows main memory, and the GPU of these that it outgrows most."""
        main = footprint.peak("ram") - self.ram
        if not footprint.gpu:
            return main, 0
        on_cards = [
            sum(card.values()) + footprint.gpu_growth - limit
            for card, limit in zip(footprint.cards, limits, strict=True)
        ]
        if self.unified:
            main += footprint.peak("gpu")
        return main, max(on_cards)


def room(hardware: Hardware, beside: Beside | None = None) -> Room:
    """The room on this PC now, without what other programs hold and should keep."""
    beside = beside or Beside()
    unified = hardware.unified_memory
    usable = [gpu for gpu in hardware.gpus if gpu.kind != "rocm"]
    first = min((gpu.index for gpu in usable), default=0)  # where search models are put

    def left(gpu: Gpu) -> int:
        spared = 0 if unified else spare_of(gpu)
        return gpu.free - spared - (beside.gpu if gpu.index == first else 0)

    cards = sorted(((gpu, left(gpu)) for gpu in usable), key=lambda card: -card[1])
    shared = beside.gpu if unified else 0
    return Room(
        hardware.ram_available - spare(hardware) - beside.ram - shared, tuple(cards), unified
    )


def allowed(hardware: Hardware, chosen: str | None) -> Hardware:
    """The PC without the GPUs that a person's CUDA_VISIBLE_DEVICES hides from CUDA; None hides none."""
    if chosen is None:
        return hardware
    numbers = {part.strip() for part in chosen.split(",")}
    if not all(number.isdigit() for number in numbers - {""}):
        return hardware  # by names that only the driver can tell
    shown = tuple(g for g in hardware.gpus if g.kind != "cuda" or str(g.index) in numbers)
    device = hardware.device if any(g.kind != "rocm" for g in shown) else "cpu"
    return replace(hardware, gpus=shown, device=device)


def spare(hardware: Hardware) -> int:
    """Bytes of main memory left to other programs: a twentieth, between 256 MiB and 2 GiB."""
    return min(max(hardware.ram_total // 20, 256 * MIB), 2048 * MIB)


def spare_of(gpu: Gpu) -> int:
    """Bytes of a GPU left to the desktop and to rounding: a twentieth, at most 512 MiB."""
    return min(gpu.total // 20, 512 * MIB)
