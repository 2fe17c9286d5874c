"""Lines over the last minutes, and dots for the last answers.

Drawn as plain SVG pictures: nothing to load, nothing to wait for, no flicker when they are drawn again.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

import streamlit as st

from chatbot.hardware.curves import Point
from widgets.words import _, decimal

_COLORS = ("#c4541f", "#3f86b5", "#5f9a48", "#a97fc0", "#b08a1e", "#8a8077")
_THIN = 'vector-effect="non-scaling-stroke"'  # the picture is stretched, its lines are not
_ROUND = 'stroke-linecap="round" stroke-linejoin="round"'
_CEILINGS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
_STYLE = """
<style>
.hearth-charts { display: grid; gap: 1.1rem 1.6rem; grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr)); }
.hearth-charts.hearth-wide { grid-template-columns: minmax(0, 1fr); }
.hearth-chart { margin: 0; min-width: 0; }
.hearth-chart figcaption { display: flex; flex-wrap: wrap; gap: 0.1rem 1.1rem; font-size: 0.875rem; }
.hearth-chart figcaption b { flex: 1 1 auto; font-weight: 600; min-width: 0; overflow-wrap: anywhere; }
.hearth-small figcaption b { flex-basis: 100%; }
.hearth-chart figcaption span { white-space: nowrap; font-variant-numeric: tabular-nums; }
.hearth-chart figcaption i { display: inline-block; width: 0.9rem; height: 0.2rem; border-radius: 0.1rem;
  margin-right: 0.35rem; vertical-align: 0.2rem; }
.hearth-plot { display: grid; grid-template-columns: minmax(0, 1fr) auto; column-gap: 0.45rem; margin-top: 0.4rem;
  font-size: 0.75rem; line-height: 1; font-variant-numeric: tabular-nums; }
.hearth-plot img { display: block; width: 100%; height: 6.5rem; object-fit: fill; }
.hearth-small .hearth-plot img { height: 3.6rem; }
.hearth-plot div { display: flex; justify-content: space-between; opacity: 0.7; }
.hearth-plot .hearth-scale { flex-direction: column; margin: -0.35rem 0; text-align: right; min-width: 1.7rem; }
.hearth-plot .hearth-ends { padding-top: 0.45rem; }
</style>
"""

Pieces = Sequence[Sequence[Point]]
"""A line, broken where it was missing: steps before the end of the picture, and the figure."""


def lines(charts: Sequence[tuple[str, Mapping[str, Pieces]]], seconds: int, *, small: bool) -> None:
    """Charts of percent over the last `seconds`: a title and a line a name, whose newest figure is told."""
    ends = (_("{count} min ago").format(count=seconds // 60), _("now"))
    figures = []
    for title, series in charts:
        key = [
            (_colored(number, "line"), name, f"{decimal(_newest(pieces), 0)} %")
            for number, (name, pieces) in enumerate(series.items())
            if pieces
        ]
        drawn = "".join(
            _area(pieces, seconds, 100.0, number) if number == 0 else ""
            for number, pieces in enumerate(series.values())
        ) + "".join(
            _line(piece, seconds, 100.0, number)
            for number, pieces in enumerate(series.values())
            for piece in pieces
        )
        figures.append(_figure(title, key, _svg(drawn), ("100 %", "50", "0"), ends, small=small))
    _show(figures, small=small)


def answers(title: str, series: Mapping[str, Sequence[Point]], ends: tuple[str, str]) -> None:
    """A dot an answer, one colour a name. Points are answers before the last, and the figure."""
    points = [point for named in series.values() for point in named]
    last = max(*(back for back, _value in points), 1.0)
    top = _ceiling(max(value for _back, value in points))
    span = last * 1.02  # so that the first and the last dot are whole
    drawn = "".join(
        _dots([(back + last * 0.01, value) for back, value in named], span, top, number)
        for number, named in enumerate(series.values())
    )
    key = [(_colored(number, "dot"), name, "") for number, name in enumerate(series)]
    digits = 0 if top >= 10 and top % 2 == 0 else 1
    scale = (decimal(top, digits), decimal(top / 2, digits), "0")
    _show([_figure(title, key, _svg(drawn), scale, ends, small=False)], small=False)


def _show(figures: Sequence[str], *, small: bool) -> None:
    kind = "" if small else " hearth-wide"
    st.html(f'{_STYLE}<div class="hearth-charts{kind}">{"".join(figures)}</div>')


def _figure(
    title: str,
    key: Sequence[tuple[str, str, str]],
    svg: str,
    scale: tuple[str, str, str],
    ends: tuple[str, str],
    *,
    small: bool,
) -> str:
    names = "".join(
        f'<span><i style="{style}"></i>{escape(name)} <strong>{escape(figure)}</strong></span>'
        for style, name, figure in key
    )
    told = ", ".join(" ".join(filter(None, (name, figure))) for _style, name, figure in key)
    picture = base64.b64encode(svg.encode()).decode()
    labels = "".join(f"<span>{escape(words)}</span>" for words in scale)
    return (
        f'<figure class="hearth-chart{" hearth-small" if small else ""}">'
        f"<figcaption><b>{escape(title)}</b>{names}</figcaption>"
        f'<div class="hearth-plot"><img src="data:image/svg+xml;base64,{picture}"'
        f' alt="{escape(title)}: {escape(told)}"><div class="hearth-scale">{labels}</div>'
        f'<div class="hearth-ends"><span>{escape(ends[0])}</span><span>{escape(ends[1])}</span></div>'
        "</div></figure>"
    )


def _svg(drawn: str) -> str:
    """A picture in its own right, because the page lets no SVG elements through; 1,000 by 100."""
    grid = "".join(
        f'<path d="M0 {y}H1000" stroke="#8a8077" stroke-opacity="0.3" {_THIN}/>'
        for y in (0, 50, 100)
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -1.5 1000 103"'
        f' preserveAspectRatio="none">{grid}{drawn}</svg>'
    )


def _line(piece: Sequence[Point], span: float, top: float, number: int) -> str:
    path = " ".join(f"{x:.0f},{y:.1f}" for x, y in _places(piece, span, top))
    if len(piece) == 1:
        path += f" {path}"  # a lone point is drawn as a dot
    return (
        f'<polyline fill="none" stroke="{_color(number)}" stroke-width="2" {_ROUND} {_THIN}'
        f' points="{path}"/>'
    )


def _area(pieces: Pieces, span: float, top: float, number: int) -> str:
    """A breath of colour under a line."""
    shapes = []
    for piece in pieces:
        places = _places(piece, span, top)
        path = " ".join(f"{x:.0f},{y:.1f}" for x, y in places)
        shapes.append(
            f'<polygon fill="{_color(number)}" fill-opacity="0.1"'
            f' points="{places[0][0]:.0f},100 {path} {places[-1][0]:.0f},100"/>'
        )
    return "".join(shapes)


def _dots(points: Sequence[Point], span: float, top: float, number: int) -> str:
    path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in _places(points, span, top))
    return (
        f'<path fill="none" stroke="{_color(number)}" stroke-opacity="0.85" stroke-width="6"'
        f' {_ROUND} {_THIN} d="{path}"/>'
    )


def _places(points: Sequence[Point], span: float, top: float) -> list[tuple[float, float]]:
    return [
        (1000 * (1 - back / span), 100 - min(max(100 * value / top, 0.0), 100.0))
        for back, value in points
    ]


def _newest(pieces: Pieces) -> float:
    return pieces[-1][-1][1]


def _ceiling(largest: float) -> float:
    """The next round figure."""
    power = 1.0
    while largest > 10 * power:
        power *= 10
    while 0 < largest <= power:
        power /= 10
    return next(power * step for step in _CEILINGS if power * step >= largest)


def _colored(number: int, kind: str) -> str:
    shape = (
        ";width:0.55rem;height:0.55rem;border-radius:50%;vertical-align:0" if kind == "dot" else ""
    )
    return f"background:{_color(number)}{shape}"


def _color(number: int) -> str:
    return _COLORS[number % len(_COLORS)]
