"""A failed answer and a failed load say what would help; pressing it goes on."""

from __future__ import annotations

import pytest

from chatbot.errors import OutOfMemory
from chatbot.memory.alternatives import Case
from chatbot.memory.plan import plan
from chatbot.memory.relief import quotes, relieve
from chatbot.services import QUOTES
from chatbot.types import ConversationSettings
from tests.memory.test_plan import card, pc, three_billion
from tests.tiny_models import tiny_gguf, tiny_hf

__all__ = ["tiny_gguf", "tiny_hf"]


@pytest.fixture
def error() -> OutOfMemory:
    hardware, facts = pc(32, 28, card(7.5)), three_billion()
    cures = relieve(plan(hardware, facts), Case(hardware, facts), "m", place="gpu", phase="decode")
    freed = {"ram": [9_300_000_000, 6_100_000_000], "gpu": [79 << 30, 6 << 30]}
    made = OutOfMemory("CUDA error", name="*Llama*", phase="decode", place="gpu", freed=freed)
    made.add(cures=[cure.to_dict() for cure in (*cures, quotes(QUOTES))])
    return made


@pytest.fixture
def failed(services, error):
    """A question whose answer was broken off."""
    conversation = services.history.create(ConversationSettings(scope="also"))
    asked = services.history.add(conversation.id, None, "user", "How many days of leave?")
    return services.history.add(
        conversation.id, asked.id, "assistant", "Twelve d", state="failed", error=error.to_json()
    )


def shown(app) -> str:
    """Every text, as it is read: marks that keep it from being taken for Markdown left out."""
    texts = " ".join(element.value for element in (*app.markdown, *app.caption))
    return texts.replace("\\", "")


def test_what_happened_what_came_back_and_every_way_on_is_said(open_page, failed):
    app = open_page(conversation=failed.conversation_id)
    assert "Twelve d" in shown(app), "what was written is kept"
    assert "Memory ran out while the model “*Llama*” was writing the answer." in shown(app)
    assert "Graphics memory in use: 79.0 GB then, 6.0 GB now." in shown(app)
    assert "KV cache q8_0 instead of f16. Needs" in shown(app)
    keys = [
        button.key.split("-")[1] for button in app.button if (button.key or "").startswith("cure-")
    ]
    assert keys == ["kv", "layers", "context", "cpu", "quotes"]
    assert not app.error, "said once"


def test_pressing_a_way_answers_beside_the_failed_version(open_page, services, failed):
    app = open_page(conversation=failed.conversation_id)
    app.button(key=f"cure-quotes-{failed.id}").click().run()
    assert not app.exception
    running = services.answers.running(failed.conversation_id)
    message = running.wait(30) if running else services.history.branch(failed.conversation_id)[-1]
    assert message.state == "complete"
    assert "quoted from the documents" in message.notices[0]
    versions = services.history.siblings(failed.conversation_id)[failed.id]
    assert versions == [failed.id, message.id]
    services.history.select(failed.conversation_id, failed.id)
    assert "2" in shown(open_page(conversation=failed.conversation_id))


def test_a_failed_load_on_the_models_page_offers_what_needs_less_and_loads_it_so(
    open_page, services, error, tiny_gguf, monkeypatch
):
    model_id = services.jobs.wait(services.workshop.take_in(tiny_gguf).id, 60).message

    def fail(*_model, **_wishes):
        raise error

    loaded = []
    monkeypatch.setattr(services, "load_model", fail)
    monkeypatch.setattr(services, "load_cured", loaded.append)
    app = open_page("models.py")
    app.session_state["models-goto"] = "disk"
    app.run()
    app.button(key=f"load-{model_id}").click().run()
    assert "was writing the answer" in shown(app)
    offered = [b.key.split("-")[1] for b in app.button if (b.key or "").startswith("cure-")]
    assert offered == ["kv", "layers", "context", "cpu"], (
        "nothing was asked that quotations could answer"
    )
    app.button(key=f"cure-kv-{model_id}").click().run()
    assert [cure.kind for cure in loaded] == ["kv"]
    assert "was writing the answer" not in shown(app)


def test_the_setting_is_kept(open_page, services):
    app = open_page("settings.py")
    app.segmented_control(key="retry-smaller-en").set_value("automatic").run()
    assert services.settings.retry_smaller == "automatic"
    assert "tries again at once" in shown(app)
