"""Set Hearth up and run it: `python start.py`. Needs Python 3.11 or newer and nothing else.

python start.py [streamlit options]     set up when something changed, then open Hearth in the browser
python start.py setup                   only set up, with the packages that the tests need
python start.py test [pytest options]   set up, then run every check: ruff, mypy, pytest

The packages go into `.venv` beside this file. What was installed is noted there with a hash of the
requirements, so that the next start is quick. llama.cpp is built last: where it cannot be built, the
rest of Hearth works.
"""

from __future__ import annotations

import hashlib
import json
import locale
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 11)
LLAMA = "llama-cpp-python"
LLAMA_WHEELS = "https://abetlen.github.io/llama-cpp-python/whl/cpu"
TORCH_CPU = "https://download.pytorch.org/whl/cpu"

# Flags that a CPU must report (Linux names) before llama.cpp is built with its AVX-512 kernels.
# Never AMX: ggml_backend_amx_mul_mat crashes (llama.cpp #20824).
AVX512 = ("avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw", "avx512vbmi", "avx512_vnni")
AVX512_BUILD = "-DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON"


class SetupError(Exception):
    """Set-up cannot go on; the message is for the person."""


def main(arguments: list[str]) -> int:
    """Do what the command line asks; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    command = arguments[0] if arguments and arguments[0] in ("setup", "test") else "run"
    if arguments and arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    # A parent's UTF-8 mode makes pip, pytest and Streamlit read and print Vietnamese everywhere.
    os.environ["PYTHONUTF8"] = "1"
    os.chdir(PROJECT)
    try:
        python = set_up(tests=command != "run", again=command == "setup")
        if command == "setup":
            say(
                "Hearth is set up. Start it with: python start.py",
                "Hearth đã cài xong. Mở bằng lệnh: python start.py",
            )
            return 0
        if command == "test":
            return check(python, arguments[1:])
        return hand_over([python, "-m", "streamlit", "run", "app.py", *arguments])
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say(
            "\nStopped. Run the same command again to go on.",
            "\nĐã dừng. Chạy lại đúng lệnh này để tiếp tục.",
        )
        return 130


def set_up(*, tests: bool, again: bool = False) -> str:
    """Make `.venv` and install what is missing; returns the path of its Python.

    `tests` installs the tests' packages too; `again` tries llama.cpp once more where it failed before.
    """
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError(
            words(
                f"Hearth needs Python 3.11 or newer; this is {sys.version.split()[0]}. "
                "Install one from https://www.python.org/downloads/ and run start.py with it.",
                f"Hearth cần Python 3.11 trở lên; đây là {sys.version.split()[0]}. "
                "Hãy cài từ https://www.python.org/downloads/ rồi chạy start.py bằng bản đó.",
            )
        )
    folder = environment_folder()
    python = environment_python(folder)
    if not works(python):
        say(
            "1/3  Making .venv, Hearth's own Python (about 10 seconds) …",
            "1/3  Đang tạo .venv, Python riêng của Hearth (khoảng 10 giây) …",
        )
        make_environment(folder)
    note_file = folder / "hearth.json"
    wanted = {name: file_hash(name) for name in requirement_files(tests=tests)}
    if wanted.items() <= read_note(note_file).items():
        if again and not llama_is_there(folder):
            install_llama(python, folder)
        elif not llama_is_there(folder):
            say_llama_is_missing(python)
        return str(python)
    note_file.unlink(missing_ok=True)
    install_packages(python, folder, tests=tests)
    install_llama(python, folder)
    note_file.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
    return str(python)


# --- the environment ------------------------------------------------------------------------


def environment_folder() -> Path:
    """`.venv` beside this file, or a short path where Windows would refuse the long ones in it."""
    # The longest path inside is torch's, 196 characters; Windows stops at 260 unless told otherwise.
    if os.name == "nt" and len(str(PROJECT)) > 60 and not windows_long_paths():
        name = hashlib.sha256(str(PROJECT).lower().encode()).hexdigest()[:8]
        folder = Path(os.environ.get("LOCALAPPDATA", Path.home())) / "Hearth" / name
        say(
            f"The path of this folder is long for Windows; packages go to {folder}",
            f"Đường dẫn thư mục này quá dài với Windows; các gói sẽ nằm ở {folder}",
        )
        return folder
    return PROJECT / ".venv"


def windows_long_paths() -> bool:
    """Whether this Windows allows paths of more than 260 characters."""
    import winreg

    try:
        key = r"SYSTEM\CurrentControlSet\Control\FileSystem"
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as opened:  # type: ignore[attr-defined]
            return bool(winreg.QueryValueEx(opened, "LongPathsEnabled")[0])  # type: ignore[attr-defined]
    except OSError:
        return False


def environment_python(folder: Path) -> Path:
    """Where that environment's Python is, or would be."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def works(python: Path) -> bool:
    """Whether that Python runs, is new enough and has pip; not so after a system upgrade, say."""
    question = f"import sys, pip; sys.exit(sys.version_info < {OLDEST_PYTHON})"
    try:
        answer = subprocess.run(
            [str(python), "-I", "-c", question], stderr=subprocess.DEVNULL, check=False
        )
    except OSError:
        return False
    return answer.returncode == 0


def make_environment(folder: Path) -> None:
    """A fresh virtual environment in that folder; what was there is cleared."""
    if subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(folder)], check=False
    ).returncode:
        raise SetupError(
            words(
                f"The environment in {folder} could not be made. On Debian and Ubuntu this helps: "
                "sudo apt install python3-venv. Then run start.py again.",
                f"Không tạo được môi trường trong {folder}. Trên Debian và Ubuntu hãy chạy: "
                "sudo apt install python3-venv. Sau đó chạy lại start.py.",
            )
        )


# --- the packages ---------------------------------------------------------------------------


def requirement_files(*, tests: bool) -> list[str]:
    """The files that say what to install."""
    return ["requirements.txt", "requirements-dev.txt"] if tests else ["requirements.txt"]


def file_hash(name: str) -> str:
    """SHA-256 of a file of this project."""
    return hashlib.sha256((PROJECT / name).read_bytes()).hexdigest()


def read_note(file: Path) -> dict[str, str]:
    """The hashes of what is installed; empty when no set-up finished."""
    try:
        note = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def install_packages(python: Path, folder: Path, *, tests: bool) -> None:
    """Install every requirement but llama.cpp's."""
    say(
        "2/3  Installing the packages (about 1 GB to download; 2 to 15 minutes the first time) …",
        "2/3  Đang cài các gói (tải khoảng 1 GB; lần đầu mất 2 đến 15 phút) …",
    )
    requirements, _ = split_requirements()
    listed = folder / "packages.txt"
    listed.write_text(requirements, encoding="utf-8")
    torch = [line for line in requirements.splitlines() if line.startswith("torch==")]
    # pip learned the per-requirement settings that llama.cpp's line uses in 23.1.
    installed = pip(python, "--quiet", "pip>=23.1")
    if torch and sys.platform == "linux" and not nvidia_driver() and reachable(TORCH_CPU):
        # The ordinary Linux build of torch brings 3 GB of CUDA that this PC has no use for.
        installed = installed and pip(python, "--no-deps", "--index-url", TORCH_CPU, *torch)
    wanted = ["-r", str(listed)]
    if tests:
        wanted += ["-r", "requirements-dev.txt"]
    if not (installed and pip(python, *wanted)):
        raise SetupError(
            words(
                "Some packages could not be installed; pip says why above. Is this PC online, with 8 GB of "
                "free disk? Run the same command again: what was downloaded is kept.",
                "Có gói chưa cài được; pip nêu lý do ở trên. Máy có mạng và còn 8 GB đĩa trống không? "
                "Hãy chạy lại đúng lệnh này: những gì đã tải được giữ lại.",
            )
        )


def install_llama(python: Path, folder: Path) -> None:
    """Build llama.cpp; where this PC cannot, say so and go on."""
    if llama_is_there(folder):
        say("3/3  Checking llama.cpp …", "3/3  Đang kiểm tra llama.cpp …")
    else:
        say(
            "3/3  Building llama.cpp for this PC (3 to 10 minutes, only this once) …",
            "3/3  Đang biên dịch llama.cpp cho máy này (3 đến 10 phút, chỉ một lần) …",
        )
    _, llama = split_requirements()
    listed = folder / "llama.txt"
    listed.write_text(llama, encoding="utf-8")
    build = " ".join(part for part in (vector_flags(), os.environ.get("CMAKE_ARGS", "")) if part)
    # Without the cache: pip would take a wheel built with other settings, even one for another CPU.
    pip(python, "--no-cache-dir", "-r", str(listed), environment={"CMAKE_ARGS": build})
    if not llama_is_there(folder):
        say_llama_is_missing(python)


def llama_is_there(folder: Path) -> bool:
    """Whether some build of llama.cpp is installed, ours or one that the person chose."""
    places = ("lib/python*/site-packages/llama_cpp", "Lib/site-packages/llama_cpp")
    return any(any(folder.glob(place)) for place in places)


def split_requirements() -> tuple[str, str]:
    """The text of requirements.txt without llama.cpp's lines, and those lines."""
    lines = (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    llama = [line for line in lines if line.startswith(LLAMA)]
    return "".join(line for line in lines if line not in llama), "".join(llama)


def pip(python: Path, *arguments: str, environment: dict[str, str] | None = None) -> bool:
    """Run `pip install` in that environment; whether it went well."""
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", *arguments]
    return (
        subprocess.run(command, env={**os.environ, **(environment or {})}, check=False).returncode
        == 0
    )


def nvidia_driver() -> bool:
    """Whether an NVIDIA driver is installed."""
    return Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None


def reachable(address: str) -> bool:
    """Whether that server answers within a few seconds."""
    import urllib.request

    try:
        with urllib.request.urlopen(f"{address}/", timeout=5):  # noqa: S310 - our own https address
            return True
    except (OSError, ValueError):
        return False


def vector_flags(cpu_information: Path = Path("/proc/cpuinfo")) -> str:
    """CMake's words for the AVX-512 kernels when the CPU has them all; nothing where we cannot tell."""
    try:
        lines = cpu_information.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return AVX512_BUILD if all(flag in flags for flag in AVX512) else ""


# --- running --------------------------------------------------------------------------------


def check(python: str, pytest_arguments: list[str]) -> int:
    """Run every check, also after one failed; 0 when all passed."""
    failed = []
    for arguments in (
        ["ruff", "format", "--check", "."],
        ["ruff", "check", "."],
        ["mypy"],
        ["pytest", *pytest_arguments],
    ):
        print(f"\n== {' '.join(arguments)}", flush=True)
        if subprocess.run([python, "-m", *arguments], check=False).returncode:
            failed.append(arguments[0])
    if failed:
        say(f"\nFailed: {', '.join(failed)}", f"\nKhông đạt: {', '.join(failed)}")
        return 1
    say("\nEverything passed.", "\nTất cả đều đạt.")
    return 0


def hand_over(command: list[str]) -> int:
    """Become that command where the system can; else run it and return its exit code."""
    sys.stdout.flush()
    if os.name != "nt":
        os.execv(command[0], command)  # noqa: S606 - no shell is meant
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches Streamlit, which ends by itself
    return subprocess.run(command, check=False).returncode


# --- words ----------------------------------------------------------------------------------


def words(english: str, vietnamese: str) -> str:
    """The sentence in the system's language."""
    return vietnamese if vietnamese_system() else english


def say(english: str, vietnamese: str) -> None:
    """Print the sentence in the system's language, at once."""
    print(words(english, vietnamese), flush=True)


def vietnamese_system() -> bool:
    """Whether the person's system speaks Vietnamese."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return value.lower().startswith("vi")
    if os.name == "nt":
        import ctypes

        return bool(ctypes.windll.kernel32.GetUserDefaultUILanguage() & 0x3FF == 0x2A)  # type: ignore[attr-defined]
    return (locale.getlocale()[0] or "").lower().startswith("vi")


def say_llama_is_missing(python: Path) -> None:
    """Say that GGUF models cannot run yet, and the one line that changes it."""
    line = f'"{python}" -m pip install {LLAMA} --prefer-binary --extra-index-url {LLAMA_WHEELS}'
    say(
        "llama.cpp could not be built here (it needs a C++ compiler), so GGUF models cannot run yet. "
        f"Everything else works. A ready-built one installs with:\n    {line}\n"
        "Or install a compiler, then: python start.py setup",
        "Chưa biên dịch được llama.cpp trên máy này (cần trình biên dịch C++), nên chưa chạy được mô hình "
        f"GGUF. Mọi phần khác vẫn dùng được. Cài bản dựng sẵn bằng lệnh:\n    {line}\n"
        "Hoặc cài trình biên dịch rồi chạy: python start.py setup",
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
