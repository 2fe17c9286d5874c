"""Right places are found again: after another cut, another reading, in a copy of the file."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from chatbot.evaluation.gold import Anchor, Target, Words, anchored, contiguous, locate
from chatbot.text import words

LAW = (
    "Điều 1. Phạm vi\nQuy chế này áp dụng cho sinh viên chính quy của Trường.\n"
    "Điều 2. Học phí\nSinh viên nộp học phí trong vòng bốn tuần kể từ ngày học kỳ bắt đầu.\n"
    "Điều 3. Thư viện\nThẻ thư viện có hạn một năm kể từ ngày cấp, gia hạn tại quầy số hai.\n"
)
START = LAW.index("Điều 2")
END = LAW.index("Điều 3")

cuts = st.lists(st.integers(1, 999), max_size=12).map(sorted)
spans = st.tuples(st.integers(0, 999), st.integers(1, 400)).map(lambda p: (p[0], p[0] + p[1]))


@given(cuts, spans)
def test_however_a_text_is_cut_at_least_one_passage_is_right(places, span):
    borders = [0, *dict.fromkeys(places), 1000]
    end = min(span[1], 1000)
    target = Target("d", span[0], end)
    passages = [(a, b) for a, b in pairwise(borders) if a < b]
    assert any(target.covers("d", a, b) for a, b in passages)


def test_a_passage_that_only_touches_the_place_is_not_right():
    target = Target("d", 0, 1000)
    assert not target.covers("d", 900, 1900)
    assert target.covers("d", 400, 1400)
    assert target.covers("d", 900, 960)  # a small piece of it
    assert not target.covers("e", 0, 1000)
    assert Target("d").covers("d", 5, 6)


@given(st.text(alphabet="aăâ bđ\n.,", max_size=60))
def test_a_place_moves_with_what_stands_before_it(before):
    anchor = anchored(Words(LAW), START, END)
    text = before + "\n" + LAW
    found = locate(anchor, Words(text))
    assert found is not None
    assert words(text[slice(*found)]) == words(LAW[START:END])


def test_other_marks_spaces_and_case_do_not_hide_a_place():
    anchor = anchored(Words(LAW), START, END)
    reread = LAW.upper().replace("\n", "  \n ").replace("Ộ", "Ọ")
    found = locate(anchor, Words(reread))
    assert found is not None
    assert reread[slice(*found)].split()[0] == "ĐIỀU"
    assert "BỐN TUẦN" in reread[slice(*found)]
    assert "THƯ VIỆN" not in reread[slice(*found)]


def test_a_change_in_the_middle_leaves_the_edges():
    anchor = anchored(Words(LAW), START, END)
    edited = "Lời nói đầu.\n" + LAW.replace("vòng bốn tuần", "sáu tuần")
    found = locate(anchor, Words(edited))
    assert found is not None
    place = edited[slice(*found)]
    assert place.startswith("Điều 2. Học phí")
    assert place.endswith("học kỳ bắt đầu")


def test_of_two_equal_places_the_nearer_one_is_meant():
    text = "Phụ lục. Giữ nguyên. " * 2 + LAW + "Phụ lục. Giữ nguyên. "
    last = text.rindex("Phụ lục")
    anchor = anchored(Words(text), last, len(text))
    found = locate(anchor, Words("Thêm. " + text))
    assert found is not None
    assert abs(found[0] - last) <= 12


def test_what_is_gone_is_not_found():
    anchor = anchored(Words(LAW), START, END)
    assert locate(anchor, Words("Một văn bản khác hẳn, không có gì chung.")) is None
    assert locate(Anchor(0, None), Words("bất kỳ")) == (0, 6)


def test_the_print_keeps_no_words():
    anchor = anchored(Words(LAW), START, END)
    assert not {"học", "phí", "dieu"} & set(f"{anchor.head} {anchor.tail}".split())
    assert len(anchor.head) == 16


def test_the_first_unbroken_run():
    assert contiguous([3, 4, 5, 9, 10]) == [3, 4, 5]
    assert contiguous([]) == []
