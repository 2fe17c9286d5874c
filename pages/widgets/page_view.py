"""A passage in its document: the page as it looks, or the text with its headings, the passage lit up."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import streamlit as st

from chatbot.errors import ChatbotError
from chatbot.library.page_view import View
from chatbot.markup import literal
from chatbot.services import services
from widgets.words import _, language

_JS = """
const SVG = 'http://www.w3.org/2000/svg';
const ZOOMS = [1, 1.25, 1.5, 2, 2.5, 3];
const views = new WeakMap();

const element = (name, attributes = {}, text = '') => {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
};

const lights = (data) => {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 1 1');
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('aria-hidden', 'true');
  for (const kind of ['passage', 'quote'])
    for (const [left, top, right, bottom] of data[kind]) {
      const rectangle = document.createElementNS(SVG, 'rect');
      const place = { x: left, y: top, width: right - left, height: bottom - top, class: kind };
      for (const [key, value] of Object.entries(place)) rectangle.setAttribute(key, value);
      svg.append(rectangle);
    }
  return svg;
};

const page = (data) => {
  const sheet = element('div', { class: 'sheet' });
  const image = element('img', { src: data.picture, alt: data.name, width: data.width, height: data.height });
  sheet.append(image, lights(data));
  return sheet;
};

const text = (data) => {
  const sheet = element('div', { class: 'text', 'aria-label': data.name });
  for (const block of data.blocks) {
    const line = element(block.level ? `h${Math.min(block.level + 1, 6)}` : 'p');
    for (const [words, kind] of block.pieces)
      line.append(kind ? element('mark', { class: kind }, words) : document.createTextNode(words));
    sheet.append(line);
  }
  return sheet;
};

export default function ({ data, parentElement }) {
  const frame = parentElement.querySelector('.frame');
  const view = views.get(parentElement) ?? { zoom: 0, shown: null };
  views.set(parentElement, view);
  const buttons = parentElement.querySelector('.zoom');
  const [smaller, larger] = buttons.querySelectorAll('button');
  const percent = buttons.querySelector('output');
  frame.setAttribute('aria-label', data.name);
  buttons.hidden = !data.picture;
  smaller.title = data.words.smaller;
  larger.title = data.words.larger;
  for (const button of [smaller, larger]) button.setAttribute('aria-label', button.title);

  const zoom = (step) => {
    const middle = (frame.scrollTop + frame.clientHeight / 2) / frame.scrollHeight;
    const across = (frame.scrollLeft + frame.clientWidth / 2) / frame.scrollWidth;
    view.zoom = Math.max(0, Math.min(ZOOMS.length - 1, view.zoom + step));
    const sheet = frame.querySelector('.sheet');
    if (sheet) sheet.style.width = `${ZOOMS[view.zoom] * 100}%`;
    percent.textContent = `${ZOOMS[view.zoom] * 100} %`;
    smaller.disabled = view.zoom === 0;
    larger.disabled = view.zoom === ZOOMS.length - 1;
    if (step) {
      frame.scrollTop = middle * frame.scrollHeight - frame.clientHeight / 2;
      frame.scrollLeft = across * frame.scrollWidth - frame.clientWidth / 2;
    }
  };
  smaller.onclick = () => zoom(-1);
  larger.onclick = () => zoom(1);

  const key = JSON.stringify([data.key, data.passage, data.quote, data.blocks]);
  if (view.shown === key) return;
  view.shown = key;
  frame.replaceChildren(data.picture ? page(data) : text(data));
  zoom(0);
  const settle = (patience) => {     // a dialog opens with a movement; its size is not there at once
    if (!frame.clientHeight && patience) { setTimeout(settle, 50, patience - 1); return; }
    const lit = frame.querySelector('.quote') ?? frame.querySelector('.passage');
    if (!lit) { frame.scrollTop = 0; return; }
    const above = lit.getBoundingClientRect().top - frame.getBoundingClientRect().top;
    frame.scrollTop += above - Math.min(90, frame.clientHeight / 4);
  };
  settle(40);
}
"""
_HTML = """
<div class="view">
  <div class="zoom" role="group"><button type="button">−</button><output></output><button type="button">+</button></div>
  <div class="frame" tabindex="0" role="region"></div>
</div>
"""
_CSS = """
.view { position: relative; }
.frame { overflow: auto; max-height: min(62vh, 60rem); border-radius: 0.6rem; overscroll-behavior: contain;
  border: 1px solid var(--st-border-color); background: var(--st-secondary-background-color); scrollbar-width: thin; }
.frame:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 1px; }
.sheet { position: relative; background: #fff; min-width: 100%; }
.sheet img { display: block; width: 100%; height: auto; }
.sheet svg { position: absolute; inset: 0; width: 100%; height: 100%; mix-blend-mode: multiply; }
rect.passage { fill: #ffe9a8; }
rect.quote { fill: #ffbf5e; }
.zoom { position: absolute; right: 1rem; bottom: 0.8rem; z-index: 2; display: flex; align-items: center; gap: 0.1rem;
  padding: 0.1rem; border-radius: 0.6rem; background: var(--st-background-color); border: 1px solid var(--st-border-color);
  opacity: 0.92; font-size: 0.8rem; color: var(--st-text-color); font-variant-numeric: tabular-nums; }
.zoom[hidden] { display: none; }
.zoom button { width: 1.75rem; height: 1.75rem; border: 0; border-radius: 0.45rem; background: none; cursor: pointer;
  color: inherit; font: inherit; font-size: 1rem; }
.zoom button:hover:enabled { background: var(--st-secondary-background-color); }
.zoom button:focus-visible { outline: 2px solid var(--st-primary-color); }
.zoom button:disabled { opacity: 0.35; cursor: default; }
.zoom output { min-width: 2.9rem; text-align: center; }
.text { padding: 1rem 1.25rem; background: var(--st-background-color); color: var(--st-text-color);
  overflow-wrap: anywhere; line-height: 1.6; }
.text p { margin: 0 0 0.55rem; white-space: pre-wrap; }
.text :is(h2, h3, h4, h5, h6) { margin: 1rem 0 0.45rem; line-height: 1.3; font-weight: 650; }
.text h2 { font-size: 1.25rem; } .text h3 { font-size: 1.1rem; } .text :is(h4, h5, h6) { font-size: 1rem; }
mark { color: inherit; border-radius: 0.2rem; box-decoration-break: clone; -webkit-box-decoration-break: clone; }
mark.passage { background: color-mix(in srgb, #e8a317 17%, transparent); }
mark.quote { background: color-mix(in srgb, #e8871a 42%, transparent); }
"""
_PLACE = "shown-sheet"


def begin() -> None:
    """The next view opens at its passage, wherever another one was left."""
    st.session_state.pop(_PLACE, None)


def show(view: View, text: Callable[[], None]) -> None:
    """The page on which the passage begins, and the way to the others; `text` draws what was read of it.

    A document without pages to look at is shown as formatted text.
    """
    if not view.sheets:
        text()
        return
    place = min(st.session_state.get(_PLACE, view.first), len(view.sheets) - 1)
    with st.container(
        horizontal=True,
        horizontal_alignment="distribute",
        vertical_alignment="center",
        key="turning",
    ):
        as_text = view.drawn and _chosen() == "text"
        if not as_text and len(view.sheets) > 1:
            _turning(view, place)
    if as_text:
        text()
    elif view.drawn:
        _page(view, place, text)
    else:
        _text(view, place)


def _chosen() -> str | None:
    return st.segmented_control(
        _("Show"),
        ["page", "text"],
        default="page",
        format_func={"page": _("Page"), "text": _("Text")}.__getitem__,
        label_visibility="collapsed",
        key=f"look-{language()}",  # drawn anew when its words change
    )


def _page(view: View, place: int, text: Callable[[], None]) -> None:
    try:
        picture = services().page_view.picture(view, place)
    except ChatbotError as error:
        st.error(literal(error.text(language())), icon=":material/error:")
        text()
        return
    passage, quotes = services().page_view.rectangles(view, place)
    content = base64.b64encode(picture.content).decode()
    _mount(
        view,
        place,
        picture=f"data:image/jpeg;base64,{content}",
        width=picture.width,
        height=picture.height,
        passage=passage,
        quote=quotes,
    )


def _text(view: View, place: int) -> None:
    blocks = services().page_view.blocks(view, place)
    _mount(view, place, blocks=[{"level": b.level, "pieces": b.pieces} for b in blocks])


def _mount(view: View, place: int, **data: Any) -> None:
    data["key"] = f"{view.document.id}-{place}"
    data["name"] = f"{view.document.name}, {_name(view, place)}"
    data["words"] = {"smaller": _("Smaller"), "larger": _("Larger")}
    mount = st.components.v2.component("hearth_page", html=_HTML, css=_CSS, js=_JS)
    mount(data=data, key="page-view", height="content")


def _turning(view: View, place: int) -> None:
    """Back and forth, where one is, and back to the passage."""
    with st.container(
        horizontal=True,
        vertical_alignment="center",
        gap="small",
        width="content",
        wrap=False,
        key="actions-turning",
    ):
        if view.lit and place not in view.lit:
            _turn("back", _("To the passage"), view.first)
        _turn("previous", _("Previous page"), place - 1, "chevron_left", enabled=place > 0)
        st.markdown(_name(view, place), width="content")
        more = place + 1 < len(view.sheets)
        _turn("next", _("Next page"), place + 1, "chevron_right", enabled=more)


def _turn(key: str, words: str, place: int, icon: str = "", *, enabled: bool = True) -> None:
    st.button(
        words,
        key=f"turn-{key}",
        icon=f":material/{icon}:" if icon else None,
        help=words if icon else None,
        type="tertiary",
        disabled=not enabled,
        on_click=st.session_state.update,
        args=({_PLACE: place},),
    )


def _name(view: View, place: int) -> str:
    number, last = view.sheets[place].number, view.sheets[-1].number
    if number and last:
        return _("Page {page} of {pages}").format(page=number, pages=last)
    return _("Part {part} of {parts}").format(part=place + 1, parts=len(view.sheets))
