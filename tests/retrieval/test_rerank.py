"""The second look: what stands together, in a row, or in the heading, speaks louder than scattered words."""

from chatbot.retrieval.rerank import Asked, Read, rescored

QUESTION = "Người lao động được nghỉ hằng năm bao nhiêu ngày?"
WEIGHTS = {
    "nguoi": 1.0, "lao": 2.0, "dong": 2.0, "duoc": 0.5, "nghi": 2.0, "hang": 2.0, "nam": 1.5,
    "bao": 1.0, "nhieu": 1.0, "ngay": 1.5,
}  # fmt: skip
ASKED = Asked.of(QUESTION, WEIGHTS)


def score(text, *, path="", name="Luật.pdf", lexical=10.0, asked=ASKED):
    return rescored(asked, [Read(name, path, text, lexical)])[0]


def test_words_that_ask_tell_nothing_of_what_is_sought():
    assert {"bao", "nhieu"}.isdisjoint(ASKED.telling)
    assert {"nghi", "hang", "nam"} <= ASKED.telling.keys()
    assert 0 < ASKED.weights["nhieu"] < WEIGHTS["nhieu"]


def test_one_sentence_that_holds_the_question_beats_the_same_words_scattered():
    together = "Quy định chung. Người lao động được nghỉ hằng năm 12 ngày. Điều khoản khác."
    scattered = "Người nghỉ. Lao công đi. Động viên. Hằng tuần. Năm mới. Ngày khác. Quy định chung."
    assert score(together) > score(scattered)


def test_a_heading_that_was_asked_for_counts():
    text = "Chế độ theo thỏa thuận."
    assert score(text, path="Chương I › Điều 9. Nghỉ hằng năm") > score(
        text, path="Chương I › Điều 9. Tiền lương"
    )


def test_a_missing_number_counts_against():
    asked = Asked.of("mức đóng năm 2025", {"muc": 1.0, "dong": 1.0, "nam": 1.0, "2025": 3.0})
    assert score("Mức đóng năm 2025 là 8%.", asked=asked) > score(
        "Mức đóng năm 2019 là 8%.", asked=asked
    )


def test_words_that_stand_for_the_question_count_like_its_own():
    asked = Asked.of(
        "minimum wage", {"minimum": 5.0, "wage": 5.0}, {"luong": 1.0, "toi": 1.0, "thieu": 1.0}
    )
    assert score("Mức lương tối thiểu vùng.", asked=asked) > score("Nghỉ lễ, tết.", asked=asked)


def test_empty_texts_and_questions_without_words_have_a_score():
    assert score("") < score("Người lao động được nghỉ hằng năm.")
    assert score("Người lao động", asked=Asked.of("???", {})) == score(
        "Khác", asked=Asked.of("???", {})
    )
