"""The documents page as Streamlit runs it: adding, looking, putting in order, trash and undo."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatbot.errors import EmptyDocument, UnreadableDocument
from chatbot.library.listing import Listing
from chatbot.library.readers.kinds import NEEDS_PASSWORD
from chatbot.services import Services
from chatbot.types import ConversationSettings, SearchFilter


def text_file(
    folder: Path, name: str, text: str = "Article 1. Leave is twelve days a year."
) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def add(services: Services, *files: Path, collection: str = "documents"):
    """Add files and wait until they are read."""
    added = services.add_documents(list(files), collection)
    for job in services.jobs.list(active=True, kind="ingest"):
        services.jobs.wait(job.id, 60)
    return [services.store.get(d.id) for d in added]


def button(app, key: str):
    return next(b for b in app.button if b.key == key)


def labels(app) -> list[str]:
    return [b.label for b in app.button]


def shown(app) -> str:
    return "\n".join([*(m.value for m in app.markdown), *(c.value for c in app.caption)])


def test_an_empty_library_teaches_what_to_do(open_page):
    app = open_page("documents.py")
    assert app.title[0].value == "Documents"
    assert "Nothing here yet" in shown(app)


def test_a_folder_is_added_by_its_path_into_the_chosen_collection(open_page, services, tmp_path):
    folder = tmp_path / "Quy chế"
    folder.mkdir()
    text_file(folder, "leave.txt")
    text_file(folder, "empty.txt", "")
    services.store.collections.add("Work rules")
    app = open_page("documents.py")
    app.selectbox(key="add-collection-en").set_value("Work rules")
    next(t for t in app.text_input if t.label == "A file or folder on this PC").input(f'"{folder}"')
    next(b for b in app.button if b.label == "Add").click().run()
    assert not app.exception
    for job in services.jobs.list(active=True):
        services.jobs.wait(job.id, 60)
    assert {(d.name, d.collection, d.state) for d in services.store.list()} == {
        ("leave.txt", "Work rules", "ready"),
        ("empty.txt", "Work rules", "failed"),
    }
    app.run()
    assert r"leave\.txt" in labels(app)
    assert "is empty" in shown(app)


def test_a_path_that_is_not_there_is_said(open_page, services):
    app = open_page("documents.py")
    next(t for t in app.text_input if t.label == "A file or folder on this PC").input("/no/where")
    next(b for b in app.button if b.label == "Add").click().run()
    assert "Not found" in app.error[0].value
    assert services.store.list() == []


def test_why_a_file_was_refused_is_told_in_the_language_of_the_person(open_page, services):
    services.store.refuse("trống.txt", EmptyDocument(name="trống.txt"))
    services.change_settings(language="vi")
    app = open_page("documents.py")
    assert "Tệp “trống\\.txt” trống\\." in shown(app)
    assert "Chưa có gì ở đây" not in shown(app)


def test_a_reason_ends_before_the_advice_begins(open_page, services):
    error = UnreadableDocument(NEEDS_PASSWORD, name="a.pdf")
    services.store.refuse("a.pdf", error)
    services.change_settings(language="vi")
    assert "bằng mật khẩu\\. Hãy mở tệp" in shown(open_page("documents.py"))


def test_a_row_opens_the_document_with_its_passages(open_page, services, tmp_path):
    (document,) = add(services, text_file(tmp_path, "leave.txt"))
    app = open_page("documents.py")
    button(app, f"open-{document.id}").click().run()
    assert document.id in app.query_params["document"]
    assert app.header[0].value == r"leave\.txt"
    assert "Leave is twelve days a year" in shown(app)
    next(b for b in app.button if b.label == "All documents").click().run()
    assert app.title[0].value == "Documents"


def test_an_address_of_a_deleted_document_leads_to_the_list(open_page, services):
    app = open_page("documents.py")
    app.query_params["document"] = "gone"
    app.run()
    assert not app.exception
    assert app.title[0].value == "Documents"


def test_deleting_asks_first_and_can_be_undone(open_page, services, tmp_path):
    (document,) = add(services, text_file(tmp_path, "leave.txt"))
    app = open_page("documents.py")
    button(app, f"open-{document.id}").click().run()
    button(app, "do-delete").click().run()
    assert services.store.list(), "nothing may be deleted before the person agrees"
    button(app, f"yes-{document.id}").click().run()
    assert services.store.list() == []
    assert "1 document is in the trash" in shown(app)
    button(app, "undo-documents").click().run()
    assert [d.id for d in services.store.list()] == [document.id]
    assert services.store.trash.documents() == ()


def test_keeping_a_document_changes_nothing(open_page, services, tmp_path):
    (document,) = add(services, text_file(tmp_path, "leave.txt"))
    app = open_page("documents.py")
    button(app, f"open-{document.id}").click().run()
    button(app, "do-delete").click().run()
    button(app, f"no-{document.id}").click().run()
    assert f"yes-{document.id}" not in [b.key for b in app.button]
    assert [d.id for d in services.store.list()] == [document.id]


def test_emptying_the_trash_erases_the_file(open_page, services, tmp_path):
    (document,) = add(services, text_file(tmp_path, "leave.txt"))
    original = services.store.file(document.id)
    services.ingest.remove(document.id)
    app = open_page("documents.py")
    button(app, "empty-trash").click().run()
    assert services.store.trash.documents() == ()
    assert not original.exists()


def test_a_document_moves_to_another_collection(open_page, services, tmp_path):
    (document,) = add(services, text_file(tmp_path, "leave.txt"))
    services.store.collections.add("Contracts")
    app = open_page("documents.py")
    button(app, f"open-{document.id}").click().run()
    button(app, "do-move").click().run()
    app.selectbox(key=f"to-{document.id}-en").set_value("Contracts").run()
    button(app, f"yes-{document.id}").click().run()
    assert not app.exception
    for job in services.jobs.list(active=True):
        services.jobs.wait(job.id, 60)
    assert [(d.name, d.collection) for d in services.store.list()] == [("leave.txt", "Contracts")]


def test_reading_again_queues_the_document(open_page, services, tmp_path):
    (document,) = add(services, text_file(tmp_path, "leave.txt"))
    app = open_page("documents.py")
    button(app, f"open-{document.id}").click().run()
    before = len(services.jobs.list(kind="ingest"))
    button(app, "do-again").click().run()
    jobs = services.jobs.list(kind="ingest")
    assert len(jobs) == before + 1
    services.jobs.wait(jobs[0].id, 60)
    assert services.store.get(document.id).state == "ready"


@pytest.fixture
def many(services):
    """More documents than one page of the list shows."""
    for number in range(45):
        name = f"Quyết định {number:02}.txt"
        services.store.refuse(name, EmptyDocument(name=name))


@pytest.mark.usefixtures("many")
def test_a_long_list_is_drawn_page_by_page_and_filtered_without_accents(open_page):
    app = open_page("documents.py")
    assert sum(str(b.key).startswith("open-") for b in app.button) == 20
    assert "45 documents" in shown(app)
    app.text_input(key="documents-filter").input("quyet 07").run()
    assert [b.label for b in app.button if str(b.key).startswith("open-")] == [
        r"Quyết định 07\.txt"
    ]
    assert "1 document of 45" in shown(app)


@pytest.mark.usefixtures("many")
def test_a_filter_that_finds_nothing_leaves_no_rows_and_no_action(open_page):
    app = open_page("documents.py")
    app.text_input(key="documents-filter").input("khong co").run()
    assert not app.exception
    assert "0 documents of 45" in shown(app)


@pytest.mark.usefixtures("many")
def test_all_are_deleted_at_once_and_brought_back(open_page, services):
    app = open_page("documents.py", pending=("delete", services.store.ids(Listing()), "bulk"))
    assert "Move 45 documents to the trash?" in shown(app)
    button(app, "yes-bulk").click().run()
    assert services.store.tally().documents == 0
    assert "45 documents are in the trash" in shown(app)
    button(app, "undo-documents").click().run()
    assert services.store.tally().documents == 45
    assert "undo-documents" not in [b.key for b in app.button]


@pytest.mark.usefixtures("many")
def test_ticks_outlive_the_page_of_the_list_and_only_those_move(open_page, services):
    first, *_rest, last = services.store.page(Listing(order="newest"), 45)
    app = open_page("documents.py")
    app.checkbox(key=f"tick-{first.id}").check().run()
    app.session_state["documents-page"] = 3
    app.run()
    app.checkbox(key=f"tick-{last.id}").check().run()
    assert set(app.session_state["ticked"]) == {first.id, last.id}
    app.session_state["pending"] = ("move", app.session_state["ticked"], "bulk")
    app.run()
    services.store.collections.add("Mới")
    app.run()
    app.selectbox(key="to-bulk-en").set_value("Mới").run()
    button(app, "yes-bulk").click().run()
    assert set(services.store.ids(Listing(collection="Mới"))) == {first.id, last.id}
    assert "ticked" not in app.session_state


def test_the_list_is_narrowed_by_type_and_ordered_by_name(open_page, services, tmp_path):
    add(services, text_file(tmp_path, "b.txt"), text_file(tmp_path, "a.md", "# Heading"))
    page = tmp_path / "c.html"
    page.write_text("<!doctype html><p>words</p>", encoding="utf-8")
    add(services, page)
    app = open_page("documents.py")

    def rows() -> list[str]:
        return [b.label for b in app.button if str(b.key).startswith("open-")]

    app.selectbox(key="documents-order-en").set_value("name").run()
    assert rows() == [r"a\.md", r"b\.txt", r"c\.html"]
    app.selectbox(key="documents-kind-en").set_value("web").run()
    assert rows() == [r"c\.html"]
    assert "1 document of 3" in shown(app)


def test_the_trash_is_brought_back_whole(open_page, services, tmp_path):
    documents = add(services, text_file(tmp_path, "a.txt"), text_file(tmp_path, "b.txt", "other"))
    services.ingest.remove(*(d.id for d in documents))
    app = open_page("documents.py")
    button(app, "restore-all").click().run()
    assert services.store.tally().documents == 2


# --- collections ----------------------------------------------------------------------------


def test_a_conversation_narrowed_to_a_collection_follows_its_new_name(services, tmp_path):
    add(services, text_file(tmp_path, "a.txt"), collection="Luật")
    narrowed = ConversationSettings(filter=SearchFilter(collections=("Luật", "documents")))
    conversation = services.history.create(narrowed)
    other = services.history.create()
    for one in (conversation, other):
        services.history.add(one.id, None, "user", "Leave?")
    services.rename_collection("Luật", "Văn bản")
    found = services.history.conversation(conversation.id).settings.filter
    assert found.collections == ("Văn bản", "documents")
    assert services.history.conversation(other.id).settings == ConversationSettings()
    assert services.search.find("twelve days", SearchFilter(collections=("Văn bản",))).results


def test_a_deleted_collection_is_undone_with_its_documents(open_page, services, tmp_path):
    (document,) = add(services, text_file(tmp_path, "a.txt"), collection="Luật")
    removed = services.ingest.remove_collection("Luật")
    app = open_page("documents.py", deleted_documents=removed)
    assert "Luật" not in {c.name for c in services.store.collections.all()}
    button(app, "undo-documents").click().run()
    assert services.store.get(document.id).deleted_at is None
    assert {c.name: c.documents for c in services.store.collections.all()}["Luật"] == 1


def test_an_export_tells_where_it_lies_and_an_import_what_it_brought(open_page, services, tmp_path):
    documents = add(services, text_file(tmp_path, "a.txt"), text_file(tmp_path, "b.txt", "other"))
    job = services.jobs.wait(services.export_documents(tmp_path / "x.zip", "documents").id, 60)
    app = open_page("documents.py", file_job=job.id)
    assert "2 documents exported" in shown(app)
    assert "x\\.zip" in shown(app)
    services.ingest.purge(documents[0].id)
    job = services.jobs.wait(services.import_documents(tmp_path / "x.zip").id, 60)
    app = open_page("documents.py", file_job=job.id)
    assert "1 document imported · 1 was already here" in shown(app)
    button(app, "close-outcome").click().run()
    assert "imported" not in shown(app)


def test_a_broken_file_is_told_in_words(open_page, services, tmp_path):
    (broken := tmp_path / "hỏng.zip").write_bytes(b"PK\x03\x04 no zip")
    services.change_settings(language="vi")
    job = services.jobs.wait(services.import_documents(broken).id, 60)
    app = open_page("documents.py", file_job=job.id)
    assert "Không thể nhập “hỏng\\.zip”" in shown(app)
