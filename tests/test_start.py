"""start.py sets up once, says what it does, goes on without llama.cpp, and hands over cleanly.

pip and the build are replaced at their edge, a command line; one test makes a real environment.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

import start
from chatbot.settings import PROJECT

REQUIREMENTS = """\
# a comment
torch==2.13.0
filelock==4.2.11
llama-cpp-python==0.3.36 ; platform_machine in "x86_64 AMD64" --config-settings="cmake.args=-DA=ON;-DB=OFF"
"""


class Commands:
    """Every command that start.py would run, instead of running it."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.run: list[list[str]] = []
        self.environments: list[dict[str, str]] = []
        self.failing: tuple[str, ...] = ()
        self.compiler = True
        self.made = False

    def __call__(self, command, **options):
        self.run.append(command)
        self.environments.append(options.get("env") or {})
        text = " ".join(command)
        failed = any(word in text for word in self.failing)
        if "-c" in command:
            failed = not self.made
        if "venv" in command:
            self.made = not failed
            (self.project / ".venv").mkdir(exist_ok=True)
        if "llama.txt" in text:
            failed = not self.compiler
            if not failed:
                (self.project / ".venv/lib/python3.11/site-packages/llama_cpp").mkdir(
                    parents=True, exist_ok=True
                )
        return subprocess.CompletedProcess(command, int(failed))

    def matching(self, word: str) -> list[list[str]]:
        return [command for command in self.run if any(word in part for part in command)]

    def installs(self) -> list[list[str]]:
        return [command for command in self.run if "install" in command]


@pytest.fixture
def commands(tmp_path, monkeypatch):
    project = tmp_path / "1.LUẬN VĂN THẠC SĨ" / "hearth main"
    project.mkdir(parents=True)
    (project / "requirements.txt").write_text(REQUIREMENTS, encoding="utf-8")
    (project / "requirements-dev.txt").write_text("pytest==9.2.0\n", encoding="utf-8")
    made = Commands(project)
    monkeypatch.setattr(start, "PROJECT", project)
    monkeypatch.setattr(start.subprocess, "run", made)
    monkeypatch.setattr(start, "reachable", lambda _: False)
    monkeypatch.setattr(
        start, "hand_over", lambda command: made.run.append(["HAND OVER", *command]) or 0
    )
    monkeypatch.setenv("LC_ALL", "en_US.UTF-8")
    monkeypatch.setenv("PYTHONUTF8", "1")  # put back after main() has set it
    monkeypatch.chdir(tmp_path)
    return made


def test_the_first_start_installs_and_opens_hearth(commands, capsys):
    assert start.main([]) == 0
    assert [c[:3] for c in commands.matching("venv")][1][1:] == ["-m", "venv"]
    packages, llama = commands.matching("packages.txt"), commands.matching("llama.txt")
    assert len(packages) == len(llama) == 1
    assert commands.run.index(packages[0]) < commands.run.index(llama[0])
    assert commands.run[-1][-3:] == ["streamlit", "run", "app.py"]
    said = capsys.readouterr().out
    assert "1/3" in said
    assert "2/3" in said
    assert "3/3" in said
    assert "minutes" in said
    assert Path.cwd() == commands.project


def test_the_second_start_installs_nothing(commands, capsys):
    start.main([])
    commands.run.clear()
    capsys.readouterr()
    assert start.main([]) == 0
    assert not commands.installs()
    assert commands.run[-1][0] == "HAND OVER"
    assert capsys.readouterr().out == ""


def test_changed_requirements_are_installed(commands):
    start.main([])
    commands.run.clear()
    with (commands.project / "requirements.txt").open("a", encoding="utf-8") as file:
        file.write("httpx==0.28.1\n")
    start.main([])
    assert commands.matching("packages.txt")
    assert "httpx==0.28.1" in (commands.project / ".venv/packages.txt").read_text(encoding="utf-8")


def test_tests_bring_their_packages_and_running_keeps_them(commands):
    start.main([])
    commands.run.clear()
    assert start.main(["setup"]) == 0
    assert commands.matching("requirements-dev.txt")
    commands.run.clear()
    start.main([])
    start.main(["setup"])
    assert not commands.installs()


def test_an_interrupted_set_up_is_taken_up_again(commands, capsys):
    commands.failing = ("packages.txt",)
    assert start.main([]) == 1
    assert "Run the same command again" in capsys.readouterr().err
    assert not commands.matching("HAND OVER")
    commands.failing = ()
    commands.run.clear()
    assert start.main([]) == 0
    assert commands.matching("packages.txt")
    assert not [c for c in commands.run if "venv" in c]  # the environment itself was fine


def test_without_a_compiler_the_rest_of_hearth_starts(commands, capsys):
    commands.compiler = False
    assert start.main([]) == 0
    assert commands.run[-1][0] == "HAND OVER"
    said = capsys.readouterr().out
    assert start.LLAMA_WHEELS in said
    assert "Everything else works" in said
    commands.run.clear()
    assert start.main([]) == 0  # not tried again at every start, but said
    assert not commands.matching("llama.txt")
    assert start.LLAMA_WHEELS in capsys.readouterr().out
    commands.compiler = True
    assert start.main(["setup"]) == 0  # tried again when asked
    assert commands.matching("llama.txt")


def test_the_same_words_in_vietnamese(commands, capsys, monkeypatch):
    monkeypatch.setenv("LC_ALL", "vi_VN.UTF-8")
    commands.compiler = False
    start.main([])
    said = capsys.readouterr().out
    assert "Mọi phần khác vẫn dùng được" in said
    assert start.LLAMA_WHEELS in said
    assert "Everything else" not in said


def test_llama_is_built_without_the_cache_and_keeps_the_persons_flags(commands, monkeypatch):
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=on")
    monkeypatch.setattr(start, "vector_flags", lambda: "-DGGML_AVX512=ON")
    start.main([])
    index = commands.run.index(commands.matching("llama.txt")[0])
    assert "--no-cache-dir" in commands.run[index]
    assert commands.environments[index]["CMAKE_ARGS"] == "-DGGML_AVX512=ON -DGGML_CUDA=on"


def test_the_requirements_are_split_without_loss():
    rest, llama = start.split_requirements()
    whole = (PROJECT / "requirements.txt").read_text(encoding="utf-8")
    assert sorted((rest + llama).splitlines()) == sorted(whole.splitlines())
    assert "llama-cpp-python==" not in rest
    assert "torch==2.13.0" in rest
    assert llama.count("llama-cpp-python==0.3.36") == llama.count("\n") == 2
    assert "GGML_NATIVE=OFF" in llama
    assert "AMX" not in llama


ZEN4 = "fma avx avx2 avx512f avx512dq avx512cd avx512bw avx512vl avx512vbmi avx512_vnni avx512_bf16"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (ZEN4, True),
        (f"{ZEN4} amx_bf16 amx_tile amx_int8", True),
        (ZEN4.replace("avx512_vnni", ""), False),
        ("fma avx avx2 avx512f", False),
        ("fma avx avx2", False),
    ],
)
def test_avx512_only_where_the_cpu_has_all_of_it_and_never_amx(tmp_path, flags, expected):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor: 0\nmodel name: x\nflags\t\t: fpu {flags}\n", encoding="utf-8")
    words = start.vector_flags(file)
    assert ("-DGGML_AVX512=ON" in words) is expected
    assert "AMX" not in words


def test_a_cpu_that_tells_nothing_gets_the_portable_build(tmp_path):
    assert start.vector_flags(tmp_path / "absent") == ""


def test_a_linux_pc_without_nvidia_is_spared_the_cuda_packages(commands, monkeypatch):
    monkeypatch.setattr(start.sys, "platform", "linux")
    monkeypatch.setattr(start, "nvidia_driver", lambda: False)
    monkeypatch.setattr(start, "reachable", lambda _: True)
    start.main([])
    torch = commands.matching(start.TORCH_CPU)
    assert torch[0][-1] == "torch==2.13.0"
    assert "--no-deps" in torch[0]
    monkeypatch.setattr(start, "nvidia_driver", lambda: True)
    (commands.project / ".venv/hearth.json").unlink()
    commands.run.clear()
    start.main([])
    assert not commands.matching(start.TORCH_CPU)


def test_an_old_python_is_told_plainly(commands, monkeypatch, capsys):
    monkeypatch.setattr(start.sys, "version_info", (3, 9, 1))
    assert start.main([]) == 1
    assert "3.11 or newer" in capsys.readouterr().err
    assert not commands.run


def test_start_py_can_be_read_by_old_pythons():
    """Or they would show a syntax error instead of that sentence."""
    import ast

    ast.parse((PROJECT / "start.py").read_text(encoding="utf-8"), feature_version=(3, 8))


def test_a_failing_venv_names_the_cure(commands, capsys):
    commands.failing = ("venv",)
    assert start.main([]) == 1
    assert "python3-venv" in capsys.readouterr().err


def test_every_check_runs_also_after_one_failed(commands, capsys):
    commands.failing = ("mypy",)
    assert start.main(["test", "-k", "x y"]) == 1
    checks = [c[2:] for c in commands.run if c[1] == "-m" and c[2] in ("ruff", "mypy", "pytest")]
    assert checks == [
        ["ruff", "format", "--check", "."],
        ["ruff", "check", "."],
        ["mypy"],
        ["pytest", "-k", "x y"],
    ]
    assert "Failed: mypy" in capsys.readouterr().out
    commands.failing = ()
    assert start.main(["test"]) == 0


def test_options_are_handed_on_to_streamlit(commands):
    start.main(["--server.port", "8600"])
    assert commands.run[-1][-2:] == ["--server.port", "8600"]


def test_ctrl_c_during_set_up_ends_without_a_trace(commands, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(start, "install_packages", interrupted)
    assert start.main([]) == 130
    assert "Stopped" in capsys.readouterr().out


def test_a_path_too_long_for_windows_gets_its_packages_elsewhere(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(start, "os", types.SimpleNamespace(name="nt", environ=os.environ))
    monkeypatch.setattr(start, "windows_long_paths", lambda: False)
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setattr(start, "PROJECT", Path("D:/1.LUẬN VĂN THẠC SĨ") / ("dài" * 30))
    elsewhere = start.environment_folder()
    assert elsewhere.is_relative_to(tmp_path)
    assert str(elsewhere) in capsys.readouterr().out
    assert start.environment_folder() == elsewhere
    monkeypatch.setattr(start, "PROJECT", Path("D:/hearth"))
    assert start.environment_folder() == Path("D:/hearth/.venv")


@pytest.mark.slow
def test_a_real_environment_in_a_folder_with_spaces_and_accents(tmp_path):
    """Real venv, real pip (nothing to download), real hand-over with its exit code."""
    project = tmp_path / "1.LUẬN VĂN THẠC SĨ" / "Chương 2 (bản cuối)"
    project.mkdir(parents=True)
    shutil.copy(PROJECT / "start.py", project)
    package = project / "gói giả" / "streamlit"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import json, os, sys\n"
        "print(json.dumps([sys.argv[1:], os.getcwd(), sys.prefix, sys.flags.utf8_mode]))\n"
        "sys.exit(7)\n",
        encoding="utf-8",
    )
    (project / "requirements.txt").write_text("# nothing but pip\n", encoding="utf-8")
    environment = {**os.environ, "LC_ALL": "vi_VN.UTF-8", "PYTHONPATH": str(package.parent)}

    def run() -> tuple[subprocess.CompletedProcess[str], float]:
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(project / "start.py"), "--a b", "ế"],
            env=environment,
            check=False,
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
        )
        return done, time.perf_counter() - begun

    first, _ = run()
    assert "Đang tạo .venv" in first.stdout
    assert first.returncode == 7, first.stderr
    again, seconds = run()
    assert again.returncode == 7
    arguments, folder, prefix, utf8 = json.loads(again.stdout.splitlines()[-1])
    assert arguments == ["run", "app.py", "--a b", "ế"]
    assert Path(folder) == project
    assert Path(prefix) == project / ".venv"
    assert utf8 == 1
    assert seconds < 3


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="AMX is an x86 matter")
def test_the_installed_llama_is_free_of_amx():
    """The build this PC runs was made from the pinned line, or by someone who knows the crash."""
    script = "import llama_cpp; print(llama_cpp.llama_print_system_info().decode())"
    answer = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    if answer.returncode:
        pytest.skip("llama.cpp is not installed here")
    assert "AVX2 = 1" in answer.stdout
    assert "AMX" not in answer.stdout
