"""Evidence: strong for an answer, weak for another subject, nothing for nothing."""

import pytest

from chatbot.retrieval.lexical import strength

WEIGHTS = {"sinh": 1.0, "vien": 1.0, "bi": 0.2, "canh": 2.5, "bao": 2.0, "hoc": 0.8, "vu": 1.5}
QUESTION = "Sinh viên bị cảnh báo học vụ"
ANSWER = "Điều 20. Cảnh báo học vụ. Sinh viên bị cảnh báo khi điểm trung bình dưới 1,0."
OTHER = "Điều 3. Học phí của sinh viên được thu theo học kỳ."


def test_an_answer_that_stands_out_is_strong():
    assert strength(QUESTION, WEIGHTS, [ANSWER, OTHER, OTHER], [20.0, 6.0, 5.0]) > 0.9


def test_passages_on_another_subject_are_weak():
    assert strength(QUESTION, WEIGHTS, [OTHER, OTHER, OTHER], [6.0, 5.8, 5.7]) < 0.2


def test_accents_do_not_matter():
    with_marks = strength(QUESTION, WEIGHTS, [ANSWER, OTHER, OTHER], [20.0, 6.0, 5.0])
    bare = strength(
        "Sinh vien bi canh bao hoc vu", WEIGHTS, [ANSWER, OTHER, OTHER], [20.0, 6.0, 5.0]
    )
    assert with_marks == bare


@pytest.mark.parametrize(
    ("weights", "texts", "scores"),
    [({}, [], []), (WEIGHTS, [], []), (WEIGHTS, ["xyz"], [None]), ({}, [ANSWER], [3.0])],
)
def test_nothing_in_common_is_no_evidence(weights, texts, scores):
    assert strength(QUESTION, weights, texts, scores) == 0


def test_more_of_the_question_covered_is_never_weaker():
    growing = ["sinh viên", "sinh viên cảnh", "sinh viên cảnh báo", "sinh viên cảnh báo học vụ"]
    values = [strength(QUESTION, WEIGHTS, [text], [5.0]) for text in growing]
    assert values == sorted(values)
    assert values[0] < values[-1]
