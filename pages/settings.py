"""The settings page: language, answers, the embedder, a remote model, privacy, the API, about."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path

import streamlit as st

from chatbot import __version__
from chatbot.chat.prompt import ANSWER_STYLES
from chatbot.errors import ChatbotError, OfflineError
from chatbot.i18n import LANGUAGES, N_
from chatbot.library.embedders import SURFACE
from chatbot.markup import literal
from chatbot.services import QUOTES, REMOTE, services
from chatbot.settings import offline
from widgets.clipboard import copy_button
from widgets.words import _, language, plural, size

_STYLES_EXPLAINED = {
    "brief": N_("One to three sentences."),
    "balanced": N_("Clear, and as long as the question deserves."),
    "detailed": N_("In full, with every condition and case."),
}
_LEAVES_THIS_PC = N_(
    "With a remote model, your questions and the passages found for them leave this PC and go to that"
    " address. Documents as a whole, your other conversations and the search stay here."
)
_SURFACE_EXPLAINED = N_(
    "The built-in one needs no download. It compares spelling, not meaning: it forgives typing errors"
    " and missing accents, but does not know that “dismissal” and “termination” are related. The search"
    " by words, which finds most, works the same with every choice."
)


def main() -> None:
    """Draw the page."""
    st.title(_("Settings"))
    _general()
    _answers()
    _meaning()
    _remote()
    _privacy()
    _api()
    _about()


def _section(title: str, icon: str) -> None:
    st.space("small")
    st.subheader(f":material/{icon}: {title}", anchor=False)


def _change(**values: object) -> None:
    try:
        services().change_settings(**values)
    except ChatbotError as error:
        st.toast(literal(error.text(language())), icon=":material/error:")


def _key(name: str) -> str:
    """A key in this language: a choice is drawn anew when its words change."""
    return f"{name}-{language()}"


# --- the person and this PC -----------------------------------------------------------------


def _general() -> None:
    _section(_("General"), "tune")
    choices = ["", *LANGUAGES]
    st.selectbox(
        _("Language"),
        choices,
        index=choices.index(services().settings.language or ""),
        format_func=lambda code: LANGUAGES[code] if code else _("The browser's"),
        key=_key("settings-language"),
        on_change=_set_language,
        args=(_key("settings-language"),),
    )
    st.caption(_("Light or dark follows your system."))
    data = services().paths.data
    st.markdown(f"**{_('Data folder')}**")
    st.code(str(data), language=None, wrap_lines=True)
    st.caption(
        _(
            "Everything is in there: {size}. To move it, close Hearth, move the folder and set the"
            " environment variable HEARTH_DATA to its new place."
        ).format(size=size(_size_of(data)))
    )


def _set_language(key: str) -> None:
    chosen = st.session_state[key] or None
    _change(language=chosen)


def _size_of(folder: Path) -> int:
    total = 0
    for place, _folders, names in os.walk(folder):
        for name in names:
            try:
                total += Path(place, name).lstat().st_size
            except OSError:
                continue  # a temporary file that has gone since
    return total


# --- answers --------------------------------------------------------------------------------


def _answers() -> None:
    _section(_("Answers"), "chat")
    settings = services().settings
    style = st.segmented_control(
        _("Answer style"),
        list(ANSWER_STYLES),
        default=settings.answer_style,
        required=True,
        format_func=lambda name: _(ANSWER_STYLES[name]),
        key=_key("answer-style"),
    )
    st.caption(_(_STYLES_EXPLAINED[style]) + " " + _("It applies to answers that a model writes."))
    if style != settings.answer_style:
        _change(answer_style=style)
    labels = {QUOTES: _("No model: quote the documents")}
    labels |= {m.id: m.name for m in services().chat_models()}
    if settings.remote_url:
        labels[REMOTE] = _("Remote: {name}").format(name=settings.remote_model)
    chosen = settings.default_model or QUOTES
    choices = list(labels)
    model = st.selectbox(
        _("Default model"),
        choices,
        index=choices.index(chosen) if chosen in choices else 0,
        format_func=labels.__getitem__,
        key=_key("default-model"),
        help=_("Conversations that did not choose one of their own answer with it"),
    )
    if model != chosen:
        _change(default_model=None if model == QUOTES else model)
    minutes = st.number_input(
        _("Unload an unused model after (minutes)"),
        0,
        24 * 60,
        settings.idle_unload_minutes,
        5,
        key="idle-unload",
        help=_("0 keeps it loaded until you unload it"),
        width=320,
    )
    if minutes != settings.idle_unload_minutes:
        _change(idle_unload_minutes=int(minutes))
    _when_memory_runs_out()
    _states()


def _states() -> None:
    settings = services().settings
    with st.container(horizontal=True, vertical_alignment="bottom"):
        megabytes = st.number_input(
            _("Keep what the model has read on disk (MB)"),
            0,
            10**6,
            settings.state_megabytes,
            500,
            key="state-megabytes",
            help=_("0 keeps nothing. Hearth never takes more than a tenth of what is free."),
            width=320,
        )
        if megabytes != settings.state_megabytes:
            _change(state_megabytes=int(megabytes))
        used = services().states.used()
        if st.button(
            _("Clear now"), icon=":material/delete_sweep:", key="clear-states", disabled=not used
        ):
            services().forget_states()
            st.rerun()
    st.caption(
        _(
            "Now {size}. A conversation that you come back to goes on at once, instead of being read from"
            " the start. What is kept of a conversation is deleted with it; of an incognito one nothing is kept."
        ).format(size=size(used))
    )


def _when_memory_runs_out() -> None:
    chosen = services().settings.retry_smaller
    words = {"ask": _("Ask me what to do"), "automatic": _("Go on by itself")}
    wanted = st.segmented_control(
        _("When memory runs out"),
        list(words),
        default=chosen,
        required=True,
        format_func=words.__getitem__,
        key=_key("retry-smaller"),
    )
    st.caption(
        _("The answer stops, what was written stays, and the ways to go on stand below it.")
        if wanted == "ask"
        else _(
            "Hearth tries again at once in the way that harms least, and the answer says what was changed."
        )
    )
    if wanted != chosen:
        _change(retry_smaller=wanted)


# --- search by meaning ----------------------------------------------------------------------


def _meaning() -> None:
    _section(_("Search by meaning"), "travel_explore")
    st.markdown(
        _(
            "Beside the words, Hearth compares vectors of your question and of each passage. An"
            " *embedder* makes them."
        )
    )
    settings = services().settings
    names = list(dict.fromkeys([SURFACE, settings.embedder]))
    with st.form("embedder-form", border=False):
        name = st.selectbox(
            _("Embedder"),
            names,
            index=names.index(settings.embedder),
            format_func=lambda n: _("Built in (spelling)") if n == SURFACE else n,
            accept_new_options=True,
            key=_key("embedder"),
            help=_(
                "A folder with a sentence-transformers or model2vec model, or the Hugging Face name of"
                " one that is already on this PC"
            ),
        )
        st.caption(_(_SURFACE_EXPLAINED))
        st.caption(_("Choosing another makes all vectors anew in the background."))
        use = st.form_submit_button(_("Use this one"), icon=":material/check:")
    if use and name and name.strip() != settings.embedder:
        _change(embedder=name.strip(), allow_embedder_download=False)
        st.rerun()
    _index_state()


@st.fragment(run_every=2.0)
def _index_state() -> None:
    status = services().index.status()
    if status.state in ("opening", "rebuilding"):
        fraction = status.done / status.total if status.total else 0.0
        words = _("The search index is being built: {done} of {total} passages.")
        st.progress(min(fraction, 1.0), words.format(done=status.done, total=status.total))
        st.caption(_("Answers keep coming meanwhile."))
    if isinstance(status.error, OfflineError) and not offline():
        st.warning(
            _(
                "“{name}” is not on this PC, so only the words are searched now. If you press the button,"
                " Hearth asks huggingface.co for it once."
            ).format(name=literal(services().settings.embedder)),
            icon=":material/info:",
        )
        if st.button(_("Download the embedder"), icon=":material/download:"):
            _change(allow_embedder_download=True)
            st.rerun()
    elif status.error:
        st.warning(literal(status.error.text(language())), icon=":material/info:")
    if status.state == "failed" and st.button(
        _("Build the search index anew"), icon=":material/refresh:"
    ):
        services().index.rebuild()


# --- a remote model -------------------------------------------------------------------------


def _remote() -> None:
    _section(_("Remote model"), "cloud")
    settings = services().settings
    if settings.remote_url:
        st.warning(_(_LEAVES_THIS_PC), icon=":material/outbound:")
    else:
        st.markdown(
            _("Off. Nothing leaves this PC. A server of your own or your team's can be named here.")
        )
    with st.expander(
        _("Address of an OpenAI-compatible server"), expanded=bool(settings.remote_url)
    ):
        if not settings.remote_url:
            st.caption(_(_LEAVES_THIS_PC))
        with st.form("remote-form", border=False):
            url = st.text_input(
                _("Address"), settings.remote_url, placeholder="http://192.168.1.20:8000/v1"
            )
            model = st.text_input(
                _("Name of the model there"),
                settings.remote_model,
                placeholder="qwen2.5-7b-instruct",
            )
            key = st.text_input(
                _("Key, if it wants one"),
                settings.remote_key,
                type="password",
                autocomplete="off",
                help=_("Stored in the data folder, readable by you only"),
            )
            with st.container(horizontal=True):
                save = st.form_submit_button(_("Save"), type="primary")
                forget = st.form_submit_button(_("Forget it"), disabled=not settings.remote_url)
    if save:
        if not url.strip().startswith(("http://", "https://")) or not model.strip():
            st.error(
                _("The address begins with http:// or https://, and the model needs a name."),
                icon=":material/error:",
            )
            return
        _change(remote_url=url.strip(), remote_model=model.strip(), remote_key=key.strip())
        st.rerun()
    if forget:
        default = None if settings.default_model == REMOTE else settings.default_model
        _change(remote_url="", remote_model="", remote_key="", default_model=default)
        st.rerun()


# --- privacy --------------------------------------------------------------------------------


def _privacy() -> None:
    _section(_("Privacy"), "lock")
    st.markdown(
        _(
            "No account, no telemetry, no cloud. An incognito conversation is never written to the disk:"
            " switch it on beside an empty chat."
        )
    )
    _empty_trash()
    _delete_everything()


def _empty_trash() -> None:
    documents = services().store.trash.ids()
    conversations = services().history.conversations(deleted=True)
    if not documents and not conversations:
        st.caption(_("The trash is empty."))
        return
    in_it = " · ".join(
        [
            plural("{count} document", "{count} documents", len(documents)),
            plural("{count} conversation", "{count} conversations", len(conversations)),
        ]
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(_("In the trash: {what}").format(what=in_it))
        with st.popover(_("Empty the trash"), icon=":material/delete_forever:"):
            st.markdown(_("This cannot be undone."))
            if st.button(_("Erase for good"), type="primary", key="erase-trash"):
                services().ingest.purge(*documents)
                services().history.purge_trash()
                st.session_state.pop("deleted_conversation", None)
                st.session_state.pop("deleted_documents", None)
                st.rerun()


def _delete_everything() -> None:
    with st.expander(
        _("Delete all my conversations and documents"), icon=":material/delete_forever:"
    ):
        st.markdown(
            _(
                "Erases every conversation, every document copied here, their text and the search index"
                " from this PC. Models, settings and your original files stay. It cannot be undone."
            )
        )
        word = _("DELETE")
        typed = st.text_input(
            _("Type {word} to confirm").format(word=word), key="delete-confirmation"
        )
        if st.button(
            _("Delete everything"),
            type="primary",
            disabled=typed.strip().casefold() != word.casefold(),
            key="delete-everything",
        ):
            with st.spinner(_("Deleting")):
                services().delete_everything()
            for key in ("deleted_conversation", "deleted_documents", "conversation"):
                st.session_state.pop(key, None)
            st.session_state["deleted_all"] = True
            st.rerun()
    if st.session_state.pop("deleted_all", False):
        st.success(_("All conversations and documents are gone from this PC."))


# --- the API --------------------------------------------------------------------------------


def _api() -> None:
    _section(_("API for your own programs"), "api")
    st.markdown(
        _(
            "Programs on this PC can ask Hearth the way they ask OpenAI. They need the token; whoever"
            " has it can read your documents through Hearth."
        )
    )
    token = services().ownership.token
    shown = st.toggle(_("Show the token"), key="show-token")
    with st.container(horizontal=True, vertical_alignment="center", wrap=False):
        st.code(token if shown else "•" * 24, language=None, wrap_lines=True)
        copy_button(token, "copy-token")
    if os.environ.get("HEARTH_API_TOKEN"):
        st.caption(_("It comes from the environment variable HEARTH_API_TOKEN."))
    else:
        with st.popover(_("Renew the token"), icon=":material/autorenew:"):
            st.markdown(_("Programs that use the old one are refused from then on."))
            if st.button(_("Renew"), type="primary", key="renew-token"):
                services().ownership.renew_token()
                st.rerun()
    st.caption(_("To try it:"))
    address = st.context.url or "http://127.0.0.1:8501"
    base = "/".join(address.split("/")[:3])
    bearer = token if shown else "…"
    st.code(
        f'curl -H "Authorization: Bearer {bearer}" {base}/v1/models',
        language="bash",
        wrap_lines=True,
    )


# --- about ----------------------------------------------------------------------------------


def _about() -> None:
    _section(_("About"), "info")
    st.markdown(f"**Hearth {__version__}** · Apache-2.0")
    st.caption(
        _("Runs with Streamlit {streamlit}, Chroma {chroma} and SQLite, all on this PC.").format(
            streamlit=version("streamlit"), chroma=version("chromadb")
        )
    )
    st.markdown(
        _(
            "If something goes wrong, the diagnostic report helps to find out why. It holds counts,"
            " sizes, versions and states; no titles, names, paths or texts. Nothing is sent: you"
            " download it, look at it and pass it on if you like."
        )
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            _("Download the diagnostic report"),
            lambda: json.dumps(services().diagnostic_report(), indent=1),
            "hearth-diagnostic.json",
            "application/json",
            icon=":material/download:",
            on_click="ignore",
        )
        show = st.toggle(_("Show what is in it"), key="show-report")
    if show:
        st.json(services().diagnostic_report(), expanded=1)


main()
