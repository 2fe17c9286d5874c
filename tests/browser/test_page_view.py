"""From an answer to the page it rests on, in a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import RunningApp, press_until
from tests.browser.test_journeys import (
    ANSWER_SECONDS,
    answers,
    ask,
    attach,
    settings_file,
    vi,
)

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


@pytest.fixture
def data_folder(data_folder):
    settings_file(data_folder)
    return data_folder


def page_label(number: int, pages: int) -> str:
    return vi("Page {page} of {pages}").format(page=number, pages=pages)


def in_sight(node: Locator) -> bool:
    """Whether it lies in what its frame shows."""
    inside: bool = node.evaluate(
        """node => {
          const [a, b] = [node, node.closest('.frame')].map((n) => n.getBoundingClientRect());
          return a.height > 0 && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
        }"""
    )
    return inside


def test_an_answer_leads_to_its_passage_on_the_page(page: Page, app: RunningApp, shared_data):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    pdf = shared_data / "phapluat-vi" / "thong-tu-so-06-2024-tt-bldtbxh-42452.pdf"
    attach(page, pdf, pdf.name[:5])
    ask(page, "thong tu nay co hieu luc thi hanh tu ngay nao")
    answer = answers(page).last
    expect(answer).to_contain_text("15 tháng 9 năm 2024", timeout=ANSWER_SECONDS)

    dialog = page.get_by_role("dialog")
    press_until(answer.get_by_role("button", name=pdf.name).first, dialog.is_visible)
    picture = dialog.get_by_role("img")
    expect(picture).to_be_visible()
    expect(picture).to_have_attribute("alt", re.compile(page_label(9, 10)))
    assert picture.evaluate("async img => { await img.decode(); return img.naturalWidth; }") == 1400
    lit, quoted = dialog.locator("rect.passage"), dialog.locator("rect.quote")
    assert lit.count() > 5
    expect(quoted).not_to_have_count(0)
    assert in_sight(quoted.first)

    forward = dialog.get_by_role("button", name=vi("Next page"))
    back = dialog.get_by_role("button", name=vi("Previous page"))
    press_until(forward, dialog.get_by_text(page_label(10, 10)).is_visible)
    expect(picture).to_have_attribute("alt", re.compile(page_label(10, 10)))
    expect(lit).to_have_count(3)  # the passage ends on this page
    assert in_sight(lit.first)
    press_until(back, dialog.get_by_text(page_label(9, 10)).is_visible)
    press_until(back, dialog.get_by_text(page_label(8, 10)).is_visible)
    expect(picture).to_have_attribute("alt", re.compile(page_label(8, 10)))
    expect(lit).to_have_count(0)
    press_until(
        dialog.get_by_role("button", name=vi("To the passage")),
        dialog.get_by_text(page_label(9, 10)).is_visible,
    )
    expect(quoted).not_to_have_count(0)

    before = picture.bounding_box()["width"]
    dialog.get_by_role("button", name=vi("Larger")).click()
    expect(dialog.locator("output")).to_have_text("125 %")
    assert picture.bounding_box()["width"] == pytest.approx(1.25 * before, rel=0.03)

    dialog.get_by_role("button", name=vi("Copy with its source")).click()
    expect(dialog.get_by_text(vi("Copied"))).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("“Điều 3. Hiệu lực thi hành")
    assert copied.endswith(f"{vi('pages {first}–{last}').format(first=9, last=10)})")
    assert pdf.name in copied

    dialog.get_by_text(vi("Text"), exact=True).click()
    expect(dialog.locator(".st-key-passage")).to_contain_text("15 tháng 9 năm 2024")

    # The stored original breaks: one page cannot be shown, and everything else goes on.
    for stored in (app.data / "files").iterdir():
        stored.write_bytes(b"%PDF-1.7\n" + b"\0" * 100)
    dialog.get_by_text(vi("Page"), exact=True).click()
    press_until(back, dialog.get_by_text(page_label(8, 10)).is_visible)  # kept from before
    press_until(back, dialog.get_by_text(page_label(7, 10)).is_visible)
    expect(dialog).to_contain_text("Không hiển thị được trang 7")
    press_until(back, dialog.is_hidden, key="Escape")
    ask(page, "nghi phep bao nhieu ngay")
    expect(answers(page)).to_have_count(2, timeout=ANSWER_SECONDS)


@pytest.mark.parametrize("width", [1280, 420])
def test_a_text_is_shown_formatted_with_the_passage_in_sight(page: Page, app, tmp_path, width):
    page.set_viewport_size({"width": width, "height": 800})
    lines = [f"## Mục {n}\n\nNội dung của mục {n}, viết ra để có chữ.\n" for n in range(120)]
    (tmp_path / "dài.md").write_text(
        "# Sổ tay\n\n" + "\n".join(lines) + "\n## Nghỉ phép\n\nMỗi năm được nghỉ 14 ngày. <script>x</script>\n",
        encoding="utf-8",
    )  # fmt: skip
    attach(page, tmp_path / "dài.md", "dài")
    ask(page, "moi nam duoc nghi phep may ngay")
    answer = answers(page).last
    expect(answer).to_contain_text("14 ngày", timeout=ANSWER_SECONDS)
    dialog = page.get_by_role("dialog")
    press_until(answer.get_by_role("button", name="dài.md").first, dialog.is_visible)
    expect(dialog.get_by_role("heading", name="Nghỉ phép")).to_be_visible()
    mark = dialog.locator("mark").filter(has_text="14 ngày")
    expect(mark).to_be_visible()
    assert in_sight(mark)
    expect(dialog).to_contain_text("<script>x</script>")
    frame = dialog.locator(".frame").bounding_box()
    assert frame["x"] >= 0
    assert frame["x"] + frame["width"] <= width


def test_a_passage_on_the_documents_page_opens_its_page(page: Page):
    page.get_by_test_id("stSidebar").get_by_role("link", name=vi("Documents")).click()
    entry = page.get_by_role("button", name="Quy chế đào tạo.pdf")
    shown = page.get_by_role("button", name=vi("Show in the document"))
    press_until(entry.first, shown.first.is_visible)
    dialog = page.get_by_role("dialog")
    press_until(shown.first, dialog.is_visible)
    expect(dialog.get_by_role("img")).to_be_visible()
    expect(dialog.locator("rect.passage")).not_to_have_count(0)
