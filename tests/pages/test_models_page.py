"""The models page as Streamlit runs it: catalogue, adding, plan and defaults, verdict, actions, jobs, guards."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from chatbot.hardware.speeds import Speeds
from chatbot.memory.speed import REACHED
from chatbot.models.catalog import entries
from chatbot.services import Services
from tests.models.hub_server import serving
from tests.tiny_models import tiny_gguf, tiny_hf

__all__ = ["tiny_gguf", "tiny_hf"]


@pytest.fixture
def stories(services: Services, shared_data: Path, tmp_path: Path):
    """A real small model, linked into the list from a folder of its own."""
    file = tmp_path / "stories260K.gguf"
    shutil.copyfile(shared_data / "models" / "stories260K.gguf", file)
    return taken_in(services, file)


def taken_in(services: Services, path: Path):
    job = services.jobs.wait(services.workshop.take_in(path).id, 60)
    assert job.state == "done", job.error
    return services.models.get(job.message)


def verdict(kind: str) -> dict:
    """A verdict as `verify` gives it, of two checks."""
    passed = {
        "name": "files",
        "verdict": "pass",
        "measured": {"files": 1},
        "limit": {},
        "detail": "",
    }
    other = {
        "name": "weights",
        "verdict": kind,
        "measured": {"epsilon": 0.25, "relative": 0.5},
        "limit": {"relative": 0.02},
        "detail": "",
        "values": {},
    }
    return {"verdict": kind, "step": "quantise", "checks": [passed, other], "types": {"Q8_0": {"bytes": 8, "relative": 0.5}},
            "parent": "before", "seconds": 2.0, "at": time.time()}  # fmt: skip


def button(app, key: str):
    return next(b for b in app.button if b.key == key)


def keys(app) -> list[str]:
    return [str(b.key) for b in app.button]


def shown(app) -> str:
    boxes = [*app.markdown, *app.caption, *app.info, *app.error, *app.warning, *app.success]
    return "\n".join(box.value for box in boxes)


def to(app, tab: str):
    app.session_state["models-goto"] = tab
    return app.run()


def import_path(app, path: str):
    to(app, "disk")
    next(t for t in app.text_input if t.label.startswith("File or folder")).input(path)
    next(b for b in app.button if b.label == "Add").click().run(timeout=60)
    return app


def actions(app, model) -> list[str]:
    return list(app.menu_button(key=f"more-{model.id}").options)


def choose(app, model, action: str):
    return app.menu_button(key=f"more-{model.id}").click(action).run()


# --- catalogue ------------------------------------------------------------------------------


def test_without_a_model_the_catalogue_opens_with_one_starred_and_every_reason(open_page):
    app = open_page("models.py")
    text = shown(app)
    chat = [entry for entry in entries() if entry.role == "chat"]
    for entry in chat:
        assert entry.name in text.replace("\\", "")
    assert text.count("Recommended for this PC") == 1
    assert text.count("GB are free") == len(chat), "each says what it needs and what is free"
    assert "stay offline" in text, "the tests forbid the internet, and the page says so"


def test_the_catalogue_shows_what_searches_too(open_page):
    app = open_page("models.py")
    app.segmented_control(key="catalogue-role-en").set_value("embedder").run()
    assert "multilingual\\-e5\\-small" in shown(app)


@pytest.fixture
def hub(monkeypatch):
    with serving() as server:
        monkeypatch.delenv("HEARTH_OFFLINE")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
        yield server


def test_the_hub_is_searched_and_what_it_takes_is_said_before_it_begins(open_page, hub, tiny_hf):
    files = {file.name: file for file in tiny_hf.iterdir() if file.is_file()}
    commit = hub.add("ai-viet/tiny", files)
    app = open_page("models.py")
    next(t for t in app.text_input if "owner/model" in t.placeholder).input("tiny")
    next(b for b in app.button if b.label == "Search").click().run()
    assert "ai\\-viet/tiny" in shown(app)
    captions = [caption.value for caption in app.caption]
    found = next(n for n, words in enumerate(captions) if "downloads" in words)
    assert "GB are free" in captions[found + 1], "whether it fits stands below its name"
    button(app, "get-ai-viet-tiny").click().run(timeout=60)
    text = shown(app)
    assert f"at commit {commit[:8]}" in text
    for step in ("Download", "Save in 16 bits", "Convert to GGUF", "Quantise"):
        assert f"**{step}**" in text
    assert "on the disk for a while" in text


def test_an_unfinished_download_can_go_on_or_be_deleted(open_page, services):
    folder = services.models.folder / ".download-0123456789abcdef"
    folder.mkdir()
    plan = {"version": 1, "repo": "ai-viet/tiny", "revision": "0" * 40, "endpoint": "http://127.0.0.1:9",
            "file": None, "role": None, "name": "",
            "files": [{"path": "model.safetensors", "size": 5_000_000, "sha256": "0" * 64, "blob": ""}]}  # fmt: skip
    journal = folder.with_name(f"{folder.name}.journal")
    journal.write_text(json.dumps(plan) + "\n", encoding="utf-8")
    app = to(open_page("models.py"), "jobs")
    assert "0 B of 5 MB have arrived" in shown(app)
    button(app, f"forget-{folder.name}").click().run()
    assert not folder.exists()
    assert not journal.exists()
    assert "Nothing to do" in shown(app)


# --- adding ---------------------------------------------------------------------------------


def test_on_disk_says_what_can_be_added_while_there_is_nothing(open_page):
    app = to(open_page("models.py"), "disk")
    text = shown(app)
    assert "No model yet" in text
    assert "GGUF files" in text
    assert "Adapters" in text


def test_a_file_is_added_by_its_path_and_stays_where_it_is(open_page, services, shared_data):
    file = shared_data / "models" / "stories260K.gguf"
    app = import_path(open_page("models.py"), f'"{file}"')
    assert not app.exception
    (model,) = services.models.list()
    assert model.linked
    assert Path(model.path) == file.resolve()
    text = shown(app)
    assert "linked, not copied" in text
    assert "260 thousand parameters" in text
    assert "Needs" in text
    assert "1 model" in text


def test_what_is_no_model_is_refused_with_the_reason(open_page, services, tmp_path):
    file = tmp_path / "notes.gguf"
    file.write_text("no model at all")
    app = import_path(open_page("models.py"), str(file))
    assert services.models.list() == []
    assert r"notes\.gguf" in app.error[0].value, "on the job, with its cure"


def test_a_path_that_is_not_there_is_said(open_page, services):
    app = import_path(open_page("models.py"), "/no/such/model.gguf")
    assert "Not found" in app.error[0].value
    assert services.workshop.jobs() == []


# --- running --------------------------------------------------------------------------------


def test_load_use_as_default_and_unload(open_page, services, stories):
    app = open_page("models.py")
    button(app, f"load-{stories.id}").click().run(timeout=60)
    assert not app.exception
    assert services.engines.loaded.spec.model_id == stories.id
    text = shown(app)
    assert "loaded in" in text
    assert "context of 512 tokens" in text
    assert "no chat template" in text
    choose(app, stories, "default")
    assert services.settings.default_model == stories.id
    assert "default" not in actions(app, stories)
    button(app, "unload-models").click().run()
    assert services.engines.loaded is None
    unloaded_at = time.time()
    while services.monitor.latest().at <= unloaded_at:  # a sample taken since
        time.sleep(0.05)
    assert "Memory in use" in shown(app.run())


def test_every_choice_is_made_in_one_place_and_kept_with_the_model(open_page, services, stories):
    app = open_page("models.py")
    assert "Needs" in shown(app)
    button(app, f"how-{stories.id}").click().run()
    assert any("Runs on the CPU through" in m.value for m in app.markdown)
    assert any("Your choice" in m.value for m in app.markdown)
    context = app.selectbox(key=f"wish-context-{stories.id}-None-en")
    assert list(context.options) == ["Automatic", "512"]
    context.select_index(1).run()
    assert services.models.get(stories.id).manifest["defaults"] == {"context": 512}
    button(app, f"how-{stories.id}").click().run()
    app.selectbox(key=f"wish-batch-{stories.id}-None-en").select(128).run()
    services.load_model(stories.id)
    assert services.engines.loaded.spec.context == 512
    assert services.engines.loaded.spec.batch == 128
    button(app, f"how-{stories.id}").click().run()
    button(app, f"automatic-{stories.id}").click().run()
    assert services.models.get(stories.id).manifest["defaults"] == {}


def test_the_badge_says_how_fast_once_this_pc_was_measured(
    open_page, services, stories, monkeypatch
):
    assert "tokens/s" not in shown(open_page("models.py"))
    found = services.plan_model(services.models.get(stories.id))
    measured = Speeds(1.0, 1.0, memory=found.reads["ram"] * 24.0, matmul=1e9)
    monkeypatch.setattr(services, "speeds", lambda: measured)
    assert f"≈ {24 * REACHED:.0f} tokens/s" in shown(open_page("models.py"))
    slow = replace(measured, memory=found.reads["ram"] * 3.0)
    monkeypatch.setattr(services, "speeds", lambda: slow)
    text = shown(open_page("models.py"))
    assert f"≈ {3 * REACHED:.1f} tokens/s" in text
    full = found.reads["ram"] / (found.reads["ram"] + found.parts["kv"])
    assert (", ≈ " in text) == (full < 0.85), "a full context is named where it is much slower"


def test_a_choice_that_a_model_does_not_allow_is_not_kept(open_page, services, stories):
    app = open_page("models.py")
    button(app, f"how-{stories.id}").click().run()
    app.selectbox(key=f"wish-kv_type-{stories.id}-None-en").select("q4_0").run()
    assert not services.models.get(stories.id).manifest.get("defaults"), "its heads are 8 long"
    assert not app.exception


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
    assert f"yes-remove-{stories.id}" in keys(app)
    services.remove_model(stories.id)
    assert "No model yet" in shown(to(app, "disk"))


# --- the verdict ----------------------------------------------------------------------------


def test_the_badge_opens_every_figure(open_page, services, stories):
    services.models.note(stories.id, verdict=verdict("pass"))
    app = open_page("models.py")
    assert "Checked" in button(app, f"verdict-{stories.id}").label
    button(app, f"verdict-{stories.id}").click().run()
    text = shown(app)
    assert "It is what it was made from" in text
    assert "Weights" in text
    assert "**0.25**" in text
    assert "limit 0.02" in text
    assert "check-again" in keys(app)


def test_the_badge_says_how_much_was_really_checked(open_page, services, stories):
    compared = verdict("pass")
    skipped = verdict("skipped") | {"verdict": "pass"}
    alone = {"parent": None}
    for noted, label, words in (
        (compared, "Checked", "every part is within its limit"),
        (compared | alone, "Whole, not compared", "was not compared with what it was made from"),
        (skipped, "Partly checked", "Not checked: Weights"),
        (skipped | alone, "Partly checked", "was not compared with what it was made from"),
    ):
        services.models.note(stories.id, verdict=noted)
        app = open_page("models.py")
        badge = button(app, f"verdict-{stories.id}")
        assert f"[{label}]" in badge.label
        badge.click().run()
        assert words in shown(app)
        assert not app.error


def test_a_model_of_which_nothing_is_known_is_not_called_wrong(open_page, services, stories):
    doubted = verdict("fail")
    doubted["checks"][1] |= {"name": "proof", "measured": {}, "limit": {}}
    services.models.note(stories.id, verdict=doubted)
    app = open_page("models.py")
    assert "Nothing shows that this model is what it was made from (Proof)" in app.error[0].value
    assert f"load-{stories.id}" not in keys(app)


def test_a_failed_check_is_loud_and_loading_asks(open_page, services, stories):
    services.models.note(stories.id, verdict=verdict("fail"))
    app = open_page("models.py")
    assert "is not what it was made from (Weights)" in app.error[0].value
    assert "Check failed" in button(app, f"verdict-{stories.id}").label
    assert f"load-{stories.id}" not in keys(app)
    button(app, f"anyway-{stories.id}").click().run(timeout=60)
    assert services.engines.loaded.spec.model_id == stories.id


# --- actions --------------------------------------------------------------------------------


def test_each_kind_of_model_offers_what_makes_sense(open_page, services, stories, tiny_hf):
    folder = taken_in(services, tiny_hf)
    app = open_page("models.py")
    assert actions(app, stories) == [
        "Use as default",
        "Make it smaller (quantise)",
        "Check it",
        "Measure its speed",
        "Pack into one file",
        "Upload to the hub",
        "Remove",
    ]
    assert {"Get it ready for this PC", "Save in 16 bits", "Convert to GGUF"} <= set(
        actions(app, folder)
    )


def test_the_ladder_shows_sizes_and_the_best_that_fits(open_page, stories):
    app = choose(open_page("models.py"), stories, "quantise")
    radio = app.radio(key="quantise-type")
    assert [option.split("**")[1] for option in radio.options] == [
        "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K",
    ]  # fmt: skip
    assert "best that fits" in radio.options[0]
    assert radio.value == "Q8_0"


def test_getting_ready_says_every_step_and_the_room_it_needs(open_page, services, tiny_hf):
    folder = taken_in(services, tiny_hf)
    app = choose(open_page("models.py"), folder, "ready")
    text = shown(app)
    for step in ("Save in 16 bits", "Convert to GGUF", "Quantise"):
        assert step in text
    assert "on the disk for a while" in text
    assert app.selectbox(key="chain-keep").value == "checkable"


def test_a_loaded_model_is_not_removed(open_page, services, stories):
    services.load_model(stories.id)
    app = choose(open_page("models.py"), stories, "remove")
    assert "it is loaded" in shown(app)
    assert f"yes-remove-{stories.id}" not in keys(app)


def test_an_embedder_is_put_to_use_for_the_search(open_page, services, stories):
    with services.database.transaction() as connection:
        connection.execute("UPDATE models SET role = 'reranker' WHERE id = ?", (stories.id,))
    app = open_page("models.py")
    assert f"load-{stories.id}" not in keys(app)
    button(app, f"search-{stories.id}").click().run()
    assert services.settings.reranker == stories.path
    assert stories.id not in [model.id for model in services.chat_models()]


# --- jobs -----------------------------------------------------------------------------------


def test_jobs_show_their_steps_and_what_went_wrong(open_page, services, tmp_path):
    broken = tmp_path / "hỏng.gguf"
    broken.write_bytes(b"GGUF" + bytes(40))
    job = services.jobs.wait(services.workshop.take_in(broken).id, 30)
    assert job.state == "failed"
    app = to(open_page("models.py"), "jobs")
    text = shown(app)
    assert "Adding hỏng" in text.replace("\\", "")
    assert "Read the files" in text
    assert "damaged" in app.error[0].value
    assert {f"again-{job.id}", f"remove-{job.id}"} <= set(keys(app))
    button(app, f"remove-{job.id}").click().run()
    assert "Nothing to do" in shown(app)


def test_the_page_speaks_vietnamese(open_page, services, stories):
    services.change_settings(language="vi")
    services.models.note(stories.id, verdict=verdict("pass"))
    app = open_page("models.py")
    text = shown(app)
    assert "260 nghìn tham số" in text
    assert "đang trống" in text
    assert "Đã kiểm tra" in button(app, f"verdict-{stories.id}").label
