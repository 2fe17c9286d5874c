"""Passages: together the document exactly, never two articles in one, each with its place."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.library.chunking import LIMIT, cut, document_text
from chatbot.library.legal import ARTICLE, legal_marks
from chatbot.types import Heading, PageText

LINES = st.one_of(
    st.text(max_size=200),
    st.sampled_from(
        [
            "Phần thứ nhất", "Chương II", "QUY ĐỊNH CHUNG", "Mục 1. Đăng ký", "Điều 1. Phạm vi", "Điều 2. Đối tượng",
            "Điều 12 của Luật này quy định…", "1. Sinh viên phải đóng học phí.", "2. Nhà trường công bố mức thu.",
            "a) Trường hợp thứ nhất;", "đ) Trường hợp khác.", "“Điều 5a. Sửa đổi", "Article 3. Leave", "1.2 Heading",
            "# Title", "Chapter 4", "", "Một câu dài. " * 150, "khôngcódấucách" * 120, "  lùi vào  ",
        ]
    ),
)  # fmt: skip
PAGES = st.lists(
    st.tuples(st.lists(LINES, max_size=12), st.sampled_from(["", "\n", " ", "\n\n"])), max_size=5
)


@given(PAGES)
@settings(max_examples=150, deadline=None)
def test_the_passages_of_any_document_joined_are_the_document(pages):
    pages = [PageText("\n".join(lines) + end, n) for n, (lines, end) in enumerate(pages, 1)]
    text = document_text(pages)
    passages = cut(pages)
    if not text.strip():
        assert passages == []
        return
    assert "".join(p.text for p in passages) == text
    assert passages[0].start == 0
    assert passages[-1].end == len(text)
    for passage, following in pairwise(passages):
        assert passage.end == following.start
    for passage in passages:
        assert text[passage.start : passage.end] == passage.text
        assert passage.text.strip(), "a passage of white space only"


@given(PAGES)
@settings(max_examples=100, deadline=None)
def test_no_passage_holds_two_articles(pages):
    pages = [PageText("\n".join(lines) + end) for lines, end in pages]
    starts = [m.start for m in legal_marks(document_text(pages)) if m.rank == ARTICLE]
    for passage in cut(pages):
        assert sum(passage.start <= s < passage.end for s in starts) <= 1


@given(PAGES, st.integers(30, 400))
@settings(max_examples=60, deadline=None)
def test_passages_cut_for_a_small_window_are_still_the_document_and_single_articles(pages, room):
    pages = [PageText("\n".join(lines) + end) for lines, end in pages]
    text = document_text(pages)
    starts = [m.start for m in legal_marks(text) if m.rank == ARTICLE]
    passages = cut(pages, fits=lambda path, words: len(path) + len(words) <= room)
    if text.strip():
        assert "".join(p.text for p in passages) == text
    for passage in passages:
        assert passage.text.strip()
        assert sum(passage.start <= s < passage.end for s in starts) <= 1


def test_a_section_is_cut_at_its_own_borders_until_its_passages_fit():
    clause = "Sinh viên phải nộp học phí đúng hạn theo quy định của nhà trường. " * 4
    pages = law("Điều 1. A", "x", "Điều 2. B", *(f"{n}. {clause}" for n in range(1, 5)))
    assert [p.path for p in cut(pages)] == ["Điều 1. A", "Điều 2. B"]
    fitted = cut(pages, fits=lambda _path, text: len(text) <= 300)
    assert [p.path for p in fitted] == [
        "Điều 1. A",
        *(f"Điều 2. B › Khoản {n}" for n in range(1, 5)),
    ]


def law(*articles: str) -> list[PageText]:
    return [PageText("\n".join(articles) + "\n")]


def test_a_short_article_stays_whole_and_carries_its_path():
    first, second = cut(law(
        "Chương I", "QUY ĐỊNH CHUNG", "Điều 1. Phạm vi điều chỉnh", "1. Một.", "2. Hai.",
        "Điều 2. Đối tượng áp dụng", "Sinh viên.",
    ))  # fmt: skip
    assert first.path == "Chương I › Điều 1. Phạm vi điều chỉnh"
    assert first.text.startswith("Chương I\nQUY ĐỊNH CHUNG\nĐiều 1.")
    assert second.path == "Chương I › Điều 2. Đối tượng áp dụng"


def test_a_long_article_is_cut_before_clauses_and_says_which():
    clause = "Sinh viên phải thực hiện đầy đủ nghĩa vụ theo quy định của nhà trường. " * 8
    passages = cut(
        law("Điều 1. Ngắn", "Một.", "Điều 2. Dài", *(f"{n}. {clause}" for n in range(1, 6)))
    )
    assert [p.path for p in passages] == [
        "Điều 1. Ngắn",
        *(f"Điều 2. Dài › Khoản {n}" for n in range(1, 6)),
    ]
    assert passages[1].text.startswith("Điều 2. Dài\n1. ")
    assert all(len(p.text) <= LIMIT for p in passages)


def test_small_clauses_are_gathered_and_the_path_names_the_range():
    clause = "Quy định chi tiết về việc học lại và học cải thiện điểm của sinh viên. " * 4
    passages = cut(law("Điều 1. A", "x", "Điều 2. B", *(f"{n}. {clause}" for n in range(1, 8))))
    assert [p.path for p in passages[1:]] == [
        "Điều 2. B › Khoản 1–3",
        "Điều 2. B › Khoản 4–6",
        "Điều 2. B › Khoản 7",
    ]


def test_points_stay_in_their_clause_unless_it_is_too_long():
    point = "trường hợp được hưởng chế độ theo quy định tại văn bản hướng dẫn kèm theo; " * 5
    letters = ["a", "b", "c", "d", "đ", "e"]
    passages = cut(
        law("Điều 1. A", "x", "Điều 2. B", "1. Gồm:", *(f"{c}) {point}" for c in letters))
    )
    assert [p.path for p in passages[1:]] == [
        "Điều 2. B › Khoản 1 › Điểm a–b",
        "Điều 2. B › Khoản 1 › Điểm c–d",
        "Điều 2. B › Khoản 1 › Điểm đ–e",
    ]


def test_the_page_of_a_passage_is_the_one_on_which_it_starts():
    pages = [
        PageText("Điều 1. Một\nNội dung.\n", 1),
        PageText("Tiếp theo trang trước.\nĐiều 2. Hai\nNội dung.\n", 2),
    ]
    assert [(p.path, p.page) for p in cut(pages)] == [("Điều 1. Một", 1), ("Điều 2. Hai", 2)]


def test_a_paragraph_without_any_border_is_still_cut():
    passages = cut([PageText("x" * 5000)])
    assert max(len(p.text) for p in passages) <= LIMIT
    assert len(passages) == 5


def test_headings_that_the_source_marks_become_the_path():
    text = "Guide\nIntro.\nInstall\nRun it.\nLinux\nUse apt.\nUse\nPress start.\n"
    levels = {"Guide": 1, "Install": 2, "Linux": 3, "Use": 2}
    headings = [
        Heading(text.index(t + "\n"), text.index(t + "\n") + len(t), n) for t, n in levels.items()
    ]
    assert [p.path for p in cut([PageText(text)], headings)] == [
        "Guide", "Guide › Install", "Guide › Install › Linux", "Guide › Use",
    ]  # fmt: skip


def test_numbered_headings_of_a_plain_text_become_the_path_but_a_list_does_not():
    text = (
        "Shopping:\n1. Milk\n2. Bread\n3. Eggs\n\n"
        "1. Working hours\nThe week has five days and the office opens at nine in the morning.\n"
        "1.1 Overtime\nOvertime is paid at one and a half times the hourly rate.\n"
        "2. Leave\nEverybody has twenty-six days of leave a year, and may carry five of them over.\n"
    )
    assert [p.path for p in cut([PageText(text)])] == [
        "",
        "1. Working hours",
        "1. Working hours › 1.1 Overtime",
        "2. Leave",
    ]


def test_english_chapters_and_articles_are_told_in_english():
    clause = "The member shall pay the fee within thirty days after receiving the invoice. " * 8
    passages = cut(
        law(
            "Chapter II",
            "Article 3. Fees",
            f"1. {clause}",
            f"2. {clause}",
            "Article 4. Leaving",
            "Write.",
        )
    )
    assert [p.path for p in passages] == [
        "Chapter II › Article 3. Fees › Clause 1",
        "Chapter II › Article 3. Fees › Clause 2",
        "Chapter II › Article 4. Leaving",
    ]
