"""The models page: what there is to have, what is on this PC, and what is being made."""

from __future__ import annotations

import streamlit as st

from chatbot.services import services
from widgets import loaded_model, model_catalogue, model_jobs, model_list
from widgets.words import _, language

TABS = ("catalogue", "disk", "jobs")


def main() -> None:
    """Draw the page; only the tab that is open."""
    st.title(_("Models"))
    st.markdown(
        _(
            "A model writes answers from the passages Hearth finds. It runs on this PC, in a process of"
            " its own, and reads nothing but what an answer needs."
        )
    )
    _loaded()
    labels = dict(zip(TABS, (_("Catalogue"), _("On disk"), _("Jobs")), strict=True))
    key = f"models-tab-{language()}"
    if wanted := st.session_state.pop("models-goto", None):
        st.session_state[key] = labels[wanted]
    first = "disk" if services().models.list() else "catalogue"
    catalogue, disk, jobs = st.tabs(
        list(labels.values()), default=labels[first], key=key, on_change="rerun"
    )
    with catalogue:
        if catalogue.open:
            model_catalogue.show()
    with disk:
        if disk.open:
            model_list.show()
    with jobs:
        if jobs.open:
            model_jobs.show()
    model_jobs.watch()


@st.fragment(run_every=3.0)
def _loaded() -> None:
    with st.container(border=True):
        loaded_model.show("models")


main()
