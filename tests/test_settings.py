"""Settings survive anything that happens while they are written, and refuse what cannot be used."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest

from chatbot.errors import SettingsError
from chatbot.settings import (
    PROJECT,
    Paths,
    Settings,
    load_settings,
    offline,
    replacing,
    save_settings,
    write_atomically,
)


def test_what_was_saved_is_loaded(tmp_path):
    file = tmp_path / "settings.json"
    wanted = Settings().changed(language="vi", remote_model="mô hình", idle_unload_minutes=0)
    save_settings(file, wanted)
    assert load_settings(file) == wanted


def test_without_a_file_the_defaults_hold(tmp_path):
    assert load_settings(tmp_path / "settings.json") == Settings()


def test_keys_of_a_newer_version_are_ignored(tmp_path):
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"language": "en", "from_the_future": 1}), encoding="utf-8")
    assert load_settings(file).language == "en"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '"x"', '{"language": "xx"}', "\ufeff{}", "null"]
)
def test_a_damaged_file_is_told_with_its_path(tmp_path, content):
    file = tmp_path / "settings.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"settings\.json|language"):
        load_settings(file)


@pytest.mark.parametrize(
    "values",
    [
        {"language": "fr"},
        {"idle_unload_minutes": -1},
        {"idle_unload_minutes": 99999},
        {"colour": "red"},
    ],
)
def test_values_that_cannot_be_used_are_refused(values):
    with pytest.raises(SettingsError):
        Settings().changed(**values)


def test_the_data_folder_does_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.delenv("HEARTH_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert Paths.default().data == PROJECT / "data"
    monkeypatch.setenv("HEARTH_DATA", str(tmp_path / "nơi khác"))
    assert Paths.default().data == tmp_path / "nơi khác"


def test_every_place_lies_in_the_data_folder(paths):
    names = [n for n in dir(Paths) if isinstance(getattr(Paths, n), property)]
    assert len(names) >= 10
    assert all(getattr(paths, name).is_relative_to(paths.data) for name in names)


@pytest.mark.parametrize(
    ("value", "expected"), [("1", True), ("yes", True), ("0", False), ("", False)]
)
def test_offline_is_what_the_environment_says(monkeypatch, value, expected):
    monkeypatch.setenv("HEARTH_OFFLINE", value)
    assert offline() is expected


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path):
    file = tmp_path / "a.json"
    write_atomically(file, b"old")

    def write_half() -> None:
        with replacing(file) as temporary:
            temporary.write_bytes(b"half")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        write_half()
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_name_as_long_as_the_system_allows_can_be_written(tmp_path):
    file = tmp_path / ("a" * 200 + ".json")
    write_atomically(file, b"x")
    assert file.read_bytes() == b"x"


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps rights in another way")
def test_what_is_written_is_for_this_user_only(paths):
    save_settings(paths.settings, Settings())
    assert stat.S_IMODE(paths.settings.stat().st_mode) == 0o600
    assert stat.S_IMODE(paths.files.stat().st_mode) == 0o700


@pytest.mark.faults
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's word")
def test_killed_while_writing_the_file_is_old_or_new(tmp_path):
    script = (
        "import sys; from pathlib import Path; from chatbot.settings import write_atomically\n"
        "file = Path(sys.argv[1]); n = 0\n"
        "while True:\n"
        "    n += 1; write_atomically(file, str(n % 10).encode() * 300_000); print(n, flush=True)\n"
    )
    file = tmp_path / "a.json"
    for lines in (1, 4, 9):
        writer = subprocess.Popen(
            [sys.executable, "-c", script, str(file)], cwd=PROJECT, stdout=subprocess.PIPE
        )
        for _ in range(lines):
            writer.stdout.readline()
        writer.kill()
        writer.wait(30)
        writer.stdout.close()
        content = file.read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1
