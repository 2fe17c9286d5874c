"""Official documents on the pages: chips, what changes what, and filters, in both languages."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from chatbot.services import Services
from chatbot.types import ConversationSettings, SearchFilter


def circular(number: str, day: str, more: str = "") -> bytes:
    d, m, y = day.split("/")
    return (
        f"BỘ TÀI CHÍNH\nSố: {number}\nCỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM\n"
        f"Hà Nội, ngày {d} tháng {m} năm {y}\n\nTHÔNG TƯ\nVề phí thẩm định\nCăn cứ Luật Phí;\n"
        "Điều 1. Mức phí\nMức phí thẩm định là 5 triệu đồng.\nĐiều 2. Hiệu lực\n"
        f"1. Thông tư này có hiệu lực kể từ ngày ký.\n{more}\n"
    ).encode()


@pytest.fixture
def library(services: Services) -> tuple[str, str]:
    """Two circulars, of which the later replaces the earlier; their ids."""
    ending = "2. Thông tư này thay thế Thông tư số 1/2020/TT-BTC ngày 01/2/2020."
    files = [
        ("old.txt", circular("1/2020/TT-BTC", "01/02/2020")),
        ("new.txt", circular("2/2024/TT-BTC", "05/07/2024", ending)),
    ]
    old, new = (d.id for d in services.add_documents(files))
    services.wait_until_read()
    return old, new


def opened(open_page, document_id: str) -> AppTest:
    app = open_page("documents.py")
    app.query_params["document"] = document_id
    return app.run()


def words(app: AppTest) -> str:
    return "\n".join(str(e.value) for e in (*app.markdown, *app.caption)).replace("\\", "")


def labels(app: AppTest) -> list[str]:
    return [b.label.replace("\\", "") for b in app.button]


@pytest.mark.parametrize(
    ("language", "issued", "in_force", "over", "replaced", "replaces"),
    [
        (
            "vi", "ban hành 01/02/2020", "hiệu lực từ 01/02/2020", "đã hết hiệu lực",
            "Được thay thế bởi Thông tư 2/2024/TT-BTC (có trong thư viện)", "Thay thế Thông tư 1/2020/TT-BTC",
        ),
        (
            "en", "issued 2020-02-01", "in force from 2020-02-01", "no longer in force",
            "Replaced by Thông tư 2/2024/TT-BTC (in your library)", "Replaces Thông tư 1/2020/TT-BTC",
        ),
    ],
)  # fmt: skip
def test_a_document_says_what_it_is_and_what_replaced_it(
    open_page, services, library, language, issued, in_force, over, replaced, replaces
):
    services.change_settings(language=language)
    old, new = library
    app = opened(open_page, old)
    assert not app.exception
    said = words(app)
    for expected in ("Thông tư 1/2020/TT-BTC", "Bộ Tài chính", issued, in_force, over):
        assert expected in said
    app = app.button[labels(app).index(replaced)].click().run()
    assert new in app.query_params["document"]
    assert "Thông tư 2/2024/TT-BTC" in words(app)
    assert replaces in labels(app)


def test_a_source_card_tells_since_when_it_holds_and_what_replaced_it(open_page, services, library):
    services.change_settings(language="vi")
    conversation = services.history.create(ConversationSettings(model="extractive"))
    services.answers.ask(conversation.id, "Mức phí thẩm định là bao nhiêu?").wait()
    app = open_page("chat.py", conversation=conversation.id)
    app.query_params["conversation"] = conversation.id
    said = words(app.run())
    assert "Thông tư 1/2020/TT-BTC · hiệu lực từ 01/02/2020" in said
    assert "Được thay thế bởi Thông tư 2/2024/TT-BTC (có trong thư viện)" in said


def test_a_conversation_can_be_held_to_what_was_in_force_on_a_day(services, library):
    old, new = library
    for day, expected in (("2024-07-04", {old}), ("2024-07-05", {new}), ("2019-01-01", set())):
        found = services.find("Mức phí thẩm định", SearchFilter(in_force_on=day))
        assert {r.passage.document_id for r in found.results} == expected


def test_the_chosen_filter_is_kept_with_the_conversation(services):
    wanted = SearchFilter(kinds=("Thông tư",), issued_from="2020-01-01", in_force_on="2024-01-01")
    conversation = services.history.create(ConversationSettings(filter=wanted))
    assert services.history.conversation(conversation.id).settings.filter == wanted


def test_the_list_is_narrowed_by_kind_of_official_document(open_page, services, library):
    services.add_documents([("note.txt", b"a note")])
    services.wait_until_read()
    app = open_page("documents.py")
    kind = next(s for s in app.selectbox if s.label == "Kind of official document")
    app = kind.set_value("Thông tư").run()
    shown = labels(app)
    assert "old.txt" in shown
    assert "new.txt" in shown
    assert "note.txt" not in shown
