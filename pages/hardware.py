"""The hardware page: what this PC has, what uses it now, what Hearth has loaded on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from chatbot.chat.history import error_text
from chatbot.hardware.monitor import Sample
from chatbot.hardware.process import name_of
from chatbot.hardware.samples_file import csv_of
from chatbot.markup import literal
from chatbot.services import services
from chatbot.types import Gpu, Hardware
from widgets import chart, loaded_model, loads, meter, this_pc_speed
from widgets.words import _, decimal, language, moment, plural, size

_SHORT_SECONDS, _LONG_SECONDS = 300, 3600
_NOTEWORTHY_SWAP = 500_000_000
_PROGRAMS = 5
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
    _last_out_of_memory()
    _over_time()
    st.subheader(_("Memory: predicted and measured"), anchor=False)
    loads.last()
    st.subheader(_("How fast it is"), anchor=False)
    this_pc_speed.benchmark()
    this_pc_speed.answers()
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
    elif gpu.kind == "rocm" and hardware.device == "cpu":
        st.info(
            _(
                "{gpu} is watched here, but the installed engines run models on the processor: they were"
                " built without ROCm."
            ).format(gpu=literal(gpu.name)),
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
        loads.in_memory()
        meter.shares(_("Memory"), sample.ram_total, sample.ram_available, sample.hearth)
        for gpu in sample.gpus:
            if gpu.kind != "mps":  # its memory is the one above
                meter.shares(gpu.name, gpu.total, gpu.free, gpu.used_by_hearth)
            st.caption(" · ".join(_gpu_state(gpu)))
            if programs := _programs(gpu):
                st.caption(programs)
        for gone in _vanished(sample):
            st.caption(
                ":orange[:material/warning: "
                + _("{gpu} no longer answers; the driver may be restarting it.").format(
                    gpu=literal(gone.name)
                )
                + "]"
            )
        if sample.cores:
            meter.cores(sample.cores)
        st.caption(" · ".join(_swap_and_disk(sample)))
        if sample.swap_used > _NOTEWORTHY_SWAP:
            st.caption(
                ":orange[:material/info: "
                + _("{size} are swapped to the disk; a loaded model may answer slowly.").format(
                    size=meter.memory(sample.swap_used)
                )
                + "]"
            )
        if st.button(
            _("Free memory"),
            key="free-memory",
            icon=":material/mop:",
            disabled=services().engines.busy,
            help=_("Unloads the model and ends helpers that start again when they are needed."),
        ):
            loaded_model.free_memory()
            st.rerun()


def _gpu_state(gpu: Gpu) -> list[str]:
    parts = [literal(gpu.name)] if gpu.kind == "mps" else []
    if gpu.load is not None:
        parts.append(_("load {percent} %").format(percent=decimal(gpu.load, 0)))
    if gpu.temperature is not None:
        parts.append(f"{decimal(gpu.temperature, 0)} °C")
    if gpu.power is not None:
        of = f" / {decimal(gpu.power_limit, 0)}" if gpu.power_limit else ""
        parts.append(f"{decimal(gpu.power, 0)}{of} W")
    if gpu.clock:
        parts.append(f"{decimal(gpu.clock, 0)} MHz")
    if gpu.memory_clock:
        parts.append(_("memory {clock} MHz").format(clock=decimal(gpu.memory_clock, 0)))
    if gpu.pcie:
        parts.append(f"PCIe {gpu.pcie[0]} ×{gpu.pcie[1]}")
    if gpu.driver:
        parts.append(_("driver {version}").format(version=literal(gpu.driver)))
    if gpu.cuda:
        parts.append(f"CUDA {literal(gpu.cuda)}")
    if gpu.kind == "mps":
        parts.append(_("macOS tells its power to administrators only"))
    elif gpu.used_by_hearth is None:
        parts.append(_("the driver does not tell which program uses how much"))
    return parts


def _programs(gpu: Gpu) -> str:
    """The programs that hold most of the card, as far as the driver tells."""
    told = [
        ("Hearth" if program.ours else literal(name_of(program.pid)), program.memory)
        for program in gpu.programs
        if program.memory
    ]
    return " · ".join(f"{name} {meter.memory(held)}" for name, held in told[:_PROGRAMS] if held)


def _vanished(sample: Sample) -> list[Gpu]:
    """Cards that were there within the last minutes and are not now."""
    there = {(gpu.kind, gpu.index) for gpu in sample.gpus}
    earlier = {
        (gpu.kind, gpu.index): gpu
        for one in services().monitor.series(_SHORT_SECONDS)
        for gpu in one.gpus
    }
    return [gpu for card, gpu in earlier.items() if card not in there]


def _swap_and_disk(sample: Sample) -> list[str]:
    words = []
    if sample.swap_total:
        words.append(
            _("Swap {used} of {total}").format(
                used=meter.memory(sample.swap_used), total=meter.memory(sample.swap_total)
            )
        )
    if sample.disk_total:
        words.append(
            _("Disk: {free} of {total} free").format(
                free=size(sample.disk_free), total=size(sample.disk_total)
            )
        )
    words.append(
        _("reading {read}/s, writing {written}/s").format(
            read=size(sample.disk_read), written=size(sample.disk_written)
        )
    )
    return words


def _last_out_of_memory() -> None:
    message = services().history.last_out_of_memory()
    if message is not None:
        with st.expander(
            _("Memory ran out last on {when}").format(when=moment(message.created_at)),
            icon=":material/warning:",
        ):
            st.markdown(literal(error_text(message, language())))


def _over_time() -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(_("Over time"), anchor=False, width="stretch")
        spans = {_SHORT_SECONDS: _("5 min"), _LONG_SECONDS: _("1 h")}
        seconds = st.segmented_control(
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
    _charts(int(seconds or _SHORT_SECONDS))


@st.fragment(run_every=_POLL_SECONDS)
def _charts(seconds: int) -> None:
    samples = services().monitor.series(seconds)
    if len(samples) < 2:
        st.caption(_("The first samples arrive in a moment."))
        return
    loads_ = {_("Processor"): _line(samples, lambda s: s.cpu)}
    memories = {
        _("Memory"): _line(samples, lambda s: 100 * s.ram_used / max(s.ram_total, 1)),
        _("of it Hearth"): _line(samples, lambda s: 100 * s.hearth / max(s.ram_total, 1)),
    }
    if samples[-1].swap_total:
        memories[_("Swap")] = _line(samples, lambda s: 100 * s.swap_used / max(s.swap_total, 1))
    cards = {(gpu.kind, gpu.index): gpu for sample in samples for gpu in sample.gpus}
    for (kind, index), gpu in cards.items():
        name = f"{gpu.name} #{index}" if len(cards) > 1 else gpu.name
        loads_[name] = _line(samples, _of_gpu(kind, index, lambda g: g.load))
        if kind != "mps":
            memories[name] = _line(
                samples, _of_gpu(kind, index, lambda g: 100 * (g.total - g.free) / max(g.total, 1))
            )
    chart.lines(_("Activity"), loads_, seconds)
    chart.lines(_("Memory in use"), memories, seconds)


def _line(samples: Sequence[Sample], read: Callable[[Sample], float | None]) -> list[chart.Point]:
    """Seconds ago and percent of every sample that has the figure."""
    newest = samples[-1].at
    return [(newest - s.at, value) for s in samples if (value := read(s)) is not None]


def _of_gpu(
    kind: str, index: int, read: Callable[[Gpu], float | None]
) -> Callable[[Sample], float | None]:
    """That figure of the card with this number; None in samples where the card is missing."""
    return lambda sample: next(
        (read(g) for g in sample.gpus if (g.kind, g.index) == (kind, index)), None
    )


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
