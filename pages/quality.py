"""The quality page: how good the search is on these documents, measured with questions whose answer is known."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from chatbot.errors import ChatbotError
from chatbot.evaluation.runs import OWN, Configuration, Run
from chatbot.i18n import N_
from chatbot.markup import literal
from chatbot.services import services
from widgets import job_row, quality_failures, quality_figures, quality_questions
from widgets.words import _, language, plural

_VIEWS = {"result": N_("Result"), "questions": N_("Questions")}
_EARLIER_SHOWN = 20


def main() -> None:
    """Draw the page."""
    st.title(_("Search quality"))
    st.markdown(
        _(
            "How often does the search find the right passage in *your* documents? Ask it questions whose"
            " answer you know, and count."
        )
    )
    view = st.segmented_control(
        _("View"),
        list(_VIEWS),
        format_func=lambda name: _(_VIEWS[name]),
        default="result",
        required=True,
        key=f"quality-view-{language()}",
        label_visibility="collapsed",
    )
    if view == "questions":
        quality_questions.show()
    else:
        _result()


def _result() -> None:
    finished = services().quality.runs.finished()
    questions = len(services().quality.questions.all())
    if not questions and not finished:
        _teach()
    running = bool(services().jobs.list(active=True, kind="evaluate"))
    st.fragment(_work, run_every=1.0 if running else None)(running)
    _start(questions, busy=running, open_=not finished)
    if finished:
        _show(finished)
        _earlier(finished)


def _teach() -> None:
    """What a question set is, and how to have one in two minutes."""
    with st.container(border=True, key="no-questions"):
        st.markdown(f"### :material/query_stats: {_('Two minutes to your first figure')}")
        st.markdown(
            "\n".join(
                f"{number}. {words}"
                for number, words in enumerate(
                    (
                        _(
                            "Write a question as you would really ask it: short, with typos, without accents."
                        ),
                        _(
                            "Tick the passage that answers it. Ten questions are a start, thirty say something."
                        ),
                        _(
                            "Press “Measure”: Hearth asks them all and shows where the right passage ranked."
                        ),
                    ),
                    1,
                )
            )
        )
        suggested = len(services().suggested_questions())
        if suggested:
            st.markdown(
                ":material/thumb_up: "
                + plural(
                    "{count} question from your conversations waits for your review.",
                    "{count} questions from your conversations wait for your review.",
                    suggested,
                )
            )
        with st.container(horizontal=True):
            st.button(
                _("Write the first question"),
                type="primary",
                icon=":material/edit:",
                on_click=_to_questions,
                key="write-first",
            )
            quality_questions.samples_button()


def _to_questions() -> None:
    st.session_state[f"quality-view-{language()}"] = "questions"


def _work(was_running: bool) -> None:
    """The measurement under way; the page is drawn anew when it ends."""
    jobs = services().jobs.list(kind="evaluate")
    active = [job for job in jobs if job.state in ("waiting", "running")]
    if was_running and not active:
        st.session_state.pop("quality-run", None)
        st.session_state.pop("quality-other", None)
        st.rerun()
    for job in active:
        job_row.show(job)
    if jobs and not active and (failure := job_row.failure(jobs[0])):
        st.error(literal(failure), icon=":material/error:")


# --- starting -------------------------------------------------------------------------------


def _start(questions: int, *, busy: bool, open_: bool) -> None:
    with st.expander(_("New measurement"), icon=":material/play_circle:", expanded=open_):
        own = plural("My {count} question", "My {count} questions", questions)
        folder = _("A folder of test questions")
        asked = st.segmented_control(
            _("What is asked"),
            ["own", "folder"],
            format_func=lambda name: own if name == "own" else folder,
            default="own",
            required=True,
            key=f"quality-set-{language()}",
        )
        path = ""
        if asked == "folder":
            path = st.text_input(
                _("Folder"),
                placeholder=str(Path.home() / "BEIR" / "nfcorpus"),
                key="quality-folder",
                help=_(
                    "In the BEIR layout: corpus.jsonl, queries.jsonl and qrels/test.tsv. Its texts get an"
                    " index of their own; your documents stay out of it."
                ),
            )
        with st.container(horizontal=True, vertical_alignment="bottom"):
            ways = [
                w for w in quality_figures.WAYS if w != "reranked" or services().settings.reranker
            ]
            way = _way_picker(_("Way of searching"), ways, "quality-way")
            others = ["", *(w for w in ways if w != way)]
            other = _way_picker(_("Compare with"), others, "quality-compare")
            pressed = st.button(
                _("Measure"),
                type="primary",
                icon=":material/play_arrow:",
                key="measure",
                disabled=busy or (asked == "own" and not questions),
            )
        if pressed:
            chosen = [quality_figures.WAYS[each][0] for each in (way, other) if each]
            named = Path(path.strip().strip("\"'")).expanduser()  # Windows copies paths in quotes
            _begin(chosen, named if asked == "folder" else None)


def _way_picker(label: str, ways: list[str], key: str) -> str:
    return st.selectbox(
        label,
        ways,
        format_func=lambda way: _(quality_figures.WAYS[way][1]) if way else _("Nothing"),
        key=f"{key}-{language()}",
        help=_(
            "Words: what the question says. Meaning: what it is about, as the embedder understands it."
            " Answers in the chat use both."
        ),
    )


def _begin(configurations: list[Configuration], folder: Path | None) -> None:
    try:
        services().evaluate(configurations, folder)
    except ChatbotError as error:
        st.error(literal(error.text(language())), icon=":material/error:")
        return
    st.rerun()


# --- the result -----------------------------------------------------------------------------


def _show(finished: list[Run]) -> None:
    """The run looked at, beside another one of the same questions where one is chosen."""
    by_id = {run.id: run for run in finished}
    run = by_id.get(st.session_state.get("quality-run", ""), finished[0])
    same = [r for r in finished if r.dataset == run.dataset and r.id != run.id]
    partner = _partner(run, same)
    in_use = quality_figures.WAYS["hybrid"][0]
    if partner and "quality-run" not in st.session_state and partner.configuration == in_use:
        run, partner = partner, run  # what is in use comes first
        same = [r for r in finished if r.dataset == run.dataset and r.id != run.id]
    st.subheader(quality_figures.set_name(run), anchor=False)
    other = None
    if same:
        ids = ["", *(r.id for r in same)]
        wanted = st.session_state.get("quality-other", partner.id if partner else "")
        chosen = st.selectbox(
            _("Compare with"),
            ids,
            index=ids.index(wanted) if wanted in ids else 0,
            format_func=lambda each: (
                quality_figures.run_name(by_id[each]) if each else _("Nothing")
            ),
            key=f"quality-other-{run.id}-{language()}",
        )
        st.session_state["quality-other"] = chosen
        other = by_id.get(chosen)
    comparison = services().quality.runs.compare(run.id, other.id) if other else None
    quality_figures.show(run, other, comparison)
    outcomes = services().quality.runs.outcomes(run.id)
    quality_failures.show(run, other, outcomes, comparison)


def _partner(run: Run, same: list[Run]) -> Run | None:
    """The run that was asked in turn with this one."""
    jobs = (job.params.get("runs", ()) for job in services().jobs.list(kind="evaluate"))
    together = next((ids for ids in jobs if run.id in ids), ())
    return next((other for other in same if other.id in together), None)


def _earlier(finished: list[Run]) -> None:
    with st.expander(_("Earlier measurements"), icon=":material/history:"):
        for run in finished[:_EARLIER_SHOWN]:
            with st.container(horizontal=True, vertical_alignment="center", key=f"run-{run.id}"):
                with st.container(gap=None):
                    st.markdown(f"**{quality_figures.run_name(run)}**")
                    st.caption(quality_figures.in_short(run))
                if st.button(_("Show"), key=f"show-run-{run.id}", type="tertiary"):
                    st.session_state["quality-run"] = run.id
                    st.session_state["quality-other"] = ""
                    st.rerun()
                if st.button(
                    _("Delete"),
                    key=f"delete-run-{run.id}",
                    type="tertiary",
                    icon=":material/delete:",
                ):
                    services().quality.runs.remove(run.id)
                    st.rerun()
        embedders = {run.embedder for run in finished if run.dataset == OWN}
        if len(embedders) > 1:
            st.caption(_("Not all of them were measured with the same embedder."))


main()
