"""The few touches of style that the theme cannot say; fixed text, never anything from outside."""

from __future__ import annotations

import streamlit as st

_STYLE = """
<style>
section.main .block-container, [data-testid="stMainBlockContainer"] { padding-top: 3.2rem; }
[data-testid="stSidebarUserContent"] { padding-bottom: 1rem; }
[data-testid="stSidebar"] [data-testid="stVerticalBlock"] { gap: 0.35rem; }
[class*="st-key-conversation-"] button p { text-align: left; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
[class*="st-key-conversation-"] button { justify-content: flex-start; padding: 0.15rem 0.5rem; min-height: 2rem; }
[class*="st-key-actions-"] button { padding: 0.1rem 0.3rem; min-height: 1.75rem; opacity: 0.75; }
[class*="st-key-actions-"] button:hover { opacity: 1; }
[class*="st-key-source-"] { transition: border-color 0.15s ease; }
[class*="st-key-source-"] button { justify-content: flex-start; padding: 0; min-height: 1.5rem; }
[class*="st-key-source-"] button p { text-align: left; font-weight: 600; }
[class*="st-key-meter"] [data-testid="stProgress"] > div > div > div > div { background: currentColor; opacity: 0.45; }
[data-testid="stChatMessage"]:has([data-testid="stChatMessageAvatarCustom"]) { background: transparent; }
[class*="st-key-question-"] { background: color-mix(in srgb, var(--st-primary-color, #b8471b) 7%, transparent);
  border-radius: 0.9rem; padding: 0.2rem 0.9rem; }
.st-key-passage mark { background: #f6d9a8; color: inherit; }
</style>
"""


def apply() -> None:
    """Add Hearth's styles to the page."""
    st.html(_STYLE)
