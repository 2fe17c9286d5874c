"""The real app in a process of its own, and a real Chromium that looks at it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from chatbot.settings import PROJECT

START_SECONDS = 120
PRESS_SECONDS = 60
AGAIN_SECONDS = 5
WAIT = 30_000
"""Milliseconds; busy cores draw a page slowly, and every wait is for a condition."""


@dataclass
class RunningApp:
    """One `streamlit run app.py`."""

    process: subprocess.Popen[bytes]
    address: str
    data: Path
    log: Path

    @property
    def token(self) -> str:
        return (self.data / "token").read_text().strip()

    def kill(self) -> None:
        """kill -9, as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)


def start_app(data: Path, log: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Begin `streamlit run app.py` on a port the system chooses."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "streamlit",
            "run",
            str(PROJECT / "app.py"),
            "--server.port",
            "0",
            "--server.headless",
            "true",
        ],
        env={**os.environ, "HEARTH_DATA": str(data), "PYTHONUTF8": "1", **environment},
        stdout=log.open("ab"),
        stderr=subprocess.STDOUT,
        cwd=data.parent,
    )


@contextmanager
def running(data: Path, **environment: str) -> Iterator[RunningApp]:
    """The app once it answers; ended at the end."""
    log = data.parent / "app.log"
    log.unlink(missing_ok=True)  # the address of an earlier start must not be found in it
    app = RunningApp(start_app(data, log, **environment), "", data, log)
    try:
        app.address = _address(app)
        yield app
    finally:
        app.stop()


def _address(app: RunningApp) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and app.process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+", app.log.read_text(errors="replace"))
        if found:
            try:
                if httpx.get(f"{found.group()}/_stcore/health", trust_env=False).status_code == 200:
                    return found.group()
            except httpx.HTTPError:
                pass
        time.sleep(0.1)
    raise AssertionError(f"the app did not start:\n{app.log.read_text(errors='replace')}")


def press_until(button, condition: Callable[[], bool], *, key: str = "Enter") -> None:
    """Press `button` by keyboard until `condition()` holds, such as `page.get_by_text("1/2").is_visible`.

    Focusing and pressing are two steps between which the page may be drawn anew, and then the key goes
    elsewhere. What was not heard within five seconds is pressed again, as a person would.
    """
    from playwright.sync_api import TimeoutError as PlaywrightTimeout

    deadline = time.monotonic() + PRESS_SECONDS
    pressed_at = -AGAIN_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"nothing came of pressing {button}"
        if time.monotonic() - pressed_at >= AGAIN_SECONDS and button.is_visible():
            with suppress(PlaywrightTimeout):  # gone or switched off since: look again
                if button.is_enabled(timeout=1000):
                    button.press(key, timeout=1000)
                    pressed_at = time.monotonic()
        button.page.wait_for_timeout(50)


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """A data folder with a space and accents in its path, as people have them."""
    return tmp_path / "LUẬN VĂN thạc sĩ" / "dữ liệu"


@pytest.fixture
def app(data_folder: Path) -> Iterator[RunningApp]:
    data_folder.parent.mkdir(parents=True, exist_ok=True)
    with running(data_folder) as started:
        yield started


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    """One browser for the session; Debian's Chromium."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=WAIT)
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("no Chromium on this machine (.ci/run installs it)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, app):
    """A Vietnamese person's tab on the chat page; fails the test on a call to anywhere else."""
    context = chromium.new_context(locale="vi-VN", viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    tab.set_default_timeout(WAIT)
    outside: list[str] = []
    tab.on(
        "request",
        lambda r: (
            outside.append(r.url) if not r.url.startswith((app.address, "data:", "blob:")) else None
        ),
    )
    tab.goto(app.address)
    yield tab
    context.close()
    assert outside == []
