"""The hardware page: what this PC has, what uses it now, what Hearth has loaded on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from chatbot.hardware.monitor import Sample
from chatbot.markup import literal
from chatbot.services import services
from chatbot.types import Gpu, Hardware
from widgets import chart, loaded_model, meter
from widgets.words import _, decimal, plural, size

_CHART_SECONDS = 300
_POLL_SECONDS = 2.0

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
                gpu=literal(gpu.name), memory=meter.memory(hardware.ram_total)
            ),
            icon=":material/bolt:",
        )
    else:
        st.success(
            _("{gpu} with {memory}: models that fit there answer fastest.").format(
                gpu=literal(gpu.name), memory=meter.memory(gpu.total)
            ),
            icon=":material/bolt:",
        )


@st.fragment(run_every=_POLL_SECONDS)
def _now() -> None:
    sample = services().monitor.latest()
    with st.container(border=True, gap="small"):
        loaded_model.show("hardware")
        meter.shares(_("Memory"), sample.ram_total, sample.ram_available, sample.hearth)
        for gpu in sample.gpus:
            meter.shares(gpu.name, gpu.total, gpu.free, gpu.used_by_hearth)
            st.caption(" · ".join(_gpu_state(gpu)))
        if sample.swap_used > 500_000_000:
            st.caption(
                ":orange[:material/info: "
                + _("{size} are swapped to the disk; a loaded model may answer slowly.").format(
                    size=meter.memory(sample.swap_used)
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
    newest = samples[-1]
    loads = {_("Processor"): _line(samples, lambda s: s.cpu)}
    memories = {
        _("Memory"): _line(samples, lambda s: 100 * s.ram_used / max(s.ram_total, 1)),
        _("of it Hearth"): _line(samples, lambda s: 100 * s.hearth / max(s.ram_total, 1)),
    }
    for gpu in newest.gpus:
        name = f"{gpu.name} #{gpu.index}" if len(newest.gpus) > 1 else gpu.name
        loads[name] = _line(samples, _of_gpu(gpu.index, lambda g: g.load))
        memories[name] = _line(
            samples, _of_gpu(gpu.index, lambda g: 100 * (g.total - g.free) / max(g.total, 1))
        )
    chart.lines(_("Activity"), loads, _CHART_SECONDS)
    chart.lines(_("Memory in use"), memories, _CHART_SECONDS)


def _line(samples: Sequence[Sample], read: Callable[[Sample], float | None]) -> list[chart.Point]:
    """Seconds ago and percent of every sample that has the figure."""
    newest = samples[-1].at
    return [(newest - s.at, value) for s in samples if (value := read(s)) is not None]


def _of_gpu(index: int, read: Callable[[Gpu], float | None]) -> Callable[[Sample], float | None]:
    """That figure of the card with this number; None in samples where the card is missing."""
    return lambda sample: next((read(g) for g in sample.gpus if g.index == index), None)


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
                total=meter.memory(hardware.ram_total), free=meter.memory(hardware.ram_available)
            ),
        ),
        *(
            (
                _("Graphics card"),
                _("{name}, {total}, {free} free").format(
                    name=gpu.name, total=meter.memory(gpu.total), free=meter.memory(gpu.free)
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
        with st.container(horizontal=True, gap="small", wrap=False):
            st.markdown(f":gray[{name}]", width=150)
            st.markdown(literal(value), width="stretch")


main()
