"""The access token for models that their owners give only to people who accepted their terms."""

from __future__ import annotations

import streamlit as st

from chatbot.errors import ChatbotError
from chatbot.markup import literal
from widgets.words import _, language


def show() -> None:
    """Where the token comes from, a field for a new one, and a way to forget it."""
    from chatbot.models import tokens
    from chatbot.models.outside import Endpoint

    with st.expander(_("Access token"), icon=":material/key:"):
        endpoint = Endpoint.from_environment()
        st.markdown(
            _(
                "Some models must be asked for on their page first; then a token of your account lets Hearth"
                " fetch them. It stays in this PC's keyring and is sent to {host} only."
            ).format(host=literal(endpoint.host))
        )
        source = tokens.source(endpoint)
        if source == "environment":
            st.caption(_("The token in the environment variable HF_TOKEN is used."))
            return
        if source == "keyring":
            st.caption(f":green[:material/check_circle:] {_('A token is kept.')}")
            if st.button(_("Forget it"), key="forget-token", type="tertiary"):
                tokens.forget(endpoint)
                st.toast(_("The token is forgotten."), icon=":material/check:")
        with st.form("hub-token", border=False, clear_on_submit=True):
            given = st.text_input(_("Token"), type="password", placeholder="hf_…")
            if st.form_submit_button(_("Keep")) and given.strip():
                try:
                    tokens.remember(endpoint, given)
                except ChatbotError as error:
                    st.error(literal(error.text(language())), icon=":material/error:")
                else:
                    st.toast(_("The token is kept."), icon=":material/check:")
