"""Folders become GGUF files and GGUF files smaller ones: the same model, whole, or a reason and nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from chatbot.errors import (
    BrokenModel,
    Cancelled,
    CannotConvert,
    ChatbotError,
    ChildDied,
    DiskFullError,
    ModelError,
    SettingsError,
)
from chatbot.memory.headers import read_model
from chatbot.models import gguf, making
from chatbot.models.gguf import NEED_IMPORTANCE, QUANTISED, convert, quantise
from chatbot.models.store import ModelStore
from tests.memory.test_footprint import real_gguf


def quiet(_fraction: float, _message: str = "", **_values: Any) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def stories(shared_data: Path) -> Path:
    folder = shared_data / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip("stories260K is not on this machine")
    return folder


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF whose rows every type of block fits: 256 columns."""
    file = tmp_path_factory.mktemp("rộng") / "wide F16.gguf"
    real_gguf(file, layers=2, width=256, heads=4, kv_heads=2, type_="F16")
    return file


@pytest.fixture
def target(tmp_path: Path) -> Path:
    made = tmp_path / "đích"
    made.mkdir()
    return made


def hashes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def greedy_gguf(file: Path, prompt: str, count: int) -> list[int]:
    from llama_cpp import Llama

    model = Llama(str(file), n_ctx=256, n_threads=1, verbose=False)
    tokens = model.tokenize(prompt.encode())
    written = []
    for token in model.generate(tokens, temp=0.0, repeat_penalty=1.0):
        written.append(token)
        if len(written) == count:
            break
    return [*tokens, *written]


def greedy_hf(folder: Path, prompt: str, count: int) -> list[int]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = tokenizer(prompt, return_tensors="pt")
    done = model.generate(**tokens, max_new_tokens=count, do_sample=False, eos_token_id=None)
    return done[0].tolist()


# --- the whole chain on a real model --------------------------------------------------------


def test_a_real_folder_writes_the_same_text_as_f16_gguf(store: ModelStore, stories: Path) -> None:
    before = hashes(stories)
    told: list[float] = []
    made = making.make(
        store, "convert", lambda fraction, *_, **__: told.append(fraction), source=stories
    )
    assert (made.format, made.name) == ("gguf", "stories260K-F16")
    assert made.manifest["types"].keys() == {"F16", "F32"}
    assert told == sorted(told)
    assert told[-1] == 1.0
    original = stories.with_name("stories260K.gguf")
    for prompt in ("Once upon a time", "Lily and Ben"):
        expected = greedy_gguf(original, prompt, 60)
        assert greedy_hf(stories, prompt, 60) == expected
        assert greedy_gguf(Path(made.path), prompt, 60) == expected
    small = making.make(
        store, "quantise", quiet, source=Path(made.path), parent=made.id, type="Q8_0"
    )
    figures = small.manifest["made"]["figures"]
    assert small.name == "stories260K-Q8_0"
    assert small.manifest["made"]["parent"] == made.id
    assert figures["types"] == read_model(Path(small.path)).size_by_type()
    # 172 columns are no whole number of blocks; they are kept in F16 and that is said.
    assert {each["used"] for each in figures["fallbacks"]} == {"F16"}
    assert {each["tensor"].split(".")[2] for each in figures["fallbacks"]} == {"ffn_down"}
    assert len(greedy_gguf(Path(small.path), "Once upon a time", 60)) > 60
    assert hashes(stories) == before


@pytest.mark.parametrize(
    "kind",
    [
        "Q8_0",
        pytest.param("F32", marks=pytest.mark.slow),
        pytest.param("BF16", marks=pytest.mark.slow),
    ],
)
def test_every_type_of_the_converter_is_what_it_says(
    tiny_hf: Path, target: Path, kind: str
) -> None:
    done = convert(quiet, source=tiny_hf, target=target, type=kind.lower())
    (file,) = target.iterdir()
    facts = read_model(file)
    assert (facts.quantisation, facts.context) == (kind, read_model(tiny_hf).context)
    assert facts.chat_template
    assert {t.type for t in facts.tensors if len(t.shape) > 1} == {kind}
    assert done["figures"]["types"] == facts.size_by_type()
    assert done["figures"]["pre_tokenizer"] == {"name": "gpt-2", "why": "structure", "tried": 1}
    assert done["files"][0]["size"] == file.stat().st_size


@pytest.mark.parametrize("kind", [name for name in QUANTISED if name not in NEED_IMPORTANCE])
def test_every_type_of_the_quantiser_keeps_the_model_whole(
    wide: Path, target: Path, kind: str
) -> None:
    done = quantise(quiet, source=wide, target=target, type=kind)
    (file,) = target.iterdir()
    made, source = read_model(file), read_model(wide)
    assert file.name == f"wide-{kind}.gguf"
    assert {t.name: t.shape for t in made.tensors} == {t.name: t.shape for t in source.tensors}
    assert made.quantisation == kind
    assert made.size < source.size
    figures = done["figures"]
    assert (figures["types"], figures["fallbacks"]) == (made.size_by_type(), [])
    assert figures["bytes_out"] == file.stat().st_size


@pytest.mark.parametrize("kind", ["Q4_K_M", "Q6_K", "Q8_0", "IQ4_XS", "Q1_0"])
def test_what_a_shape_forbids_is_named_tensor_by_tensor(
    tiny_gguf: Path, target: Path, kind: str
) -> None:
    done = quantise(quiet, source=tiny_gguf, target=target, type=kind)
    (file,) = target.iterdir()
    used = {tensor.name: tensor.type for tensor in read_model(file).tensors}
    assert bool(done["figures"]["fallbacks"]) == (kind != "Q8_0")  # 64 columns: two blocks of 32
    for fallback in done["figures"]["fallbacks"]:
        assert fallback["used"] == used[fallback["tensor"]] != fallback["wanted"]


# --- refusals -------------------------------------------------------------------------------


def test_what_makes_no_sense_is_refused_by_name(
    wide: Path, tiny_hf: Path, target: Path, tmp_path: Path
) -> None:
    lossy = target / gguf_of(quantise(quiet, source=wide, target=target, type="Q4_0"))
    other = tmp_path / "khác"
    other.mkdir()

    def refused(**params: Any) -> str:
        with pytest.raises((CannotConvert, SettingsError)) as error:
            quantise(quiet, **{"source": wide, "target": other, "type": "Q4_0", **params})
        assert not list(other.iterdir())
        return str(error.value)

    assert "quantised already (Q4_0, Q6_K)" in refused(source=lossy, type="Q8_0")
    assert "type F16 already" in refused(type="F16")
    assert "importance matrix" in refused(type="IQ2_XXS")
    assert "convert it first" in refused(source=tiny_hf)
    assert "Q9_Z" in refused(type="Q9_Z")
    with pytest.raises(CannotConvert, match="only a model folder"):
        convert(quiet, source=wide, target=other)
    with pytest.raises(SettingsError, match="Q4_K_M"):
        convert(quiet, source=tiny_hf, target=other, type="Q4_K_M")
    quantise(quiet, source=lossy, target=other, type="Q8_0", requantise=True)
    assert read_model(next(other.iterdir())).quantisation == "Q8_0"


def gguf_of(done: dict[str, Any]) -> str:
    name: str = done["files"][0]["name"]
    return name


@pytest.fixture
def copied(tiny_hf: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_hf, tmp_path / "bản sao"))


def change(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, **values}), encoding="utf-8")


def test_an_architecture_nobody_knows_is_named(copied: Path, target: Path) -> None:
    change(copied / "config.json", architectures=["MambaFormerForCausalLM"])
    with pytest.raises(CannotConvert, match="MambaFormerForCausalLM is not supported") as error:
        convert(quiet, source=copied, target=target)
    assert error.value.values["lines"]
    assert not list(target.iterdir())


def test_weights_that_are_cut_off_are_refused_before_anything_runs(
    copied: Path, target: Path
) -> None:
    weights = copied / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1)
    with pytest.raises(BrokenModel):
        convert(quiet, source=copied, target=target)


def test_a_tensor_too_few_is_an_error_and_no_file(copied: Path, target: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(copied / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    # The converter does not notice; llama.cpp would, when it loads the file.
    with pytest.raises(ModelError, match=r"blk\.1\.ffn_up\.weight"):
        convert(quiet, source=copied, target=target)


def test_a_tokenizer_that_is_no_json_is_named(copied: Path, target: Path) -> None:
    (copied / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError) as error:
        convert(quiet, source=copied, target=target)
    assert error.value.values["name"] == copied.name
    assert error.value.values.get("part")
    assert not list(target.iterdir())


def test_a_folder_with_code_is_never_run(copied: Path, target: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (copied / "tokenization.py").write_text(f"open({str(canary)!r}, 'w')", encoding="utf-8")
    change(copied / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization.Own", None]})
    with pytest.raises(BrokenModel, match=r"tokenization\.py"):
        convert(quiet, source=copied, target=target)
    assert not canary.exists()


def test_the_converter_reaches_no_network_and_starts_no_program() -> None:
    code = (
        "import socket, subprocess, sys\n"
        "from chatbot.models.converter import _forbid_the_world\n"
        "_forbid_the_world()\n"
        "for attempt in (lambda: socket.create_connection(('127.0.0.1', 9)),\n"
        "                lambda: socket.getaddrinfo('example.com', 80),\n"
        "                lambda: subprocess.run([sys.executable, '-c', ''])):\n"
        "    try: attempt()\n"
        "    except PermissionError: continue\n"
        "    sys.exit('it got out')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- what was written is not believed -------------------------------------------------------


@pytest.mark.parametrize("damage", ["short", "no magic", "other shape", "absent"])
def test_a_quantiser_that_lies_is_found_out(
    wide: Path, target: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lies(_report: Any, facts: Any, file: Path, _wish: Any) -> dict[str, str]:
        if damage == "short":
            file.write_bytes(Path(facts.path).read_bytes()[:-1])
        elif damage == "no magic":
            file.write_bytes(bytes(4) + Path(facts.path).read_bytes()[4:])
        elif damage == "other shape":
            real_gguf(file, layers=1, width=256, heads=4, kv_heads=2, type_="F16")
        return {}

    monkeypatch.setattr(gguf, "run_quantiser", lies)
    with pytest.raises(ModelError):
        quantise(quiet, source=wide, target=target, type="Q8_0")


def test_a_disk_that_ran_full_is_said_to_have(
    wide: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "run_quantiser", lambda *_: {})
    monkeypatch.setattr(gguf, "disk_is_full", lambda _: True)
    with pytest.raises(DiskFullError):
        quantise(quiet, source=wide, target=target, type="Q8_0")


def test_weights_that_are_no_numbers_are_refused(wide: Path, target: Path, tmp_path: Path) -> None:
    data = bytearray(wide.read_bytes())
    data[-20001] = 0x7E  # in a half, an exponent of all ones: not a number
    broken = tmp_path / "hỏng.gguf"
    broken.write_bytes(data)
    with pytest.raises(BrokenModel, match="invalid data"):
        quantise(quiet, source=broken, target=target, type="Q4_0")


# --- ended early ----------------------------------------------------------------------------


def children() -> Iterator[psutil.Process]:
    for child in psutil.Process().children(recursive=True):
        try:
            if any(m in " ".join(child.cmdline()) for m in ("models.worker", "models.converter")):
                yield child
        except psutil.Error:
            continue


def left(store: ModelStore) -> list[str]:
    return [path.name for path in store.folder.iterdir()]


def test_cancelling_ends_the_converter_and_leaves_nothing(store: ModelStore, tiny_hf: Path) -> None:
    def stop(_fraction: float, _message: str = "", **_values: Any) -> None:
        if any("models.converter" in " ".join(child.cmdline()) for child in children()):
            raise Cancelled

    with pytest.raises(Cancelled):
        making.make(store, "convert", stop, source=tiny_hf)
    psutil.wait_procs(list(children()), timeout=10)
    assert not list(children())
    assert left(store) == []


@pytest.mark.parametrize("victim", ["models.converter", "models.worker"])
def test_a_killed_process_lists_nothing_and_leaves_the_source(
    store: ModelStore, tiny_hf: Path, victim: str
) -> None:
    before = hashes(tiny_hf)

    def kill(_fraction: float, _message: str = "", **_values: Any) -> None:
        found = []
        for child in children():
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                found.append((child, " ".join(child.cmdline())))
        if any("models.converter" in words for _, words in found):
            for child, words in found:
                if victim in words:
                    child.kill()

    with pytest.raises(ChildDied):
        making.make(store, "convert", kill, source=tiny_hf)
    psutil.wait_procs(list(children()), timeout=10)
    assert not list(children())
    assert left(store) == []
    assert hashes(tiny_hf) == before


@pytest.mark.skipif(sys.platform == "win32", reason="signals have no names there")
def test_a_library_that_crashes_is_an_error_about_the_model(store: ModelStore, wide: Path) -> None:
    import signal

    def crash(_fraction: float, _message: str = "", **_values: Any) -> None:
        for child in children():
            child.send_signal(signal.SIGSEGV)

    with pytest.raises(BrokenModel, match="SIGSEGV") as error:
        making.make(store, "quantise", crash, source=wide, type="Q4_K_M")
    assert error.value.values["name"] == wide.name
    assert left(store) == []


def test_errors_read_well_in_both_languages(wide: Path, target: Path) -> None:
    for ask in (
        lambda: convert(quiet, source=wide, target=target),
        lambda: quantise(quiet, source=wide, target=target, type="IQ1_S"),
    ):
        with pytest.raises(ChatbotError) as error:
            ask()
        english, vietnamese = error.value.text("en"), error.value.text("vi")
        assert english != vietnamese
        assert "{" not in english + vietnamese


def test_an_adapter_becomes_a_gguf_with_its_base_and_only_then(
    tiny_hf: Path, target: Path, tmp_path: Path
) -> None:
    from tests.models.adapters import make_adapter  # brings torch along

    adapter = make_adapter(tmp_path / "adapter", tiny_hf, target_modules=["q_proj", "down_proj"])
    with pytest.raises(CannotConvert, match="together with its base"):
        convert(quiet, source=adapter, target=target)
    convert(quiet, source=adapter, target=target, base=tiny_hf)
    (file,) = target.iterdir()
    names = {tensor.name for tensor in read_model(file).tensors}
    assert {
        f"blk.1.{part}.weight.lora_{half}" for part in ("attn_q", "ffn_down") for half in "ab"
    } <= names
