"""The command line: one JSON object on stdout, errors on stderr, exit codes; with a running Hearth and without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from chatbot.settings import PROJECT, Paths, Settings, save_settings
from tests.browser.conftest import RunningApp, running
from tests.fakes import GIB, environment, pc
from tests.tiny_models import tiny_gguf, tiny_hf

__all__ = ["tiny_gguf", "tiny_hf"]

PATIENCE = 500
"""Seconds for one command; a step of a model loads whole libraries in a child, on cores that others use too."""
LAW = "Điều 1. Thư viện\n\nThư viện mở cửa lúc bảy giờ sáng và đóng cửa lúc chín giờ tối.\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder without the samples, so that each command begins at once."""
    paths = Paths(tmp_path_factory.mktemp("LUẬN VĂN") / "dữ liệu")
    paths.make()
    save_settings(paths.settings, Settings(samples_added=True))
    return paths.data


def hearth(data: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chatbot", *map(str, arguments)],
        check=False,
        cwd=PROJECT,
        env={**os.environ, "HEARTH_DATA": str(data), **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE,
    )


def result_of(data: Path, *arguments: object, code: int = 0, **environment: str) -> dict:
    """The one JSON object on stdout."""
    done = hearth(data, *arguments, "--json", **environment)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def error_of(data: Path, *arguments: object) -> dict:
    """The JSON error on stderr, with nothing on stdout."""
    done = hearth(data, *arguments, "--json")
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    return json.loads(done.stderr.splitlines()[-1])["error"]


# --- without a running Hearth ---------------------------------------------------------------


def test_a_folder_is_added_found_asked_about_and_removed(data: Path, tmp_path: Path):
    folder = tmp_path / "văn bản"
    folder.mkdir()
    (folder / "thư viện.txt").write_text(LAW, encoding="utf-8")
    (folder / "bản sao.txt").write_text(LAW, encoding="utf-8")
    (folder / "ảnh.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    (folder / "trống.txt").write_bytes(b"")
    rows = result_of(data, "documents", "add", folder, "--collection", "luật", code=3)["documents"]
    assert {row["document"] for row in rows} == {f.name for f in folder.iterdir()}
    assert all({"id", "state", "passages", "error", "warning"} <= row.keys() for row in rows)
    refused = {row["document"] for row in rows if row["error"]}
    assert refused == {"ảnh.png", "trống.txt"}
    kept = next(row for row in rows if row["document"] == "thư viện.txt")
    assert (kept["state"], kept["error"], kept["passages"] > 0) == ("ready", None, True)

    found = result_of(data, "search", "thu vien mo cua", "--limit", "3")["results"]
    assert found
    assert {"document", "page", "path", "text", "score"} <= found[0].keys()
    assert "bảy giờ" in found[0]["text"]

    answer = result_of(data, "ask", "Thư viện mở cửa lúc nào?")
    assert answer["engine"] == "extractive"
    assert "bảy giờ" in answer["answer"]
    assert {"document", "page", "path", "text", "score"} <= answer["sources"][0].keys()
    assert isinstance(answer["stats"], dict)

    assert result_of(data, "documents", "remove", kept["id"])["removed"] == kept["id"]
    listed = result_of(data, "documents", "list")["documents"]
    assert {row["document"] for row in listed} == refused


def test_a_folder_of_good_files_ends_with_0_and_text_for_people(data: Path, tmp_path: Path):
    (file := tmp_path / "a.txt").write_text(LAW, encoding="utf-8")
    done = hearth(data, "documents", "add", file, PYTHONIOENCODING="cp1252")
    assert done.returncode == 0, done.stderr
    assert "a.txt" in done.stdout
    asked = hearth(data, "ask", "Thư viện mở cửa lúc nào?", PYTHONIOENCODING="cp1252")
    assert "bảy giờ" in asked.stdout, asked.stderr


@pytest.mark.parametrize("command", ["check", "rebuild"])
def test_the_index_is_checked_and_rebuilt(data: Path, command: str):
    assert result_of(data, "documents", command)["state"] == "ready"


def test_this_pc_is_described(data: Path):
    found = result_of(data, "hardware")
    assert {"device", "gpus", "ram", "cpu", "disk", "plan"} <= found.keys()
    assert found["ram"]["total"] > 0
    assert len(found["cpu"]["loads"]) >= 1
    assert "RAM " in hearth(data, "hardware").stdout


def test_each_graphics_card_is_described_with_the_programs_on_it(data: Path, tmp_path: Path):
    made_up = environment(tmp_path / "cards.json", pc("full"))
    done = hearth(data, "hardware", "--json", **made_up)
    (card,) = json.loads(done.stdout)["gpus"]
    assert (card["total"], card["pcie"], card["power_limit"]) == (12 * GIB, [4, 8], 200.0)
    (program,) = card["programs"]
    assert program["memory"] == 11 * GIB
    assert program["name"]
    words = hearth(data, "hardware", **made_up).stdout
    assert "98 % · 83 °C · 198 W · 1980 MHz · PCIe 4.0 ×8" in words
    assert f"{program['name']} (1) 11.0 GB" in words


def test_every_choice_of_a_plan_can_be_made_otherwise(data: Path, tiny_gguf: Path, tiny_hf: Path):
    options = (
        "--context 512 --kv-type f16 --batch 64 --backend llama_cpp --gpu-layers 0 --threads 3"
    )
    plan = result_of(data, "models", "plan", tiny_gguf, *options.split())
    assert (plan["context"], plan["batch"], plan["gpu_layers"], plan["threads"]) == (512, 64, 0, 3)
    assert {"alternatives", "evicts", "tokens_per_second", "cards"} <= plan.keys()
    folder = result_of(data, "models", "plan", tiny_hf, "--precision", "fp32")
    assert (folder["backend"], folder["precision"]) == ("transformers", "fp32")
    made = result_of(
        data, "models", "plan", tiny_hf, "--backend", "llama_cpp", "--precision", "Q8_0"
    )
    assert (made["backend"], made["precision"]) == ("llama_cpp", "Q8_0")
    assert made["parts"]["weights"] < folder["parts"]["weights"]
    assert error_of(data, "models", "plan", tiny_gguf, "--kv-type", "q3_0")["code"] == "settings"


def test_a_model_is_planned_imported_listed_and_removed(data: Path, tiny_gguf: Path):
    plan = result_of(data, "models", "plan", tiny_gguf, "--context", "512")
    keys = (
        "backend",
        "precision",
        "gpu_layers",
        "context",
        "kv_type",
        "parts",
        "total",
        "free",
        "fits",
        "reason",
    )
    assert set(keys) <= plan.keys()
    assert (plan["backend"], plan["context"], plan["fits"]) == ("llama_cpp", 512, True)
    assert plan["total"] == sum(plan["parts"].values())

    made = result_of(data, "models", "import", tiny_gguf)
    assert made.keys() >= {"id", "path", "format"}
    assert made["format"] == "gguf"
    listed = result_of(data, "models", "list")
    assert [m["id"] for m in listed["models"]] == [made["id"]]
    assert listed["loaded"] is None
    assert result_of(data, "models", "plan", made["id"])["fits"]

    jobs = result_of(data, "jobs", "list")["jobs"]
    assert {"id", "kind", "state"} <= jobs[0].keys()
    assert "import_model" in [job["kind"] for job in jobs]

    assert result_of(data, "models", "remove", made["id"])["removed"] == made["id"]
    assert result_of(data, "models", "list")["models"] == []
    assert tiny_gguf.exists()


def test_loading_needs_a_hearth_that_keeps_the_model(data: Path):
    assert error_of(data, "models", "load", "any")["code"] == "owner_missing"
    assert error_of(data, "models", "unload")["code"] == "owner_missing"


def test_search_is_measured_on_a_data_set(data: Path, tmp_path: Path):
    lines = [{"_id": "d1", "title": "", "text": "The library opens at seven."}]
    lines.append({"_id": "d2", "title": "", "text": "Books are returned within two weeks."})
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "when does the library open"}')
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    measured = result_of(data, "evaluate", "retrieval", tmp_path)
    assert measured["recall@1"] == 1.0
    assert {"recall@5", "recall@10", "mrr@10", "ndcg@10", "intervals"} <= measured.keys()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("documents", "add", "/no/such/file"), "not_found"),
        (("documents", "remove", "nope"), "not_found"),
        (("models", "plan", "/no/such.gguf"), None),
        (("models", "import", "/no/such.gguf"), None),
        (("evaluate", "retrieval", "/no/such"), None),
        (("jobs", "cancel", "nope"), "not_found"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_not_there_is_told_as_an_error_with_its_code(data, arguments, code):
    error = error_of(data, *arguments)
    assert error["message"]
    assert error["code"] == (code or error["code"])


@pytest.mark.parametrize(
    "arguments",
    [("ask",), ("search", "a", "--mode", "all"), ("search", "a", "--limit", "0"), ("nothing",)],
)
def test_wrong_usage_ends_with_2(data, arguments):
    done = hearth(data, *arguments)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.skipif(os.name == "nt", reason="Ctrl+C cannot be sent to one process there")
def test_ctrl_c_leaves_no_process_behind(data: Path, tmp_path: Path):
    (tmp_path / "long.txt").write_text("Thư viện mở cửa lúc bảy giờ. " * 100_000, encoding="utf-8")
    command = subprocess.Popen(
        [sys.executable, "-m", "chatbot", "documents", "add", str(tmp_path / "long.txt")],
        cwd=PROJECT,
        env={**os.environ, "HEARTH_DATA": str(data)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Whoever runs the tests in the background has them ignore Ctrl+C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    family = psutil.Process(command.pid)
    deadline = time.monotonic() + 60
    while not (children := family.children(recursive=True)) and time.monotonic() < deadline:
        time.sleep(0.02)
    command.send_signal(signal.SIGINT)
    _out, err = command.communicate(timeout=60)
    assert children
    assert command.returncode != 0
    assert b"Traceback" not in err
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert not (data / "owner.json").exists()


# --- beside a running Hearth ----------------------------------------------------------------


@pytest.fixture(scope="module")
def app(data: Path) -> Iterator[RunningApp]:
    with running(data, HEARTH_API_TOKEN="a token of the environment") as started:
        yield started


def test_beside_a_running_hearth_its_models_are_loaded(app: RunningApp, tiny_gguf: Path):
    """The command line finds the token with the owner; its own environment need not have it."""
    made = result_of(app.data, "models", "import", tiny_gguf)
    info = result_of(app.data, "models", "load", made["id"], "--context", "512")
    assert (info["backend"], info["context"]) == ("llama_cpp", 512)
    assert result_of(app.data, "models", "list")["loaded"] == made["id"]
    assert result_of(app.data, "models", "unload") == {"loaded": None}
    assert result_of(app.data, "models", "remove", made["id"])


def test_errors_of_the_running_hearth_arrive_with_their_code(app: RunningApp):
    assert error_of(app.data, "documents", "remove", "nope")["code"] == "not_found"
    assert error_of(app.data, "models", "load", "nope")["code"] == "not_found"


def test_a_hearth_that_does_not_answer_is_named(app: RunningApp):
    owner = app.data / "owner.json"
    told = owner.read_text()
    try:
        owner.write_text(json.dumps({**json.loads(told), "address": "http://127.0.0.1:9"}))
        assert error_of(app.data, "jobs", "list")["code"] == "owner_silent"
        owner.write_text(json.dumps({**json.loads(told), "token": "wrong"}))
        assert error_of(app.data, "jobs", "list")["code"] == "owner_silent"
    finally:
        owner.write_text(told)
    assert "jobs" in result_of(app.data, "jobs", "list")
