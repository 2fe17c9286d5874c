"""Stages hand on what the model before them is like."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from chatbot.child import Child
from chatbot.models import making
from chatbot.models.importing import import_model
from chatbot.models.stages import Stages, home_of
from chatbot.models.store import ModelStore
from tests.models.verifying import flip
from tests.tiny_models import make_hf

TEXTS = ["The students and the teachers of the school met in the library and in the hall. " * 300]


def quiet(_fraction: float, _message: str = "", **_values: Any) -> None:
    """Nobody watches."""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A model with one weight that FP16 cannot hold."""
    from safetensors.numpy import load_file, save_file

    folder = make_hf(tmp_path / "Rất lớn")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.down_proj.weight"][0, 0] = 1e6
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_what_needed_bf16_is_called_so_and_stays_so_as_a_gguf(
    store: ModelStore, large: Path
) -> None:
    stages = Stages(store)
    source = import_model(store, large)
    half = store.get(stages.prepare(quiet, source=source))
    assert half.name == "Rất lớn BF16"
    gguf = store.get(stages.convert(quiet, source=half))
    assert gguf.name == "Rất lớn BF16"
    assert "BF16" in gguf.manifest["types"]
    assert "F16" not in gguf.manifest["types"]


def test_a_model_quantised_by_importance_keeps_its_matrix_and_is_checked_by_it(
    store: ModelStore, tiny_gguf: Path, tmp_path: Path
) -> None:
    stages = Stages(store)
    source = import_model(store, tiny_gguf)
    matrix = tmp_path / "matrix"
    stages.measure_importance(quiet, source=source, file=matrix, texts=TEXTS)
    small = store.get(stages.quantise(quiet, source=source, type="Q4_0", importance=str(matrix)))
    matrix.unlink()
    assert [file.name for file in home_of(small).iterdir() if file.suffix == ".imatrix"]
    verdict = stages.verify(quiet, source=small)
    weights = next(check for check in verdict["checks"] if check["name"] == "weights")
    assert verdict["verdict"] == "pass", verdict
    measured = weights["measured"]
    assert measured["recomputed_rows"] == measured["identical_rows"] > 0


def test_a_merge_is_checked_with_the_adapter_it_was_made_with_and_no_other(
    store: ModelStore, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.models.adapters import make_adapter

    stages, heard = Stages(store), []
    base = import_model(store, make_hf(tmp_path / "gốc"))
    adapter = import_model(store, make_adapter(tmp_path / "học thêm", Path(base.path)))
    line = {"id": base.id, "name": base.name, "step": "merge", "adapter": adapter.id}
    made = {"step": "merge", "parent": base.id}
    merged = store.note(import_model(store, tiny_gguf).id, made=made, lineage=[line])

    def run(_step: str, _report: Any, **params: Any) -> dict[str, Any]:
        heard.append((params["step"], params.get("parent"), params.get("adapter")))
        return {"verdict": "pass", "checks": []}

    monkeypatch.setattr("chatbot.models.making.run", run)
    assert stages.verify(quiet, source=merged)["parent"] == base.id
    make_adapter(Path(adapter.path), Path(base.path), r=8)  # trained on, under the same name
    assert stages.verify(quiet, source=merged)["parent"] is None, "nothing to compare with"
    assert heard == [("merge", Path(base.path), Path(adapter.path)), ("merge", None, None)]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_damaged_parent_is_named_and_what_was_made_of_it_is_not_called_wrong(
    store: ModelStore, tiny_gguf: Path, when: str
) -> None:
    """Before the step a faithful copy of the damage would pass; after it a sound model would be blamed."""
    stages = Stages(store)
    source = import_model(store, tiny_gguf, link=False)
    file = Path(source.path)
    if when == "before":
        flip(file, file.stat().st_size - 1000, 3)
    small = store.get(stages.quantise(quiet, source=source, type="Q8_0"))
    if when == "after":
        assert stages.verify(quiet, source=small)["parent"] == source.id
        flip(file, file.stat().st_size - 1000, 3)
    verdict = stages.verify(quiet, source=small)
    wrong = [check for check in verdict["checks"] if check["verdict"] == "fail"]
    assert (verdict["verdict"], verdict["parent"]) == ("fail", None)
    assert [check["name"] for check in wrong] == ["parent"]
    assert wrong[0]["values"] == {"name": file.name}


@pytest.mark.parametrize(("online", "token"), [(True, "hf_secret"), (False, "")])
def test_only_steps_that_ask_the_hub_have_the_access_token(
    online: bool, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    given: list[dict[str, str]] = []

    class Kept(Child):
        def __init__(self, *names: str, environment: dict[str, str], **params: Any) -> None:
            given.append({**os.environ, **environment})
            super().__init__(*names, environment=environment, **params)

        def stream(self, *_: Any, **__: Any) -> Any:
            yield {}, b""

    monkeypatch.setattr(making, "Child", Kept)
    making.run("verify", quiet, online=online)
    assert given[0]["HF_TOKEN"] == token


def test_a_sentencepiece_model_with_merges_alone_splits_text_as_before(
    store: ModelStore, shared_data: Path, tmp_path: Path
) -> None:
    """Fine-tunes are often saved without tokenizer.model, and then nothing but the merges says their order."""
    stories = shared_data / "models" / "stories260K"
    if not stories.exists():
        pytest.skip("stories260K is not on this machine")
    folder = tmp_path / "stories"
    shutil.copytree(stories, folder, ignore=shutil.ignore_patterns("tokenizer.model"))
    stages = Stages(store)
    gguf = store.get(stages.convert(quiet, source=import_model(store, folder)))
    verdict = stages.verify(quiet, source=gguf)
    tokens = next(check for check in verdict["checks"] if check["name"] == "tokens")
    assert tokens["verdict"] == "pass", tokens
    assert verdict["verdict"] == "pass"
