"""The catalogue's facts agree with themselves, and what fits is known before anything is downloaded."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chatbot.errors import ModelError, OfflineError
from chatbot.memory.headers import read_gguf_start, read_model
from chatbot.memory.outline import HALVES, LADDER, outlined, parameters
from chatbot.models import catalog
from chatbot.models.catalog import (
    best_quantisation,
    catalogue,
    entries,
    look_at,
    offers,
    refresh,
    ways_of,
)
from chatbot.models.hub import Hub, check_repo
from chatbot.types import Gpu, Hardware
from tests.models.hub_server import HubServer, serving
from tests.tiny_models import make_gguf, make_hf

GB = 10**9


def hardware(ram: float = 16, gpu: float = 0) -> Hardware:
    gpus = (Gpu(0, "RTX 4060 Laptop", "cuda", int(gpu * GB), int(gpu * GB)),) if gpu else ()
    return Hardware(
        device="cuda" if gpu else "cpu", gpus=gpus, ram_total=int(ram * GB), ram_available=int(ram * 0.9 * GB),
        swap_total=0, swap_used=0, cores=8, cores_physical=4, cpu_name="", cpu_flags=(), cpu_load=0.0,
        disk_total=10**12, disk_free=10**11, system="Linux")  # fmt: skip


def quiet(fraction: float, message: str = "", **values: Any) -> None:
    message.format(**values)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serving() as server:
        monkeypatch.delenv("HEARTH_OFFLINE")
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
        yield server


CHAT = [entry for entry in entries() if entry.facts]
NAMED_IN_THE_NOTES = (
    "phamhai/Llama-3.2-3B-Instruct-Frog", "vinai/PhoGPT-4B-Chat", "mistralai/Mistral-7B-Instruct-v0.3",
    "meta-llama/Meta-Llama-3-8B-Instruct", "Viet-Mistral/Vistral-7B-Chat", "intfloat/multilingual-e5-small",
    "BAAI/bge-m3", "AITeamVN/Vietnamese_Embedding", "BAAI/bge-reranker-v2-m3", "namdp-ptit/ViRanker",
)  # fmt: skip


def test_every_model_of_the_notes_is_there():
    assert set(NAMED_IN_THE_NOTES) <= {entry.repo for entry in entries()}
    assert {entry.role for entry in entries()} == {"chat", "embedder", "reranker"}
    for entry in entries():
        check_repo(entry.repo)


@pytest.mark.parametrize("entry", CHAT, ids=lambda entry: entry.name)
def test_a_geometry_holds_the_parameters_that_its_makers_publish(entry):
    assert parameters(entry.facts) == pytest.approx(entry.parameters, rel=0.002)


@pytest.mark.parametrize(
    ("name", "kind", "published"),
    [
        ("Qwen3 4B Instruct", "Q4_K_M", 2.50e9),
        ("Qwen3 4B Instruct", "Q5_K_M", 2.89e9),
        ("Qwen3 4B Instruct", "Q6_K", 3.31e9),
        ("Qwen3 4B Instruct", "Q8_0", 4.28e9),
        ("Qwen3 1.7B", "Q8_0", 1_834_426_016),
        ("Llama 3.2 1B Instruct", "Q4_K_M", 0.81e9),
        ("Llama 3.2 1B Instruct", "Q5_K_M", 0.91e9),
        ("Llama 3.2 1B Instruct", "Q8_0", 1.32e9),
        ("Llama 3.2 3B Frog", "BF16", 4.97e9 + 1.46e9),
        ("Gemma 3 4B", "Q4_K_M", 2.49e9),
        ("Gemma 3 1B", "Q4_K_M", 806_058_240),
    ],
)
def test_worked_out_sizes_are_those_of_published_files(name, kind, published):
    entry = next(entry for entry in CHAT if entry.name == name)
    assert outlined(entry.facts, kind).size == pytest.approx(published, rel=0.015)


def test_a_drawn_model_plans_like_the_file(tmp_path):
    """The tiny model as a file and as its geometry: the same tensors, but for the norms."""
    folder = make_hf(tmp_path / "tiny")
    real = read_model(folder)
    drawn = outlined(replace(real, tensors=()), "F16")
    assert drawn.parameters == pytest.approx(real.parameters, rel=0.01)
    assert sum(drawn.size_of_blocks()) == pytest.approx(sum(real.size_of_blocks()) / 2, rel=0.01)


def test_one_model_is_starred_and_it_fits():
    for here in (
        hardware(8),
        hardware(16),
        hardware(32),
        hardware(16, gpu=8),
        hardware(64, gpu=24),
    ):
        found = offers(entries(), here)
        [star] = [offer for offer in found if offer.recommended]
        assert star.best is not None
        assert star.best.fits
        assert "vi" in star.entry.languages
        assert not star.entry.gated
        assert star.best.plan.total <= here.ram_available + sum(gpu.free for gpu in here.gpus)
    assert not any(offer.recommended for offer in offers(entries(), hardware(0.5)))


def test_a_bigger_pc_is_offered_more():
    def best(here: Hardware, name: str) -> Any:
        return next(o.best for o in offers(entries(), here) if o.entry.name == name)

    assert best(hardware(4), "Qwen3 8B") is None
    assert best(hardware(16), "Qwen3 8B").type == "Q4_K_M"  # a CPU reads it whole for each word
    assert best(hardware(32, gpu=24), "Qwen3 8B").type in HALVES
    assert best(hardware(16, gpu=8), "Qwen3 4B Instruct").type in LADDER


def test_a_model_without_a_gguf_is_offered_as_made_here():
    offer = next(o for o in offers(entries(), hardware()) if o.entry.repo.endswith("Frog"))
    assert {way.type: way.made_here for way in offer.ways} == {
        "BF16": False,
        **dict.fromkeys(LADDER, True),
    }
    assert all(way.repo == offer.entry.repo for way in offer.ways)


def test_the_hubs_own_sizes_take_the_place_of_worked_out_ones(hub, paths):
    assert catalogue(paths) == entries()
    first, gguf = entries()[0].repo, entries()[0].gguf
    hub.add(first, {"config.json": b"{}", "model.safetensors": b"x" * 1000})
    hub.add(gguf, {"q-Q4_K_M.gguf": b"x" * 70, "q-Q2_K.gguf": b"x" * 30})
    hub.add(
        "phamhai/Llama-3.2-3B-Instruct-Frog",
        {"config.json": b"{}", "model.safetensors": b"x"},
        gated="auto",
    )
    assert refresh(paths, quiet) == 2
    known = {entry.repo: entry for entry in catalogue(paths)}
    assert known[first].sizes == {"BF16": 1000, "Q4_K_M": 70}
    assert known[first].revision == hub.repos[first].head
    assert known["phamhai/Llama-3.2-3B-Instruct-Frog"].gated
    assert known["Qwen/Qwen3-8B"].sizes == {}
    way = next(w for w in offers(catalogue(paths), hardware())[0].ways if w.type == "Q4_K_M")
    assert (way.repo, way.file, way.exact) == (gguf, "q-Q4_K_M.gguf", True)
    assert way.size == 70


def test_a_spoiled_cache_counts_for_nothing(paths):
    (paths.data / "catalogue.json").write_text('{"x": ')
    assert catalogue(paths) == entries()


def test_offline_the_catalogue_is_there_and_not_refreshed(paths):
    assert catalogue(paths)
    with pytest.raises(OfflineError):
        refresh(paths, quiet)


def test_any_repository_is_planned_from_its_headers_alone(hub, tmp_path):
    folder = make_hf(tmp_path / "tiny")
    gguf = make_gguf(folder, tmp_path / "tiny.gguf").read_bytes()
    hub.add("student/tiny", {f.name: f.read_bytes() for f in folder.iterdir()})
    hub.add("student/tiny-gguf", {"tiny-F16.gguf": gguf + bytes(999), "tiny-Q8_0.gguf": gguf})
    hub.add(
        "student/adapter", {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x" * 9}
    )
    hub.add("student/nothing", {"README.md": b"#"})
    with Hub() as opened:
        whole, *made_here = ways_of(opened, opened.model("student/tiny"), hardware())
        several = ways_of(opened, opened.model("student/tiny-gguf"), hardware())
        best = best_quantisation(opened, opened.model("student/tiny-gguf"), hardware())
        [adapter] = ways_of(opened, opened.model("student/adapter"), hardware())
        hits = opened.search("student")
    seen_at_once = look_at(hits, hardware())
    assert isinstance(seen_at_once.pop("student/nothing"), ModelError)
    assert {repo: len(ways) for repo, ways in seen_at_once.items()} == {
        "student/tiny": 1 + len(LADDER), "student/tiny-gguf": 2, "student/adapter": 1}  # fmt: skip
    assert [way.type for way in made_here] == list(LADDER)
    assert all(way.made_here and not way.exact for way in made_here)
    assert whole.size == (folder / "model.safetensors").stat().st_size
    assert whole.plan.backend == "transformers"
    assert [way.file for way in several] == ["tiny-F16.gguf", "tiny-Q8_0.gguf"]
    assert all(way.plan.backend == "llama_cpp" and way.fits for way in several)
    assert best.type == "Q8_0"
    assert (adapter.type, adapter.plan) == ("adapter", None)
    assert not any(seen.path.startswith("/cdn/student/tiny/") for seen in hub.seen), (
        "no weight is read"
    )


def test_what_the_hub_is_slow_to_say_is_left_out(hub, tmp_path, monkeypatch):
    hub.add("student/quick", {"README.md": b"#"})
    hub.add("student/slow", {"README.md": b"#"})
    answered = threading.Event()
    model = Hub.model

    def slowly(self, repo, revision="main"):
        if repo == "student/slow":
            answered.wait(60)
        return model(self, repo, revision)

    monkeypatch.setattr(Hub, "model", slowly)
    with Hub() as opened:
        hits = opened.search("student")
    found = look_at(hits, hardware(), seconds=1.0)
    answered.set()
    assert list(found) == ["student/quick"]


def test_a_ggufs_geometry_stands_in_its_first_kilobytes(tmp_path):
    file = make_gguf(make_hf(tmp_path / "tiny"), tmp_path / "tiny.gguf")
    real, data = read_model(file), file.read_bytes()
    for length in (2_000, 8_000, len(data)):
        found = read_gguf_start(data[:length], len(data), "tiny.gguf")
        assert (found.layers, found.width, found.context) == (real.layers, real.width, real.context)
    with pytest.raises(ModelError):
        read_gguf_start(data[:100], len(data), "tiny.gguf")


def test_the_catalogue_is_data_only():
    assert json.dumps([entry.repo for entry in entries()])
    assert catalog.FILE.suffix == ".toml"
    assert Path(catalog.FILE).stat().st_size < 50_000
