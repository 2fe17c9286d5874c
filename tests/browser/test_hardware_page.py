"""The page of this PC stays open while an answer is being written beside it, on two made-up graphics cards.

A quick look of half a minute runs always; HEARTH_FULL=1 looks for ten minutes (HEARTH_MINUTES changes that).
Both print what they measured: `pytest -s tests/browser/test_hardware_page.py`.
"""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from chatbot.settings import Settings, save_settings
from tests.browser.conftest import WAIT, RunningApp, press_until, running
from tests.browser.slow_model import SlowModel, slow_model
from tests.browser.test_journeys import ask
from tests.fakes import environment, pc, read_cards, write_cards

FULL = bool(os.environ.get("HEARTH_FULL"))
SECONDS = 60 * float(os.environ.get("HEARTH_MINUTES", "10")) if FULL else 25.0

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300 + 2 * int(SECONDS))]

WARM_SECONDS = 8.0 if not FULL else 60.0
"""Before growth is counted: imports, the first pictures, Chromium's own caches."""
MOST_HEAP, MOST_RESIDENT = 8_000_000, 40_000_000
MOST_SHARE = 0.25
"""Of a core, for the server of two open tabs with four looks a second at the answer; 0.05 in ten minutes here."""


@pytest.fixture
def model() -> Iterator[SlowModel]:
    with slow_model(words=100_000, pace=0.2) as model:
        yield model


@pytest.fixture
def cards(tmp_path: Path) -> Path:
    return tmp_path / "cards.json"


@pytest.fixture
def app(data_folder: Path, model: SlowModel, cards: Path) -> Iterator[RunningApp]:
    data_folder.mkdir(parents=True)
    chosen = Settings(
        language="en", first_run_done=True, remote_url=model.url, remote_model="slow",
        default_model="remote",
    )  # fmt: skip
    save_settings(data_folder / "settings.json", chosen)
    with running(data_folder, **environment(cards, pc("two"))) as started:
        yield started


def open_beside(page: Page, app: RunningApp) -> Page:
    """The page of this PC in a tab of its own, come to by its link."""
    beside: Page = page.context.new_page()
    beside.set_default_timeout(WAIT)
    beside.goto(app.address)
    heading = beside.get_by_role("heading", name="This PC", exact=True)
    press_until(beside.get_by_role("link", name="This PC"), heading.is_visible)
    expect(charts(beside)).to_have_count(4)  # processor, memory, two cards
    return beside


def charts(page: Page):
    return page.locator(".hearth-chart img")


def points(page: Page) -> int:
    """How many points the first chart draws."""
    source = charts(page).first.get_attribute("src") or ""
    svg = base64.b64decode(source.partition(",")[2]).decode()
    return sum(len(line.split()) for line in re.findall(r'<polyline[^>]*points="([^"]*)"', svg))


class Watched:
    """What a tab and the server have used so far."""

    def __init__(self, page: Page, app: RunningApp) -> None:
        self._page, self._app = page, app
        self._tools = page.context.new_cdp_session(page)
        self._tools.send("Performance.enable")

    def now(self) -> dict[str, float]:
        self._tools.send("HeapProfiler.collectGarbage")
        told = self._tools.send("Performance.getMetrics")["metrics"]
        metrics = {metric["name"]: metric["value"] for metric in told}
        server = psutil.Process(self._app.process.pid)
        used = server.cpu_times()
        return {
            "at": time.monotonic(),
            "heap": metrics["JSHeapUsedSize"],
            "nodes": metrics["Nodes"],
            "resident": server.memory_info().rss,
            "processor": used.user + used.system,
        }


def place(page: Page) -> float:
    """How far down the page is scrolled."""
    return float(page.evaluate("document.querySelector('[data-testid=stMain]').scrollTop"))


def listen(context: BrowserContext) -> list[str]:
    """Every error that any tab tells from now on."""
    errors: list[str] = []
    context.on("weberror", lambda error: errors.append(str(error.error)))
    context.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    return errors


def test_the_page_stays_calm_while_an_answer_is_written_beside_it(
    page: Page, app: RunningApp, cards: Path
) -> None:
    errors = listen(page.context)
    ask(page, "How many days of annual leave do I get?")
    expect(page.get_by_test_id("stChatMessage").last).to_contain_text("từ-3", timeout=60_000)
    beside = open_beside(page, app)
    beside.evaluate("document.querySelector('[data-testid=stMain]').scrollTop = 400")
    beside.wait_for_timeout(1000 * WARM_SECONDS)
    watched = Watched(beside, app)
    scrolled, before, drawn_before = place(beside), watched.now(), points(beside)
    pictures, places = set(), set()
    while time.monotonic() - before["at"] < SECONDS:
        pictures.add(charts(beside).first.get_attribute("src"))
        places.add(place(beside))
        beside.wait_for_timeout(1000)
    after, drawn = watched.now(), points(beside)
    passed = after["at"] - before["at"]
    share = (after["processor"] - before["processor"]) / passed
    heap, resident = (after[key] - before[key] for key in ("heap", "resident"))
    words = re.findall(r"từ-(\d+)", page.get_by_test_id("stChatMessage").last.inner_text())
    print(
        f"\n{passed:.0f} s: server {100 * share:.1f} % of a core, {resident / 1e6:+.1f} MB resident;"
        f" tab {heap / 1e6:+.1f} MB of heap, {after['nodes'] - before['nodes']:+.0f} nodes;"
        f" {len(pictures)} pictures of the first chart, {drawn_before} → {drawn} points;"
        f" {words[-1]} words beside it; {len(errors)} errors in the console"
    )
    assert errors == []
    assert places == {scrolled}, "nobody scrolled"
    assert len(pictures) >= SECONDS / 5, "a picture every two seconds, on cores that are busy"
    assert drawn > drawn_before or drawn >= 140
    assert int(words[-1]) > SECONDS, "five words a second beside it"
    assert share < MOST_SHARE
    assert heap < MOST_HEAP
    assert resident < MOST_RESIDENT


def test_its_buttons_and_a_card_that_is_lost_and_found(
    page: Page, app: RunningApp, cards: Path
) -> None:
    errors = listen(page.context)
    beside = open_beside(page, app)
    expect(beside.get_by_text("RTX 3090 #0").first).to_be_visible()
    freed = beside.get_by_text("Memory in use:")
    press_until(beside.locator(".st-key-free-memory button:visible").first, freed.is_visible)
    hour = beside.get_by_text("60 min ago").first
    press_until(beside.get_by_role("radio", name="1 h"), hour.is_visible, key="Space")
    with beside.expect_download() as download:
        beside.locator(".st-key-samples-csv button:visible").first.click()
    head, *rows = download.value.path().read_text("utf-8").splitlines()
    assert "cuda_1_load" in head
    assert rows
    answered = beside.get_by_text("has not answered since")
    found = read_cards(cards)
    found[0].vanished = True
    write_cards(cards, found)
    expect(answered).to_be_visible()
    found[0].vanished = False
    write_cards(cards, found)
    expect(answered).not_to_be_visible()
    measured = beside.get_by_text("Models would write")
    press_until(beside.locator(".st-key-benchmark button:visible").first, measured.is_visible)
    assert errors == []
