"""kill -9 in the middle of a sync: nothing is lost, doubled or removed, and the next sync finishes it.

HEARTH_FULL=1 kills 200 times at random instead of 6.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chatbot.database import Database
from chatbot.failpoints import EXIT_CODE
from chatbot.library.ingest import Ingest
from chatbot.library.readers import Reader
from chatbot.library.store import DocumentStore
from chatbot.library.watch import LinkedFolders
from chatbot.settings import PROJECT, Paths
from tests.faults.ingest_victim import HashIndex

pytestmark = pytest.mark.faults

STEPS = [
    "followed", "compared", "acknowledged", "taken-in", "written-down", "half-committed", "before-commit",
    "committed",
]  # fmt: skip
RANDOM_KILLS = 200 if os.environ.get("HEARTH_FULL") else 6


def law(number: int) -> str:
    return f"Điều {number}. Giờ mở cửa\n\n" + f"Phòng {number} mở cửa lúc {number} giờ. " * 20


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data folder in step with a linked folder in which everything has happened since; both folders."""
    base = tmp_path_factory.mktemp("theo dõi").resolve()
    source, data = base / "nguồn", base / "dữ liệu"
    source.mkdir()
    for number in range(8):
        (source / f"{number}.txt").write_text(law(number), encoding="utf-8")
    (source / "bản sao của 6.txt").write_text(law(6), encoding="utf-8")
    paths, reader = Paths(data), Reader()
    paths.make()
    database = Database(paths.database)
    store = DocumentStore(database, paths, spare_bytes=0)
    ingest = Ingest(store, reader, HashIndex())
    folders = LinkedFolders(database, store, lambda: ingest, lambda: None)
    folders.sync(folders.link(source).id)
    for document_id in ingest.unfinished():
        ingest.process(document_id)
    reader.close()
    database.close()

    (source / "1.txt").write_text(law(11), encoding="utf-8")  # changed
    (source / "2.txt").rename(source / "đổi tên.txt")
    (source / "3.txt").unlink()
    (source / "mới.txt").write_text(law(12), encoding="utf-8")
    (source / "4.txt").rename(source / "tạm")  # 4 and 5 change places
    (source / "5.txt").rename(source / "4.txt")
    (source / "tạm").rename(source / "5.txt")
    (source / "6.txt").write_text(
        law(13), encoding="utf-8"
    )  # its copy still needs the old document
    return data, source


def documents(data: Path) -> list[tuple[str, str, str]]:
    """(sha256, name of its origin, state) of every document; each one whole and none there twice."""
    with contextlib.closing(sqlite3.connect(data / "hearth.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        rows = connection.execute(
            "SELECT id, sha256, origin, state, passages FROM documents WHERE deleted_at IS NULL"
        ).fetchall()
        assert len({row[1] for row in rows}) == len(rows), "a document is there twice"
        for document_id, sha256, _, state, passages in rows:
            assert hashlib.sha256((data / "files" / sha256).read_bytes()).hexdigest() == sha256
            vectors = connection.execute(
                "SELECT count(*) FROM passages JOIN vectors ON passage_id = id WHERE document_id = ?",
                (document_id,),
            ).fetchone()[0]
            assert vectors == passages
            assert (state == "ready") == bool(passages)
    return sorted((row[1], Path(row[2]).name, row[3]) for row in rows)


def hash_of(number: int) -> str:
    return hashlib.sha256(law(number).encode()).hexdigest()


def victim(data: Path, fail_at: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.watch_victim", str(data)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        env={**os.environ, "HEARTH_FAILPOINT": fail_at},
    )


def check_after_kill(data: Path) -> None:
    there = {sha256 for sha256, _, state in documents(data) if state == "ready"}
    assert {hash_of(n) for n in (0, 2, 3, 4, 5, 6, 7)} <= there, "something is lost"
    assert {hash_of(1), hash_of(11)} & there, "neither the old nor the new version answers"


def check_after_restart(data: Path) -> None:
    process = victim(data)
    process.communicate(timeout=120)
    assert process.returncode == 0
    expected = {
        (0, "0.txt"), (11, "1.txt"), (2, "đổi tên.txt"), (3, "3.txt"), (5, "4.txt"), (4, "5.txt"),
        (6, "bản sao của 6.txt"), (13, "6.txt"), (7, "7.txt"), (12, "mới.txt"),
    }  # fmt: skip
    assert documents(data) == sorted((hash_of(n), name, "ready") for n, name in expected)
    with contextlib.closing(sqlite3.connect(data / "hearth.db")) as connection:
        missing = connection.execute(
            "SELECT path FROM linked_files WHERE missing_since IS NOT NULL"
        ).fetchall()
    assert [Path(path).name for (path,) in missing] == ["3.txt"], "this alone waits for a person"


@pytest.mark.parametrize("step", STEPS)
def test_ended_at_a_named_step_of_a_sync(step, linked, tmp_path):
    data = tmp_path / "dữ liệu"
    shutil.copytree(linked[0], data)
    process = victim(data, fail_at=step)
    process.communicate(timeout=120)
    assert process.returncode == EXIT_CODE, f"the step {step} was never reached"
    check_after_kill(data)
    check_after_restart(data)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_at_random_moments_of_a_sync(linked, tmp_path):
    chance = random.Random(20261122)
    kills = 0
    while kills < RANDOM_KILLS:
        data = tmp_path / f"dữ liệu {kills}"
        shutil.copytree(linked[0], data)
        for _ in range(3):
            process = victim(data)
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0, 0.5))
            process.kill()
            process.communicate()
            kills += 1
            check_after_kill(data)
        check_after_restart(data)
        shutil.rmtree(data)
