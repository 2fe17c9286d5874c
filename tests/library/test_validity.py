"""What documents say of themselves: found where they say it once and clearly, empty otherwise."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.library.validity import validity_of
from chatbot.types import Fact, Validity

HEAD = """BỘ TÀI CHÍNH
Số: 12/2024/TT-BTC
CỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM
Độc lập - Tự do - Hạnh phúc
Hà Nội, ngày 05 tháng 7 năm 2024
THÔNG TƯ
Quy định về phí thẩm định
Căn cứ Luật Phí và lệ phí số 97/2015/QH13 ngày 25 tháng 11 năm 2015;
Điều 1. Phạm vi
Thông tư này quy định về phí.
Điều 2. Hiệu lực thi hành
"""


def said(text: str) -> dict[str, str]:
    facts = validity_of(text)
    names = ("number", "kind", "body", "title", "issued", "effective", "expires")
    return {name: fact.value for name in names if (fact := getattr(facts, name))}


def ties(text: str) -> set[tuple[str, str]]:
    return {(r.kind, r.number) for r in validity_of(text).relations}


def test_the_head_tells_number_kind_body_title_and_day():
    assert said(HEAD) == {
        "number": "12/2024/TT-BTC",
        "kind": "Thông tư",
        "body": "Bộ Tài chính",
        "title": "Quy định về phí thẩm định",
        "issued": "2024-07-05",
    }


def test_each_fact_keeps_the_words_that_say_it():
    text = HEAD + "1. Thông tư này có hiệu lực thi hành kể từ ngày 20 tháng 8 năm 2024.\n"
    facts = validity_of(text)
    found = (facts.number, facts.issued, facts.kind, facts.effective)
    assert [text[f.start : f.end] for f in found if f] == [
        "12/2024/TT-BTC",
        "ngày 05 tháng 7 năm 2024",
        "THÔNG TƯ",
        "Thông tư này có hiệu lực thi hành kể từ ngày 20 tháng 8 năm 2024",
    ]


@pytest.mark.parametrize(
    ("sentence", "day"),
    [
        ("Thông tư này có hiệu lực thi hành từ ngày 01 tháng 9 năm 2024.", "2024-09-01"),
        ("1. Thông tư này có hiệu lực kể từ ngày 01/9/2024, trừ khoản 2 Điều này.", "2024-09-01"),
        ("Thông tư này có hiệu lực thi hành kể từ ngày ký ban hành.", "2024-07-05"),
        ("Thông tư này có hiệu lực sau 45 ngày, kể từ ngày ký.", "2024-08-19"),
        (
            "Thông tư này có hiệu lực thi hành sau 45 (bốn mươi lăm) ngày kể từ ngày ký.",
            "2024-08-19",
        ),
        ("Thông tư này có hiệu lực thi hành kể từ ngày 15 tháng 02.năm 2025.", "2025-02-15"),
        ("Điều 3. Hiệu lực thi hành Thông tư này có hiệu lực từ ngày 01/9/2024.", "2024-09-01"),
    ],
)
def test_since_when_it_holds(sentence: str, day: str):
    assert said(HEAD + sentence + "\n")["effective"] == day


@pytest.mark.parametrize(
    "sentence",
    [
        "Khoản 1 Điều 1 của Thông tư này có hiệu lực thi hành từ ngày 01 tháng 01 năm 2025.",
        "Quyết định này có hiệu lực kể từ ngày ký.",
        "Sửa đổi như sau: “Thông tư này có hiệu lực từ ngày 01 tháng 01 năm 2025.”",
        "Hồ sơ nộp trước ngày Thông tư này có hiệu lực từ ngày 01 tháng 01 năm 2025.",
        "Thông tư này có hiệu lực thi hành kể từ ngày 31 tháng 02 năm 2025.",
        "Thông tư này có hiệu lực từ ngày 01 tháng 01 năm 2025.\n2. Thông tư này có hiệu lực từ ngày 02 tháng 01 năm 2025.",
    ],
)
def test_what_is_not_clear_is_not_guessed(sentence: str):
    assert "effective" not in said(HEAD + sentence + "\n")


def test_the_last_day_in_force():
    assert said(HEAD + "Thông tư này có hiệu lực từ ngày 01/8/2024 đến hết ngày 31 tháng 12 năm 2025.\n") == {
        **said(HEAD), "effective": "2024-08-01", "expires": "2025-12-31",
    }  # fmt: skip
    ended = said(HEAD + "Thông tư này hết hiệu lực kể từ ngày 01 tháng 01 năm 2026.\n")
    assert ended["expires"] == "2025-12-31"


def test_a_blank_dateline_is_no_day():
    assert "issued" not in said(HEAD.replace("ngày 05 tháng 7", "ngày    tháng   "))


def test_a_day_of_another_year_than_the_number_is_a_misreading():
    assert "issued" not in said(HEAD.replace("năm 2024\nTHÔNG", "năm 2014\nTHÔNG"))


def test_parliament_dates_its_laws_by_their_adoption():
    text = (
        "QUỐC HỘI\nLuật số: 51/2024/QH15\nCỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM\nLUẬT\nBẢO HIỂM Y TẾ\n"
        "Căn cứ Hiến pháp;\nĐiều 1. A\nĐiều 2. B\n"
        "Luật này được Quốc hội khóa XV, kỳ họp thứ 8 thông qua ngày 27 tháng 11 năm 2024.\n"
    )
    assert said(text) == {
        "number": "51/2024/QH15",
        "kind": "Luật",
        "body": "Quốc hội",
        "title": "BẢO HIỂM Y TẾ",
        "issued": "2024-11-27",
    }


def test_a_councils_resolution_says_adoption_and_effect_in_one_sentence():
    text = (
        "HỘI ĐỒNG NHÂN DÂN\nTỈNH HÀ NAM\nSố: 15/2021/NQ-HĐND\nCỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM\n"
        "Hà Nam, ngày 10 tháng 12 năm 2021\nNGHỊ QUYẾT\nVề mức thu\nCăn cứ Luật Phí;\nĐiều 1. A\nĐiều 2. B\n"
        "Nghị quyết này được Hội đồng nhân dân tỉnh Hà Nam khóa XIX thông qua ngày 10 tháng 12 năm 2021 và có"
        " hiệu lực từ ngày 20 tháng 12 năm 2021./.\n"
    )
    assert said(text) == {
        "number": "15/2021/NQ-HĐND",
        "kind": "Nghị quyết",
        "body": "HỘI ĐỒNG NHÂN DÂN TỈNH HÀ NAM",
        "title": "Về mức thu",
        "issued": "2021-12-10",
        "effective": "2021-12-20",
    }


def test_joint_circulars_have_several_bodies():
    text = HEAD.replace("12/2024/TT-BTC", "12/2024/TTLT-BTC-BNV").replace(
        "THÔNG TƯ\n", "THÔNG TƯ LIÊN TỊCH\n"
    )
    assert said(text)["body"] == "Bộ Tài chính, Bộ Nội vụ"


def test_a_body_without_a_known_abbreviation_is_read_from_the_letterhead():
    text = HEAD.replace(
        "BỘ TÀI CHÍNH\nSố: 12/2024/TT-BTC", "ỦY BAN NHÂN DÂN\nTỈNH HÀ NAM\nSố: 12/2024/QĐ-UBND"
    )
    assert said(text.replace("THÔNG TƯ\n", "QUYẾT ĐỊNH\n"))["body"] == "ỦY BAN NHÂN DÂN TỈNH HÀ NAM"


def test_a_kind_that_contradicts_the_number_is_none():
    assert "kind" not in said(HEAD.replace("THÔNG TƯ\n", "NGHỊ ĐỊNH\n"))


def test_consolidated_texts_take_number_and_day_from_their_authentication():
    text = (
        "VĂN BẢN HỢP NHẤT - BỘ TÀI CHÍNH\nCỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM\nTHÔNG TƯ\nQuy định phí theo"
        " Quyết định số 9/2010/QĐ-TTg\nThông tư số 5/2013/TT-BTC ngày 15 tháng 5 năm 2013 của Bộ Tài chính, có"
        " hiệu lực kể từ ngày 01 tháng 7 năm 2013, được sửa đổi, bổ sung bởi:\nThông tư số 7/2020/TT-BTC ngày 1.\n"
        "Căn cứ A;\nĐiều 1. B\nThông tư này có hiệu lực từ ngày 01/7/2013./.\nBỘ TÀI CHÍNH\nSố: 26/VBHN-BTC\n"
        "XÁC THỰC VĂN BẢN HỢP NHẤT\nHà Nội, ngày 21 tháng 6 năm 2024\n"
    )
    assert said(text) == {
        "number": "26/VBHN-BTC",
        "kind": "Văn bản hợp nhất",
        "body": "Bộ Tài chính",
        "title": "Quy định phí theo Quyết định số 9/2010/QĐ-TTg",
        "issued": "2024-06-21",
    }
    assert ties(text) == {("consolidates", "5/2013/TT-BTC")}


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("2. Thông tư này thay thế Thông tư số 1/2010/TT-BTC ngày 1.", {("replaces", "1/2010/TT-BTC")}),
        (
            "Thông tư này có hiệu lực từ ngày 01/8/2024 và thay thế Thông tư số 1/2010/TT-BTC ngày 1, Thông tư số 2/2011/TT-BTC ngày 3.",
            {("replaces", "1/2010/TT-BTC"), ("replaces", "2/2011/TT-BTC")},
        ),
        (
            "2. Thông tư này thay thế các Thông tư số 1/2010/TT-BTC ngày 01/02/2010, 2/2011/TT-BTC và Quyết định số 3/2009/QĐ-BTC.",
            {("replaces", n) for n in ("1/2010/TT-BTC", "2/2011/TT-BTC", "3/2009/QĐ-BTC")},
        ),
        ("3. Bãi bỏ Thông tư số 1/2010/TT-BTC của Bộ Tài chính.", {("repeals", "1/2010/TT-BTC")}),
        ("3. Bãi bỏ khoản 2 Điều 5 Thông tư số 1/2010/TT-BTC.", {("amends", "1/2010/TT-BTC")}),
        (
            "Thông tư số 1/2010/TT-BTC ngày 1 và Thông tư số 2/2011/TT-BTC ngày 2 hết hiệu lực kể từ ngày Thông tư này có hiệu lực.",
            {("repeals", "1/2010/TT-BTC"), ("repeals", "2/2011/TT-BTC")},
        ),
        (
            "Kể từ ngày Thông tư này có hiệu lực thi hành, Thông tư số 1/2010/TT-BTC hết hiệu lực thi hành.",
            {("repeals", "1/2010/TT-BTC")},
        ),
        (
            "2. Các văn bản sau hết hiệu lực kể từ ngày Thông tư này có hiệu lực:\na) Thông tư số 1/2010/TT-BTC;\nb) Điều 3 Thông tư số 2/2011/TT-BTC.\n3. Khác.",
            {("repeals", "1/2010/TT-BTC"), ("amends", "2/2011/TT-BTC")},
        ),
        (
            "Điều 3. Sửa đổi, bổ sung một số điều của Thông tư số 1/2010/TT-BTC đã được sửa đổi, bổ sung bởi Thông tư số 2/2011/TT-BTC",
            {("amends", "1/2010/TT-BTC")},
        ),
        ("Phí thực hiện theo Thông tư số 1/2010/TT-BTC sửa đổi, bổ sung Thông tư số 2/2011/TT-BTC.", set()),
        ("3. Bãi bỏ các quy định trước đây trái với Thông tư này.", set()),
        ("3. Bãi bỏ Nghị định số 1/2010/NĐ-CP.", set()),  # no circular can
        ("Giấy phép hết hiệu lực theo Thông tư số 1/2010/TT-BTC.", set()),
    ],
)  # fmt: skip
def test_what_it_changes_and_ends(sentence: str, expected: set[tuple[str, str]]):
    assert ties(HEAD + sentence + "\n") == expected


def test_the_title_of_an_amending_document_names_what_it_amends():
    text = HEAD.replace(
        "Quy định về phí thẩm định",
        "Sửa đổi, bổ sung một số điều của Thông tư số 26/2016/TT-BTC ngày 01 tháng 9 năm 2016 của Bộ trưởng"
        " Bộ Tài chính hướng dẫn A và Thông tư số 27/2016/TT-BTC hướng dẫn Nghị định số 1/2015/NĐ-CP",
    )
    assert ties(text) == {("amends", "26/2016/TT-BTC"), ("amends", "27/2016/TT-BTC")}


def test_annexes_do_not_speak_for_the_document():
    text = HEAD + "Điều 3. Thi hành./.\nPHỤ LỤC\nThông tư này có hiệu lực từ ngày 01/01/2030.\n"
    assert "effective" not in said(text)


def test_an_english_agreement_says_its_days():
    text = (
        "SERVICE AGREEMENT\nThis Service Agreement is made and entered into as of January 5, 2024 by A and B.\n"
        "This Agreement shall take effect on 1 February 2024.\n"
    )
    assert said(text) == {
        "title": "SERVICE AGREEMENT",
        "issued": "2024-01-05",
        "effective": "2024-02-01",
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Ghi chú: mua sữa ngày 05 tháng 7 năm 2024",
        "Notes of January 5, 2024",
        "Điều 1. A\nĐiều 2. B",
    ],
)
def test_other_texts_say_nothing(text: str):
    assert validity_of(text) == Validity()


@given(
    st.lists(
        st.sampled_from([*HEAD.split("\n"), "“", "”", "Bãi bỏ", "Số: 1/2020/QĐ-X"]),
        max_size=40,
    )
)
def test_any_mixture_of_lines_gives_facts_with_evidence(lines: list[str]):
    text = "\n".join(lines)
    facts = validity_of(text)
    for name in ("number", "kind", "body", "title", "issued", "effective", "expires"):
        fact = getattr(facts, name)
        assert fact is None or (
            isinstance(fact, Fact) and fact.value and 0 <= fact.start < fact.end <= len(text)
        )


@pytest.mark.parametrize(
    "piece",
    [
        "Bãi bỏ khoản 1 ",
        "Thông tư số 1/2010/TT-BTC và ",
        "hết hiệu lực ",
        "“Thông tư này có hiệu lực từ ",
        "Số: 1/",
        "\n",
    ],
)
def test_hostile_repetition_takes_time_in_proportion(piece: str):
    started = time.perf_counter()
    validity_of(HEAD + piece * (200_000 // len(piece)))
    assert time.perf_counter() - started < 6
