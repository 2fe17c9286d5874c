"""AMD cards as AMD's own library (amdsmi, installed with ROCm) tells them.

It only asks the driver. Without the library or a card there are simply no cards; what a card does not
tell is None.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from functools import cache
from importlib import import_module
from typing import Any

from chatbot.hardware.nvidia import used_by
from chatbot.types import Gpu, GpuProgram

log = logging.getLogger(__name__)

MIB = 1 << 20
_POWERS = ("socket_power", "current_socket_power", "average_socket_power")
"""Which of them a card tells depends on its generation and on the library's."""
_MICROWATTS = 1e6


def amd_gpus(family: Collection[int] = ()) -> tuple[Gpu, ...]:
    """Every AMD card now; `family` are Hearth's own process ids, whose GPU memory is added up."""
    library = _library()
    if library is None:
        return ()
    try:
        handles = library.amdsmi_get_processor_handles()
    except library.AmdSmiException as error:
        log.debug("amdsmi: %s", error)
        return ()
    cards = (_card(library, index, handle, family) for index, handle in enumerate(handles))
    return tuple(card for card in cards if card is not None)


@cache
def _library() -> Any:
    """amdsmi, ready to be asked; None where it is not installed or finds no driver."""
    try:
        amdsmi = import_module("amdsmi")
    except (ImportError, OSError, KeyError) as error:  # the package looks for its C library at once
        log.debug("amdsmi: %s", error)
        return None
    try:
        amdsmi.amdsmi_init()
    except amdsmi.AmdSmiException as error:
        log.debug("amdsmi: %s", error)
        return None
    return amdsmi


def _card(library: Any, index: int, handle: Any, family: Collection[int]) -> Gpu | None:
    def ask(question: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return question(handle, *arguments)
        except library.AmdSmiException as error:
            log.debug("amdsmi, card %d: %s", index, error)
            return None

    memory = ask(library.amdsmi_get_gpu_vram_usage)
    if memory is None:
        return None
    total, used = int(memory["vram_total"]) * MIB, int(memory["vram_used"]) * MIB
    power = ask(library.amdsmi_get_power_info) or {}
    link = (ask(library.amdsmi_get_pcie_info) or {}).get("pcie_metric", {})
    listed = ask(library.amdsmi_get_gpu_process_list)
    programs = tuple(
        GpuProgram(process["pid"], process["memory_usage"]["vram_mem"], process["pid"] in family)
        for process in listed or ()
        if isinstance(process, dict)
    )
    places, now = library.AmdSmiTemperatureType, library.AmdSmiTemperatureMetric.CURRENT
    clocks = library.AmdSmiClkType
    limit = _number(power.get("power_limit"))
    generation = _number(link.get("pcie_interface_version"))
    lanes = _number(link.get("pcie_width"))
    if generation is None and (speed := _number(link.get("pcie_speed"))):
        generation = {2500: 1, 5000: 2, 8000: 3, 16000: 4, 32000: 5}.get(int(speed))
    return Gpu(
        index=index,
        name=str((ask(library.amdsmi_get_gpu_asic_info) or {}).get("market_name", "AMD")),
        kind="rocm",
        total=total,
        free=max(total - used, 0),
        load=_number((ask(library.amdsmi_get_gpu_activity) or {}).get("gfx_activity")),
        # Cards of data centres have no sensor at the edge.
        temperature=_number(ask(library.amdsmi_get_temp_metric, places.EDGE, now))
        or _number(ask(library.amdsmi_get_temp_metric, places.HOTSPOT, now)),
        power=next(filter(None, (_number(power.get(name)) for name in _POWERS)), None),
        power_limit=limit / _MICROWATTS if limit else None,
        driver=str((ask(library.amdsmi_get_gpu_driver_info) or {}).get("driver_version", "")),
        used_by_hearth=None if listed is None else used_by(programs),
        clock=_number((ask(library.amdsmi_get_clock_info, clocks.GFX) or {}).get("clk")),
        memory_clock=_number((ask(library.amdsmi_get_clock_info, clocks.MEM) or {}).get("clk")),
        pcie=(int(generation), int(lanes)) if generation and lanes else None,
        programs=programs,
        bus=str(ask(library.amdsmi_get_gpu_device_bdf) or "").lower(),
    )


def _number(value: Any) -> float | None:
    """The figure; the library writes 'N/A' where there is none."""
    return float(value) if isinstance(value, int | float) else None
