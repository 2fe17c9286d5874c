"""A button that copies a text to the clipboard."""

from __future__ import annotations

import streamlit as st

from widgets.words import _

_JS = """
export default function ({ parentElement, data }) {
  const button = parentElement.querySelector('button');
  const words = parentElement.querySelector('span');
  words.textContent = data.visible ? data.label : '';
  button.title = data.label;
  button.setAttribute('aria-label', data.label);
  button.onclick = async () => {
    await navigator.clipboard.writeText(data.text);
    button.classList.add('copied');
    if (data.visible) words.textContent = data.done;
    button.setAttribute('aria-label', data.done);
    setTimeout(() => {
      button.classList.remove('copied');
      if (data.visible) words.textContent = data.label;
      button.setAttribute('aria-label', data.label);
    }, 1500);
  };
}
"""
_HTML = """
<button type="button">
  <svg class="copy" viewBox="0 0 24 24" aria-hidden="true"><path d="M16 1H4a2 2 0 0 0-2 2v14h2V3h12V1zm3 4H8a2 2 0
   0 0-2 2v14a2 2 0 0 0 2 2h11a2 2 0 0 0 2-2V7a2 2 0 0 0-2-2zm0 16H8V7h11v14z"/></svg>
  <svg class="done" viewBox="0 0 24 24" aria-hidden="true"><path d="M9 16.2 4.8 12l-1.4 1.4L9 19 21 7l-1.4-1.4z"/></svg>
  <span></span>
</button>
"""
_CSS = """
button { background: none; border: 0; cursor: pointer; padding: 0.25rem 0.3rem; min-height: 1.75rem; opacity: 0.7;
  display: flex; align-items: center; gap: 0.4rem; font: inherit; font-size: 0.875rem; color: var(--st-text-color); }
button:hover { opacity: 1; }
button:focus-visible { outline: 2px solid var(--st-primary-color); border-radius: 0.4rem; opacity: 1; }
svg { width: 1.05rem; height: 1.05rem; fill: var(--st-text-color); display: block; }
span:empty, .done, .copied .copy { display: none; }
.copied .done { display: block; fill: var(--st-primary-color); }
"""


def copy_button(text: str, key: str, label: str = "") -> None:
    """A small button that copies `text`; an icon alone unless it has a label."""
    mount = st.components.v2.component("hearth_copy", html=_HTML, css=_CSS, js=_JS)
    mount(
        data={
            "text": text,
            "label": label or _("Copy"),
            "visible": bool(label),
            "done": _("Copied"),
        },
        key=key,
        width="content",
        height="content",
    )
