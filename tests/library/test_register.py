"""Stored facts: written with the document, filled in later for old ones, and tied to other documents."""

from __future__ import annotations

from chatbot.database import Database
from chatbot.library import index_scan
from chatbot.library.ingest import Ingest
from chatbot.library.listing import Listing
from chatbot.library.register import Register, Standing
from chatbot.library.store import DocumentStore
from chatbot.types import SearchFilter, Validity


def circular(number: str, day: str = "05/7/2024", *, more: str = "") -> bytes:
    d, m, y = day.split("/")
    return (
        f"BỘ TÀI CHÍNH\nSố: {number}\nCỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM\n"
        f"Hà Nội, ngày {d} tháng {m} năm {y}\n\nTHÔNG TƯ\nVề phí {number}\nCăn cứ Luật Phí;\n"
        f"Điều 1. Phí\nThu phí.\nĐiều 2. Hiệu lực\n1. Thông tư này có hiệu lực kể từ ngày ký.\n{more}\n"
    ).encode()


def added(ingest: Ingest, name: str, content: bytes, conversation: str | None = None) -> str:
    (document,) = ingest.add([(name, content)], conversation=conversation)
    return ingest.process(document.id).id


def visible(database: Database, **wanted: object) -> set[str]:
    where, values = index_scan.allowed(SearchFilter(**wanted))  # type: ignore[arg-type]
    return {r["name"] for r in database.rows(f"SELECT name FROM documents d WHERE {where}", values)}


def test_a_read_document_tells_what_it_says_of_itself(ingest: Ingest, store: DocumentStore):
    said = store.get(added(ingest, "a.txt", circular("1/2024/TT-BTC"))).validity
    facts = [fact.value for fact in (said.number, said.effective) if fact]
    assert facts == ["1/2024/TT-BTC", "2024-07-05"]
    assert store.get(added(ingest, "b.txt", b"a note")).validity == Validity()


def test_documents_of_an_older_hearth_are_filled_from_their_stored_text(
    ingest: Ingest, store: DocumentStore, database: Database
):
    register = Register(database)
    document_id = added(ingest, "a.txt", circular("1/2024/TT-BTC"))
    before = store.get(document_id).validity
    assert register.unread() == ()
    database.execute("UPDATE documents SET validity = NULL")
    assert register.unread() == (document_id,)
    register.fill(document_id)
    assert (register.unread(), store.get(document_id).validity) == ((), before)


def test_a_change_in_the_library_is_told_on_both_sides(ingest: Ingest, database: Database):
    register = Register(database)
    old = added(ingest, "old.txt", circular("1/2020/TT-BTC", "01/2/2020"))
    ending = "2. Thông tư này thay thế Thông tư số 1/2020/TT-BTC ngày 01/2/2020."
    new = added(ingest, "new.txt", circular("2/2024/TT-BTC", more=ending))
    standing = register.standing([old, new])
    (change,) = standing[old].changes
    assert (change.relation, change.number, change.document) == (
        "replaces", "2/2024/TT-BTC", "new.txt",
    )  # fmt: skip
    assert standing[new].changes == ()
    assert [c.document_id for c in register.changed_by(new)] == [old]
    assert standing[old].has_ended("2024-07-05")
    assert not standing[old].has_ended("2024-07-04")


def test_what_is_in_the_trash_or_attached_to_a_conversation_changes_nothing(
    ingest: Ingest, database: Database
):
    register = Register(database)
    old = added(ingest, "old.txt", circular("1/2020/TT-BTC", "01/2/2020"))
    ending = "2. Bãi bỏ Thông tư số 1/2020/TT-BTC."
    new = added(ingest, "new.txt", circular("2/2024/TT-BTC", more=ending))
    added(ingest, "mine.txt", circular("3/2024/TT-BTC", more=ending), conversation="c")
    assert [c.document for c in register.standing([old])[old].changes] == ["new.txt"]
    ingest.remove(new)
    assert register.standing([old])[old].changes == ()


def test_search_is_narrowed_by_kind_type_and_dates(ingest: Ingest, database: Database):
    added(ingest, "old.txt", circular("1/2020/TT-BTC", "01/2/2020"))
    ending = "2. Bãi bỏ Thông tư số 1/2020/TT-BTC."
    added(ingest, "new.txt", circular("2/2024/TT-BTC", more=ending))
    added(ingest, "note.txt", b"a note")
    added(ingest, "page.html", b"<html><body><p>a page</p></body></html>")
    assert visible(database, kinds=("Thông tư",)) == {"old.txt", "new.txt"}
    assert visible(database, media_types=("text/html",)) == {"page.html"}
    assert visible(database, issued_from="2020-02-02") == {"new.txt"}
    assert visible(database, issued_to="2020-02-01") == {"old.txt"}
    assert visible(database, in_force_on="2020-01-31") == set()
    assert visible(database, in_force_on="2024-07-04") == {"old.txt"}
    assert visible(database, in_force_on="2024-07-05") == {"new.txt"}
    assert visible(database, in_force_on="2024-07-05", nothing=True) == set()


def test_a_conversations_own_files_pass_every_filter(ingest: Ingest, database: Database):
    added(ingest, "mine.txt", b"a note", conversation="c")
    assert visible(database, in_force_on="2024-01-01", conversation="c") == {"mine.txt"}


def test_the_list_of_documents_is_narrowed_the_same_way(ingest: Ingest, store: DocumentStore):
    added(ingest, "old.txt", circular("1/2020/TT-BTC", "01/2/2020"))
    added(ingest, "note.txt", b"a note")
    for wanted in (Listing(official="Thông tư"), Listing(in_force_on="2024-01-01")):
        assert [d.name for d in store.page(wanted, 10)] == ["old.txt"]


def test_a_standing_is_over_after_its_last_day():
    standing = Standing("Thông tư", "1/2020/TT-BTC", "2020-01-01", "2020-12-31", ())
    assert [standing.has_ended(day) for day in ("2020-12-31", "2021-01-01")] == [False, True]
    assert [standing.is_to_come(day) for day in ("2019-12-31", "2020-01-01")] == [True, False]
