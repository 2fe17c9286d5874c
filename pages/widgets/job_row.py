"""One piece of long work: what it does, its steps, how long it will take, ways to pause and end it."""

from __future__ import annotations

import json
import time

import streamlit as st

from chatbot.i18n import N_, filled
from chatbot.jobs import error_of
from chatbot.markup import literal
from chatbot.models.chain import DOCUMENTS_LEFT
from chatbot.services import services
from chatbot.types import Job, JobStep
from chatbot.workshop.orders import left_documents
from widgets.words import _, decimal, language, moment, seconds

_TRUST_AFTER_SECONDS = 3.0
_TRUST_AFTER_PROGRESS = 0.02
STEPS = {
    "download": N_("Download"),
    "import": N_("Read the files"),
    "unpack": N_("Unpack"),
    "merge": N_("Merge the adapter"),
    "prepare": N_("Save in 16 bits"),
    "convert": N_("Convert to GGUF"),
    "quantise": N_("Quantise"),
    "measure_importance": N_("Learn from your documents what matters"),
    "verify": N_("Check"),
    "package": N_("Pack"),
    "push": N_("Upload"),
    "bench": N_("Measure"),
}
_ICONS = {
    "waiting": ":gray[:material/radio_button_unchecked:]",
    "running": ":primary[:material/pending:]",
    "done": ":green[:material/check_circle:]",
    "failed": ":red[:material/error:]",
}
_STATES = {
    "waiting": ":material/schedule:",
    "running": ":material/progress_activity:",
    "paused": ":material/pause_circle:",
    "done": ":green[:material/check_circle:]",
    "failed": ":red[:material/error:]",
    "cancelled": ":gray[:material/cancel:]",
}


def show(job: Job) -> None:
    """Draw a job; call it from a fragment that is drawn again every second while the job goes on."""
    active = job.state in ("waiting", "running")
    with st.container(border=True, gap="small", key=f"job-{job.id}"):
        with st.container(horizontal=True, vertical_alignment="center", wrap=False):
            st.markdown(f"{_STATES[job.state]} **{literal(title(job))}**", width="stretch")
            _buttons(job)
        if active or job.state == "paused":
            st.progress(min(max(job.progress or 0.0, 0.0), 1.0))
        if said := _state(job):
            st.caption(" · ".join(said))
        if job.steps:
            _steps(job)
        if error := failure(job):
            st.error(literal(error), icon=":material/error:")
        if left_documents(job):
            st.info(_(DOCUMENTS_LEFT), icon=":material/folder_zip:")


def title(job: Job) -> str:
    """What the job is called, in the person's language."""
    return filled(job.title, job.params.get("values", {}), language())


def failure(job: Job) -> str:
    """Why the job failed, in the person's language; empty when it did not."""
    error = error_of(job)
    return error.text(language()) if error else ""


def log(job: Job) -> str:
    """The tail of the job's log, a line for each thing it began."""
    lines = []
    for line in job.log.splitlines():
        at, step, message, values = json.loads(line)
        clock = time.strftime("%H:%M:%S", time.localtime(at))
        lines.append(f"{clock}  {_(STEPS.get(step, step))}: {filled(message, values, language())}")
    return "\n".join(lines)


def _buttons(job: Job) -> None:
    if job.state in ("waiting", "running", "paused"):
        if job.steps and job.state != "paused":
            _button(job, "pause", _("Pause"), "pause")
        if job.state == "paused":
            _button(job, "again", _("Go on"), "play_arrow")
        if _button(job, "cancel", _("Cancel"), "close"):
            st.toast(_("Ending it; what is finished stays."), icon=":material/close:")
        return
    if job.steps and job.state in ("failed", "cancelled"):
        _button(job, "again", _("Try again"), "refresh")
    if job.steps:
        _button(job, "remove", _("Take off the list"), "done_all")


def _button(job: Job, action: str, label: str, icon: str) -> bool:
    if not st.button(label, key=f"{action}-{job.id}", type="tertiary", icon=f":material/{icon}:"):
        return False
    getattr(services().jobs, action)(job.id)
    if action != "cancel":
        st.rerun()
    return True


def _state(job: Job) -> list[str]:
    if job.state == "waiting":
        return [_("Waits until the work before it is done")]
    if job.state == "paused":
        return [_("Paused; what is finished stays, and it goes on from there")]
    if job.state == "cancelled":
        return [_("Cancelled")]
    if job.state in ("done", "failed"):
        took = sum(step.seconds for step in job.steps)
        return [moment(job.updated_at), *([seconds(took)] if took >= 1 else [])]
    if job.progress is None:
        return [_("Starting")]
    parts = [f"{decimal(job.progress * 100, 0)} %"]
    left = _seconds_left(job)
    if left is not None:
        parts.append(_("about {time} left").format(time=seconds(left)))
    if job.message:
        parts.append(literal(_(job.message)))
    return parts


def _steps(job: Job) -> None:
    lines = "  \n".join(_step(step) for step in job.steps)
    if job.state != "done":
        st.markdown(lines)
        if job.log:
            with st.expander(_("Log"), icon=":material/notes:"):
                st.code(log(job), language=None, wrap_lines=True)
        return
    with st.expander(_("Steps and log"), icon=":material/checklist:"):
        st.markdown(lines)
        if job.log:
            st.code(log(job), language=None, wrap_lines=True)


def _step(step: JobStep) -> str:
    words = f"{_ICONS[step.state]} {_(STEPS.get(step.name, step.name))}"
    if step.state == "running":
        words = f"{_ICONS[step.state]} **{_(STEPS.get(step.name, step.name))}** · {decimal(step.progress * 100, 0)} %"
        if step.message:
            words += f" · {literal(filled(step.message, step.values, language()))}"
    elif step.state == "done" and step.seconds >= 1:
        words += f" · {seconds(step.seconds)}"
    return words


def _seconds_left(job: Job) -> float | None:
    """From how fast it went since this tab first saw it; None while that tells too little."""
    now, progress = time.monotonic(), job.progress or 0.0
    began, first = st.session_state.setdefault(f"pace-{job.id}", (now, progress))
    if progress < first:  # begun again
        st.session_state[f"pace-{job.id}"] = began, first = now, progress
    passed, done = now - began, progress - first
    if passed < _TRUST_AFTER_SECONDS or done < _TRUST_AFTER_PROGRESS:
        return None
    return passed / done * (1.0 - progress)
