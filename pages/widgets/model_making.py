"""How one model is made out of another: each way explained, with its choices, and the button that begins it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import streamlit as st

from chatbot.errors import ChatbotError
from chatbot.hardware.detect import installed
from chatbot.i18n import N_
from chatbot.markup import literal
from chatbot.models.chain import Stage
from chatbot.services import services
from chatbot.settings import offline
from chatbot.types import Job, ModelArtifact, ModelRole
from chatbot.workshop.outline import Wanted
from widgets.job_row import STEPS
from widgets.words import _, language, size

if TYPE_CHECKING:
    from chatbot.models.lookup import Remote


def begin(work: Callable[[], Job]) -> None:
    """Begin a job and show it; an error stays where the button was."""
    try:
        work()
    except ChatbotError as error:
        st.error(literal(error.text(language())), icon=":material/error:")
        return
    st.session_state["models-goto"] = "jobs"
    st.rerun()


def go(label: str, work: Callable[[], Job], *, disabled: bool = False) -> None:
    """The button that begins a job."""
    if st.button(label, key="begin", type="primary", disabled=disabled):
        begin(work)


def ready(model: ModelArtifact) -> None:
    """The whole way, from what is here."""
    chain_form(model.id)


def chain_form(
    source: str, *, adapter: str | None = None, type_: str = "auto", role: ModelRole | None = None
) -> None:
    """What the whole way does and needs, and the button that begins it."""
    if type_ == "auto" and role in (None, "chat") and installed().transformers_gpu:
        type_ = st.radio(
            _("How it should run"),
            list(_RUN_AS),
            format_func=lambda t: _(_RUN_AS[t]),
            key="chain-type",
        )
    workshop, keep = services().workshop, st.session_state.get("chain-keep", "checkable")
    wanted = Wanted(adapter=adapter, type=type_, keep=keep, role=role)
    try:
        with st.spinner(_("Working out what it needs")):
            outline = workshop.outlines.of(source, wanted)
    except ChatbotError as error:
        st.error(literal(error.text(language())), icon=":material/error:")
        return
    makes = [stage for stage in outline.stages if stage.do != "verify"]
    lines = [f"**{_(STEPS[s.do])}**: {_explained(s, outline.remote)}" for s in makes]
    st.markdown("\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1)))
    st.caption(
        _(
            "After each step Hearth checks that the model is still the same. You may pause, close Hearth"
            " and go on later: finished steps stay."
        )
    )
    if len(makes) > 2:
        st.selectbox(
            _("What stays on the disk"),
            list(_KEEP),
            format_func=lambda k: _(_KEEP[k]),
            key="chain-keep",
        )
    room = _("Needs {needs} on the disk for a while; {free} are free.").format(
        needs=size(outline.needs), free=size(outline.free)
    )
    if outline.fits:
        st.caption(f":material/hard_drive: {room}")
    else:
        st.error(room, icon=":material/hard_drive:")
    go(
        _("Get it ready"),
        lambda: workshop.make_ready(source, wanted),
        disabled=not outline.fits,
    )


def _explained(stage: Stage, remote: Remote | None) -> str:
    if stage.do != "download" or remote is None:
        return _(_EXPLAINED[stage.do])
    part = remote if stage.params["repo"] == remote.repo else remote.base or remote
    return _("{repo}, {size}, at commit {commit}; it goes on where it was cut off.").format(
        repo=literal(part.repo), size=size(part.size), commit=part.revision[:8]
    )


_EXPLAINED = {
    "import": N_("where they lie; nothing is copied."),
    "unpack": N_("every byte checked on its way."),
    "merge": N_("the trained adapter becomes part of the model."),
    "prepare": N_("half the size of 32 bits, on the graphics card where there is one."),
    "convert": N_("the form that runs fast on every PC."),
    "quantise": N_("the best quantisation that fits this PC now."),
}
_RUN_AS = {
    "auto": N_("Quantised, through llama.cpp: small and fast"),
    "fp16": N_("In 16 bits on the graphics card: exact, needs its memory"),
}
_KEEP = {
    "checkable": N_("The result, and what it is checked against"),
    "result": N_("Only the result"),
    "all": N_("The model of every step"),
}


def prepare(model: ModelArtifact) -> None:
    """Save it in 16 bits."""
    st.markdown(
        _(
            "Saves the model in 16 bits, tensor by tensor, with its tokenizer and chat template. Where"
            " weights are too large for FP16, BF16 is used, and the report says how many."
        )
    )
    form = st.selectbox(
        _("Save as"),
        ["hf", "pt"],
        format_func=lambda f: {"hf": _("A model folder (safetensors)"), "pt": _("One state_dict file (.pt)")}[f],
        key="prepare-form",
    )  # fmt: skip
    go(_("Begin"), lambda: services().workshop.prepare(model.id, form=form))


def convert(model: ModelArtifact) -> None:
    """Turn a folder into a GGUF file, or an adapter into a LoRA file."""
    if model.format == "adapter":
        st.markdown(
            _(
                "Writes the adapter as a LoRA file, which llama.cpp runs beside its base as GGUF, also a"
                " quantised one. Choose that base afterwards."
            )
        )
        go(_("Begin"), lambda: services().workshop.convert(model.id))
        return
    st.markdown(
        _(
            "Writes the model as one GGUF file, the form llama.cpp runs on any PC. Its weights stay as"
            " exact as they are; make it smaller afterwards."
        )
    )
    kinds = ["F16", "BF16", "F32", "Q8_0"]
    own = model.manifest["quantisation"]  # BF16 may hold values that F16 cannot
    at = kinds.index(own) if own == "BF16" else 0
    kind = st.selectbox(_("Weights"), kinds, index=at, key="convert-type")
    go(_("Begin"), lambda: services().workshop.convert(model.id, kind))


def quantise(model: ModelArtifact) -> None:
    """Make a GGUF smaller, with the ladder of what fits."""
    st.markdown(
        _(
            "Fewer bits for each weight: smaller, faster, a little less exact. The check afterwards says"
            " in numbers how much of the model is left."
        )
    )
    rungs = services().workshop.ladder(model.id)
    kinds = [rung.type for rung in rungs if rung.type != "F16"]
    best = next((rung.type for rung in rungs if rung.best), kinds[0])
    by_type = {rung.type: rung for rung in rungs}

    def words(kind: str) -> str:
        fit = _("fits") if by_type[kind].plan.fits else _("does not fit now")
        star = " · :primary[:material/star:] " + _("best that fits") if kind == best else ""
        return f"**{kind}** · {size(by_type[kind].size)} · {fit}{star}"

    kind = st.radio(
        _("Quantisation"),
        kinds,
        index=kinds.index(best),
        format_func=words,
        captions=[_(_RUNGS.get(k, "")) for k in kinds],
        key="quantise-type",
    )
    documents = st.checkbox(
        _("Let my documents decide what matters most"),
        help=_(
            "Hearth reads some of your documents with the model first and keeps the weights exact that"
            " they need. It takes a few minutes more."
        ),
        key="quantise-importance",
        disabled=not services().store.tally().documents,
    )
    go(
        _("Begin"),
        lambda: services().workshop.quantise(model.id, kind, documents=documents),
    )


_RUNGS = {
    "Q8_0": N_("Practically the same answers, half the size of 16 bits"),
    "Q6_K": N_("Hardly any difference"),
    "Q5_K_M": N_("A small difference"),
    "Q4_K_M": N_("The usual choice: a third of the size, still good"),
    "Q3_K_M": N_("Noticeably less exact"),
    "Q2_K": N_("Only where nothing else fits"),
}


def merge(adapter: ModelArtifact) -> None:
    """Merge an adapter into its base, or choose a base to run beside."""
    from chatbot.models.relations import base_name, bases_of, choose_base, is_lora_file

    bases = bases_of(services().models, adapter)
    beside = is_lora_file(adapter)
    if not any(fits for _base, fits in bases):
        _without_base(base_name(adapter))
        if base_name(adapter) and not offline():
            chain_form(base_name(adapter), adapter=adapter.id)
    if not bases:
        return
    st.markdown(
        _("This LoRA file runs beside the GGUF of its base, also a quantised one.")
        if beside
        else _(
            "An adapter holds only what was trained; merged into its base it becomes a model of its own,"
            " which can be converted and carried along. The base itself stays as it is."
        )
    )
    names = {base.id: base for base, _suited in bases}
    suited = {base.id: fits for base, fits in bases}
    base_id = st.selectbox(
        _("Base"),
        list(names),
        format_func=lambda i: names[i].name + (f" · {_('made for it')}" if suited[i] else ""),
        key="merge-base",
    )
    way = "unmerged"
    if not beside:
        way = st.radio(
            _("What to do"),
            list(_MERGE_WAYS),
            format_func=lambda w: _(_MERGE_WAYS[w]),
            key="merge-way",
        )
    if way == "ready":
        chain_form(base_id, adapter=adapter.id)
    elif way == "merge":
        go(_("Begin"), lambda: services().workshop.merge(base_id, adapter.id))
    elif st.button(_("Use this base"), key="begin", type="primary"):
        try:
            choose_base(services().models, adapter, names[base_id])
        except ChatbotError as error:
            st.error(literal(error.text(language())), icon=":material/error:")
        else:
            st.rerun()


_MERGE_WAYS = {
    "ready": N_("Merge and get it ready for this PC"),
    "merge": N_("Merge only"),
    "unmerged": N_("Do not merge: run the adapter beside its base"),
}


def _without_base(name: str) -> None:
    st.info(
        _(
            "None of the models here is the one it was trained on: {base}. Add that from this PC, or let"
            " Hearth download it."
        ).format(base=f"**{literal(name)}**")
        if name
        else _(
            "None of the models here is the one it was trained on, and the adapter does not say which that"
            " is. Add it from this PC."
        ),
        icon=":material/help:",
    )
