"""What one conversation answers with: scope, model, instructions, sampling, presets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from chatbot.i18n import N_
from chatbot.library.listing import Listing
from chatbot.markup import literal
from chatbot.services import QUOTES, REMOTE, services
from chatbot.types import (
    Conversation,
    ConversationSettings,
    Document,
    GenerationOptions,
    Scope,
    SearchFilter,
)
from widgets import validity
from widgets.words import _, language, plural

_DEFAULT = "default"
_LISTED = 200
"""Documents to choose single ones from; more are found by their names."""
SCOPES: dict[Scope, str] = {
    "only": N_("Documents only"),
    "also": N_("Documents and model"),
    "none": N_("Model only"),
}


def scope_row(
    settings: ConversationSettings, conversation: Conversation | None
) -> ConversationSettings:
    """The pickers under the input; returns the settings as they were chosen."""
    key = conversation.id if conversation else "new"
    with st.container(
        horizontal=True, gap="small", vertical_alignment="center", key=f"scope-row-{key}"
    ):
        settings = _scope(settings, key)
        if settings.scope != "none":
            settings = _documents(settings, key, conversation)
        settings = _options(settings, key)
        if conversation is None:
            st.toggle(
                _("Incognito"),
                key="incognito-toggle",
                help=_("The conversation is kept in memory only and is gone when Hearth closes"),
            )
    return settings


def _scope(settings: ConversationSettings, key: str) -> ConversationSettings:
    names = list(SCOPES)
    chosen = st.selectbox(
        _("Answer from"),
        names,
        index=names.index(settings.scope),
        format_func=lambda name: _(SCOPES[name]),
        label_visibility="collapsed",
        key=f"scope-mode-{language()}-{key}",
        width=176,
        help=_("What the answer may draw on"),
    )
    return replace(settings, scope=chosen)


def _documents(
    settings: ConversationSettings, key: str, conversation: Conversation | None
) -> ConversationSettings:
    chosen = settings.filter
    collections = [c.name for c in services().store.collections.all() if c.documents]
    attached = services().store.list(conversation=conversation.id) if conversation else []
    count = len(chosen.documents) + len(chosen.collections) + validity.narrowed(chosen)
    label = _("All documents")
    if chosen.nothing:
        label = _("Attached files only")
    elif count:
        label = plural("{count} selected", "{count} selected", count)
    if attached and not chosen.nothing:
        label += f" + {len(attached)}"
    with st.popover(label, icon=":material/filter_list:", key=f"scope-documents-{key}"):
        _attached(attached)
        everything = st.radio(
            _("Search in"),
            ["all", "some", "none"],
            index=2 if chosen.nothing else 1 if count else 0,
            format_func={
                "all": _("All documents"),
                "some": _("Chosen ones"),
                "none": _("Only files attached here"),
            }.__getitem__,
            key=f"scope-which-{key}",
        )
        if everything == "some":
            some = st.multiselect(
                _("Collections"),
                collections,
                default=[c for c in chosen.collections if c in collections],
                format_func=collection_name,
                key=f"scope-collections-{key}",
                placeholder=_("Choose"),
            )
            single = _single(chosen, key)
            with st.expander(
                _("Types and dates"),
                icon=":material/event_available:",
                expanded=bool(validity.narrowed(chosen)),
            ):
                chosen = validity.filters(chosen, key)
            chosen = replace(
                chosen, collections=tuple(some), documents=tuple(single), nothing=False
            )
            return replace(settings, filter=chosen)
    return replace(settings, filter=SearchFilter(nothing=everything == "none"))


def _single(chosen: SearchFilter, key: str) -> list[str]:
    """Single documents; a large library is first narrowed by words of their names."""
    store = services().store
    wanted = Listing(order="name")
    if store.tally().documents > _LISTED:
        words = st.text_input(
            _("Find documents by name"),
            key=f"scope-find-{key}",
            icon=":material/search:",
        )
        wanted = replace(wanted, words=words or "")
    here = store.named(chosen.documents)
    names = {**here, **{d.id: d.name for d in store.page(wanted, _LISTED)}}
    return st.multiselect(
        _("Documents"),
        list(names),
        default=list(here),
        format_func=names.__getitem__,
        key=f"scope-single-{key}",
        placeholder=_("Choose"),
    )


def _attached(files: Sequence[Document]) -> None:
    """The files that joined this conversation, each with a button that takes it out again."""
    removed = st.session_state.get("detached_file")
    if not files and not removed:
        return
    st.caption(_("Attached to this conversation"))
    for file in files:
        with st.container(horizontal=True, vertical_alignment="center", wrap=False):
            st.markdown(f":material/attach_file: {literal(file.name)}", width="stretch")
            words = _("Take {name} out of this conversation").format(name=literal(file.name))
            if st.button(
                words,
                key=f"detach-{file.id}",
                icon=":material/close:",
                type="tertiary",
                help=_("Take it out of this conversation"),
            ):
                services().ingest.remove(file.id)
                st.session_state["detached_file"] = file.id
                st.rerun()
    if removed and st.button(_("Undo"), key="undo-detach", icon=":material/undo:", type="tertiary"):
        del st.session_state["detached_file"]
        services().ingest.restore(removed)
        st.rerun()


def collection_name(name: str) -> str:
    """The built-in collections in the person's language, others as they were named."""
    built_in = {"documents": _("My documents"), "samples": _("Samples")}
    return built_in.get(name, name)


def _options(settings: ConversationSettings, key: str) -> ConversationSettings:
    with st.popover(_answerer(settings.model), icon=":material/tune:", key=f"options-{key}"):
        settings = _presets(settings, key)
        settings = replace(settings, model=_model(settings, key))
        prompt = st.text_area(
            _("Instructions for this conversation"),
            value=settings.system_prompt,
            key=f"system-{key}",
            placeholder=_("For example: answer as a lawyer would, in short points"),
        )
        options = settings.options
        length = st.number_input(
            _("Longest answer (tokens)"), 16, 8192, options.max_tokens, 64, key=f"length-{key}"
        )
        thinking = st.toggle(
            _("Let reasoning models think"), value=options.thinking, key=f"thinking-{key}"
        )
        options = replace(options, max_tokens=int(length), thinking=thinking)
        with st.expander(_("How freely it writes"), icon=":material/casino:"):
            options = _sampling(options, key)
        settings = replace(settings, system_prompt=prompt, options=options)
        _save_preset(settings, key)
    return settings


def _sampling(options: GenerationOptions, key: str) -> GenerationOptions:
    temperature = st.slider(
        _("Temperature"),
        0.0,
        2.0,
        float(options.temperature),
        0.05,
        format="localized",
        key=f"temperature-{key}",
        help=_("0 always takes the likeliest word; higher is freer"),
    )
    left, right = st.columns(2)
    with left:
        top_p = st.slider(
            "Top-p", 0.05, 1.0, float(options.top_p), 0.05, format="localized", key=f"top-p-{key}"
        )
        top_k = st.number_input("Top-k", 0, 200, options.top_k, key=f"top-k-{key}")
    with right:
        min_p = st.slider(
            "Min-p", 0.0, 0.5, float(options.min_p), 0.01, format="localized", key=f"min-p-{key}"
        )
        seed = st.number_input(
            _("Seed"),
            min_value=-1,
            value=-1 if options.seed is None else options.seed,
            key=f"seed-{key}",
            help=_("The same seed gives the same answer; -1 draws a new one"),
        )
    penalty = st.slider(
        _("Repetition penalty"),
        1.0,
        1.5,
        float(options.repeat_penalty),
        0.05,
        format="localized",
        key=f"penalty-{key}",
    )
    return replace(
        options,
        temperature=temperature,
        top_p=top_p,
        top_k=int(top_k),
        min_p=min_p,
        repeat_penalty=penalty,
        seed=None if seed < 0 else int(seed),
    )


def _answerer(model: str | None) -> str:
    """Who answers, in a word or two."""
    chosen = model or services().settings.default_model or QUOTES
    if chosen == QUOTES:
        return _("Quotations")
    if chosen == REMOTE:
        return literal(services().settings.remote_model) or _("Model")
    names = {artifact.id: artifact.name for artifact in services().chat_models()}
    return literal(names[chosen]) if chosen in names else _("Model missing")


def _model(settings: ConversationSettings, key: str) -> str | None:
    labels = {
        _DEFAULT: _("The default model"),
        QUOTES: _("No model: quote the documents"),
        **{model.id: model.name for model in services().chat_models()},
    }
    if services().settings.remote_url:
        labels[REMOTE] = _("Remote: {name}").format(name=services().settings.remote_model)
    choices = list(labels)
    chosen = st.selectbox(
        _("Model"),
        choices,
        index=choices.index(settings.model) if settings.model in choices else 0,
        format_func=labels.__getitem__,
        key=f"model-{language()}-{key}",
    )
    return None if chosen == _DEFAULT else chosen


def _presets(settings: ConversationSettings, key: str) -> ConversationSettings:
    presets = services().history.presets()
    if not presets:
        return settings
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox(
            _("Preset"), list(presets), index=None, key=f"preset-{key}", placeholder=_("Choose")
        )
        use = st.button(_("Use"), key=f"use-preset-{key}", disabled=name is None)
        if st.button(_("Delete"), key=f"delete-preset-{key}", disabled=name is None):
            services().history.delete_preset(str(name))
            st.rerun()
    if use and name:
        chosen = presets[name]
        for prefix in (
            "system",
            "temperature",
            "top-p",
            "top-k",
            "min-p",
            "penalty",
            "length",
            "seed",
            "thinking",
        ):
            st.session_state.pop(f"{prefix}-{key}", None)
        st.session_state.pop(f"model-{language()}-{key}", None)
        return replace(
            settings, system_prompt=chosen.system_prompt, options=chosen.options, model=chosen.model
        )
    return settings


def _save_preset(settings: ConversationSettings, key: str) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input(_("Keep as preset"), key=f"preset-name-{key}", placeholder=_("Name"))
        if st.button(_("Save"), key=f"save-preset-{key}", disabled=not name.strip()):
            services().history.save_preset(name, settings)
            st.rerun()
