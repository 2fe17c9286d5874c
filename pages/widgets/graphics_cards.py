"""Each graphics card: who uses its memory, and how busy, warm and fast it is now."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st

from chatbot.hardware.process import name_of
from chatbot.types import Gpu
from widgets import meter
from widgets.words import _, decimal, memory

_PROGRAMS = 5
_STYLE = """
<style>
.hearth-cards { display: grid; gap: 1.4rem 1.8rem; margin-top: 0.2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr)); }
.hearth-cards > div { min-width: 0; }
.hearth-cards.hearth-one { grid-template-columns: minmax(0, 1fr); }
.hearth-cards .hearth-key { font-size: 0.8125rem; gap: 0.2rem 0.7rem; }
.hearth-figures { display: grid; gap: 0.5rem 1rem; margin-top: 0.7rem; font-size: 0.875rem;
  grid-template-columns: repeat(auto-fill, minmax(5.4rem, 1fr)); font-variant-numeric: tabular-nums; }
.hearth-figures span { display: block; font-size: 0.75rem; opacity: 0.7; }
.hearth-figures div { white-space: nowrap; }
.hearth-programs { font-size: 0.8125rem; opacity: 0.75; margin-top: 0.5rem; overflow-wrap: anywhere; }
.hearth-sleeping { opacity: 0.6; }
</style>
"""


def title(gpu: Gpu, cards: int) -> str:
    """What a card is called among so many: by its number, too, where there are others."""
    name = gpu.name.removeprefix("NVIDIA ")
    return f"{name} #{gpu.index}" if cards > 1 else name


def show(gpus: Sequence[Gpu]) -> None:
    """A block a card, two beside each other where there is room."""
    one = " hearth-one" if len(gpus) == 1 else ""
    blocks = "".join(_card(gpu, len(gpus)) for gpu in gpus)
    st.html(f'{_STYLE}<div class="hearth-cards{one}">{blocks}</div>')
    notes = _drivers(gpus)
    if any(gpu.kind != "mps" and gpu.used_by_hearth is None for gpu in gpus):
        notes.append(_("the driver does not tell which program uses how much"))
    if any(gpu.kind == "mps" for gpu in gpus):
        notes.append(_("macOS tells its power to administrators only"))
    if notes:
        st.caption(" · ".join(notes))


def _card(gpu: Gpu, cards: int) -> str:
    name = title(gpu, cards)
    bar = (
        f"<div><strong>{escape(name)}</strong></div>"
        if gpu.kind == "mps"  # its memory is the PC's
        else meter.bar_of_shares(name, gpu.total, gpu.free, gpu.used_by_hearth)
    )
    if gpu.asleep:
        words = escape(_("Asleep: it wakes when a program needs it."))
        return f'<div class="hearth-sleeping">{bar}<div class="hearth-programs">{words}</div></div>'
    figures = "".join(
        f"<div><span>{escape(words)}</span>{escape(figure)}</div>"
        for words, figure in _figures(gpu)
    )
    programs = _programs(gpu)
    if programs:
        programs = f'<div class="hearth-programs">{programs}</div>'
    return f'<div>{bar}<div class="hearth-figures">{figures}</div>{programs}</div>'


def _figures(gpu: Gpu) -> list[tuple[str, str]]:
    """What the card tells, in the order in which people look at it."""
    figures = []
    if gpu.load is not None:
        figures.append((_("Activity"), f"{decimal(gpu.load, 0)} %"))
    if gpu.temperature is not None:
        figures.append((_("Temperature"), f"{decimal(gpu.temperature, 0)} °C"))
    if gpu.power is not None:
        of = f" / {decimal(gpu.power_limit, 0)}" if gpu.power_limit else ""
        figures.append((_("Power"), f"{decimal(gpu.power, 0)}{of} W"))
    if gpu.clock:
        figures.append((_("Clock"), f"{decimal(gpu.clock, 0)} MHz"))
    if gpu.memory_clock:
        figures.append((_("Memory clock"), f"{decimal(gpu.memory_clock, 0)} MHz"))
    if gpu.pcie:
        figures.append(("PCIe", f"{gpu.pcie[0]}.0 ×{gpu.pcie[1]}"))
    return figures


def _programs(gpu: Gpu) -> str:
    """The programs that hold most of the card, as far as the driver tells."""
    told = [
        ("Hearth" if program.ours else name_of(program.pid), program.memory)
        for program in gpu.programs
        if program.memory
    ]
    return " · ".join(f"{escape(name)} {memory(held)}" for name, held in told[:_PROGRAMS])


def _drivers(gpus: Sequence[Gpu]) -> list[str]:
    """Each driver once, and the newest CUDA it can run."""
    words = dict.fromkeys(
        _("driver {version}").format(version=gpu.driver) for gpu in gpus if gpu.driver
    )
    words.update(dict.fromkeys(f"CUDA {gpu.cuda}" for gpu in gpus if gpu.cuda))
    return list(words)
