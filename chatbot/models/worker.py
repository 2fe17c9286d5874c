"""The process that makes models: one step of the work, at the lowest priority, in a child that may die.

Each step is a function `step(report, **params) -> dict`: paths in, figures out. What it writes lies
finished and synced in the folder it was given; only the owner takes that into the list.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from chatbot.child import Handler, Request, serve
from chatbot.models.files import telling_full_disk

STEPS = {
    "download": "chatbot.models.download",
    "prepare": "chatbot.models.fp16",
    "merge": "chatbot.models.merge",
    "convert": "chatbot.models.gguf",
    "quantise": "chatbot.models.gguf",
    "measure_importance": "chatbot.models.importance",
    "verify": "chatbot.models.verify",
    "package": "chatbot.models.package",
    "unpack": "chatbot.models.unpack",
    "push": "chatbot.models.push",
}
"""Where the function of each step lives; it bears the step's name."""

PATHS = ("source", "target", "parent", "base", "adapter", "importance", "file")
"""Parameters that are paths; None stays None."""


def _handler(step: str) -> Handler:
    def handle(request: Request) -> dict[str, Any]:
        def report(fraction: float, message: str = "", **values: Any) -> None:
            request.check()
            request.event({"progress": fraction, "message": message, "values": values})

        params = {
            name: Path(value) if name in PATHS and value is not None else value
            for name, value in request.params.items()
        }
        work: Callable[..., dict[str, Any]] = getattr(import_module(STEPS[step]), step)
        with telling_full_disk(params.get("target") or params.get("file") or Path()):
            return work(report, **params)

    return handle


if __name__ == "__main__":
    os.environ["GGML_NO_BACKTRACE"] = "1"  # where it gives up, ggml would start a debugger
    serve({step: _handler(step) for step in STEPS})
