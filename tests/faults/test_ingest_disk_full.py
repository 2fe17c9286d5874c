"""A full disk: adding says so, nothing is half-stored, reading goes on, and with room again it succeeds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chatbot.database import Database
from chatbot.errors import DiskFullError
from chatbot.library.ingest import Ingest
from chatbot.library.readers import Reader
from chatbot.library.store import DocumentStore
from chatbot.settings import Paths
from tests.faults.ingest_victim import HashIndex

pytestmark = pytest.mark.faults

SIZES = range(600, 2500, 64) if os.environ.get("HEARTH_FULL") else (600, 900, 1300, 1700)
"""Free space in KB, from 'not even the originals fit' to 'nearly everything fits'."""


def mount(folder: Path, kilobytes: int, *options: str) -> None:
    option = ",".join([*options, f"size={kilobytes}k"])
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(folder)],
        check=True,
        capture_output=True,
    )


@pytest.fixture
def small_disk(tmp_path: Path):
    folder = tmp_path / "đĩa nhỏ"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a small disk can be made by root on Linux only")
    try:
        mount(folder, 64)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine does not let us mount: {error}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def reader():
    reader = Reader()
    yield reader
    reader.close()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nguồn")
    for n in range(12):
        text = "".join(
            f"Điều {a}. Tên {n}.{a}\nQuy định." + " Nội dung chi tiết." * 40 + "\n"
            for a in range(1, 40)
        )
        (folder / f"{n:02}.txt").write_text(text, encoding="utf-8")
    return folder


def add_and_process(ingest: Ingest, source: Path) -> None:
    for document_id in ingest.unfinished():
        ingest.process(document_id)
    for file in sorted(source.iterdir()):
        (document,) = ingest.add([file])
        if document.state == "waiting":
            ingest.process(document.id)


@pytest.mark.parametrize("checked_first", [True, False], ids=["space checked", "write fails"])
@pytest.mark.parametrize("kilobytes", SIZES)
def test_a_disk_that_fills_up(kilobytes, checked_first, small_disk, source, reader, monkeypatch):
    mount(small_disk, kilobytes, "remount")
    paths = Paths(small_disk / "data")
    paths.make()
    database = Database(paths.database)
    store = DocumentStore(database, paths, spare_bytes=64_000)
    ingest = Ingest(store, reader, HashIndex())
    if not checked_first:
        monkeypatch.setattr(store.originals, "require_room", lambda size: None)

    with pytest.raises(DiskFullError):
        add_and_process(ingest, source)

    assert database.row("PRAGMA integrity_check")[0] == "ok"
    documents = store.list()
    for document in documents:
        passages = store.contents.passages(document.id)
        assert (document.state == "ready") == bool(passages)
        assert "".join(p.text for p in passages) == store.contents.text(document.id)
        if passages:
            assert store.contents.text(document.id) == Path(document.origin or "").read_text(
                encoding="utf-8"
            )
    assert list(paths.temporary.iterdir()) == []

    mount(small_disk, 64_000, "remount")
    add_and_process(ingest, source)
    assert [d.state for d in store.list()] == ["ready"] * 12
    assert len(list(paths.files.iterdir())) == 12
    database.close()
