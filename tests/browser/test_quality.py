"""From two questions to a comparison, in a real browser."""

from __future__ import annotations

import json

import httpx
import pytest
from playwright.sync_api import Page, expect

from chatbot.i18n import translate
from tests.browser.conftest import RunningApp, press_until, running

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

MEASURED = 120_000
EASY = "Học phí phải nộp trong bao lâu?"
WRONG = "sinh viên bị cảnh báo học vụ khi nào"
"""Its passage is ticked wrongly below, so that it is sure to fail however well the search works."""


def vi(text: str) -> str:
    return translate(text, "vi")


@pytest.fixture
def app(data_folder):
    """The samples are added at the first start; the person has chosen Vietnamese."""
    data_folder.mkdir(parents=True)
    chosen = {"first_run_done": True, "language": "vi"}
    (data_folder / "settings.json").write_text(json.dumps(chosen), encoding="utf-8")
    with running(data_folder) as started:
        yield started


def command(app: RunningApp, name: str, **params: object) -> dict:
    """What the command line would ask of this Hearth."""
    answer = httpx.post(
        f"{app.address}/api/command",
        json={"name": name, "params": params},
        headers={"Authorization": f"Bearer {app.token}"},
        timeout=120,
        trust_env=False,
    )
    return answer.json()["result"]


def write(page: Page, question: str, other_words: str, passage: str) -> None:
    """Type a question, find its passage, tick it, save."""
    writer = page.locator(".st-key-write-question")
    writer.get_by_role("textbox", name=vi("Question"), exact=True).fill(question)
    writer.get_by_role("textbox", name=vi("Question"), exact=True).press("Enter")
    search = writer.get_by_role("textbox", name=vi("Find its passage with other words"))
    search.fill(other_words)
    search.press("Enter")
    tick = writer.get_by_test_id("stCheckbox").filter(has_text=passage).first
    tick.locator("label").click()
    save = writer.get_by_role("button", name=vi("Save"))
    expect(save).to_be_enabled()
    save.click()
    expect(page.get_by_text(question, exact=True)).to_be_visible()
    expect(writer.get_by_test_id("stCheckbox")).to_have_count(0)


def test_two_questions_a_measurement_a_comparison_a_failure(page: Page, app: RunningApp):
    command(app, "search", query="học phí")  # answers once the samples have been read
    page.goto(f"{app.address}/quality")
    page.get_by_role("button", name=vi("Write the first question")).click()
    write(page, EASY, "nộp học phí trong vòng 4 tuần", "Điều 24")
    write(page, WRONG, "Quy chế này có hiệu lực từ ngày 01 tháng 9 năm 2024", "Điều 31")
    expect(page.get_by_text("2 câu hỏi", exact=True)).to_be_visible()

    page.get_by_test_id("stButtonGroup").get_by_text(vi("Result"), exact=True).click()
    comparing = page.get_by_role("combobox", name=vi("Compare with"))
    comparing.click()
    page.get_by_role("option", name=vi("Words only")).click()
    page.get_by_role("button", name=vi("Measure"), exact=True).click()
    expect(page.get_by_text(vi("The first result is right")).first).to_be_visible(timeout=MEASURED)
    bars = page.locator(".hearth-hits")
    expect(bars.locator("figcaption")).to_contain_text(vi("Words and meaning"))
    expect(bars.locator("figcaption")).to_contain_text(vi("Words only"))
    expect(bars.locator(".hearth-bar")).to_have_count(6)
    expect(page.get_by_text("2 câu hỏi chưa chứng minh được nhiều")).to_be_visible()

    page.reload()
    failure = page.locator("[class*=st-key-failure-]").filter(has_text=WRONG)
    expect(failure).to_contain_text(vi("Right passage"))
    dialog = page.get_by_role("dialog")
    press_until(failure.locator("[class*=st-key-look-] button:visible"), dialog.is_visible)
    expect(dialog).to_contain_text("có hiệu lực từ ngày 01 tháng 9 năm 2024")
    expect(dialog).to_contain_text("cảnh báo học vụ nếu rơi vào")
    expect(dialog).to_contain_text(vi("Came first"))
    dialog.get_by_role("link", name=vi("Open the document")).first.click()
    expect(page.get_by_role("heading", name="Quy chế đào tạo.pdf")).to_be_visible()
