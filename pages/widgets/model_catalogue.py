"""Models worth having: which fits this PC now, and one button that gets it ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from chatbot.errors import ChatbotError
from chatbot.hardware.detect import installed
from chatbot.i18n import N_
from chatbot.markup import literal
from chatbot.memory.recommend import recommend_text
from chatbot.services import services
from chatbot.settings import offline
from widgets import fit_badge, hub_token, model_making
from widgets.model_card import short
from widgets.words import _, decimal, language, size

if TYPE_CHECKING:
    from chatbot.models.catalog import Entry, Offer, Way
    from chatbot.models.hub import Hit

_ROLES = {
    "chat": N_("Answers"),
    "embedder": N_("Search"),
    "reranker": N_("Reranking"),
}
_ROLES_EXPLAINED = {
    "chat": N_("They write answers. The star marks the best one for this PC as it is now."),
    "embedder": N_("They compare the meaning of questions and passages, not only their words."),
    "reranker": N_(
        "They read the first results again and put the best ones first; slower, more exact."
    ),
}
_LANGUAGES = {"vi": "Tiếng Việt", "en": "English", "multilingual": N_("many languages")}


@st.fragment
def show() -> None:
    """Draw the catalogue."""
    from chatbot.models.catalog import catalogue, offers

    hardware = services().hardware()
    st.caption(f":material/memory: {recommend_text(hardware, language())}")
    if offline():
        st.info(
            _(
                "Hearth is set to stay offline (HEARTH_OFFLINE): it shows what it knows and fetches nothing."
            ),
            icon=":material/cloud_off:",
        )
    with st.container(horizontal=True, vertical_alignment="bottom", key="catalogue-row"):
        role = st.segmented_control(
            _("Kind"),
            list(_ROLES),
            default="chat",
            required=True,
            format_func=lambda r: _(_ROLES[r]),
            key=f"catalogue-role-{language()}",
            label_visibility="collapsed",
        )
        _refresh_button()
    st.caption(_(_ROLES_EXPLAINED[role]))
    _search()
    found = [entry for entry in catalogue(services().paths) if entry.role == role]
    shown = offers(found, hardware, installed())
    for offer in sorted(shown, key=lambda o: (not o.recommended, o.best is None)):
        _offer(offer)
    hub_token.show()


def _refresh_button() -> None:
    from chatbot.models.catalog import refresh

    if st.button(
        _("Refresh"),
        key="refresh-catalogue",
        type="tertiary",
        icon=":material/refresh:",
        help=_("Ask the hub for the current files and their sizes"),
        disabled=offline(),
    ):
        bar = st.progress(0.0)
        try:
            refresh(
                services().paths, lambda fraction, _message="", **_values: bar.progress(fraction)
            )
        except ChatbotError as error:
            st.toast(literal(error.text(language())), icon=":material/error:")
        bar.empty()


# --- what is known --------------------------------------------------------------------------


def _offer(offer: Offer) -> None:
    entry = offer.entry
    key = entry.repo.replace("/", "-")
    with st.container(border=True, key=f"offer-{key}", gap="xsmall"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{literal(entry.name)}**", width="content")
            if offer.recommended:
                st.badge(_("Recommended"), icon=":material/star:", color="primary")
            if _is_here(offer):
                st.badge(_("On this PC"), icon=":material/check:", color="green")
            if entry.gated:
                st.badge(_("Needs consent"), icon=":material/key:", color="gray")
            st.space("stretch")
            pressed = st.button(
                _("Get it ready"),
                key=f"get-{key}",
                type="primary" if offer.recommended else "secondary",
                icon=":material/download:",
                disabled=offline(),
            )
        st.caption(" · ".join(_facts(entry)))
        _fit(offer.best, offer.ways)
        if offer.ways:
            st.caption(" · ".join(_way(one, best=one is offer.best) for one in offer.ways))
    if pressed:
        st.dialog(_("Get it ready"), width="medium", icon=":material/download:")(_get)(offer)


def _fit(best: Way | None, ways: tuple[Way, ...]) -> None:
    """The best way's verdict; where none fits, that of the smallest."""
    way = best or (ways[-1] if ways else None)
    if way and way.plan:
        fit_badge.brief(way.plan, way.type)
    elif way and way.type != "adapter":  # whether that fits is its base's question
        words, color = (_("Fits"), "green") if way.fits else (_("Does not fit"), "red")
        st.badge(words, color=color)  # type: ignore[arg-type]


def _facts(entry: Entry) -> list[str]:
    languages = ", ".join(_(_LANGUAGES.get(code, code)) for code in entry.languages)
    return [
        _("{count} parameters").format(count=short(entry.parameters)),
        languages,
        _("licence {name}").format(name=literal(entry.licence)),
        literal(entry.repo),
    ]


def _way(way: Way, *, best: bool) -> str:
    """A form and its size, the best in bold, what does not fit struck through."""
    about = "" if way.exact else "~"
    words = f"{literal(way.type or _('weights'))} {about}{size(way.size)}"
    if best:
        return f":green[**{words}**]"
    return words if way.fits else f":gray[~~{words}~~]"


def _is_here(offer: Offer) -> bool:
    wanted = {offer.entry.repo, offer.entry.gguf} - {""}
    return any(
        (model.manifest.get("origin") or {}).get("repo") in wanted
        for model in services().models.list()
    )


def _get(offer: Offer) -> None:
    entry = offer.entry
    st.markdown(f"**{literal(entry.name)}** · {literal(entry.repo)}")
    if entry.gated:
        st.info(
            _(
                "Its owner gives it to people who accepted the terms on its page. Do that first, then enter"
                " an access token here."
            ),
            icon=":material/key:",
        )
        hub_token.show()
    ready = [way for way in offer.ways if way.repo == entry.gguf]
    original = not entry.only_gguf
    how = "ready" if ready else "original"
    if ready and original:
        how = st.radio(
            _("How"),
            ["ready", "original"],
            format_func=lambda h: {
                "ready": _("A ready-made GGUF file"),
                "original": _("From the original weights"),
            }[h],
            captions=[
                _("The smallest download; it runs as soon as it is here."),
                _("Hearth converts and quantises it itself, and proves each step. Needs more room and time."),
            ],
            key="get-how",
        )  # fmt: skip
    if how == "original":
        model_making.chain_form(entry.repo, role=entry.role)
        return
    kinds = [way.type for way in ready]
    best = offer.best.type if offer.best and offer.best.type in kinds else kinds[-1]
    fits = {way.type: way for way in ready}
    kind = st.selectbox(
        _("Quantisation"),
        kinds,
        index=kinds.index(best),
        format_func=lambda k: (
            f"{k} · {size(fits[k].size)} · "
            + (_("fits") if fits[k].fits else _("does not fit now"))
        ),
        key="get-type",
    )
    model_making.chain_form(entry.gguf, type_=kind, role=entry.role)


# --- the hub --------------------------------------------------------------------------------


def _search() -> None:
    with (
        st.form("hub-search", border=False),
        st.container(horizontal=True, vertical_alignment="bottom"),
    ):
        text = st.text_input(
            _("Search the hub"),
            placeholder=_("A name, such as qwen3 gguf, or owner/model"),
            label_visibility="collapsed",
            disabled=offline(),
        )
        asked = st.form_submit_button(_("Search"), icon=":material/search:", disabled=offline())
    if asked:
        hits = _hits(text.strip()) if text.strip() else []
        st.session_state["hub-hits"] = hits
        st.session_state["hub-looks"] = _looks(hits)
    hits = st.session_state.get("hub-hits") or []
    for hit in hits:
        _hit(hit, st.session_state["hub-looks"].get(hit.repo))
    if hits:
        if st.button(_("Close the search"), key="close-search", type="tertiary"):
            st.session_state.pop("hub-hits")
            st.session_state.pop("hub-looks")
            st.rerun(scope="fragment")
        st.divider()


def _hits(text: str) -> list[Hit]:
    from chatbot.models.hub import Hub

    try:
        with st.spinner(_("Asking the hub")), Hub() as hub:
            found = hub.search(text, limit=12)
    except ChatbotError as error:
        st.error(literal(error.text(language())), icon=":material/error:")
        return []
    if not found:
        st.caption(_("The hub has nothing under that name."))
    return found


def _looks(hits: list[Hit]) -> dict[str, tuple[Way, ...] | ChatbotError]:
    from chatbot.models.catalog import look_at

    with st.spinner(_("Looking at what fits this PC")):
        return look_at(hits, services().hardware(), installed()) if hits else {}


def _hit(hit: Hit, look: tuple[Way, ...] | ChatbotError | None) -> None:
    from chatbot.models.catalog import best_way

    key = hit.repo.replace("/", "-")
    with st.container(border=True, horizontal=True, vertical_alignment="center", key=f"hit-{key}"):
        facts = [_("{count} downloads").format(count=decimal(hit.downloads, 0))]
        if hit.parameters:
            facts.insert(0, _("{count} parameters").format(count=short(hit.parameters)))
        if hit.gguf:
            facts.append("GGUF")
        if hit.gated:
            facts.append(_("Needs consent"))
        with st.container(gap=None, width="stretch"):
            st.markdown(f"**{literal(hit.repo)}**")
            st.caption(" · ".join(facts))
            if look is None:
                st.caption(_("The hub took too long to say whether it fits this PC."))
            elif isinstance(look, ChatbotError):
                st.caption(f":material/info: {literal(look.text(language()))}")
            else:
                _fit(best_way(look), look)
        if st.button(_("Get it ready"), key=f"get-{key}", icon=":material/download:"):
            st.dialog(_("Get it ready"), width="medium", icon=":material/download:")(_get_hit)(hit)


def _get_hit(hit: Hit) -> None:
    st.markdown(f"**{literal(hit.repo)}**")
    if hit.gated:
        hub_token.show()
    model_making.chain_form(hit.repo)
