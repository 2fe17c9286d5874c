"""The jobs that fetch, make and check models: their steps as they go, and how they ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from chatbot.errors import ChatbotError
from chatbot.markup import literal
from chatbot.services import services
from widgets import job_row
from widgets.words import _, language, plural, size

if TYPE_CHECKING:
    from chatbot.models.fetching import Unfinished

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
    unfinished = _unfinished() if not active else []
    if not jobs and not unfinished:
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
    for begun in unfinished:
        _download(begun)
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


def _unfinished() -> list[Unfinished]:
    """Downloads whose job was cancelled or failed: what has arrived is still here."""
    from chatbot.models.fetching import unfinished

    return unfinished(services().models)


def _download(begun: Unfinished) -> None:
    key = begun.folder.name
    with st.container(
        border=True, horizontal=True, vertical_alignment="center", key=f"begun-{key}"
    ):
        with st.container(gap=None, width="stretch"):
            st.markdown(f":material/downloading: **{literal(begun.repo)}**")
            st.caption(
                _("{done} of {total} have arrived").format(
                    done=size(begun.done), total=size(begun.total)
                )
            )
        if st.button(_("Go on"), key=f"fetch-{key}", icon=":material/play_arrow:"):
            services().workshop.download(
                begun.repo, revision=begun.revision, file=begun.file, role=begun.role
            )
            st.rerun()
        if st.button(_("Delete"), key=f"forget-{key}", type="tertiary", icon=":material/delete:"):
            try:
                services().workshop.forget(begun)
            except ChatbotError as error:  # fetched again meanwhile, from another window
                st.toast(literal(error.text(language())), icon=":material/error:")
            st.rerun()
