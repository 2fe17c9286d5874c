"""A process to be killed: owns a data folder and does one step that makes a model, telling where it is.

    python -m tests.faults.models_victim DATA_FOLDER STEP PARAMETERS_AS_JSON

Prints `opened` once the data folder is its own, `working` when the step says something for the first
time, and `listed ID` at the end.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from chatbot.database import Database
from chatbot.models import fetching, making
from chatbot.models.store import ModelStore
from chatbot.models.worker import PATHS
from chatbot.settings import Paths
from chatbot.types import ModelArtifact


def do(store: ModelStore, step: str, params: dict[str, Any], report: Any) -> ModelArtifact:
    """The listed model that the step makes."""
    if step == "download":
        return fetching.download(store, report, **params)
    paths = {name: Path(value) for name, value in params.items() if name in PATHS}
    return making.make(store, step, report, name="Nạn nhân", **{**params, **paths})


def main(data: Path, step: str, params: dict[str, Any]) -> None:
    paths = Paths(data)
    paths.make()
    store = ModelStore(Database(paths.database), paths)
    print("opened", flush=True)
    told: list[str] = []

    def report(_fraction: float, message: str = "", **_values: Any) -> None:
        if message and not told:
            told.append(message)
            print("working", flush=True)

    print("listed", do(store, step, params, report).id, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
