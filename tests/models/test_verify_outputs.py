"""What models compute: sound ones agree within what their types explain, wrong ones do not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatbot.errors import Cancelled
from chatbot.models.files import stored
from chatbot.models.verify import names, outputs, runners, verify
from chatbot.models.verify.check import Check
from chatbot.models.verify.stored import open_model
from chatbot.models.verify.tokens import FolderTokenizer
from tests.models.verifying import (
    cast,
    change,
    check,
    copy,
    failed,
    found,
    ignore,
    quantised,
    wide_hf,
    write_metadata,
)
from tests.tiny_models import make_gguf


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("đầu ra")


@pytest.fixture(scope="module")
def hf(home: Path) -> Path:
    return wide_hf(home / "gốc")


@pytest.fixture(scope="module")
def f16(hf: Path, home: Path) -> Path:
    return make_gguf(hf, home / "f16.gguf", "f16")


@pytest.fixture(scope="module")
def q4(f16: Path, home: Path) -> Path:
    return quantised(f16, home / "q4.gguf", "Q4_K_M")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long prompt of 400 tokens shows what one of 2,048 does."""
    monkeypatch.setattr(outputs, "LONG", 400)


def compare(made: Path, origin: Path, error: float = 0.0, **params: Any) -> Check:
    return outputs.compare(open_model(made), open_model(origin), ignore, error=error, **params)[0]


def test_the_whole_chain_passes_with_its_outputs(
    hf: Path, f16: Path, q4: Path, tmp_path: Path
) -> None:
    half = cast(hf, tmp_path / "half", "float16")
    for made, parent in ((half, hf), (f16, hf), (q4, f16), (q4, hf)):
        verdict = check(made, parent, run=True)
        assert verdict["verdict"] == "pass", verdict
        measured = found(verdict, "outputs")["measured"]
        assert measured["positions"] > 200
        assert 0.9 < measured["perplexity_ratio"] < 1.1
        assert measured["top1_clear"] == 1.0
        assert found(verdict, "repeat")["measured"] == {"variance": 0.0, "times": 3}


def test_the_same_weights_compute_exactly_the_same(hf: Path, tmp_path: Path) -> None:
    import torch

    made = copy(hf, tmp_path / "pt")
    torch.save(_state(hf), made / "state_dict.pt")
    (made / "model.safetensors").unlink()
    verdict = check(made, hf, run=True)
    assert verdict["verdict"] == "pass", verdict
    measured = found(verdict, "outputs")["measured"]
    assert measured["greatest"] <= 1e-5
    assert measured["top1"] == 1.0
    assert found(verdict, "weights")["measured"]["epsilon"] == 0.0


def _state(folder: Path) -> dict[str, Any]:
    from tests.models.verifying import load

    return load(folder)


@pytest.mark.parametrize(
    ("key", "factor"),
    [("llama.rope.freq_base", 50.0), ("llama.attention.layer_norm_rms_epsilon", 1e5)],
)
def test_wrong_settings_are_caught_twice(
    hf: Path, f16: Path, tmp_path: Path, key: str, factor: float
) -> None:
    value = open_model(f16).settings[key] * factor
    wrong = write_metadata(copy(f16, tmp_path / "wrong.gguf"), {key: value})
    assert failed(check(wrong, f16)) == {"settings"}
    assert failed(check(wrong, hf)) == {"settings"}
    assert compare(wrong, hf).verdict == "fail"


def test_wrong_settings_of_a_quantised_file_are_caught(f16: Path, q4: Path, tmp_path: Path) -> None:
    key = "llama.rope.freq_base"
    wrong = write_metadata(copy(q4, tmp_path / "wrong.gguf"), {key: 100.0})
    assert failed(check(wrong, f16)) == {"settings"}


def test_logits_alone_catch_heads_in_another_order(f16: Path, hf: Path, tmp_path: Path) -> None:
    """As if the weights had not been looked at."""

    def edit(weights: dict[str, Any]) -> None:
        name = "model.layers.0.self_attn.q_proj.weight"
        weights[name] = weights[name].reshape(8, -1, 256)[[1, 0, *range(2, 8)]].reshape(256, 256)

    other = change(copy(hf, tmp_path / "other"), edit)
    assert compare(f16, other, error=2e-4).verdict == "fail"
    assert compare(f16, hf, error=2e-4).verdict == "pass"


def test_without_memory_nothing_is_claimed(hf: Path, f16: Path) -> None:
    verdict = check(f16, hf, run=True, memory=1000)
    skipped = found(verdict, "outputs")
    assert skipped["verdict"] == "skipped"
    assert "memory" in skipped["detail"]
    assert skipped["values"]["free"] == "0.0"
    assert found(check(f16, run=True, memory=1000), "outputs")["verdict"] == "skipped"


def test_a_model_of_which_neither_structure_nor_outputs_could_be_seen_has_not_passed(
    hf: Path, f16: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edit(weights: dict[str, Any]) -> None:
        name = "model.layers.1.mlp.{}.weight"
        weights[name.format("later_proj")] = weights[name.format("up_proj")] + 1

    monkeypatch.setattr(names, "KNOWN", ())
    verdict = check(f16, change(copy(hf, tmp_path / "later"), edit), run=True, memory=1000)
    assert found(verdict, "structure")["verdict"] == "skipped"
    assert found(verdict, "outputs")["verdict"] == "skipped"
    assert verdict["verdict"] == "fail"
    assert failed(verdict) == {"proof"}


def test_where_float32_has_no_room_bfloat16_runs_with_its_own_limit(
    hf: Path, tmp_path: Path
) -> None:
    half = cast(hf, tmp_path / "half", "bfloat16")
    small = int(outputs._needed(open_model(hf), wide=False))
    verdict = check(half, hf, run=True, memory=small)
    assert verdict["verdict"] == "pass", verdict
    assert found(verdict, "outputs")["measured"]["precision"] == "bfloat16"


def test_a_model_without_a_parent_loads_and_computes(hf: Path, q4: Path) -> None:
    for model in (hf, q4):
        verdict = check(model, run=True)
        assert verdict["verdict"] == "pass", verdict
        made = [each["name"] for each in verdict["checks"]]
        assert made == ["files", "structure", "finite", "ones", "outputs", "repeat"]


def test_a_model_that_does_not_load_fails(hf: Path, tmp_path: Path) -> None:
    broken = change(copy(hf, tmp_path / "b"), lambda w: w.pop("model.layers.1.mlp.up_proj.weight"))
    verdict = check(broken, run=True)
    assert failed(verdict) == {"outputs"}
    assert "up_proj" in found(verdict, "outputs")["values"]["error"]


def test_a_wrong_model_is_not_run(hf: Path, tmp_path: Path) -> None:
    import torch

    def edit(weights: dict[str, Any]) -> None:
        weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], float("nan"))

    broken = change(copy(hf, tmp_path / "nan"), edit)
    verdict = check(broken, hf, run=True)
    assert {"finite", "weights"} <= failed(verdict)
    assert found(verdict, "outputs")["verdict"] == "skipped"
    assert "finite" in failed(check(broken, run=True))


def test_a_parent_that_cannot_be_read_is_said_and_the_model_checked_alone(
    f16: Path, tmp_path: Path
) -> None:
    verdict = check(f16, tmp_path / "gone")
    assert found(verdict, "parent")["verdict"] == "skipped"
    assert found(verdict, "finite")["verdict"] == "pass"


def test_a_whole_parent_is_said_once_and_a_missing_file_of_it_is_named(
    hf: Path, f16: Path, tmp_path: Path
) -> None:
    parent = copy(hf, tmp_path / "parent")
    files = [asdict(stored(file)) for file in parent.iterdir()]
    verdict = check(f16, parent, parent_files=files)
    assert found(verdict, "parent")["measured"]["files"] == len(files)
    assert [each["name"] for each in verdict["checks"]].count("parent") == 1
    assert verdict["verdict"] == "pass"
    (parent / "tokenizer.json").unlink()
    verdict = check(f16, parent, parent_files=files)
    assert failed(verdict) == {"parent"}
    assert found(verdict, "parent")["values"] == {"name": "tokenizer.json"}


def test_a_tokenizer_that_makes_no_tokens_is_said(
    hf: Path, f16: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FolderTokenizer, "encode", lambda *_, **__: [])
    assert compare(f16, hf).verdict == "skipped"
    (alone,) = outputs.alone(open_model(hf), ignore)
    assert (alone.verdict, alone.values["error"]) == ("fail", outputs.NO_PROMPTS)


def test_answers_that_change_from_time_to_time_are_caught(
    hf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = runners.FolderRunner.logits
    random = np.random.default_rng(0)

    def unsteady(self: runners.FolderRunner, prompt: runners.Prompt) -> Iterator[Any]:
        for rows in real(self, prompt):
            yield rows + random.normal(size=rows.shape).astype(np.float32) * 1e-3

    monkeypatch.setattr(runners.FolderRunner, "logits", unsteady)
    verdict = check(hf, run=True)
    assert failed(verdict) == {"repeat"}
    assert found(verdict, "repeat")["measured"]["variance"] > 0


def test_cancelling_ends_the_comparison_of_outputs(hf: Path, f16: Path) -> None:
    def report(fraction: float, _message: str = "", **_values: Any) -> None:
        if fraction > 0.8:
            raise Cancelled

    with pytest.raises(Cancelled):
        verify(report, source=f16, parent=hf)


def test_a_model_that_knew_its_language_and_forgot_it_is_caught() -> None:
    """Whatever the logits of a coarse type may do, perplexity may not rise as far."""
    random = np.random.default_rng(2)
    following = random.integers(50_000, size=64)
    before = random.standard_normal((64, 50_000)).astype(np.float32)
    before[np.arange(64), following] += 10
    after = before.copy()
    for rows, verdict in (
        (before + 0.1 * random.standard_normal(before.shape), "pass"),
        (after, "fail"),
    ):
        after[np.arange(64), following] -= 2
        distance = outputs.Distance()
        distance.take(before, rows.astype(np.float32), following.tolist())
        assert distance.check(1.5, 0.07, "llama.cpp").verdict == verdict


def test_the_verdict_is_json(f16: Path, hf: Path) -> None:
    verdict = check(f16, hf, run=True)
    assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict
    assert set(verdict) == {"verdict", "step", "checks", "types", "seconds"}
