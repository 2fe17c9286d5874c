"""The settings page as Streamlit runs it: every choice is stored, privacy is real, the token is kept."""

from __future__ import annotations

import pytest

from chatbot.chat.history import History
from chatbot.services import REMOTE, Services
from chatbot.settings import load_settings


def button(app, key: str):
    return next(b for b in app.button if b.key == key)


def by_label(elements, label: str):
    return next(e for e in elements if e.label == label)


def shown(app) -> str:
    boxes = [*app.markdown, *app.caption, *app.info, *app.warning, *app.success]
    return "\n".join(box.value for box in boxes)


def codes(app) -> str:
    return "\n".join(c.value for c in app.code)


def conversation(history: History) -> str:
    made = history.create()
    history.add(made.id, None, "user", "A secret question")
    return made.id


def test_it_shows_where_everything_lies(open_page, services):
    app = open_page("settings.py")
    assert app.title[0].value == "Settings"
    assert str(services.paths.data) in codes(app)


def test_the_language_is_stored_and_the_sidebar_agrees(open_page, services):
    app = open_page("settings.py")
    app.selectbox(key="settings-language-en").set_value("vi").run()
    assert services.settings.language == "vi"
    app.run()
    assert services.settings.language == "vi", "the switch in the sidebar must not undo it"
    assert app.title[0].value == "Cài đặt"
    app.selectbox(key="settings-language-vi").set_value("").run()
    assert services.settings.language is None


def test_answers_are_chosen_here(open_page, services):
    app = open_page("settings.py")
    next(g for g in app.get("button_group") if g.key == "answer-style-en").set_value(
        "detailed"
    ).run()
    assert services.settings.answer_style == "detailed"
    app.number_input(key="idle-unload").set_value(5).run()
    assert services.settings.idle_unload_minutes == 5
    assert load_settings(services.paths.settings).idle_unload_minutes == 5


def test_a_remote_model_says_that_questions_leave_this_pc(open_page, services):
    app = open_page("settings.py")
    assert "Nothing leaves this PC" in shown(app)
    by_label(app.text_input, "Address").input("http://192.168.1.20:8000/v1")
    by_label(app.text_input, "Name of the model there").input("qwen")
    by_label(app.text_input, "Key, if it wants one").input("secret")
    by_label(app.button, "Save").click().run()
    assert (services.settings.remote_url, services.settings.remote_model) == (
        "http://192.168.1.20:8000/v1",
        "qwen",
    )
    assert "leave this PC" in app.warning[0].value
    services.change_settings(default_model=REMOTE)
    app.run()
    by_label(app.button, "Forget it").click().run()
    assert services.settings.remote_url == ""
    assert services.settings.remote_key == ""
    assert services.settings.default_model is None


@pytest.mark.parametrize(("url", "model"), [("192.168.1.20", "qwen"), ("http://host", " ")])
def test_an_address_that_cannot_work_is_refused(open_page, services, url, model):
    app = open_page("settings.py")
    by_label(app.text_input, "Address").input(url)
    by_label(app.text_input, "Name of the model there").input(model)
    by_label(app.button, "Save").click().run()
    assert app.error
    assert services.settings.remote_url == ""


def test_everything_is_deleted_only_after_the_word_was_typed(open_page, services, tmp_path):
    kept = tmp_path / "leave.txt"
    kept.write_text("Leave is twelve days a year.")
    services.add_documents([kept])
    conversation(services.history)
    app = open_page("settings.py")
    assert button(app, "delete-everything").disabled
    app.text_input(key="delete-confirmation").input("delete").run()
    button(app, "delete-everything").click().run()
    assert not app.exception
    assert services.history.conversations() == []
    assert services.store.list(every=True) == []
    assert kept.exists(), "the person's own file is not ours to delete"
    assert "gone from this PC" in shown(app)


def test_the_trash_is_emptied_of_conversations_and_documents(open_page, services):
    services.history.delete(conversation(services.history))
    app = open_page("settings.py")
    assert "In the trash: 0 documents · 1 conversation" in shown(app)
    button(app, "erase-trash").click().run()
    assert services.history.conversations(deleted=True) == []
    assert "The trash is empty" in shown(app)


def test_the_token_is_masked_until_asked_for_and_can_be_renewed(open_page, services: Services):
    app = open_page("settings.py")
    token = services.ownership.token
    assert token not in codes(app)
    app.toggle(key="show-token").set_value(True).run()
    assert token in codes(app)
    assert "/v1/models" in codes(app)
    button(app, "renew-token").click().run()
    assert services.ownership.token != token
    assert services.ownership.token in codes(app)


def test_the_diagnostic_report_holds_no_content(open_page, services, tmp_path):
    file = tmp_path / "hidden name.txt"
    file.write_text("hidden words in the text")
    services.add_documents([file])
    conversation(services.history)
    app = open_page("settings.py")
    app.toggle(key="show-report").set_value(True).run()
    report = app.json[0].value
    for secret in ("hidden", "secret", str(services.paths.data), str(tmp_path)):
        assert secret not in report
    assert '"hearth"' in report


def test_an_embedder_that_is_not_here_is_said_and_words_still_find(open_page, services):
    app = open_page("settings.py")
    services.change_settings(embedder="nobody/no-such-embedder")
    services.index.wait_ready(60)
    app.run()
    assert not app.exception
    assert app.warning, "why there are no vectors"
    assert "Download the embedder" not in [b.label for b in app.button], "offline forbids it"


def test_the_embedder_is_explained_honestly(open_page):
    text = shown(open_page("settings.py"))
    assert "spelling, not meaning" in text
