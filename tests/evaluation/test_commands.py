"""The command line around evaluation: questions in and out, figures, another mode beside them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chatbot.settings import PROJECT, Paths, Settings, save_settings
from tests.evaluation.test_quality import TEXTS
from tests.evaluation.test_retrieval import folder

__all__ = ["folder"]


def hearth(*arguments: object, code: int = 0) -> dict:
    """The one JSON object that the command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "chatbot", *map(str, arguments), "--json"],
        check=False,
        cwd=PROJECT,
        env=os.environ,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout or done.stderr.splitlines()[-1])


@pytest.fixture
def texts(paths: Paths, tmp_path: Path) -> Path:
    """Four documents in the library that HEARTH_DATA names."""
    save_settings(paths.settings, Settings(samples_added=True))
    source = tmp_path / "văn bản"
    source.mkdir()
    for name, text in TEXTS.items():
        (source / name).write_text(text, encoding="utf-8")
    hearth("documents", "add", source)
    return source


def test_own_questions_are_imported_asked_compared_and_exported(texts, tmp_path):
    assert hearth("evaluate", "questions", code=1)["error"]["code"] == "not_found"
    table = tmp_path / "câu hỏi.csv"
    rows = "bao lâu phải nộp học phí,Học phí\nhạn của thẻ thư viện,Thư viện.txt\nsai,Không có\n"
    table.write_text(f"question,document\n{rows}", encoding="utf-8")
    found = hearth("evaluate", "import", table, code=3)
    assert (found["added"], found["known"]) == (2, 0)
    assert found["bad"] == [{"line": 4, "error": "No document is called “Không có”."}]

    figures = hearth("evaluate", "questions", "--compare", "lexical")
    assert figures["questions"] == 2
    assert (figures["recall@1"], figures["lost"], figures["mode"]) == (1.0, 0, "hybrid")
    assert figures["compared"]["mode"] == "lexical"
    assert figures["difference"]["recall@1"] == {
        "mean": 0.0,
        "interval": [0.0, 0.0],
        "certain": False,
    }

    copy = tmp_path / "bản sao.csv"
    hearth("evaluate", "export", copy)
    assert hearth("evaluate", "import", copy)["known"] == 2


def test_a_beir_folder_is_compared_in_pairs(folder):
    figures = hearth("evaluate", "retrieval", folder, "--compare", "lexical")
    assert {"recall@1", "recall@5", "recall@10", "mrr@10", "ndcg@10", "intervals"} <= figures.keys()
    assert figures["compared"]["recall@1"] == 1.0
    assert figures["difference"]["mrr@10"]["interval"] == [0.0, 0.0]
    assert "difference" not in hearth("evaluate", "retrieval", folder, "--limit", "1")
