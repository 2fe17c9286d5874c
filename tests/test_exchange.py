"""A library carried to another PC: the same answers there without embedding, by command with and without a running Hearth."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from chatbot.library.index import Index
from chatbot.services import Services, close_services, open_services
from chatbot.settings import SAMPLES, Paths, Settings, save_settings
from tests.browser.conftest import running
from tests.test_cli import LAW, error_of, result_of

QUESTIONS = (
    "Sinh viên bị cảnh báo học vụ khi nào?",
    "sinh vien bi canh bao hoc vu khi nao",
    "học phí nộp trong bao lâu",
    "Điều 16",
    "điểm trung bình tích lũy",
    "How many days of annual leave do I get?",
    "How long is the notice period?",
    "Who approves a purchase?",
    "overtime",
    "remote work",
)


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Opens Hearth on one data folder after another, as on PCs of their own."""

    def open_at(name: str) -> Services:
        close_services()
        paths = Paths(tmp_path / name / "dữ liệu")
        paths.make()
        monkeypatch.setenv("HEARTH_DATA", str(paths.data))
        save_settings(paths.settings, Settings(language="en", samples_added=True))
        return open_services(paths)

    yield open_at
    close_services()


def found(services: Services) -> list[list[tuple[object, ...]]]:
    """The first ten of every question: where, which words, how strong."""
    services.wait_until_read()
    services.index.rebuild()  # what was taken out and put in again leaves its traces in BM25's figures
    assert services.index.wait_ready(120)
    return [
        [
            (r.passage.id, r.document, r.passage.page, r.passage.start, r.passage.text, r.score)
            for r in services.search.find(question, limit=10).results
        ]
        for question in QUESTIONS
    ]


def test_another_pc_finds_the_same_ten_without_embedding(
    at_home: Callable[[str], Services], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = at_home("đây")
    here.add_documents([SAMPLES], "Mẫu")
    expected = found(here)
    assert all(len(results) > 3 for results in expected)
    file = tmp_path / "mẫu.zip"
    here.jobs.wait(here.export_documents(file).id, 60)
    vectors = {
        tuple(r) for r in here.database.rows("SELECT passage_id, stamp, vector FROM vectors")
    }

    there = at_home("đó")
    asked: list[int] = []
    committed: list[int] = []
    embed, commit = Index.embed, Index._commit
    monkeypatch.setattr(
        Index,
        "embed",
        lambda self, texts, kind: asked.append(len(texts)) or embed(self, texts, kind),
    )
    monkeypatch.setattr(
        Index,
        "_commit",
        lambda self, ids, blob: committed.append(len(ids)) or commit(self, ids, blob),
    )
    job = there.jobs.wait(there.import_documents(file).id, 60)
    assert json.loads(job.message)["documents"] == len(there.store.list()) > 0
    assert found(there) == expected
    assert asked == committed == [], "no passage may be embedded again"
    arrived = there.database.rows("SELECT passage_id, stamp, vector FROM vectors")
    assert {tuple(r) for r in arrived} == vectors


def test_documents_of_a_packed_model_are_still_taken_in_after_a_restart(
    at_home: Callable[[str], Services], tmp_path: Path
):
    here = at_home("đây")
    here.add_documents([SAMPLES], "Mẫu")
    here.jobs.wait(here.export_documents(file := tmp_path / "mẫu.zip").id, 60)
    there = at_home("đó")
    there.jobs.close()
    (place := there.paths.temporary / "gói").mkdir()
    (left := there.paths.temporary / "bỏ lại").mkdir()
    shutil.copy(file, place)
    job = there.import_documents(place / file.name)
    there = at_home("đó")
    assert not left.exists()
    assert there.jobs.wait(job.id, 60).state == "done"
    assert len(there.store.list()) > 0
    assert not place.exists()


def test_by_command_with_and_without_a_running_hearth(tmp_path: Path):
    folders = []
    for name in ("một", "hai"):
        paths = Paths(tmp_path / name)
        paths.make()
        save_settings(paths.settings, Settings(samples_added=True))
        folders.append(paths.data)
    here, there = folders
    (law := tmp_path / "thư viện.txt").write_text(LAW, encoding="utf-8")
    (empty := tmp_path / "trống.txt").write_bytes(b"")
    result_of(here, "documents", "add", law, empty, "--collection", "Luật", code=3)
    file = tmp_path / "luật của tôi.zip"
    done = result_of(here, "documents", "export", file, "--collection", "Luật")
    assert done["documents"] == 1
    assert done["passages"] == done["vectors"] > 0
    assert (done["file"], done["size"]) == (str(file), file.stat().st_size)
    assert (
        error_of(here, "documents", "export", file, "--collection", "nope")["code"] == "not_found"
    )

    with running(there):
        done = result_of(there, "documents", "import", file)
        assert done == {"documents": 1, "doubles": 0, "unread": 0, "without_vectors": 0}
        results = result_of(there, "search", "thu vien mo cua luc nao")["results"]
        assert "bảy giờ" in results[0]["text"]
        again = result_of(there, "documents", "export", tmp_path / "lần nữa.zip")
        assert again["documents"] == 1
        assert (tmp_path / "lần nữa.zip").read_bytes() == file.read_bytes()
        file.write_bytes(file.read_bytes()[:-30])
        broken = error_of(there, "documents", "import", file)
        assert broken["code"] == "broken_collection_file"
        assert "luật của tôi.zip" in broken["message"]
    missing = error_of(there, "documents", "import", tmp_path / "không có.zip")
    assert missing["code"] == "not_found"
