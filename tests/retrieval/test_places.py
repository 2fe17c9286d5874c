"""Questions that name a place go there, however they name it; others name none."""

import pytest

from chatbot.retrieval.places import asked_place, stands_there

LABOUR = "Bộ luật Lao động.pdf"
PATH = "Chương III › Điều 35. Quyền đơn phương chấm dứt › Khoản 1–3"


@pytest.mark.parametrize(
    "question",
    [
        "Điều 35 Bộ luật Lao động",
        "dieu 35 bo luat lao dong",
        "điều 35 blld",
        "Dieu 35 BLLĐ quy định gì?",
        "Theo Bộ luật Lao động thì Điều 35 nói về gì",
        "khoản 2 điều 35 của bộ luật lao động",
    ],
)
def test_the_article_is_found_by_name_and_by_initials_with_and_without_marks(question):
    place = asked_place(question)
    assert place is not None
    assert stands_there(place, LABOUR, PATH)
    assert not stands_there(place, LABOUR, PATH.replace("35", "36"))
    assert not stands_there(place, "Luật Cư trú.pdf", PATH)


def test_the_very_clause_fits_better_than_another_piece_of_the_article():
    place = asked_place("khoản 2 điều 16 quy chế đào tạo")
    name = "Quy chế đào tạo 2021.docx"
    assert stands_there(place, name, "Điều 16. Cảnh báo › Khoản 1–3") == 2
    assert stands_there(place, name, "Điều 16. Cảnh báo › Khoản 4") == 1
    assert stands_there(place, name, "Điều 16. Cảnh báo") == 2
    assert stands_there(place, name, "Điều 160. Khác") == 0


def test_a_document_is_named_by_its_official_number_too():
    place = asked_place("Điều 17 Nghị định 12/2022/NĐ-CP")
    assert stands_there(
        place, "nghi-dinh-so-12-2022-nd-cp-36716.pdf", "Chương II › Điều 17. Tiền lương"
    )
    assert not stands_there(place, "nghi-dinh-so-74-2025-nd-cp-44712.pdf", "Điều 17. Khác")


@pytest.mark.parametrize(
    "question",
    [
        "Điều 35 nói gì",
        "Bộ luật Lao động quy định gì",
        "điều nào sau đây đúng",
        "What is article 12?",
    ],
)
def test_without_an_article_or_a_document_nothing_is_named(question):
    place = asked_place(question)
    assert place is None or not stands_there(place, LABOUR, PATH)
