"""kill -9 in the middle of adding documents: nothing acknowledged is lost, doubled or half there.

A quick subset runs always; HEARTH_FULL=1 kills 1,000 times at random and 20 times at each named step
(HEARTH_KILLS changes the 1,000).
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

from chatbot.failpoints import EXIT_CODE
from chatbot.settings import PROJECT

FULL = bool(os.environ.get("HEARTH_FULL"))
pytestmark = [pytest.mark.faults, pytest.mark.timeout(7200 if FULL else 180)]
STEPS = [
    "copied", "stored", "acknowledged", "begun", "read", "embedded", "half-committed", "before-commit",
    "committed", "indexed",
]  # fmt: skip
PURGE_STEPS = ["purged-rows", "purged-files", "purged"]
RANDOM_KILLS = int(os.environ.get("HEARTH_KILLS") or (1000 if FULL else 20))
PER_STEP = 20 if FULL else 1


def victim(data: Path, source: Path, *more: str, fail_at: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.ingest_victim", str(data), str(source), *more],
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        env={**os.environ, "HEARTH_FAILPOINT": fail_at},
    )


def finish(data: Path, source: Path) -> None:
    process = victim(data, source)
    process.communicate(timeout=120)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nguồn tài liệu")
    for n in range(6):
        articles = "".join(
            f"Điều {a}. Tên điều số {a} của văn bản {n}\n"
            + f"{a}. Nội dung. " * (10 * (n + 1))
            + "\n"
            for a in range(1, 8)
        )
        (folder / f"văn bản {n}.txt").write_text(articles, encoding="utf-8")
    return folder


def contents(data: Path) -> dict[str, tuple[object, ...]]:
    """sha256 → everything stored about the document that does not depend on when it was added."""
    with contextlib.closing(sqlite3.connect(data / "hearth.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        if connection.execute("PRAGMA user_version").fetchone() == (0,):
            return {}  # killed while the tables were being made
        rows = connection.execute(
            "SELECT id, sha256, state, pages, passages, language FROM documents"
        ).fetchall()
        assert len({r[1] for r in rows}) == len(rows), "a document is there twice"
        found = {}
        for document_id, sha256, *facts in rows:
            pages = connection.execute(
                "SELECT ordinal, number, start, text FROM pages WHERE document_id = ? ORDER BY ordinal",
                (document_id,),
            ).fetchall()
            passages = connection.execute(
                'SELECT ordinal, text, start, "end", page, path, stamp, vector FROM passages JOIN vectors'
                " ON passage_id = id WHERE document_id = ? ORDER BY ordinal", (document_id,)
            ).fetchall()  # fmt: skip
            assert "".join(p[1] for p in passages) == "".join(p[3] for p in pages)
            assert len(passages) in (0, facts[2])
            found[sha256] = (*facts, pages, passages)
    return found


@pytest.fixture(scope="module")
def undisturbed(
    source: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[object, ...]]:
    data = tmp_path_factory.mktemp("ungestört")
    finish(data, source)
    found = contents(data)
    assert len(found) == 6
    return found


def check_after_kill(data: Path, acknowledged: set[str]) -> None:
    """Before anything is repaired: what is visible is whole, what was acknowledged is on disk."""
    if not (data / "hearth.db").exists():
        assert acknowledged == set()
        return
    found = contents(data)
    assert acknowledged <= found.keys()
    for sha256, (state, *_rest, passages) in found.items():
        content = (data / "files" / sha256).read_bytes()
        assert hashlib.sha256(content).hexdigest() == sha256
        assert (state == "ready") == bool(passages), "a document is visible in part"


def check_after_restart(
    data: Path, source: Path, undisturbed: dict[str, tuple[object, ...]]
) -> None:
    finish(data, source)
    assert contents(data) == undisturbed
    assert {f.name for f in (data / "files").iterdir()} == undisturbed.keys()
    assert list((data / "tmp").iterdir()) == []


def acknowledged_in(output: str) -> set[str]:
    return {
        line.split()[1]
        for line in output.splitlines()
        if line.startswith("acknowledged") and len(line) == 77
    }


@pytest.mark.parametrize("attempt", range(PER_STEP))
@pytest.mark.parametrize("step", STEPS)
def test_ended_at_a_named_step(step, attempt, source, undisturbed, tmp_path):
    data = tmp_path / "dữ liệu"
    process = victim(data, source, fail_at=step)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == EXIT_CODE, f"the step {step} was never reached"
    check_after_kill(data, acknowledged_in(output))
    check_after_restart(data, source, undisturbed)


@pytest.mark.parametrize("attempt", range(PER_STEP))
@pytest.mark.parametrize("step", PURGE_STEPS)
def test_ended_while_erasing(step, attempt, source, undisturbed, tmp_path):
    data = tmp_path / "dữ liệu"
    process = victim(data, source, "purge", fail_at=step)
    process.communicate(timeout=120)
    assert process.returncode == EXIT_CODE, f"the step {step} was never reached"
    assert len(contents(data)) == len(undisturbed) - 1
    check_after_restart(data, source, undisturbed)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_at_random_moments(source, undisturbed, tmp_path):
    """A data folder is killed up to ten times in a row, then finished and compared; then comes a fresh one."""
    chance = random.Random(20250822)
    kills = 0
    while kills < RANDOM_KILLS:
        data = tmp_path / f"dữ liệu {kills}"
        acknowledged: set[str] = set()
        for _ in range(10):
            process = victim(data, source)
            assert process.stdout is not None
            if chance.random() < 0.9:
                process.stdout.readline()  # opened; else it dies while it opens
            time.sleep(chance.uniform(0, 0.5))
            process.kill()
            acknowledged |= acknowledged_in(process.communicate()[0])
            check_after_kill(data, acknowledged)
            if process.returncode == 0:
                break
            kills += 1
        check_after_restart(data, source, undisturbed)
        shutil.rmtree(data)
