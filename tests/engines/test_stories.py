"""Real trained weights: stories260K, as a GGUF file and as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatbot.engines.base import EngineSpec
from chatbot.engines.templates import NO_TEMPLATE
from chatbot.engines.worker import EngineWorker
from chatbot.types import GenerationOptions, Turn

GREEDY = GenerationOptions(temperature=0, repeat_penalty=1.0, max_tokens=500)
TURNS = [Turn("user", "Once upon a time there was a cat.")]


@pytest.fixture(scope="module", params=["llama_cpp", "transformers"])
def stories(request: pytest.FixtureRequest, shared_data: Path):
    name = "stories260K.gguf" if request.param == "llama_cpp" else "stories260K"
    path = shared_data / "models" / name
    if not path.exists():
        pytest.skip(f"{name} is not on this machine")
    worker = EngineWorker(
        EngineSpec(request.param, name="stories", path=str(path), precision="fp32", threads=1)
    )
    yield worker
    worker.close()


def test_a_story_ends_where_the_model_ends_it(stories: EngineWorker) -> None:
    deltas = list(stories.stream(TURNS, GREEDY))
    text = "".join(delta.text for delta in deltas)
    stats = deltas[-1].stats
    assert stats.finish == "stop"
    assert 20 < stats.answer_tokens < 480
    assert text.rstrip().endswith((".", "!", "?", '"'))
    assert "<s>" not in text
    assert "User:" not in text


def test_a_model_without_template_gets_the_built_in_one(stories: EngineWorker) -> None:
    assert stories.info.template == "built-in"
    deltas = list(stories.stream(TURNS, GenerationOptions(max_tokens=2)))
    assert NO_TEMPLATE in [delta.notice for delta in deltas]


def test_counts_are_exact_with_byte_tokens(stories: EngineWorker) -> None:
    turns = [Turn("user", "Việt Nam 😀\n\n  hai dòng")]
    counted = stories.count_tokens(turns)
    *_, last = stories.stream(turns, GenerationOptions(max_tokens=1))
    assert last.stats.prompt_tokens == counted


def test_the_second_turn_reads_only_what_is_new(stories: EngineWorker) -> None:
    *deltas, last = stories.stream(TURNS, GenerationOptions(max_tokens=40, seed=1))
    text = "".join(delta.text for delta in deltas)
    *_, second = stories.stream(
        [*TURNS, Turn("assistant", text), Turn("user", "What then?")],
        GenerationOptions(max_tokens=1),
    )
    read_before = last.stats.prompt_tokens + last.stats.answer_tokens - 1
    assert second.stats.cached_tokens >= read_before - 2


@pytest.mark.slow
def test_both_formats_tell_the_same_story(shared_data: Path) -> None:
    models = shared_data / "models"
    if not (models / "stories260K.gguf").exists():
        pytest.skip("stories260K is not on this machine")
    told = []
    for backend, name in (("llama_cpp", "stories260K.gguf"), ("transformers", "stories260K")):
        spec = EngineSpec(backend, name=name, path=str(models / name), precision="fp32", threads=1)
        worker = EngineWorker(spec)
        told.append("".join(d.text for d in worker.stream(TURNS, GREEDY)))
        worker.close()
    assert told[0] == told[1]
