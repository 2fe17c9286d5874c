from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from chatbot.hardware import detect as detect_module
from chatbot.hardware.detect import detect, installed, within_container, without
from tests.fakes import GIB, Card, fake_pynvml


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> list[Card]:
    """Cards that the faked driver reports; append to it."""
    found: list[Card] = []
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml(found))
    return found


def test_this_pc_is_described_in_figures_that_can_be_true(tmp_path: Path) -> None:
    found = detect(tmp_path)
    assert 0 < found.ram_available <= found.ram_total <= psutil.virtual_memory().total
    assert 1 <= found.cores_physical <= found.cores
    assert 0 < found.disk_free <= found.disk_total
    assert 0 <= found.cpu_load <= 100
    assert found.cpu_name
    assert found.system


def test_a_data_folder_that_does_not_exist_yet_still_has_a_disk(tmp_path: Path) -> None:
    assert detect(tmp_path / "Luận văn" / "data").disk_total == detect(tmp_path).disk_total


@pytest.mark.parametrize("count", [0, 1, 2, 8])
def test_every_card_is_listed(cards: list[Card], count: int) -> None:
    cards.extend(Card(name=f"card {n}", total=(4 + n) * GIB, free=n * GIB) for n in range(count))
    found = detect()
    assert [gpu.name for gpu in found.gpus] == [f"card {n}" for n in range(count)]
    assert [gpu.free for gpu in found.gpus] == [n * GIB for n in range(count)]
    assert found.device == ("cuda" if count else "cpu")


def test_a_card_tells_load_temperature_power_and_driver(cards: list[Card]) -> None:
    cards.append(Card())
    (gpu,) = detect().gpus
    assert (gpu.load, gpu.temperature, gpu.power) == (12.0, 51.0, 23.5)
    assert gpu.driver == "580.65.06"
    assert gpu.bf16


def test_a_card_before_ampere_has_no_bf16(cards: list[Card]) -> None:
    cards.append(Card(name="GTX 1080", capability=(6, 1)))
    assert not detect().gpus[0].bf16


def test_a_card_that_vanished_is_left_out_and_the_others_stay(cards: list[Card]) -> None:
    cards.extend([Card(name="gone", vanished=True), Card(name="here")])
    assert [gpu.name for gpu in detect().gpus] == ["here"]


def test_figures_a_card_refuses_are_unknown_not_zero(cards: list[Card]) -> None:
    cards.append(Card(refuses=("nvmlDeviceGetPowerUsage", "nvmlDeviceGetUtilizationRates")))
    (gpu,) = detect().gpus
    assert (gpu.power, gpu.load, gpu.temperature) == (None, None, 51.0)


def test_a_driver_that_is_not_loaded_means_no_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml([Card()], fails=True))
    assert detect().gpus == ()


def test_a_pc_without_the_nvml_library_has_no_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert detect().device == "cpu"


def test_apple_silicon_is_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    answers = {"machdep.cpu.brand_string": "Apple M2", "hw.optional.arm.FEAT_BF16": "1"}
    monkeypatch.setattr(detect_module, "_system_control", lambda *names: answers.get(names[0], ""))
    for cached in (detect_module._cpu_name, detect_module._cpu_flags):
        cached.cache_clear()
    try:
        found = detect()
    finally:
        for cached in (detect_module._cpu_name, detect_module._cpu_flags):
            cached.cache_clear()
    (gpu,) = found.gpus
    assert found.device == "mps"
    assert found.unified_memory
    assert gpu.name == "Apple M2"
    assert gpu.total == int(found.ram_total * 0.75)
    assert gpu.free <= found.ram_available
    assert found.cpu_flags == ("neon", "bf16")


def test_a_containers_limit_counts_without_the_files_it_could_give_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect_module, "CONTROL_GROUPS", tmp_path)
    assert within_container(16 * GIB, 12 * GIB) == (16 * GIB, 12 * GIB)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text(f"{3 * GIB}\n")
    assert within_container(16 * GIB, 12 * GIB) == (16 * GIB, 12 * GIB)
    (tmp_path / "memory.max").write_text(f"{4 * GIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon {GIB}\ninactive_file {2 * GIB}\n")
    assert within_container(16 * GIB, 12 * GIB) == (4 * GIB, 3 * GIB)


def test_libraries_are_recognised_from_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch, llama_cpp = tmp_path / "torch", tmp_path / "llama_cpp"
    (llama_cpp / "lib").mkdir(parents=True)
    torch.mkdir()
    (torch / "version.py").write_text("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n")
    (llama_cpp / "lib" / "ggml-cuda.dll").touch()
    folders = {"torch": torch, "llama_cpp": llama_cpp}
    monkeypatch.setattr(detect_module, "_package", folders.get)
    installed.cache_clear()
    try:
        found = installed()
    finally:
        installed.cache_clear()
    assert (found.transformers, found.transformers_gpu) == (False, True)
    assert (found.llama_cpp, found.llama_cpp_gpu) == (True, True)


def test_looking_at_the_pc_loads_no_model_library() -> None:
    heavy = "{'torch', 'transformers', 'llama_cpp', 'chromadb'}"
    code = (
        "import sys; from chatbot.hardware.detect import detect, installed; detect(); installed();"
        f"from chatbot.hardware.monitor import Monitor; Monitor().latest();"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_process_gives_back_what_it_holds():
    hold = "import sys; held = bytearray(200_000_000); print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout.readline().strip() == b"held"
        now = detect()
        then = without(now, process.pid)
        assert 200_000_000 <= then.ram_available - now.ram_available < 230_000_000
    finally:
        process.communicate()
    assert without(now, process.pid) == now, "a process that has ended holds nothing"
