"""The real pages on real services with a data folder of their own, run by Streamlit's AppTest."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from chatbot import services as rooms
from chatbot.services import Services
from chatbot.settings import PROJECT, Paths


@pytest.fixture
def services(paths: Paths, monkeypatch: pytest.MonkeyPatch):
    """Open services without the samples; the person has done the first run, in English."""
    from chatbot.settings import Settings, save_settings

    save_settings(paths.settings, Settings(language="en", first_run_done=True, samples_added=True))
    opened = rooms.open_services(paths)
    yield opened
    rooms.close_services()


@pytest.fixture
def open_page(services: Services) -> Callable[[str], AppTest]:
    """Run one page of the app, such as 'chat.py', in its frame."""

    def run(page: str = "chat.py", **state: object) -> AppTest:
        app = AppTest.from_file(str(PROJECT / "pages" / "main.py"), default_timeout=30)
        for key, value in state.items():
            app.session_state[key] = value
        app.run()
        if page != "chat.py":
            app.switch_page(str(PROJECT / "pages" / page)).run()
        assert not app.exception, [e.message for e in app.exception]
        return app

    return run
