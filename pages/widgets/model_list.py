"""The models on this PC, what they take up, and how another one is added from here."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from chatbot.errors import ChatbotError, NotFoundError
from chatbot.markup import literal
from chatbot.memory.recommend import recommend_text
from chatbot.services import services
from chatbot.workshop.orders import left_documents
from widgets import model_card
from widgets.words import _, language, plural, size


def show() -> None:
    """Draw them."""
    models = services().models.list()
    if not models:
        _none_yet()
        _add(open_=True)
        return
    with st.container(horizontal=True, vertical_alignment="center", key="disk-row"):
        st.caption(_disk_used(), width="stretch")
    _add(open_=False)
    for model in models:
        model_card.show(model)


def _disk_used() -> str:
    models = services().models.list()
    own = sum(model.size for model in models if not model.linked)
    words = [plural("{count} model", "{count} models", len(models))]
    words.append(_("{size} in the data folder").format(size=size(own)))
    if linked := sum(model.size for model in models if model.linked):
        words.append(_("{size} linked where they lie").format(size=size(linked)))
    words.append(_("{size} free").format(size=size(services().hardware().disk_free)))
    return " · ".join(words)


def _none_yet() -> None:
    with st.container(border=True, horizontal_alignment="center", key="no-models"):
        st.markdown(f"### :material/deployed_code: {_('No model yet')}")
        st.markdown(
            _(
                "Hearth works without one: it answers by quoting your documents. With a model it also sums"
                " up, compares and explains."
            )
        )
        st.caption(recommend_text(services().hardware(), language()))
        if st.button(_("Look at the catalogue"), type="primary", icon=":material/storefront:"):
            st.session_state["models-goto"] = "catalogue"
            st.rerun()


def _add(*, open_: bool) -> None:
    with st.expander(_("Add from this PC"), icon=":material/add:", expanded=open_):
        with st.form("import-form", border=False):
            path = st.text_input(
                _("File or folder on this PC"), placeholder="~/Downloads/model-Q4_K_M.gguf"
            )
            copy = st.checkbox(
                _("Copy it into the data folder"),
                help=_("Otherwise Hearth uses it where it lies, and no second copy takes up room."),
            )
            documents = st.checkbox(
                _("With its documents"),
                help=_(
                    "A zip that Hearth packed may hold documents. With this they become sources of answers"
                    " here; take only those of people you trust."
                ),
            )
            add = st.form_submit_button(_("Add"), type="primary", icon=":material/add:")
        if add and path.strip():
            where = Path(path.strip().strip("\"'")).expanduser()
            _begin(where, link=not copy, documents=documents)
        st.markdown(
            _(
                "- **GGUF files** and **Hugging Face folders** are used as they are.\n"
                "- **Adapters** from fine-tuning (LoRA, QLoRA): the folder with `adapter_config.json`.\n"
                "- **PyTorch files** (.bin, .pt) are read without running their code and kept as safetensors.\n"
                "- **Zips**: what Hearth packed on another PC, or a model folder zipped by hand."
            )
        )
        st.caption(
            _(
                "Every file is checked by its content before it is listed, and code inside a model never runs."
            )
        )


def _begin(path: Path, *, link: bool, documents: bool) -> None:
    try:
        if not path.exists():
            raise NotFoundError(str(path))
        job = services().workshop.take_in(path, link=link, documents=documents)
    except ChatbotError as error:
        st.error(literal(error.text(language())), icon=":material/error:")
        return
    with st.spinner(_("Adding {name}").format(name=literal(path.name))):
        job = services().jobs.wait(job.id, 5)
    if job.state != "done" or left_documents(job):  # its own row says more
        st.session_state["models-goto"] = "jobs"
    else:
        st.toast(_("The model is on the list."), icon=":material/check:")
    st.rerun()
