"""A bar that shows who uses a memory: Hearth, other programs, nobody."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import streamlit as st

from widgets.words import _, decimal, memory

_STYLE = """
<style>
.hearth-bar { display: flex; height: 0.8rem; border-radius: 0.4rem; overflow: hidden;
  background: color-mix(in srgb, currentColor 12%, transparent); }
.hearth-bar span { display: block; }
.hearth-ours { background: #c4541f; }
.hearth-others { background: color-mix(in srgb, currentColor 45%, transparent); }
.hearth-head { display: flex; gap: 0.2rem 1rem; justify-content: space-between; align-items: baseline; }
.hearth-head strong { font-weight: 600; min-width: 0; overflow-wrap: anywhere; }
.hearth-head span { white-space: nowrap; font-variant-numeric: tabular-nums; }
.hearth-head + .hearth-bar { margin-top: 0.3rem; }
.hearth-key { display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; font-size: 0.875rem; margin-top: 0.35rem;
  font-variant-numeric: tabular-nums; }
.hearth-note { font-size: 0.8125rem; opacity: 0.75; margin-top: 0.4rem; overflow-wrap: anywhere; }
.hearth-key i { display: inline-block; width: 0.7rem; height: 0.7rem; border-radius: 0.2rem;
  margin-right: 0.35rem; vertical-align: -0.05rem; }
.hearth-weights { background: #c4541f; }
.hearth-kv { background: #3f86b5; }
.hearth-buffers { background: #5f9a48; }
.hearth-runtime { background: #a97fc0; }
.hearth-measured { background: color-mix(in srgb, currentColor 55%, transparent); }
.hearth-cores { display: flex; gap: clamp(0px, 0.3%, 2px); align-items: flex-end; height: 2.2rem; margin-top: 0.35rem; }
.hearth-cores i { flex: 1 1 0; min-width: 0; max-width: 1.6rem; height: 100%; border-radius: 0.15rem; display: flex;
  align-items: flex-end; overflow: hidden; background: color-mix(in srgb, currentColor 12%, transparent); }
.hearth-cores b { display: block; width: 100%; background: #c4541f; }
.hearth-key .hearth-free { background: color-mix(in srgb, currentColor 12%, transparent); }
</style>
"""


def cores(load: float, loads: Sequence[float]) -> None:
    """How busy the processor is in percent, and one small bar a core, full at 100 percent."""
    label = _("Load of each core")
    bars = "".join(
        f'<i title="{number}: {decimal(each, 0)} %"><b style="height:{each:.0f}%"></b></i>'
        for number, each in enumerate(loads, 1)
    )
    st.html(
        f'{_STYLE}<div class="hearth-head"><strong>{escape(_("Processor"))}</strong>'
        f"<span>{decimal(load, 0)} %</span></div>"
        f'<div class="hearth-cores" role="img" aria-label="{escape(label)}">{bars}</div>'
    )


def parts(label: str, named: Sequence[tuple[str, str, int]], scale: int) -> None:
    """A bar of `scale` bytes: each part has a colour (a class without 'hearth-'), words and bytes."""
    bars = "".join(
        f'<span class="hearth-{color}" style="width:{100 * number / max(scale, 1):.1f}%"></span>'
        for color, _words, number in named
    )
    key = "".join(
        f'<span><i class="hearth-{color}"></i>{escape(words)} {memory(number)}</span>'
        for color, words, number in (named if len(named) > 1 else ())
    )
    total = memory(sum(number for _color, _words, number in named))
    st.html(
        f'{_STYLE}<div class="hearth-head"><strong>{escape(label)}</strong><span>{total}</span></div>'
        f'<div class="hearth-bar" role="img" aria-label="{escape(label)} {total}">{bars}</div>'
        f'<div class="hearth-key">{key}</div>'
    )


def shares(
    label: str,
    total: int,
    free: int,
    ours: int | None,
    notes: Sequence[str] = (),
    words: Callable[[float], str] = memory,
) -> None:
    """One memory of `total` bytes, of which `free` are free and `ours` Hearth's (None: not known)."""
    lines = "".join(f'<div class="hearth-note">{escape(note)}</div>' for note in notes)
    st.html(bar_of_shares(label, total, free, ours, words) + lines)


def bar_of_shares(
    label: str,
    total: int,
    free: int,
    ours: int | None,
    words: Callable[[float], str] = memory,
) -> str:
    """The same as HTML, to stand among other things; `words` writes bytes."""
    used = max(total - free, 0)
    own = min(ours or 0, used)
    parts = [("hearth-ours", "Hearth", own)] if ours is not None else []
    others = _("Other programs") if ours is not None else _("In use")
    parts += [("hearth-others", others, used - own)]
    bars = "".join(
        f'<span class="{name}" style="width:{100 * number / max(total, 1):.1f}%"></span>'
        for name, _part, number in parts
    )
    key = "".join(
        f'<span><i class="{name}"></i>{escape(part)} {words(number)}</span>'
        for name, part, number in [*parts, ("hearth-free", _("Free"), free)]
    )
    figure = f"{words(used)} / {words(total)}"
    return (
        f'{_STYLE}<div class="hearth-head"><strong>{escape(label)}</strong><span>{figure}</span></div>'
        f'<div class="hearth-bar" role="img" aria-label="{escape(label)} {figure}">{bars}</div>'
        f'<div class="hearth-key">{key}</div>'
    )
