"""Evidence: strong for an answer, weak for another subject, nothing for nothing."""

from dataclasses import replace

import pytest

from chatbot.retrieval.lexical import Evidence, strength

WEIGHTS = {"sinh": 1.0, "vien": 1.0, "bi": 0.2, "canh": 2.5, "bao": 2.0, "hoc": 0.8, "vu": 1.5}
QUESTION = "Sinh viên bị cảnh báo học vụ"
ANSWER = "Điều 20. Cảnh báo học vụ. Sinh viên bị cảnh báo khi điểm trung bình dưới 1,0."
OTHER = "Điều 3. Học phí của sinh viên được thu theo học kỳ."


def passages(*scored):
    return [Evidence("", "", text, score) for text, score in scored]


THERE = passages((ANSWER, 20.0), (OTHER, 6.0), (OTHER, 5.0))
ELSEWHERE = passages((OTHER, 6.0), ("Học viện", 5.8), ("Viên chức học vụ", 5.7))


def test_an_answer_that_stands_out_is_strong():
    assert strength(QUESTION, WEIGHTS, THERE) > 0.9


def test_passages_on_another_subject_are_weak():
    assert strength(QUESTION, WEIGHTS, ELSEWHERE) < 0.2


def test_accents_and_asking_words_do_not_matter():
    said = strength(QUESTION, WEIGHTS, THERE)
    asking = {"khi": 3.0, "nao": 3.0, "thi": 3.0, "duoc": 3.0}
    assert strength("Sinh viên bị cảnh báo học vụ khi nào?", WEIGHTS | asking, THERE) == said
    assert strength("Sinh vien bi canh bao hoc vu", WEIGHTS, THERE) == pytest.approx(said, abs=0.1)


@pytest.mark.parametrize(
    ("weights", "found"),
    [({}, []), (WEIGHTS, []), (WEIGHTS, passages(("xyz", None))), ({}, passages((ANSWER, 3.0)))],
)
def test_nothing_in_common_is_no_evidence(weights, found):
    assert strength(QUESTION, weights, found) == 0


def test_more_of_the_question_covered_is_never_weaker():
    growing = ["sinh viên", "sinh viên cảnh", "sinh viên cảnh báo", "sinh viên cảnh báo học vụ"]
    values = [strength(QUESTION, WEIGHTS, passages((text, 5.0))) for text in growing]
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_words_far_apart_are_weaker_than_words_together():
    scattered = " và ".join(["cảnh", *["gì"] * 60, "báo", *["gì"] * 60, "học vụ sinh viên bị"])
    together = replace(THERE[0], text="cảnh báo học vụ sinh viên bị")
    apart = replace(THERE[0], text=scattered)
    assert strength(QUESTION, WEIGHTS, [apart]) < strength(QUESTION, WEIGHTS, [together])


def test_a_missing_name_or_number_weighs_more_than_a_missing_word():
    weights = {"sales": 1.0, "in": 0.1, "berlin": 3.0, "growth": 3.0}
    found = passages(("Sales in the north went up.", 5.0), ("Rain", 4.0))
    name, word = (strength(f"Sales in {last}", weights, found) for last in ("Berlin", "growth"))
    assert name < word


def test_a_second_copy_of_the_same_text_takes_nothing_away():
    copied = [THERE[0], THERE[0], *THERE[1:]]
    assert strength(QUESTION, WEIGHTS, copied) == strength(QUESTION, WEIGHTS, THERE)


VACATION = "How many vacation days are there"
LEAVE = Evidence("Handbook", "5. Annual leave", "Employees have 26 days of paid leave.", None, 0.62)
FAR = [0.2 + 0.01 * n for n in range(20)]


def test_meaning_alone_answers_when_it_stands_out_from_the_other_candidates():
    weights = {"vacation": 4.0, "days": 2.0}
    assert strength(VACATION, weights, [LEAVE]) < 0.3
    assert strength(VACATION, weights, [LEAVE], [0.62, *FAR]) > 0.3
    assert strength(VACATION, weights, [replace(LEAVE, dense=0.4)], [0.4, *FAR]) < 0.3


def test_meaning_is_heard_alike_wherever_a_model_puts_its_similarities():
    weights = {"vacation": 4.0}
    low = strength(VACATION, weights, [LEAVE], [0.62, *FAR])
    high = strength(
        VACATION,
        weights,
        [replace(LEAVE, dense=0.7 + 0.3 * 0.62)],
        [0.7 + 0.3 * s for s in [0.62, *FAR]],
    )
    assert high == pytest.approx(low)
