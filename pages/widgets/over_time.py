"""Charts of the last minutes, drawn from what the background sampler kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from chatbot.hardware.curves import POINTS, curve, of_card
from chatbot.hardware.monitor import Sample
from chatbot.hardware.samples_file import csv_of
from chatbot.services import services
from chatbot.types import Gpu
from widgets import chart
from widgets.graphics_cards import title
from widgets.words import _

_SHORT_SECONDS, _LONG_SECONDS = 300, 3600
_POLL_SECONDS = {_SHORT_SECONDS: 2.0, _LONG_SECONDS: 10.0}


def show() -> None:
    """The charts, the choice of how far they go back, and the same figures as a file."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(_("Over time"), anchor=False, width="stretch")
        spans = {_SHORT_SECONDS: _("5 min"), _LONG_SECONDS: _("1 h")}
        chosen = st.segmented_control(
            _("Span"),
            list(spans),
            default=_SHORT_SECONDS,
            required=True,
            format_func=spans.__getitem__,
            label_visibility="collapsed",
            key="hardware-span",
        )
        st.download_button(
            _("CSV"),
            lambda: csv_of(services().monitor.series(_LONG_SECONDS)),
            file_name="hearth-samples.csv",
            mime="text/csv",
            icon=":material/download:",
            key="samples-csv",
            on_click="ignore",
        )
    seconds = int(chosen or _SHORT_SECONDS)
    st.fragment(_charts, run_every=_POLL_SECONDS[seconds])(seconds)


def _charts(seconds: int) -> None:
    samples = services().monitor.series(seconds)
    if len(samples) < 2:
        st.caption(_("The first samples arrive in a moment."))
        return

    def line(read: Callable[[Sample], float | None], points: int = POINTS) -> chart.Pieces:
        return curve(samples, read, seconds, points)

    processor = {_("Activity"): line(lambda s: s.cpu)}
    memory = {
        _("In use"): line(lambda s: 100 * s.ram_used / max(s.ram_total, 1)),
        _("of it Hearth"): line(lambda s: 100 * s.hearth / max(s.ram_total, 1)),
    }
    if samples[-1].swap_total:
        memory[_("Swap")] = line(lambda s: 100 * s.swap_used / max(s.swap_total, 1))
    chart.lines([(_("Processor"), processor), (_("Memory"), memory)], seconds, small=False)
    if cards := _cards(samples):
        small = len(cards) > 1
        points = POINTS // 2 if small else POINTS
        charts = []
        for gpu in cards:
            series = {_("Activity"): line(of_card(gpu.key, lambda g: g.load), points)}
            if gpu.kind != "mps":  # its memory is the one above
                series[_("Memory")] = line(of_card(gpu.key, _memory_used), points)
                series[_("of it Hearth")] = line(of_card(gpu.key, _memory_ours), points)
            charts.append((title(gpu, len(cards)), series))
        chart.lines(charts, seconds, small=small)


def _cards(samples: Sequence[Sample]) -> list[Gpu]:
    """Every card of these samples as it was last, in the order of their numbers."""
    cards = {gpu.key: gpu for sample in samples for gpu in sample.gpus}
    return sorted(cards.values(), key=lambda gpu: (gpu.kind, gpu.index, gpu.key))


def _memory_used(gpu: Gpu) -> float:
    return 100 * (gpu.total - gpu.free) / max(gpu.total, 1)


def _memory_ours(gpu: Gpu) -> float | None:
    ours = gpu.used_by_hearth
    return None if ours is None else 100 * ours / max(gpu.total, 1)
