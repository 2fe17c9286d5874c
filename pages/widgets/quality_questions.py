"""The question set: writing questions, reviewing what conversations suggest, files, the list."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from chatbot.errors import ChatbotError
from chatbot.evaluation.exchange import (
    SAMPLE_QUESTIONS,
    export_questions,
    import_questions,
    template,
)
from chatbot.evaluation.gold import Target
from chatbot.evaluation.questions import Finder, OwnQuestion, Suggestion
from chatbot.i18n import N_
from chatbot.markup import literal
from chatbot.services import services
from widgets.quality_passages import excerpt, where
from widgets.words import _, language, plural

_PER_PAGE = 15
_FOUND = 8
_ORIGINS = {
    "typed": N_("written here"),
    "imported": N_("imported"),
    "gathered": N_("from a conversation"),
}


def show() -> None:
    """Draw the whole view."""
    if note := st.session_state.pop("quality-note", None):
        st.toast(note, icon=":material/add_task:")
    _write()
    _review()
    _files()
    _list()


def samples_button() -> None:
    """Offer the ready-made questions while the sample documents are here and none of them is taken."""
    there = any(document.passages for document in services().store.list("samples"))
    if there and st.button(
        _("Try it with the sample documents"), icon=":material/science:", key="sample-questions"
    ):
        _import(SAMPLE_QUESTIONS.read_bytes())
        st.rerun()


# --- writing --------------------------------------------------------------------------------


def _write() -> None:
    """A question, the passages the search offers for it or for other words, and ticks for the right ones."""
    editing = st.session_state.get("quality-editing")
    generation = st.session_state.setdefault("quality-draft", 0)
    with st.container(border=True, key="write-question"):
        st.markdown(f"**{_('Change this question') if editing else _('Write a question')}**")
        text = st.text_input(
            _("Question"),
            key=f"quality-text-{generation}",
            placeholder=_("as you would really ask it"),
            label_visibility="collapsed",
        )
        if not text.strip():
            if editing:
                _cancel_button()
            return
        words = st.text_input(
            _("Find its passage with other words"),
            key=f"quality-words-{generation}",
            placeholder=_("words from the passage itself, when it is not below"),
            help=_(
                "So that questions which the search cannot answer yet get into the set as well."
            ),
        )
        ticked = _tick(words.strip() or text.strip(), generation)
        with st.container(horizontal=True):
            if st.button(
                _("Save"),
                type="primary",
                icon=":material/check:",
                key="save-question",
                disabled=not ticked,
            ):
                _save(text, ticked, editing)
            if editing:
                _cancel_button()
        if not ticked:
            st.caption(_("Tick every passage that answers the question by itself."))


def _tick(words: str, generation: int) -> list[Target]:
    """The passages that answer, ticked before ones first; what is ticked outlives another search."""
    chosen: dict[str, Target] = st.session_state.setdefault(f"quality-ticked-{generation}", {})
    finder = Finder(services().store)
    before = [p for t in chosen.values() if (p := finder.passage(t))] if chosen else []
    found = [r.passage for r in services().search.find(words, limit=_FOUND).results]
    shown = {p.id: p for p in [*before, *found]}
    if not shown:
        st.info(_("Nothing was found with these words."))
    for passage in shown.values():
        key = f"tick-{generation}-{passage.id}"
        ticked = st.checkbox(
            f"**{where(passage)}**  \n{literal(excerpt(passage.text))}",
            value=passage.id in chosen,
            key=key,
        )
        if ticked:
            target = Target(passage.document_id, passage.start, passage.end)
            chosen.setdefault(passage.id, target)
        else:
            chosen.pop(passage.id, None)
    return list(chosen.values())


def _save(text: str, targets: Sequence[Target], editing: str | None) -> None:
    questions = services().quality.questions
    try:
        if editing:
            questions.replace(editing, text, targets)
        elif questions.add(text, targets) is None:
            st.session_state["quality-note"] = _("This question is there already.")
    except ChatbotError as error:
        st.error(literal(error.text(language())), icon=":material/error:")
        return
    st.session_state.setdefault("quality-note", _("Kept"))
    _fresh()
    st.rerun()


def _cancel_button() -> None:
    if st.button(_("Cancel"), key="cancel-question"):
        _fresh()
        st.rerun()


def _fresh() -> None:
    """An empty writer."""
    st.session_state["quality-draft"] = st.session_state.get("quality-draft", 0) + 1
    st.session_state["quality-editing"] = None


def _edit(question: OwnQuestion, targets: Sequence[Target]) -> None:
    _fresh()
    generation = st.session_state["quality-draft"]
    finder = Finder(services().store)
    st.session_state["quality-editing"] = question.id
    st.session_state[f"quality-text-{generation}"] = question.text
    st.session_state[f"quality-ticked-{generation}"] = {
        passage.id: target for target in targets if (passage := finder.passage(target))
    }


# --- suggestions from conversations ---------------------------------------------------------


def _review() -> None:
    suggestions = services().suggested_questions()
    if not suggestions:
        return
    title = plural(
        "{count} suggestion from your conversations",
        "{count} suggestions from your conversations",
        len(suggestions),
    )
    with st.expander(title, icon=":material/thumb_up:"):
        st.caption(
            _(
                "Answers with a thumb up count their cited passages as right, opened citations those you"
                " opened. Check them before they become questions. Incognito conversations stay out."
            )
        )
        for suggestion in suggestions[:_PER_PAGE]:
            _suggestion(suggestion)


def _suggestion(suggestion: Suggestion) -> None:
    approved = suggestion.approved
    key = approved.message_id
    finder = Finder(services().store)
    with st.container(border=True, gap="small", key=f"suggestion-{key}"):
        text = st.text_input(
            _("Question"), approved.question, key=f"asked-{key}", label_visibility="collapsed"
        )
        if not approved.first:
            st.caption(
                f":orange[:material/info: {_('Asked in the middle of a conversation: complete it so that it can be understood alone.')}]"
            )
        right = [
            target
            for number, target in enumerate(suggestion.targets)
            if (passage := finder.passage(target))
            and st.checkbox(
                f"**{where(passage)}**  \n{literal(excerpt(passage.text))}",
                value=True,
                key=f"right-{key}-{number}",
            )
        ]
        with st.container(horizontal=True):
            if st.button(
                _("Add"), key=f"take-{key}", icon=":material/add:", disabled=not (right and text)
            ):
                if services().quality.questions.add(text, right, "gathered", key) is None:
                    services().quality.questions.dismiss(key)
                st.rerun()
            if st.button(_("Not this one"), key=f"dismiss-{key}", type="tertiary"):
                services().quality.questions.dismiss(key)
                st.rerun()


# --- files ----------------------------------------------------------------------------------


def _files() -> None:
    uploads = st.session_state.setdefault("question-uploads", 0)
    with st.expander(_("Import and export"), icon=":material/swap_vert:"):
        st.markdown(
            _(
                "A table (CSV) or JSONL with the columns question and document, and page, article or quote"
                " where you know them. The quotation wins over the article, the article over the page."
            )
        )
        file = st.file_uploader(
            _("Question file"),
            ["csv", "tsv", "jsonl", "txt"],
            key=f"questions-{uploads}",
            label_visibility="collapsed",
        )
        with st.container(horizontal=True):
            names = [d.name for d in services().store.list() if d.passages]
            st.download_button(
                _("Template"),
                template(names, language()),
                "questions-template.csv",
                "text/csv",
                icon=":material/description:",
                key="question-template",
            )
            if services().quality.questions.all():
                st.download_button(
                    _("Export my questions"),
                    lambda: export_questions(services().quality.questions, services().store),
                    "questions.csv",
                    "text/csv",
                    icon=":material/download:",
                    key="question-export",
                )
        _bad_rows()
    if file:
        st.session_state["question-uploads"] = uploads + 1
        _import(file.getvalue())
        st.rerun()


def _import(content: bytes) -> None:
    found = import_questions(services().quality.questions, services().store, content)
    words = [plural("{count} question added", "{count} questions added", found.added)]
    if found.known:
        words.append(plural("{count} was already here", "{count} were already here", found.known))
    st.session_state["quality-note"] = " · ".join(words)
    st.session_state["quality-bad"] = found.bad


def _bad_rows() -> None:
    bad = st.session_state.get("quality-bad", ())
    if not bad:
        return
    count = plural("{count} row could not be used:", "{count} rows could not be used:", len(bad))
    lines = [
        f"- {_('line {line}').format(line=row.line)}: {literal(row.text(language()))}"
        for row in bad[:20]
    ]
    lines += ["- …"] if len(bad) > len(lines) else []
    st.warning("\n".join([count, "", *lines]), icon=":material/rule:")


# --- the list -------------------------------------------------------------------------------


def _list() -> None:
    questions = services().quality.questions.all()
    if not questions:
        samples_button()
        return
    st.subheader(plural("{count} question", "{count} questions", len(questions)), anchor=False)
    pages = max(-(-len(questions) // _PER_PAGE), 1)
    page = min(st.session_state.get("questions-page", 1), pages)
    finder = Finder(services().store)
    for question in questions[(page - 1) * _PER_PAGE : page * _PER_PAGE]:
        _row(question, finder)
    if pages > 1:
        with st.container(horizontal_alignment="center"):
            st.pagination(pages, key="questions-page")


def _row(question: OwnQuestion, finder: Finder) -> None:
    targets = finder.targets(question)
    with st.container(border=True, gap=None, key=f"own-{question.id}"):
        with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
            st.markdown(f"**{literal(question.text)}**", width="stretch")
            action = st.menu_button(
                _("More"),
                ["edit", "delete"],
                key=f"menu-{question.id}",
                icon=":material/more_horiz:",
                type="tertiary",
                format_func=lambda name: _("Edit") if name == "edit" else _("Delete"),
                help=_("More"),
            )
        places = [_place(target, finder) for target in targets]
        if places:
            st.caption(" ; ".join(places) + f" · {_(_ORIGINS[question.origin])}")
        else:
            name = literal(question.golds[0].name) if question.golds else ""
            lost = _("Not asked: its passage is no longer in “{name}”.").format(name=name)
            st.markdown(f":small[:orange[:material/info: {lost}]]")
    if action == "edit":
        _edit(question, targets)
        st.rerun()
    elif action == "delete":
        services().quality.questions.remove(question.id)
        st.rerun()


def _place(target: Target, finder: Finder) -> str:
    if target.end is None:
        return literal(services().store.get(target.document_id).name)
    passage = finder.passage(target)
    return where(passage) if passage else ""
