"""Weights and settings that want to run code or reach outside: refused by name, nothing ever runs.

Everything is generated here. Each pickle would write a canary if it ran; all of them go through one child,
which must still answer after the last.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from chatbot.child import Child
from chatbot.errors import BrokenModel, ModelError
from chatbot.memory.headers import read_model
from chatbot.settings import PROJECT
from tests.memory.building import CONFIG, folder, sharded
from tests.memory.test_folder import link
from tests.models.preparing import as_pytorch, weights

# --- pickles -------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def called(module: str, name: str, *arguments: bytes) -> bytes:
    """A pickle that calls module.name with those pickled values."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR."


def stacked(module: str, name: str, *arguments: bytes) -> bytes:
    """The same by STACK_GLOBAL, whose names stand on the stack as texts."""
    call = b"(" + b"".join(arguments) + b"tR."
    return b"\x80\x04" + text(module) + text(name) + b"\x93" + call


def payloads(canary: Path) -> dict[str, bytes]:
    """Pickles that would write the canary, or read it into being, were they run."""
    code = f"open({str(canary)!r}, 'w').write('ran')"
    shell = text(f'"{sys.executable}" -c "{code}"')
    run = text(code)
    touch = (text(str(canary)), text("w"))
    inner = called("os", "system", shell)
    raw = b"B" + struct.pack("<I", len(inner)) + inner
    return {
        "os.system": called("os", "system", shell),
        "posix.system": called("posix", "system", shell),
        "nt.system": called("nt", "system", shell),
        "os.popen": called("os", "popen", shell),
        "subprocess.Popen": called("subprocess", "Popen", shell),
        "subprocess.getoutput": called("subprocess", "getoutput", shell),
        "pip.main": called("pip", "main", b"(" + text("install") + text("evil") + b"l"),
        "pip._internal.main": called("pip._internal", "main", b"]"),
        "pkgutil.resolve_name": called("pkgutil", "resolve_name", text("os:system")),
        "builtins.eval": called("builtins", "eval", run),
        "builtins.exec": called("builtins", "exec", run),
        "__builtin__.eval": called("__builtin__", "eval", run),
        "builtins.open": called("builtins", "open", *touch),
        "io.open": called("io", "open", *touch),
        "builtins.getattr": called("builtins", "getattr", text("x"), text("__class__")),
        "builtins.__import__": called("builtins", "__import__", text("antigravity")),
        "importlib.import_module": called("importlib", "import_module", text("this")),
        "runpy.run_path": called("runpy", "run_path", text(str(canary.with_suffix(".py")))),
        "timeit.timeit": called("timeit", "timeit", run),
        "cProfile.run": called("cProfile", "run", run),
        "pickle.loads": called("pickle", "loads", raw),
        "torch.load": called("torch", "load", text(str(canary))),
        "torch.hub.load": called("torch.hub", "load", text("evil/repo"), text("model")),
        "torch.utils._config_module": called("torch._inductor.codecache", "_load_triton_kernel", run),
        "numpy f2py": called("numpy.testing._private.utils", "runstring", run, b"}"),
        "shutil.rmtree": called("shutil", "rmtree", text(str(canary.parent))),
        "ctypes.CDLL": called("ctypes", "CDLL", text(str(canary))),
        "socket": called("socket", "create_connection", text("127.0.0.1")),
        "stack global": stacked("os", "system", shell),
        "stack global, dotted": stacked("builtins", "getattr.__call__", text("x")),
        "stack global in a tensor's clothes": stacked("torch", "_utils.os.system", shell),
        "inst": b"(" + shell + b"ios\nsystem\n.",
        "obj": b"(cos\nsystem\n" + shell + b"o.",
        "nested in weights": b"\x80\x02}" + text("a") + called("os", "system", shell)[2:-1] + b"s.",
    }  # fmt: skip


def archive(file: Path, pickled: bytes) -> None:
    """A PyTorch file, as torch.save lays it out, around any pickle."""
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("archive/data.pkl", pickled)
        made.writestr("archive/version", b"3\n")
        made.writestr("archive/data/0", bytes(64))


def damages(file: Path) -> dict[str, Callable[[], None]]:
    """What else can be wrong with a PyTorch file that was once whole."""
    content = file.read_bytes()

    def cut() -> None:
        file.write_bytes(content[: len(content) * 2 // 3])

    def wrong_checksum() -> None:
        with zipfile.ZipFile(file) as made:
            at = made.getinfo(next(n for n in made.namelist() if n.endswith("data.pkl"))).CRC
        file.write_bytes(content.replace(struct.pack("<I", at), struct.pack("<I", at ^ 1)))

    def old_format() -> None:
        torch.save({"a": torch.ones(3)}, file, _use_new_zipfile_serialization=False)

    def squeezed() -> None:
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:  # fmt: skip
            for name in old.namelist():
                new.writestr(name, old.read(name))

    def script() -> None:
        archive(file, b"\x80\x02}.")
        with zipfile.ZipFile(file, "a") as made:
            made.writestr("archive/constants.pkl", b"\x80\x02).")

    def stretched() -> None:
        torch.save({"a": torch.ones(1).expand(1 << 40)}, file)

    return {
        "cut off": cut,
        "wrong checksum": wrong_checksum,
        "the format before 1.6": old_format,
        "compressed": squeezed,
        "a program (TorchScript)": script,
        "a terabyte out of one value": stretched,
        "an unknown opcode": lambda: archive(file, b"\x80\x02\xff."),
        "half a pickle": lambda: archive(file, b"\x80\x02}" + text("a")),
    }


PICKLES = list(payloads(Path("canary")))
DAMAGES = [
    "cut off", "wrong checksum", "the format before 1.6", "compressed", "a program (TorchScript)",
    "a terabyte out of one value", "an unknown opcode", "half a pickle",
]  # fmt: skip


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    worker = Child("chatbot.models.worker", name="prepare", hung_after=60.0)
    yield worker
    worker.close(grace=0.0)


@pytest.fixture
def model(tiny_hf: Path, tmp_path: Path) -> Path:
    return as_pytorch(tiny_hf, tmp_path / "mô hình", "pytorch_model.bin")


def refused(child: Child, source: Path, target: Path) -> str:
    """Why a child that was asked to prepare this refused; it must be alive after it."""
    target.mkdir(exist_ok=True)
    params = {"source": str(source), "target": str(target), "precision": "keep"}
    with pytest.raises(ModelError) as raised:
        child.call("prepare", params, timeout=120)
    assert child.pid is not None
    assert raised.value.next_step
    assert not list(target.glob("*.safetensors"))
    detail: str = raised.value.text("en")
    return detail


def test_there_are_as_many_hostile_files_as_promised() -> None:
    assert len(PICKLES) + 2 + len(DAMAGES) >= 40
    assert len(FOLDERS) >= 25
    assert len(INDEXES) >= 12


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_that_calls_something_is_refused_by_its_name(
    kind: str, child: Child, model: Path, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    pickled = payloads(canary)[kind]
    list(pickletools.genops(pickled))  # it is one that Python itself would run
    archive(model / "pytorch_model.bin", pickled)
    pid = child.pid
    reason = refused(child, model, tmp_path / "out")
    assert "asks for more than weights" in reason
    asked = re.search(r"c([\w.]+)\n([\w.]+)\n", pickled.decode("latin-1"))
    assert re.search(rf"\(([\w.]+\.)?{asked[2]}\)" if asked else "Unsupported operand", reason)
    assert pid in (None, child.pid)  # the same process still
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["os.system", "stack global"])
def test_a_bare_pickle_is_refused_unread(
    kind: str, child: Child, model: Path, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    (model / "pytorch_model.bin").write_bytes(payloads(canary)[kind])
    assert "pytorch_model.bin is not a PyTorch file" in refused(child, model, tmp_path / "out")
    with pytest.raises(BrokenModel, match="not a PyTorch file"):
        read_model(model)
    assert not canary.exists()


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_file_is_refused_by_its_name(
    kind: str, child: Child, model: Path, tmp_path: Path
) -> None:
    file = model / "pytorch_model.bin"
    damages(file)[kind]()
    reason = refused(child, model, tmp_path / "out")
    assert "pytorch_model.bin" in reason


def test_the_canary_would_have_sung(tmp_path: Path) -> None:
    """The payloads are real: opened the careless way, in a process of its own, one of them runs."""
    canary, file = tmp_path / "canary", tmp_path / "evil.pkl"
    file.write_bytes(payloads(canary)["builtins.exec"])
    careless = "import sys, pickle; getattr(pickle, 'lo' + 'ad')(open(sys.argv[1], 'rb'))"
    subprocess.run([sys.executable, "-c", careless, str(file)], check=True, timeout=60)
    assert canary.exists()


# --- settings ------------------------------------------------------------------------------------


def settings(file: str, **values: Any) -> Callable[[Path], None]:
    def write(home: Path) -> None:
        base = CONFIG if file == "config.json" else {}
        (home / file).write_text(json.dumps({**base, **values}), "utf-8")

    return write


def code(name: str) -> Callable[[Path], None]:
    return lambda home: (home / name).write_text("raise SystemExit", "utf-8") and None


def content(file: str, text: str) -> Callable[[Path], None]:
    return lambda home: (home / file).write_text(text, "utf-8") and None


def linked(name: str) -> Callable[[Path], None]:
    def leave(home: Path) -> None:
        (home / name).rename(home.parent / name)
        link(home / name, home.parent / name)

    return leave


AUTO = {"auto_map": {"AutoModel": "modeling.Evil"}}
FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "auto_map": (settings("config.json", **AUTO), "config.json: auto_map"),
    "auto_map of the tokenizer": (settings("tokenizer_config.json", **AUTO), "auto_map"),
    "auto_map of the generation": (settings("generation_config.json", **AUTO), "auto_map"),
    "auto_map of the processor": (settings("processor_config.json", **AUTO), "auto_map"),
    "auto_map of the pictures": (settings("preprocessor_config.json", **AUTO), "auto_map"),
    "auto_map of another repository": (
        settings("config.json", auto_map={"AutoConfig": "evil/repo--configuration.Evil"}),
        "auto_map",
    ),
    "auto_map in the text part": (settings("config.json", text_config=AUTO), "auto_map"),
    "auto_map deep in a list": (settings("config.json", layers=[[{"x": AUTO}]]), "auto_map"),
    "attention by its private name": (
        settings("config.json", _attn_implementation_internal="evil/kernels"),
        "_attn_implementation_internal",
    ),
    "experts by their private name": (
        settings("config.json", _experts_implementation_internal="evil/kernels"),
        "_experts_implementation_internal",
    ),
    "any private name": (settings("config.json", new_internal=1), "new_internal"),
    "attention from the hub": (
        settings("config.json", attn_implementation="evil/kernels"),
        "attn_implementation",
    ),
    "attention of a part from the hub": (
        settings("config.json", _attn_implementation={"text_config": "evil/kernels:run"}),
        "_attn_implementation",
    ),
    "experts from the hub": (
        settings("config.json", experts_implementation="evil/moe"),
        "experts_implementation",
    ),
    "a pipeline of its own": (
        settings("config.json", custom_pipelines={"x": {"impl": "evil.Pipeline"}}),
        "custom_pipelines",
    ),
    "a way to generate of its own": (
        settings("generation_config.json", custom_generate="evil/generate"),
        "custom_generate",
    ),
    "code": (code("modeling_evil.py"), "modeling_evil.py"),
    "code of the tokenizer": (code("tokenization_evil.py"), "tokenization_evil.py"),
    "code for installing": (code("setup.py"), "setup.py"),
    "code that hides": (code(".hidden.py"), ".hidden.py"),
    "settings that are a link outwards": (linked("config.json"), "points outside"),
    "weights that are a link outwards": (linked("model.safetensors"), "points outside"),
    "no settings": (lambda home: (home / "config.json").unlink(), "config.json is missing"),
    "settings that are no JSON": (content("config.json", "{'a': 1}"), "not readable JSON"),
    "settings without end": (content("config.json", "[" * 100_000), "not readable JSON"),
    "settings that are a list": (content("config.json", "[]"), "not readable JSON"),
    "settings that say a thing twice": (
        content("config.json", '{"a": 1, "a": {"auto_map": 1}}'),
        "not readable JSON",
    ),
    "a billion layers": (settings("config.json", num_hidden_layers=10**9), "num_hidden_layers"),
    "half a layer": (settings("config.json", num_hidden_layers=0.5), "num_hidden_layers"),
    "a width beyond all": (settings("config.json", hidden_size=10**30), "hidden_size"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_that_wants_to_run_code_is_refused_by_name(
    kind: str, child: Child, tmp_path: Path
) -> None:
    home = folder(tmp_path / "mô hình")
    spoil, named = FOLDERS[kind]
    spoil(home)
    with pytest.raises(BrokenModel, match=re.escape(named)):
        read_model(home)
    assert named in refused(child, home, tmp_path / "out")


# --- indexes -------------------------------------------------------------------------------------

INDEXES = {
    "up": "../other{}", "far up": "../../../../etc/other{}", "absolute": "/etc/other{}",
    "drive": "C:\\other{}", "drive without a folder": "C:other{}", "share": "\\\\server\\x\\other{}",
    "device": "\\\\?\\C:\\other{}", "below": "parts/other{}", "backslash": "parts\\other{}",
    "NUL": "other\0{}", "stream": "model:other{}", "line": "other\n{}", "nothing": "", "dots": "..",
    "another kind": "config.json",
}  # fmt: skip


@pytest.mark.parametrize("form", [".safetensors", ".bin"])
@pytest.mark.parametrize("kind", INDEXES)
def test_an_index_that_leaves_the_folder_is_refused_by_name(
    kind: str, form: str, child: Child, tiny_hf: Path, tmp_path: Path
) -> None:
    name = INDEXES[kind].format(form)
    if form == ".bin":
        home = as_pytorch(tiny_hf, tmp_path / "mô hình", "pytorch_model.bin")
        placed = dict.fromkeys(weights(tiny_hf), "pytorch_model.bin") | {"model.norm.weight": name}
        index = json.dumps({"weight_map": placed})
        (home / "pytorch_model.bin.index.json").write_text(index, "utf-8")
    else:
        home = sharded(tmp_path / "mô hình", {"model.norm.weight": name})
    with pytest.raises(BrokenModel, match="points outside"):
        read_model(home)
    assert "points outside" in refused(child, home, tmp_path / "out")


@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin"])
def test_an_index_that_is_a_link_outwards_is_refused(
    form: str, tiny_hf: Path, tmp_path: Path
) -> None:
    home = tmp_path / "mô hình"
    if form == "pytorch_model.bin":
        as_pytorch(tiny_hf, home, form)
        placed = dict.fromkeys(weights(tiny_hf), form)
        (home / f"{form}.index.json").write_text(json.dumps({"weight_map": placed}), "utf-8")
    else:
        sharded(home)
    linked(f"{form}.index.json")(home)
    with pytest.raises(BrokenModel, match=r"index\.json points outside"):
        read_model(home)


def test_a_part_that_is_a_link_outwards_is_refused(tiny_hf: Path, tmp_path: Path) -> None:
    home = as_pytorch(tiny_hf, tmp_path / "mô hình", "pytorch_model.bin")
    linked("pytorch_model.bin")(home)
    with pytest.raises(BrokenModel, match=r"pytorch_model\.bin points outside"):
        read_model(home)


def test_several_pytorch_files_without_an_index_are_refused(tiny_hf: Path, tmp_path: Path) -> None:
    home = as_pytorch(tiny_hf, tmp_path / "mô hình", "one.bin")
    shutil.copy(home / "one.bin", home / "two.bin")
    with pytest.raises(ModelError, match=r"one\.bin, two\.bin"):
        read_model(home)


# --- our own code --------------------------------------------------------------------------------


def test_our_code_never_opens_a_pickle_carelessly() -> None:
    careless = re.compile(
        r"weights_only\s*=\s*False|\bpickle\.loads?\b|\bUnpickler\b|allow_pickle\s*=\s*True"
        r"|trust_remote_code\s*=\s*True|\bjoblib\.load\b|\bdill\b|torch\.load\((?![^)]*weights_only=True)"
    )
    files = [*(PROJECT / "chatbot").rglob("*.py"), *(PROJECT / "pages").rglob("*.py"), PROJECT / "app.py"]  # fmt: skip
    assert len(files) > 50
    found = [f"{f.name}: {m[0]}" for f in files for m in careless.finditer(f.read_text("utf-8"))]
    assert found == []
