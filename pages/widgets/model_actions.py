"""What can be made out of a model, and done with it: a menu on its card, each action explained before it begins."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
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
from widgets import hub_token
from widgets.job_row import STEPS
from widgets.words import _, language, plural, size

if TYPE_CHECKING:
    from chatbot.models.lookup import Remote

_LABELS = {
    "default": N_("Use as default"),
    "ready": N_("Get it ready for this PC"),
    "quantise": N_("Make it smaller (quantise)"),
    "merge": N_("Merge into its base"),
    "prepare": N_("Save in 16 bits"),
    "convert": N_("Convert to GGUF"),
    "verify": N_("Check it"),
    "bench": N_("Measure its speed"),
    "package": N_("Pack into one file"),
    "push": N_("Upload to the hub"),
    "remove": N_("Remove"),
}
_ICONS = {
    "ready": "auto_fix_high",
    "quantise": "compress",
    "merge": "merge",
    "prepare": "memory",
    "convert": "transform",
    "bench": "speed",
    "package": "archive",
    "push": "cloud_upload",
    "remove": "delete",
}
FLOATS = ("F32", "F16", "BF16")


def buttons(model: ModelArtifact) -> None:
    """The menu with everything that this model allows."""
    if model.format == "adapter" and st.button(
        _(_LABELS["merge"]), key=f"merge-{model.id}", type="primary", icon=":material/merge:"
    ):
        _open("merge", model)
    chosen = st.menu_button(
        _("More"),
        possible(model),
        key=f"more-{model.id}",
        icon=":material/more_horiz:",
        type="tertiary",
        format_func=lambda action: _(_LABELS[action]),
    )
    if chosen == "default":
        services().change_settings(default_model=model.id)
        st.rerun()
    elif chosen == "verify":
        _begin(lambda: services().workshop.verify(model.id))
    elif chosen:
        _open(chosen, model)


def possible(model: ModelArtifact) -> list[str]:
    """The actions that make sense for that model."""
    actions: list[str] = []
    runs = model.format in ("gguf", "hf") and model.role == "chat"
    if runs and services().settings.default_model != model.id:
        actions.append("default")
    if model.role == "chat" and model.format == "hf":
        actions += ["ready", "prepare", "convert"]
    if model.format == "pt":
        actions.append("prepare")
    if model.format == "gguf" and is_float(model):
        actions.append("quantise")
    if model.format != "adapter":
        actions.append("verify")
    if runs:
        actions.append("bench")
    return [*actions, "package", "push", "remove"]


def is_float(model: ModelArtifact) -> bool:
    """Whether its weights are not quantised yet."""
    return str(model.manifest.get("quantisation", "")).upper() in FLOATS


def remove_button(model: ModelArtifact) -> None:
    """The button for a model that can only be removed."""
    if st.button(_("Remove"), key=f"remove-{model.id}", icon=":material/delete:"):
        _open("remove", model)


def _open(action: str, model: ModelArtifact) -> None:
    icon = f":material/{_ICONS[action]}:"
    st.dialog(_(_LABELS[action]), width="medium", icon=icon)(_DIALOGS[action])(model)


def _begin(begin: Callable[[], Job]) -> None:
    """Begin a job and show it; an error stays where the button was."""
    try:
        begin()
    except ChatbotError as error:
        st.error(literal(error.text(language())), icon=":material/error:")
        return
    st.session_state["models-goto"] = "jobs"
    st.rerun()


def _go(label: str, begin: Callable[[], Job], *, disabled: bool = False) -> None:
    if st.button(label, key="begin", type="primary", disabled=disabled):
        _begin(begin)


# --- making ---------------------------------------------------------------------------------


def _ready(model: ModelArtifact) -> None:
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
    workshop, options = services().workshop, {"adapter": adapter, "type_": type_, "role": role}
    keep = st.session_state.get("chain-keep", "checkable")
    try:
        with st.spinner(_("Working out what it needs")):
            outline = workshop.outline(source, keep=keep, **options)
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
    _go(
        _("Get it ready"),
        lambda: workshop.make_ready(source, keep=keep, **options),
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


def _prepare(model: ModelArtifact) -> None:
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
    _go(_("Begin"), lambda: services().workshop.prepare(model.id, form=form))


def _convert(model: ModelArtifact) -> None:
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
    _go(_("Begin"), lambda: services().workshop.convert(model.id, kind))


def _quantise(model: ModelArtifact) -> None:
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
    _go(
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


def _merge(adapter: ModelArtifact) -> None:
    from chatbot.models.relations import base_name, bases_of

    bases = bases_of(services().models, adapter)
    if not any(fits for _base, fits in bases):
        _without_base(base_name(adapter))
        if base_name(adapter) and not offline():
            chain_form(base_name(adapter), adapter=adapter.id)
    if not bases:
        return
    st.markdown(
        _(
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
    way = st.radio(
        _("What to do"),
        list(_MERGE_WAYS),
        format_func=lambda w: _(_MERGE_WAYS[w]),
        key="merge-way",
    )
    if way == "ready":
        chain_form(base_id, adapter=adapter.id)
    elif way == "merge":
        _go(_("Begin"), lambda: services().workshop.merge(base_id, adapter.id))
    elif st.button(_("Use this base"), key="begin", type="primary"):
        services().models.note(adapter.id, base=base_id)
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


# --- measuring and carrying -----------------------------------------------------------------


def _bench(model: ModelArtifact) -> None:
    st.markdown(
        _(
            "Loads the model as planned, lets it read and write for a moment, and keeps the figures on its"
            " card: words per second, time to the first word, memory predicted and measured."
        )
    )
    if services().engines.loaded:
        st.caption(_("The loaded model makes room for it meanwhile."))
    _go(_("Begin"), lambda: services().workshop.bench(model.id))


def _package(model: ModelArtifact) -> None:
    st.markdown(
        _(
            "One zip with the model, its figures and hashes. On another PC: Models, Add from this PC, and"
            " every byte is checked while it is unpacked."
        )
    )
    name = re.sub(r'[\\/:*?"<>|]+', " ", model.name).strip() or model.id
    file = st.text_input(
        _("File"), value=str(Path.home() / f"{name}.zip"), key=f"package-file-{model.id}"
    )
    count = services().store.tally().documents
    library = st.checkbox(
        plural("Take {count} document along", "Take {count} documents along", count),
        key="package-library",
        disabled=not count,
    )
    st.caption(
        ":material/hard_drive: "
        + _("About {size}, as weights hardly shrink.").format(size=size(model.size))
    )
    target = Path(file.strip().strip("\"'")).expanduser()
    if target.exists():
        st.warning(
            _("There is such a file already; it would be replaced."), icon=":material/warning:"
        )
    _go(
        _("Pack"),
        lambda: services().workshop.package(model.id, target, library=library),
        disabled=not file.strip() or not target.parent.is_dir(),
    )
    if file.strip() and not target.parent.is_dir():
        st.caption(_("There is no such folder."))


def _push(model: ModelArtifact) -> None:
    st.markdown(
        _(
            "Uploads the model and a card with its figures to your own account. It is the only way in which"
            " a model leaves this PC, and only you see it unless you make it public."
        )
    )
    repo = st.text_input(_("Repository"), placeholder="you/model-name", key=f"push-{model.id}")
    public = st.checkbox(_("Everyone may see it"), key="push-public")
    hub_token.show()
    _go(
        _("Upload"),
        lambda: services().workshop.push(model.id, repo.strip(), private=not public),
        disabled="/" not in repo,
    )


def _remove(model: ModelArtifact) -> None:
    reason = services().workshop.user_of(model.id)
    if reason:
        st.markdown(_("It cannot be removed now: {reason}").format(reason=_(reason)))
        return
    st.markdown(
        _("It leaves the list; the file stays where it is.")
        if model.linked
        else _("Its copy of {size} is deleted from the data folder.").format(size=size(model.size))
    )
    from chatbot.models.relations import children_of

    if children := children_of(services().models, model.id):
        names = ", ".join(literal(child.name) for child in children)
        st.caption(
            _("Models made from it stay, but can no longer be compared with it: {names}").format(
                names=names
            )
        )
    if st.button(_("Remove"), key=f"yes-remove-{model.id}", type="primary"):
        try:
            services().remove_model(model.id)
        except ChatbotError as error:
            st.error(literal(error.text(language())), icon=":material/error:")
            return
        st.rerun()


_DIALOGS: dict[str, Callable[[ModelArtifact], None]] = {
    "ready": _ready,
    "quantise": _quantise,
    "merge": _merge,
    "prepare": _prepare,
    "convert": _convert,
    "bench": _bench,
    "package": _package,
    "push": _push,
    "remove": _remove,
}
