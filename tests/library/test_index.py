"""The index: what is committed is found, what is deleted is not, whoever asks, whatever happens."""

import json
import shutil

import numpy as np
import pytest

from chatbot.evaluation.datasets import load_dataset
from chatbot.evaluation.retrieval import prepared
from chatbot.library.embedders import SurfaceEmbedder, stamp_of
from chatbot.library.index import Index
from chatbot.types import SearchFilter
from tests.library.index_data import LAWS, found, many, put, ranking


@pytest.fixture
def open_index(database, paths):
    opened = []

    def open_(embedder="hearth-surface", *, ready=True):
        index = Index(database, paths.index, embedder, "1")
        opened.append(index)
        assert not ready or index.wait_ready(60), index.status()
        return index

    yield open_
    for index in opened:
        index.close()


def test_what_is_committed_before_is_found_at_opening_and_later_additions_when_added(
    database, open_index
):
    put(database, {"hoc-vu": LAWS["hoc-vu"]})
    index = open_index()
    assert ranking(index.query("khi nào bị cảnh báo học vụ")) == ["hoc-vu:0"]
    index.add(put(database, {"cu-tru": LAWS["cu-tru"]}))
    candidates = index.query("đăng ký tạm trú ở đâu")
    assert ranking(candidates)[0] == "cu-tru:0" == ranking(candidates, "dense")[0]
    assert not candidates.scanned


def test_questions_with_and_without_accents_find_the_same(database, open_index):
    put(database, LAWS)
    index = open_index()
    for question in (
        "chấm dứt hợp đồng lao động",
        "cham dut hop dong lao dong",
        "CHẤM DỨT HỢP ĐỒNG",
    ):
        assert ranking(index.query(question))[0] == "lao-dong:0"


def test_the_path_and_the_name_of_a_document_are_searched(database, open_index):
    put(
        database,
        {
            "bo-luat-lao-dong": "Chương III › Điều 35|Quyền đơn phương.\n\nChương III › Điều 36|Nghĩa vụ.",
            "luat-cu-tru": "Chương I › Điều 35|Hiệu lực.\n\nChương I › Điều 3|Giải thích.",
        },
    )
    index = open_index()
    assert ranking(index.query("Điều 35 Bộ luật Lao động"))[0] == "bo-luat-lao-dong:0"
    assert ranking(index.query("dieu 35 luat cu tru"))[0] == "luat-cu-tru:0"


def test_passages_without_a_vector_get_one_that_the_owner_commits(database, open_index):
    put(database, many(30))
    stamp = open_index().stamp
    rows = database.rows("SELECT passage_id, stamp, vector FROM vectors")
    assert {row["stamp"] for row in rows} == {stamp}
    assert len(rows) == 30
    name = "quy-dinh-004"
    text = database.row("SELECT text FROM passages WHERE document_id = ?", (name,))["text"]
    vector = SurfaceEmbedder().embed([f"{name}\n{text}"], "passage")[0]
    stored = {row["passage_id"]: row["vector"] for row in rows}[f"{name}:0"]
    assert np.frombuffer(stored, "<f4") == pytest.approx(vector, abs=1e-6)


def test_vectors_that_are_there_are_used_as_they_are(database, open_index):
    put(database, {"a": LAWS["cu-tru"], "b": LAWS["hoc-vu"]})
    stamp = stamp_of(SurfaceEmbedder(), "1")
    planted = SurfaceEmbedder().embed(["kết hôn"], "passage")[0]
    database.execute("INSERT INTO vectors VALUES ('b:0', ?, ?)", (stamp, planted.tobytes()))
    hit = next(h for h in open_index().query("kết hôn").hits if h.passage_id == "b:0")
    assert hit.dense == pytest.approx(1, abs=1e-5)


def test_a_deleted_document_is_hidden_at_once_and_gone_after_remove(database, open_index):
    put(database, LAWS)
    index = open_index()
    database.execute("UPDATE documents SET deleted_at = 1 WHERE id = 'hoc-vu'")
    assert "hoc-vu:0" not in found(index.query("cảnh báo học vụ"))
    index.remove(["hoc-vu"])
    database.execute("DELETE FROM documents WHERE id = 'hoc-vu'")
    assert "hoc-vu:0" not in found(index.query("cảnh báo học vụ"))
    assert "hon-nhan:0" in found(index.query("tuổi kết hôn"))


def test_an_undone_deletion_is_found_again(database, open_index):
    put(database, LAWS)
    index = open_index()
    database.execute("UPDATE documents SET deleted_at = 1 WHERE id = 'hoc-vu'")
    index.remove(["hoc-vu"])
    database.execute("UPDATE documents SET deleted_at = NULL WHERE id = 'hoc-vu'")
    index.add(["hoc-vu"])
    assert ranking(index.query("cảnh báo học vụ"))[0] == "hoc-vu:0"


def test_a_renamed_document_is_found_by_its_new_name(database, open_index):
    put(database, LAWS)
    index = open_index()
    database.execute("UPDATE documents SET name = 'Nghị quyết Zebra.txt' WHERE id = 'hoc-vu'")
    index.add(["hoc-vu"])
    assert ranking(index.query("zebra")) == ["hoc-vu:0"]


@pytest.mark.parametrize("process", ["index", "scan"])
def test_filters_show_what_they_allow_and_nothing_else(database, open_index, process):
    put(database, {"hoc-vu": LAWS["hoc-vu"]})
    put(database, {"hoc-vu-cu": LAWS["hoc-vu"]}, collection="cũ")
    put(database, {"cua-toi": LAWS["hoc-vu"]}, conversation="c1")
    put(database, {"cua-ban": LAWS["hoc-vu"]}, conversation="c2")
    index = open_index() if process == "index" else open_index("/no/such/model", ready=False)

    def seen(**values):
        candidates = index.query("cảnh báo học vụ", filter=SearchFilter(**values))
        return {passage_id.split(":")[0] for passage_id in found(candidates)}

    assert seen() == {"hoc-vu", "hoc-vu-cu"}
    assert seen(collections=("cũ",)) == {"hoc-vu-cu"}
    assert seen(documents=("hoc-vu",)) == {"hoc-vu"}
    assert seen(collections=("cũ",), documents=("hoc-vu",)) == set()
    assert seen(conversation="c1") == {"hoc-vu", "hoc-vu-cu", "cua-toi"}
    assert seen(conversation="c1", collections=("cũ",)) == {"hoc-vu-cu", "cua-toi"}
    assert seen(conversation="c1", nothing=True) == {"cua-toi"}
    assert seen(nothing=True) == set()


def test_a_narrow_filter_finds_what_hundreds_of_better_hits_would_hide(database, open_index):
    put(database, many(300))
    put(database, {"mot": "Hồ sơ cũ."}, collection="kho")
    index = open_index()
    chosen = SearchFilter(collections=("kho",))
    question = "quy định về hồ sơ nộp tại phòng"
    assert found(index.query(question, 20, chosen)) == {"mot:0"}
    assert ranking(index.query(question, 20, chosen), "dense") == ["mot:0"]


@pytest.mark.parametrize(("mode", "missing"), [("lexical", "dense"), ("dense", "lexical")])
def test_a_mode_asks_one_side_only(database, open_index, mode, missing):
    put(database, LAWS)
    candidates = open_index().query("cảnh báo học vụ", mode=mode)
    assert candidates.hits
    assert all(getattr(hit, missing) is None for hit in candidates.hits)


def test_a_question_of_a_whole_page_is_answered(database, open_index):
    put(database, many(50))
    page = " ".join(f"từ{n}" for n in range(3000)) + " hồ sơ loại 3 nộp tại phòng 5"
    index = open_index()
    assert found(index.query(page))
    assert found(index.query("?!")) == set()


def test_a_sealed_index_opens_as_it_is(database, paths, open_index):
    put(database, many(40))
    first = open_index()
    before = ranking(first.query("hồ sơ loại 3"))
    first.close()
    stores = {f.name for f in paths.index.glob("dense-*/*") if f.is_dir()}
    again = open_index()
    assert {f.name for f in paths.index.glob("dense-*/*") if f.is_dir()} == stores
    assert ranking(again.query("hồ sơ loại 3")) == before


def test_what_changed_while_the_index_was_closed_is_made_up_for(database, paths, open_index):
    put(database, many(40))
    open_index().close()
    stores = {f.name for f in paths.index.glob("dense-*/*") if f.is_dir()}
    put(database, LAWS)
    database.execute("DELETE FROM documents WHERE id = 'quy-dinh-007'")
    index = open_index()
    assert ranking(index.query("cảnh báo học vụ"))[0] == "hoc-vu:0"
    assert "quy-dinh-007:0" not in found(index.query("quy định số 7", 60))
    # By difference, not from nothing.
    assert {f.name for f in paths.index.glob("dense-*/*") if f.is_dir()} == stores


def test_a_rebuild_starts_from_nothing_and_ends_the_same(database, paths, open_index):
    put(database, many(40))
    index = open_index()
    before = ranking(index.query("hồ sơ loại 3"))
    stores = {f.name for f in paths.index.glob("dense-*/*") if f.is_dir()}
    index.rebuild()
    assert index.wait_ready(60)
    assert ranking(index.query("hồ sơ loại 3")) == before
    assert not stores & {f.name for f in paths.index.glob("dense-*/*") if f.is_dir()}


def test_words_of_a_deleted_document_are_off_the_disk_after_a_rebuild(database, paths, open_index):
    import tantivy

    def words_on_disk() -> list[str]:
        (folder,) = paths.index.glob("lexical-*")
        searcher = tantivy.Index.open(str(folder)).searcher()
        return [word for word, _ in searcher.terms_with_prefix("words", "kimcuong")]

    put(database, {"bi-mat": "Mật khẩu là kimcuongxanh.", **LAWS})
    index = open_index()
    database.execute("DELETE FROM documents WHERE id = 'bi-mat'")
    index.remove(["bi-mat"])
    index.close()
    assert words_on_disk() == ["kimcuongxanh"]  # tantivy forgets only when it merges
    index = open_index()
    index.rebuild()
    assert index.wait_ready(60)
    index.close()
    assert words_on_disk() == []


def test_an_embedder_that_cannot_be_loaded_is_told_and_words_still_find(database, open_index):
    put(database, LAWS)
    index = open_index("/no/such/model")
    assert index.status().error.code == "broken_model"
    candidates = index.query("cảnh báo học vụ")
    assert ranking(candidates)[0] == "hoc-vu:0"
    assert candidates.dense_weight == 0


def test_a_new_embedder_takes_over_and_the_old_vectors_go(database, paths, open_index, shared_data):
    put(database, LAWS)
    first = open_index()
    old = first.stamp
    first.close()
    index = open_index(str(shared_data / "models" / "model2vec-vocab-quantized-64d"))
    assert index.stamp != old
    assert ranking(index.query("paid leave for employees"), "dense")[0] == "handbook:0"
    index.close()
    assert len(list(paths.index.glob("dense-*"))) == 1
    index = open_index(str(shared_data / "models" / "model2vec-vocab-quantized-64d"))
    stamps = {row["stamp"] for row in database.rows("SELECT DISTINCT stamp FROM vectors")}
    assert index.stamp in stamps


def test_two_processes_never_hold_one_folder(database, open_index):
    put(database, LAWS)
    first = open_index()
    second = open_index(ready=False)
    assert not second.wait_ready(3)
    assert ranking(second.query("cảnh báo học vụ"))[0] == "hoc-vu:0"  # from SQLite meanwhile
    first.close()
    assert second.wait_ready(60)
    assert not second.query("cảnh báo học vụ").scanned


def test_embedding_gives_a_row_a_text_in_order(database, open_index):
    index = open_index()
    texts = [f"văn bản {n}" for n in range(100)]
    assert index.embed(texts, "passage") == pytest.approx(SurfaceEmbedder().embed(texts, "passage"))
    assert index.embed([], "query").shape[0] == 0


def test_without_its_process_the_index_answers_from_sqlite_the_same_first_passage(
    database, open_index, monkeypatch
):
    put(database, LAWS | many(40))
    index = open_index()
    questions = ["khi nào bị cảnh báo học vụ", "paid leave", "tuoi ket hon", "hồ sơ loại 3 phòng 5"]
    usual = [ranking(index.query(q))[0] for q in questions]
    monkeypatch.setattr(index, "_answering", False)
    scans = [index.query(q) for q in questions]
    assert all(candidates.scanned for candidates in scans)
    assert [ranking(candidates)[0] for candidates in scans] == usual
    assert all(candidates.dense_weight for candidates in scans)


def test_a_full_folder_of_garbage_is_replaced(database, paths, open_index):
    put(database, LAWS)
    open_index().close()
    for folder in paths.index.iterdir():
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "seal.json").write_text(json.dumps({"facts": {}, "files": {}}), encoding="utf-8")
        (folder / "chroma.sqlite3").write_bytes(b"garbage" * 100)
    assert ranking(open_index().query("cảnh báo học vụ"))[0] == "hoc-vu:0"


@pytest.mark.slow
def test_chroma_agrees_with_an_exact_scan(shared_data):
    data = load_dataset(shared_data / "alqac-vi")
    with prepared(data) as (search, _):
        index = search._index
        ids = [f"{d.id}:0" for d in data.documents]
        stored = {
            row["passage_id"]: np.frombuffer(row["vector"], "<f4")
            for row in index._database.rows("SELECT passage_id, vector FROM vectors")
        }
        matrix = np.stack([stored[i] for i in ids])
        embedder, agreed = SurfaceEmbedder(), 0
        questions = data.questions[:200]
        for question in questions:
            scores = matrix @ embedder.embed([question.text], "query")[0]
            exact = {ids[n] for n in np.argsort(-scores)[:10]}
            agreed += len(exact & set(ranking(index.query(question.text, mode="dense"), "dense")))
    assert agreed / (10 * len(questions)) >= 0.99
