"""Bad days seen from the page: workers die or hang, the power goes, the network is not there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page, expect

from chatbot.chat.history import History
from chatbot.database import Database
from chatbot.settings import PROJECT, Paths
from chatbot.types import ConversationSettings, GenerationOptions
from tests.browser.conftest import RunningApp, running
from tests.browser.test_journeys import ANSWER_SECONDS, QUESTION, answers, ask, settings_file
from tests.tiny_models import tiny_gguf, tiny_hf

__all__ = ["tiny_gguf", "tiny_hf"]

pytestmark = [pytest.mark.browser, pytest.mark.faults, pytest.mark.timeout(300)]


def command(data: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "chatbot", *arguments],
        cwd=PROJECT,
        env={**os.environ, "HEARTH_DATA": str(data)},
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def talkative(data_folder, tiny_gguf) -> str:
    """A data folder whose chats run on a tiny model that talks for thousands of tokens."""
    settings_file(data_folder, samples_added=True)
    model = command(data_folder, "models", "import", str(tiny_gguf))
    settings_file(data_folder, samples_added=True, default_model=model)
    database = Database(Paths(data_folder).database)
    options = GenerationOptions(temperature=0, repeat_penalty=1.0, max_tokens=7000)
    conversation = History(database).create(ConversationSettings(scope="none", options=options))
    database.close()
    return conversation.id


def worker_of(app: RunningApp) -> psutil.Process:
    for child in psutil.Process(app.process.pid).children(recursive=True):
        if "chatbot.engines.worker" in child.cmdline() and "llama_cpp" in child.cmdline():
            return child
    raise AssertionError("no model worker is running")


@pytest.mark.parametrize("fatal", ["SIGKILL", "SIGSEGV", "SIGSTOP"])
def test_a_worker_that_dies_or_hangs_in_the_middle_of_an_answer(
    talkative, app: RunningApp, page: Page, fatal
):
    """The page says so within ten seconds, keeps the partial text, and the next question works."""
    page.goto(f"{app.address}/?c={talkative}")
    ask(page, "Xin chào")
    expect(page.get_by_test_id("stChatMessage").last).to_contain_text(
        "the and of", timeout=ANSWER_SECONDS
    )
    worker = worker_of(app)
    worker.send_signal(getattr(signal, fatal))
    struck = time.monotonic()
    said = re.compile("kết thúc bất ngờ|không còn phản hồi")
    expect(answers(page).last.get_by_test_id("stAlert")).to_contain_text(said, timeout=15_000)
    assert time.monotonic() - struck < 10
    expect(answers(page).last).to_contain_text("the and of")

    ask(page, "Còn đó không?")
    expect(page.get_by_test_id("stChatMessage")).to_have_count(4, timeout=ANSWER_SECONDS)
    expect(page.get_by_test_id("stChatMessage").last).to_contain_text(
        "the and of", timeout=ANSWER_SECONDS
    )
    assert not psutil.pid_exists(worker.pid) or worker.status() == psutil.STATUS_ZOMBIE


def test_kill_9_of_everything_while_documents_are_read_loses_and_doubles_nothing(
    chromium, data_folder, shared_data, tmp_path
):
    """What was acknowledged before the power went is there afterwards, once, and answers."""
    settings_file(data_folder)
    folder = tmp_path / "văn bản"
    folder.mkdir()
    for pdf in sorted((shared_data / "phapluat-vi").glob("thong-tu-so-0*.pdf"))[:12]:
        shutil.copy(pdf, folder)
    with running(data_folder) as app:
        command(data_folder, "documents", "list")
        adding = subprocess.Popen(
            [sys.executable, "-m", "chatbot", "documents", "add", str(folder)],
            cwd=PROJECT,
            env={**os.environ, "HEARTH_DATA": str(data_folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while len(_rows(data_folder)) < 14 and time.monotonic() < deadline:
            time.sleep(0.02)
        app.kill()
        adding.wait(30)
    acknowledged = {name for name, _state in _rows(data_folder)}
    assert len(acknowledged) == 14
    with running(data_folder) as app:
        deadline = time.monotonic() + 120
        while any(s != "ready" for _, s in _rows(data_folder)) and time.monotonic() < deadline:
            time.sleep(0.2)
        rows = _rows(data_folder)
    assert {state for _, state in rows} == {"ready"}
    assert sorted(name for name, _ in rows) == sorted(acknowledged)


def _rows(data: Path) -> list[tuple[str, str]]:
    import sqlite3

    connection = sqlite3.connect(f"file:{data / 'hearth.db'}?mode=ro", uri=True, timeout=10)
    try:
        return connection.execute(
            "SELECT name, state FROM documents WHERE deleted_at IS NULL"
        ).fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        connection.close()


def test_no_orphan_is_left_when_the_app_is_killed(talkative, app: RunningApp, page: Page):
    page.goto(f"{app.address}/?c={talkative}")
    ask(page, "Xin chào")
    expect(page.get_by_test_id("stChatMessage").last).to_contain_text(
        "the and of", timeout=ANSWER_SECONDS
    )
    family = psutil.Process(app.process.pid).children(recursive=True)
    assert len(family) >= 2
    app.kill()
    _gone, alive = psutil.wait_procs(family, timeout=10)
    assert [p.cmdline() for p in alive] == []


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_the_first_minute_works_without_any_network():
    """The same journey in a network namespace that has loopback and nothing else."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("making a network namespace needs root and unshare")
    journey = "tests/browser/test_journeys.py::test_the_first_minute_offline_without_a_model"
    inside = (
        "import fcntl, socket, struct, sys\n"
        "s = socket.socket()\n"  # bring loopback up: SIOCSIFFLAGS with IFF_UP
        "fcntl.ioctl(s, 0x8914, struct.pack('16sh', b'lo', 0x1))\n"
        "import pytest\n"
        f"sys.exit(pytest.main(['{journey}', '-rA']))\n"
    )
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", inside],
        cwd=PROJECT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "PASSED" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="strace is Linux's")
def test_no_process_of_hearths_connects_anywhere_but_loopback(data_folder, tmp_path):
    """strace watches every connect of the app and its children while documents are added and asked."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    settings_file(data_folder)
    trace = tmp_path / "trace"
    with running(data_folder) as app:
        watcher = subprocess.Popen(
            [
                "strace",
                "-f",
                "-e",
                "trace=connect,sendto",
                "-o",
                str(trace),
                "-p",
                str(app.process.pid),
            ],
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + 10
            while not trace.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            note = tmp_path / "ghi chú.md"
            note.write_text("# Ghi chú\n\nMật khẩu wifi là hoa-dao-1975.\n", encoding="utf-8")
            command(data_folder, "documents", "add", str(note))
            assert "hoa-dao-1975" in command(data_folder, "ask", "Mật khẩu wifi là gì?")
        finally:
            watcher.send_signal(signal.SIGINT)
            watcher.wait(10)
    called = re.findall(
        r'sin6?_addr=?(?:inet_addr)?\(?[^"]*"([^"]+)"', trace.read_text(errors="replace")
    )
    assert [a for a in called if a not in ("127.0.0.1", "::1")] == []


def test_the_question_asked_at_the_very_first_start_waits_for_the_samples(page: Page):
    ask(page, QUESTION)
    expect(answers(page).last).to_contain_text("Điều 16", timeout=ANSWER_SECONDS)
