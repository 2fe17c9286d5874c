"""What an official document says of itself, in chips and lines, and the filters that go with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from textwrap import shorten

import streamlit as st

from chatbot.i18n import N_
from chatbot.library.listing import KINDS
from chatbot.library.register import Change, Standing
from chatbot.markup import literal
from chatbot.services import services
from chatbot.types import Document, RelationKind, SearchFilter
from widgets.file_kinds import FILE_KINDS
from widgets.words import _, iso_day, language

_CHANGED: dict[RelationKind, str] = {
    "amends": N_("Amended by {document} (in your library)"),
    "replaces": N_("Replaced by {document} (in your library)"),
    "repeals": N_("Repealed by {document} (in your library)"),
    "consolidates": N_("Consolidated in {document} (in your library)"),
}
_CHANGES: dict[RelationKind, str] = {
    "amends": N_("Amends {document}"),
    "replaces": N_("Replaces {document}"),
    "repeals": N_("Repeals {document}"),
    "consolidates": N_("Consolidates {document}"),
}
_MOST_SHOWN = 12
_LONGEST_TITLE = 260


def line(standing: Standing | None) -> str:
    """'Thông tư 06/2024/TT-BLĐTBXH · in force from 15/09/2024'; '' when it says nothing of itself."""
    if standing is None:
        return ""
    parts = [f"{standing.kind} {standing.number}".strip()]
    if standing.effective:
        parts.append(_("in force from {date}").format(date=iso_day(standing.effective)))
    if standing.expires:
        parts.append(_("in force until {date}").format(date=iso_day(standing.expires)))
    return " · ".join(filter(None, parts))


def hints(standing: Standing | None) -> list[str]:
    """What in the library changes it, a sentence for each change."""
    changes = standing.changes if standing else ()
    return [_(_CHANGED[c.relation]).format(document=literal(_named(c))) for c in changes]


def show(document: Document) -> None:
    """The document's number, body and dates as chips, and how it is tied to others; nothing without any."""
    said = document.validity
    standing = services().register.standing([document.id]).get(document.id)
    if standing is None and not said.title:
        return
    with st.container(key="validity", gap="small"):
        with st.container(horizontal=True, gap="small"):
            _badges(document, standing)
        if said.title and said.number:
            st.markdown(literal(shorten(said.title.value, _LONGEST_TITLE, placeholder=" …")))
        _ties(document, standing)


def _badges(document: Document, standing: Standing | None) -> None:
    said = document.validity
    today = date.today().isoformat()  # noqa: DTZ011 - the person's own day
    if said.number:
        kind = said.kind.value if said.kind else ""
        st.badge(literal(f"{kind} {said.number.value}".strip()), icon=":material/gavel:")
    if said.body:
        st.badge(literal(said.body.value), icon=":material/account_balance:", color="gray")
    for fact, words in (
        (said.issued, N_("issued {date}")),
        (said.effective, N_("in force from {date}")),
        (said.expires, N_("in force until {date}")),
    ):
        if fact:
            st.badge(_(words).format(date=iso_day(fact.value)), color="gray")
    if standing and standing.has_ended(today):
        st.badge(_("no longer in force"), icon=":material/history:", color="orange")
    elif standing and standing.is_to_come(today):
        st.badge(_("not in force yet"), icon=":material/schedule:", color="orange")


def _ties(document: Document, standing: Standing | None) -> None:
    """Other documents, those of the library as links, the rest by number only."""
    for change in standing.changes if standing else ():
        _tie(change, _(_CHANGED[change.relation]), ":material/edit_note:")
    here = services().register.changed_by(document.id)
    for change in here:
        _tie(change, _(_CHANGES[change.relation]), ":material/arrow_outward:")
    known = {change.number for change in here}
    elsewhere: dict[RelationKind, list[str]] = {}
    for relation in document.validity.relations:
        if relation.number not in known:
            elsewhere.setdefault(relation.kind, []).append(relation.number)
    for kind, numbers in elsewhere.items():
        shown = ", ".join(numbers[:_MOST_SHOWN])
        if more := len(numbers[_MOST_SHOWN:]):
            shown += " " + _("and {count} more").format(count=more)
        st.caption(_(_CHANGES[kind]).format(document=literal(shown)))


def _tie(change: Change, words: str, icon: str) -> None:
    if st.button(
        words.format(document=literal(_named(change))),
        icon=icon,
        type="tertiary",
        key=f"tie-{change.relation}-{change.document_id}",
    ):
        st.query_params["document"] = change.document_id
        st.rerun()


def _named(change: Change) -> str:
    return f"{change.kind} {change.number}".strip() or change.document


# --- filters -----------------------------------------------------------------------------------


def narrowed(chosen: SearchFilter) -> int:
    """How many of these filters are set."""
    named = (
        chosen.media_types,
        chosen.kinds,
        chosen.issued_from,
        chosen.issued_to,
        chosen.in_force_on,
    )
    return sum(map(bool, named))


def filters(chosen: SearchFilter, key: str) -> SearchFilter:
    """Pickers for file types, kinds of official documents and dates; returns the filter with what was chosen."""
    kinds = _kinds(chosen.kinds, key)
    types = st.multiselect(
        _("File types"),
        list(KINDS),
        default=[k for k, patterns in KINDS.items() if set(patterns) <= set(chosen.media_types)],
        format_func=lambda kind: _(FILE_KINDS[kind]),
        key=f"types-{language()}-{key}",
        placeholder=_("Choose"),
    )
    left, right = st.columns(2)
    with left:
        first = _day(_("Issued from"), chosen.issued_from, f"issued-from-{key}")
    with right:
        last = _day(_("Issued until"), chosen.issued_to, f"issued-to-{key}")
    in_force_on = in_force_picker(chosen.in_force_on, f"in-force-{key}")
    return replace(
        chosen,
        kinds=tuple(kinds),
        media_types=tuple(pattern for kind in types for pattern in KINDS[kind]),
        issued_from=first,
        issued_to=last,
        in_force_on=in_force_on,
    )


def in_force_picker(chosen: str, key: str) -> str:
    """The day on which a document shall have been in force, as ISO; '' for any."""
    explained = _("Documents that do not say since when they are in force are left out.")
    return _day(_("In force on"), chosen, key, explained)


def _kinds(chosen: Sequence[str], key: str) -> list[str]:
    known = services().register.kinds()
    if not known:
        return []
    return st.multiselect(
        _("Kinds of official documents"),
        known,
        default=[kind for kind in chosen if kind in known],
        key=f"kinds-{key}",
        placeholder=_("Choose"),
    )


def _day(label: str, chosen: str, key: str, explained: str | None = None) -> str:
    """A day that may be left open, as ISO."""
    value = st.date_input(
        label,
        value=date.fromisoformat(chosen) if chosen else None,
        min_value=date(1945, 1, 1),
        max_value=date(2100, 12, 31),
        format="DD/MM/YYYY" if language() == "vi" else "YYYY-MM-DD",
        key=key,
        help=explained,
    )
    return value.isoformat() if isinstance(value, date) else ""
