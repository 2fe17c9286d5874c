"""The question set: kept, edited, found again after re-reading, gathered from conversations, forgotten."""

from __future__ import annotations

import dataclasses

import pytest

from chatbot.chat.history import History
from chatbot.database import Database
from chatbot.errors import NotFoundError
from chatbot.evaluation.gold import Target
from chatbot.evaluation.questions import Questions
from chatbot.text import words
from chatbot.types import Source
from tests.evaluation.conftest import reading
from tests.evaluation.test_gold import END, LAW, START

QUESTION = "nộp học phí khi nào"


@pytest.fixture
def questions(database, store) -> Questions:
    return Questions(database, store)


@pytest.fixture
def law(add):
    return add("Quy chế.pdf", LAW, (START, END))


def test_a_question_is_kept_once_and_asked(questions, law):
    target = Target(law.id, START, END)
    assert questions.add(f"  {QUESTION} ", [target])
    assert questions.add("nop hoc phi khi nao", [target]) is None  # the same, typed without marks
    cases, lost = questions.cases()
    assert [(case.text, case.targets) for case in cases] == [(QUESTION, (target,))]
    assert lost == []
    with pytest.raises(NotFoundError):
        questions.add("không có đoạn đúng", [])


@pytest.mark.parametrize("cuts", [(), (START + 20,), (10, START + 5, END - 5), (START, END)])
def test_the_right_place_survives_another_cut_and_new_text_before_it(questions, store, law, cuts):
    questions.add(QUESTION, [Target(law.id, START, END)])
    preface = "Lời nói đầu của lần đọc mới.\n"
    text = preface + LAW
    store.commit(law.id, reading(text, cuts), "", None)
    ((case,), _) = questions.cases()
    (target,) = case.targets
    assert words(text[target.start : target.end]) == words(LAW[START:END])
    right = [p for p in store.contents.passages(law.id) if target.covers(law.id, p.start, p.end)]
    assert right
    assert any("học phí" in p.text for p in right)


def test_the_same_file_added_anew_answers_and_a_lost_one_is_said(questions, store, add, law):
    questions.add(QUESTION, [Target(law.id, START, END)])
    store.trash.purge(law.id)
    assert questions.cases()[0] == []
    assert [question.text for question in questions.cases()[1]] == [QUESTION]
    again = add("Quy chế.pdf", LAW)
    assert [case.targets for case in questions.cases()[0]] == [(Target(again.id, START, END),)]


def test_an_edited_question_is_a_new_one(questions, law):
    old = questions.add(QUESTION, [Target(law.id, START, END)])
    questions.replace(old, "hạn nộp học phí", [Target(law.id)])
    (new,) = questions.all()
    assert (new.text, new.golds[0].anchor.end) == ("hạn nộp học phí", None)
    assert new.id != old
    questions.remove(new.id)
    assert questions.all() == []


# --- gathered -------------------------------------------------------------------------------


def source(number: int, document, passage) -> Source:
    return Source(number, passage.id, document.id, document.name, 1, "", passage.text, 0.8)


@pytest.fixture
def history(database) -> History:
    return History(database)


@pytest.fixture
def answered(history, store, law):
    """A question and its answer, which cites the second of three passages."""
    sources = tuple(source(n, law, p) for n, p in enumerate(store.contents.passages(law.id), 1))
    conversation = history.create()
    asked = history.add(conversation.id, None, "user", QUESTION)
    return history.add(
        conversation.id, asked.id, "assistant", "Trong bốn tuần [2].", sources=sources
    )


def test_a_thumb_up_makes_the_cited_passage_right(questions, history, answered, law):
    assert questions.suggestions(history.approved()) == []
    history.judge(answered.id, thumb=1)
    (suggestion,) = questions.suggestions(history.approved())
    assert suggestion.approved.question == QUESTION
    assert (suggestion.approved.praised, suggestion.approved.first) == (True, True)
    assert suggestion.targets == (Target(law.id, START, END),)
    questions.add(QUESTION, suggestion.targets, "gathered", answered.id)
    assert questions.suggestions(history.approved()) == []


def test_an_opened_citation_is_suggested_unless_the_answer_was_bad(
    questions, history, answered, law
):
    history.opened(answered.id, 1)
    history.opened(answered.id, 1)
    (suggestion,) = questions.suggestions(history.approved())
    assert suggestion.targets == (Target(law.id, 0, START),)
    assert not suggestion.approved.praised
    history.judge(answered.id, thumb=-1)
    assert history.approved() == []


def test_what_was_dismissed_or_deleted_is_not_suggested(questions, history, answered, store, law):
    history.judge(answered.id, thumb=1)
    history.delete(answered.conversation_id)
    assert history.approved() == []
    history.restore(answered.conversation_id)
    questions.dismiss(answered.id)
    assert questions.suggestions(history.approved()) == []
    other = history.add(
        answered.conversation_id, answered.parent_id, "assistant", "[1]", sources=answered.sources
    )
    history.judge(other.id, thumb=1)
    assert len(questions.suggestions(history.approved())) == 1
    store.trash.purge(law.id)
    assert questions.suggestions(history.approved()) == []


def test_a_follow_up_is_marked(history, answered):
    follow = history.add(answered.conversation_id, answered.id, "user", "còn trễ thì sao?")
    reply = history.add(
        answered.conversation_id, follow.id, "assistant", "[3]", sources=answered.sources
    )
    history.judge(reply.id, thumb=1)
    assert [each.first for each in history.approved()] == [False]


def test_a_cited_passage_is_found_after_another_cut(questions, history, answered, store, law):
    history.judge(answered.id, thumb=1)
    text = "Mở đầu.\n" + LAW
    store.commit(law.id, reading(text, (30,)), "", None)
    (suggestion,) = questions.suggestions(history.approved())
    (target,) = suggestion.targets
    assert words(text[target.start : target.end]) == words(LAW[START:END])


def test_incognito_conversations_leave_nothing(tmp_path, questions, answered):
    incognito = History(Database(tmp_path / "incognito.db"), incognito=True)
    conversation = incognito.create()
    asked = incognito.add(conversation.id, None, "user", "bí mật")
    reply = incognito.add(conversation.id, asked.id, "assistant", "[1]", sources=answered.sources)
    incognito.judge(reply.id, thumb=1)
    incognito.opened(reply.id, 1)
    assert incognito.approved()  # it is there to be gathered, but nobody asks this history


def test_no_word_of_a_document_is_kept_in_the_set(questions, database, law):
    questions.add("hỏi gì đó", [Target(law.id, START, END)])
    (question,) = questions.all()
    kept = str(dataclasses.asdict(question))
    assert "bốn tuần" not in kept
    rows = [tuple(row) for row in database.rows("SELECT * FROM gold")]
    assert "tuần" not in str(rows)
