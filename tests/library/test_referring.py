"""From 'theo quy định tại Điều 12' to Điều 12: in the same document, by number, by name."""

import json

import pytest

from chatbot.library.referring import referred
from tests.library.index_data import put

LAW = (
    "Chương I › Điều 5. Quyền|Quyền theo quy định tại khoản 2 Điều 12 của Luật này và Điều 3 Luật Cư trú.\n\n"
    "Chương II › Điều 12. Nghĩa vụ › Khoản 1|Một.\n\n"
    "Chương II › Điều 12. Nghĩa vụ › Khoản 2–4|Hai.\n\n"
    "Chương II › Điều 120. Khác|Thực hiện theo Điều 7 Nghị định số 100/2019/NĐ-CP."
)


@pytest.fixture
def library(database):
    put(
        database,
        {
            "luat-a": LAW,
            "Luật Cư trú": "Điều 3. Giải thích|Các từ ngữ.\n\nĐiều 4. Khác|Khác.",
            "nd": "Điều 7. Mức phạt|Phạt tiền.",
        },
    )
    facts = json.dumps({"number": {"value": "100/2019/NĐ-CP", "start": 0, "end": 14}})
    database.execute("UPDATE documents SET validity = ? WHERE id = 'nd'", (facts,))
    return database


def passages(library, *ids):
    from chatbot.types import Passage

    rows = library.rows(
        'SELECT id, document_id, ordinal, text, start, "end", page, path FROM passages'
        " WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
        (json.dumps(ids),),
    )
    return [Passage(*tuple(row)) for row in rows]


def test_the_clause_in_the_same_document_and_the_article_of_the_named_one(library):
    assert referred(library, passages(library, "luat-a:0")) == [
        ("luat-a:0", "luat-a:2"),
        ("luat-a:0", "Luật Cư trú:0"),
    ]


def test_a_document_is_known_by_its_official_number(library):
    assert referred(library, passages(library, "luat-a:3")) == [("luat-a:3", "nd:0")]


def test_what_is_there_already_or_in_the_trash_or_missing_is_not_brought(library):
    both = passages(library, "luat-a:0", "luat-a:2")
    assert ("luat-a:0", "luat-a:2") not in referred(library, both)
    library.execute("UPDATE documents SET deleted_at = 1 WHERE id = 'nd'")
    assert referred(library, passages(library, "luat-a:3")) == []
    assert referred(library, passages(library, "Luật Cư trú:1")) == []
