"""The few touches of style that the theme cannot say; fixed text, never anything from outside."""

from __future__ import annotations

import streamlit as st

_FRAME = """
[data-testid="stMainBlockContainer"] { padding-top: 3.2rem; }
[data-testid="stLayoutWrapper"]:has(.st-key-follow):not(:has([data-testid="stChatMessage"])) { position: absolute; }
.st-key-frame, .st-key-follow { position: absolute; width: 0; height: 0; overflow: hidden; }
[data-testid="InputInstructions"] { display: none; }  /* English only, and over the person's own words */
@media (max-width: 640px) { [data-testid="stMainBlockContainer"] { padding-left: 1rem; padding-right: 1rem; } }
"""

# Icons speak to the eye; the words beside them stay for screen readers.
_ICON_BUTTONS = """
:is([class*="st-key-actions-"], [class*="st-key-menu-"], [class*="st-key-detach-"], .st-key-stop)
  button:has([data-testid="stIconMaterial"]) [data-testid="stMarkdownContainer"] {
  position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
:is([class*="st-key-actions-"], [class*="st-key-menu-"]) button > div > div[aria-hidden="true"] { display: none; }
"""

_SIDEBAR = """
[data-testid="stSidebarContent"] { display: flex; flex-direction: column; }
[data-testid="stSidebarUserContent"] { flex: 1 0 auto; display: flex; flex-direction: column; padding-bottom: 1rem; }
[data-testid="stSidebarUserContent"] > div,
[data-testid="stSidebarUserContent"] > div > [data-testid="stVerticalBlock"] {
  flex: 1 0 auto; display: flex; flex-direction: column; }
[data-testid="stSidebar"] [data-testid="stVerticalBlock"] { gap: 0.35rem; }
[data-testid="stLayoutWrapper"]:has(> .st-key-conversations) { flex: 1 1 0; min-height: 9rem; overflow-y: auto;
  scrollbar-width: thin; }
[data-testid="stLayoutWrapper"]:has(> .st-key-this-pc) { margin-top: auto; }
.st-key-this-pc { padding-top: 0.7rem; border-top: 1px solid color-mix(in srgb, currentColor 14%, transparent); }
.hearth-meters { display: grid; grid-template-columns: minmax(0, 1fr); gap: 0.45rem; font-size: 0.8rem; }
.hearth-meters > div > span { display: flex; justify-content: space-between; gap: 0.5rem; }
.hearth-meters b { font-weight: 500; opacity: 0.75; white-space: nowrap; font-variant-numeric: tabular-nums; }
.hearth-meters em { font-style: normal; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.hearth-meters i { display: block; height: 0.25rem; border-radius: 0.2rem; overflow: hidden; margin-top: 0.2rem;
  background: color-mix(in srgb, currentColor 12%, transparent); }
.hearth-meters i i { margin: 0; background: color-mix(in srgb, currentColor 50%, transparent);
  transition: width 0.6s ease; }
.hearth-meters .hearth-full i { background: #c4541f; }
[class*="st-key-conversation-"] { border-radius: 0.6rem; }
[class*="st-key-conversation-"] button p { text-align: left; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
[class*="st-key-conversation-"] [class*="st-key-open-"] button { justify-content: flex-start;
  padding: 0.15rem 0.5rem; min-height: 2rem; border-color: transparent; }
[class*="st-key-conversation-"] [class*="st-key-open-"] button > div { justify-content: flex-start; width: 100%; }
[class*="st-key-conversation-"]:has(button[kind="secondary"]) {
  background: color-mix(in srgb, currentColor 8%, transparent); }
[class*="st-key-conversation-"] button[kind="secondary"] { background: transparent; font-weight: 600; }
[class*="st-key-conversation-"] [class*="st-key-menu-"] button { padding: 0 0.4rem; min-height: 2rem; opacity: 0.6; }
[class*="st-key-conversation-"] [class*="st-key-menu-"] button:is(:hover, :focus-visible, [aria-expanded="true"]) {
  opacity: 1; }
"""

_CHAT = """
[data-testid="stChatMessage"] { background: transparent; padding: 0; gap: 0.75rem; }
[data-testid="stChatMessageAvatarCustom"] { background: transparent; border: 0; color: #c4541f; width: 1.75rem;
  height: 1.75rem; }
[data-testid="stChatMessageAvatarCustom"] span { color: inherit; }
@media (min-width: 1180px) { [class*="st-key-answer-"] [data-testid="stChatMessageAvatarCustom"] {
  margin-left: -2.5rem; } }
@media (max-width: 767px) { [data-testid="stChatMessageAvatarCustom"] { display: none; } }
[class*="st-key-question-"] { margin-top: 0.75rem; }
[class*="st-key-question-"] [data-testid="stChatMessageAvatarCustom"] { display: none; }
[class*="st-key-question-"] [data-testid="stChatMessageContent"] > [data-testid="stVerticalBlock"] { gap: 0.25rem; }
[data-testid="stLayoutWrapper"]:has(> [class*="st-key-bubble-"]) { max-width: 88%; }
[class*="st-key-bubble-"] { max-width: 36rem; max-height: 16rem; overflow-y: auto; padding: 0.6rem 1rem; overflow-wrap: anywhere;
  border-radius: 1.1rem 1.1rem 0.3rem 1.1rem; background: color-mix(in srgb, #c4541f 11%, transparent); }
.stMarkdownBadge { display: inline; }  /* so that a citation stays on the line of its last word */
[class*="st-key-actions-"] button { padding: 0.1rem 0.3rem; min-height: 1.75rem; opacity: 0.7; }
[class*="st-key-actions-"] button:is(:hover, :focus-visible, [aria-expanded="true"]) { opacity: 1; }
[class*="st-key-actions-"] button:disabled { opacity: 0.3; }
@media (hover: hover) {
  [class*="st-key-question-"] [class*="st-key-actions-"] { opacity: 0; transition: opacity 0.15s ease; }
  [class*="st-key-question-"]:is(:hover, :focus-within) [class*="st-key-actions-"],
  [class*="st-key-question-"] [class*="st-key-actions-"]:has([class*="st-key-previous-"]) { opacity: 1; }
}
[class*="st-key-thumbed-"] button { color: #c4541f; opacity: 1; }
[class*="st-key-phase-"] [data-testid="stIconMaterial"] { animation: hearth-turn 1.2s linear infinite; }
@keyframes hearth-turn { to { transform: rotate(360deg); } }
@media (prefers-reduced-motion: reduce) { [class*="st-key-phase-"] [data-testid="stIconMaterial"] { animation: none; } }
"""

_SOURCES = """
[class*="st-key-sources-"] { display: grid; gap: 0.6rem; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
[class*="st-key-source-"] { position: relative; height: 100%; padding: 0.6rem 0.8rem;
  transition: border-color 0.15s ease, background 0.15s ease; }
[class*="st-key-source-"]:is(:hover, :focus-within) { border-color: #c4541f;
  background: color-mix(in srgb, #c4541f 5%, transparent); }
[class*="st-key-source-"] button { justify-content: flex-start; padding: 0; min-height: 1.5rem; width: 100%;
  position: static; }
[class*="st-key-source-"] button::after { content: ""; position: absolute; inset: 0; border-radius: inherit; }
[class*="st-key-source-"] button > div { justify-content: flex-start; overflow: hidden; }
[class*="st-key-source-"] button p { text-align: left; font-weight: 600; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; }
[class*="st-key-source-"] [data-testid="stCaptionContainer"] p { font-size: 0.8rem; line-height: 1.35; }
.st-key-passage { border-left: 3px solid #c4541f; border-radius: 0.3rem; padding: 0.7rem 1rem;
  background: color-mix(in srgb, #c4541f 8%, transparent); }
[class*="st-key-neighbour-"] { padding: 0 1rem; opacity: 0.68; font-size: 0.92em; }
[class*="st-key-neighbour-"] p { font-size: 0.92rem; }
"""

_COMPOSER = """
[data-testid="stBottomBlockContainer"] { padding-bottom: 0.9rem; padding-top: 0.5rem; }
[data-testid="stBottomBlockContainer"] > [data-testid="stVerticalBlock"] { gap: 0.5rem; }
.st-key-composer { position: relative; }
.st-key-composer .st-key-stop { position: absolute; right: 0.95rem; bottom: 0.8rem; width: auto; z-index: 2; }
.st-key-composer .st-key-stop button { width: 2rem; height: 2rem; min-height: 2rem; padding: 0; }
[class*="st-key-scope-row-"] { row-gap: 0.25rem; }
[class*="st-key-scope-row-"] button, [class*="st-key-scope-row-"] [data-testid="stSelectbox"] * {
  font-size: 0.875rem; }
[class*="st-key-scope-row-"] [data-testid="stSelectbox"] [role="group"] { min-height: 2rem; height: 2rem;
  background: transparent; }
[class*="st-key-scope-row-"] [data-testid="stPopoverButton"] { min-height: 2rem; padding: 0.1rem 0.6rem;
  background: transparent; }
[class*="st-key-scope-row-"] [data-testid="stPopoverButton"] p { overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; max-width: 11rem; }
@media (max-width: 640px) {
  [class*="st-key-scope-row-"] { column-gap: 0.3rem; }
  [class*="st-key-scope-row-"] [class*="st-key-scope-mode-"] { width: 9.3rem; min-width: 0;
    flex: 0 1 auto; }
  [class*="st-key-scope-row-"] [data-testid="stPopoverButton"] { padding: 0.1rem 0.4rem; }
  [class*="st-key-scope-row-"] [data-testid="stPopoverButton"] p { max-width: 6.2rem; }
  [class*="st-key-scope-row-"] [data-testid="stPopoverButton"] span[data-has-shortcut] > span:first-child {
    display: none; }
}
"""


def apply() -> None:
    """Add Hearth's styles to the page."""
    st.html(f"<style>{_FRAME}{_ICON_BUTTONS}{_SIDEBAR}{_CHAT}{_SOURCES}{_COMPOSER}</style>")
