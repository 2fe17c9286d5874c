"""What a measurement came to: a few bars with their uncertainty, a plain sentence, all figures in a table."""

from __future__ import annotations

import time
from html import escape
from pathlib import Path

import streamlit as st

from chatbot.evaluation.metrics import Difference, likely_share
from chatbot.evaluation.runs import OWN, Comparison, Configuration, Run
from chatbot.i18n import N_
from chatbot.markup import literal
from widgets.words import _, decimal, plural

WAYS: dict[str, tuple[Configuration, str]] = {
    "hybrid": (Configuration("hybrid"), N_("Words and meaning")),
    "lexical": (Configuration("lexical"), N_("Words only")),
    "dense": (Configuration("dense"), N_("Meaning only")),
    "reranked": (Configuration("hybrid", rerank=True), N_("Words and meaning, reranked")),
}
"""Ways of searching that can be measured, by the keys that widgets keep."""

_HIT_RATES = {
    "recall@1": N_("The first result is right"),
    "recall@5": N_("Right among the first 5"),
    "recall@10": N_("Right among the first 10"),
}
_OTHERS = {"mrr@10": "MRR@10", "ndcg@10": "nDCG@10"}
_FEW = 30
_COLORS = ("#c4541f", "#3f86b5")
_STYLE = """
<style>
.hearth-hits { display: grid; gap: 0.9rem; margin: 0; }
.hearth-hits figcaption { display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; font-size: 0.875rem; }
.hearth-hits figcaption i { display: inline-block; width: 0.7rem; height: 0.7rem; border-radius: 0.2rem;
  margin-right: 0.4rem; }
.hearth-hits .hearth-hit { display: grid; gap: 0.3rem; }
.hearth-hits .hearth-hit > b { font-weight: 500; }
.hearth-hits .hearth-bar { display: grid; grid-template-columns: 1fr 11.5rem; gap: 0.8rem; align-items: center; }
.hearth-hits .hearth-bar > span { font-size: 0.875rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
.hearth-hits .hearth-bar strong { font-size: 1.05rem; }
.hearth-hits .hearth-track { position: relative; height: 0.7rem; border-radius: 0.35rem;
  background: color-mix(in srgb, currentColor 10%, transparent); }
.hearth-hits .hearth-track i { position: absolute; top: 0; bottom: 0; left: 0; border-radius: 0.35rem; }
.hearth-hits .hearth-track i.hearth-range { top: 0.29rem; bottom: auto; height: 0.12rem; background: currentColor;
  opacity: 0.65; }
.hearth-hits .hearth-range::before, .hearth-hits .hearth-range::after { content: ""; position: absolute;
  top: -0.14rem; width: 0.12rem; height: 0.4rem; background: currentColor; }
.hearth-hits .hearth-range::after { right: 0; }
@media (max-width: 640px) { .hearth-hits .hearth-bar { grid-template-columns: 1fr; gap: 0.2rem; } }
</style>
"""


def way(run: Run) -> str:
    """How that run searched, as people call it."""
    known = (words for configuration, words in WAYS.values() if configuration == run.configuration)
    return _(next(known, run.configuration.mode))


def set_name(run: Run) -> str:
    """What was asked, as people call it."""
    if run.dataset != OWN:
        return literal(Path(run.dataset).name)
    return plural("My {count} question", "My {count} questions", run.questions)


def run_name(run: Run) -> str:
    """A run among others: configuration and day."""
    moment = time.strftime("%d/%m %H:%M", time.localtime(run.created_at))
    parts = [way(run), moment]
    return " · ".join(parts if run.dataset == OWN else [Path(run.dataset).name, *parts])


def in_short(run: Run) -> str:
    """The first figure, the number of questions and the embedder, in a line."""
    questions = plural("{count} question", "{count} questions", run.questions)
    first = f"{_(_HIT_RATES['recall@1'])}: {_share(run.figures['recall@1'])}"
    return " · ".join([first, questions, literal(_embedder(run))])


def show(run: Run, other: Run | None, comparison: Comparison | None) -> None:
    """Bars, verdict, cautions, and the rest of the figures behind a fold."""
    runs = [run, *([other] if other else [])]
    st.html(_bars(runs))
    if other and comparison:
        _verdict(run, other, comparison)
    _caution(run)
    with st.expander(_("All figures"), icon=":material/table_chart:"):
        _table(runs, comparison)


def _bars(runs: list[Run]) -> str:
    key = ""
    if len(runs) > 1:
        names = _names(runs)
        key = "".join(
            f'<span><i style="background:{color}"></i>{escape(name)}</span>'
            for color, name in zip(_COLORS, names, strict=False)
        )
        key = f"<figcaption>{key}</figcaption>"
    rows = "".join(
        f'<div class="hearth-hit"><b>{escape(_(words))}</b>'
        + "".join(_bar(run, name, color) for run, color in zip(runs, _COLORS, strict=False))
        + "</div>"
        for name, words in _HIT_RATES.items()
    )
    return f'{_STYLE}<figure class="hearth-hits">{key}{rows}</figure>'


def _bar(run: Run, name: str, color: str) -> str:
    """A bar up to the figure, and over it the range in which the true figure probably lies."""
    value, (low, high) = run.figures[name], run.figures["intervals"][name]
    ends = f"left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"
    said = f"{_share(value)} {_range(low, high)}"
    return (
        f'<div class="hearth-bar"><div class="hearth-track" role="img" aria-label="{escape(said)}">'
        f'<i style="width:{100 * value:.1f}%;background:{color}"></i>'
        f'<i class="hearth-range" style="{ends}"></i></div>'
        f"<span><strong>{escape(_share(value))}</strong> {escape(_range(low, high))}</span></div>"
    )


def _names(runs: list[Run]) -> list[str]:
    """Configurations where they differ, else with their day."""
    ways = [way(run) for run in runs]
    return ways if len(set(ways)) == len(ways) else [run_name(run) for run in runs]


def _verdict(run: Run, other: Run, comparison: Comparison) -> None:
    """One sentence: which finds the right passage first more often, or that chance may explain it."""
    if not comparison.pairs:
        st.info(_("These two have no question in common."), icon=":material/info:")
        return
    found = comparison.differences["recall@1"]
    ends = (found.low, found.high)
    if not any(ends) and not found.mean:
        words, icon = N_("Both find the right passage first for the same questions."), "balance"
    elif found.certain:
        words, icon = (
            N_(
                "“{ahead}” finds the right passage first more often than “{behind}”: by {points} points"
                " ({low} to {high})."
            ),
            "trending_up",
        )
    elif found.mean:
        words, icon = (
            N_(
                "“{ahead}” is ahead of “{behind}” by {points} points ({low} to {high}), but that could be"
                " chance."
            ),
            "balance",
        )
    else:
        words, icon = N_("Both find the right passage first equally often."), "balance"
    first, second = _names([run, other])
    sign = 1 if found.mean >= 0 else -1
    low, high = sorted(sign * end for end in ends)
    said = _(words).format(
        ahead=literal(first if sign > 0 else second),
        behind=literal(second if sign > 0 else first),
        points=_points(abs(found.mean)),
        low=_points(low),
        high=_points(high),
    )
    (st.success if found.certain else st.info)(said, icon=f":material/{icon}:")
    if len(comparison.pairs) < min(run.questions, other.questions):
        st.caption(
            plural(
                "Compared over the {count} question that both were asked.",
                "Compared over the {count} questions that both were asked.",
                len(comparison.pairs),
            )
        )


def _caution(run: Run) -> None:
    """What so few questions can and cannot show."""
    count = run.questions
    if not count or count >= _FEW:
        return
    hits = round(run.figures["recall@1"] * count)
    low, high = likely_share(hits, count)
    words = (
        _("One question proves next to nothing.")
        if count == 1
        else _(
            "{count} questions prove little: {hits} found first could come from a search that really finds"
            " anything between {low} and {high}. From thirty questions on the figures begin to hold."
        )
    )
    said = words.format(count=count, hits=hits, low=_share(low), high=_share(high))
    st.caption(f":material/info: {said}")


def _table(runs: list[Run], comparison: Comparison | None) -> None:
    paired = comparison if comparison and comparison.pairs else None
    names = [literal(name) for name in _names(runs)]
    head = ["", *names, *([_("Difference")] if paired else [])]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, words in {**_HIT_RATES, **_OTHERS}.items():
        cells = [_(words), *(_cell(run, name) for run in runs)]
        cells += [_gain(paired.differences[name], name)] if paired else []
        lines.append("| " + " | ".join(cells) + " |")
    for share, words in (("p50", N_("Time, half of them")), ("p95", N_("Time, 95 of 100"))):
        times = [f"{decimal(run.figures[f'latency_{share}_ms'], 0)} ms" for run in runs]
        lines.append("| " + " | ".join([_(words), *times, *([""] if paired else [])]) + " |")
    st.markdown("\n".join(lines))
    st.caption(
        _(
            "In brackets: where the true figure lies in 95 of 100 cases (bootstrap over the questions). When"
            " results tie, the right one counts as the last of them."
        )
    )
    st.caption(
        _(
            "MRR@10: 1 when the right passage is first, ½ when second, ⅓ when third …, 0 beyond the tenth; the"
            " mean. nDCG@10: the same idea for questions with several right passages; 1 is perfect."
        )
    )
    embedders = dict.fromkeys(_embedder(run) for run in runs)
    st.caption(_("Embedder: {name}").format(name=literal(", ".join(embedders))))


def _cell(run: Run, name: str) -> str:
    low, high = run.figures["intervals"][name]
    if name in _HIT_RATES:
        return f"{_share(run.figures[name])} {_range(low, high)}"
    return f"{decimal(run.figures[name], 2)} ({decimal(low, 2)}–{decimal(high, 2)})"


def _gain(found: Difference, name: str) -> str:
    if name in _HIT_RATES:
        said = f"{_points(found.mean, plus='+')} ({_points(found.low)} … {_points(found.high)})"
    else:
        low, high = _number(found.low, 2), _number(found.high, 2)
        said = f"{_number(found.mean, 2, plus='+')} ({low} … {high})"
    return f"**{said}**" if found.certain else said


def _share(value: float) -> str:
    return f"{decimal(100 * value, 0)} %"


def _range(low: float, high: float) -> str:
    return f"({decimal(100 * low, 0)}–{decimal(100 * high, 0)} %)"


def _points(value: float, plus: str = "") -> str:
    return _number(100 * value, 1, plus)


def _number(value: float, digits: int, plus: str = "") -> str:
    """With a true minus sign; `plus` is what stands before a positive one."""
    shown = decimal(value, digits).replace("-", "−")
    return f"{plus}{shown}" if value > 0 else shown


def _embedder(run: Run) -> str:
    """The embedder's name, of a stamp or a folder's path."""
    return run.embedder.split("@")[0]
