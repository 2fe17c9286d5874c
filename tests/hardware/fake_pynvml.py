"""NVML as the tests need it: any number of cards, each figure settable, each call able to fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

GIB = 1 << 30


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
    pcie: tuple[int, int] = (4, 8)
    drawing: list[tuple[int, int | None]] = field(default_factory=list)
    processes: list[tuple[int, int | None]] = field(default_factory=list)
    vanished: bool = False
    refuses: tuple[str, ...] = ()
    """Names of NVML functions that this card answers with an error."""


def fake_pynvml(cards: list[Card], fails: bool = False) -> ModuleType:
    """A module to put into sys.modules['pynvml']."""
    module: Any = ModuleType("pynvml")

    class NVMLError(Exception):
        pass

    def start() -> None:
        if fails:
            raise NVMLError("Driver Not Loaded")

    def answer(name: str, value: Any) -> None:
        def ask(card: Card, *_: object) -> Any:
            if card.vanished or name in card.refuses:
                raise NVMLError("GPU is lost")
            return value(card)

        setattr(module, name, ask)

    module.NVMLError = NVMLError
    module.NVML_TEMPERATURE_GPU = 0
    module.nvmlInit = start
    module.nvmlDeviceGetCount = lambda: len(cards)
    module.nvmlDeviceGetHandleByIndex = cards.__getitem__
    module.nvmlSystemGetDriverVersion = lambda: "580.65.06"
    answer("nvmlDeviceGetName", lambda card: card.name)
    answer(
        "nvmlDeviceGetMemoryInfo",
        lambda card: SimpleNamespace(total=card.total, free=card.free, used=card.total - card.free),
    )
    answer("nvmlDeviceGetCudaComputeCapability", lambda card: card.capability)
    answer("nvmlDeviceGetUtilizationRates", lambda card: SimpleNamespace(gpu=card.load, memory=3))
    answer("nvmlDeviceGetTemperature", lambda card: card.temperature)
    answer("nvmlDeviceGetPowerUsage", lambda card: card.milliwatts)
    module.nvmlSystemGetCudaDriverVersion_v2 = lambda: 13_000
    module.NVML_CLOCK_GRAPHICS, module.NVML_CLOCK_MEM = 0, 2
    answer("nvmlDeviceGetEnforcedPowerLimit", lambda card: card.power_limit)
    answer("nvmlDeviceGetClockInfo", lambda card: card.clock)
    answer("nvmlDeviceGetCurrPcieLinkGeneration", lambda card: card.pcie[0])
    answer("nvmlDeviceGetCurrPcieLinkWidth", lambda card: card.pcie[1])
    answer(
        "nvmlDeviceGetGraphicsRunningProcesses",
        lambda card: [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in card.drawing],
    )
    answer(
        "nvmlDeviceGetComputeRunningProcesses",
        lambda card: [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in card.processes],
    )
    return module
