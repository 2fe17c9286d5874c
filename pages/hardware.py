"""The hardware page: what this PC has, what uses it now, what Hearth has loaded on it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import streamlit as st

from chatbot.hardware.detect import installed
from chatbot.hardware.monitor import Sample
from chatbot.markup import literal
from chatbot.memory.relief import Cure
from chatbot.services import services
from chatbot.types import Gpu, Hardware
from widgets import graphics_cards, loaded_model, loads, meter, over_time, this_pc_speed
from widgets.words import _, language, memory, moment, plural, size

_REMEMBERED_SECONDS = 3600
_NOTEWORTHY_SWAP = 500_000_000
_NOTEWORTHY_PROGRAM = 200_000_000
_PROGRAMS = 4
_TOO_MUCH_TAKEN = 0.5
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
    _loaded()
    _last_out_of_memory()
    _now()
    over_time.show()
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
    elif hardware.unified_memory:
        st.success(
            _("{gpu}: processor and graphics share {memory} of memory.").format(
                gpu=literal(gpu.name), memory=memory(hardware.ram_total)
            ),
            icon=":material/bolt:",
        )
    elif not (installed().transformers_gpu or installed().llama_cpp_gpu) or gpu.kind == "rocm":
        words = _(
            "{gpu} is watched here, but the installed engines run models on the processor: they were"
            " built without {support}."
        ).format(gpu=literal(gpu.name), support="ROCm" if gpu.kind == "rocm" else "CUDA")
        if gpu.kind == "cuda":
            words += " " + _("The README says how to install those that use it.")
        st.info(words, icon=":material/memory:")
    else:
        _cards_verdict(hardware.gpus, gpu)


def _cards_verdict(gpus: Sequence[Gpu], largest: Gpu) -> None:
    """What the cards are good for, and who keeps them from it."""
    total, free = sum(gpu.total for gpu in gpus), sum(gpu.free for gpu in gpus)
    ours = sum(gpu.used_by_hearth or 0 for gpu in gpus)
    if (taken := total - free - ours) > _TOO_MUCH_TAKEN * total:
        st.warning(
            _(
                "Other programs hold {taken} of the {total} of graphics memory. Close them to give models"
                " room there."
            ).format(taken=memory(taken), total=memory(total)),
            icon=":material/memory:",
        )
    elif len(gpus) > 1:
        st.success(
            _("{cards} with {memory} together; the largest alone has {largest}.").format(
                cards=plural("{count} graphics card", "{count} graphics cards", len(gpus)),
                memory=memory(total),
                largest=memory(largest.total),
            ),
            icon=":material/bolt:",
        )
    else:
        st.success(
            _("{gpu} with {memory}: models that fit there answer fastest.").format(
                gpu=literal(largest.name), memory=memory(total)
            ),
            icon=":material/bolt:",
        )


@st.fragment(run_every=_POLL_SECONDS)
def _loaded() -> None:
    with st.container(border=True, gap="small"):
        loaded_model.show("hardware")
        loads.in_memory()
        if st.button(
            _("Free memory"),
            key="free-memory",
            icon=":material/mop:",
            disabled=services().engines.busy,
            help=_("Unloads the model and ends helpers that start again when they are needed."),
        ):
            loaded_model.free_memory()
            st.rerun()


@st.fragment(run_every=_POLL_SECONDS)
def _now() -> None:
    monitor = services().monitor
    sample = monitor.latest()
    with st.container(border=True, gap="small"):
        pool = _("Memory of processor and graphics") if _unified(sample) else _("Memory")
        meter.shares(pool, sample.ram_total, sample.ram_available, sample.hearth, _holders(sample))
        if sample.gpus:
            graphics_cards.show(sample.gpus)
        for gone, at in _vanished(sample):
            _warn(
                _("{gpu} has not answered since {time}; the driver may be restarting it.").format(
                    gpu=literal(gone.name), time=time.strftime("%H:%M", time.localtime(at))
                )
            )
        meter.cores(sample.cpu, sample.cores)
        _disk(sample)
        if sample.swap_used > _NOTEWORTHY_SWAP:
            _warn(
                _("{size} are swapped to the disk; a loaded model may answer slowly.").format(
                    size=memory(sample.swap_used)
                )
            )


def _warn(words: str) -> None:
    st.caption(f":orange[:material/warning: {words}]")


def _unified(sample: Sample) -> bool:
    return any(gpu.kind == "mps" for gpu in sample.gpus)


def _holders(sample: Sample) -> list[str]:
    """Which parts of Hearth and which other programs hold most of the memory."""
    names = {
        "app": _("this page and its server"),
        "model": _("writing answers"),
        "index": _("search"),
        "documents": _("reading documents"),
        "jobs": _("other work"),
    }
    parts = sorted(sample.parts, key=lambda part: -part[1])
    ours = [f"{names[part]} {_unbroken(held)}" for part, held in parts]
    others = [
        f"{name} {_unbroken(held)}"
        for name, held in services().monitor.others(_PROGRAMS)
        if held > _NOTEWORTHY_PROGRAM
    ]
    lines = [f"Hearth: {' · '.join(ours)}"] if len(ours) > 1 else []
    if others:
        lines.append(_("Other programs") + ": " + " · ".join(others))
    if sample.swap_total:
        lines.append(
            _("Swap {used} of {total}").format(
                used=memory(sample.swap_used), total=memory(sample.swap_total)
            )
        )
    return lines


def _unbroken(held: int) -> str:
    """Bytes whose figure and unit stay on one line."""
    return memory(held).replace(" ", "\N{NO-BREAK SPACE}")


def _vanished(sample: Sample) -> list[tuple[Gpu, float]]:
    """Cards that were there within the last hour and are not now, and when they were seen last."""
    there = {gpu.key for gpu in sample.gpus}
    seen = {
        gpu.key: (gpu, one.at)
        for one in services().monitor.series(_REMEMBERED_SECONDS)
        for gpu in one.gpus
    }
    return [found for key, found in seen.items() if key not in there]


def _disk(sample: Sample) -> None:
    traffic = _("reading {read}/s, writing {written}/s").format(
        read=size(sample.disk_read), written=size(sample.disk_written)
    )
    label = _("Disk of the data folder")
    meter.shares(label, sample.disk_total, sample.disk_free, None, [traffic], size)


def _last_out_of_memory() -> None:
    """Where memory ran out last, what came back, and what helps."""
    last = services().last_out_of_memory()
    if last is None:
        return
    with st.expander(
        _("Memory ran out last on {when}").format(when=moment(last.at)),
        icon=":material/warning:",
    ):
        st.markdown(literal(" ".join(last.error.sentences(language()))))
        cures = [Cure.from_dict(cure) for cure in last.error.values.get("cures", ())]
        if last.cure is not None:
            words = _("Changed then: {change}.")
            st.markdown(words.format(change=literal(last.cure.text(language()))))
        elif cures:
            st.markdown(_("What helps, the least harm first:"))
            for cure in cures:
                change, price = literal(cure.text(language())), literal(cure.price(language()))
                st.markdown(f"- {change}. :gray[{price}]")


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
        (_("Memory"), memory(hardware.ram_total)),
        *((_("Graphics card"), words) for words in _card_kinds(hardware)),
        (_("Disk of the data folder"), size(hardware.disk_total)),
        (_("System"), hardware.system),
    ]
    for name, value in rows:
        with st.container(horizontal=True, gap="small", wrap=False):
            st.markdown(f":gray[{name}]", width=150)
            st.markdown(literal(value), width="stretch")


def _card_kinds(hardware: Hardware) -> list[str]:
    """Equal cards once, with how many of them there are."""
    if not hardware.gpus:
        return [_("none that runs models")]
    kinds = Counter((gpu.name, gpu.total) for gpu in hardware.gpus)
    return [
        (f"{count} × " if count > 1 else "")
        + _("{name}, {total}").format(name=name, total=memory(total))
        for (name, total), count in kinds.items()
    ]


main()
