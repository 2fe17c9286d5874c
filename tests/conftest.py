"""What every test stands on: a data folder of its own, and where the shared data lies."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("HEARTH_OFFLINE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")

from chatbot.database import Database
from chatbot.settings import PROJECT, Paths

# The same examples every time and no clock, so that a check fails for a change and never by chance;
# `--hypothesis-profile default` looks for new ones.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same")


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A fresh data folder, also for the children this test starts."""
    folder = tmp_path / "dữ liệu"
    monkeypatch.setenv("HEARTH_DATA", str(folder))
    made = Paths(folder)
    made.make()
    return made


@pytest.fixture
def database(paths: Paths):
    opened = Database(paths.database)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data sets; tests that need them skip where they are absent."""
    folder = Path(os.environ.get("HEARTH_SHARED_DATA") or PROJECT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("the shared data sets are not on this machine")
    return folder
