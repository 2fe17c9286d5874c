"""What the lexical index makes of a question: typing errors, everyday words, initials, words that only ask."""

import pytest

from chatbot.library.index_lexical import IndexedPassage, LexicalIndex, initials, slips
from chatbot.library.other_words import other_words
from chatbot.text import joining_words

TEXTS = {
    "hoc-vu": "Sinh viên bị cảnh báo học vụ khi điểm trung bình dưới một phẩy không.",
    "chuong-1": "Chương I. Những quy định chung của nhà trường.",
    "luong": "Trả lương thấp hơn mức lương tối thiểu thì bị phạt tiền.",
    "sinh-con": "Lao động nữ sinh con được nghỉ theo chế độ thai sản.",
    "leave": "The employee receives fifteen days of paid leave; unused leave is paid out.",
}


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    index = LexicalIndex(tmp_path_factory.mktemp("words"))
    index.add(IndexedPassage(id_, id_, f"{id_}.txt", "", text, None) for id_, text in TEXTS.items())
    index.add(
        [IndexedPassage("35", "blld", "Bộ luật Lao động.pdf", "Điều 35. Quyền", "Nội dung.", None)]
    )
    index.commit()
    return index


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("sinh vien bi canh bao hco vu", "sinh vien bi canh bao hoc vu"),
        ("Sinh viên bị cảnh boá học vụ", "Sinh viên bị cảnh bao học vụ"),
        ("mức lươgn tối thiểu", "mức luong tối thiểu"),
        ("how many days of paid leavee", "how many days of paid leave"),
    ],
)
def test_a_word_the_library_lacks_is_put_right_by_one_slip_and_its_neighbours(index, typed, meant):
    assert index.corrected(typed) == meant


@pytest.mark.parametrize(
    "question", ["", "???", "sinh viên bị cảnh báo học vụ", "xyzzy plugh qwrt"]
)
def test_known_words_and_unknown_languages_stay_as_they_are(index, question):
    assert index.corrected(question) == question


def test_slips_are_one_letter_away():
    assert {"hoc", "hc", "hca", "xhco"} <= {*slips("hco")}
    assert "hco" not in {*slips("hco")}


def test_a_document_is_found_by_its_initials(index):
    assert initials("Bộ luật Lao động 2019") == "blld"
    assert initials("Handbook") == ""
    assert index.query("dieu 35 blld", 3)[0][0] == "35"


def test_everyday_words_and_the_other_language_find_official_words(index):
    assert "sinh con" in other_words("Vợ đẻ thì sao?")
    assert other_words("để làm gì") == []  # 'để' (for) is not 'đẻ' (to give birth)
    assert index.query("Vợ đẻ", 3)[0][0] == "sinh-con"
    assert index.query("minimum wage", 3)[0][0] == "luong"
    assert index.other_weights("minimum wage").keys() >= {"luong", "toi", "thieu"}


def test_words_that_only_ask_count_little(index):
    assert joining_words("What is the notice period?") >= {"what", "is", "the"}
    assert "ma" in joining_words("người mà trốn")
    assert "ma" not in joining_words("tàng trữ ma túy")
    asked, named = (dict(index.query(q, 9))["chuong-1"] for q in ("Can I leave", "Chương I"))
    assert asked < 0.3 * named
