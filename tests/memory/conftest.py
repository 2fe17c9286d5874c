from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(
    os.environ.get("HEARTH_SHARED_DATA", Path(__file__).resolve().parents[2] / "../shared/data")
)


@pytest.fixture(scope="session")
def shared_models() -> Path:
    folder = SHARED / "models"
    if not folder.is_dir():
        pytest.skip("../shared/data/models is not here")
    return folder
