"""What models were predicted to need and measurably took: the one in memory, and the last loads."""

from __future__ import annotations

from html import escape

import streamlit as st

from chatbot.memory.calibration import Correction, Load
from chatbot.services import services
from widgets import meter
from widgets.words import _, decimal, memory, moment, plural

_SHOWN = 8
_BACKENDS = {"llama_cpp": "llama.cpp", "transformers": "transformers"}
_STYLE = """
<style>
.hearth-table { overflow-x: auto; }
.hearth-table table { border-collapse: collapse; width: 100%; font-size: 0.875rem; }
.hearth-table th { text-align: left; font-weight: 600; opacity: 0.75; }
.hearth-table th, .hearth-table td { padding: 0.35rem 0.9rem 0.35rem 0; white-space: nowrap;
  border-bottom: 1px solid color-mix(in srgb, currentColor 15%, transparent); }
.hearth-table td:first-child { white-space: normal; min-width: 9rem; overflow-wrap: anywhere; }
.hearth-table .hearth-number { text-align: right; font-variant-numeric: tabular-nums; }
</style>
"""


def in_memory() -> None:
    """The loaded model's parts as a bar, and below it what its process measurably takes."""
    load = services().loaded_memory()
    if load is None:
        return
    names = (
        ("weights", _("weights"), ("weights",)),
        ("kv", _("KV cache"), ("kv",)),
        ("buffers", _("buffers"), ("buffers", "loading")),
        ("runtime", _("runtime"), ("runtime",)),
    )
    places = [("", _("in main memory"), load.ram)]
    if load.on_gpu:
        places.append(("gpu_", _("on the graphics card"), load.gpu))
    for prefix, where, measured in places:
        predicted = [
            (color, words, sum(load.plan.parts.get(prefix + part, 0) for part in of))
            for color, words, of in names
        ]
        predicted = [row for row in predicted if row[2]]
        total = sum(number for _color, _words, number in predicted)
        scale = max(total, measured or 0)
        meter.parts(_("Predicted {where}").format(where=where), predicted, scale)
        if measured is None:
            st.caption(_("The driver does not tell what it takes there."))
        else:
            bar = [("measured", _("measured"), measured)]
            meter.parts(_("Measured {where}").format(where=where), bar, scale)
    if not load.complete:
        st.caption(
            ":material/info: "
            + _("Buffers come into use with the first long question; until then less is measured.")
        )


def last() -> None:
    """A table of the last loads, and what they taught."""
    loads = services().calibration.loads(_SHOWN)
    if not loads:
        st.caption(
            _("Each model that is loaded adds a line here: predicted, measured, and the error.")
        )
        return
    heads = (
        _("Model"),
        _("Predicted"),
        _("Measured"),
        _("Error"),
        _("Context"),
        _("Runs on"),
        _("When"),
    )
    head = "".join(
        f'<th class="{"hearth-number" if 1 <= number <= 4 else ""}">{escape(words)}</th>'
        for number, words in enumerate(heads)
    )
    rows = "".join(_row(load) for load in loads)
    st.html(
        f'{_STYLE}<div class="hearth-table"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
    if not all(load.complete for load in loads):
        st.caption(
            _("–: no question as long as a batch was read, so part of the buffers was not used.")
        )
    for correction in services().calibration.corrections():
        st.caption(_taught(correction))


def _row(load: Load) -> str:
    plan = load.plan
    error = f"{decimal(100 * load.error).replace('-', '−')} %"
    figures = (
        memory(load.predicted),
        memory(load.measured),
        (error if load.error < 0 else f"+{error}") if load.complete else "–",
        decimal(plan.context, 0),
    )
    backend = f"{_BACKENDS.get(plan.backend, plan.backend)}, {plan.device.upper()}"
    return (
        f"<tr><td>{escape(load.model)}</td>"
        + "".join(f'<td class="hearth-number">{escape(figure)}</td>' for figure in figures)
        + f"<td>{escape(backend)}</td><td>{escape(moment(load.at))}</td></tr>"
    )


def _taught(correction: Correction) -> str:
    place = _("main memory") if correction.place == "ram" else _("graphics memory")
    count = plural("{count} load", "{count} loads", correction.loads)
    names = {
        "backend": _BACKENDS.get(correction.backend, correction.backend),
        "place": place,
        "loads": count,
        "percent": f"{100 * (correction.factor - 1):+.0f}".replace("-", "−"),
    }
    if correction.applied:
        text = _("{backend}, {place}: {loads} agree, so plans are corrected by {percent} %.")
    elif correction.agree:
        text = _("{backend}, {place}: {loads} agree with the plans; nothing to correct.")
    else:
        text = _("{backend}, {place}: {loads} so far; plans are corrected once five agree.")
    return text.format(**names)
