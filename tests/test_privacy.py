"""What is deleted is gone from every file of the data folder, the search index included."""

from __future__ import annotations

import pytest

from chatbot import services as rooms
from chatbot.settings import Paths, Settings, save_settings

MARKER = "zykxwvut"


def files_with(paths: Paths, marker: str) -> list[str]:
    """Every file of the data folder whose bytes hold the marker, in any case."""
    return [
        str(file.relative_to(paths.data))
        for file in paths.data.rglob("*")
        if file.is_file() and marker.encode() in file.read_bytes().lower()
    ]


@pytest.fixture
def services(paths: Paths):
    save_settings(paths.settings, Settings(language="en", samples_added=True))
    opened = rooms.open_services(paths)
    yield opened
    rooms.close_services()


def test_a_purged_document_leaves_no_byte_behind(services, paths):
    kept = services.add_documents([("kept.md", b"# Kept\n\nThis stays here for good.")])
    added = services.add_documents(
        [
            (f"secret-{n}.md", f"# Secret {n}\n\nThe password is {MARKER} {n}.".encode())
            for n in range(5)
        ]
    )
    services.wait_until_read(60)
    assert services.find(MARKER, rooms.SearchFilter()).results
    assert files_with(paths, MARKER)

    services.ingest.purge(*(document.id for document in added))
    assert services.index.wait_ready(60)
    assert not any(
        MARKER in r.passage.text for r in services.find(MARKER, rooms.SearchFilter()).results
    )
    assert files_with(paths, MARKER) == []
    assert [d.id for d in services.store.list()] == [kept[0].id]
    assert services.find("stays here for good", rooms.SearchFilter()).results


def test_deleting_everything_leaves_no_byte_behind(services, paths):
    services.add_documents([("secret.md", f"# Secret\n\n{MARKER} is the password.".encode())])
    services.wait_until_read(60)
    conversation = services.history.create()
    services.answers.ask(conversation.id, f"What about {MARKER}?").wait(60)
    services.delete_everything()
    assert services.index.wait_ready(60)
    assert files_with(paths, MARKER) == []
    assert services.history.conversations() == []


def test_the_diagnostic_report_holds_nothing_of_the_content(services):
    import json

    services.add_documents([(f"{MARKER}.md", f"# {MARKER}\n\n{MARKER}".encode())])
    services.wait_until_read(60)
    conversation = services.history.create()
    services.answers.ask(conversation.id, f"{MARKER}?").wait(60)
    assert MARKER not in json.dumps(services.diagnostic_report()).lower()
