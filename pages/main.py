"""The frame around every page: navigation, conversations, this PC's load."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent):  # when the script is run without app.py, as AppTest does
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import streamlit as st  # noqa: E402

from chatbot.services import services  # noqa: E402
from widgets import browser, conversations, look, monitor  # noqa: E402
from widgets.words import _  # noqa: E402

st.set_page_config(
    page_title="Hearth",
    page_icon=str(HERE / "images" / "hearth.png"),
    layout="centered",
    initial_sidebar_state="auto",
)
look.apply()
st.logo(
    str(HERE / "images" / "wordmark.svg"),
    size="large",
    icon_image=str(HERE / "images" / "hearth.svg"),
)
page = st.navigation(
    [
        st.Page("chat.py", title=_("Chat"), icon=":material/forum:", default=True),
        st.Page(
            "documents.py",
            title=_("Documents"),
            icon=":material/folder_open:",
            url_path="documents",
        ),
        st.Page("models.py", title=_("Models"), icon=":material/deployed_code:", url_path="models"),
        st.Page(
            "quality.py", title=_("Quality"), icon=":material/query_stats:", url_path="quality"
        ),
        st.Page("hardware.py", title=_("This PC"), icon=":material/memory:", url_path="hardware"),
        st.Page(
            "settings.py", title=_("Settings"), icon=":material/settings:", url_path="settings"
        ),
    ]
)
st.set_page_config(page_title=f"{page.title} · Hearth")
with st.sidebar:
    conversations.show()
    monitor.show()
    browser.frame()
page.run()
services().page_shown()
