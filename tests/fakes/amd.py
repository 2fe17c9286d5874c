"""AMD's library (amdsmi) with made-up cards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

GIB = 1 << 30
MIB = 1 << 20


@dataclass
class AmdCard:
    name: str = "Radeon RX 7900 XT"
    total: int = 20 * GIB
    used: int = 5 * GIB
    load: int | str = 35
    temperature: int = 48
    watts: int | str = 90
    """'N/A' where the card does not tell, as the library writes it."""
    pcie_width: int = 16
    pcie_speed: int = 16_000
    processes: list[tuple[int, int]] = field(default_factory=list)
    vanished: bool = False
    refuses: tuple[str, ...] = ("amdsmi_get_clock_info",)


def fake_amdsmi(cards: Sequence[AmdCard]) -> ModuleType:
    """A module to put into sys.modules['amdsmi']; clear the cache of `chatbot.hardware.amd._library` with it."""
    module: Any = ModuleType("amdsmi")

    class AmdSmiException(Exception):
        pass

    def answer(name: str, value: Callable[[AmdCard], Any]) -> None:
        def ask(card: AmdCard, *_: object) -> Any:
            if card.vanished or name in card.refuses:
                raise AmdSmiException("not supported")
            return value(card)

        setattr(module, name, ask)

    module.AmdSmiException = AmdSmiException
    module.amdsmi_init = lambda: None
    module.amdsmi_get_processor_handles = lambda: list(cards)
    module.AmdSmiTemperatureType = SimpleNamespace(EDGE=0, HOTSPOT=1)
    module.AmdSmiTemperatureMetric = SimpleNamespace(CURRENT=0)
    module.AmdSmiClkType = SimpleNamespace(GFX=0, MEM=4)
    answer(
        "amdsmi_get_gpu_vram_usage",
        lambda card: {"vram_total": card.total // MIB, "vram_used": card.used // MIB},
    )
    answer(
        "amdsmi_get_power_info",
        lambda card: {
            "current_socket_power": "N/A",
            "average_socket_power": card.watts,
            "power_limit": 300_000_000,
        },
    )
    answer(
        "amdsmi_get_pcie_info",
        lambda card: {
            "pcie_metric": {"pcie_width": card.pcie_width, "pcie_speed": card.pcie_speed}
        },
    )
    answer(
        "amdsmi_get_gpu_process_list",
        lambda card: [
            {"pid": pid, "memory_usage": {"vram_mem": held}} for pid, held in card.processes
        ],
    )
    answer("amdsmi_get_temp_metric", lambda card: card.temperature)
    answer("amdsmi_get_gpu_asic_info", lambda card: {"market_name": card.name})
    answer("amdsmi_get_gpu_activity", lambda card: {"gfx_activity": card.load})
    answer("amdsmi_get_gpu_driver_info", lambda _card: {"driver_version": "6.12"})
    answer("amdsmi_get_gpu_device_bdf", lambda card: f"0000:{3 + cards.index(card):02X}:00.0")
    answer("amdsmi_get_clock_info", lambda _card: {"clk": 2_100})
    return module
