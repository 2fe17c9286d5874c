"""The models page: what is on this PC and how it would run here, and how another one is added."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from chatbot.errors import ChatbotError, ModelDoesNotFit, NotFoundError
from chatbot.markup import literal
from chatbot.memory.recommend import recommend_text
from chatbot.services import services
from chatbot.types import ModelArtifact
from widgets import fit_badge, job_row, loaded_model
from widgets.words import _, decimal, language, plural, size

_FORMATS = {"gguf": "GGUF", "hf": "Hugging Face"}
_CONTEXTS = [2048, 4096, 8192, 16384, 32768, 65536, 131072]
_KV_TYPES = ["f16", "q8_0", "q4_0"]


def main() -> None:
    """Draw the page."""
    st.title(_("Models"))
    st.markdown(
        _(
            "A model writes answers from the passages Hearth finds. It runs on this PC, in a process of"
            " its own, and reads nothing but what an answer needs."
        )
    )
    models = services().models.list()
    _loaded()
    here, add = st.tabs(
        [_("On this PC"), _("Add")],
        default=_("On this PC") if models else _("Add"),
        key=f"models-tabs-{st.session_state.get('imported', 0)}",  # a new model is shown at once
    )
    with here:
        if not models:
            _none_yet()
        for model in models:
            _card(model)
    with add:
        _add()


@st.fragment(run_every=3.0)
def _loaded() -> None:
    with st.container(border=True):
        loaded_model.show("models")


def _none_yet() -> None:
    st.markdown(f"### :material/deployed_code: {_('No model yet')}")
    st.markdown(
        _(
            "Hearth works without one: it answers by quoting your documents. With a model it also sums"
            " up, compares and explains."
        )
    )
    st.info(recommend_text(services().hardware(), language()), icon=":material/memory:")


# --- one model ------------------------------------------------------------------------------


@st.fragment
def _card(model: ModelArtifact) -> None:
    loaded = services().engines.loaded
    in_memory = loaded is not None and loaded.spec.model_id == model.id
    with st.container(border=True, key=f"model-{model.id}"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{literal(model.name)}**")
            st.badge(_FORMATS[model.format], color="gray")
            if in_memory:
                st.badge(_("Loaded"), icon=":material/bolt:", color="primary")
            if services().settings.default_model == model.id:
                st.badge(_("Default"), icon=":material/star:", color="primary")
        with st.container(gap=None):
            st.caption(" · ".join(_facts(model)))
            st.caption(f":material/{'link' if model.linked else 'folder'}: {literal(model.path)}")
        if error := _trouble(model):
            st.error(literal(error), icon=":material/error:")
            _remove(model)
            return
        wishes = _wishes(model)
        plan = services().plan_model(model, **wishes)
        fit_badge.show(plan)
        with st.container(horizontal=True):
            _load_buttons(model, fits=plan.fits, in_memory=in_memory, wishes=wishes)
            if services().settings.default_model != model.id and st.button(
                _("Use as default"), key=f"default-{model.id}", icon=":material/star:"
            ):
                services().change_settings(default_model=model.id)
                st.rerun()
            _remove(model)


def _trouble(model: ModelArtifact) -> str:
    """Why it cannot be loaded as it lies there; empty when it can."""
    state = services().models.state(model)
    if state == "missing":
        return _("The file is no longer there. Put it back, or remove the model from the list.")
    if state == "changed":
        return _("The file has changed since it was added. Remove the model and add it again.")
    try:
        services().plan_model(model)
    except ChatbotError as error:
        return error.text(language())
    return ""


def _facts(model: ModelArtifact) -> list[str]:
    facts = [fit_badge.precision(model)] if fit_badge.precision(model) else []
    if model.architecture:
        facts.append(literal(model.architecture))
    if model.parameters:
        facts.append(_("{count} parameters").format(count=_short(model.parameters)))
    facts.append(size(model.size))
    if model.context:
        facts.append(
            plural("context up to {count} token", "context up to {count} tokens", model.context)
        )
    facts.append(_("linked, not copied") if model.linked else _("copied into the data folder"))
    return facts


def _short(number: int) -> str:
    """7_600_000_000 as people say it: '7.6 B'."""
    for limit, unit in ((1e9, _("billion")), (1e6, _("million")), (1e3, _("thousand"))):
        if number >= limit:
            figure = number / limit
            return f"{decimal(figure, 1 if figure < 20 else 0)} {unit}"
    return str(number)


def _wishes(model: ModelArtifact) -> dict[str, Any]:
    """What the person chose for the next load; None where the plan may choose."""
    contexts = [c for c in _CONTEXTS if not model.context or c < model.context]
    contexts += [model.context] if model.context else []
    with st.container(horizontal=True):
        context = st.selectbox(
            _("Context (tokens)"),
            [0, *contexts],
            format_func=lambda c: decimal(c, 0) if c else _("Automatic"),
            key=f"context-{model.id}-{language()}",  # drawn anew when its words change
            help=_("How much the model can read at once: instructions, passages and conversation"),
            width=200,
        )
        kv_type = st.selectbox(
            _("KV cache type"),
            ["", *_KV_TYPES],
            format_func=lambda t: t or _("Automatic"),
            key=f"kv-{model.id}-{language()}",
            help=_(
                "What the model keeps of the text it has read; q8_0 and q4_0 halve and quarter it"
            ),
            width=200,
            disabled=model.format != "gguf",
        )
    return {"context": context or None, "kv_type": kv_type or None}


def _load_buttons(
    model: ModelArtifact, *, fits: bool, in_memory: bool, wishes: dict[str, Any]
) -> None:
    if in_memory and st.button(_("Unload"), key=f"unload-card-{model.id}", icon=":material/eject:"):
        loaded_model.unload()
        st.rerun()
    if fits:
        label = _("Load again") if in_memory else _("Load")
        if st.button(
            label,
            key=f"load-{model.id}",
            type="secondary" if in_memory else "primary",
            icon=":material/play_arrow:",
        ):
            _load(model, anyway=False, wishes=wishes)
        return
    with st.popover(_("Load anyway"), icon=":material/warning:"):
        st.markdown(
            _(
                "It will probably run out of memory: other programs may become slow, and the model may"
                " be ended. Hearth itself and your documents are safe."
            )
        )
        if st.button(_("Load anyway"), key=f"anyway-{model.id}", type="primary"):
            _load(model, anyway=True, wishes=wishes)


def _load(model: ModelArtifact, *, anyway: bool, wishes: dict[str, Any]) -> None:
    try:
        with st.spinner(_("Loading {name}").format(name=model.name), show_time=True):
            services().load_model(model.id, anyway=anyway, **wishes)
    except ModelDoesNotFit:
        pass  # memory shrank since the page was drawn; the fresh plan below says so
    except ChatbotError as error:
        st.error(literal(error.text(language())), icon=":material/error:")
        return
    st.rerun()


def _remove(model: ModelArtifact) -> None:
    with st.popover(_("Remove"), icon=":material/delete:"):
        if services().engines.loaded and services().engines.busy:
            st.markdown(_("An answer is being written. Wait for its end, then remove the model."))
            return
        st.markdown(
            _("It leaves the list; the file stays where it is.")
            if model.linked
            else _("Its copy of {size} is deleted from the data folder.").format(
                size=size(model.size)
            )
        )
        if st.button(_("Remove"), key=f"remove-{model.id}", type="primary"):
            try:
                services().remove_model(model.id)
            except ChatbotError as error:
                st.error(literal(error.text(language())), icon=":material/error:")
                return
            st.rerun()


# --- adding ---------------------------------------------------------------------------------


def _add() -> None:
    running = bool(services().jobs.list(active=True, kind="import_model"))
    st.fragment(_imports, run_every=1.0 if running else None)(running)
    with st.form("import-form", border=False):
        path = st.text_input(
            _("GGUF file or model folder on this PC"), placeholder="~/Downloads/model-Q4_K_M.gguf"
        )
        copy = st.checkbox(
            _("Copy it into the data folder"),
            help=_("Otherwise Hearth uses it where it lies, and no second copy takes up room."),
        )
        add = st.form_submit_button(_("Add"), type="primary", icon=":material/add:")
    if add and path.strip():
        file = Path(path.strip().strip("\"'")).expanduser()
        if file.exists():
            job = services().workshop.take_in(file, link=not copy)
            st.session_state["import_job"] = job.id
            st.rerun()
        st.error(literal(NotFoundError(str(file)).text(language())), icon=":material/error:")
    st.markdown(f"**{_('Which models work')}**")
    st.markdown(
        _(
            "- **GGUF files** (llama.cpp), quantised or not: one file, the usual choice for a PC. On"
            " Hugging Face look for names that end in `Q4_K_M.gguf` or `Q8_0.gguf`, and take an"
            " “instruct” or “chat” model.\n"
            "- **Hugging Face folders** with `config.json`, a tokenizer and `.safetensors` weights, in"
            " 16 bits, best with a graphics card."
        )
    )
    st.caption(
        _(
            "Every file is checked by its content before it is listed. Code inside a model folder never"
            " runs, and pickled weights (.bin, .pt) are refused."
        )
    )
    st.info(recommend_text(services().hardware(), language()), icon=":material/memory:")


def _imports(was_running: bool) -> None:
    jobs = services().jobs.list(active=True, kind="import_model")
    if was_running and not jobs:
        st.rerun()
    for job in jobs:
        job_row.show(job)
    mine = st.session_state.get("import_job")
    if not mine or jobs:
        return
    job = services().jobs.job(mine)
    if job.state == "done":
        del st.session_state["import_job"]
        st.toast(_("The model is on the list."), icon=":material/check:")
        st.session_state["imported"] = st.session_state.get("imported", 0) + 1
        st.rerun()
    elif error := job_row.failure(job):
        st.error(literal(error), icon=":material/error:")


main()
