"""NVIDIA cards as the driver's own library (NVML) tells them.

NVML only asks the driver: it creates no CUDA context and takes no GPU memory. Without a card, a
driver or the library there are simply no cards; a card that stops answering leaves its figures None
or drops out of the list.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any

from chatbot.types import Gpu, GpuProgram

log = logging.getLogger(__name__)

AMPERE = 8  # the first CUDA compute capability with BF16 arithmetic


def nvidia_gpus(family: Collection[int] = ()) -> tuple[Gpu, ...]:
    """Every NVIDIA card now; `family` are Hearth's own process ids, whose GPU memory is added up."""
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        # Counted by the library: the second and later calls cost microseconds, and a driver
        # that was restarted in between is found again.
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except (pynvml.NVMLError, OSError) as error:
        log.debug("NVML: %s", error)
        return ()
    cards = (_card(pynvml, index, family) for index in range(count))
    return tuple(card for card in cards if card is not None)


def _card(pynvml: Any, index: int, family: Collection[int]) -> Gpu | None:
    def ask(question: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return question(*arguments)
        except (pynvml.NVMLError, OSError, UnicodeDecodeError) as error:
            log.debug("NVML, card %d: %s", index, error)
            return None

    card = ask(pynvml.nvmlDeviceGetHandleByIndex, index)
    memory = ask(pynvml.nvmlDeviceGetMemoryInfo, card) if card is not None else None
    if memory is None:
        return None  # it vanished or fell off the bus
    capability = ask(pynvml.nvmlDeviceGetCudaComputeCapability, card)
    load = ask(pynvml.nvmlDeviceGetUtilizationRates, card)
    temperature = ask(pynvml.nvmlDeviceGetTemperature, card, pynvml.NVML_TEMPERATURE_GPU)
    milliwatts = ask(pynvml.nvmlDeviceGetPowerUsage, card)
    limit = ask(pynvml.nvmlDeviceGetEnforcedPowerLimit, card)
    clock = ask(pynvml.nvmlDeviceGetClockInfo, card, pynvml.NVML_CLOCK_GRAPHICS)
    memory_clock = ask(pynvml.nvmlDeviceGetClockInfo, card, pynvml.NVML_CLOCK_MEM)
    generation = ask(pynvml.nvmlDeviceGetCurrPcieLinkGeneration, card)
    lanes = ask(pynvml.nvmlDeviceGetCurrPcieLinkWidth, card)
    cuda = ask(pynvml.nvmlSystemGetCudaDriverVersion_v2)
    computing = ask(pynvml.nvmlDeviceGetComputeRunningProcesses, card)
    drawing = ask(pynvml.nvmlDeviceGetGraphicsRunningProcesses, card) or []
    programs = _programs([*(computing or []), *drawing], family)
    return Gpu(
        index=index,
        name=_text(ask(pynvml.nvmlDeviceGetName, card)),
        kind="cuda",
        total=int(memory.total),
        free=int(memory.free),
        load=None if load is None else float(load.gpu),
        temperature=None if temperature is None else float(temperature),
        power=None if milliwatts is None else milliwatts / 1000,
        driver=_text(ask(pynvml.nvmlSystemGetDriverVersion)),
        used_by_hearth=None if computing is None else used_by(programs),
        bf16=capability is None or capability[0] >= AMPERE,
        power_limit=None if limit is None else limit / 1000,
        clock=None if clock is None else float(clock),
        memory_clock=None if memory_clock is None else float(memory_clock),
        pcie=(generation, lanes) if generation and lanes else None,
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
        programs=programs,
    )


def used_by(programs: Collection[GpuProgram]) -> int | None:
    """GPU bytes of our own processes; None where the driver does not tell (Windows, containers)."""
    ours = [program.memory for program in programs if program.ours]
    return None if None in ours else sum(bytes_ for bytes_ in ours if bytes_)


def _programs(processes: list[Any], family: Collection[int]) -> tuple[GpuProgram, ...]:
    """The processes once each, those that hold most first; one that computes and draws is told twice."""
    held: dict[int, int | None] = {}
    for process in processes:
        told = (held.get(process.pid), process.usedGpuMemory)
        held[process.pid] = max((bytes_ for bytes_ in told if bytes_ is not None), default=None)
    found = [GpuProgram(pid, memory, pid in family) for pid, memory in held.items()]
    return tuple(sorted(found, key=lambda program: -(program.memory or 0)))


def _text(value: Any) -> str:
    if isinstance(value, bytes):  # older releases of the library
        return value.decode(errors="replace")
    return value or ""
