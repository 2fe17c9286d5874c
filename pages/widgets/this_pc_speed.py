"""How fast this PC is and how fast answers were written on it."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

import streamlit as st

from chatbot.hardware.speeds import Speeds
from chatbot.jobs import error_of
from chatbot.markup import literal
from chatbot.memory.recommend import recommend, writing_speeds
from chatbot.services import services
from widgets import chart
from widgets.words import _, decimal, language, moment

_ANSWERS = 100
_MODELS = 4


def answers() -> None:
    """Tokens a second and the wait for the first of them, over the last answers of models."""
    written = services().history.written_by_models(_ANSWERS)
    if len(written) < 2:
        st.caption(_("Two answers of a model, and their speed is drawn here."))
        return
    ends = (moment(written[0][0]), moment(written[-1][0]))
    speeds = [stats.tokens_per_second for _at, _model, stats in written]
    waits = [stats.seconds_to_first_token for _at, _model, stats in written]
    models = [model for _at, model, _stats in written]
    middle = _("median {figure}")
    for title, values, unit in (
        (_("Writing speed"), speeds, _("tokens/s")),
        (_("Wait for the first word"), waits, "s"),
    ):
        told = middle.format(figure=f"{decimal(statistics.median(values))} {unit}")
        chart.answers(f"{title} · {told}", _by_model(models, values), ends)


def _by_model(models: Sequence[str], values: Sequence[float]) -> dict[str, list[chart.Point]]:
    """Answers before the last, and the figure; the models that answered most have a name of their own."""
    named = {model for model, _count in Counter(models).most_common(_MODELS)}
    series: dict[str, list[chart.Point]] = {}
    for number, (model, value) in enumerate(zip(models, values, strict=True)):
        name = (model if model in named else _("other models")) or _("a model")
        series.setdefault(name, []).append((float(len(models) - 1 - number), value))
    return series


def benchmark() -> None:
    """What was measured, and the button that measures it again."""
    running = bool(services().jobs.list(active=True, kind="benchmark"))
    st.fragment(_benchmark, run_every=1.0 if running else None)(running)


def _benchmark(was_running: bool) -> None:
    running = bool(services().jobs.list(active=True, kind="benchmark"))
    if was_running and not running:
        st.rerun()
    found = services().speeds()
    with st.container(border=True, gap="small"):
        if found is None:
            st.markdown(
                _(
                    "A short measurement tells how fast a model can write here, before it is downloaded."
                )
            )
        else:
            _figures(found)
        with st.container(horizontal=True, vertical_alignment="center"):
            again = _("Measure again") if found else _("Measure this PC")
            words = _("Measuring…") if running else again
            if st.button(words, icon=":material/speed:", disabled=running, key="benchmark"):
                services().measure_speeds()
                st.rerun()
            if found and not running:
                st.caption(_("Measured {when}").format(when=moment(found.at)))
        _failure(running)


def _failure(running: bool) -> None:
    last = next(iter(services().jobs.list(kind="benchmark")), None)
    if last is not None and not running and (error := error_of(last)):
        st.caption(f":red[:material/error: {literal(error.text(language()))}]")


def _figures(found: Speeds) -> None:
    rows = [
        (_("Reading memory"), _per_second(found.memory), _per_second(found.gpu_memory)),
        (_("Matrix product"), _operations(found.matmul), _operations(found.gpu_matmul)),
        (_("The same in 16 bits"), "", _operations(found.gpu_matmul_half)),
        (_("Transfer to the card"), "", _per_second(found.to_gpu)),
        (_("Transfer from the card"), "", _per_second(found.from_gpu)),
    ]
    for name, on_cpu, on_card in rows:
        values = [on_cpu] if on_cpu else []
        if on_card:
            values.append(f"{literal(found.gpu)} {on_card}" if on_cpu else on_card)
        if values:
            _row(name, " · ".join(values))
    hardware = services().hardware()
    best = recommend(hardware)
    would = [
        f"{decimal(billions, 0 if billions >= 2 else 1)}B ≈ {decimal(speed, 0 if speed >= 10 else 1)}"
        for billions, speed in writing_speeds(hardware, found)
    ]
    if best and would:
        words = _("{models} tokens/s (parameters, {precision})")
        _row(
            _("Models would write"),
            words.format(models=" · ".join(would), precision=best.precision),
        )
    if found.gpu_matmul:
        st.caption(
            _("The graphics card multiplies {times} times as fast as the processor.").format(
                times=decimal(found.gpu_matmul / found.matmul, 0)
            )
        )


def _row(name: str, value: str) -> None:
    with st.container(horizontal=True, gap="small", wrap=False):
        st.markdown(f":gray[{name}]", width=170)
        st.markdown(value, width="stretch")


def _per_second(number: float | None) -> str:
    return f"{decimal(number / 1e9, 1 if number < 1e11 else 0)} GB/s" if number else ""


def _operations(number: float | None) -> str:
    if not number:
        return ""
    if number >= 1e12:
        return f"{decimal(number / 1e12)} TFLOP/s"
    return f"{decimal(number / 1e9, 0)} GFLOP/s"
