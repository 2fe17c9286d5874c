"""The chat page as Streamlit runs it: asking, versions, settings, the sidebar's list."""

from __future__ import annotations

import pytest

from chatbot.chat.answer import NOT_FOUND
from chatbot.chat.support import check
from chatbot.types import ConversationSettings, GenerationStats, Source

SOURCE = Source(1, "gone", "d", "<b>handbook</b>.docx", 3, "Chapter 2 › 2.1 Leave", "12 days", 0.8)


@pytest.fixture
def conversation(services):
    """A finished exchange with one citation."""
    made = services.history.create()
    asked = services.history.add(made.id, None, "user", "How many days of *leave*?")
    services.history.add(
        made.id, asked.id, "assistant", "Twelve days [1]. ![x](http://evil.example/a.png)",
        sources=(SOURCE,), engine="llama_cpp", model="tiny",
        stats=GenerationStats(120, 100, 12, 0.5, 2.0, 8.0, 2048),
    )  # fmt: skip
    return made


def shown(app):
    return [m.value for m in app.markdown]


def test_an_empty_library_teaches_what_to_do(open_page):
    app = open_page()
    assert app.title[0].value == "What would you like to know?"
    assert any("Add a document" in text for text in shown(app))


def test_asking_begins_a_conversation_and_the_answer_arrives(open_page, services):
    app = open_page()
    app.chat_input[0].set_value("What is the notice period?").run()
    conversation_id = app.session_state["conversation"]
    reply = services.answers.running(conversation_id)
    if reply:
        reply.wait(30)
    app.run()
    assert not app.exception
    stored = services.history.branch(conversation_id)
    assert [m.role for m in stored] == ["user", "assistant"]
    assert stored[0].text == "What is the notice period?"
    assert any("no documents to search" in text for text in shown(app))
    assert any("What is the notice period?" in b.label for b in app.sidebar.button)


def test_a_stored_answer_shows_text_source_and_figures(open_page, conversation):
    app = open_page(conversation=conversation.id)
    texts = shown(app)
    assert any(":primary-badge[1]" in text for text in texts)
    assert not any("![x](" in text for text in texts)
    assert any(r"\<b\>handbook\</b\>\.docx" in b.label for b in app.button)
    figures = " ".join(c.value for c in app.caption)
    assert "8.0 tokens/s" in figures
    assert "context 132 of 2048" in figures
    assert "100 tokens reused" in figures


def test_unsupported_sentences_are_underlined_and_listed_with_their_reasons(
    open_page, services, conversation
):
    text = "You get 12 days [1]. You get **99 days** [1]. ![x](http://evil.example/a.png)"
    asked = services.history.branch(conversation.id)[0]
    services.history.add(
        conversation.id, asked.id, "assistant", text,
        sources=(SOURCE,), support=check(text, (SOURCE,)), engine="llama_cpp",
    )  # fmt: skip
    app = open_page(conversation=conversation.id)
    answer = next(t for t in shown(app) if "You get 12 days" in t)
    assert " [You get **99 days**" in answer
    assert r'](#unsupported "The number 99 is not in the cited passage\.")' in answer
    assert not any("![x](" in t for t in shown(app))
    assert any("2 sentences are not backed" in e.label for e in app.expander)
    listed = next(t for t in shown(app) if ":orange[" in t)
    assert "The number 99 is not in the cited passage" in listed


def test_versions_switch_and_nothing_is_lost(open_page, services, conversation):
    first = services.history.branch(conversation.id)[1]
    services.history.add(conversation.id, first.parent_id, "assistant", "Thirteen days.")
    app = open_page(conversation=conversation.id)
    assert any(c.value == "2/2" for c in app.caption)
    next(b for b in app.button if b.label == "‹").click().run()
    assert any(c.value == "1/2" for c in app.caption)
    assert any("Twelve days" in text for text in shown(app))


def test_edit_opens_a_form_and_asks_again_beside_the_old_question(
    open_page, services, conversation
):
    asked = services.history.branch(conversation.id)[0]
    app = open_page(conversation=conversation.id)
    app.button(key=f"edit-{asked.id}").click().run()
    app.text_area[0].set_value("How many days of sick leave?")
    next(b for b in app.button if b.label == "Ask again").click().run()
    reply = services.answers.running(conversation.id)
    if reply:
        reply.wait(30)
    assert services.history.branch(conversation.id)[0].text == "How many days of sick leave?"
    assert len(services.history.siblings(conversation.id)[asked.id]) == 2


def test_the_chosen_scope_and_sampling_stay_with_the_conversation(
    open_page, services, conversation
):
    app = open_page(conversation=conversation.id)
    app.selectbox(key=f"scope-mode-en-{conversation.id}").set_value("also").run()
    app.slider(key=f"temperature-{conversation.id}").set_value(1.2).run()
    settings = services.history.conversation(conversation.id).settings
    assert settings.scope == "also"
    assert settings.options.temperature == pytest.approx(1.2)
    again = open_page(conversation=conversation.id)
    assert again.selectbox(key=f"scope-mode-en-{conversation.id}").value == "also"


def test_a_preset_can_be_kept_and_used_elsewhere(open_page, services, conversation):
    services.history.save_preset("Lawyer", ConversationSettings(system_prompt="Answer as a lawyer"))
    app = open_page(conversation=conversation.id)
    key = conversation.id
    app.selectbox(key=f"preset-{key}").set_value("Lawyer").run()
    app.button(key=f"use-preset-{key}").click().run()
    assert services.history.conversation(key).settings.system_prompt == "Answer as a lawyer"


def test_nearest_passages_are_offered_when_nothing_was_found(open_page, services):
    made = services.history.create()
    asked = services.history.add(made.id, None, "user", "?")
    services.history.add(
        made.id, asked.id, "assistant", NOT_FOUND, sources=(SOURCE,), notices=(NOT_FOUND,)
    )
    app = open_page(conversation=made.id)
    assert any(e.label == "Nearest passages" for e in app.expander)


def test_a_long_history_draws_its_end_and_offers_the_rest(open_page, services):
    made = services.history.create()
    parent = None
    for number in range(40):
        role = "user" if number % 2 == 0 else "assistant"
        parent = services.history.add(made.id, parent, role, f"message {number}").id
    app = open_page(conversation=made.id)
    assert len(app.chat_message) == 30
    next(b for b in app.button if b.label == "Show 10 earlier messages").click().run()
    assert len(app.chat_message) == 40


def test_incognito_leaves_no_conversation_on_disk(open_page, services):
    app = open_page()
    app.toggle(key="incognito-toggle").set_value(True).run()
    app.chat_input[0].set_value("secret?").run()
    conversation_id = app.session_state["conversation"]
    assert conversation_id.startswith("incognito-")
    assert services.history.conversations() == []
    assert services.incognito.conversation(conversation_id).id == conversation_id


def test_vietnamese_is_one_click_away(open_page, services):
    app = open_page()
    app.sidebar.button_group[0].set_value("vi").run()
    assert services.settings.language == "vi"
    assert app.title[0].value != "What would you like to know?"


def test_an_answer_is_judged_and_the_judgement_taken_back(open_page, services, conversation):
    answer = services.history.branch(conversation.id)[1]
    app = open_page(conversation=conversation.id)
    app.button(key=f"thumb-1-{answer.id}").click().run()
    assert services.history.message(answer.id).thumb == 1
    app.button(key=f"thumbed-1-{answer.id}").click().run()
    assert services.history.message(answer.id).thumb == 0


def test_a_note_is_kept_under_its_answer(open_page, services, conversation):
    answer = services.history.branch(conversation.id)[1]
    app = open_page(conversation=conversation.id)
    app.button(key=f"add-note-{answer.id}").click().run()
    app.text_area(key=f"note-{answer.id}").set_value("check with *HR*").run()
    assert services.history.message(answer.id).note == "check with *HR*"
    assert any(r"check with \*HR\*" in c.value for c in app.caption)


def test_attached_files_stand_above_their_question_and_can_be_taken_out(open_page, services):
    made = services.history.create()
    services.add_documents([("notes.txt", b"Room B opens at seven.")], conversation=made.id)
    services.wait_until_read()
    services.history.add(made.id, None, "user", "When does room B open?")
    app = open_page(conversation=made.id)
    file = services.store.list(conversation=made.id)[0]
    assert any(r"notes\.txt" in text and "badge" in text for text in shown(app))
    app.button(key=f"detach-{file.id}").click().run()
    assert services.store.list(conversation=made.id) == []
    app.button(key="undo-detach").click().run()
    assert [d.id for d in services.store.list(conversation=made.id)] == [file.id]


def test_the_trash_is_offered_when_something_lies_in_it(open_page, services, conversation):
    assert not any(b.key == "trash-conversations" for b in open_page().sidebar.button)
    services.history.delete(conversation.id)
    assert any(b.label == "Trash (1)" for b in open_page().sidebar.button)


def test_the_offer_to_undo_goes_when_the_person_goes_on(open_page, services, conversation):
    app = open_page(conversation=conversation.id, deleted_conversation="some-id")
    assert any(b.key == "undo-delete" for b in app.sidebar.button)
    app.button(key=f"open-{conversation.id}").click().run()
    assert not any(b.key == "undo-delete" for b in app.sidebar.button)


def test_the_row_under_the_input_says_who_answers(open_page, services, conversation):
    labels = {p.proto.popover.label for p in open_page(conversation=conversation.id).get("popover")}
    assert {"All documents", "Quotations"} <= labels
