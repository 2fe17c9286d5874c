"""What the documentation tells people to type works: every command parses, the safe ones run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import start
from chatbot.__main__ import app
from chatbot.settings import PROJECT

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
FENCE = re.compile(r"^ *```[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
EXPLANATION = re.compile(r"\s{3,}\S.*$|\s+#\s.*$")


def commands(beginning: str) -> list[str]:
    """Every command of the documentation that begins so, as it is typed, without its explanation."""
    found: dict[str, None] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [line for block in FENCE.findall(text) for line in block.splitlines()]
        lines += INLINE.findall(FENCE.sub("", text))
        for line in lines:
            typed = EXPLANATION.sub("", line.strip())
            if typed.startswith(beginning) and "…" not in typed:
                found[typed] = None
    return list(found)


def arguments(command: str, beginning: str) -> list[str]:
    return shlex.split(command.removeprefix(beginning))


CHATBOT = commands("python -m chatbot")


def test_the_readme_names_commands():
    assert len(CHATBOT) >= 5
    assert "python start.py" in commands("python start.py")


@pytest.mark.parametrize("command", CHATBOT)
def test_every_command_is_one_that_exists(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = arguments(command, "python -m chatbot")
    for word in words:
        if word.endswith(".gguf"):
            (tmp_path / Path(word).name).touch()
    group, context = typer.main.get_command(app), None
    while hasattr(group, "resolve_command"):
        context = group.make_context(group.name or "chatbot", words, parent=context)
        name, group, words = group.resolve_command(context, words)
        assert group is not None, name
    group.make_context(group.name, words, parent=context)  # raises UsageError for a wrong option


@pytest.mark.parametrize("command", commands("python start.py"))
def test_start_py_knows_what_the_documentation_calls(command, monkeypatch):
    ran: list[object] = []
    monkeypatch.setattr(start, "set_up", lambda **_: "python")
    monkeypatch.setattr(start, "check", lambda _, options: ran.append(options) or 0)
    monkeypatch.setattr(start, "hand_over", lambda words: ran.append(words) or 0)
    monkeypatch.setenv("PYTHONUTF8", "1")
    monkeypatch.chdir(PROJECT)
    words = arguments(command, "python start.py")
    assert start.main(words) == 0
    if not words:
        assert ran == [["python", "-m", "streamlit", "run", "app.py"]]
    if words[:1] == ["test"]:
        assert ran == [words[1:]]


def test_every_file_the_readme_points_at_is_there():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
            if target.startswith("docs/images/"):
                continue  # made from the running app, by a script
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_the_first_question_of_the_readme_is_answered(tmp_path):
    """On a fresh data folder: the samples are read, the answer names its passages."""
    asked = next(c for c in CHATBOT if " ask " in c)
    answer = subprocess.run(
        [sys.executable, "-m", "chatbot", *arguments(asked, "python -m chatbot")],
        cwd=PROJECT,
        env={**os.environ, "HEARTH_DATA": str(tmp_path / "dữ liệu"), "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=150,
        check=True,
    )
    result = json.loads(answer.stdout)
    assert {"answer", "sources", "engine", "stats"} <= set(result)
    assert result["engine"] == "extractive"
    assert any("Quy chế" in source["document"] for source in result["sources"])
    assert all({"document", "page", "path", "text", "score"} <= set(s) for s in result["sources"])
    assert "cảnh báo" in result["answer"].lower()


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in CHATBOT if c.split()[3] in ("hardware", "search")])
def test_the_harmless_commands_run(command, tmp_path):
    words = [*arguments(command, "python -m chatbot"), "--json"]
    answer = subprocess.run(
        [sys.executable, "-m", "chatbot", *words],
        cwd=PROJECT,
        env={**os.environ, "HEARTH_DATA": str(tmp_path / "dữ liệu"), "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=150,
        check=True,
    )
    assert isinstance(json.loads(answer.stdout), dict)
