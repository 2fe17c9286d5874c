"""Lists of many documents: filters, order, counts, moving, the trash and collections, all in SQL."""

from __future__ import annotations

import pytest

from chatbot.errors import CollectionError
from chatbot.library.listing import Listing
from chatbot.library.store import DocumentStore


@pytest.fixture
def filled(store: DocumentStore, database) -> DocumentStore:
    """Six documents of several kinds in two collections, one of them in a conversation."""
    rows = [
        ("Điều lệ.pdf", "Luật", "application/pdf", "ready", "vi", None, 300),
        ("điều lệ cũ.PDF", "Luật", "application/pdf", "failed", None, None, 200),
        ("lease.docx", "documents", "application/vnd.x.wordprocessingml.document", "ready", "en", None, 50),
        ("bảng.xlsx", "documents", "application/vnd.x.spreadsheetml.sheet", "ready", "vi", "w", 70),
        ("thư.eml", "documents", "message/rfc822", "waiting", None, None, 10),
    ]  # fmt: skip
    for number, (name, collection, media_type, state, language, warning, size) in enumerate(rows):
        document = store.keep(name.encode(), name, collection).document
        database.execute(
            "UPDATE documents SET media_type = ?, state = ?, language = ?, warning = ?, size = ?,"
            " added_at = ? WHERE id = ?",
            (media_type, state, language, warning, size, 1000 + number, document.id),
        )
    store.keep(b"attached", "đính kèm.pdf", conversation="c1")
    return store


def names(store: DocumentStore, **wanted) -> list[str]:
    listing = Listing(**wanted)
    found = [d.name for d in store.page(listing, 100)]
    assert store.count(listing) == len(found) == len(store.ids(listing))
    return found


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"words": "dieu le"}, {"Điều lệ.pdf", "điều lệ cũ.PDF"}),
        ({"words": "Lệ ĐIỀU"}, {"Điều lệ.pdf", "điều lệ cũ.PDF"}),
        ({"words": "100%_'\" --"}, set()),
        ({"collection": "Luật"}, {"Điều lệ.pdf", "điều lệ cũ.PDF"}),
        ({"shown": "failed"}, {"điều lệ cũ.PDF"}),
        ({"shown": "unread"}, {"thư.eml"}),
        ({"shown": "noted"}, {"bảng.xlsx"}),
        ({"kind": "pdf", "shown": "ready"}, {"Điều lệ.pdf"}),
        ({"kind": "office"}, {"lease.docx"}),
        ({"kind": "sheet"}, {"bảng.xlsx"}),
        ({"kind": "mail"}, {"thư.eml"}),
        ({"language": "en"}, {"lease.docx"}),
        ({"language": "vi", "collection": "documents"}, {"bảng.xlsx"}),
    ],
)
def test_a_list_is_narrowed(filled, wanted, found):
    assert set(names(filled, **wanted)) == found


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ("newest", ["thư.eml", "bảng.xlsx", "lease.docx", "điều lệ cũ.PDF", "Điều lệ.pdf"]),
        ("oldest", ["Điều lệ.pdf", "điều lệ cũ.PDF", "lease.docx", "bảng.xlsx", "thư.eml"]),
        ("name", ["bảng.xlsx", "điều lệ cũ.PDF", "Điều lệ.pdf", "lease.docx", "thư.eml"]),
        ("largest", ["Điều lệ.pdf", "điều lệ cũ.PDF", "bảng.xlsx", "lease.docx", "thư.eml"]),
    ],
)
def test_a_list_is_ordered_as_people_read_it(filled, order, found):
    assert names(filled, order=order) == found
    assert names(filled, order="smallest") == names(filled, order="largest")[::-1]


def test_pages_of_a_list_hold_every_document_once(filled):
    pages = [filled.page(Listing(order="name"), 2, offset) for offset in (0, 2, 4, 6)]
    assert [d.name for page in pages for d in page] == names(filled, order="name")


def test_the_tally_counts_the_library_only(filled):
    tally = filled.tally()
    assert (tally.documents, tally.ready, tally.unread) == (5, 3, 1)
    assert filled.tally("Luật").documents == 2
    assert filled.collections.size("Luật") == 500


def test_moving_changes_the_collection_and_nothing_else(filled, database, paths):
    ids = filled.ids(Listing(collection="Luật"))
    before = {f.name: f.stat().st_mtime_ns for f in paths.files.iterdir()}
    assert filled.collections.move(ids, "Mới") == ()
    assert {d.collection for d in map(filled.get, ids)} == {"Mới"}
    assert {f.name: f.stat().st_mtime_ns for f in paths.files.iterdir()} == before
    assert filled.get(ids[0]).state in ("ready", "failed")


def test_what_a_collection_has_already_is_not_in_it_twice(filled):
    copy = filled.keep(b"lease.docx", "copy.docx", "Luật").document
    original = next(d for d in filled.page(Listing(), 9) if d.name == "lease.docx")
    assert filled.collections.move([copy.id], "documents") == (copy.id,)
    assert filled.get(original.id).deleted_at is None
    assert [d.id for d in filled.trash.documents()] == [copy.id]


def test_a_renamed_collection_keeps_its_documents_also_those_in_the_trash(filled):
    first, second = filled.ids(Listing(collection="Luật"))
    filled.trash.put(first)
    assert filled.collections.rename("Luật", " Văn bản ") == "Văn bản"
    filled.trash.restore(first)
    assert {filled.get(i).collection for i in (first, second)} == {"Văn bản"}
    assert "Luật" not in {c.name for c in filled.collections.all()}


@pytest.mark.parametrize("name", ["documents", "", "  ", "\x00"])
def test_a_collection_cannot_take_a_name_that_is_taken_or_none(filled, name):
    with pytest.raises(CollectionError):
        filled.collections.rename("Luật", name)
    assert filled.tally("Luật").documents == 2


def test_a_deleted_collection_comes_back_with_its_documents(filled):
    ids = filled.collections.remove("Luật")
    assert len(ids) == 2
    assert "Luật" not in {c.name for c in filled.collections.all()}
    assert filled.tally().documents == 3
    assert set(filled.trash.restore(*ids)) == set(ids)
    assert {c.name: c.documents for c in filled.collections.all()}["Luật"] == 2


def test_a_deleted_collection_is_forgotten_with_its_last_document(filled, database):
    filled.trash.purge(*filled.collections.remove("Luật"))
    assert database.rows("SELECT * FROM collections WHERE name = 'Luật'") == []
    filled.collections.remove(filled.collections.add("Trống"))
    assert database.rows("SELECT * FROM collections WHERE name = 'Trống'") == []


def test_adding_to_a_deleted_collection_brings_it_back(filled):
    filled.collections.remove("Luật")
    filled.keep(b"new", "mới.txt", "Luật")
    assert {c.name: c.documents for c in filled.collections.all()}["Luật"] == 1


def test_many_go_to_the_trash_and_back_in_one_step_each(store, database):
    ids = [store.keep(f"{n}".encode(), f"{n}.txt").document.id for n in range(30)]
    store.trash.put(*ids)
    assert (store.tally().documents, len(store.trash.ids())) == (0, 30)
    assert len({d.deleted_at for d in store.trash.documents()}) == 1
    assert set(store.trash.restore(*ids, "unknown")) == set(ids)
    store.trash.put(*ids)
    told: list[float] = []
    store.trash.purge(*ids, on_progress=told.append)
    assert told[-1] == 1.0
    assert store.trash.ids() == ()


def test_files_of_one_name_in_an_uploaded_folder_stay_apart(ingest, store):
    for _again in range(2):
        ingest.add([("Quy chế/2023/nghỉ.txt", b"mot"), ("Quy chế/2024/nghỉ.txt", b"hai")])
        for document_id in ingest.unfinished():
            ingest.process(document_id)
        found = store.page(Listing(order="oldest"), 9)
        assert [(d.name, d.origin) for d in found] == [
            ("nghỉ.txt", "Quy chế/2023/nghỉ.txt"),
            ("nghỉ.txt", "Quy chế/2024/nghỉ.txt"),
        ]
