"""The engines under test, each in a real child process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from chatbot.engines.base import EngineSpec
from chatbot.engines.worker import EngineWorker
from chatbot.types import Delta, GenerationOptions, GenerationStats, Source, Turn
from tests.engines.chat_server import ChatServer
from tests.tiny_models import ENDLESS, RECITED, tiny_gguf, tiny_hf

__all__ = ["tiny_gguf", "tiny_hf"]

QUESTION = (Turn("system", "Be exact."), Turn("user", "Xin chào, cảnh báo học vụ là gì? 😀"))
GREEDY = GenerationOptions(temperature=0, repeat_penalty=1.0, max_tokens=64, thinking=False)


@dataclass(frozen=True)
class Answer:
    """Everything one stream gave."""

    deltas: list[Delta]

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def stats(self) -> GenerationStats:
        stats = self.deltas[-1].stats
        assert stats is not None
        return stats

    @property
    def notices(self) -> list[str]:
        return [delta.notice for delta in self.deltas if delta.notice]


@dataclass(frozen=True)
class Case:
    """One engine, a question with a known answer, and one whose answer takes long."""

    worker: EngineWorker
    turns: Sequence[Turn]
    text: str
    short: GenerationOptions
    long_turns: Sequence[Turn]
    long: GenerationOptions

    def ask(self, turns: Sequence[Turn] | None = None, **options) -> Answer:
        asked = self.turns if turns is None else turns
        return Answer(list(self.worker.stream(asked, replace(self.short, **options))))


@pytest.fixture(scope="session")
def chat_server() -> Iterator[ChatServer]:
    with ChatServer(RECITED, "".join(ENDLESS)) as server:
        yield server


@pytest.fixture(scope="module")
def spec_of(request: pytest.FixtureRequest, chat_server: ChatServer) -> Callable[[str], EngineSpec]:
    def spec(backend: str) -> EngineSpec:
        if backend == "openai":
            return EngineSpec("openai", "tiny", name="remote", url=chat_server.url, key="s3cret")
        if backend == "extractive":
            return EngineSpec("extractive", name="Hearth")
        path: Path = request.getfixturevalue("tiny_gguf" if backend == "llama_cpp" else "tiny_hf")
        precision = "fp32" if backend == "transformers" else ""
        return EngineSpec(
            backend,
            name=f"tiny {backend}",
            path=str(path),
            batch=128,
            precision=precision,
            threads=1,
        )

    return spec


@pytest.fixture(scope="module", params=["extractive", "llama_cpp", "transformers", "openai"])
def case(request: pytest.FixtureRequest, spec_of) -> Iterator[Case]:
    """Every engine in turn."""
    worker = EngineWorker(spec_of(request.param))
    if request.param == "extractive":
        yield _quoting(worker)
    else:
        yield Case(
            worker,
            QUESTION,
            RECITED,
            GREEDY,
            QUESTION,
            replace(GREEDY, thinking=True, max_tokens=6000),
        )
    worker.close()


@pytest.fixture(scope="module", params=["llama_cpp", "transformers"])
def model_case(request: pytest.FixtureRequest, spec_of) -> Iterator[Case]:
    """The engines that run a model of their own."""
    worker = EngineWorker(spec_of(request.param))
    yield Case(
        worker, QUESTION, RECITED, GREEDY, QUESTION, replace(GREEDY, thinking=True, max_tokens=6000)
    )
    worker.close()


def source(text: str, number: int = 1, path: str = "", score: float = 1.0) -> Source:
    return Source(number, f"p{number}", "d1", "Quy chế.pdf", 3, path, text, score)


def _quoting(worker: EngineWorker) -> Case:
    text = "Sinh viên bị cảnh báo học vụ khi điểm trung bình dưới 1,0 😀."
    turn = Turn("user", "…", "Khi nào sinh viên bị cảnh báo học vụ?", (source(text),))
    many = tuple(
        source(f"Cảnh báo học vụ số {n}: " + " ".join(f"từ{n}x{i}" for i in range(90)) + ".", n)
        for n in range(1, 5)
    )
    long_turn = Turn("user", "…", "cảnh báo học vụ?", many)
    return Case(
        worker, [turn], f"{text} [1]", GREEDY, [long_turn], replace(GREEDY, max_tokens=6000)
    )
