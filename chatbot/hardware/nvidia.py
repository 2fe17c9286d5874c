"""NVIDIA cards as the driver's own library (NVML) tells them.

NVML only asks the driver: it creates no CUDA context and takes no GPU memory. Without a card, a
driver or the library there are simply no cards; a figure that a card does not tell is None; a card
that stops answering drops out of the list, and comes back when the driver has it again. The graphics
card of a laptop that has fallen asleep is left to sleep.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from chatbot.types import Gpu, GpuProgram

log = logging.getLogger(__name__)

AMPERE = 8  # the first CUDA compute capability with BF16 arithmetic
REOPEN_SECONDS = 10.0
"""Between attempts to find a driver or a lost card again: opening NVML costs tens of milliseconds."""
REST_SECONDS = 20.0
"""How long an idle card that may fall asleep is left alone: each question would keep it awake."""
DEVICES = Path("/sys/bus/pci/devices")
_SLEEPING: dict[str, Any] = {
    **dict.fromkeys(("load", "temperature", "power", "clock", "memory_clock", "pcie")),
    "programs": (),
    "asleep": True,
}


def nvidia_gpus(family: Collection[int] = (), *, gently: bool = False) -> tuple[Gpu, ...]:
    """Every NVIDIA card now; `family` are Hearth's own process ids, whose GPU memory is added up.

    `gently` may tell figures up to REST_SECONDS old of an idle card that could fall asleep.
    """
    try:
        import pynvml
    except ImportError:
        return ()
    with _asking:
        return _driver_behind(pynvml).cards(family, gently=gently)


class _Driver:
    """NVML, opened once, and opened anew where the driver or a card was lost; for one thread at a time."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self._open = False
        self._lost = False
        self._tried_at = float("-inf")
        self._known: dict[int, Gpu] = {}
        """What each card told last."""
        self._asked_at: dict[int, float] = {}

    def cards(self, family: Collection[int], *, gently: bool) -> tuple[Gpu, ...]:
        if not self._open or self._lost:
            self._reopen()
        if not self._open:
            return ()
        count = self._ask(self.library.nvmlDeviceGetCount)
        if count is None:  # the driver was unloaded or restarted
            self._lost = True
            return ()
        cards = (self._card(index, family, gently=gently) for index in range(count))
        return tuple(card for card in cards if card is not None)

    def _reopen(self) -> None:
        """Open NVML, closing it first: what was opened under a lost card or driver never answers again."""
        now = time.monotonic()
        if now - self._tried_at < REOPEN_SECONDS:
            return
        self._tried_at = now
        if self._open:
            self._ask(self.library.nvmlShutdown)
        self._known.clear()
        self._open = self._lost = False
        try:
            self.library.nvmlInit()
        except (self.library.NVMLError, OSError) as error:
            log.debug("NVML: %s", error)
        else:
            self._open = True

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return question(*arguments)
        except (self.library.NVMLError, OSError, UnicodeDecodeError) as error:
            log.debug("NVML, %s: %s", getattr(question, "__name__", question), error)
            return None

    def _card(self, index: int, family: Collection[int], *, gently: bool) -> Gpu | None:
        known = self._known.get(index)
        if known is not None and _asleep(known.bus):
            return replace(known, **_SLEEPING)
        rested = time.monotonic() - self._asked_at.get(index, float("-inf"))
        if gently and known is not None and rested < REST_SECONDS and _may_sleep(known):
            return known
        card = self._ask(self.library.nvmlDeviceGetHandleByIndex, index)
        memory = self._ask(self.library.nvmlDeviceGetMemoryInfo, card) if card is not None else None
        if memory is None:  # it fell off the bus
            self._lost = True
            self._known.pop(index, None)
            return None
        told = self._figures(card, known or self._facts(index, card), family)
        self._known[index] = replace(told, total=int(memory.total), free=int(memory.free))
        self._asked_at[index] = time.monotonic()
        return self._known[index]

    def _facts(self, index: int, card: Any) -> Gpu:
        """What does not change while the card is there."""
        nvml, ask = self.library, self._ask
        capability = ask(nvml.nvmlDeviceGetCudaComputeCapability, card)
        place = ask(nvml.nvmlDeviceGetPciInfo, card)
        cuda = ask(nvml.nvmlSystemGetCudaDriverVersion_v2)
        return Gpu(
            index=index,
            name=_text(ask(nvml.nvmlDeviceGetName, card)),
            kind="cuda",
            total=0,
            free=0,
            driver=_text(ask(nvml.nvmlSystemGetDriverVersion)),
            bf16=capability is None or capability[0] >= AMPERE,
            cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
            bus=_text(place.busId).lower().removeprefix("0000") if place else "",
        )

    def _figures(self, card: Any, facts: Gpu, family: Collection[int]) -> Gpu:
        nvml, ask = self.library, self._ask
        load = ask(nvml.nvmlDeviceGetUtilizationRates, card)
        milliwatts = ask(nvml.nvmlDeviceGetPowerUsage, card)
        limit = ask(nvml.nvmlDeviceGetEnforcedPowerLimit, card)
        generation = ask(nvml.nvmlDeviceGetCurrPcieLinkGeneration, card)
        lanes = ask(nvml.nvmlDeviceGetCurrPcieLinkWidth, card)
        computing = ask(nvml.nvmlDeviceGetComputeRunningProcesses, card)
        drawing = ask(nvml.nvmlDeviceGetGraphicsRunningProcesses, card) or []
        programs = _programs([*(computing or []), *drawing], family)
        return replace(
            facts,
            load=None if load is None else float(load.gpu),
            temperature=_figure(
                ask(nvml.nvmlDeviceGetTemperature, card, nvml.NVML_TEMPERATURE_GPU)
            ),
            power=None if milliwatts is None else milliwatts / 1000,
            power_limit=None if limit is None else limit / 1000,
            clock=_figure(ask(nvml.nvmlDeviceGetClockInfo, card, nvml.NVML_CLOCK_GRAPHICS)),
            memory_clock=_figure(ask(nvml.nvmlDeviceGetClockInfo, card, nvml.NVML_CLOCK_MEM)),
            pcie=(generation, lanes) if generation and lanes else None,
            used_by_hearth=None if computing is None else used_by(programs),
            programs=programs,
        )


@lru_cache(maxsize=1)
def _driver_behind(library: Any) -> _Driver:
    return _Driver(library)


_asking = threading.Lock()


def used_by(programs: Collection[GpuProgram]) -> int | None:
    """GPU bytes of our own processes; None where the driver does not tell (Windows, containers)."""
    ours = [program.memory for program in programs if program.ours]
    return None if None in ours else sum(bytes_ for bytes_ in ours if bytes_)


def _asleep(bus: str) -> bool:
    """Whether the system has cut this card's power (laptops; told by Linux alone)."""
    return _says(bus, "runtime_status") == "suspended"


def _may_sleep(card: Gpu) -> bool:
    idle = not card.load and not card.programs
    return idle and _says(card.bus, "control") == "auto"


def _says(bus: str, name: str) -> str:
    try:
        return (DEVICES / bus / "power" / name).read_text(encoding="ascii").strip() if bus else ""
    except OSError:
        return ""


def _programs(processes: list[Any], family: Collection[int]) -> tuple[GpuProgram, ...]:
    """The processes once each, those that hold most first; one that computes and draws is told twice."""
    held: dict[int, int | None] = {}
    for process in processes:
        told = (held.get(process.pid), process.usedGpuMemory)
        held[process.pid] = max((bytes_ for bytes_ in told if bytes_ is not None), default=None)
    found = [GpuProgram(pid, memory, pid in family) for pid, memory in held.items()]
    return tuple(sorted(found, key=lambda program: -(program.memory or 0)))


def _figure(value: int | None) -> float | None:
    return None if value is None else float(value)


def _text(value: Any) -> str:
    if isinstance(value, bytes):  # older releases of the library
        return value.decode(errors="replace")
    return value or ""
