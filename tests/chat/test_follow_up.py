"""A follow-up is searched with what it leaves out; a question that stands alone is never touched."""

from __future__ import annotations

import json

import pytest

from chatbot.chat.follow_up import accepted, request, standalone
from chatbot.evaluation.datasets import without_accents
from chatbot.text import folded_words
from chatbot.types import Message, Source

CREDITS = "Sinh viên năm cuối được đăng ký tối đa bao nhiêu tín chỉ?"
WARNED = "Sinh viên bị cảnh báo học vụ khi nào?"
LEAVE = "How many days of annual leave do full-time employees get?"
NOTICE = "How long is the notice period?"
FINE = "Mức phạt nồng độ cồn với xe máy năm 2023 là bao nhiêu?"

# (before, follow-up, words the search must have, words it must not have)
PAIRS = [
    (CREDITS, "Còn sinh viên năm nhất thì sao?", "sinh viên năm nhất tín chỉ", "cuối"),
    (CREDITS, "Thế còn sinh viên năm nhất?", "sinh viên năm nhất tín chỉ", "cuối thế"),
    (CREDITS, "Vậy còn sinh viên năm hai thì thế nào?", "sinh viên năm hai tín chỉ", "cuối"),
    (CREDITS, "the con sinh vien nam nhat thi sao", "sinh viên năm nhất tín chỉ", "cuối"),
    (CREDITS, "Còn học viên cao học?", "học viên cao học đăng ký tín chỉ", ""),
    (CREDITS, "Học viên cao học thì sao?", "học viên cao học đăng ký tín chỉ", ""),
    (CREDITS, "Tại sao vậy?", "sinh viên năm cuối tín chỉ", "vậy"),
    (CREDITS, "vi sao the", "sinh viên năm cuối tín chỉ", ""),
    ("Khoản 1 Điều 20 quy định gì?", "Còn khoản 2 thì sao?", "khoản 2 điều 20", "1"),
    ("Khoản 1 Điều 20 quy định gì?", "Khoản 2 nói gì?", "khoản 2 điều 20", "1"),
    ("Khoản 1 Điều 20 quy định gì?", "con khoan 2 thi sao", "khoản 2 điều 20", "1"),
    ("Điểm a khoản 1 Điều 20 quy định gì?", "Còn điểm b?", "điểm b khoản 1 điều 20", ""),
    ("Điểm a khoản 1 Điều 20 quy định gì?", "Còn Điều 21?", "điều 21", "20 khoản điểm"),
    ("Điều 35 Bộ luật Lao động quy định gì?", "Thế còn Điều 36?", "điều 36 bộ luật lao động", "35"),
    ("Điều 35 Bộ luật Lao động quy định gì?", "Còn khoản 2?", "khoản 2 điều 35 lao động", ""),
    ("What does Article 5 say?", "And Article 6?", "article 6", "5"),
    (WARNED, "Thế còn bị buộc thôi học?", "buộc thôi học sinh viên", "thế"),
    (WARNED, "Trường hợp đó xử lý thế nào?", "cảnh báo học vụ xử lý", ""),
    (WARNED, "Ai quyết định việc này?", "cảnh báo học vụ quyết định", ""),
    (WARNED, "Họ phải làm gì?", "sinh viên cảnh báo học vụ", ""),
    (WARNED, "Nếu vậy thì có được học tiếp không?", "cảnh báo học vụ học tiếp", ""),
    (WARNED, "truong hop do xu ly the nao", "cảnh báo học vụ xử lý", ""),
    (FINE, "Còn ô tô?", "phạt nồng độ cồn ô tô", ""),
    (FINE, "Còn với ô tô thì sao?", "phạt nồng độ cồn ô tô", ""),
    (FINE, "Còn năm 2024?", "phạt nồng độ cồn xe máy 2024", "2023"),
    (FINE, "Và người đi xe đạp?", "phạt nồng độ cồn xe đạp", ""),
    (FINE, "Mức này áp dụng từ khi nào?", "phạt nồng độ cồn áp dụng", ""),
    ("Học phí nộp khi nào?", "Nếu nộp muộn thì sao?", "học phí nộp muộn", ""),
    ("Học phí nộp khi nào?", "Nộp ở đâu thì được, còn sinh viên cũ?", "nộp sinh viên cũ", ""),
    (LEAVE, "And for contractors?", "annual leave contractors", ""),
    (LEAVE, "What about part-time employees?", "annual leave part time employees", "full"),
    (LEAVE, "How about interns?", "annual leave interns", ""),
    (LEAVE, "And part-time employees?", "annual leave part time employees", "full"),
    (LEAVE, "Same for interns?", "annual leave interns", ""),
    (LEAVE, "Why?", "annual leave employees", ""),
    (LEAVE, "Who approves it?", "annual leave approves", ""),
    (NOTICE, "Is it paid?", "notice period paid", ""),
    (NOTICE, "During probation?", "notice period probation", ""),
    (NOTICE, "But what if I am ill?", "notice period ill", ""),
    (NOTICE, "How is this calculated?", "notice period calculated", ""),
    ("What was Apple's revenue in 2022?", "And in 2023?", "apple revenue 2023", "2022"),
    ("What was Apple's revenue in 2022?", "What about net income?", "apple 2022 net income", ""),
]  # fmt: skip

ALONE = [
    "Học phí phải nộp trước ngày nào?",
    "Học bổng được xét thế nào?",
    "Con dưới 18 tuổi có được thừa kế không?",
    "Vay tiền ngân hàng cần giấy tờ gì?",
    "vay tien ngan hang can giay to gi",
    "con nuoi co duoc huong thua ke khong",
    "Thế chấp tài sản là gì?",
    "Thế nào là tội phạm?",
    "Còn bao nhiêu ngày phép?",
    "Họ tên của người ký là gì?",
    "Điều 36 Bộ luật Lao động quy định gì?",
    "Thời hạn nợ đọng bảo hiểm xã hội là bao lâu?",
    "Vì sao sinh viên bị buộc thôi học khi nợ quá 24 tín chỉ?",
    "How many days of annual leave are there?",
    "Why do contractors need a badge?",
    "What does the handbook say about remote work?",
    "Who approves overtime and how is it paid?",
]


def before(*questions: str, answer: str = "!", sources: tuple[Source, ...] = ()) -> list[Message]:
    messages = []
    for number, question in enumerate(questions):
        messages.append(Message(f"q{number}", "c", None, "user", question, 0))
        messages.append(Message(f"a{number}", "c", None, "assistant", answer, 0, sources=sources))
    return messages


@pytest.mark.parametrize(("earlier", "question", "there", "gone"), PAIRS)
def test_a_follow_up_is_searched_with_what_it_leaves_out(earlier, question, there, gone):
    found = folded_words(standalone(question, before(earlier)))
    assert set(folded_words(there)) <= set(found)
    assert not set(folded_words(gone)) & set(found)


@pytest.mark.parametrize("question", ALONE)
def test_a_question_that_stands_alone_is_not_touched(question):
    assert standalone(question, before(WARNED, LEAVE)) == question


@pytest.mark.parametrize("question", [follow_up for _, follow_up, _, _ in PAIRS])
def test_without_anything_before_it_a_follow_up_is_searched_as_it_is(question):
    assert standalone(question, []) == question


def test_questions_of_the_search_sets_are_not_touched(shared_data):
    """3,600 of them, also without marks; two of xquad-en refer to something and are joined to it."""
    altered = set()
    for name in ("alqac-vi", "xquad-vi", "xquad-en", "nq-en", "xquad-vi-en", "vnlaw-refusal"):
        lines = (shared_data / name / "queries.jsonl").read_text(encoding="utf-8").splitlines()
        for question in (json.loads(line)["text"] for line in lines):
            for written in (question, without_accents(question)):
                if standalone(written, before("What was said before?")) != written:
                    altered.add(written)
    assert altered == {
        "When was this edict declared?",
        "What goal do many of these protests have?",
    }


def test_follow_ups_of_follow_ups_keep_the_subject():
    asked = before(CREDITS, "Còn sinh viên năm nhất thì sao?", "Thế còn sinh viên năm hai?")
    found = standalone("Tại sao vậy?", asked)
    assert found == "sinh viên năm hai được đăng ký tối đa bao nhiêu tín chỉ?"


def test_a_clause_alone_lies_in_the_article_that_was_cited():
    sources = (
        Source(1, "p", "d", "x.pdf", 1, "Chương I › Điều 3", "…", 1.0),
        Source(2, "p", "d", "x.pdf", 6, "Chương IV › Điều 16. Cảnh báo › Khoản 1", "…", 1.0),
    )
    asked = before(WARNED, answer="Khi điểm dưới 1,0 [2].", sources=sources)
    found = standalone("Còn khoản 2?", asked)
    assert found.startswith("khoản 2 Điều 16")


@pytest.mark.parametrize(
    "said",
    [
        "Sinh viên năm nhất được đăng ký tối đa bao nhiêu tín chỉ?",
        "Câu hỏi: Sinh viên năm nhất được đăng ký tối đa bao nhiêu tín chỉ?",
        "<think>hmm</think>“Sinh viên năm nhất được đăng ký tối đa bao nhiêu tín chỉ?”",
    ],
)
def test_the_models_question_is_taken(said):
    wanted = "Sinh viên năm nhất được đăng ký tối đa bao nhiêu tín chỉ?"
    assert accepted(said, "Còn sinh viên năm nhất?", CREDITS) == wanted


@pytest.mark.parametrize(
    "said",
    [
        "",
        "   ",
        "How many credits may first-year students take?",
        "Sinh viên năm nhất được đăng ký tối đa 14 tín chỉ.",
        "Tối đa là bao nhiêu?",
        "Thời tiết Hà Nội hôm nay có mưa rào và dông rải rác không?",
        "Sinh viên năm nhất?\nTrả lời: 14",
        "Sinh viên năm nhất [1] được đăng ký bao nhiêu tín chỉ?",
        "Sinh viên năm nhất " * 40,
        "<think>sinh viên năm nhất",
    ],
)
def test_anything_else_the_model_says_is_not_searched(said):
    assert accepted(said, "Còn sinh viên năm nhất?", CREDITS) is None


def test_the_model_is_asked_in_the_questions_language():
    assert request("Còn sinh viên năm nhất?").startswith("Viết lại")
    assert request("And for contractors?").startswith("Rewrite")
