"""An answer belongs to Hearth, not to the page: it runs once, is kept as it grows, and always ends."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from chatbot.chat import answer
from chatbot.chat import reply as replies
from chatbot.chat.answer import Answers, Findings, Otherwise
from chatbot.chat.history import History, error_text
from chatbot.errors import Busy, ChildDied, DiskFullError, OutOfMemory
from chatbot.types import (
    ConversationSettings,
    Delta,
    EngineInfo,
    GenerationStats,
    Passage,
    SearchResult,
)


class ScriptedEngine:
    """An engine at the protocol's edge: says what it is told to, one piece at a time."""

    def __init__(self, pieces, *, backend="llama_cpp", error=None, gate=None) -> None:
        self.info = EngineInfo(backend, "scripted", 4096)
        self.pieces, self.error, self.gate = pieces, error, gate
        self.prompts = []
        self.closed = threading.Event()

    def stream(self, turns, options) -> Iterator[Delta]:
        self.prompts.append((turns, options))
        try:
            yield Delta(progress=0.5)
            for piece in self.pieces:
                yield Delta(text=piece)
                if self.gate:
                    self.gate.wait(10)
            if self.error:
                raise self.error
            yield Delta(stats=GenerationStats(answer_tokens=len(self.pieces), context=4096))
        finally:
            self.closed.set()

    def count_tokens(self, turns, *, thinking=True):
        return sum(len(t.text.split()) for t in turns)

    def close(self):
        pass


RESULT = SearchResult(
    Passage("p1", "d1", 0, "Cảnh báo khi điểm dưới 1,0.", 0, 27, 4, "Điều 20"), "quy-che.pdf", 0.9
)


@pytest.fixture
def history(database):
    return History(database)


@pytest.fixture
def answers_with(history):
    def make(engine, findings=Findings([RESULT], answers=True), **more):  # noqa: B008
        return Answers(
            lambda _id: history,
            lambda _q, _f: findings,
            lambda _m: engine,
            lambda: "balanced",
            **more,
        )

    return make


def test_an_answer_streams_cites_and_is_stored(history, answers_with):
    engine = ScriptedEngine(["Khi điểm ", "dưới 1,0 [1]", ", xem [9]."])
    conversation = history.create()
    reply = answers_with(engine).ask(conversation.id, "Bị cảnh báo khi nào?")
    message = reply.wait(10)
    assert message.text == "Khi điểm dưới 1,0 [1], xem."
    assert message.state == "complete"
    assert [s.document for s in message.sources] == ["quy-che.pdf"]
    assert history.branch(conversation.id)[1] == message
    assert "".join(reply) == message.text == "".join(reply)
    assert len(engine.prompts) == 1


def test_a_sentence_that_the_passage_does_not_back_is_marked_stored_and_told(history, answers_with):
    engine = ScriptedEngine(
        ["<think>ừ</think>Cảnh báo khi điểm dưới 2,5 [1]. ", "Cảnh báo khi điểm dưới 1,0 [1]."]
    )
    message = answers_with(engine).ask(history.create().id, "Bị cảnh báo khi nào?").wait(10)
    assert [s.supported for s in message.support] == [False, True]
    assert history.message(message.id) == message
    told = answer.summary(message)["support"]
    assert told[0]["sentence"] == "Cảnh báo khi điểm dưới 2,5 [1]."
    assert "2,5" in told[0]["reason"]


def test_an_answer_outlives_a_check_that_fails(history, answers_with, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("chatbot.chat.support.check", broken)
    message = answers_with(ScriptedEngine(["Đáp [1]."])).ask(history.create().id, "?").wait(10)
    assert (message.text, message.state, message.support) == ("Đáp [1].", "complete", ())


def test_not_found_is_no_claim(history, answers_with):
    answers = answers_with(ScriptedEngine([]), Findings([RESULT], answers=False))
    assert answers.ask(history.create().id, "Bán ở đâu?").wait(10).support == ()


def test_several_readers_join_at_any_point_and_read_the_same(history, answers_with):
    gate = threading.Event()
    engine = ScriptedEngine(["một ", "hai ", "ba"], gate=gate)
    reply = answers_with(engine).ask(history.create().id, "?")
    heard: list[str] = []
    early = threading.Thread(target=lambda: heard.append("".join(reply)))
    early.start()
    gate.set()
    early.join(10)
    assert heard == ["một hai ba"]
    assert "".join(reply.read(4)) == "hai ba"


def test_stop_keeps_what_was_written_and_closes_the_engines_stream(history, answers_with):
    gate = threading.Event()
    engine = ScriptedEngine(["phần đầu "] * 50, gate=gate)
    conversation = history.create()
    answers = answers_with(engine)
    reply = answers.ask(conversation.id, "?")
    next(iter(reply))
    reply.stop()
    gate.set()
    message = reply.wait(10)
    assert message.state == "stopped"
    assert message.text.startswith("phần đầu")
    assert engine.closed.wait(5)
    assert answers.running(conversation.id) is None
    assert history.branch(conversation.id)[1].state == "stopped"


def test_stop_is_heard_while_a_model_is_still_loading(history):
    begun, loaded = threading.Event(), threading.Event()

    def load(_model):
        begun.set()
        loaded.wait(30)
        return ScriptedEngine(["a"])

    found = Findings([RESULT], answers=True)
    answers = Answers(lambda _id: history, lambda _q, _f: found, load, lambda: "balanced")
    reply = answers.ask(history.create().id, "?")
    assert begun.wait(10)
    reply.stop()
    assert reply.wait(10).state == "stopped"
    assert not loaded.is_set()
    loaded.set()


def test_a_dead_worker_leaves_the_partial_text_and_a_reason_and_the_next_question_works(
    history, answers_with
):
    engine = ScriptedEngine(["nửa câu "], error=ChildDied("SIGKILL", name="worker"))
    conversation = history.create()
    answers = answers_with(engine)
    message = answers.ask(conversation.id, "?").wait(10)
    assert message.state == "failed"
    assert message.text.startswith("nửa câu")
    assert "SIGKILL" in error_text(message, "vi")
    engine.error = None
    assert answers.ask(conversation.id, "?").wait(10).state == "complete"


def test_weak_evidence_says_not_found_and_shows_the_nearest_without_asking_the_model(
    history, answers_with
):
    engine = ScriptedEngine(["bịa"])
    reply = answers_with(engine, Findings([RESULT], answers=False)).ask(
        history.create().id, "When?"
    )
    message = reply.wait(10)
    assert message.text == answer.NOT_FOUND
    assert len(message.sources) == 1
    assert engine.prompts == []


def test_model_only_never_searches_and_documents_too_answers_without_evidence(history):
    searched = []

    def find(question, _filter):
        searched.append(question)
        return Findings([RESULT], answers=False)

    engine = ScriptedEngine(["ý kiến"])
    answers = Answers(lambda _id: history, find, lambda _m: engine, lambda: "brief")
    none = history.create(ConversationSettings(scope="none"))
    assert answers.ask(none.id, "?").wait(10).text == "ý kiến"
    assert searched == []
    also = history.create(ConversationSettings(scope="also"))
    assert answers.ask(also.id, "hỏi").wait(10).sources == ()
    assert searched == ["hỏi"]


def test_regenerate_and_edit_make_branches(history, answers_with):
    engine = ScriptedEngine(["đáp"])
    answers = answers_with(engine)
    conversation = history.create()
    first = answers.ask(conversation.id, "A?").wait(10)
    second = answers.regenerate(conversation.id, first.id).wait(10)
    assert history.siblings(conversation.id)[first.id] == [first.id, second.id]
    asked = history.branch(conversation.id)[0]
    edited = answers.edit(conversation.id, asked.id, "B?").wait(10)
    assert [m.text for m in history.branch(conversation.id)] == ["B?", edited.text]


def test_a_second_question_in_the_same_conversation_waits_for_the_first(history, answers_with):
    gate = threading.Event()
    answers = answers_with(ScriptedEngine(["a"], gate=gate))
    conversation = history.create()
    reply = answers.ask(conversation.id, "?")
    with pytest.raises(Busy):
        answers.ask(conversation.id, "?")
    gate.set()
    reply.wait(10)


def test_two_tabs_that_ask_at_the_same_moment_cause_one_answer(history, answers_with, monkeypatch):
    meeting = threading.Barrier(2)
    branch = history.branch

    def both_look(conversation_id):
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(0.5)
        return branch(conversation_id)

    monkeypatch.setattr(history, "branch", both_look)
    gate = threading.Event()
    answers = answers_with(ScriptedEngine(["a"], gate=gate))
    conversation = history.create()
    outcomes: list[object] = []

    def ask() -> None:
        try:
            outcomes.append(answers.ask(conversation.id, "?"))
        except Busy as error:
            outcomes.append(error)

    tabs = [threading.Thread(target=ask) for _ in range(2)]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join(10)
    gate.set()
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Busy", "Reply"]


def test_a_full_disk_lets_the_answer_be_written_to_its_end(history, answers_with, monkeypatch):
    monkeypatch.setattr(answer, "SAVE_SECONDS", 0.0)

    def full(_message):
        raise DiskFullError("0 MB")

    monkeypatch.setattr(history, "save", full)
    conversation = history.create()
    answers = answers_with(ScriptedEngine(["một ", "hai"]))
    message = answers.ask(conversation.id, "?").wait(10)
    assert message.text == "một hai"
    assert "0 MB" in error_text(message, "vi")
    assert answers.running(conversation.id) is None


def test_half_a_surrogate_pair_is_stored_as_a_question_mark(history, answers_with):
    conversation = history.create()
    answers = answers_with(ScriptedEngine(["câu trả lời \ud800"]))
    assert answers.ask(conversation.id, "câu hỏi \udc00").wait(10).state == "complete"
    assert [m.text for m in history.branch(conversation.id)] == ["câu hỏi ?", "câu trả lời ?"]


def test_an_error_while_saving_still_ends_the_answer(history, answers_with, monkeypatch):
    def broken(_message):
        raise RuntimeError("boom")

    conversation = history.create()
    answers = answers_with(ScriptedEngine(["a"]))
    monkeypatch.setattr(history, "save", broken)
    message = answers.ask(conversation.id, "?").wait(10)
    assert "boom" in error_text(message, "vi")
    assert answers.running(conversation.id) is None


def test_who_waits_for_an_answer_is_watching_it(history, answers_with, monkeypatch):
    monkeypatch.setattr(replies, "_WATCH_SECONDS", 0.01)
    gate = threading.Event()
    reply = answers_with(ScriptedEngine(["a"], gate=gate)).ask(history.create().id, "?")
    waiting = threading.Thread(target=reply.wait, args=(10,))
    waiting.start()
    monkeypatch.setattr(reply, "_watched_at", time.monotonic() - 3600)
    deadline = time.monotonic() + 5
    while reply.unwatched_seconds > 1800 and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert reply.unwatched_seconds < 60
    gate.set()
    waiting.join(10)


def test_a_long_answer_is_on_disk_while_it_grows(history, answers_with, monkeypatch):
    monkeypatch.setattr(answer, "SAVE_SECONDS", 0.0)
    gate = threading.Event()
    conversation = history.create()
    reply = answers_with(ScriptedEngine(["nửa đầu ", "nửa sau"], gate=gate)).ask(
        conversation.id, "?"
    )
    next(iter(reply))
    deadline = time.monotonic() + 5
    while not (stored := history.branch(conversation.id)[1]).text and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert stored.text == "nửa đầu "
    assert stored.state == "writing"
    gate.set()
    reply.wait(10)


def test_an_answer_cut_by_a_crash_is_closed_at_the_next_start(history, answers_with):
    conversation = history.create()
    asked = history.add(conversation.id, None, "user", "?")
    history.add(conversation.id, asked.id, "assistant", "đang viết", state="writing")
    answers_with(ScriptedEngine([])).recover(history)
    message = history.branch(conversation.id)[1]
    assert (message.state, message.text) == ("stopped", "đang viết")
    assert answer.INTERRUPTED in message.notices


def test_nobody_watching_ends_the_answer_after_a_while(history, answers_with, monkeypatch):
    monkeypatch.setattr(answer, "UNWATCHED_SECONDS", -1.0)
    reply = answers_with(ScriptedEngine(["a", "b", "c"])).ask(history.create().id, "?")
    message = reply.wait(10)
    assert message.state == "stopped"
    assert answer.UNWATCHED in message.notices


def test_attached_files_are_awaited_before_the_search(history, answers_with):
    ready = threading.Event()
    conversation = history.create()
    reply = answers_with(ScriptedEngine(["đáp"]), files_ready=lambda _id: ready.is_set()).ask(
        conversation.id, "?"
    )
    deadline = time.monotonic() + 5
    while reply.phase != "adding" and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert reply.phase == "adding"
    ready.set()
    assert reply.wait(10).state == "complete"


def test_without_a_model_and_without_documents_the_reply_says_what_to_do(history, answers_with):
    engine = ScriptedEngine(["x"], backend="extractive")
    conversation = history.create(ConversationSettings(scope="none"))
    message = answers_with(engine).ask(conversation.id, "What can you do?").wait(10)
    assert message.text == answer.NEEDS_MODEL


def test_ways_that_all_run_out_of_memory_come_to_an_end_by_themselves(history, answers_with):
    engine = ScriptedEngine(["a"], error=OutOfMemory(name="m"))
    otherwise = Otherwise(lambda: engine, lambda _language: "smaller")
    answers = answers_with(engine, instead=lambda _error: otherwise)
    conversation = history.create()
    last = answers.ask(conversation.id, "?").last()
    assert last.state == "failed"
    assert len(history.siblings(conversation.id)[last.id]) == 1 + answer.TRIES
    assert answers.running(conversation.id) is None


class TestFollowUps:
    """What is searched for a question that needs the one before it."""

    @pytest.fixture
    def searched(self, history):
        def ask(engine, *questions, rewritten=None):
            wanted = []

            def find(question, _filter):
                wanted.append(question)
                return Findings([RESULT], answers=True)

            answers = Answers(lambda _id: history, find, lambda _m: engine, lambda: "balanced")
            conversation = history.create()
            for question in questions:
                message = answers.ask(conversation.id, question).wait(10)
            return wanted, message

        return ask

    ASKED = ("Sinh viên năm cuối được học mấy tín chỉ?", "Còn sinh viên năm nhất thì sao?")
    JOINED = "sinh viên năm nhất được học mấy tín chỉ?"

    def test_without_a_model_rules_rewrite_it_and_the_page_says_so(self, searched):
        wanted, message = searched(ScriptedEngine(["!"], backend="extractive"), *self.ASKED)
        assert wanted == [self.ASKED[0], self.JOINED]
        assert message.notices == (f"Tìm với: {self.JOINED}",)

    def test_the_model_rewrites_it_in_few_tokens_and_its_words_are_only_searched(self, searched):
        told = "Sinh viên năm nhất được học mấy tín chỉ?"
        engine = ScriptedEngine([told])
        wanted, message = searched(engine, *self.ASKED)
        assert wanted[1] == told
        (_first, (asked, options), (turns, _)) = engine.prompts
        assert options.max_tokens <= 64
        assert not options.thinking
        # The side question begins as the answer's prompt does, so that nothing is read twice.
        assert [t.text for t in asked[:-1]] == [t.text for t in turns[: len(asked) - 1]]
        assert turns[-1].text.endswith(f"Câu hỏi: {self.ASKED[1]}")
        assert message.notices == (f"Tìm với: {told}",)

    def test_an_odd_word_of_the_model_is_not_searched(self, searched):
        wanted, _message = searched(ScriptedEngine(["Xin chào! Tôi giúp gì được?"]), *self.ASKED)
        assert wanted[1] == self.JOINED

    def test_a_question_that_stands_alone_costs_the_model_nothing(self, searched):
        engine = ScriptedEngine(["!"])
        questions = ("Sinh viên bị cảnh báo khi nào?", "Học phí phải nộp trước ngày nào?")
        wanted, message = searched(engine, *questions)
        assert wanted == list(questions)
        assert len(engine.prompts) == 2
        assert message.notices == ()

    def test_answered_otherwise_its_engine_is_loaded_once(self, history, answers_with):
        engine, loads = ScriptedEngine(["Sinh viên năm nhất được học mấy tín chỉ?"]), []
        answers = answers_with(engine)
        conversation = history.create()
        for question in self.ASKED:
            message = answers.ask(conversation.id, question).wait(10)

        def load():
            loads.append(1)
            return engine

        otherwise = Otherwise(load, lambda _language: "smaller")
        again = answers.regenerate(conversation.id, message.id, otherwise).wait(10)
        assert again.notices[0] == "smaller"
        assert len(engine.prompts) == 5  # the follow-up is rewritten both times
        assert len(loads) == 1
