"""How a command reaches the Hearth that owns the data folder: beside it, or as the owner for its duration."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from chatbot.cli.terminal import Progress, language, wants_json
from chatbot.errors import ChatbotError, OwnerMissing, OwnerSilent
from chatbot.i18n import filled
from chatbot.settings import Paths

Call = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Does one command in the owner: its name and parameters → its result."""

LOOK_SECONDS = 0.3


def run(command: str, *, needs_owner: bool = False, **params: Any) -> dict[str, Any]:
    """Run a command in the Hearth that owns the data folder, or as the owner."""

    def work() -> dict[str, Any]:
        with _owner(needs_owner=needs_owner) as call:
            return call(command, params)

    return told(work)


def run_job(command: str, **params: Any) -> dict[str, Any]:
    """Run a command that begins a job: its progress on stderr, its result at the end.

    Ctrl+C cancels the job.
    """

    def work() -> dict[str, Any]:
        with _owner() as call:
            job = call(command, {**params, "wait": False})["job"]
            try:
                _follow(call, job)
            except KeyboardInterrupt:
                call("jobs cancel", {"id": job})
                raise
            return call("models result", {"job": job})

    return told(work)


def told(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of `work`; an error becomes its message on stderr and exit code 1."""
    try:
        return work()
    except ChatbotError as error:
        if wants_json():
            described = {**error.to_dict(), "message": error.text("en")}
            print(json.dumps({"error": described}, ensure_ascii=False), file=sys.stderr)
        else:
            print(error.text(language()), file=sys.stderr)
        raise typer.Exit(1) from None


@contextmanager
def _owner(*, needs_owner: bool = False) -> Iterator[Call]:
    from chatbot.ownership import owner_of
    from chatbot.services import close_services, open_services

    owner = owner_of(Paths.default())
    if owner and owner.get("address"):
        yield lambda command, params: _call(owner["address"], owner["token"], command, params)
        return
    if needs_owner:
        raise OwnerMissing
    from chatbot.api import commands

    try:
        opened = open_services()
        yield lambda command, params: commands.run(opened, command, params)
    finally:
        close_services()


def _follow(call: Call, job_id: str) -> None:
    progress, shown = Progress(), 0  # a short step may begin and end between two looks
    while True:
        job = call("jobs show", {"id": job_id})
        begun = [step for step in job["steps"] if step["state"] != "waiting"]
        for step in begun[max(shown - 1, 0) :]:
            words = filled(step["message"], step["values"], language())
            progress.show(step["name"], job["progress"], words)
        shown = len(begun)
        if job["state"] not in ("waiting", "running"):
            progress.end()
            return
        time.sleep(LOOK_SECONDS)


def _call(address: str, token: str, command: str, params: dict[str, Any]) -> dict[str, Any]:
    import httpx

    try:
        response = httpx.post(
            f"{address}/api/command",
            json={"name": command, "params": params},
            headers={"Authorization": f"Bearer {token}"},
            timeout=None,  # noqa: S113 - a command may be an hour's work
            trust_env=False,
        )
        body: dict[str, Any] = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise OwnerSilent(str(error), address=address) from error
    if "result" in body:
        result: dict[str, Any] = body["result"]
        return result
    problem = body["error"]
    if "code" in problem:
        raise ChatbotError.from_dict(problem)
    raise OwnerSilent(problem["message"], address=address)
