"""The page of this PC as Streamlit runs it, with the real machine and with a made-up graphics card."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from chatbot.types import Gpu

CARD = Gpu(
    index=0, name="RTX <b>4060</b>", kind="cuda", total=8 << 30, free=6 << 30, load=35.0,
    temperature=61.0, power=80.0, driver="570.1", used_by_hearth=1 << 30,
)  # fmt: skip


@pytest.fixture
def graphics_card(services, monkeypatch):
    """The page sees a card, and two samples of it."""
    sample = replace(services.monitor.latest(), gpus=(CARD,))
    monkeypatch.setattr(services.monitor, "latest", lambda: sample)
    monkeypatch.setattr(
        services.monitor, "series", lambda _seconds: [replace(sample, at=sample.at - 9), sample]
    )
    owned = replace(services.hardware(), device="cuda", gpus=(CARD,))
    monkeypatch.setattr(services, "hardware", lambda: owned)


def shown(app) -> str:
    boxes = [*app.markdown, *app.caption, *app.info, *app.success]
    return "\n".join(box.value for box in boxes)


def drawn(app) -> str:
    return "\n".join(element.proto.body for element in app.get("html"))


def test_it_says_what_this_pc_has_and_who_uses_the_memory(open_page, services):
    hardware = services.hardware()
    app = open_page("hardware.py")
    assert app.title[0].value == "This PC"
    if not hardware.gpus:
        assert "No graphics card" in app.info[0].value
    assert "Vector instructions" in shown(app)
    assert "Hearth" in drawn(app)
    assert "Other programs" in drawn(app)


@pytest.mark.usefixtures("graphics_card")
def test_a_graphics_card_shows_memory_load_temperature_and_power(open_page):
    app = open_page("hardware.py")
    assert "load 35 % · 61 °C · 80 W" in shown(app)
    assert "with 8.0 GB" in app.success[0].value, "the verdict names the card"
    # The driver's words are shown, never interpreted.
    assert "RTX &lt;b&gt;4060" in drawn(app)
    assert "<b>4060" not in drawn(app)
    assert drawn(app).count("data:image/svg+xml") == 2


def test_it_needs_no_library_that_would_touch_a_gpu(open_page):
    before = set(sys.modules)
    open_page("hardware.py")
    assert not {"torch", "llama_cpp", "altair"} & (set(sys.modules) - before)


def test_the_page_speaks_vietnamese(open_page, services):
    services.change_settings(language="vi")
    app = open_page("hardware.py")
    assert app.title[0].value == "Máy này"
    assert "Chương trình khác" in drawn(app)
