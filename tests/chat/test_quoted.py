"""What an answer repeats of a passage is found where it stands, and only where that is certain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.chat.quoted import quoted_spans

PASSAGE = (
    "Điều 16. Cảnh báo học vụ\n"
    "1. Sinh viên bị cảnh báo học vụ nếu rơi vào một trong các trường hợp sau:\n"
    "a) Điểm trung bình học kỳ dưới 0,80 đối với học kỳ đầu;\n"
    "b) Điểm trung bình học kỳ dưới 1,00 đối với các học kỳ tiếp theo.\n"
    "2. Phòng Đào tạo thông báo cho sinh viên trong vòng 15 ngày."
)


def quoted(answer: str, number: int = 1) -> list[str]:
    return [PASSAGE[start:end] for start, end in quoted_spans(answer, number, PASSAGE)]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Theo quy chế, “Phòng Đào tạo thông báo cho sinh viên” [1].", ["Phòng Đào tạo thông báo cho sinh viên"]),
        ("- Phòng Đào tạo thông báo cho sinh viên trong vòng 15 ngày. [1]", ["Phòng Đào tạo thông báo cho sinh viên trong vòng 15 ngày"]),
        (
            "Sinh viên bị cảnh báo học vụ nếu rơi vào một trong các trường hợp sau:\n  - a) Điểm trung bình học kỳ dưới 0,80 đối với học kỳ đầu; [1]",
            ["Sinh viên bị cảnh báo học vụ nếu rơi vào một trong các trường hợp sau:", "a) Điểm trung bình học kỳ dưới 0,80 đối với học kỳ đầu;"],
        ),
        ("**Phòng Đào tạo** thông báo cho sinh viên trong vòng 15 ngày… [1]", ["Phòng Đào tạo thông báo cho sinh viên trong vòng 15 ngày"]),
        ("Cảnh báo học vụ 1. Sinh viên bị cảnh báo [1]", ["Cảnh báo học vụ\n1. Sinh viên bị cảnh báo"]),
        ("<think>“Phòng Đào tạo thông báo cho sinh viên” [1]</think>Không rõ [1].", []),
        ("“Phòng Đào tạo thông báo cho sinh viên” [2].", []),
        ("“Phòng Đào tạo thông báo cho sinh viên”.", []),
        ("Có thể bị cảnh báo khi điểm thấp [1].", []),
    ],
)  # fmt: skip
def test_quotations(answer, expected):
    assert quoted(answer) == expected


def test_words_that_stand_there_twice_or_are_too_few_are_shown_nowhere():
    assert quoted("“Điểm trung bình học kỳ dưới” [1]") == []
    assert quoted("“trong vòng” [1]") == []
    assert quoted("“iểm trung bình học kỳ dưới 0,80” [1]") == []  # not from the middle of a word


@given(answer=st.text("ab []1“”.\n-*… Điều") | st.text(), passage=st.text("ab .\n“Điều"))
def test_every_span_is_a_part_of_the_passage_and_none_overlap(answer, passage):
    spans = quoted_spans(f"{answer} [1]", 1, passage)
    assert spans == sorted(spans)
    ends = 0
    for start, end in spans:
        assert ends <= start < end <= len(passage)
        assert passage[start:end].strip()
        ends = end
