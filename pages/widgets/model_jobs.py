"""The jobs that fetch, make and check models: their steps as they go, and how they ended."""

from __future__ import annotations

import streamlit as st

from chatbot.services import services
from widgets import job_row
from widgets.words import _, plural

_MOST_ENDED = 20


def show() -> None:
    """Draw every job, those under way first."""
    running = bool(services().workshop.jobs(active=True))
    st.fragment(_list, run_every=1.0 if running else None)(running)


def watch() -> None:
    """Say on the other tabs that something is under way, and when it has ended."""
    running = [job.id for job in services().workshop.jobs(active=True) if job.state != "paused"]
    st.fragment(_watch, run_every=2.0 if running else None)(running)


def _watch(running: list[str]) -> None:
    now = {job.id: job for job in services().workshop.jobs()}
    for job_id in running:
        job = now.get(job_id)
        if job is None or job.state in ("waiting", "running"):
            continue
        title = job_row.title(job)
        if job.state == "done":
            st.toast(_("Done: {title}").format(title=title), icon=":material/check:")
        elif job.state == "failed":
            st.toast(_("Failed: {title}").format(title=title), icon=":material/error:")
        st.rerun()


def _list(was_running: bool) -> None:
    jobs = services().workshop.jobs()
    active = [job for job in jobs if job.state in ("waiting", "running", "paused")]
    ended = [job for job in jobs if job not in active]
    if was_running and not active:
        st.rerun()
    if not jobs:
        with st.container(border=True, horizontal_alignment="center"):
            st.markdown(f"### :material/checklist: {_('Nothing to do')}")
            st.markdown(
                _(
                    "Downloads, conversions and checks appear here with every step, how long it still takes,"
                    " and what to do when something goes wrong."
                )
            )
        return
    for job in active:
        job_row.show(job)
    if not ended:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(plural("{count} ended", "{count} ended", len(ended)), width="stretch")
        if st.button(_("Clear all"), key="clear-jobs", type="tertiary", icon=":material/done_all:"):
            for job in ended:
                services().jobs.remove(job.id)
            st.rerun()
    for job in ended[:_MOST_ENDED]:
        job_row.show(job)
