"""A model's life in a real browser: added, saved in 16 bits, converted, quantised, checked, asked, packed, deleted, back again."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from chatbot.i18n import translate
from chatbot.settings import Settings, save_settings
from tests.browser.conftest import RunningApp, press_until, running
from tests.browser.test_journeys import answers, ask
from tests.tiny_models import make_hf

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

JOB_SECONDS = 300
"""A step loads whole libraries in a child of its own; two busy cores take their time."""


def en(text: str) -> str:
    return translate(text, "en")


@pytest.fixture
def app(data_folder: Path):
    data_folder.mkdir(parents=True)
    chosen = Settings(language="en", first_run_done=True, samples_added=True)
    save_settings(data_folder / "settings.json", chosen)
    with running(data_folder) as started:
        yield started


def tab(page: Page, name: str) -> None:
    wanted = page.get_by_role("tab", name=name)
    expect(wanted).to_be_visible()
    press_until(wanted, lambda: wanted.get_attribute("aria-selected") == "true")


def add(page: Page, path: Path, name: str) -> None:
    """Add what lies at that path; its card shows `name`."""
    tab(page, "On disk")
    field = page.get_by_label("File or folder on this PC")
    expander = page.get_by_text("Add from this PC").first
    expect(expander).to_be_visible()
    if not field.is_visible():
        expander.click()
    field.fill(str(path))
    field.press("Tab")
    button = page.get_by_test_id("stFormSubmitButton").get_by_role("button", name="Add").last
    jobs = page.get_by_role("tab", name="Jobs")
    taken = card(page, name)
    press_until(button, lambda: taken.count() > 0 or jobs.get_attribute("aria-selected") == "true")
    if not taken.count():  # it takes longer: its job is shown
        jobs_done(page)
        tab(page, "On disk")
    expect(taken).to_be_visible(timeout=60_000)


def card(page: Page, name: str):
    """The card of the model with exactly that name."""
    exact = page.locator("[class*='st-key-head-'] strong").get_by_text(name, exact=True)
    return page.locator("[class*='st-key-model-']").filter(has=exact).last


def menu(page: Page, name: str, action: str) -> None:
    wanted = page.get_by_role("menuitem", name=action)
    more = card(page, name).locator("[class*='st-key-more-'] button:visible").first
    press_until(more, wanted.is_visible)
    wanted.click()


def begin(page: Page, name: str, action: str) -> None:
    """Choose an action, press its button, wait until the job has ended well."""
    tab(page, "On disk")
    menu(page, name, action)
    button = page.locator("[role=dialog] .st-key-begin button:visible")
    expect(button).to_be_visible(timeout=60_000)
    press_until(button, lambda: not button.is_visible())
    jobs_done(page)


def jobs_done(page: Page) -> None:
    """Wait on the page of jobs until none is under way; every one of them ended well."""
    tab(page, "Jobs")
    deadline = time.monotonic() + JOB_SECONDS
    under_way = page.locator("[class*='st-key-cancel-']")
    rows = page.locator("[class*='st-key-job-']")
    expect(rows.first).to_be_visible(timeout=60_000)
    while under_way.count():
        assert time.monotonic() < deadline, page.locator("main").inner_text()
        page.wait_for_timeout(200)
    expect(page.locator("[class*='st-key-again-']")).to_have_count(0)


def chat(page: Page, app: RunningApp) -> str:
    """What the loaded model says."""
    page.goto(app.address)
    new = page.get_by_role("button", name="New conversation")
    expect(new).to_be_visible()
    ask(page, "Tell me about the school.")
    expect(answers(page).last).to_be_visible(timeout=120_000)
    return answers(page).last.inner_text()


def test_a_models_life(page: Page, app: RunningApp, tmp_path: Path):
    source = make_hf(tmp_path / "tiny chữ")
    page.goto(f"{app.address}/models")
    expect(page.get_by_role("tab", name="Catalogue")).to_be_visible(timeout=60_000)
    expect(page.get_by_text("Recommended for this PC").first).to_be_visible()

    add(page, source, "tiny chữ")
    begin(page, "tiny chữ", "Save in 16 bits")
    begin(page, "tiny chữ FP16", "Convert to GGUF")
    begin(page, "tiny chữ F16", "Make it smaller")
    tab(page, "On disk")
    small = card(page, "tiny chữ Q8_0")
    expect(small).to_be_visible()
    expect(small.get_by_role("button", name=re.compile("Checked"))).to_be_visible()

    verdict = small.locator("[class*='st-key-verdict-'] button:visible")
    dialog = page.get_by_role("dialog")
    press_until(verdict, dialog.is_visible)
    expect(dialog).to_contain_text("It is what it was made from")
    expect(dialog).to_contain_text("max |Δlogit|")
    page.keyboard.press("Escape")
    menu(page, "tiny chữ Q8_0", "Check it")
    jobs_done(page)

    tab(page, "On disk")
    menu(page, "tiny chữ Q8_0", "Use as default")
    expect(card(page, "tiny chữ Q8_0").get_by_text("Default")).to_be_visible()
    first = chat(page, app)
    assert first.strip()

    page.goto(f"{app.address}/models")
    tab(page, "On disk")
    menu(page, "tiny chữ Q8_0", "Pack into one file")
    file = tmp_path / "gói của tôi.zip"
    field = dialog.get_by_label("File", exact=True)
    expect(field).to_be_visible()
    field.fill(str(file))
    field.press("Enter")
    pack = page.locator("[role=dialog] .st-key-begin button:visible")
    press_until(pack, lambda: not pack.is_visible())
    jobs_done(page)
    assert file.stat().st_size > 10_000

    tab(page, "On disk")
    press_until(page.locator(".st-key-unload-models button:visible"),
                page.get_by_text("No model loaded").first.is_visible)  # fmt: skip
    menu(page, "tiny chữ Q8_0", "Remove")
    yes = page.locator("[class*='st-key-yes-remove-'] button:visible")
    expect(yes).to_be_visible()
    press_until(yes, lambda: card(page, "tiny chữ Q8_0").count() == 0)

    add(page, file, "tiny chữ Q8_0")
    back = card(page, "tiny chữ Q8_0")
    expect(back.get_by_role("button", name=re.compile("Whole, not compared"))).to_be_visible()
    menu(page, "tiny chữ Q8_0", "Use as default")
    expect(back.get_by_text("Default")).to_be_visible()
    assert chat(page, app).strip()
