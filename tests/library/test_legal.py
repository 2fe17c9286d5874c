"""Legal structure: every heading found, no mention mistaken for one."""

from __future__ import annotations

import time

import pytest

from chatbot.library.legal import (
    ARTICLE,
    QUOTED,
    Reference,
    in_one_line,
    legal_marks,
    official_number,
    opens_item,
    references,
)


def articles(text: str) -> list[str]:
    return [m.label for m in legal_marks(text) if m.rank == ARTICLE]


TWO = "Điều 1. Một\nA.\nĐiều 2. Hai\nB.\n"


@pytest.mark.parametrize(
    "line",
    [
        "Điều 12 của Luật này quy định về học phí.",
        "Điều 12, Điều 13 và Điều 14 được áp dụng.",
        "điều 12. chữ thường ở giữa câu",
        "Điều kiện 1. Không phải điều luật",
        "Điều 3. Tên điều ......................... 15",
    ],
)
def test_a_mention_at_the_start_of_a_line_is_no_heading(line):
    assert articles(TWO + line + "\n") == ["Điều 1. Một", "Điều 2. Hai"]


def test_a_line_that_continues_a_sentence_is_no_heading():
    assert articles(
        TWO
        + "Việc xử lý thực hiện theo quy định tại\nĐiều 30. Tổ chức, cá nhân liên quan phối hợp.\n"
    ) == [
        "Điều 1. Một",
        "Điều 2. Hai",
    ]


def test_after_a_title_in_capitals_an_article_may_follow():
    text = "Điều 1. Một\nA.\nChương II\nBẢO HIỂM HƯU TRÍ BỔ SUNG\nĐiều 2. Hai\nB.\n"
    assert articles(text) == ["Điều 1. Một", "Điều 2. Hai"]


def test_every_level_is_found_with_its_name():
    text = (
        "Phần thứ nhất\nNHỮNG VẤN ĐỀ CHUNG\nCHƯƠNG I\nQUY ĐỊNH CHUNG\nMục 2. GIAO KẾT HỢP ĐỒNG\n"
        "Điều 1. Một\n1. Khoản một:\na) Điểm a;\nb) Điểm b.\n2. Khoản hai.\n"
        "Điều 2a: Hai\nNội dung.\nPHỤ LỤC I\nDANH MỤC\n"
    )
    assert [m.label for m in legal_marks(text)] == [
        "Phần thứ nhất", "Chương I", "Mục 2", "Điều 1. Một", "Khoản 1", "Điểm a", "Điểm b", "Khoản 2",
        "Điều 2a. Hai", "Phụ lục I",
    ]  # fmt: skip


def test_a_chapter_mentioned_in_a_sentence_is_no_chapter():
    text = TWO + "Chương V Nghị định này.\nMục 3 của phụ lục nêu rõ.\n"
    assert [m.label for m in legal_marks(text)] == ["Điều 1. Một", "Điều 2. Hai"]


def test_clauses_count_up_and_numbers_out_of_order_are_text():
    text = "Điều 1. Một\n1. A.\n2. B.\n15. Không phải khoản.\n3. C.\nĐiều 2. Hai\nx\n"
    assert [m.label for m in legal_marks(text) if m.label.startswith("Khoản")] == [
        "Khoản 1",
        "Khoản 2",
        "Khoản 3",
    ]


def test_articles_quoted_by_an_amendment_belong_to_the_amending_article():
    text = (
        "Điều 1. Sửa đổi Luật A\n1. Sửa đổi Điều 5 như sau:\n“Điều 5. Tên mới\n1. Nội dung mới.\n2. Nội dung nữa.”\n"
        "2. Bãi bỏ Điều 6.\nĐiều 2. Hiệu lực\nTừ ngày 01.\n"
    )
    marks = legal_marks(text)
    assert [m.label for m in marks if m.rank == ARTICLE] == [
        "Điều 1. Sửa đổi Luật A",
        "Điều 2. Hiệu lực",
    ]
    assert [m.label for m in marks if m.rank == QUOTED] == ["“Điều 5. Tên mới”"]
    assert [m.label for m in marks if m.label.startswith("Khoản")] == ["Khoản 1", "Khoản 2"]


def test_a_text_with_one_article_only_is_no_law():
    assert legal_marks("Điều 1. Một\nNội dung.\n") == []


def test_long_titles_are_shortened_at_a_word():
    title = in_one_line("Sửa đổi, bổ sung một số điều của Thông tư " * 5)
    assert len(title) <= 111
    assert title.endswith("…")


@pytest.mark.parametrize(
    "line", ["Điều 3. Tên", "1. Một", "a) Một", "đ) Một", "- Một", "• Một", "Chương II", "1.2. Một"]
)
def test_what_opens_an_item(line):
    assert opens_item(line)


@pytest.mark.parametrize(
    "line", ["Điều 3 của Luật", "15 tháng 8", "nghiệp) và", "Chương trình đào tạo", "1,5 lần"]
)
def test_what_does_not(line):
    assert not opens_item(line)


def test_after_a_preamble_that_ends_with_a_comma_the_text_begins():
    text = (
        "Bộ trưởng ban hành Thông tư,\nChương I\nQUY ĐỊNH CHUNG\nĐiều 1. Một\nA.\nĐiều 2. Hai\nB.\n"
    )
    assert [m.label for m in legal_marks(text)] == ["Chương I", "Điều 1. Một", "Điều 2. Hai"]
    text = "Bộ trưởng ban hành Thông tư,\nĐiều 1. Một\nA.\nĐiều 2. Hai\nB.\n"
    assert articles(text) == ["Điều 1. Một", "Điều 2. Hai"]


def test_an_article_named_after_its_clause_is_no_heading_wherever_the_page_ends():
    assert articles(TWO + "Thay cụm từ A thành B tại khoản 1\nĐiều 6.\nC.\n") == articles(TWO)


def test_amending_text_without_quotation_marks_is_quoted_all_the_same():
    text = (
        "Điều 1. Sửa đổi, bổ sung một số điều\n1. Điều 5 được sửa đổi như sau:\nĐiều 5. Tên mới\nNội dung.\n"
        "Điều 2. Hiệu lực\nTừ nay.\n"
    )
    assert articles(text) == ["Điều 1. Sửa đổi, bổ sung một số điều", "Điều 2. Hiệu lực"]
    assert [m.label for m in legal_marks(text) if m.rank == QUOTED] == ["“Điều 5. Tên mới”"]


def test_a_quoted_article_below_a_chapter_belongs_to_the_quotation():
    text = TWO + "Chương II\nHIỆU LỰC\nLuật kia quy định:\n“Điều 41. Hiệu lực\n1. Từ nay.”\n"
    assert articles(text) == ["Điều 1. Một", "Điều 2. Hai"]


def test_annexes_have_forms_and_headings_of_their_own():
    form = "Kính gửi cơ quan có thẩm quyền, chúng tôi đề nghị được xem xét theo quy định. " * 5
    text = (
        TWO + f"PHỤ LỤC I\nBIỂU MẪU\nMẫu số 01 Đơn\nMẫu số 02 Giấy\nMẫu số 01\n{form}\n"
        f"Mẫu số 02. Giấy đề nghị\nI. THÔNG TIN CHUNG\n{form}\n"
    )
    assert [m.label for m in legal_marks(text)][2:] == [
        "Phụ lục I", "Mẫu số 01", "Mẫu số 02", "I. THÔNG TIN CHUNG",
    ]  # fmt: skip


def test_a_list_of_forms_in_an_article_is_its_text():
    text = "Điều 1. Mẫu\n1. Gồm:\nMẫu số 01: Đơn xin\nMẫu số 02: Giấy phép\n2. Khác.\nĐiều 2. Hai\nB.\n"
    assert [m.label for m in legal_marks(text)] == [
        "Điều 1. Mẫu", "Khoản 1", "Khoản 2", "Điều 2. Hai",
    ]  # fmt: skip


def pointed(text: str) -> list[tuple[str, str, str, str]]:
    """(article, clause, point, document) of each reference; '' is this article, this document."""
    return [(r.article, r.clause, r.point, r.number or r.name) for r in references(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("theo quy định tại khoản 2 Điều 12 của Luật này", [("12", "2", "", "")]),
        ("Điều 5 Nghị định số 100/2019/NĐ-CP", [("5", "", "", "100/2019/NĐ-CP")]),
        ("điểm đ khoản 3 Điều 4a của Bộ luật Lao động.", [("4a", "3", "đ", "Bộ luật Lao động")]),
        ("khoản 2 Điều này", [("", "2", "", "")]),
        ("điểm a, b khoản 1 Điều 5", [("5", "1", "a", ""), ("5", "1", "b", "")]),
        (
            "điểm a khoản 1, khoản 3 Điều 7 và Điều 8 Luật Việc làm",
            [("7", "1", "a", "Luật Việc làm"), ("7", "3", "", "Luật Việc làm"), ("8", "", "", "Luật Việc làm")],
        ),
        ("các Điều 5, 6 và 9 Thông tư này", [("5", "", "", ""), ("6", "", "", ""), ("9", "", "", "")]),
        ("từ Điều 20 đến Điều 23", [(n, "", "", "") for n in ("20", "21", "22", "23")]),
        ("Điều 3 Luật này và Điều 4 Nghị định số 1/2020/NĐ-CP", [("3", "", "", ""), ("4", "", "", "1/2020/NĐ-CP")]),
        ("Điều 5 và 10 ngày làm việc", [("5", "", "", "")]),
        ("quan điểm a Điều kiện 1, điều trị 2 lần", []),
        ("pursuant to Clause 2 of Article 14", [("14", "2", "", "")]),
    ],
)  # fmt: skip
def test_what_a_text_points_to(text: str, expected: list[tuple[str, str, str, str]]):
    assert pointed(text) == expected


def test_a_reference_knows_where_it_stands_and_whether_it_stays_in_its_document():
    text = "Theo khoản 1 Điều 5 của Luật này."
    assert references(text) == (Reference(5, 32, "5", "1"),)
    assert text[5:32] == "khoản 1 Điều 5 của Luật này"
    assert references(text)[0].own
    assert not references("Điều 5 Luật Việc làm")[0].own


def test_headings_point_nowhere():
    assert pointed("Điều 5. Tên điều\n1. Theo Điều 6.\n“Điều 7. Tên mới\n") == [("6", "", "", "")]
    assert pointed("theo quy định tại\nĐiều 7. Còn lại") == [("7", "", "", "")]


def test_an_official_number_is_one_however_its_line_broke():
    assert official_number("29/2017/ TT-\n BLĐTBXH") == official_number("29/2017/TT–BLĐTBXH")


@pytest.mark.parametrize(
    "piece", ["khoản 1, khoản 2 và ", "điểm a, b khoản 1, ", "Điều 1, ", "Điều 1 đến "]
)
def test_long_lists_are_read_in_reasonable_time(piece: str):
    started = time.perf_counter()
    references(piece * 2000)
    assert time.perf_counter() - started < 5
