"""What only the browser can do: scroll to the latest question, name Streamlit's own buttons in the
person's language.

Fixed scripts; what they are handed is data, never code or HTML.
"""

from __future__ import annotations

import streamlit as st

from widgets.words import _, language

_FRAME = """
const ATTRIBUTES = ['aria-label', 'title', 'placeholder'];
const PLACES = '[role=dialog], [role=listbox], [role=tooltip], #stSkipToContent, [data-testid=stSkipToContent],'
  + ' [data-testid=InputInstructions], [data-testid=stFileUploaderDropzone], [data-testid=stChatInput]';
const before = new WeakMap();    // what Streamlit wrote, so that another language can begin from it

export default function ({ data: [data] }) {
  document.documentElement.lang = data.language;
  const say = (key, now, write) => {
    const known = before.get(key.node) ?? {};
    const original = known[key.name]?.shown === now ? known[key.name].original : now;
    const shown = data.words[original.trim()] ?? original.replace(/^Help for (.*)$/s, data.about);
    if (shown !== now) {
      known[key.name] = { original, shown };
      before.set(key.node, known);
      write(shown);
    }
  };
  const visit = (node) => {
    if (node.nodeType === Node.TEXT_NODE) {
      const inside = node.parentElement;
      if (inside?.closest(PLACES) && !inside.closest('[data-testid=stVerticalBlock] [data-testid=stMarkdownContainer], textarea'))
        say({ node, name: 'text' }, node.nodeValue, (text) => { node.nodeValue = text; });
      return;
    }
    if (node.nodeType !== Node.ELEMENT_NODE) return;
    if (node.dataset.testid === 'stIconMaterial') { node.setAttribute('aria-hidden', 'true'); return; }
    for (const name of ATTRIBUTES)
      if (node.hasAttribute(name))
        say({ node, name }, node.getAttribute(name), (text) => node.setAttribute(name, text));
    node.childNodes.forEach(visit);
  };
  const observer = new MutationObserver((changes) => changes.forEach((change) => {
    if (change.type === 'childList') change.addedNodes.forEach(visit);
    else visit(change.target);
  }));
  visit(document.body);
  observer.observe(document.body, {
    subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ATTRIBUTES,
  });
  return () => observer.disconnect();
}
"""

_FOLLOW = """
const seen = new WeakMap();

export default function ({ data: [data], parentElement }) {
  const main = document.querySelector('[data-testid=stMain]');
  const before = seen.get(parentElement) ?? {};
  const hold = before.hold ?? { until: 0 };    // one for all drawings, so that every release ends every hold
  seen.set(parentElement, { ...data, hold });
  const question = () => document.querySelector(`.st-key-question-${data.question}`);
  const room = (node) => {
    const bottom = document.querySelector('[data-testid=stBottom]')?.offsetHeight ?? 0;
    const free = main.clientHeight - bottom - node.offsetHeight - 94;
    document.documentElement.style.setProperty('--hearth-room', `${Math.max(free, 0)}px`);
  };
  const settle = () => {           // what is drawn after the question moves it; hold it until all is there
    if (performance.now() >= hold.until) return;    // the person took over: nothing moves under their finger
    const node = question();
    if (node) {
      room(node);
      const top = node.getBoundingClientRect().top - main.getBoundingClientRect().top - 66;
      if (Math.abs(top) > 4) main.scrollBy({ top, behavior: 'instant' });
    }
    setTimeout(settle, 60);
  };
  const release = () => { hold.until = 0; };
  if (before.token !== data.token) { hold.until = performance.now() + 2000; settle(); }
  for (const kind of ['wheel', 'touchmove', 'keydown', 'pointerdown']) addEventListener(kind, release);
  const box = document.querySelector('[data-testid=stChatInputTextArea]');
  const refocus = () => {          // asked when it happens: by then the person may be on another button
    if (document.activeElement === document.body) box?.focus({ preventScroll: true });
  };
  if (before.busy && !data.busy && matchMedia('(hover: hover)').matches) setTimeout(refocus, 50);
  const resized = () => { const node = question(); if (node) room(node); };
  addEventListener('resize', resized);
  return () => {
    removeEventListener('resize', resized);
    for (const kind of ['wheel', 'touchmove', 'keydown', 'pointerdown']) removeEventListener(kind, release);
  };
}
"""


def frame() -> None:
    """Tell the browser the page's language, and Streamlit's own words in it."""
    mount = st.components.v2.component("hearth_frame", html="<i></i>", js=_FRAME)
    with st.container(key="frame"):
        mount(
            data=[  # a list: in a dict Streamlit looks for tables, with all of pandas, before the first page
                {
                    "language": language(),
                    "words": _streamlits_words(),
                    "about": _("About {what}").format(what="$1"),
                }
            ],
            key="hearth-frame",
        )


def follow(question: str, token: int, *, busy: bool) -> None:
    """Bring the last question to the top whenever `token` changes; give the input its focus back."""
    mount = st.components.v2.component("hearth_follow", html="<i></i>", js=_FOLLOW)
    with st.container(key="follow"):
        mount(data=[{"question": question, "token": token, "busy": busy}], key="hearth-follow")


def _streamlits_words() -> dict[str, str]:
    """What Streamlit says by itself, in English whatever the page speaks."""
    return {
        "Skip to main content": _("Skip to the content"),
        "Sidebar": _("Sidebar"),
        "App pages": _("Pages"),
        "Collapse sidebar": _("Hide the sidebar"),
        "Expand sidebar": _("Show the sidebar"),
        "Chat message from user": _("Question"),
        "Chat message from assistant": _("Answer"),
        "Send message": _("Send"),
        "Upload files": _("Attach files"),
        "file upload": _("Attach files"),
        "Drag and drop files here": _("Drop the files here"),
        "Open": _("Open"),
        "Close": _("Close"),
        "Clear value": _("Clear"),
        "Clear all": _("Clear"),
        "No results": _("Nothing found"),
        "Selectbox options": _("Choices"),
        "Copy to clipboard": _("Copy"),
        "Show password": _("Show"),
        "Hide password": _("Hide"),
        "Link to heading": _("Link to this heading"),
        "Navigate to home page": _("To the chat"),
        "Choose an option": _("Choose"),
        "Choose or add an option": _("Choose one or type a new name"),
        "Decrement": _("Less"),
        "Increment": _("More of it"),
        "Connection error": _("Hearth is not answering"),
        "Streamlit server is not responding. Are you connected to the internet?": _(
            "Hearth has been closed or is just starting. Start it again; this page then comes back by"
            " itself, with everything in it."
        ),
        "Is Streamlit still running? If you accidentally stopped Streamlit, just restart it in your"
        " terminal:": _(
            "Hearth has been closed or is just starting. Start it again; this page then comes back by"
            " itself, with everything in it."
        ),
        "streamlit run yourscript.py": "python start.py",
    }
