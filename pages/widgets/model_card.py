"""One model on this PC: what it is, where it comes from, whether it fits and is intact, and what can be done."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st

from chatbot.errors import ChatbotError, ModelDoesNotFit, OutOfMemory
from chatbot.i18n import N_
from chatbot.markup import literal
from chatbot.models.relations import base_of
from chatbot.services import services
from chatbot.types import ModelArtifact
from widgets import (
    fit_badge,
    loaded_model,
    model_actions,
    model_verdict,
    out_of_memory,
    plan_view,
)
from widgets.words import _, decimal, language, memory, moment, plural, size

if TYPE_CHECKING:
    from chatbot.memory.relief import Cure

_FORMATS = {
    "gguf": "GGUF",
    "hf": "Hugging Face",
    "pt": "PyTorch",
    "adapter": N_("Adapter"),
}
_ROLES = {"embedder": N_("Embedder"), "reranker": N_("Reranker")}


@st.fragment
def show(model: ModelArtifact) -> None:
    """Draw the card."""
    loaded = services().engines.loaded
    in_memory = loaded is not None and loaded.spec.model_id == model.id
    with st.container(border=True, key=f"model-{model.id}"):
        _head(model, in_memory=in_memory)
        if error := _trouble(model):
            st.error(literal(error), icon=":material/error:")
            model_actions.remove_button(model)
            return
        model_verdict.warning(model)
        if model.role != "chat":
            _search_buttons(model)
        elif _runs(model):
            _run(model, in_memory=in_memory)
        else:
            with st.container(horizontal=True, vertical_alignment="center"):
                model_actions.buttons(model)


def _head(model: ModelArtifact, *, in_memory: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key=f"head-{model.id}"):
        st.markdown(f"**{literal(model.name)}**")
        st.badge(_(_FORMATS[model.format]), color="gray")
        if model.role in _ROLES:
            st.badge(_(_ROLES[model.role]), color="gray")
        if in_memory:
            st.badge(_("Loaded"), icon=":material/bolt:", color="primary")
        if services().settings.default_model == model.id:
            st.badge(_("Default"), icon=":material/star:", color="primary")
        if model.format != "adapter":
            model_verdict.button(model)
    with st.container(gap=None):
        st.caption(" · ".join(_facts(model)))
        for line in _provenance(model):
            st.caption(line)


def _trouble(model: ModelArtifact) -> str:
    """Why it cannot be used as it lies there; empty when it can."""
    state = services().models.state(model)
    if state == "missing":
        return _("The file is no longer there. Put it back, or remove the model from the list.")
    if state == "changed":
        return _("The file has changed since it was added. Remove the model and add it again.")
    if model.role != "chat" or not _runs(model):
        return ""
    try:
        services().plan_model(model)
    except ChatbotError as error:
        return error.text(language())
    return ""


def _runs(model: ModelArtifact) -> bool:
    """Whether it can be loaded: an adapter runs beside the base that was chosen for it."""
    return model.format in ("gguf", "hf") or base_of(services().models, model) is not None


def _facts(model: ModelArtifact) -> list[str]:
    facts = [fit_badge.precision(model)] if fit_badge.precision(model) else []
    if model.architecture:
        facts.append(literal(model.architecture))
    if model.parameters:
        facts.append(_("{count} parameters").format(count=short(model.parameters)))
    facts.append(size(model.size))
    if model.context:
        facts.append(
            plural("context up to {count} token", "context up to {count} tokens", model.context)
        )
    facts.append(_("linked, not copied") if model.linked else _("copied into the data folder"))
    return facts


def _provenance(model: ModelArtifact) -> list[str]:
    """Where it comes from: hub repository and commit, the models on the way, the path; its measured speed."""
    lines = []
    manifest = model.manifest
    if origin := manifest.get("origin"):
        commit = str(origin.get("revision", ""))[:8]
        licence = f" · {literal(str(origin['licence']))}" if origin.get("licence") else ""
        lines.append(
            f":material/cloud_download: {literal(str(origin['repo']))} @ {commit}{licence}"
        )
    if model.format == "adapter":
        lines.append(f":material/merge: {_adapter(model)}")
    if lineage := manifest.get("lineage"):
        way = [literal(str(one["name"])) for one in lineage] + [literal(model.name)]
        lines.append(f":material/conversion_path: {' → '.join(way)}")
    if bench := manifest.get("bench"):
        lines.append(f":material/speed: {_bench(bench)}")
    lines.append(f":material/{'link' if model.linked else 'folder'}: {literal(model.path)}")
    return lines


def _adapter(model: ModelArtifact) -> str:
    """What the adapter says of itself, and the base it runs with."""
    said = model.manifest.get("adapter") or {}
    words = [literal(str(said.get("kind", "LoRA")))]
    if said.get("rank"):
        words.append(_("rank {number}").format(number=said["rank"]))
    if base := base_of(services().models, model):
        words.append(_("runs beside {base}").format(base=literal(base.name)))
    elif said.get("base"):
        words.append(_("made for {base}").format(base=literal(str(said["base"]))))
    return " · ".join(words)


def _bench(bench: dict[str, Any]) -> str:
    """The speed that was measured here, and memory predicted beside measured."""
    parts = []
    if reads := bench.get("prefill_tokens_per_second"):
        parts.append(_("reads {speed} tokens/s").format(speed=decimal(reads, 0)))
    if writes := bench.get("decode_tokens_per_second"):
        parts.append(_("writes {speed} tokens/s").format(speed=decimal(writes, 1)))
    if first := bench.get("seconds_to_first_token"):
        parts.append(_("first word after {time} s").format(time=decimal(first, 2)))
    predicted, peak = bench.get("predicted"), bench.get("peak_memory")
    if isinstance(predicted, dict):
        predicted = predicted.get("total")
    if peak:
        words = _("memory {measured}, predicted {predicted}") if predicted else "{measured}"
        parts.append(words.format(measured=memory(peak), predicted=memory(predicted or 0)))
    if at := bench.get("at"):
        parts.append(moment(at))
    return " · ".join(parts)


def short(number: int) -> str:
    """7_600_000_000 as people say it: '7.6 B'."""
    for limit, unit in ((1e9, _("billion")), (1e6, _("million")), (1e3, _("thousand"))):
        if number >= limit * 0.9995:
            figure = number / limit
            return f"{decimal(figure, 1 if figure < 20 else 0)} {unit}"
    return str(number)


# --- running --------------------------------------------------------------------------------


def _run(model: ModelArtifact, *, in_memory: bool) -> None:
    plan = services().plan_model(model)
    intact = (model.manifest.get("verdict") or {}).get("verdict") != "fail"
    with st.container(gap="xsmall", key=f"fit-{model.id}"):
        fit_badge.show(plan)
        plan_view.bars(plan)
        if not plan.fits:
            st.caption(literal(plan_view.why(plan)))
    with st.container(horizontal=True, vertical_alignment="center", key=f"row-{model.id}"):
        _load_buttons(model, fits=plan.fits, intact=intact, in_memory=in_memory)
        plan_view.button(model)
        model_actions.buttons(model)
    if ran_out := out_of_memory.told(st.session_state.get(f"ran-out-{model.id}")):
        out_of_memory.show(ran_out, model.id, partial(_load_cured, model), loading=True)


def _load_buttons(model: ModelArtifact, *, fits: bool, intact: bool, in_memory: bool) -> None:
    if in_memory and st.button(_("Unload"), key=f"unload-card-{model.id}", icon=":material/eject:"):
        loaded_model.unload()
        st.rerun()
    if fits and intact:
        label = _("Load again") if in_memory else _("Load")
        if st.button(
            label,
            key=f"load-{model.id}",
            type="secondary" if in_memory else "primary",
            icon=":material/play_arrow:",
        ):
            _load(model, anyway=False)
        return
    with st.popover(_("Load anyway"), icon=":material/warning:"):
        if not intact:
            st.markdown(
                _(
                    "This model did not pass its check. What it writes may be wrong without looking so."
                )
            )
        if not fits:
            st.markdown(
                _(
                    "It will probably run out of memory: other programs may become slow, and the model may"
                    " be ended. Hearth itself and your documents are safe."
                )
            )
        if st.button(_("Load anyway"), key=f"anyway-{model.id}", type="primary"):
            _load(model, anyway=True)


def _load(model: ModelArtifact, *, anyway: bool) -> None:
    try:
        with st.spinner(_("Loading {name}").format(name=model.name), show_time=True):
            services().load_model(model.id, anyway=anyway)
        st.session_state.pop(f"ran-out-{model.id}", None)
    except OutOfMemory as error:
        st.session_state[f"ran-out-{model.id}"] = error.to_json()
    except ModelDoesNotFit:
        pass  # memory shrank since the page was drawn; the fresh plan below says so
    except ChatbotError as error:
        st.error(literal(error.text(language())), icon=":material/error:")
        return
    st.rerun()


def _load_cured(model: ModelArtifact, cure: Cure) -> None:
    try:
        services().load_cured(cure)
        st.session_state.pop(f"ran-out-{model.id}", None)
    except OutOfMemory as error:  # the next way down is offered now
        st.session_state[f"ran-out-{model.id}"] = error.to_json()


def _search_buttons(model: ModelArtifact) -> None:
    setting = "embedder" if model.role == "embedder" else "reranker"
    used = getattr(services().settings, setting) == model.path
    st.caption(
        _("It compares meanings when Hearth searches your documents.")
        if model.role == "embedder"
        else _("It puts the first results of a search in order, where reranking is asked for.")
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        if used:
            st.badge(_("Used for search"), icon=":material/travel_explore:", color="primary")
        elif st.button(
            _("Use for search"),
            key=f"search-{model.id}",
            type="primary",
            icon=":material/travel_explore:",
        ):
            services().change_settings(**{setting: model.path})
            st.rerun()
        model_actions.buttons(model)
