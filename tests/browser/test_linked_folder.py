"""A linked folder through a person's eyes: answers follow the files, nothing goes without a word."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from chatbot.i18n import translate_plural
from tests.browser.conftest import RunningApp
from tests.browser.test_journeys import ANSWER_SECONDS, answers, ask, settings_file, vi

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

READ_MILLISECONDS = 60_000


@pytest.fixture
def data_folder(data_folder: Path) -> Path:
    settings_file(data_folder, samples_added=True)
    return data_folder


@pytest.fixture
def regulations(tmp_path: Path) -> Path:
    folder = tmp_path / "Quy chế (mới nhất)"
    folder.mkdir()
    write_hour(folder, "bảy")
    (folder / "học phí.txt").write_text(
        "Điều 9. Học phí\n\nHọc phí nộp trước ngày mười lăm hằng tháng.\n", encoding="utf-8"
    )
    return folder


def write_hour(folder: Path, hour: str) -> None:
    text = f"Điều 3. Giờ mở cửa\n\nThư viện mở cửa lúc {hour} giờ sáng các ngày trong tuần.\n"
    (folder / "thư viện.txt").write_text(text, encoding="utf-8")


def until_found(app: RunningApp, query: str, words: str) -> None:
    """Wait until the first passage for the query has these words."""
    deadline = time.monotonic() + READ_MILLISECONDS / 1000
    text = ""
    while words not in text:
        assert time.monotonic() < deadline, f"still found: {text}"
        time.sleep(0.2)
        reply = httpx.post(
            f"{app.address}/api/command",
            json={"name": "search", "params": {"query": query, "limit": 1}},
            headers={"Authorization": f"Bearer {app.token}"},
            timeout=60,
            trust_env=False,
        )
        text = "".join(row["text"] for row in reply.json()["result"]["results"])


def plural(singular: str, many: str, count: int) -> str:
    return translate_plural(singular, many, count, "vi")


def open_documents(page: Page) -> None:
    page.get_by_role("link", name=vi("Documents")).click()
    expect(page.get_by_role("heading", name=vi("Documents"), exact=True)).to_be_visible()


def open_chat(page: Page) -> None:
    page.get_by_role("link", name=vi("Chat")).click()
    expect(page.get_by_test_id("stChatInputTextArea")).to_be_visible()


def test_answers_follow_a_linked_folder_and_what_is_gone_is_reviewed(
    page: Page, app: RunningApp, regulations: Path
):
    open_documents(page)
    page.get_by_text(vi("Link a folder and keep it in step")).click()
    box = page.get_by_role("textbox", name=vi("Folder on this PC"))
    box.fill(str(regulations / "không có"))
    box.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text(vi("it is not there, or is not a folder"))
    box.fill(f'"{regulations}"')
    box.press("Enter")
    card = page.locator("[class*=st-key-folder-]").first
    expect(card).to_contain_text(regulations.name)
    expect(card).to_contain_text(vi("Up to date"), timeout=READ_MILLISECONDS)
    expect(card).to_contain_text(plural("{count} file", "{count} files", 2))
    documents = page.locator("[class*=st-key-document-]")
    expect(documents).to_have_count(2)

    open_chat(page)
    ask(page, "Thư viện mở cửa lúc mấy giờ?")
    expect(answers(page).last).to_contain_text("bảy giờ", timeout=ANSWER_SECONDS)

    write_hour(regulations, "chín")
    until_found(app, "thư viện mở cửa", "chín giờ")
    ask(page, "Thư viện mở cửa lúc mấy giờ?")
    expect(answers(page)).to_have_count(2, timeout=ANSWER_SECONDS)
    expect(answers(page).last).to_contain_text("chín giờ")
    expect(answers(page).last).not_to_contain_text("bảy giờ")

    (regulations / "học phí.txt").unlink()
    open_documents(page)
    gone = plural(
        "{count} file is gone from the folder. Answers still draw on its document.",
        "{count} files are gone from the folder. Answers still draw on their documents.",
        1,
    )
    expect(card).to_contain_text(gone, timeout=READ_MILLISECONDS)
    expect(card).to_contain_text("học phí.txt")
    expect(documents).to_have_count(2)
    card.get_by_role("button", name=vi("Move to the trash")).press("Enter")
    expect(documents).to_have_count(1)
    expect(card).not_to_contain_text(gone)

    page.get_by_role("button", name=vi("Undo")).first.press("Enter")
    expect(documents).to_have_count(2)
    expect(card).not_to_contain_text(gone)

    card.locator("[class*=st-key-menu-folder-] button:visible").press("Enter")
    page.get_by_text(vi("End the link"), exact=True).click()
    card.get_by_role("button", name=vi("Keep in the library")).press("Enter")
    expect(card).to_have_count(0)
    expect(documents).to_have_count(2)
