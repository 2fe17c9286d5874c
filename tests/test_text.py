"""Text meets text: composed or decomposed, with marks or without, on both sides of a comparison."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.text import fold, folded_words, has_marks, language_of, nfc, sentences, words

TEXT = st.text(max_size=200)
VIETNAMESE = st.text(alphabet="ăâđêôơưáàảãạấềổữựịỳ ĂÂĐÊÔƠƯaeiouydt .,\n", max_size=200)


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Điều lệ", "dieu le"),
        ("ĐƯỜNG", "duong"),
        ("Nguyễn Thị Ánh", "nguyen thi anh"),
        ("Straße 12", "straße 12"),
        ("naïve café", "naive cafe"),
    ],
)
def test_folding_takes_the_marks_away(text, folded):
    assert fold(text) == folded
    assert fold(unicodedata.normalize("NFD", text)) == folded


@given(TEXT | VIETNAMESE)
def test_folding_twice_is_folding_once(text):
    assert fold(fold(text)) == fold(text)


@given(TEXT | VIETNAMESE)
def test_composed_and_decomposed_text_are_the_same(text):
    decomposed = unicodedata.normalize("NFD", text)
    assert fold(decomposed) == fold(text)
    assert words(decomposed) == words(text)
    assert folded_words(decomposed) == folded_words(text)
    assert has_marks(decomposed) == has_marks(text)


@given(VIETNAMESE)
def test_folded_text_has_no_letters_of_vietnamese_left(text):
    assert not has_marks(fold(text))


@given(TEXT)
def test_nfc_is_unicodes_own(text):
    assert nfc(text) == unicodedata.normalize("NFC", text)


@given(TEXT | VIETNAMESE)
def test_sentences_cover_all_text_in_order(text):
    spans = sentences(text)
    end = 0
    for start, stop in spans:
        assert end <= start < stop <= len(text)
        assert text[start:stop] == text[start:stop].strip()
        end = stop
    inside = "".join(text[start:stop] for start, stop in spans)
    assert [c for c in inside if c.isalnum()] == [c for c in text if c.isalnum()]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Một câu. Hai câu! Ba câu?", ["Một câu.", "Hai câu!", "Ba câu?"]),
        ("Điều 5. Cảnh báo học vụ.", ["Điều 5. Cảnh báo học vụ."]),
        (
            "1. Sinh viên nộp đơn.\n2. Nhà trường xét.",
            ["1. Sinh viên nộp đơn.", "2. Nhà trường xét."],
        ),
        ("Dr. Smith came. He left.", ["Dr. Smith came.", "He left."]),
        ("PGS. TS. Lê Văn A ký.", ["PGS. TS. Lê Văn A ký."]),
        ("Dòng một\nDòng hai", ["Dòng một", "Dòng hai"]),
        ("  \n ", []),
        ("", []),
        ("Chờ đã… Rồi đi.", ["Chờ đã…", "Rồi đi."]),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text, parts):
    assert [text[start:stop] for start, stop in sentences(text)] == parts


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Sinh viên bị cảnh báo học vụ khi nào?", "vi"),
        ("sinh vien bi canh bao hoc vu khi nao", "vi"),
        ("dieu kien tot nghiep la gi", "vi"),
        ("When does a student get a warning?", "en"),
        ("how many days of leave", "en"),
        ("Công ty ABC: annual leave", "vi"),
        ("12345", "en"),
        ("", "en"),
    ],
)
def test_the_language_of_a_question(text, language):
    assert language_of(text) == language
    assert language_of(unicodedata.normalize("NFD", text)) == language


@given(TEXT)
def test_the_language_is_always_one_of_two(text):
    assert language_of(text) in ("vi", "en")


def test_words_are_syllables_and_numbers():
    assert words("Điều 20, khoản 1: học-vụ") == ["Điều", "20", "khoản", "1", "học", "vụ"]
    assert folded_words("Điều 20, khoản 1") == ["dieu", "20", "khoan", "1"]
