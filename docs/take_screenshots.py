# ruff: noqa: INP001, T201 (a script that is run by hand and says what it made)
"""Take the screenshots that the README and the guide show, from the running app.

    python docs/take_screenshots.py [--model FILE.gguf] [--quick]

Starts Hearth on a data folder of its own, asks the sample documents in both languages without a model, and
saves docs/images/*.png. The models page shows the given model, else a tiny one made for this purpose; the page of
this PC is shown as it is and once more with made-up graphics cards. Needs
Chromium and the tests' packages (`python start.py setup`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Locator, Page, sync_playwright

PROJECT = Path(__file__).resolve().parent.parent
IMAGES = PROJECT / "docs" / "images"
LARGEST_BYTES = 250_000
SIZE = (1280, 860)
TALL = (1280, 1420)
SAMPLED_SECONDS = 75
"""So that the charts have something to show."""
NARROW = (420, 860)
START_SECONDS = 60
PATIENCE_MILLISECONDS = 120_000
sys.path.insert(0, str(PROJECT))

from tests.fakes import GIB, Card, environment, pc  # noqa: E402

ENGLISH = "How many days of annual leave do I get?"
VIETNAMESE = "Sinh viên bị cảnh báo học vụ khi nào?"
NOTES = (
    ("Nội quy phòng máy.md", "# Nội quy phòng máy\n\nPhòng máy mở cửa từ 7 giờ 30 đến 21 giờ.\n"),
    ("Lab rules.txt", "The laboratory is open from 7:30 to 21:00. Food stays outside.\n"),
)


def main() -> None:
    """Take them all; fails when one is too large for a repository."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="the model that the models page shows")
    parser.add_argument(
        "--quick", action="store_true", help="only the pages of models and of this PC"
    )
    arguments = parser.parse_args()
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "Hearth"
        _settings(data)
        model = arguments.model or _tiny_model(Path(folder))
        _command(data, "models", "import", str(model))
        for name, text in NOTES:
            (Path(folder) / name).write_text(text, encoding="utf-8")
            _command(data, "documents", "add", str(Path(folder) / name))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium") or shutil.which("chromium-browser"),
                args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            )
            with _running(data) as address:
                if not arguments.quick:
                    _take(browser, address)
                _take_models(browser, address)
                _load_a_model(data)
                _take_hardware(browser, address, "hardware-en", "en-US")
            with _running(data, **environment(Path(folder) / "cards.json", _at_work())) as address:
                _take_hardware(browser, address, "hardware-cards-vi", "vi-VN", dark=True)
            browser.close()
    for image in sorted(IMAGES.glob("*.png")):
        size = image.stat().st_size
        print(f"{size / 1000:6.0f} KB  {image.relative_to(PROJECT)}")
        assert size < LARGEST_BYTES, f"{image} is too large"


def _take(browser: Browser, address: str) -> None:
    english = _tab(browser, "en-US")
    english.goto(address)
    _ask(english, ENGLISH)
    _shoot(english, "chat-en")
    conversation = english.url

    vietnamese = _tab(browser, "vi-VN")
    vietnamese.goto(address)
    _ask(vietnamese, VIETNAMESE)
    _shoot(vietnamese, "chat-vi")
    vietnamese.locator("[class*=st-key-open-source-] button:visible").first.click()
    dialog = vietnamese.get_by_role("dialog")
    dialog.get_by_role("img").wait_for()
    _shoot(vietnamese, "passage-vi", dialog)
    vietnamese.goto(f"{address}/documents")
    _shoot(vietnamese, "documents-vi")
    vietnamese.goto(f"{address}/settings")
    _shoot(vietnamese, "settings-vi")

    dark = _tab(browser, "vi-VN", dark=True)
    dark.goto(address)
    dark.locator("[class*=st-key-conversations] [class*=st-key-open-] button").first.click()
    dark.locator("[class*=st-key-again-]").wait_for()
    _shoot(dark, "chat-dark")
    narrow = _tab(browser, "en-US", size=NARROW)
    narrow.goto(conversation)
    narrow.locator("[class*=st-key-again-]").wait_for()
    _shoot(narrow, "chat-narrow")


def _take_models(browser: Browser, address: str) -> None:
    tab = _tab(browser, "en-US")
    tab.goto(f"{address}/models")
    _shoot(tab, "models-en")


def _take_hardware(
    browser: Browser, address: str, name: str, locale: str, *, dark: bool = False
) -> None:
    tab = _tab(browser, locale, dark=dark, size=TALL)
    tab.goto(f"{address}/hardware")
    tab.locator(".hearth-chart").nth(1).wait_for()
    tab.wait_for_timeout(1000 * SAMPLED_SECONDS)
    _shoot(tab, name)


def _load_a_model(data: Path) -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "chatbot", "models", "list", "--json"],
        cwd=PROJECT, env={**os.environ, "HEARTH_DATA": str(data)}, check=True, capture_output=True,
    )  # fmt: skip
    _command(data, "models", "load", json.loads(listed.stdout)["models"][0]["id"])


def _at_work() -> list[Card]:
    """Two cards of which one is busy."""
    busy, idle = pc("two")
    busy.load, busy.temperature, busy.milliwatts, busy.free = 87, 71, 312_000, 9 * GIB
    idle.load, idle.clock, idle.memory_clock, idle.milliwatts = 2, 300, 405, 9_000
    return [busy, idle]


def _tab(
    browser: Browser, locale: str, *, dark: bool = False, size: tuple[int, int] = SIZE
) -> Page:
    context = browser.new_context(
        locale=locale,
        viewport={"width": size[0], "height": size[1]},
        device_scale_factor=1,
        color_scheme="dark" if dark else "light",
    )
    tab = context.new_page()
    tab.set_default_timeout(PATIENCE_MILLISECONDS)
    return tab


def _ask(tab: Page, question: str) -> None:
    box = tab.get_by_test_id("stChatInputTextArea")
    box.fill(question)
    box.press("Enter")
    tab.locator("[class*=st-key-again-]").wait_for()


def _shoot(tab: Page, name: str, part: Locator | None = None) -> None:
    """The tab or a part of it, once nothing moves any more."""
    tab.get_by_test_id("stMainBlockContainer").locator(
        "[data-testid=stMarkdown], [data-testid=stHeading]"
    ).first.wait_for()
    tab.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')")
    tab.mouse.move(2, 2)
    tab.wait_for_timeout(2500)  # scrolling, fonts and the first samples of the meters
    (part or tab).screenshot(path=str(IMAGES / f"{name}.png"))


def _settings(data: Path) -> None:
    data.mkdir(parents=True)
    (data / "settings.json").write_text(json.dumps({"first_run_done": True}), encoding="utf-8")


def _tiny_model(folder: Path) -> Path:
    from tests.tiny_models import make_gguf, make_hf

    return Path(make_gguf(make_hf(folder / "tiny"), folder / "Tiny-Llama.gguf"))


def _command(data: Path, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "chatbot", *arguments],
        cwd=PROJECT,
        env={**os.environ, "HEARTH_DATA": str(data)},
        check=True,
        stdout=subprocess.DEVNULL,
    )


@contextmanager
def _running(data: Path, **environment: str) -> Iterator[str]:
    """The app's address while the block runs."""
    log = data.parent / "app.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
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
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _address(process, log)
    finally:
        process.terminate()
        process.wait(30)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text(errors="replace"))
        try:
            if found and httpx.get(f"{found.group()}/_stcore/health", trust_env=False).is_success:
                return found.group()
        except httpx.HTTPError:
            pass  # not listening yet
        time.sleep(0.1)
    raise SystemExit(f"Hearth did not start:\n{log.read_text(errors='replace')}")


if __name__ == "__main__":
    main()
