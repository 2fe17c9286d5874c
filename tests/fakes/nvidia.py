"""NVML as the tests need it: any number of cards, each figure settable, each call able to fail.

The constants and the errors are those of the real library, so that what catches them here catches them there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

GIB = 1 << 30
OTHER = 1
"""A process that is on every PC and never ours."""
_ON_PATH = Path(__file__).parent / "on_path"


@dataclass
class Card:
    name: str = "NVIDIA GeForce RTX 4060 Laptop GPU"
    total: int = 8 * GIB
    free: int = 7 * GIB
    capability: tuple[int, int] = (8, 9)
    load: int = 12
    temperature: int = 51
    milliwatts: int = 23_500
    power_limit: int = 115_000
    clock: int = 1_980
    memory_clock: int = 8_001
    pcie: tuple[int, int] = (4, 8)
    drawing: list[tuple[int, int | None]] = field(default_factory=list)
    processes: list[tuple[int, int | None]] = field(default_factory=list)
    vanished: bool = False
    """It fell off the bus: every question about it is answered with GPU_IS_LOST."""
    refuses: tuple[str, ...] = ()
    """Names of NVML functions that this card does not support."""
    bus: str = ""
    """Its address on the PCI bus; made up from its number where empty."""


def pc(name: str) -> list[Card]:
    """The cards of one of the PCs in `PCS`, new ones each time."""
    return PCS[name]()


PCS: dict[str, Any] = {
    "none": list,
    "laptop": lambda: [Card()],
    "desktop": lambda: [
        Card(
            "NVIDIA GeForce RTX 3060", 12 * GIB, 10 * GIB, (8, 6), load=3, temperature=38,
            milliwatts=17_000, power_limit=170_000, clock=210, pcie=(3, 16), drawing=[(OTHER, GIB)],
        )
    ],
    "two": lambda: [
        Card(
            "NVIDIA GeForce RTX 3090", 24 * GIB, 23 * GIB, (8, 6), power_limit=350_000, pcie=(4, 16)
        ),
        Card("NVIDIA GeForce GTX 1650", 4 * GIB, 4 * GIB - (300 << 20), (7, 5), pcie=(3, 4)),
    ],
    "full": lambda: [
        Card(
            "NVIDIA GeForce RTX 4070", 12 * GIB, GIB // 2, load=98, temperature=83,
            milliwatts=198_000, power_limit=200_000, processes=[(OTHER, 11 * GIB)],
        )
    ],
    "eight": lambda: [
        Card(
            "NVIDIA H100 80GB HBM3", 80 * GIB, (79 - 9 * number) * GIB, (9, 0), load=12 * number,
            temperature=34 + 4 * number, milliwatts=90_000 + 70_000 * number, power_limit=700_000,
            clock=1_980, memory_clock=2_619, pcie=(5, 16),
            processes=[(OTHER, 9 * number * GIB)] if number else [],
        )
        for number in range(8)
    ],
    "mixed": lambda: [
        Card(f"NVIDIA {size} GB", size * GIB, size * GIB - GIB // 2)
        for size in (4, 6, 8, 12, 16, 24, 48, 80)
    ],
}  # fmt: skip


def fake_pynvml(
    cards: Sequence[Card], fails: bool = False, into: ModuleType | None = None
) -> ModuleType:
    """A module to put into sys.modules['pynvml'].

    `module.driver` is what happens to all cards: `.unload()`, `.load()`; it counts `.opened` and `.asked`. `into`
    is filled in place of a new module.
    """
    module: Any = into or ModuleType("pynvml")
    real = _real_library()
    vars(module).update(
        (name, value)
        for name, value in vars(real).items()
        if name.startswith("NVML_") or (isinstance(value, type) and issubclass(value, Exception))
    )
    driver = module.driver = Driver(real, loaded=not fails)
    addressed(cards)

    def answer(name: str, value: Any) -> None:
        def ask(card: Card, *arguments: object) -> Any:
            driver.check()
            if card.vanished:
                raise real.NVMLError(real.NVML_ERROR_GPU_IS_LOST)
            if name in card.refuses:
                raise real.NVMLError(real.NVML_ERROR_NOT_SUPPORTED)
            return value(card, *arguments)

        setattr(module, name, ask)

    def of_driver(name: str, value: Any) -> None:
        def ask(*arguments: Any) -> Any:
            driver.check()
            return value(*arguments)

        setattr(module, name, ask)

    def clock(card: Card, kind: int) -> int:
        return card.memory_clock if kind == real.NVML_CLOCK_MEM else card.clock

    module.nvmlInit, module.nvmlShutdown = driver.open, driver.close
    of_driver("nvmlDeviceGetCount", lambda: len(cards))
    of_driver("nvmlDeviceGetHandleByIndex", cards.__getitem__)
    of_driver("nvmlSystemGetDriverVersion", lambda: "580.65.06")
    of_driver("nvmlSystemGetCudaDriverVersion_v2", lambda: 13_000)
    answer("nvmlDeviceGetName", lambda card: card.name)
    answer("nvmlDeviceGetPciInfo", lambda card: SimpleNamespace(busId=card.bus))
    answer(
        "nvmlDeviceGetMemoryInfo",
        lambda card: SimpleNamespace(total=card.total, free=card.free, used=card.total - card.free),
    )
    answer("nvmlDeviceGetCudaComputeCapability", lambda card: card.capability)
    answer("nvmlDeviceGetUtilizationRates", lambda card: SimpleNamespace(gpu=card.load, memory=3))
    answer("nvmlDeviceGetTemperature", lambda card, _kind: card.temperature)
    answer("nvmlDeviceGetPowerUsage", lambda card: card.milliwatts)
    answer("nvmlDeviceGetEnforcedPowerLimit", lambda card: card.power_limit)
    answer("nvmlDeviceGetClockInfo", clock)
    answer("nvmlDeviceGetCurrPcieLinkGeneration", lambda card: card.pcie[0])
    answer("nvmlDeviceGetCurrPcieLinkWidth", lambda card: card.pcie[1])
    answer("nvmlDeviceGetGraphicsRunningProcesses", lambda card: _processes(card.drawing))
    answer("nvmlDeviceGetComputeRunningProcesses", lambda card: _processes(card.processes))
    return module


def addressed(cards: Sequence[Card]) -> None:
    """Give each card without one an address on the PCI bus, which it keeps."""
    for number, card in enumerate(cards, 1):
        card.bus = card.bus or f"00000000:{number:02X}:00.0"


class Driver:
    """The kernel's side: it may be unloaded and loaded again; the library counts who opened it."""

    def __init__(self, real: Any, *, loaded: bool) -> None:
        self._real, self._loaded = real, loaded
        self._users = 0
        self._stale = False
        self.opened = self.asked = 0

    def unload(self) -> None:
        self._loaded = False
        self._stale = self._users > 0

    def load(self) -> None:
        """What was opened before stays of no use until everybody has closed it, as with the real one."""
        self._loaded = True

    def open(self) -> None:
        if not self._loaded:
            raise self._real.NVMLError(self._real.NVML_ERROR_DRIVER_NOT_LOADED)
        self._users += 1
        self.opened += 1

    def close(self) -> None:
        if not self._users:
            raise self._real.NVMLError(self._real.NVML_ERROR_UNINITIALIZED)
        self._users -= 1
        self._stale = self._stale and self._users > 0

    def check(self) -> None:
        self.asked += 1
        if not self._users:
            raise self._real.NVMLError(self._real.NVML_ERROR_UNINITIALIZED)
        if self._stale or not self._loaded:
            raise self._real.NVMLError(self._real.NVML_ERROR_UNKNOWN)


def _processes(listed: list[tuple[int, int | None]]) -> list[SimpleNamespace]:
    return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in listed]


@cache
def _real_library() -> Any:
    """NVIDIA's own Python module, also where on_path/pynvml.py stands before it."""
    elsewhere = [path for path in sys.path if Path(path).resolve() != _ON_PATH]
    found = PathFinder.find_spec("pynvml", elsewhere)
    assert found is not None
    spec = spec_from_file_location("real_pynvml", str(found.origin))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["real_pynvml"] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
