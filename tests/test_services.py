"""The open rooms together: who owns the folder, one load for many, what is told of this PC."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from chatbot import services as rooms
from chatbot.database import Database
from chatbot.errors import DiskFullError, ModelDoesNotFit, OwnerError
from chatbot.library.documents import failure_text
from chatbot.memory import beside
from chatbot.memory import plan as planning
from chatbot.ownership import _token, own, owner_of
from chatbot.services import Services, open_services
from chatbot.settings import PROJECT, Paths, Settings, save_settings
from tests.tiny_models import tiny_gguf, tiny_hf

__all__ = ["tiny_gguf", "tiny_hf"]

MARKER = "DấuRiêngTư7391"


@pytest.fixture
def services(paths: Paths, monkeypatch: pytest.MonkeyPatch):
    """Open services without the samples."""
    monkeypatch.delenv("HEARTH_API_TOKEN", raising=False)
    save_settings(paths.settings, Settings(samples_added=True))
    opened = open_services(paths)
    yield opened
    rooms.close_services()


# --- who owns the folder --------------------------------------------------------------------


def test_what_a_killed_owner_left_is_not_taken_for_the_new_one(paths, services):
    owner = owner_of(paths)
    assert owner is not None
    assert (owner["pid"], owner["token"]) == (os.getpid(), services.ownership.token)
    rooms.close_services()
    assert owner_of(paths) is None
    assert not paths.owner.exists()


def test_the_owner_is_named_before_the_slow_part_of_its_start(paths, monkeypatch):
    """A stale file of a killed Hearth would send a second start to the wrong address."""
    paths.owner.write_text(json.dumps({"pid": 1, "address": "http://127.0.0.1:1"}))
    seen: list[dict | None] = []
    monkeypatch.setattr(Services, "_clear_temporary", lambda _self: seen.append(owner_of(paths)))
    own(paths, "http://127.0.0.1:8600")
    save_settings(paths.settings, Settings(samples_added=True))
    try:
        open_services(paths)
    finally:
        rooms.close_services()
    assert seen[0] is not None
    assert (seen[0]["pid"], seen[0]["address"]) == (os.getpid(), "http://127.0.0.1:8600")


def test_another_process_is_refused_and_told_which_one_has_it(paths, services):
    script = "from chatbot.services import open_services; open_services()"
    other = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert other.returncode != 0
    assert f"PID {os.getpid()}" in other.stderr
    assert OwnerError.__name__ in other.stderr


def test_a_start_that_fails_leaves_no_thread_and_no_lock(paths, monkeypatch):
    def refuse(_self) -> None:
        raise DiskFullError("0 MB")

    before = set(threading.enumerate())
    with monkeypatch.context() as patched:
        patched.setattr(Services, "_forget_files", refuse)
        with pytest.raises(DiskFullError):
            open_services(paths)
    left = {t.name for t in set(threading.enumerate()) - before if t.name != "spawner_0"}
    assert "jobs" not in left
    assert "index-keeper" not in left
    assert owner_of(paths) is None


def test_closing_goes_on_when_one_room_fails(paths, services, monkeypatch):
    def broken() -> None:
        raise RuntimeError("boom")

    with monkeypatch.context() as patched:
        patched.setattr(services.engines, "close", broken)
        with pytest.raises(RuntimeError, match="boom"):
            services.close()
    assert owner_of(paths) is None
    services.engines.close()
    monkeypatch.setattr(rooms, "_services", None)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps rights in another way")
def test_the_data_folder_is_for_this_user_only(paths, services):
    paths.data.chmod(0o755)
    rooms.close_services()
    opened = open_services(paths)
    opened.history.add(opened.history.create().id, None, "user", MARKER)
    opened.add_documents([("a.txt", MARKER.encode())])
    opened.wait_until_read()
    assert stat.S_IMODE(paths.data.stat().st_mode) == 0o700
    open_to_others = [
        str(path.relative_to(paths.data))
        for path in paths.data.rglob("*")
        if path.stat().st_mode & 0o077 and path != paths.settings
    ]
    assert open_to_others == []


@pytest.mark.parametrize("left", ["", " \n"])
def test_an_empty_token_file_does_not_open_the_door(paths, monkeypatch, left):
    monkeypatch.delenv("HEARTH_API_TOKEN", raising=False)
    paths.token.write_text(left)
    assert len(_token(paths.token)) >= 32
    monkeypatch.setenv("HEARTH_API_TOKEN", " ")
    assert len(_token(paths.token)) >= 32


# --- documents ------------------------------------------------------------------------------


def test_waiting_for_documents_ends_when_reading_was_given_up(services, monkeypatch):
    def full(*_arguments, **_more):
        raise DiskFullError("0 MB")

    monkeypatch.setattr(services.store, "commit", full)
    (added,) = services.add_documents([("a.txt", b"some words")])
    began = time.monotonic()
    services.wait_until_read(60)
    assert time.monotonic() - began < 50
    assert "0 MB" in failure_text(services.store.get(added.id), "en")


def test_a_document_survives_a_change_of_embedder_while_it_is_read(services, monkeypatch):
    reading, chosen = threading.Event(), threading.Event()
    read = services.reader.read
    services.index.wait_ready()

    def slow(*arguments):
        reading.set()
        assert chosen.wait(30)
        return read(*arguments)

    monkeypatch.setattr(services.reader, "read", slow)
    (added,) = services.add_documents([("a.txt", b"The library opens at seven.")])
    assert reading.wait(30)
    services.change_settings(allow_embedder_download=True)
    chosen.set()
    services.wait_until_read(60)
    assert services.store.get(added.id).state == "ready"
    assert services.search.find("library").results


def test_closing_while_a_document_is_read_is_quick_and_does_not_blame_the_document(paths, services):
    text = "The library opens at seven in the morning. " * 100_000
    (added,) = services.add_documents([("long.txt", text.encode())])
    deadline = time.monotonic() + 30
    while services.reader._child.pid is None and time.monotonic() < deadline:
        time.sleep(0.01)
    rooms.close_services()
    with closing(Database(paths.database)) as database:
        row = database.row("SELECT state, error FROM documents WHERE id = ?", (added.id,))
    assert tuple(row) == ("waiting", None)


def test_closing_while_the_index_takes_in_a_document_loses_nothing(paths, services, monkeypatch):
    """Stored already, the document is not read again; what the index missed it finds at its next opening."""
    asleep = threading.Event()

    def sleep() -> None:
        asleep.wait(60)

    services.index.wait_ready()
    monkeypatch.setattr(services.index, "_catch_up", sleep)
    (added,) = services.add_documents([("a.txt", b"The library opens at seven.")])
    deadline = time.monotonic() + 30
    while services.store.get(added.id).state != "ready" and time.monotonic() < deadline:
        time.sleep(0.01)
    began = time.monotonic()
    services.jobs._threads[0].join(0.2)
    services.index.let_go()
    services.jobs.close()
    assert time.monotonic() - began < 8
    assert services.store.get(added.id).state == "ready"
    asleep.set()


def test_two_tabs_change_different_settings_and_both_stay(services):
    tabs = [
        threading.Thread(target=services.change_settings, kwargs=change)
        for change in ({"language": "vi"}, {"answer_style": "brief"}, {"remote_model": "m"})
    ]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join(10)
    found = services.settings
    assert (found.language, found.answer_style, found.remote_model) == ("vi", "brief", "m")


# --- models ---------------------------------------------------------------------------------


@pytest.fixture
def model_id(services, tiny_gguf) -> str:
    job = services.jobs.wait(services.workshop.take_in(tiny_gguf).id, 60)
    assert job.state == "done", job.error
    return job.message


def test_many_who_ask_for_a_model_at_once_cause_one_load(services, model_id):
    workers: list[object] = []
    asking = [
        threading.Thread(target=lambda: workers.append(services.engine_for(model_id)))
        for _ in range(6)
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(90)
    assert len(workers) == 6
    assert {worker.pid for worker in workers} == {services.engines.loaded.pid}


def test_a_model_that_does_not_fit_leaves_the_loaded_one_and_says_why_in_both_languages(
    services, model_id, monkeypatch
):
    services.load_model(model_id)
    before = services.engines.loaded.pid
    plan = planning.plan

    def refuse(*arguments, **keywords):
        found = plan(*arguments, **keywords)
        return replace(found, fits=False, total=86 << 30, growth=5 << 30, free=74 << 30)

    monkeypatch.setattr(planning, "plan", refuse)
    with pytest.raises(ModelDoesNotFit) as refused:
        services.load_model(model_id)
    assert services.engines.loaded.pid == before
    assert "needs 91.0 GB; 74.0 GB are free" in refused.value.text("en")
    assert "cần 91,0 GB; đang trống 74,0 GB" in refused.value.text("vi")


def test_what_is_loaded_counts_as_free_for_the_next_plan(services, model_id, monkeypatch):
    services.load_model(model_id)
    asked: list[int] = []
    monkeypatch.setattr(beside, "without", lambda hardware, pid: asked.append(pid) or hardware)
    again = services.plan_model(services.models.get(model_id))
    assert asked == [services.engines.loaded.pid]
    assert again.evicts == (), "loading it again ends nothing else"
    other = services.plan_model(Path(services.models.get(model_id).path))
    assert [gone.name for gone in other.evicts] == [services.engines.loaded.spec.title]


# --- privacy --------------------------------------------------------------------------------


def test_the_diagnostic_report_holds_nothing_of_the_persons(services, tmp_path):
    services.add_documents([(f"{MARKER}.txt", MARKER.encode())], collection=MARKER)
    services.add_documents([(f"{MARKER}.exe", b"MZ\0\1" + MARKER.encode())])
    conversation = services.history.create()
    services.history.add(conversation.id, None, "user", MARKER)
    (broken := tmp_path / f"{MARKER}.gguf").write_bytes(b"GGUF" + MARKER.encode())
    job = services.jobs.wait(services.workshop.take_in(broken).id, 60)
    assert job.state == "failed"
    (folder := tmp_path / f"{MARKER}-embedder").mkdir()
    services.change_settings(embedder=str(folder), remote_key=MARKER, remote_url=f"http://{MARKER}")
    services.wait_until_read(60)
    report = json.dumps(services.diagnostic_report(), ensure_ascii=False)
    assert MARKER not in report
    assert services.ownership.token not in report
    assert str(tmp_path) not in report
    assert '"failed_documents": 1' in report
    assert '"kind": "import_model", "state": "failed", "error": "broken_model"' in report


def test_a_model_nobody_uses_is_unloaded_after_the_chosen_time_whatever_else_fails(
    services, model_id, monkeypatch
):
    """One failure of the other idle work must not end the thread that gives memory back."""
    services.load_model(model_id)
    process = psutil.Process(services.engines.loaded.pid)
    rounds = iter([False, False, True])

    worker = services.engines.worker(services.engines.loaded.spec)

    def fail(_ids):
        worker.last_used = time.time() - 6 * 60  # seen by the second round
        raise DiskFullError("x")

    services.change_settings(idle_unload_minutes=5)
    monkeypatch.setattr(services.states, "tidy", fail)
    with monkeypatch.context() as patch:
        patch.setattr(services, "_closing", SimpleNamespace(wait=lambda _seconds: next(rounds)))
        services._unload_idle()
    assert services.engines.loaded is None
    assert not process.is_running()
