"""The page of this PC as Streamlit runs it, with the real machine and with a made-up graphics card."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from chatbot.errors import OutOfMemory
from chatbot.hardware import detect
from chatbot.hardware.speeds import Speeds
from chatbot.memory.incidents import Incident
from chatbot.memory.relief import WORDS, Cure
from chatbot.memory.speed import keep
from chatbot.types import (
    GenerationStats,
    Gpu,
    GpuProgram,
    Growth,
    MemoryPlan,
)
from tests.fakes import GIB, fake_pynvml, pc

CARD = Gpu(
    index=0, name="RTX <b>4060</b>", kind="cuda", total=8 << 30, free=6 << 30, load=35.0,
    temperature=61.0, power=80.0, driver="570.1", used_by_hearth=1 << 30, power_limit=115.0,
    clock=1980.0, pcie=(4, 8), cuda="12.8", programs=(GpuProgram(1, 1 << 30, ours=True),),
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


@pytest.mark.usefixtures("graphics_card", "cuda")
def test_a_graphics_card_shows_memory_load_temperature_and_power(open_page):
    app = open_page("hardware.py")
    for figure in ("35 %", "61 °C", "80 / 115 W", "1,980 MHz", "4.0 ×8"):
        assert f"</span>{figure}</div>" in drawn(app)
    assert "driver 570" in shown(app)
    assert "CUDA 12" in shown(app)
    assert "Hearth 1.0 GB" in drawn(app), "by program"
    assert "2.0 GB / 8.0 GB" in drawn(app)
    assert "with 8.0 GB" in app.success[0].value, "the verdict names the card"
    # The driver's words are shown, never interpreted.
    assert "RTX &lt;b&gt;4060" in drawn(app)
    assert "<b>4060" not in drawn(app)
    assert drawn(app).count("data:image/svg+xml") == 3, "processor, memory and the card"


def test_it_needs_no_library_that_would_touch_a_gpu(open_page):
    before = set(sys.modules)
    open_page("hardware.py")
    assert not {"torch", "llama_cpp", "altair"} & (set(sys.modules) - before)


def test_the_page_speaks_vietnamese(open_page, services):
    services.change_settings(language="vi")
    app = open_page("hardware.py")
    assert app.title[0].value == "Máy này"
    assert "Chương trình khác" in drawn(app)


def see(services, monkeypatch, name: str) -> list[Gpu]:
    """Put made-up NVIDIA cards into this PC, and take two samples of them."""
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml(pc(name)))
    services.monitor._take()
    return list(services.monitor._take().gpus)


@pytest.fixture
def cuda(monkeypatch):
    """The installed engines can use NVIDIA cards, as they can on a PC that has one."""
    detect.installed.cache_clear()
    monkeypatch.setattr(detect, "_names_cuda", lambda _version: True)
    yield
    detect.installed.cache_clear()


VERDICTS = {
    "none": "No graphics card",
    "laptop": "RTX 4060 Laptop GPU with 8.0 GB",
    "two": "2 graphics cards with 28.0 GB together",
    "full": "Other programs hold 11.5 GB of the 12.0 GB",
    "eight": "8 graphics cards with 640.0 GB together",
    "mixed": "the largest alone has 80.0 GB",
}


@pytest.mark.parametrize("name", VERDICTS)
@pytest.mark.usefixtures("cuda")
def test_every_pc_has_a_clear_page(open_page, services, monkeypatch, name):
    cards = see(services, monkeypatch, name)
    app = open_page("hardware.py")
    page = drawn(app)
    assert page.count('class="hearth-figures"') == len(cards)
    assert page.count("data:image/svg+xml") == 2 + len(cards), "a chart a card"
    (verdict,) = (*app.info, *app.success, *app.warning)
    assert VERDICTS[name] in verdict.value.replace("\\", "")
    for card in cards:
        assert f"{(card.total - card.free) / GIB:,.1f} GB / {card.total / GIB:,.1f} GB" in page
    meters = page[page.index("hearth-meters") :]
    if len(cards) > 2:
        assert f"{len(cards)} graphics cards" in meters, "the sidebar adds them up"
        assert "#7" in page, "and the page tells them apart"
    if name == "full":
        assert "11.0 GB" in page, "which program holds it"


def test_a_card_that_the_engines_cannot_use_is_said_so(open_page, services, monkeypatch):
    see(services, monkeypatch, "laptop")
    app = open_page("hardware.py")
    if not (detect.installed().transformers_gpu or detect.installed().llama_cpp_gpu):
        assert "built without CUDA" in app.info[0].value


def test_a_card_that_sleeps_is_said_to_sleep(open_page, services, monkeypatch):
    sample = services.monitor.latest()
    asleep = replace(CARD, asleep=True, load=None, power=None, programs=())
    monkeypatch.setattr(services.monitor, "latest", lambda: replace(sample, gpus=(asleep,)))
    app = open_page("hardware.py")
    assert "Asleep" in drawn(app)
    assert 'class="hearth-figures"' not in drawn(app)


PLAN = MemoryPlan(
    backend="llama_cpp", precision="Q4_K_M", device="cpu", gpu_layers=0, context=8192, kv_type="f16",
    batch=512, threads=2, parts={"weights": 6 << 30, "kv": 1 << 30, "buffers": 1 << 29},
    total=(7 << 30) + (1 << 29), free=16 << 30, fits=True, reason="",
)  # fmt: skip


def test_a_card_that_vanishes_is_said_and_the_page_lives(open_page, services, monkeypatch):
    sample = services.monitor.latest()
    earlier = replace(sample, at=sample.at - 5, gpus=(CARD,))
    gone = replace(sample, gpus=())
    monkeypatch.setattr(services.monitor, "latest", lambda: gone)
    monkeypatch.setattr(services.monitor, "series", lambda _seconds: [earlier, gone])
    assert "has not answered since" in shown(open_page("hardware.py"))


def test_apples_memory_is_one_pool(open_page, services, monkeypatch):
    gpu = Gpu(0, "Apple M3", "mps", total=12 << 30, free=8 << 30, load=40.0)
    sample = replace(services.monitor.latest(), gpus=(gpu,))
    monkeypatch.setattr(services.monitor, "latest", lambda: sample)
    app = open_page("hardware.py")
    assert "Apple M3" in drawn(app)
    assert "</span>40 %</div>" in drawn(app)
    assert "Memory of processor and graphics" in drawn(app)
    assert "administrators" in shown(app), "its power is not told, and that is said"
    assert drawn(app).count("</i>Other programs") == 1, "the GPU has no bar of its own"


def test_loads_are_listed_with_predicted_measured_and_error(open_page, services):
    assert "adds a line here" in shown(open_page("hardware.py"))
    read = GenerationStats(prompt_tokens=600)
    for number in range(5):
        services.calibration.note(number, "<i>Llama</i>", PLAN, 1, Growth(8 << 30), read)
    app = open_page("hardware.py")
    assert "&lt;i&gt;Llama" in drawn(app)
    assert "7.5 GB" in drawn(app)
    assert "−6.2 %" in drawn(app)
    assert "plans are corrected by +7 %" in shown(app)


def test_the_model_in_memory_is_drawn_as_predicted_and_measured(open_page, services, monkeypatch):
    services.calibration.note(1.0, "Llama", PLAN, 1, Growth(8 << 30))
    monkeypatch.setattr(
        services, "loaded_memory", lambda: services.calibration.load_at(1.0), raising=True
    )
    app = open_page("hardware.py")
    assert "KV cache 1.0 GB" in drawn(app)
    assert "Measured in main memory</strong><span>8.0 GB" in drawn(app)
    assert "first long question" in shown(app)


def test_the_button_measures_this_pc_and_the_page_shows_it(open_page, services):
    app = open_page("hardware.py")
    assert "Measure this PC" in [button.label for button in app.button]
    app.button(key="benchmark").click().run()
    (job,) = services.jobs.list(kind="benchmark")
    assert services.jobs.wait(job.id, 120).state == "done"
    app.run()
    assert "GFLOP/s" in shown(app)
    assert "Measure again" in [button.label for button in app.button]


def test_a_card_is_compared_with_the_processor(open_page, services):
    figures = Speeds(
        1.0, 3.0, 20e9, 1e11, "RTX", 250e9, 12e12, 50e12, to_gpu=12e9, from_gpu=13e9
    )  # fmt: skip
    keep(services.database, services.calibration._machine, figures)
    app = open_page("hardware.py")
    assert "100 GFLOP/s · RTX 12.0 TFLOP/s" in shown(app)
    assert "multiplies 120 times as fast" in shown(app)
    assert "Transfer to the card" in shown(app)
    assert "B\N{NO-BREAK SPACE}≈" in shown(app), "what models of usual sizes would write"


def test_the_speed_of_answers(open_page, services):
    conversation = services.history.create()
    for speed in (8.0, 9.5):
        stats = GenerationStats(tokens_per_second=speed, seconds_to_first_token=1.25)
        services.history.add(
            conversation.id, None, "assistant", "Xong.", engine="llama_cpp", stats=stats
        )
    app = open_page("hardware.py")
    assert "median 8.8 tokens/s" in drawn(app)
    assert "Memory ran out" not in str(app.expander)


@pytest.mark.parametrize("chosen", [True, False])
def test_the_last_out_of_memory_has_its_cause_and_its_cure(
    open_page, services, monkeypatch, chosen
):
    cure = Cure("batch", "m", saves=GIB, words=WORDS["batch"], values={"new": 128, "old": 512})
    freed = {"ram": [9 << 30, 2 << 30]}
    error = OutOfMemory(name="Llama", phase="prefill", freed=freed, cures=[cure.to_dict()])
    last = Incident(1, 1_800_000_000.0, error, cure if chosen else None)
    monkeypatch.setattr(services, "last_out_of_memory", lambda: last)
    app = open_page("hardware.py")
    assert "while the model “Llama” was reading the question" in shown(app)
    assert "9.0 GB then, 2.0 GB now" in shown(app).replace("\\", "")
    assert "128 tokens at a time instead of 512" in shown(app)
    assert ("Changed then:" if chosen else "What helps") in shown(app)


def test_free_memory_and_an_hour(open_page):
    app = open_page("hardware.py", **{"hardware-span": 3600})
    app.button(key="free-memory").click().run()
    assert not app.exception
    assert "Memory in use:" in shown(app) or "No model loaded" in shown(app)
