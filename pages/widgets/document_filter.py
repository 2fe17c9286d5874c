"""What the list of documents is narrowed to, and its order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, get_args

import streamlit as st

from chatbot.i18n import N_
from chatbot.library.listing import KINDS, Listing, Order, Shown
from chatbot.services import services
from chatbot.types import Language
from widgets import validity
from widgets.answer_settings import collection_name
from widgets.file_kinds import FILE_KINDS
from widgets.words import _, language

Choice = TypeVar("Choice", bound=str)

_SHOWN: dict[Shown, str] = {
    "all": N_("Every state"),
    "ready": N_("Ready"),
    "unread": N_("Not read yet"),
    "noted": N_("With a remark"),
    "failed": N_("Not readable"),
}
_LANGUAGES: dict[Language, str] = {"vi": N_("In Vietnamese"), "en": N_("In English")}
_ORDERS: dict[Order, str] = {
    "newest": N_("Newest first"),
    "oldest": N_("Oldest first"),
    "name": N_("By name"),
    "largest": N_("Largest first"),
    "smallest": N_("Smallest first"),
}


def show() -> Listing:
    """Draw the filters and return what they say."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="filters"):
        words = st.text_input(
            _("Filter"),
            placeholder=_("Filter by name"),
            label_visibility="collapsed",
            icon=":material/search:",
            key="documents-filter",
            width="stretch",
        )
        collection = st.selectbox(
            _("Collection"),
            ["", *sorted(_with_documents(), key=collection_name)],
            format_func=lambda name: collection_name(name) if name else _("All collections"),
            label_visibility="collapsed",
            key=f"documents-collection-{language()}",
            width=190,
        )
        order = _chosen("order", _("Order"), {name: _ORDERS[name] for name in get_args(Order)}, 160)
        narrowed = sum(
            st.session_state.get(f"documents-{name}-{language()}") not in (None, "", "all")
            for name in ("state", "kind", "language", "official", "in-force")
        )
        label = _("Filters ({count})").format(count=narrowed) if narrowed else _("Filters")
        with st.popover(label, icon=":material/filter_list:", key="documents-filters"):
            shown = _chosen("state", _("State"), _SHOWN)
            kind = _chosen("kind", _("Type"), {"": N_("Every type"), **FILE_KINDS})
            spoken = _chosen("language", _("Language"), {"": N_("Every language"), **_LANGUAGES})
            official, in_force_on = "", ""
            if kinds := services().register.kinds():
                every = {"": N_("Every kind"), **{kind: kind for kind in kinds}}
                official = _chosen("official", _("Kind of official document"), every)
                in_force_on = validity.in_force_picker("", f"documents-in-force-{language()}")
    return Listing(
        words=words or "",
        collection=collection or None,
        shown=shown,
        kind=kind if kind in KINDS else None,
        language=spoken or None,
        order=order,
        official=official or None,
        in_force_on=in_force_on,
    )


def _chosen(name: str, label: str, words: Mapping[Choice, str], width: int | None = None) -> Choice:
    """One select box; drawn anew when its words change language."""
    return st.selectbox(
        label,
        list(words),
        format_func=lambda key: _(words[key]),
        label_visibility="collapsed" if width else "visible",
        key=f"documents-{name}-{language()}",
        width=width or "stretch",
    )


def _with_documents() -> list[str]:
    return [c.name for c in services().store.collections.all() if c.documents]
