"""What can be made out of a model, and done with it: a menu on its card, each action explained before it begins."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from chatbot.errors import ChatbotError
from chatbot.i18n import N_
from chatbot.markup import literal
from chatbot.models.relations import base_of, is_lora_file
from chatbot.services import services
from chatbot.types import ModelArtifact
from widgets import hub_token, model_making
from widgets.words import _, language, plural, size

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
    if model.format == "adapter":
        label = N_("Choose its base") if is_lora_file(model) else _LABELS["merge"]
        if st.button(_(label), key=f"merge-{model.id}", type="primary", icon=":material/merge:"):
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
        model_making.begin(lambda: services().workshop.verify(model.id))
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
    if model.format == "adapter" and not is_lora_file(model) and base_of(services().models, model):
        actions.append("convert")
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
    model_making.go(_("Begin"), lambda: services().workshop.bench(model.id))


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
    model_making.go(
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
    model_making.go(
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
    "ready": model_making.ready,
    "quantise": model_making.quantise,
    "merge": model_making.merge,
    "prepare": model_making.prepare,
    "convert": model_making.convert,
    "bench": _bench,
    "package": _package,
    "push": _push,
    "remove": _remove,
}
