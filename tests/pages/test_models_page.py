"""The models page as Streamlit runs it: adding by path, the plan, loading, unloading, removing."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from chatbot.services import Services


@pytest.fixture
def stories(services: Services, shared_data: Path, tmp_path: Path):
    """A real small model, linked into the list from a folder of its own."""
    file = tmp_path / "stories260K.gguf"
    shutil.copyfile(shared_data / "models" / "stories260K.gguf", file)
    job = services.jobs.wait(services.workshop.take_in(file).id, 60)
    return services.models.get(job.message)


def button(app, key: str):
    return next(b for b in app.button if b.key == key)


def keys(app) -> list[str]:
    return [str(b.key) for b in app.button]


def shown(app) -> str:
    boxes = [*app.markdown, *app.caption, *app.info, *app.error, *app.warning]
    return "\n".join(box.value for box in boxes)


def import_path(app, path: str):
    next(t for t in app.text_input if t.label.startswith("GGUF file")).input(path)
    next(b for b in app.button if b.label == "Add").click().run()
    return app


def test_without_a_model_it_says_what_works_and_how_large_one_may_be(open_page):
    app = open_page("models.py")
    text = shown(app)
    assert "No model yet" in text
    assert "GGUF files" in text
    assert app.info, "the size this PC can run"


def test_a_file_is_added_by_its_path_and_stays_where_it_is(open_page, services, shared_data):
    file = shared_data / "models" / "stories260K.gguf"
    app = import_path(open_page("models.py"), f'"{file}"')
    services.jobs.wait(app.session_state["import_job"], 60)
    app.run()
    assert not app.exception
    (model,) = services.models.list()
    assert model.linked
    assert Path(model.path) == file.resolve()
    text = shown(app)
    assert "linked, not copied" in text
    assert "260 thousand parameters" in text
    assert "It needs" in text


def test_what_is_no_model_is_refused_with_the_reason(open_page, services, tmp_path):
    file = tmp_path / "notes.gguf"
    file.write_text("no model at all")
    app = import_path(open_page("models.py"), str(file))
    services.jobs.wait(app.session_state["import_job"], 60)
    app.run()
    assert services.models.list() == []
    assert r"notes\.gguf" in app.error[0].value


def test_a_path_that_is_not_there_is_said(open_page, services):
    app = import_path(open_page("models.py"), "/no/such/model.gguf")
    assert "Not found" in app.error[0].value
    assert services.jobs.list() == []


def test_load_use_as_default_and_unload(open_page, services, stories):
    app = open_page("models.py")
    button(app, f"load-{stories.id}").click().run(timeout=60)
    assert not app.exception
    assert services.engines.loaded.spec.model_id == stories.id
    text = shown(app)
    assert "loaded in" in text
    assert "context of 512 tokens" in text
    assert "no chat template" in text
    button(app, f"default-{stories.id}").click().run()
    assert services.settings.default_model == stories.id
    assert f"default-{stories.id}" not in keys(app)
    button(app, "unload-models").click().run()
    assert services.engines.loaded is None
    unloaded_at = time.time()
    while services.monitor.latest().at <= unloaded_at:  # a sample taken since
        time.sleep(0.05)
    assert "Memory in use" in shown(app.run())


def test_the_plan_follows_the_chosen_context(open_page, services, stories):
    app = open_page("models.py")
    assert list(app.selectbox(key=f"context-{stories.id}-en").options) == ["Automatic", "512"]
    app.selectbox(key=f"context-{stories.id}-en").select_index(1).run()
    button(app, f"load-{stories.id}").click().run(timeout=60)
    assert services.engines.loaded.spec.context == 512


@pytest.fixture
def no_memory(services, monkeypatch):
    """A PC on which next to nothing is free."""
    poor = replace(services.hardware(), ram_available=1 << 20, gpus=())
    monkeypatch.setattr(services, "hardware", lambda: poor)


@pytest.mark.usefixtures("no_memory")
def test_a_model_that_does_not_fit_loads_only_when_asked_twice(open_page, services, stories):
    app = open_page("models.py")
    assert "That does not fit" in shown(app)
    assert f"load-{stories.id}" not in keys(app)
    assert any("run out of memory" in m.value for m in app.markdown)
    button(app, f"anyway-{stories.id}").click().run(timeout=60)
    assert services.engines.loaded.spec.model_id == stories.id


def test_a_model_whose_file_is_gone_can_only_be_removed(open_page, services, stories):
    Path(stories.path).unlink()
    app = open_page("models.py")
    assert "no longer there" in app.error[0].value
    assert f"load-{stories.id}" not in keys(app)
    button(app, f"remove-{stories.id}").click().run()
    assert services.models.list() == []
    assert "No model yet" in shown(app)


def test_the_page_speaks_vietnamese(open_page, services, stories):
    services.change_settings(language="vi")
    text = shown(open_page("models.py"))
    assert "260 nghìn tham số" in text
    assert "Chạy trên CPU bằng llama" in text
