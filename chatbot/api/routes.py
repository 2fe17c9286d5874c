"""The HTTP routes beside the UI: `/v1/models`, and the port through which the command line speaks."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from chatbot.api.guard import refused, with_token
from chatbot.errors import ChatbotError
from chatbot.types import ModelArtifact

# chatbot.services opens beside the server's start (app.py), so the routes import it when they are asked.


async def list_models(_request: Request) -> Response:
    """The models a client may name, as OpenAI's API lists them; `extractive` is always there."""
    from chatbot.services import QUOTES

    models = await run_in_threadpool(_models)
    rows = [{"id": QUOTES, "object": "model", "created": 0, "owned_by": "hearth"}]
    rows += [
        {"id": m.id, "object": "model", "created": int(m.added_at), "owned_by": "local"}
        for m in models
    ]
    return JSONResponse({"object": "list", "data": rows})


async def run_command(request: Request) -> Response:
    """Run one command of the command line in this owner: {name, params} → {result} or {error}."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return refused("content type must be application/json", 415)
    try:
        body: dict[str, Any] = await request.json()
        name, params = str(body["name"]), dict(body.get("params", {}))
    except (ValueError, KeyError, TypeError, RecursionError):
        return refused("body must be {name, params}", 422)
    try:
        result = await run_in_threadpool(_run, name, params)
    except ChatbotError as error:
        return JSONResponse({"error": {**error.to_dict(), "message": error.text("en")}}, 400)
    return JSONResponse({"result": result})


def _models() -> list[ModelArtifact]:
    from chatbot.services import services

    return services().chat_models()


def _run(name: str, params: dict[str, Any]) -> dict[str, Any]:
    from chatbot.api import commands
    from chatbot.services import services

    return commands.run(services(), name, params)


def routes() -> list[Route]:
    """Every route of ours; each checks the token itself."""
    return [
        Route("/v1/models", with_token(list_models), methods=["GET"]),
        Route("/api/command", with_token(run_command), methods=["POST"]),
    ]
