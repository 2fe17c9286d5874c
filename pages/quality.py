"""The quality page: how good the search is on these documents."""

from __future__ import annotations

import streamlit as st

from widgets.words import _

st.title(_("Search quality"))
