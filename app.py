"""Hearth in one process: the Streamlit pages and the HTTP API. `streamlit run app.py` serves `app`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

# `streamlit run` may start anywhere; chatbot and pages are found beside this file.
sys.path.insert(0, str(Path(__file__).resolve().parent))

# Before any import that would read them: nothing phones home, nothing is looked up.
os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

from starlette.middleware import Middleware
from streamlit import config
from streamlit.starlette import App

from chatbot.api.guard import Guard
from chatbot.api.routes import routes
from chatbot.errors import ChatbotError
from chatbot.ownership import own
from chatbot.settings import Paths


@asynccontextmanager
async def lifespan(_app: App) -> AsyncIterator[dict[str, Any]]:
    """Own the data folder while the server runs; the rooms open while the browser loads the frame."""
    host, port = config.get_option("server.address"), config.get_option("server.port")
    _or_exit(lambda: own(Paths.default(), address=f"http://{host or 'localhost'}:{port}"))
    opening = threading.Thread(target=_open, name="opening")
    opening.start()
    try:
        yield {}
    finally:
        from chatbot.services import close_services

        opening.join()
        close_services()


def _open() -> None:
    from chatbot.services import open_services  # the first page waits for it

    _or_exit(open_services)


def _or_exit(work: Callable[[], object]) -> None:
    """Do it, or end this process with one sentence: the server would print a traceback and go on."""
    try:
        work()
    except ChatbotError as error:
        print(f"\n  {error.text('vi')}\n  {error.text('en')}\n", file=sys.stderr)  # noqa: T201
        sys.stderr.flush()
        os._exit(1)


app = App("pages/main.py", lifespan=lifespan, routes=routes(), middleware=[Middleware(Guard)])
