"""Make one model out of another: a step in a child process, its files checked and taken into the list.

A step writes into a folder that `ModelStore.begin` gave; the manifest comes last. Whatever ends it
early leaves nothing listed, and its source as it was.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from chatbot.child import Child
from chatbot.errors import BrokenModel, ChildDied, ModelError
from chatbot.i18n import N_
from chatbot.memory.facts import ModelFacts
from chatbot.memory.headers import read_model
from chatbot.models.files import Report, StoredFile, telling_full_disk
from chatbot.models.store import ModelStore
from chatbot.settings import sync
from chatbot.types import ModelArtifact, ModelRole

ONLINE = {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}
OFFLINE = {"HF_TOKEN": ""}
"""What reads models that came from anywhere has no business with the access token."""
CRASHES = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL")
HUNG_AFTER = 60.0
"""Seconds without a sign of life: a step may hold Python's lock for long while it maps a large file."""


def run(step: str, report: Report, /, *, online: bool = False, **params: Any) -> dict[str, Any]:
    """What that step returns, done in a child process of its own that ends with it.

    `online` lets the libraries in the child speak to the hub. Raises the step's own error, ChildDied
    or ChildHung, and Cancelled when `report` does.
    """
    child = Child(
        "chatbot.models.worker",
        name=step,
        environment=ONLINE if online else OFFLINE,
        lowest_priority=True,
        hung_after=HUNG_AFTER,
    )
    plain = {name: str(v) if isinstance(v, Path) else v for name, v in params.items()}
    fraction, message, values = 0.0, "", {}
    try:
        for event, _ in child.stream(step, plain, ticks=True):
            if "progress" in event:
                fraction, message, values = event["progress"], event["message"], event["values"]
            elif "tick" not in event:
                return event
            report(fraction, message, **values)
        raise AssertionError("a stream ends with its result")
    except ChildDied as error:
        source, ending = params.get("source"), error.values.get("detail")
        if source is None or ending not in CRASHES:
            raise
        name = Path(source).name
        raise BrokenModel(
            N_("the program that reads it crashed on it ({part})."), name=name, part=ending
        ) from error
    finally:
        child.close(grace=0.0)


def make(
    store: ModelStore,
    step: str,
    report: Report,
    *,
    name: str = "",
    role: ModelRole | None = None,
    origin: dict[str, Any] | None = None,
    parent: str | None = None,
    called: str | None = None,
    online: bool = False,
    **params: Any,
) -> ModelArtifact:
    """The listed model that a step made: prepare, merge, convert, quantise or unpack.

    The step gets `target`, an empty folder on the disk of the models, and returns {files, figures}:
    a StoredFile as a dict for everything it wrote there, and what it measured; a step that knows them
    adds `name`, `role` and `notes` for the manifest. `parent` is the id of the model it was made from,
    `called` what the model shall say its name is, for steps that write one into it.
    Raises what `run` does; then nothing is listed and nothing is left.
    """
    with telling_full_disk(store.folder):
        begun = store.begin()
        try:
            named = {"name": called} if called else {}
            done = run(step, report, online=online, target=begun, **named, **params)
            files = [StoredFile(**file) for file in done["files"]]
            sync(begun)
            made = {
                "step": step,
                "parent": parent,
                "params": {key: str(value) for key, value in params.items() if value is not None},
                "figures": done["figures"],
                "at": time.time(),
            }
            notes = {
                **done.get("notes", {}),
                "made": made,
                **({"origin": origin} if origin else {}),
            }
            name, role = name or done.get("name", ""), role or done.get("role", "chat")
            return store.add(facts_of(begun, files), files, begun, name=name, role=role, **notes)
        except ModelError as error:
            if error.values.get("name") == begun.name:  # people never saw the folder it was made in
                raise type(error)(**{**error.values, "name": name or step}) from error
            raise
        finally:
            shutil.rmtree(begun, ignore_errors=True)  # `add` moved it away where all went well


def facts_of(folder: Path, files: list[StoredFile]) -> ModelFacts:
    """What the model that these files make up is."""
    ggufs = [file.name for file in files if file.name.lower().endswith(".gguf")]
    return read_model(folder / ggufs[0] if ggufs else folder)
