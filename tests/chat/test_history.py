"""Nothing of a conversation is overwritten, and all of it survives a restart."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from chatbot.chat import support as support_check
from chatbot.chat.history import History, short_title
from chatbot.database import Database
from chatbot.errors import NotFoundError
from chatbot.types import (
    ConversationSettings,
    GenerationOptions,
    SearchFilter,
    SentenceSupport,
    Source,
)


@pytest.fixture
def history(database):
    return History(database)


def exchange(history, conversation, question, answer, parent=None):
    asked = history.add(conversation.id, parent, "user", question)
    return asked, history.add(conversation.id, asked.id, "assistant", answer)


def test_the_first_question_becomes_the_title(history):
    conversation = history.create()
    exchange(history, conversation, "Sinh viên bị cảnh báo học vụ khi nào?", "…")
    assert history.conversation(conversation.id).title == "Sinh viên bị cảnh báo học vụ khi nào?"


def test_an_empty_conversation_is_not_listed(history):
    history.create()
    assert history.conversations() == []


def test_regenerating_keeps_both_answers_and_the_switch_finds_them(history):
    conversation = history.create()
    asked, first = exchange(history, conversation, "Question?", "first")
    second = history.add(conversation.id, asked.id, "assistant", "second")

    assert [m.text for m in history.branch(conversation.id)] == ["Question?", "second"]
    assert history.siblings(conversation.id)[first.id] == [first.id, second.id]

    history.select(conversation.id, first.id)
    assert [m.text for m in history.branch(conversation.id)] == ["Question?", "first"]


def test_editing_a_question_branches_and_going_back_shows_the_old_continuation(history):
    conversation = history.create()
    asked, answered = exchange(history, conversation, "A?", "a")
    exchange(history, conversation, "B?", "b", parent=answered.id)
    edited = history.add(conversation.id, asked.parent_id, "user", "A, edited?")

    assert [m.text for m in history.branch(conversation.id)] == ["A, edited?"]
    assert history.siblings(conversation.id)[edited.id] == [asked.id, edited.id]
    history.select(conversation.id, asked.id)
    assert [m.text for m in history.branch(conversation.id)] == ["A?", "a", "B?", "b"]


def test_everything_survives_a_restart(history, database, paths):
    settings = ConversationSettings(
        model="m",
        scope="also",
        filter=SearchFilter(collections=("luật",)),
        system_prompt="ngắn gọn",
        options=GenerationOptions(temperature=0.7, seed=5, stop=("###",)),
    )
    conversation = history.create(settings)
    source = Source(1, "p", "d", "quy-che.pdf", 4, "Điều 20", "văn bản", 0.9)
    asked = history.add(conversation.id, None, "user", "?")
    support = (
        SentenceSupport(0, 8, False, support_check.NUMBER, {"number": "5"}, (1,)),
        SentenceSupport(9, 12, True),
    )
    history.add(
        conversation.id, asked.id, "assistant", "đáp [1]", sources=(source,), support=support
    )
    history.pin(conversation.id, True)
    history.rename(conversation.id, "  Tên   mới ")
    database.close()

    again = History(Database(paths.database))
    found = again.conversations()[0]
    assert (found.title, found.pinned, found.settings) == ("Tên mới", True, settings)
    assert again.branch(conversation.id)[1].sources == (source,)
    assert again.branch(conversation.id)[1].support == support


@pytest.mark.parametrize("typed", ["canh bao", "CẢNH BÁO", "cảnh", "hoc vu"])
def test_search_finds_words_typed_with_or_without_accents(history, typed):
    conversation = history.create()
    exchange(history, conversation, "Khi nào bị cảnh báo học vụ?", "Khi điểm dưới 1,0.")
    other = history.create()
    exchange(history, other, "Annual leave?", "12 days.")
    assert [c.id for c, _line in history.search(typed)] == [conversation.id]


def test_search_forgets_what_was_deleted_and_finds_it_again_after_undo(history):
    conversation = history.create()
    exchange(history, conversation, "bí mật", "…")
    history.delete(conversation.id)
    assert history.search("bí mật") == []
    assert history.conversations() == []
    history.restore(conversation.id)
    assert [c.id for c, _line in history.search("bí mật")] == [conversation.id]


def test_purged_text_is_gone_from_the_disk(history, database, paths):
    marker = "XYZZY-MARKER-4711"
    conversation = history.create()
    exchange(history, conversation, marker, marker)
    history.purge(conversation.id)
    with pytest.raises(NotFoundError):
        history.conversation(conversation.id)
    for file in paths.data.glob("hearth.db*"):
        content = file.read_bytes().lower()
        assert marker.lower().encode() not in content
        assert b"xyzzy" not in content


def test_exports_hold_the_branch_and_the_sources(history):
    conversation = history.create()
    source = Source(1, "p", "d", "quy-che.pdf", 4, "Điều 20", "văn bản", 0.9)
    asked = history.add(conversation.id, None, "user", "Hỏi?")
    support = (SentenceSupport(0, 3, False, support_check.NUMBER, {"number": "5"}, (1,)),)
    history.add(
        conversation.id, asked.id, "assistant", "Đáp [1]", sources=(source,), support=support
    )
    markdown = history.export_markdown(conversation.id, "vi")
    assert "Hỏi?" in markdown
    assert "- [1] quy-che.pdf · trang 4 · Điều 20" in markdown
    assert "- “Đáp” — Số 5 không có trong đoạn được dẫn." in markdown
    exported = json.loads(history.export_json(conversation.id))
    assert exported["messages"][1]["support"][0]["values"] == {"number": "5"}
    assert [m["text"] for m in exported["messages"]] == ["Hỏi?", "Đáp [1]"]


def test_a_judgement_changes_only_what_was_judged(history):
    conversation = history.create()
    _asked, answered = exchange(history, conversation, "?", "!")
    history.judge(answered.id, thumb=1)
    history.judge(answered.id, note="tốt")
    assert history.message(answered.id) == replace(answered, thumb=1, note="tốt")


def test_presets_come_back_as_they_were_kept(history):
    settings = ConversationSettings(system_prompt="Luật sư", options=GenerationOptions(top_k=7))
    history.save_preset(" Luật ", settings)
    assert history.presets() == {"Luật": settings}
    history.delete_preset("Luật")
    assert history.presets() == {}


def test_incognito_leaves_nothing_on_disk(paths):
    from pathlib import Path

    incognito = History(Database(Path(":memory:")), incognito=True)
    conversation = incognito.create()
    exchange(incognito, conversation, "bí mật", "…")
    assert incognito.conversation(conversation.id).incognito
    assert not list(paths.data.rglob("*:memory:*"))
    assert not Path(":memory:").exists()


@given(st.text(max_size=300))
def test_a_title_is_one_short_line(text):
    title = short_title(text)
    assert "\n" not in title
    assert len(title) <= 61


@given(
    st.lists(
        st.tuples(st.sampled_from(["ask", "again", "select"]), st.integers(0, 50)), max_size=25
    )
)
@profile(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_is_done_the_branch_is_a_chain_and_no_message_is_lost(history, steps):
    conversation = history.create()
    added = [m.id for m in exchange(history, conversation, "?", "!")]
    for step, pick in steps:
        branch = history.branch(conversation.id)
        if step == "ask":
            added += [m.id for m in exchange(history, conversation, "?", "!", parent=branch[-1].id)]
        elif step == "again":
            asked = branch[2 * (pick % (len(branch) // 2))]
            added.append(history.add(conversation.id, asked.id, "assistant", "again").id)
        else:
            history.select(conversation.id, added[pick % len(added)])
        branch = history.branch(conversation.id)
        assert [m.parent_id for m in branch] == [None, *[m.id for m in branch[:-1]]]
        assert [m.role for m in branch[:2]] == ["user", "assistant"]
    assert set(history.siblings(conversation.id)) == set(added)


def test_only_what_has_lain_in_the_trash_long_enough_is_erased(history, database):
    kept, fresh, old = (history.create() for _ in range(3))
    for conversation in (kept, fresh, old):
        exchange(history, conversation, "Hỏi?", "Đáp.")
    history.delete(fresh.id)
    history.delete(old.id)
    a_month = 30 * 86400
    database.execute(
        "UPDATE conversations SET deleted_at = deleted_at - ? WHERE id = ?", (a_month + 60, old.id)
    )
    history.purge_trash(older_than=a_month)
    assert [c.id for c in history.conversations(deleted=True)] == [fresh.id]
    history.purge_trash()
    assert history.conversations(deleted=True) == []
    assert [c.id for c in history.conversations()] == [kept.id]
