"""What shares the memory with a model: processes that would make room for it, and search models that stay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psutil

from chatbot.hardware.detect import without
from chatbot.hardware.nvidia import nvidia_gpus
from chatbot.memory.footprint import CUDA_CONTEXT
from chatbot.memory.room import Beside
from chatbot.types import Evicted, Gpu, Hardware, MemoryPlan

MIB = 1 << 20
# Resident memory that importing the index's worker, and torch with sentence-transformers, takes; measured.
BARE_INDEX, TORCH = 40 * MIB, 460 * MIB


def after_ending(
    hardware: Hardware, name: str, pid: int, planned: MemoryPlan | None = None
) -> tuple[Hardware, Evicted]:
    """The PC once that process has ended, and what that gives back.

    Where a driver does not tell what a process holds on its card, `planned` says it.
    """
    freed = without(hardware, pid)
    shares = {card.index: sum(card.parts.values()) for card in planned.cards} if planned else {}

    def told(before: Gpu, after: Gpu) -> Gpu:
        if after.free > before.free or before.kind != "cuda":
            return after
        return replace(after, free=min(after.free + shares.get(after.index, 0), after.total))

    cards = tuple(map(told, hardware.gpus, freed.gpus))
    freed = replace(freed, gpus=cards)
    on_cards = sum(
        after.free - before.free
        for before, after in zip(hardware.gpus, cards, strict=True)
        if not hardware.unified_memory
    )
    return freed, Evicted(name, freed.ram_available - hardware.ram_available, on_cards)


def search_models(
    folders: Mapping[str, Path], pid: int | None, hardware: Hardware, *, on_gpu: bool
) -> Beside:
    """What these models of the search will still take: all of it, or what their process holds not yet.

    `folders` are named for people; `on_gpu` says whether sentence-transformers finds a GPU.
    """
    weights = {name: _weights(folder) for name, folder in folders.items()}
    weights = {name: size for name, size in weights.items() if size}
    if not weights:
        return Beside()
    held = _resident(pid) - BARE_INDEX if pid else 0
    size, names = sum(weights.values()), tuple(weights)
    if not (on_gpu and hardware.gpus):
        left = size + TORCH - held
        return Beside(names, ram=left) if left > 0 else Beside()
    on_card = size + (0 if hardware.unified_memory else CUDA_CONTEXT)
    if pid and held >= TORCH:  # torch is at work there already
        told = [card.used_by_hearth for card in nvidia_gpus({pid})]
        on_card = max(on_card - sum(filter(None, told)), 0) if None not in told else 0
    left = max(TORCH - held, 0)
    return Beside(names, ram=left, gpu=on_card) if left + on_card else Beside()


def _weights(folder: Path) -> int:
    """Bytes of a folder's weights where torch runs them; 0 for what is no transformer."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        if config.get("model_type") == "model2vec":
            return 0
        return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    except (OSError, ValueError):
        return 0


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
