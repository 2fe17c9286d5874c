"""What this PC has, and which of the libraries that run models are installed and can use it.

Nothing here imports torch or llama.cpp or touches a GPU: psutil, NVML, the operating system's own
tables, and the libraries' files on disk are enough.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import psutil

from chatbot.hardware.amd import amd_gpus
from chatbot.hardware.nvidia import nvidia_gpus
from chatbot.settings import Paths
from chatbot.types import Gpu, Hardware

# Flags worth knowing: the vector units that llama.cpp and torch have kernels for.
VECTOR_FLAGS = (
    "sse3", "ssse3", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vl",
    "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "amx_tile",
    "neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme",
)  # fmt: skip
WINDOWS_FEATURES = {13: "sse3", 36: "ssse3", 39: "avx", 40: "avx2", 41: "avx512f"}
SHORTEST_LOAD = 0.05  # processor seconds; the clock ticks every hundredth
CONTROL_GROUPS = Path("/sys/fs/cgroup")
APPLE_GPU_SHARE = 0.75  # macOS lets the GPU wire about three quarters of the unified memory


@dataclass(frozen=True, slots=True)
class Installed:
    """Which model libraries are here and whether they were built for the GPU."""

    transformers: bool = True
    transformers_gpu: bool = True
    llama_cpp: bool = True
    llama_cpp_gpu: bool = True


def detect(data: Path | None = None) -> Hardware:
    """What this PC has and what of it is free now; takes a few milliseconds.

    `data` is the folder whose disk counts; None takes the default data folder.
    """
    memory = psutil.virtual_memory()
    swap = psutil.swap_memory()
    total, available = within_container(memory.total, memory.available)
    apple = on_apple_silicon()
    gpus = (apple_gpu(total, available),) if apple else (*nvidia_gpus(), *amd_gpus())
    disk = shutil.disk_usage(existing(data or Paths.default().data))
    cores = _cores()
    return Hardware(
        device=_device(gpus),
        gpus=gpus,
        ram_total=total,
        ram_available=available,
        swap_total=swap.total,
        swap_used=swap.used,
        cores=cores,
        cores_physical=min(psutil.cpu_count(logical=False) or cores, cores),
        cpu_name=_cpu_name(),
        cpu_flags=_cpu_flags(),
        cpu_load=_cpu_load.percent(),
        disk_total=disk.total,
        disk_free=disk.free,
        system=f"{platform.system()} {platform.release()}".strip(),
        unified_memory=apple,
    )


def without(hardware: Hardware, pid: int) -> Hardware:
    """The same PC as it would be once that process has ended and given its memory back."""
    try:
        memory = psutil.Process(pid).memory_info()
    except psutil.Error:
        return hardware
    # Linux names the mapped files in it, which count as available already.
    held = memory.rss - getattr(memory, "shared", 0)
    on_cards = {gpu.key: gpu.used_by_hearth or 0 for gpu in nvidia_gpus({pid})}

    def freed(gpu: Gpu) -> Gpu:
        given_back = held if gpu.kind == "mps" else on_cards.get(gpu.key, 0)
        return replace(gpu, free=min(gpu.free + given_back, gpu.total))

    return replace(
        hardware,
        ram_available=min(hardware.ram_available + held, hardware.ram_total),
        gpus=tuple(freed(gpu) for gpu in hardware.gpus),
    )


def fingerprint(hardware: Hardware) -> str:
    """What tells this PC from others that a data folder may be carried to."""
    gpus = [f"{gpu.name} {gpu.total >> 30}" for gpu in hardware.gpus]
    return " · ".join(
        [hardware.cpu_name, str(hardware.cores), str(hardware.ram_total >> 30), *gpus]
    )


class CpuLoad:
    """How busy all processors were since the last time somebody asked, in percent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times = psutil.cpu_times()
        self._percent = 0.0

    def percent(self) -> float:
        """The last answer again where hardly any time has passed."""
        with self._lock:
            before, now = self._times, psutil.cpu_times()
            passed = sum(now) - sum(before)
            if passed >= SHORTEST_LOAD:
                idle = (
                    now.idle
                    - before.idle
                    + getattr(now, "iowait", 0)
                    - getattr(before, "iowait", 0)
                )
                self._percent = round(min(max(100 * (1 - idle / passed), 0.0), 100.0), 1)
                self._times = now
            return self._percent


_cpu_load = CpuLoad()


@cache
def installed() -> Installed:
    """Which model libraries are here, read from their files without importing them."""
    torch, llama_cpp = _package("torch"), _package("llama_cpp")
    version = torch / "version.py" if torch else None
    built_for_cuda = version is not None and version.exists() and _names_cuda(version)
    on_apple = on_apple_silicon()
    libraries = (
        {file.name.lower() for file in (llama_cpp / "lib").glob("*")} if llama_cpp else set()
    )
    gpu_kernels = ("ggml-cuda", "ggml-metal", "ggml-vulkan", "ggml-hip", "ggml-sycl")
    return Installed(
        transformers=torch is not None and _package("transformers") is not None,
        transformers_gpu=torch is not None and (built_for_cuda or on_apple),
        llama_cpp=llama_cpp is not None,
        llama_cpp_gpu=any(kernel in name for name in libraries for kernel in gpu_kernels),
    )


def within_container(total: int, available: int) -> tuple[int, int]:
    """The same two figures, lowered to what the control group of this process allows (Linux)."""
    for limit_file, used_file in (
        (CONTROL_GROUPS / "memory.max", CONTROL_GROUPS / "memory.current"),
        (
            CONTROL_GROUPS / "memory/memory.limit_in_bytes",
            CONTROL_GROUPS / "memory/memory.usage_in_bytes",
        ),
    ):
        limit, used = _number_in(limit_file), _number_in(used_file)
        if limit is not None and used is not None and limit < total:
            used -= _reclaimable(limit_file.parent / "memory.stat")
            return limit, min(available, max(limit - used, 0))
    return total, available


def existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _device(gpus: tuple[Gpu, ...]) -> Literal["cuda", "mps", "cpu"]:
    kinds = {gpu.kind for gpu in gpus}
    if "cuda" in kinds:
        return "cuda"
    return "mps" if "mps" in kinds else "cpu"


def _cores() -> int:
    """Logical processors this process may run on, which in a container are fewer than the PC has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return psutil.cpu_count() or 1


def on_apple_silicon() -> bool:
    """Whether processor and GPU share one memory here."""
    return sys.platform == "darwin" and platform.machine() == "arm64"


def apple_gpu(total: int, available: int) -> Gpu:
    """The GPU that shares these bytes of memory, and the part of them that macOS lets it use."""
    wired = int(_system_control("iogpu.wired_limit_mb") or 0) << 20
    share = wired or int(total * APPLE_GPU_SHARE)
    return Gpu(index=0, name=_cpu_name(), kind="mps", total=share, free=min(share, available))


@cache
def _cpu_name() -> str:
    if sys.platform == "darwin":
        return _system_control("machdep.cpu.brand_string") or platform.processor()
    if sys.platform == "win32":
        import winreg

        key = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as processor:
            return str(winreg.QueryValueEx(processor, "ProcessorNameString")[0]).strip()
    return _processor_table().get("model name", "") or platform.machine()


@cache
def _cpu_flags() -> tuple[str, ...]:
    """The vector instruction sets of this CPU, by the names Linux gives them."""
    if sys.platform == "darwin":
        found = (
            _system_control("machdep.cpu.features", "machdep.cpu.leaf7_features").lower().split()
        )
        if platform.machine() == "arm64":
            names = {"FEAT_BF16": "bf16", "FEAT_I8MM": "i8mm", "FEAT_DotProd": "asimddp"}
            found = ["neon"] + [
                flag
                for name, flag in names.items()
                if _system_control(f"hw.optional.arm.{name}") == "1"
            ]
        flags = {flag.replace("avx1.0", "avx") for flag in found}
    elif sys.platform == "win32":
        present = ctypes.windll.kernel32.IsProcessorFeaturePresent
        flags = {name for number, name in WINDOWS_FEATURES.items() if present(number)}
    else:
        table = _processor_table()
        flags = set((table.get("flags") or table.get("features") or "").split())
    return tuple(flag for flag in VECTOR_FLAGS if flag in flags)


def _processor_table() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in lines}


@cache
def _system_control(*names: str) -> str:
    """What macOS's sysctl says to these names; empty where it knows none of them."""
    try:
        answer = subprocess.run(
            ["/usr/sbin/sysctl", "-n", *names],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()


def _package(name: str) -> Path | None:
    spec = find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _names_cuda(version: Path) -> bool:
    lines = version.read_text(encoding="utf-8", errors="replace").splitlines()
    found = next((line for line in lines if line.startswith("cuda")), "")
    return found.rpartition("=")[2].strip() not in ("", "None")


def _reclaimable(statistics: Path) -> int:
    """Bytes of cached files that the group gives back when memory is asked for."""
    try:
        lines = statistics.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)


def _number_in(file: Path) -> int | None:
    try:
        return int(file.read_text().strip())
    except (OSError, ValueError):  # no such control group, or "max"
        return None
