"""Answers without a model: the right words, readable, each with its citation."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from chatbot.engines.base import EngineSpec
from chatbot.engines.extractive import FOUND, NOTHING_FOUND, Extractive
from chatbot.i18n import translate
from chatbot.types import Source, Turn
from tests.engines.conftest import GREEDY, source

RULES = """Điều 12. Cảnh báo học vụ
1. Sinh viên bị cảnh báo học vụ khi rơi vào một trong các trường hợp sau:
a) Điểm trung bình học kỳ đạt dưới 0,80 đối với học kỳ đầu của khóa học;
b) Tổng số tín chỉ không đạt vượt quá 50 % khối lượng đã đăng ký trong học kỳ.
2. Sinh viên bị buộc thôi học khi bị cảnh báo hai lần liên tiếp.
3. Thư viện mở cửa từ 8 giờ đến 17 giờ các ngày làm việc."""
LEAVE = """4.2 Annual leave. Every full-time employee earns eighteen working days of paid
annual leave per year. Leave that is not used by 31 March of the following year lapses.
4.3 Sick leave. An employee who is ill tells the manager before ten o'clock."""


def answer(question: str, *sources: Source, **options) -> str:
    turn = Turn("user", "the whole prompt", question, sources)
    deltas = Extractive(EngineSpec()).stream([turn], replace(GREEDY, max_tokens=999, **options))
    return "".join(delta.text for delta in deltas)


def test_a_clause_is_quoted_with_its_list() -> None:
    said = answer("Sinh viên bị cảnh báo học vụ khi nào?", source(RULES))
    assert "Sinh viên bị cảnh báo học vụ khi rơi vào một trong các trường hợp sau:" in said
    assert "a) Điểm trung bình học kỳ đạt dưới 0,80" in said
    assert "b) Tổng số tín chỉ không đạt vượt quá 50 %" in said
    assert "Thư viện" not in said
    assert "[1]" in said


def test_it_is_found_also_without_accents() -> None:
    said = answer("thu vien mo cua luc nao", source(RULES))
    assert said.startswith("Thư viện mở cửa từ 8 giờ đến 17 giờ")


def test_lines_that_a_margin_broke_are_joined() -> None:
    said = answer("How many days of annual leave do I get?", source(LEAVE))
    assert (
        "Every full-time employee earns eighteen working days of paid annual leave per year."
        in said
    )
    assert "ill tells" not in said


def test_every_quotation_carries_the_number_of_its_source() -> None:
    other = "Sinh viên bị cảnh báo học vụ được cố vấn học tập gặp riêng trong hai tuần."
    said = answer("cảnh báo học vụ", source(RULES, 1), source(other, 2))
    lines = [line for line in said.splitlines() if line.startswith("- ")]
    assert said.startswith(translate(FOUND, "vi"))
    assert len(lines) >= 2
    assert f"- {other} [2]" in lines
    quoted = {int(n) for n in re.findall(r"\[(\d+)\]", said)}
    assert quoted == {1, 2}


def test_the_same_sentence_is_quoted_once() -> None:
    text = "Sinh viên bị cảnh báo học vụ khi điểm thấp."
    said = answer("Khi nào bị cảnh báo học vụ?", source(text, 1), source(text, 2))
    assert said == f"{text} [1]"


@pytest.mark.parametrize(
    ("question", "language"), [("Ai là hiệu trưởng?", "vi"), ("Who is the headmaster?", "en")]
)
def test_nothing_found_is_said_in_the_language_of_the_question(question: str, language) -> None:
    assert answer(question) == translate(NOTHING_FOUND, language)
    assert answer(question, source("Xyz qwerty asdf zxcv.")) == translate(NOTHING_FOUND, language)


def test_headings_alone_are_no_answer() -> None:
    said = answer("Cảnh báo học vụ", source(RULES))
    assert not any(line.lstrip("- ").startswith("Điều 12") for line in said.splitlines())


def test_a_heading_helps_the_sentence_below_it() -> None:
    text = "Điều 3. Học bổng\nMức hưởng là hai triệu đồng.\nĐiều 4. Ký túc xá\nMức đóng là một triệu đồng."
    assert answer("Mức học bổng là bao nhiêu?", source(text)).startswith(
        "Mức hưởng là hai triệu đồng."
    )


def test_a_long_quotation_ends_at_a_word_and_says_so() -> None:
    said = answer("cảnh báo học vụ", source("Cảnh báo học vụ " + "rất dài " * 300 + "."))
    assert said.endswith("… [1]")
    assert len(said) < 750
