"""The hardware page: what this PC has, what uses it now, what Hearth has loaded on it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import streamlit as st

from chatbot.hardware.monitor import Sample
from chatbot.markup import literal
from chatbot.services import services
from chatbot.types import Gpu, Hardware
from widgets import loaded_model, meter
from widgets.words import _, decimal, plural, size

_CHART_SECONDS = 300
_POLL_SECONDS = 2.0
_DRAWN_POINTS = 150

# What a person may have read about, and the flags that mean it.
_VECTORS = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "VNNI": ("avx_vnni", "avx512_vnni"),
    "BF16": ("avx512_bf16", "amx_bf16", "bf16"),
    "AMX": ("amx_int8", "amx_tile"),
    "NEON": ("neon", "asimd"),
    "I8MM": ("i8mm",),
    "SVE": ("sve", "sve2"),
}


def main() -> None:
    """Draw the page."""
    st.title(_("This PC"))
    st.markdown(
        _(
            "What decides how large a model may be here, and how fast it writes. Live, on this PC only."
        )
    )
    hardware = services().hardware()
    _verdict(hardware)
    _now()
    st.subheader(_("The last five minutes"), anchor=False)
    _charts()
    st.subheader(_("What this PC has"), anchor=False)
    _inventory(hardware)


def _verdict(hardware: Hardware) -> None:
    """In one sentence: on what models run here."""
    gpu = max(hardware.gpus, key=lambda g: g.total, default=None)
    if gpu is None:
        st.info(
            _(
                "No graphics card that can run models was found, so they run on the processor: smaller"
                " models answer at reading speed, quotations need no model at all."
            ),
            icon=":material/memory:",
        )
    elif hardware.unified_memory:
        st.success(
            _("{gpu}: processor and graphics share {memory} of memory.").format(
                gpu=literal(gpu.name), memory=size(hardware.ram_total)
            ),
            icon=":material/bolt:",
        )
    else:
        st.success(
            _("{gpu} with {memory}: models that fit there answer fastest.").format(
                gpu=literal(gpu.name), memory=size(gpu.total)
            ),
            icon=":material/bolt:",
        )


@st.fragment(run_every=_POLL_SECONDS)
def _now() -> None:
    sample = services().monitor.latest()
    with st.container(border=True, gap="medium"):
        loaded_model.show("hardware")
        meter.shares(_("Memory"), sample.ram_total, sample.ram_available, sample.hearth)
        for gpu in sample.gpus:
            meter.shares(gpu.name, gpu.total, gpu.free, gpu.used_by_hearth)
            st.caption(" · ".join(_gpu_state(gpu)))
        if sample.swap_used > 500_000_000:
            st.caption(
                ":orange[:material/info: "
                + _("{size} are swapped to the disk; a loaded model may answer slowly.").format(
                    size=size(sample.swap_used)
                )
                + "]"
            )


def _gpu_state(gpu: Gpu) -> list[str]:
    parts = []
    if gpu.load is not None:
        parts.append(_("load {percent} %").format(percent=decimal(gpu.load, 0)))
    if gpu.temperature is not None:
        parts.append(f"{decimal(gpu.temperature, 0)} °C")
    if gpu.power is not None:
        parts.append(f"{decimal(gpu.power, 0)} W")
    if gpu.driver:
        parts.append(_("driver {version}").format(version=literal(gpu.driver)))
    if gpu.used_by_hearth is None:
        parts.append(_("the driver does not tell which program uses how much"))
    return parts


@st.fragment(run_every=_POLL_SECONDS)
def _charts() -> None:
    samples = services().monitor.series(_CHART_SECONDS)
    if len(samples) < 2:
        st.caption(_("The first samples arrive in a moment."))
        return
    samples = samples[:: max(len(samples) // _DRAWN_POINTS, 1)]
    _chart(
        _("Load of the processor in percent")
        if all(gpu.load is None for gpu in samples[-1].gpus)
        else _("Load in percent"),
        samples,
        {
            _("Processor"): lambda s: s.cpu,
            **{
                _gpu_label(gpu, samples[-1].gpus): _gpu_load(gpu.index)
                for gpu in samples[-1].gpus
                if gpu.load is not None
            },
        },
    )
    _chart(
        _("Memory in percent"),
        samples,
        {
            _("Memory"): lambda s: 100 * s.ram_used / max(s.ram_total, 1),
            _("of it Hearth"): lambda s: 100 * s.hearth / max(s.ram_total, 1),
            **{
                _gpu_label(gpu, samples[-1].gpus): _gpu_memory(gpu.index)
                for gpu in samples[-1].gpus
            },
        },
    )


def _gpu_label(gpu: Gpu, gpus: Sequence[Gpu]) -> str:
    return f"{gpu.name} #{gpu.index}" if len(gpus) > 1 else gpu.name


def _gpu_load(index: int) -> Any:
    return lambda s: next((g.load for g in s.gpus if g.index == index), None)


def _gpu_memory(index: int) -> Any:
    return lambda s: next(
        (100 * (g.total - g.free) / max(g.total, 1) for g in s.gpus if g.index == index), None
    )


def _chart(title: str, samples: Sequence[Sample], lines: dict[str, Any]) -> None:
    """Lines over time on a fixed scale of 0 to 100, so that they can be compared at a glance."""
    import altair as alt  # Streamlit brings it; half a second that other pages need not pay

    rows = [
        {"time": datetime.fromtimestamp(s.at).isoformat(), "what": name, "value": value}  # noqa: DTZ006 - the person's own clock
        for s in samples
        for name, read in lines.items()
        if (value := read(s)) is not None
    ]
    newest = samples[-1].at
    axis = [datetime.fromtimestamp(at).isoformat() for at in (newest - _CHART_SECONDS, newest)]  # noqa: DTZ006
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(interpolate="monotone", strokeWidth=2, clip=True)
        .encode(
            x=alt.X(
                "time:T",
                title=None,
                scale=alt.Scale(domain=axis),
                axis=alt.Axis(
                    format="%H:%M", tickCount={"interval": "minute", "step": 1}, grid=False
                ),
            ),
            y=alt.Y(
                "value:Q",
                title=None,
                scale=alt.Scale(domain=[0, 100]),
                axis=alt.Axis(values=[0, 50, 100]),
            ),
            color=alt.Color(
                "what:N",
                title=None,
                sort=list(lines),
                legend=alt.Legend(orient="top", labelLimit=300) if len(lines) > 1 else None,
            ),
        )
    )
    st.markdown(f":small[{title}]")
    st.altair_chart(chart, width="stretch", height=190, alt=title)


def _inventory(hardware: Hardware) -> None:
    cores = plural("{count} core", "{count} cores", hardware.cores_physical)
    if hardware.cores != hardware.cores_physical:
        cores += " · " + plural("{count} thread", "{count} threads", hardware.cores)
    vectors = [
        name
        for name, flags in _VECTORS.items()
        if any(flag in hardware.cpu_flags for flag in flags)
    ]
    rows = [
        (_("Processor"), f"{hardware.cpu_name} · {cores}"),
        (_("Vector instructions"), ", ".join(vectors) or _("none that speed models up")),
        (
            _("Memory"),
            _("{total}, {free} free").format(
                total=size(hardware.ram_total), free=size(hardware.ram_available)
            ),
        ),
        *(
            (
                _("Graphics card"),
                _("{name}, {total}, {free} free").format(
                    name=gpu.name, total=size(gpu.total), free=size(gpu.free)
                ),
            )
            for gpu in hardware.gpus
        ),
        *([] if hardware.gpus else [(_("Graphics card"), _("none that runs models"))]),
        (
            _("Disk of the data folder"),
            _("{total}, {free} free").format(
                total=size(hardware.disk_total), free=size(hardware.disk_free)
            ),
        ),
        (_("System"), hardware.system),
    ]
    for name, value in rows:
        with st.container(horizontal=True, gap="small"):
            st.markdown(f":gray[{name}]", width=190)
            st.markdown(literal(value), width="stretch")


main()
