"""What is measured on a text makes the quantised model read such text better, and is llama.cpp's own format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatbot.errors import BrokenModel, Cancelled, CannotConvert
from chatbot.memory.gguf import read_gguf
from chatbot.models.gguf import quantise
from chatbot.models.importance import CHUNK, measure_importance, read_importance
from tests.memory.building import gguf
from tests.memory.test_footprint import real_gguf


def quiet(_fraction: float, _message: str = "", **_values: Any) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def stories(shared_data: Path) -> Path:
    file = shared_data / "models" / "stories260K.gguf"
    if not file.is_file():
        pytest.skip("stories260K is not on this machine")
    return file


def llama(file: Path, **options: Any) -> Any:
    from llama_cpp import Llama

    return Llama(str(file), n_ctx=CHUNK, n_threads=1, verbose=False, **options)


@pytest.fixture(scope="module")
def told(stories: Path) -> list[str]:
    """Stories that the model tells itself: what it was made to read."""
    model = llama(stories)
    return [
        model("Once upon a time", max_tokens=400, temperature=1.0, seed=seed)["choices"][0]["text"]
        for seed in range(12)
    ]


@pytest.fixture(scope="module")
def measured(
    stories: Path, told: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    file = tmp_path_factory.mktemp("đo") / "tầm quan trọng.gguf"
    texts = told[:9]
    return file, measure_importance(quiet, source=stories, file=file, texts=texts, threads=1)


def test_the_figures_are_the_mean_squares_of_what_enters(
    measured: tuple[Path, dict[str, Any]],
) -> None:
    file, figures = measured
    values = read_importance(file)
    assert figures["tensors"] == len(values) == 5 * 7
    assert figures["chunks"] * CHUNK == figures["tokens"]
    for layer in range(5):
        into = [values[f"blk.{layer}.attn_{part}.weight"] for part in "qkv"]
        assert (into[0] == into[1]).all()  # the same numbers enter all three
        assert (into[0] == into[2]).all()
        assert values[f"blk.{layer}.ffn_down.weight"].shape == (172,)
    assert all((data > 0).all() for data in values.values())
    # What leaves an RMS norm has a mean square of 1, times the squared weights of the norm.
    assert 0.1 < values["blk.0.attn_q.weight"].mean() < 10


def test_the_file_is_laid_out_as_llama_cpps_own_tool_does(
    measured: tuple[Path, dict[str, Any]],
) -> None:
    header = read_gguf(measured[0])
    assert header.values["general.type"] == "imatrix"
    assert header.values["imatrix.chunk_size"] == CHUNK
    assert header.values["imatrix.chunk_count"] == measured[1]["chunks"]
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    assert shapes["blk.0.ffn_up.weight.in_sum2"] == (1, 64)
    assert shapes["blk.0.ffn_up.weight.counts"] == (1, 1)


def test_a_model_quantised_with_it_strays_less(
    stories: Path, told: list[str], measured: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """KL divergence from the original on stories that were not measured."""
    chunks = [llama(stories).tokenize(text.encode())[:200] for text in told[9:]]
    exact = log_probabilities(stories, chunks)
    for kind in ("Q4_1", "IQ4_NL"):
        strayed = []
        for importance in (None, measured[0]):
            target = tmp_path / f"{kind} {importance is not None}"
            target.mkdir()
            done = quantise(quiet, source=stories, target=target, type=kind, importance=importance)
            assert done["figures"]["importance"] == (importance is not None)
            other = log_probabilities(next(target.iterdir()), chunks)
            strayed.append(float((np.exp(exact) * (exact - other)).sum(1).mean()))
        assert strayed[1] < 0.95 * strayed[0], (kind, strayed)


def log_probabilities(file: Path, chunks: Sequence[list[int]]) -> Any:
    model = llama(file, logits_all=True)
    found = []
    for chunk in chunks:
        model.reset()
        model.eval(chunk)
        found.append(np.array(model.scores[: len(chunk)], dtype=np.float64))
    logits = np.concatenate(found)
    logits -= logits.max(1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def test_very_small_types_are_possible_with_it(
    stories: Path, measured: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    done = quantise(quiet, source=stories, target=tmp_path, type="IQ2_XXS", importance=measured[0])
    assert done["figures"]["asked"] == "IQ2_XXS"


def test_the_matrix_of_another_model_is_refused(
    measured: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    other = tmp_path / "khác.gguf"
    real_gguf(other, layers=2, width=256, heads=4, kv_heads=2, type_="F16")
    with pytest.raises(CannotConvert, match="measured on another model"):
        quantise(quiet, source=other, target=tmp_path, type="Q4_K_M", importance=measured[0])


def test_too_little_text_is_said_to_be(stories: Path, tmp_path: Path) -> None:
    file = tmp_path / "importance.gguf"
    with pytest.raises(CannotConvert, match="too little text"):
        measure_importance(quiet, source=stories, file=file, texts=["Once upon a time."])
    assert not file.exists()


def test_measuring_can_be_cancelled_within_a_chunk(
    stories: Path, told: list[str], tmp_path: Path
) -> None:
    asked = 0

    def stop(_fraction: float, _message: str = "", **_values: Any) -> None:
        nonlocal asked
        asked += 1
        if asked == 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        measure_importance(stop, source=stories, file=tmp_path / "x.gguf", texts=told, threads=1)
    assert asked == 5
    assert not list(tmp_path.iterdir())


def test_text_may_come_as_a_file(stories: Path, told: list[str], tmp_path: Path) -> None:
    text = tmp_path / "văn bản.txt"
    text.write_text("\n".join(told[:6]), encoding="utf-8")
    figures = measure_importance(
        quiet, source=stories, file=tmp_path / "x.gguf", texts=str(text), threads=1
    )
    assert figures["tensors"] == 35


@pytest.mark.parametrize("what", ["a model", "damaged", "not a number"])
def test_what_is_no_importance_matrix_is_refused(
    measured: tuple[Path, dict[str, Any]], tmp_path: Path, what: str
) -> None:
    data = bytearray(measured[0].read_bytes())
    if what == "a model":
        data = bytearray(gguf())
    elif what == "damaged":
        del data[-100:]
    else:
        data[-4 * 16 :] = b"\xff" * 64
    file = tmp_path / "importance.gguf"
    file.write_bytes(data)
    with pytest.raises(BrokenModel):
        read_importance(file)
