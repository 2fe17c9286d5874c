"""Bad days of an engine's process: killed, crashed, hung, fed with broken files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from chatbot.engines.base import EngineSpec
from chatbot.engines.worker import LOADING_AGAIN, EngineWorker
from chatbot.errors import BrokenModel, ChildDied, ChildHung, ModelError, OutOfMemory
from tests.engines.conftest import GREEDY, QUESTION
from tests.tiny_models import RECITED

pytestmark = pytest.mark.faults
LONG = replace(GREEDY, thinking=True, max_tokens=100_000)


@pytest.fixture
def worker(spec_of) -> EngineWorker:
    made = EngineWorker(spec_of("llama_cpp"))
    yield made
    made.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(
    ("name", "error"), [("SIGKILL", ChildDied), ("SIGSEGV", ChildDied), ("SIGSTOP", ChildHung)]
)
def test_a_worker_that_fails_is_said_in_ten_seconds_and_the_next_question_works(
    worker: EngineWorker, name: str, error: type[Exception]
) -> None:
    stream = worker.stream(QUESTION, LONG)
    for delta in stream:
        if delta.text:
            break
    pid = worker.pid
    assert pid is not None
    os.kill(pid, getattr(signal, name))
    start = time.monotonic()
    with pytest.raises(error):
        list(stream)
    assert time.monotonic() - start <= 10
    assert worker.pid is None
    deltas = list(worker.stream(QUESTION, GREEDY))
    assert deltas[0].notice == LOADING_AGAIN
    assert "".join(delta.text for delta in deltas) == RECITED
    assert worker.pid not in (None, pid)
    assert not psutil.pid_exists(pid)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_killed_worker_fails_its_own_question_only(worker: EngineWorker) -> None:
    stream = worker.stream(QUESTION, LONG)
    for delta in stream:
        if delta.text:
            break
    texts: list[str] = []
    waiting = threading.Thread(
        target=lambda: texts.append("".join(d.text for d in worker.stream(QUESTION, GREEDY)))
    )
    waiting.start()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(ChildDied):
        list(stream)
    waiting.join(30)
    assert texts == [RECITED]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs PDEATHSIG")
def test_the_template_process_ends_with_its_worker(worker: EngineWorker) -> None:
    list(worker.stream(QUESTION, GREEDY))
    children = psutil.Process(worker.pid).children()
    assert len(children) == 1
    os.kill(worker.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive


@pytest.mark.parametrize(
    "damage",
    ["empty", "garbage", "other magic", "cut in the header", "cut in the middle", "cut at the end"],
)
def test_a_broken_gguf_is_refused_and_nothing_hangs(
    damage: str, tiny_gguf: Path, tmp_path: Path
) -> None:
    whole = tiny_gguf.read_bytes()
    content = {
        "empty": b"",
        "garbage": bytes(range(256)) * 2000,
        "other magic": b"GGML" + whole[4:],
        "cut in the header": whole[:500],
        "cut in the middle": whole[: len(whole) // 2],
        "cut at the end": whole[:-100],
    }[damage]
    file = tmp_path / "hỏng.gguf"
    file.write_bytes(content)
    _refused(EngineSpec("llama_cpp", name="broken", path=str(file)))


def test_a_gguf_that_lies_about_its_sizes_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    content = bytearray(tiny_gguf.read_bytes())
    content[8:16] = (2**40).to_bytes(8, "little")  # the number of tensors
    file = tmp_path / "lies.gguf"
    file.write_bytes(content)
    _refused(EngineSpec("llama_cpp", name="broken", path=str(file)))


def test_a_cache_type_that_the_model_cannot_have_is_not_called_damage(tiny_gguf: Path) -> None:
    worker = EngineWorker(EngineSpec("llama_cpp", name="tiny", path=str(tiny_gguf), kv_type="q8_0"))
    with pytest.raises(ModelError, match="q8_0") as raised:
        worker.load()
    assert not isinstance(raised.value, BrokenModel)
    worker.close()


def test_giving_up_a_load_ends_it(tiny_hf: Path) -> None:
    worker = EngineWorker(EngineSpec("transformers", name="tiny", path=str(tiny_hf)))
    stream = worker.stream(QUESTION, GREEDY)
    assert next(stream).text == ""  # half a second in, torch is still being imported
    process = psutil.Process(worker._child.pid)
    stream.close()
    assert not process.is_running()
    worker.close()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    _refused(EngineSpec("llama_cpp", name="broken", path=str(tmp_path / "none.gguf")))


@pytest.mark.parametrize("damage", ["no config", "no weights", "cut weights", "pickle", "code"])
def test_a_broken_folder_is_refused(damage: str, tiny_hf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mô hình hỏng"
    shutil.copytree(tiny_hf, folder)
    canary = tmp_path / "canary"
    weights = folder / "model.safetensors"
    if damage == "no config":
        (folder / "config.json").unlink()
    elif damage == "no weights":
        weights.unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif damage == "pickle":
        weights.rename(folder / "pytorch_model.bin")
    else:
        (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w')", encoding="utf-8")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    from chatbot.engines.transformers import Transformers  # here, without a process: torch is slow

    with pytest.raises(BrokenModel) as raised:
        Transformers(EngineSpec("transformers", name="broken", path=str(folder)))
    assert raised.value.values["detail"]
    assert not canary.exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs prlimit")
def test_a_context_too_large_for_the_memory_is_said(tiny_gguf: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    file = tmp_path / "long.gguf"
    shutil.copy(tiny_gguf, file)
    reader = GGUFReader(file, "r+")
    reader.fields["llama.context_length"].parts[-1][0] = 2**30
    reader.data.flush()
    worker = EngineWorker(EngineSpec("llama_cpp", name="long", path=str(file), context=2**26))
    try:
        child = worker._child
        child.call("count")  # starts the process without loading anything
        process = psutil.Process(child.pid)
        process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms + 1_000_000_000,) * 2)
        with pytest.raises(OutOfMemory) as raised:
            worker.load()
        assert raised.value.values["name"] == "long"
        assert not process.is_running()
    finally:
        worker.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs prlimit")
def test_a_worker_without_memory_for_the_question_itself_ends(worker: EngineWorker) -> None:
    worker.load()
    pid = worker.pid
    process = psutil.Process(pid)
    process.rlimit(psutil.RLIMIT_DATA, (process.memory_info().data + 4_000_000,) * 2)
    with pytest.raises((OutOfMemory, ChildDied)):
        list(worker.stream(QUESTION, replace(GREEDY, stop=("x" * 30_000_000,))))
    assert "".join(d.text for d in worker.stream(QUESTION, GREEDY)) == RECITED
    assert not psutil.pid_exists(pid)


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_an_end_long_after_memory_was_short_has_another_cause(worker: EngineWorker) -> None:
    worker.load()
    worker._child._words.append((time.monotonic(), b"failed to allocate buffer of size 64\n"))
    deltas = worker.stream(QUESTION, replace(GREEDY, max_tokens=1000))
    next(deltas)
    os.kill(worker.pid, signal.SIGSEGV)
    with pytest.raises(ChildDied):
        list(deltas)


def _refused(spec: EngineSpec) -> None:
    worker = EngineWorker(spec)
    try:
        start = time.monotonic()
        with pytest.raises(ModelError) as raised:
            worker.load()
        assert isinstance(raised.value, BrokenModel)
        assert raised.value.values["name"] == "broken"
        assert raised.value.values["detail"]
        assert time.monotonic() - start < 60
        assert worker.pid is None
    finally:
        worker.close()
