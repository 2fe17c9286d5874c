"""What Hearth recommends by tier of memory: `python -m benchmarks.presets`.

No PC is asked: each line is what the plan says of usual geometries on made-up hardware with 93 % of its
memory free. docs/decisions.md quotes it.
"""

from __future__ import annotations

import time

from chatbot.hardware.detect import Installed
from chatbot.memory.recommend import recommend
from chatbot.types import Gpu, Hardware

FREE = 0.93
CARDS = ((4,), (6,), (8,), (12,), (16,), (24,), (48,), (80,), (24, 24), (12, 8))
MAIN = (8, 16, 32, 64)
APPLE = (8, 16, 24, 64)


def pc(ram: float, cards: tuple[float, ...] = (), *, apple: bool = False) -> Hardware:
    """A PC with so many gigabytes, and so many on each card."""
    kind = "mps" if apple else "cuda"
    gpus = tuple(
        Gpu(number, f"{size:g} GB", kind, int(size * 1e9), int(size * FREE * 1e9))  # type: ignore[arg-type]
        for number, size in enumerate(cards)
    )
    return Hardware(
        device=gpus[0].kind if gpus else "cpu",  # type: ignore[arg-type]
        gpus=gpus, ram_total=int(ram * 1e9), ram_available=int(ram * 0.7 * 1e9), swap_total=0,
        swap_used=0, cores=8, cores_physical=8, cpu_name="", cpu_flags=("avx2",), cpu_load=0.0,
        disk_total=0, disk_free=0, system="", unified_memory=apple,
    )  # fmt: skip


def main() -> None:
    tiers = [(f"CPU, {ram} GB", pc(ram)) for ram in MAIN]
    tiers += [(f"GPU, {' + '.join(map(str, cards))} GB", pc(32, cards)) for cards in CARDS]
    tiers += [(f"Apple, {ram} GB", pc(ram, (ram * 0.75,), apple=True)) for ram in APPLE]
    for name, here in tiers:
        start = time.perf_counter()
        best = recommend(here, Installed())
        took = 1000 * (time.perf_counter() - start)
        said = (
            f"{best.billions:>4g} B  {best.precision:7} {best.backend:12} needs {best.needs / 1e9:5.1f} GB"
            if best
            else "documents are quoted"
        )
        print(f"{name:18} {said}  ({took:.0f} ms)")


if __name__ == "__main__":
    main()
