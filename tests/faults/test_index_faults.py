"""The index process killed, its files damaged: search goes on and ends where it was."""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from chatbot.failpoints import EXIT_CODE
from chatbot.library.index import Index
from chatbot.settings import PROJECT
from tests.library.index_data import LAWS, many, put, ranking

pytestmark = pytest.mark.faults

QUESTIONS = ("hồ sơ loại 3 nộp tại phòng 5", "canh bao hoc vu", "paid leave", "quy định số 17")


def answers(index):
    return [
        ranking(index.query(question), side)
        for question in QUESTIONS
        for side in ("lexical", "dense")
    ]


@pytest.fixture
def filled(database):
    put(database, many(120) | LAWS)
    return database


@pytest.fixture
def open_index(filled, paths):
    opened = []

    def open_():
        index = Index(filled, paths.index, "hearth-surface", "1")
        opened.append(index)
        assert index.wait_ready(180), index.status()
        return index

    yield open_
    for index in opened:
        index.close()


def truncate(file):
    os.truncate(file, file.stat().st_size // 2)


def zero(file):
    file.write_bytes(bytes(file.stat().st_size))


def flip(file):
    content = bytearray(file.read_bytes())
    content[random.Random(file.name).randrange(len(content))] ^= 1 << 3
    file.write_bytes(content)


def delete(file):
    file.unlink()


def grow(file):
    with file.open("ab") as end:
        end.write(b"x" * 100)


@pytest.mark.parametrize("damage", [truncate, zero, flip, delete, grow])
@pytest.mark.parametrize("store", ["dense", "lexical"])
def test_damaged_files_are_found_and_rebuilt_with_the_same_answers(
    open_index, paths, store, damage
):
    index = open_index()
    before = answers(index)
    index.close()
    (folder,) = paths.index.glob(f"{store}-*")
    files = sorted(
        f for f in folder.rglob("*") if f.is_file() and f.stat().st_size and f.name != "seal.json"
    )
    damage(random.Random(damage.__name__).choice(files))
    index = open_index()
    assert answers(index) == before
    assert not any(index.query(question).scanned for question in QUESTIONS)


def test_damage_without_a_seal_is_found_too(open_index, filled, paths):
    # More than Chroma's sync threshold of 1,000: fewer vectors live in its log, not in the files.
    put(filled, {f"dai-{n}": f"Nghị quyết số {n} về ngân sách." for n in range(1000)})
    index = open_index()
    before = answers(index)
    index.close()
    (folder,) = paths.index.glob("dense-*")
    (folder / "seal.json").unlink()
    for file in folder.rglob("*.bin"):
        zero(file)
    after = answers(open_index())
    assert after[::2] == before[::2]
    # Chroma's graph is drawn by lot: of a thousand near-equal vectors it may miss one.
    for old, new in zip(before[1::2], after[1::2], strict=True):
        assert len(set(old) & set(new)) >= 9


def test_a_process_that_dies_while_opening_leaves_a_mark_and_the_folder_is_rebuilt(
    open_index, paths
):
    index = open_index()
    before = answers(index)
    index.close()
    (folder,) = paths.index.glob("dense-*")
    (folder / "opening").touch()
    stores = {f.name for f in folder.iterdir() if f.is_dir()}
    assert answers(open_index()) == before
    assert not stores & {f.name for f in folder.iterdir() if f.is_dir()}


def test_questions_are_answered_while_the_process_is_killed_again_and_again(open_index):
    index = open_index()
    before = [answer[:1] for answer in answers(index)]
    for _ in range(2):
        assert index.wait_ready(120)
        os.kill(index._opened_pid, signal.SIGKILL)
        assert [answer[:1] for answer in answers(index)] == before
    assert index.wait_ready(120)
    until = time.monotonic() + 60
    while any(index.query(question).scanned for question in QUESTIONS):
        assert time.monotonic() < until


def test_a_process_killed_while_documents_are_added_loses_none(open_index, filled):
    index = open_index()
    added = {f"moi-{n}": f"Thông tư mới số {n} về học phí khóa {n}." for n in range(400)}
    put(filled, added)
    adding = threading.Thread(target=index.add, args=(list(added),))
    pid = index._child.pid
    adding.start()
    while index.status().total == 0 and adding.is_alive():
        pass
    os.kill(pid, signal.SIGKILL)
    adding.join(60)
    assert not adding.is_alive()
    assert index.wait_ready(120)
    hits = index.query("thông tư mới về học phí", 500).hits
    assert {hit.passage_id for hit in hits if hit.lexical} >= {f"{name}:0" for name in added}
    assert {hit.passage_id for hit in hits if hit.dense} >= {f"{name}:0" for name in added}
    count = filled.row("SELECT count(*) FROM vectors WHERE stamp = ?", (index.stamp,))[0]
    assert count == len(added) + 120 + len(LAWS)


@pytest.mark.parametrize("sealed", [True, False])
def test_a_document_read_again_before_a_crash_is_indexed_at_the_next_start(
    database, paths, open_index, sealed
):
    victim = f"""
import sys
from pathlib import Path
from chatbot.database import Database
from chatbot.library.index import Index
from chatbot.library.ingest import Ingest
from chatbot.library.readers import Reader
from chatbot.library.store import DocumentStore
from chatbot.settings import Paths

paths = Paths(Path(sys.argv[1]))
database = Database(paths.database)
index, store = Index(database, paths.index, "hearth-surface", "1"), DocumentStore(database, paths)
ingest = Ingest(store, Reader(), index)
(document,) = ingest.add([("a.txt", "Điều 1. Mức thu học phí".encode())])
ingest.process(document.id)
if {sealed}:
    index.close()
    index = Index(database, paths.index, "hearth-surface", "1")
    ingest = Ingest(store, Reader(), index)
    assert index.wait_ready(60)
# The file changed under the document, as when a better reader finds other words in it.
store.file(document.id).write_bytes("Điều 1. Khoản phạt chậm nộp".encode())
ingest.read_again(document.id)
os.environ["HEARTH_FAILPOINT"] = "committed"
ingest.process(document.id)
"""
    ended = subprocess.run(
        [sys.executable, "-c", f"import os{victim}", str(paths.data)],
        check=False,
        cwd=PROJECT,
        timeout=120,
    )
    assert ended.returncode == EXIT_CODE
    index = open_index()
    (row,) = database.rows("SELECT id FROM passages WHERE text LIKE '%phạt chậm nộp%'")
    assert ranking(index.query("khoản phạt chậm nộp"))[0] == row["id"]
    assert ranking(index.query("khoản phạt chậm nộp"), "dense")[0] == row["id"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGSTOP")
def test_a_process_that_hangs_is_ended_and_the_question_answered(open_index):
    index = open_index()
    process = psutil.Process(index._child.pid)
    process.suspend()
    started = time.monotonic()
    assert ranking(index.query("cảnh báo học vụ"))[0] == "hoc-vu:0"
    assert time.monotonic() - started < 30
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_an_index_that_cannot_be_opened_is_given_up_after_three_attempts(filled, paths):
    paths.index.rmdir()
    paths.index.write_text("a file where the folder should be", encoding="utf-8")
    index = Index(filled, paths.index, "hearth-surface", "1")
    try:
        assert not index.wait_ready(120)
        assert index.status().state == "failed"
        assert index.status().error is not None
        assert ranking(index.query("cảnh báo học vụ"))[0] == "hoc-vu:0"
        index.add(["hoc-vu"])  # returns: SQLite answers
        paths.index.unlink()
        index.rebuild()
        assert index.wait_ready(120)
    finally:
        index.close()
