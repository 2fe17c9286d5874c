"""One piece of long work: what it does, how far it is, how long it will take, a way to end it."""

from __future__ import annotations

import time

import streamlit as st

from chatbot.jobs import error_of
from chatbot.markup import literal
from chatbot.services import services
from chatbot.types import Job
from widgets.words import _, decimal, language, seconds

_TRUST_AFTER_SECONDS = 3.0
_TRUST_AFTER_PROGRESS = 0.02


def show(job: Job) -> None:
    """Draw a waiting or running job; call it from a fragment that is drawn again every second."""
    with st.container(border=True, gap="small", key=f"job-{job.id}"):
        with st.container(horizontal=True, vertical_alignment="center", wrap=False):
            title = f"**{literal(_(job.title))}**"
            st.markdown(f":material/progress_activity: {title}", width="stretch")
            if st.button(
                _("Cancel"), key=f"cancel-{job.id}", type="tertiary", icon=":material/close:"
            ):
                services().jobs.cancel(job.id)
                st.toast(_("Ending it; what is finished stays."), icon=":material/close:")
        st.progress(min(max(job.progress or 0.0, 0.0), 1.0))
        st.caption(" · ".join(_state(job)))


def failure(job: Job) -> str:
    """Why the job failed, in the person's language; empty when it did not."""
    error = error_of(job)
    return error.text(language()) if error else ""


def _state(job: Job) -> list[str]:
    if job.state == "waiting":
        return [_("Waits until the work before it is done")]
    if job.progress is None:
        return [_("Starting")]
    parts = [f"{decimal(job.progress * 100, 0)} %"]
    left = _seconds_left(job)
    if left is not None:
        parts.append(_("about {time} left").format(time=seconds(left)))
    if job.message:
        parts.append(literal(_(job.message)))
    return parts


def _seconds_left(job: Job) -> float | None:
    """From how fast it went since this tab first saw it; None while that tells too little."""
    now, progress = time.monotonic(), job.progress or 0.0
    began, first = st.session_state.setdefault(f"pace-{job.id}", (now, progress))
    passed, done = now - began, progress - first
    if passed < _TRUST_AFTER_SECONDS or done < _TRUST_AFTER_PROGRESS:
        return None
    return passed / done * (1.0 - progress)
