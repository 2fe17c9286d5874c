"""The index process's own work, driven in this process."""

import re
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.child import Request
from chatbot.errors import ChildError
from chatbot.library.index_lexical import pairs, places, rarity, terms
from chatbot.library.index_seal import break_seal, read_seal, write_seal
from chatbot.library.index_worker import IndexWorker
from chatbot.text import fold
from tests.library.index_data import LAWS, put

QUESTION = {
    "text": "paid leave of employees",
    "limit": 10,
    "mode": "hybrid",
    "filter": {"collections": [], "documents": [], "conversation": None, "nothing": False},
}


def ask(method, **params):
    return method(Request(1, params, b"", lambda *_: None))


def opened(worker):
    """Open, and wait for the vectors too; their reply."""
    ask(worker.open, wipe=False)
    while (reply := worker._await_dense(60))["opening"]:
        pass
    return {**reply, **worker._progress()}


def work(worker, database=None):
    """Steps until nothing is missing; commits the vectors as the owner would."""
    while True:
        reply, blob = ask(worker.step)
        for number, passage in enumerate(reply["vectors"] if database else ()):
            size = len(blob) // len(reply["vectors"])
            vector = blob[number * size :][:size]
            database.execute(
                "INSERT INTO vectors VALUES (?, ?, ?)", (passage, reply["stamp"], vector)
            )
        if not reply["missing"]:
            return


def seal(worker):
    while not ask(worker.seal)["done"]:
        pass


@pytest.fixture
def worker(paths):
    made = []

    def make(embedder="hearth-surface"):
        made.append(IndexWorker(paths.database, paths.index, embedder, "1", allow_download=False))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_while_a_new_embedder_is_at_work_the_old_index_answers(database, worker, shared_data):
    put(database, LAWS)
    old = worker()
    stamp = opened(old)["stamp"]
    work(old, database)
    seal(old)
    surface_weight = ask(old.query, **QUESTION)["dense_weight"]
    old.close()

    new = worker(str(shared_data / "models" / "model2vec-vocab-quantized-64d"))
    reply = opened(new)
    assert reply["stamp"] != stamp
    assert reply["answering"]
    assert reply["missing"] == len(LAWS)
    meanwhile = ask(new.query, **QUESTION)
    assert meanwhile["dense_weight"] == surface_weight
    assert sum(dense is not None for _, _, dense in meanwhile["hits"]) == len(LAWS)
    work(new)
    assert ask(new.query, **QUESTION)["dense_weight"] > surface_weight


def test_an_unsealed_folder_whose_vectors_differ_is_refused_then_wiped(database, worker):
    put(database, LAWS)
    first = worker()
    stamp = opened(first)["stamp"]
    work(first)
    first.close()
    wrong = np.eye(1, 384, dtype="<f4").tobytes()
    for name in LAWS:
        database.execute("INSERT INTO vectors VALUES (?, ?, ?)", (f"{name}:0", stamp, wrong))
    second = worker()
    with pytest.raises(ChildError):
        opened(second)
    second.close()
    assert opened(worker())["missing"] == len(LAWS)


def test_words_answer_while_the_vectors_are_being_opened(database, worker, monkeypatch):
    put(database, LAWS)
    first = worker()
    opened(first)
    work(first, database)
    seal(first)
    first.close()
    second, go = worker(), threading.Event()
    load = second._load_embedder
    monkeypatch.setattr(second, "_load_embedder", lambda: go.wait(60) and load())
    assert ask(second.open, wipe=False)["answering"]
    assert second._await_dense(0)["opening"]
    meanwhile = ask(second.query, **QUESTION)
    assert meanwhile["hits"][0][0] == "handbook:0"
    # What changes meanwhile reaches the vectors once they are open.
    put(database, {"moi": "Employees may carry unused leave over."})
    ask(second.plan, documents=["moi"])
    go.set()
    work(second, database)
    while second._await_dense(60)["opening"]:
        pass
    work(second, database)
    found = {hit[0]: hit[2] for hit in ask(second.query, **{**QUESTION, "mode": "dense"})["hits"]}
    assert found["moi:0"] > 0


def test_a_document_that_changed_or_went_leaves_chroma(database, worker):
    put(database, {"hai": "một câu\n\nhai câu", **LAWS})
    index = worker()
    opened(index)
    work(index, database)
    database.execute("DELETE FROM passages WHERE id = 'hai:1'")
    database.execute("DELETE FROM documents WHERE id = 'cu-tru'")
    ask(index.plan, documents=["hai", "cu-tru"])
    work(index)
    held = {f"{name}:0" for name in LAWS} - {"cu-tru:0"} | {"hai:0"}
    assert index._dense.shelf.store.ids() == held == index._lexical.store.ids()


@pytest.mark.parametrize("undone", ["at once", "later"])
def test_a_library_that_is_deleted_and_brought_back_is_put_into_a_fresh_graph(
    database, worker, undone
):
    names = put(database, {f"bài-{n}": f"Bài số {n} về mục {n * 7}." for n in range(1200)})
    index = worker()
    opened(index)
    work(index, database)
    database.execute("UPDATE documents SET deleted_at = 1")
    ask(index.plan, documents=names)
    if undone == "later":
        work(index)
        assert index._dense.shelf.store.ids() == set()
    database.execute("UPDATE documents SET deleted_at = NULL")
    ask(index.plan, documents=names)
    work(index)
    held = {f"{name}:0" for name in names}
    assert index._dense.shelf.store.ids() == held == index._lexical.store.ids()
    assert index._dense.removed == 0
    assert index._dense.complete
    graphs = [f for f in index._dense.shelf.folder.iterdir() if f.is_dir()]
    assert len(graphs) == 1


def test_nothing_is_answered_before_the_index_is_open(database, worker):
    with pytest.raises(ChildError):
        ask(worker().query, **QUESTION)


def test_a_seal_holds_until_any_byte_changes(tmp_path):
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub" / "data.bin"
    file.write_bytes(bytes(5000))
    write_seal(tmp_path, {"passages": 3})
    seal = read_seal(tmp_path)
    assert (seal.facts, seal.holds) == ({"passages": 3}, True)
    file.write_bytes(bytes(4000) + b"\1" + bytes(999))
    assert not read_seal(tmp_path).holds
    file.unlink()
    assert not read_seal(tmp_path).holds
    break_seal(tmp_path)
    break_seal(tmp_path)
    assert read_seal(tmp_path) is None


@given(st.text(st.sampled_from("aĐệ\u0323\u0302ơΣİßﬁ½한_,.“–35 \n\t\u2003\u05bf"), max_size=60))
def test_the_words_of_a_text_are_those_of_its_pieces_remembered_or_not(text):
    plain = re.findall(r"\w+", fold(text.replace("_", " ")))
    assert terms(text) == terms(text) == plain


def test_tokens_are_folded_words_neighbours_and_numbered_places():
    assert terms("Quy_chế Đào tạo") == ["quy", "che", "dao", "tao"]
    assert pairs(["hop", "dong", "lao"]) == ["hop+dong", "dong+lao"]
    assert pairs(["mot"]) == []
    assert places("khoản 2, Điều 35 và Phụ lục IV; article 7") == [
        "khoan+2",
        "dieu+35",
        "phu+luc+iv",
        "article+7",
    ]
    assert places("điều kiện a") == []
    assert 0 <= rarity(100, 100) < 0.01 < rarity(1, 100)
