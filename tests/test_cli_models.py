"""Models on the command line: each step's figures and verdict as JSON, exit codes, ids and paths alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chatbot.settings import Paths, Settings, save_settings
from tests.test_cli import error_of, hearth, result_of
from tests.tiny_models import tiny_gguf, tiny_hf

__all__ = ["tiny_gguf", "tiny_hf"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    paths = Paths(tmp_path_factory.mktemp("LUẬN VĂN") / "dữ liệu")
    paths.make()
    save_settings(paths.settings, Settings(samples_added=True))
    return paths.data


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    return shared_data / "models" / "stories260K"


def test_the_whole_chain_runs_on_stories260k(data: Path, stories: Path, tmp_path: Path):
    """Each step is checked against the one before; the last model is carried in a zip."""
    folder = result_of(data, "models", "prepare", stories)
    assert {
        "id",
        "path",
        "format",
        "hardware",
        "precision",
        "bytes_in",
        "bytes_out",
    } <= folder.keys()
    assert (folder["format"], folder["verdict"]) == ("hf", "pass")
    half = result_of(data, "models", "convert", folder["id"])
    assert (half["format"], half["verdict"]) == ("gguf", "pass")
    assert Path(half["path"]).is_file()
    small = result_of(data, "models", "quantise", half["id"], "--type", "Q4_K_M")
    assert small["asked"] == "Q4_K_M"
    assert small["verdict"] == "pass"
    assert small["types"]

    verdict = result_of(data, "models", "verify", small["id"])
    assert verdict["verdict"] == "pass"
    assert verdict["parent"] == half["id"]
    assert {"checks", "types"} <= verdict.keys()

    file = tmp_path / "gói.zip"
    packed = result_of(data, "models", "package", small["id"], file)
    assert {"file", "size", "ratio"} <= packed.keys()
    assert file.stat().st_size == packed["size"]
    assert result_of(data, "models", "remove", small["id"])["removed"] == small["id"]
    back = result_of(data, "models", "import", file)
    assert (back["id"], back["format"]) == (small["id"], "gguf")
    listed = result_of(data, "models", "list")["models"]
    assert {row["id"]: row["verdict"] for row in listed}[back["id"]] == "pass"


def test_a_damaged_model_ends_with_1_and_says_where(data: Path, tiny_gguf: Path, tmp_path: Path):
    content = bytearray(tiny_gguf.read_bytes())
    content[-1000] ^= 0x40
    (file := tmp_path / "lật bit.gguf").write_bytes(content)
    verdict = result_of(data, "models", "verify", file, "--parent", tiny_gguf, code=1)
    assert verdict["verdict"] == "fail"
    failed = [check for check in verdict["checks"] if check["verdict"] == "fail"]
    assert failed
    assert all(check["detail"] for check in failed)


def test_what_is_not_there_is_an_error(data: Path):
    assert error_of(data, "models", "prepare", "/no/such/model")["code"] == "not_found"
    assert error_of(data, "models", "quantise", "nothing", "--type", "Q8_0")["code"] == "not_found"
    assert error_of(data, "models", "ready", "ai-viet/tiny")["code"] == "offline"


def test_the_catalogue_says_what_fits_and_stars_one(data: Path):
    found = result_of(data, "models", "catalogue")["models"]
    assert sum(row["recommended"] for row in found) <= 1
    assert all({"repo", "fits", "licence", "languages", "ways"} <= row.keys() for row in found)


def test_progress_goes_to_stderr(data: Path, tiny_gguf: Path):
    done = hearth(data, "models", "quantise", tiny_gguf, "--type", "Q8_0", "--json")
    assert json.loads(done.stdout)["format"] == "gguf"
    assert "quantise" in done.stderr
