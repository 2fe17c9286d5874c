"""What models have read goes with the conversation it belongs to, and is never kept of what must not be."""

from __future__ import annotations

import pytest

from chatbot import services as rooms
from chatbot.engines.states import SHARED
from chatbot.models.importing import import_model
from chatbot.settings import Paths, Settings, save_settings
from chatbot.types import ConversationSettings, GenerationOptions
from tests.tiny_models import tiny_gguf, tiny_hf

__all__ = ["tiny_gguf", "tiny_hf"]

QUESTION = "The students of the school read the rules of the house and met in the library. " * 4
BRIEF = ConversationSettings(
    scope="none", options=GenerationOptions(temperature=0, max_tokens=20, thinking=False)
)


@pytest.fixture
def services(paths: Paths, tiny_gguf):
    save_settings(paths.settings, Settings(language="en", samples_added=True))
    opened = rooms.open_services(paths)
    opened.change_settings(default_model=import_model(opened.models, tiny_gguf).id)
    yield opened
    rooms.close_services()


def answered(services, history) -> str:
    """A conversation with an answer by the model, whose state is on disk as far as it may be."""
    conversation = history.create(BRIEF)
    message = services.answers.ask(conversation.id, QUESTION).wait(60)
    assert (message.state, message.engine) == ("complete", "llama_cpp"), message.error
    services.engines.unload()
    return conversation.id


def kept(paths: Paths) -> list[str]:
    names = sorted(file.name for file in paths.states.iterdir())
    return [name for name in names if not name.startswith(SHARED)]


def test_a_conversation_reopened_after_a_restart_is_not_read_again(services, paths):
    conversation_id = answered(services, services.history)
    assert len(kept(paths)) == 2
    rooms.close_services()
    reopened = rooms.open_services(paths)
    message = reopened.answers.ask(conversation_id, "And then?").wait(60)
    assert message.stats.restored_tokens > 150
    assert message.stats.restored_tokens <= message.stats.cached_tokens


def test_a_deleted_conversation_takes_its_state_along(services, paths):
    gone, stays = (answered(services, services.history) for _ in range(2))
    assert len(kept(paths)) == 4
    services.history.delete(gone)
    assert len(kept(paths)) == 2
    assert not any(file.name.startswith(SHARED) for file in paths.states.iterdir())
    services.history.purge(stays)
    assert list(paths.states.iterdir()) == []


def test_a_conversation_deleted_while_the_model_has_it_in_memory_is_never_written(services, paths):
    conversation = services.history.create(BRIEF)
    services.answers.ask(conversation.id, QUESTION).wait(60)
    services.history.delete(conversation.id)
    services.engines.unload()
    assert list(paths.states.iterdir()) == []


def test_deleting_everything_deletes_every_state(services, paths):
    answered(services, services.history)
    services.delete_everything()
    assert list(paths.states.iterdir()) == []


def test_an_incognito_conversation_leaves_no_state(services, paths):
    answered(services, services.incognito)
    assert list(paths.states.iterdir()) == []


def test_a_removed_model_takes_its_states_along(services, paths):
    answered(services, services.history)
    services.remove_model(services.settings.default_model)
    assert list(paths.states.iterdir()) == []


def test_a_limit_of_nothing_removes_all_and_keeps_nothing(services, paths):
    answered(services, services.history)
    services.change_settings(state_megabytes=0)
    assert list(paths.states.iterdir()) == []
    answered(services, services.history)
    assert list(paths.states.iterdir()) == []


def test_what_a_conversation_left_that_is_gone_is_removed_at_the_next_start(services, paths):
    answered(services, services.history)
    assert kept(paths)
    rooms.close_services()
    database = rooms.Database(paths.database)  # gone, and nobody could tell the states
    database.execute("DELETE FROM conversations")
    database.close()
    rooms.open_services(paths)
    assert kept(paths) == []
