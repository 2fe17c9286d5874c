"""kill -9 in the middle of making a model: nothing damaged is listed, nothing is left, the source is as it was.

A quick subset runs always; HEARTH_FULL=1 kills each step 100 times (HEARTH_KILLS changes that). Most kills
come when a certain share of the bytes is on the disk, so that they hit the work however fast the machine is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from chatbot.database import Database
from chatbot.errors import BrokenModel, ChildDied, DiskFullError
from chatbot.memory.headers import read_model
from chatbot.models import files as model_files
from chatbot.models.store import ModelStore, home_of
from chatbot.settings import PROJECT, Paths
from tests.faults.big_models import make_adapter, make_folder
from tests.faults.models_victim import do
from tests.faults.test_ingest_disk_full import mount
from tests.models.hub_server import HubServer, serving
from tests.models.zips import archive, files_of

FULL = bool(os.environ.get("HEARTH_FULL"))
KILLS = int(os.environ.get("HEARTH_KILLS") or (100 if FULL else 2))
IN_A_ROW = 10 if FULL else 2
"""Kills of one data folder before the step is let through."""
AT_ONCE = 2 if FULL else 1
LAYERS = 4 if FULL else 2
pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(7200 if FULL else 600),
    pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL"),
]
STEPS = ("download", "prepare", "merge", "convert", "quantise", "unpack")


@dataclass
class Case:
    """A step with what it works on, and what an undisturbed run of it gives and takes."""

    step: str
    params: dict[str, Any]
    sources: tuple[Path, ...]
    environment: dict[str, str] = field(default_factory=dict)
    result: dict[str, str] = field(default_factory=dict)
    """SHA-256 by file name."""
    size: int = 0
    starting: float = 0.0
    ending: float = 0.0
    before: dict[str, str] = field(default_factory=dict)


def hashes(case: Case) -> dict[str, str]:
    """SHA-256 of every file that the step reads."""
    files = [f for source in case.sources for f in (source, *source.rglob("*")) if f.is_file()]
    return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def victim(case: Case, data: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.models_victim", str(data), case.step, json.dumps(case.params)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=PROJECT,
        env={**os.environ, "HEARTH_DATA": str(data), "HEARTH_OFFLINE": "1", **case.environment},
    )  # fmt: skip


def written(data: Path) -> int:
    """Bytes of the model that is being made."""
    total = 0
    for begun in (data / "models").glob(".*"):
        with contextlib.suppress(OSError):  # the folder itself may be gone by now
            for file in begun.rglob("*"):
                with contextlib.suppress(OSError):
                    total += file.stat().st_size
    return total


def await_written(process: subprocess.Popen[str], data: Path, size: float) -> None:
    while process.poll() is None and written(data) < size:
        time.sleep(0.002)


def of_this_data(data: Path) -> list[psutil.Process]:
    """Every process that was started for that data folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ended = process.status() == psutil.STATUS_ZOMBIE
            if not ended and process.environ().get("HEARTH_DATA") == str(data):
                found.append(process)
    return found


def await_no_orphans(data: Path) -> None:
    until = time.monotonic() + 10
    while (left := of_this_data(data)) and time.monotonic() < until:
        time.sleep(0.02)
    assert left == [], "a child outlived its owner"


@contextlib.contextmanager
def opened(data: Path) -> Iterator[ModelStore]:
    """The store as the next start opens it."""
    paths = Paths(data)
    paths.make()
    database = Database(paths.database)
    try:
        yield ModelStore(database, paths)
    finally:
        database.close()


def leftovers(store: ModelStore) -> list[str]:
    """What lies among the models and is neither listed nor a download to go on with."""
    known = {model.id for model in store.list()}
    found = [
        item
        for item in store.folder.rglob("*")
        if item.relative_to(store.folder).parts[0] not in known
    ]
    begun = {item.name.removesuffix(".journal") for item in found if item.suffix == ".journal"}
    begun = {name for name in begun if (store.folder / name).is_dir()}
    inside = [item for model in known for item in (store.folder / model).rglob(".*")]
    return [
        str(item)
        for item in [*found, *inside]
        if item.relative_to(store.folder).parts[0].removesuffix(".journal") not in begun
    ]  # fmt: skip


def check(case: Case, data: Path, *, finished: bool = False) -> None:
    """What is listed after a start is whole, nothing else is there, and the source is untouched."""
    if not (data / "hearth.db").exists():
        assert not finished
        return
    with opened(data) as store:
        listed = store.list()
        assert len(listed) == 1 if finished else len(listed) <= 1
        for model in listed:
            home = home_of(model)
            found = {
                file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in home.iterdir()
            }
            del found["manifest.json"]
            assert found == case.result
            assert {f["name"]: f["sha256"] for f in model.manifest["files"]} == case.result
            assert store.state(model) == "ready"
            read_model(Path(model.path))
        assert leftovers(store) == []
        if finished:
            assert [item.name for item in store.folder.iterdir()] == [listed[0].id]
    assert hashes(case) == case.before


def undisturbed(case: Case, data: Path) -> None:
    """Let the step through once, to know what it gives and how long its parts take."""
    case.before = hashes(case)
    began = time.monotonic()
    process = victim(case, data)
    assert process.stdout is not None
    await_written(process, data, 1)
    case.starting = time.monotonic() - began
    most, full = 0, time.monotonic()
    while process.poll() is None:
        if (now := written(data)) > most:
            most, full = now, time.monotonic()
        time.sleep(0.002)
    case.ending = time.monotonic() - full
    assert process.returncode == 0
    with opened(data) as store:
        (model,) = store.list()
        case.result = {file["name"]: file["sha256"] for file in model.manifest["files"]}
        case.size = model.size
    check(case, data, finished=True)


def strike(case: Case, data: Path, chance: random.Random) -> bool:
    """Run the step and kill it; whether it was killed before it was done."""
    process = victim(case, data)
    draw = chance.random()
    if draw < 0.1:  # anywhere while it starts
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, case.starting))
    elif draw < 0.75:  # while it writes
        await_written(process, data, chance.uniform(1, case.size))
    else:  # while it is checked and taken into the list
        await_written(process, data, case.size)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, case.ending))
    process.kill()
    process.communicate()
    await_no_orphans(data)
    return process.returncode == -signal.SIGKILL


def finish(case: Case, data: Path) -> None:
    process = victim(case, data)
    process.communicate(timeout=180)
    assert process.returncode == 0, "the step does not complete after a kill"
    await_no_orphans(data)


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with serving() as server:
        server.rate = 60e6
        yield server


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory, hub: HubServer) -> Callable[[str], Case]:
    """Each step's case, made when first asked for."""
    home = tmp_path_factory.mktemp("nguồn mô hình")
    base = make_folder(home / "Gốc", LAYERS)
    known: dict[str, Case] = {}

    def undisturbed_data(step: str) -> Path:
        return home.with_name(f"{home.name} {step}")

    def made(step: str) -> Case:
        if step == "download":
            hub.add("ai/Frog", {file.name: file for file in base.iterdir()})
            offline = {"HEARTH_OFFLINE": "0", "HF_ENDPOINT": hub.url}
            return Case(step, {"repo": "ai/Frog"}, (base,), offline)
        if step == "prepare":
            return Case(step, {"source": str(base)}, (base,))
        if step == "merge":
            adapter = make_adapter(home / "Bộ chỉnh", base, LAYERS)
            return Case(step, {"source": str(base), "adapter": str(adapter)}, (base, adapter))
        if step == "convert":
            return Case(step, {"source": str(base), "type": "f16"}, (base,))
        if step == "quantise":
            case_of("convert")
            source = next(undisturbed_data("convert").rglob("*.gguf"))
            return Case(step, {"source": str(source), "type": "Q4_K_M"}, (source,))
        zipped = home / "Gốc.zip"
        zipped.write_bytes(archive(*files_of(base)))
        return Case(step, {"source": str(zipped)}, (zipped,))

    def case_of(step: str) -> Case:
        if step not in known:
            known[step] = made(step)
            undisturbed(known[step], undisturbed_data(step))
        return known[step]

    return case_of


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_random_moments(step: str, cases: Callable[[str], Case], tmp_path: Path) -> None:
    case = cases(step)

    def row(number: int) -> int:
        chance = random.Random(f"{step} {number}")
        data = tmp_path / f"dữ liệu {number}"
        kills = 0
        for _ in range(IN_A_ROW):
            kills += strike(case, data, chance)
            check(case, data)
        finish(case, data)
        check(case, data, finished=True)
        shutil.rmtree(data)
        return kills

    with ThreadPoolExecutor(AT_ONCE) as pool:
        killed = sum(pool.map(row, range(-(-KILLS // IN_A_ROW))))
    assert killed >= 0.6 * KILLS, "most of the strikes came too late"
    print(f"{step}: {killed} kills")


# --- only the child ends --------------------------------------------------------------------------


def inside(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be the owner that does the step."""
    for name, value in {"HEARTH_OFFLINE": "1", **case.environment}.items():
        monkeypatch.setenv(name, value)


def end_children(module: str, number: int) -> bool:
    """Whether there was a child of that module to end."""
    found = False
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if module in child.cmdline():
                child.send_signal(number)
                found = True
    return found


DEATHS = [
    *[(step, signal.SIGKILL) for step in STEPS],
    *[(step, signal.SIGSEGV) for step in (STEPS if FULL else ["unpack"])],
]


@pytest.mark.parametrize(
    ("step", "number"), DEATHS, ids=[f"{step}-{number.name}" for step, number in DEATHS]
)
def test_a_child_that_dies_fails_the_step_and_not_the_owner(
    step: str,
    number: signal.Signals,
    cases: Callable[[str], Case],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = cases(step)
    inside(case, monkeypatch)

    def report(fraction: float, message: str = "", **_values: Any) -> None:
        end_children("chatbot.models.worker", number)

    with opened(tmp_path / "dữ liệu") as store:
        with pytest.raises((ChildDied, BrokenModel), match=number.name) as failure:
            do(store, step, case.params, report)
        assert failure.value.text("vi") != failure.value.text("en")
        assert store.list() == []
        assert leftovers(store) == []
        if FULL or step == "unpack":
            do(store, step, case.params, lambda *_args, **_values: None)
    assert hashes(case) == case.before


def test_a_converter_that_dies_fails_the_step_and_leaves_nothing(
    cases: Callable[[str], Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cases("convert")
    inside(case, monkeypatch)

    def report(fraction: float, message: str = "", **_values: Any) -> None:
        end_children("chatbot.models.converter", signal.SIGKILL)

    with opened(tmp_path / "dữ liệu") as store:
        with pytest.raises(ChildDied, match="SIGKILL"):
            do(store, "convert", case.params, report)
        assert store.list() == []
        assert leftovers(store) == []


# --- a full disk ----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "đĩa nhỏ"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a small disk can be made by root on Linux only")
    try:
        mount(folder, 4000)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine does not let us mount: {error}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


SHARES = [n / 31 for n in range(1, 31)] if FULL else [0.1, 0.9]
"""Of the bytes that the step writes, how much the disk takes."""


@pytest.mark.parametrize("checked", [True, False], ids=["room checked", "write fails"])
@pytest.mark.parametrize("step", STEPS)
def test_a_disk_that_is_full_is_said_and_nothing_stays(
    step: str,
    checked: bool,
    cases: Callable[[str], Case],
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = cases(step)
    inside(case, monkeypatch)
    spare = 0 if checked else -(10**12)
    monkeypatch.setenv("HEARTH_SPARE_DISK", str(spare))
    monkeypatch.setattr(model_files, "SPARE_DISK", spare)
    quiet = lambda *_args, **_values: None  # noqa: E731
    with opened(small_disk / "dữ liệu") as store:
        used = shutil.disk_usage(small_disk).used
        for share in SHARES[:: 6 if checked else 1]:
            mount(small_disk, (used + int(case.size * share)) // 1024, "remount")
            with pytest.raises(DiskFullError) as failure:
                do(store, step, case.params, quiet)
            assert failure.value.text("vi")
            assert store.list() == []
            if step == "download":  # what arrived is kept, and gone on with
                continue
            assert leftovers(store) == []
            assert shutil.disk_usage(small_disk).used <= used + 100_000
        mount(small_disk, (used + 3 * case.size) // 1024 + 300_000, "remount")
        model = do(store, step, case.params, quiet)
        assert {f["name"]: f["sha256"] for f in model.manifest["files"]} == case.result
        assert store.list() == [model]
    assert hashes(case) == case.before
