"""The index process's own work, driven in this process."""

import numpy as np
import pytest

from chatbot.child import Request
from chatbot.errors import ChildError
from chatbot.library.index_lexical import pairs, places, rarity, terms
from chatbot.library.index_seal import break_seal, read_seal, write_seal
from chatbot.library.index_worker import IndexWorker
from tests.library.index_data import LAWS, put

QUESTION = {
    "text": "paid leave of employees",
    "limit": 10,
    "mode": "hybrid",
    "filter": {"collections": [], "documents": [], "conversation": None, "nothing": False},
}


def ask(method, **params):
    return method(Request(1, params, b"", lambda *_: None))


def work(worker):
    """Steps until nothing is missing."""
    while ask(worker.step)[0]["missing"]:
        pass


def test_while_a_new_embedder_is_at_work_the_old_index_answers(
    database, paths, shared_data, tmp_path
):
    def worker(embedder):
        return IndexWorker(paths.database, paths.index, embedder, "1", allow_download=False)

    put(database, LAWS)
    old = worker("hearth-surface")
    stamp = ask(old.open, wipe=False)["stamp"]
    while True:
        reply, blob = ask(old.step)
        for number, passage in enumerate(reply["vectors"]):
            size = len(blob) // len(reply["vectors"])
            vector = blob[number * size :][:size]
            database.execute("INSERT INTO vectors VALUES (?, ?, ?)", (passage, stamp, vector))
        if not reply["missing"]:
            break
    ask(old.seal)
    surface_weight = ask(old.query, **QUESTION)["dense_weight"]

    new = worker(str(shared_data / "models" / "model2vec-vocab-quantized-64d"))
    reply = ask(new.open, wipe=False)
    assert reply["stamp"] != stamp
    assert reply["answering"]
    assert reply["missing"] == len(LAWS)
    meanwhile = ask(new.query, **QUESTION)
    assert meanwhile["dense_weight"] == surface_weight
    assert sum(dense is not None for _, _, dense in meanwhile["hits"]) == len(LAWS)
    work(new)
    assert ask(new.query, **QUESTION)["dense_weight"] > surface_weight


def test_an_unsealed_folder_whose_vectors_differ_is_refused_then_wiped(database, paths):
    def worker():
        return IndexWorker(paths.database, paths.index, "hearth-surface", "1", allow_download=False)

    put(database, LAWS)
    first = worker()
    stamp = ask(first.open, wipe=False)["stamp"]
    work(first)
    wrong = np.eye(1, 384, dtype="<f4").tobytes()
    for name in LAWS:
        database.execute("INSERT INTO vectors VALUES (?, ?, ?)", (f"{name}:0", stamp, wrong))
    with pytest.raises(ChildError):
        ask(worker().open, wipe=False)


def test_nothing_is_answered_before_the_index_is_open(paths, database):
    worker = IndexWorker(paths.database, paths.index, "hearth-surface", "1", allow_download=False)
    with pytest.raises(ChildError):
        ask(worker.query, **QUESTION)


def test_a_seal_holds_until_any_byte_changes(tmp_path):
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub" / "data.bin"
    file.write_bytes(bytes(5000))
    write_seal(tmp_path, {"passages": 3})
    assert read_seal(tmp_path) == ({"passages": 3}, True)
    file.write_bytes(bytes(4000) + b"\1" + bytes(999))
    assert read_seal(tmp_path) == ({"passages": 3}, False)
    file.unlink()
    assert read_seal(tmp_path) == ({"passages": 3}, False)
    break_seal(tmp_path)
    break_seal(tmp_path)
    assert read_seal(tmp_path) is None


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
