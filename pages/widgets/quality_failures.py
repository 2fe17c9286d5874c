"""Questions whose right passage did not come first, and a look at what came first instead."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from chatbot.evaluation.gold import Target
from chatbot.evaluation.questions import Finder
from chatbot.evaluation.runs import OWN, Comparison, Outcome, Place, Run
from chatbot.markup import literal
from chatbot.services import services
from chatbot.types import Passage
from widgets import source
from widgets.quality_figures import way
from widgets.quality_passages import where
from widgets.words import _, language, plural

_PER_PAGE = 8

Pair = tuple[Outcome, Outcome | None]


def show(
    run: Run, other: Run | None, outcomes: Sequence[Outcome], comparison: Comparison | None
) -> None:
    """The list, narrowed to what only one of the two lost where two are compared."""
    pairs: list[Pair] = list(comparison.pairs) if comparison else [(o, None) for o in outcomes]
    failed = [pair for pair in pairs if any(o and o.rank != 1 for o in pair)]
    if not failed:
        if pairs:
            st.success(
                _("Every right passage came first. Harder questions would tell you more."),
                icon=":material/check_circle:",
            )
        return
    st.subheader(_("Where it went wrong"), anchor=False)
    kind = "any"
    if other:
        names = {"first": run, "second": other}
        kind = st.segmented_control(
            _("Which ones"),
            ["any", *names],
            format_func=lambda name: (
                _("Lower with “{name}”").format(name=literal(way(names[name])))
                if name in names
                else _("All")
            ),
            default="any",
            required=True,
            key=f"failures-kind-{language()}",
            label_visibility="collapsed",
        )
    failed = [pair for pair in failed if _is(kind, pair)]
    failed.sort(key=lambda pair: -_worst(pair))
    st.caption(plural("{count} question", "{count} questions", len(failed)))
    pages = max(-(-len(failed) // _PER_PAGE), 1)
    page = min(st.session_state.get("failures-page", 1), pages)
    finder = Finder(services().store)
    for pair in failed[(page - 1) * _PER_PAGE : page * _PER_PAGE]:
        _card(run, other, pair, finder)
    if pages > 1:
        with st.container(horizontal_alignment="center"):
            st.pagination(pages, key="failures-page")


def _is(kind: str, pair: Pair) -> bool:
    first, second = pair
    if kind == "any" or second is None:
        return True
    lost = [outcome.rank or 1000 for outcome in (first, second)]
    return lost[0] > lost[1] if kind == "first" else lost[0] < lost[1]


def _worst(pair: Pair) -> int:
    return max(o.rank or 1000 for o in pair if o)


def _card(run: Run, other: Run | None, pair: Pair, finder: Finder) -> None:
    first, second = pair
    with st.container(border=True, gap=None, key=f"failure-{first.question_id}"):
        with st.container(horizontal=True, wrap=False, vertical_alignment="center"):
            text = literal(first.text) if first.text else f":gray[{_('deleted question')}]"
            st.markdown(f"**{text}**", width="stretch")
            if run.dataset == OWN and st.button(
                _("Look"),
                key=f"look-{first.question_id}",
                icon=":material/compare:",
                type="tertiary",
            ):
                _look(first, second, finder)
        places = [f"{_rank(first.rank)}"]
        if second and other:
            places = [f"{way(run)}: {_rank(first.rank)}", f"{way(other)}: {_rank(second.rank)}"]
        st.markdown(f":small[{_('Right passage')} · {' · '.join(places)}]")
        if first.rank != 1 and first.first:
            _came_first(first.question_id, first.first)


def _came_first(question_id: str, place: Place) -> None:
    """What stood first instead; a click opens its page where the document lies here."""
    said = _("Came first: {place}").format(place=_named(place))
    passage = _stored(place)
    if passage is None:
        st.caption(said)
    elif st.button(said, key=f"instead-{question_id}", type="tertiary", help=_("Open the passage")):
        source.show_stored(passage, services().store.get(passage.document_id).name)


def _rank(rank: int | None) -> str:
    if rank is None:
        return f":red[{_('not found')}]"
    words = _("place {rank}").format(rank=rank)
    return f":green[{words}]" if rank == 1 else f":orange[{words}]"


def _named(place: Place) -> str:
    """The passage by its document, page and path; by what was kept where it is not stored here."""
    if place.name:
        return literal(place.name)
    passage = _stored(place)
    if passage is None:
        return _("a passage that has changed since")
    return where(passage)


def _stored(place: Place) -> Passage | None:
    """The passage as long as it is the one that was found then."""
    found = services().store.contents.passages_by_id([place.passage_id]).get(place.passage_id)
    return found if found and found.start == place.start else None


# --- side by side ---------------------------------------------------------------------------


def _look(first: Outcome, second: Outcome | None, finder: Finder) -> None:
    """Open a dialog with the right passage beside what came first."""
    title = literal(first.text or _("deleted question"))
    st.dialog(title, width="large")(_side_by_side)(first, second, finder)


def _side_by_side(first: Outcome, second: Outcome | None, finder: Finder) -> None:
    question = next(
        (q for q in services().quality.questions.all() if q.id == first.question_id), None
    )
    targets: Sequence[Target] = finder.targets(question) if question else ()
    left, right = st.columns(2)
    with left:
        st.markdown(f":green[:material/check: **{_('Right')}**]")
        if not targets:
            st.info(_("Its document is no longer here."))
        for target in targets[:2]:
            if passage := finder.passage(target):
                _passage(passage)
    with right:
        st.markdown(f":orange[:material/arrow_upward: **{_('Came first')}**]")
        wrong = [o.first for o in (first, second) if o and o.rank != 1 and o.first]
        for place in dict.fromkeys(wrong):
            if passage := _stored(place):
                _passage(passage)
            else:
                st.info(_("This passage has changed since."))


def _passage(passage: Passage) -> None:
    st.caption(where(passage))
    with st.container(border=True, height=320, key=f"side-{passage.id}"):
        st.markdown(literal(passage.text.strip()))
    st.page_link(
        "documents.py",
        label=_("Open the document"),
        icon=":material/open_in_new:",
        query_params={"document": passage.document_id},
    )
