"""The documents page as Streamlit runs it: adding, looking, putting in order, trash and undo."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatbot.errors import EmptyDocument, UnreadableDocument
from chatbot.library.readers.kinds import NEEDS_PASSWORD
from chatbot.services import Services


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
    services.store.add_collection("Work rules")
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
    assert services.store.trash() == ()


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
    assert services.store.trash() == ()
    assert not original.exists()


def test_a_document_moves_to_another_collection(open_page, services, tmp_path):
    (document,) = add(services, text_file(tmp_path, "leave.txt"))
    services.store.add_collection("Contracts")
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
