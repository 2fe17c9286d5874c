from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chatbot.database import Database
from chatbot.models.store import ModelStore
from chatbot.settings import Paths
from tests.tiny_models import tiny_gguf, tiny_hf

__all__ = ["tiny_gguf", "tiny_hf"]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(tmp_path / "Dữ liệu của tôi")
    found.make()
    return found


@pytest.fixture
def database(paths: Paths) -> Iterator[Database]:
    opened = Database(paths.database)
    yield opened
    opened.close()


@pytest.fixture
def store(database: Database, paths: Paths) -> ModelStore:
    return ModelStore(database, paths)
