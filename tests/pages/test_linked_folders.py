"""Linked folders on the documents page as Streamlit runs it: states, the review, ending a link."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatbot.library.links import LinkedFolder
from chatbot.services import Services


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "Quy chế"
    folder.mkdir()
    for number in range(3):
        text = f"Article {number}. The reading room {number} opens at {number + 7} o’clock.\n"
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def linked(services: Services, source: Path) -> LinkedFolder:
    folder = services.folders.link(source)
    services.folders.sync(folder.id)
    services.wait_until_read(60)
    return folder


def shown(app) -> str:
    return "\n".join([*(m.value for m in app.markdown), *(c.value for c in app.caption)])


def press(app, key: str):
    next(b for b in app.button if b.key == key).click()
    app.run()
    assert not app.exception, [e.message for e in app.exception]


def choose(app, folder: LinkedFolder, label: str):
    """Pick an action of the folder's menu by what it leads to (AppTest has no menu buttons)."""
    app.session_state["unlinking"] = folder.id
    app.run()
    assert label in [b.label for b in app.button]


def names(services: Services) -> set[str]:
    return {document.name for document in services.store.list()}


def test_a_folder_is_linked_by_its_path_and_a_wrong_one_is_told(open_page, services, source):
    app = open_page("documents.py")
    box = next(t for t in app.text_input if t.label == "Folder on this PC")
    box.input(str(source / "nowhere"))
    next(b for b in app.button if b.label == "Link").click().run()
    assert "it is not there, or is not a folder" in app.error[0].value
    box = next(t for t in app.text_input if t.label == "Folder on this PC")
    box.input(f'"{source}"')
    next(b for b in app.button if b.label == "Link").click().run()
    assert not app.exception
    assert [f.path for f in services.folders.list()] == [str(source.resolve())]
    assert "**Quy chế**" in shown(app)


def test_its_state_is_told(open_page, services, source, linked):
    app = open_page("documents.py")
    assert "Up to date" in shown(app)
    assert "3 files" in shown(app)
    services.folders.pause(linked.id)
    app.run()
    assert "Paused" in shown(app)
    services.folders.resume(linked.id)
    source.rename(source.parent / "unplugged")
    assert services.folders.sync(linked.id).reachable is False
    app.run()
    assert "Out of reach" in shown(app)
    assert "perhaps its disk is not connected" in shown(app)
    assert len(names(services)) == 3


def test_what_is_gone_is_kept_or_goes_to_the_trash_and_comes_back(
    open_page, services, source, linked
):
    for number in (0, 1):
        (source / f"{number}.txt").unlink()
    services.folders.sync(linked.id)
    app = open_page("documents.py")
    assert "2 files are gone from the folder" in shown(app)
    first, _second = services.folders.missing(linked.id)
    press(app, f"keep-{first.documents[0]}")
    assert "1 file is gone from the folder" in shown(app)
    press(app, f"accept-{linked.id}")
    assert "gone from the folder" not in shown(app)
    assert names(services) == {"0.txt", "2.txt"}
    press(app, "undo-documents")
    assert names(services) == {"0.txt", "1.txt", "2.txt"}
    assert services.folders.sync(linked.id).missing == ()


@pytest.mark.parametrize(
    ("answer", "left"), [("unlink-", {"0.txt", "1.txt", "2.txt"}), ("unlink-remove-", set())]
)
def test_ending_a_link_asks_what_becomes_of_the_documents(
    open_page, services, linked, answer, left
):
    app = open_page("documents.py")
    choose(app, linked, "Keep in the library")
    press(app, f"unlink-cancel-{linked.id}")
    assert len(services.folders.list()) == 1
    choose(app, linked, "Keep in the library")
    press(app, f"{answer}{linked.id}")
    assert services.folders.list() == []
    assert names(services) == left


def test_deleting_everything_ends_the_links_too(services, linked):
    services.delete_everything()
    assert services.folders.list() == []
    assert services.database.rows("SELECT * FROM linked_files") == []
