"""What the command line can ask of official documents: listed with their facts, searched by type and day."""

from __future__ import annotations

import pytest

from chatbot import services as rooms
from chatbot.api.commands import run
from chatbot.errors import SettingsError
from chatbot.settings import Paths, Settings, save_settings


def circular(number: str, day: str, more: str = "") -> bytes:
    d, m, y = day.split("/")
    return (
        f"BỘ TÀI CHÍNH\nSố: {number}\nCỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM\n"
        f"Hà Nội, ngày {d} tháng {m} năm {y}\n\nTHÔNG TƯ\nVề phí thẩm định\nCăn cứ Luật Phí;\n"
        "Điều 1. Mức phí\nMức phí thẩm định là 5 triệu đồng.\nĐiều 2. Hiệu lực\n"
        f"1. Thông tư này có hiệu lực kể từ ngày ký.\n{more}\n"
    ).encode()


@pytest.fixture
def services(paths: Paths):
    save_settings(paths.settings, Settings(language="en", samples_added=True))
    opened = rooms.open_services(paths)
    ending = "2. Thông tư này thay thế Thông tư số 1/2020/TT-BTC ngày 01/2/2020."
    opened.add_documents([
        ("old.txt", circular("1/2020/TT-BTC", "01/02/2020")),
        ("new.txt", circular("2/2024/TT-BTC", "05/07/2024", ending)),
        ("note.txt", "Mức phí thẩm định: xem thông tư.".encode()),
    ])  # fmt: skip
    opened.wait_until_read()
    yield opened
    rooms.close_services()


def found(services, **wanted) -> set[str]:
    result = run(services, "search", {"query": "mức phí thẩm định", **wanted})
    return {row["document"] for row in result["results"]}


def test_search_is_narrowed_by_type_and_day(services):
    assert found(services) == {"old.txt", "new.txt", "note.txt"}
    assert found(services, type="thong tu") == {"old.txt", "new.txt"}
    assert found(services, type="text") == {"old.txt", "new.txt", "note.txt"}
    assert found(services, type="pdf") == set()
    assert found(services, issued_after="2020-02-01") == {"new.txt"}
    assert found(services, issued_after="2020-01-31") == {"old.txt", "new.txt"}
    assert found(services, in_force_on="2024-07-04") == {"old.txt"}
    assert found(services, in_force_on="2024-07-05", type="Thông tư") == {"new.txt"}


@pytest.mark.parametrize(
    "wanted", [{"type": "nonsense"}, {"in_force_on": "2024-13-01"}, {"issued_after": "x"}]
)
def test_what_cannot_be_meant_is_said(services, wanted):
    with pytest.raises(SettingsError):
        found(services, **wanted)


def test_the_list_tells_the_facts_and_what_changed_a_document(services):
    rows = {row["document"]: row for row in run(services, "documents list", {})["documents"]}
    old = rows["old.txt"]
    assert {
        name: old[name] for name in ("number", "kind", "body", "issued", "effective", "expires")
    } == {
        "number": "1/2020/TT-BTC",
        "kind": "Thông tư",
        "body": "Bộ Tài chính",
        "issued": "2020-02-01",
        "effective": "2020-02-01",
        "expires": None,
    }
    assert old["changed_by"] == [
        {"relation": "replaces", "number": "2/2024/TT-BTC", "document": "new.txt"}
    ]
    assert rows["new.txt"]["relations"] == [{"relation": "replaces", "number": "1/2020/TT-BTC"}]
    assert rows["note.txt"]["number"] is None


def test_documents_of_an_older_hearth_are_asked_at_the_next_start(services, paths):
    services.database.execute("UPDATE documents SET validity = NULL")
    services.database.execute("DELETE FROM relations")
    rooms.close_services()
    again = rooms.open_services(paths)
    for job in again.jobs.list(kind="read_facts"):
        again.jobs.wait(job.id, 60)
    rows = {row["document"]: row for row in run(again, "documents list", {})["documents"]}
    assert rows["old.txt"]["changed_by"]
