"""Lines over the last minutes, or over the last answers.

Drawn as a plain SVG picture: nothing to load, nothing to wait for, no flicker when it is drawn again.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

import streamlit as st

from widgets.words import _, decimal

_COLORS = ("#c4541f", "#3f86b5", "#5f9a48", "#a97fc0", "#b08a1e", "#8a8077")
_THIN = 'vector-effect="non-scaling-stroke"'  # the picture is stretched, its lines are not
_STYLE = """
<style>
.hearth-chart { margin: 0; }
.hearth-chart figcaption { display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; font-size: 0.875rem; }
.hearth-chart figcaption i { display: inline-block; width: 0.9rem; height: 0.2rem; border-radius: 0.1rem;
  margin-right: 0.35rem; vertical-align: 0.2rem; }
.hearth-chart img { display: block; width: 100%; height: 7rem; margin-top: 0.5rem; object-fit: fill; }
.hearth-chart .hearth-scale { display: flex; justify-content: space-between; font-size: 0.8rem; opacity: 0.7;
  margin-top: 0.2rem; }
</style>
"""

Point = tuple[float, float]
"""Seconds ago (or steps back), percent (or figure)."""


def lines(title: str, series: Mapping[str, Sequence[Point]], seconds: int) -> None:
    """One line a name over the last `seconds`; the newest figure stands beside each name."""
    ago = _("{count} min ago").format(count=seconds // 60)
    _figure(title, series, seconds, 100.0, 0, "%", (ago, _("now")))


def steps(
    title: str,
    series: Mapping[str, Sequence[float]],
    unit: str,
    ends: tuple[str, str],
    digits: int = 1,
) -> None:
    """One line a name, a step for each figure, oldest first, on a scale from 0 to the largest."""
    count = max((len(values) for values in series.values()), default=0)
    top = max((value for values in series.values() for value in values), default=0.0) or 1.0
    placed = {
        name: [(float(count - 1 - number), value) for number, value in enumerate(values)]
        for name, values in series.items()
    }
    _figure(title, placed, max(count - 1, 1), top, digits, unit, ends)


def _figure(
    title: str,
    series: Mapping[str, Sequence[Point]],
    span: int,
    top: float,
    digits: int,
    unit: str,
    ends: tuple[str, str],
) -> None:
    shown = {name: points for name, points in series.items() if points}
    key = "".join(
        f'<span><i style="background:{_color(number)}"></i>{escape(name)}'
        f" <strong>{decimal(points[-1][1], digits)} {escape(unit)}</strong></span>"
        for number, (name, points) in enumerate(shown.items())
    )
    picture = base64.b64encode(_svg(list(shown.values()), span, top).encode()).decode()
    scale = f"0–{decimal(top, digits)} {unit}"
    st.html(
        f'{_STYLE}<figure class="hearth-chart"><figcaption><span>{escape(title)}</span>{key}</figcaption>'
        f'<img src="data:image/svg+xml;base64,{picture}" alt="{escape(title)}">'
        f'<div class="hearth-scale"><span>{escape(ends[0])}</span><span>{escape(scale)}</span>'
        f"<span>{escape(ends[1])}</span></div></figure>"
    )


def _svg(lines_: Sequence[Sequence[Point]], span: int, top: float) -> str:
    """A picture in its own right, because the page lets no SVG elements through."""
    grid = "".join(
        f'<path d="M0 {y}H{span}" stroke="#8a8077" stroke-opacity="0.3" {_THIN}/>'
        for y in (0, 50, 100)
    )
    drawn = "".join(
        f'<polyline fill="none" stroke="{_color(number)}" stroke-width="2" {_THIN}'
        f' points="{_points(points, span, top)}"/>'
        for number, points in enumerate(lines_)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -2 {span} 104"'
        f' preserveAspectRatio="none">{grid}{drawn}</svg>'
    )


def _points(points: Sequence[Point], span: int, top: float) -> str:
    return " ".join(
        f"{span - ago:.1f},{100 - min(max(100 * value / top, 0), 100):.1f}"
        for ago, value in points
        if ago <= span
    )


def _color(number: int) -> str:
    return _COLORS[number % len(_COLORS)]
