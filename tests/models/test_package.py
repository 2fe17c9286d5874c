from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.database import Database
from chatbot.errors import BrokenModel, Cancelled, CannotPack, DiskFullError, ModelError
from chatbot.models import making
from chatbot.models.archive import MAX_ENTRIES, Archive
from chatbot.models.importing import import_model
from chatbot.models.names import is_safe
from chatbot.models.package import LIBRARY, MANIFEST, package, unfinished
from chatbot.models.stages import Stages
from chatbot.models.store import ModelStore, home_of
from chatbot.models.unpack import unpack
from chatbot.settings import PROJECT, Paths
from chatbot.types import ModelArtifact
from tests.memory.building import folder as model_folder
from tests.memory.building import gguf, sharded
from tests.models.zips import DEFLATED, STORED, Raw, archive, deflated, files_of


def quiet(_fraction: float, _message: str = "", **_values: Any) -> None:
    """A report that nobody reads."""


def packed(model: ModelArtifact, file: Path, library: Path | None = None) -> dict[str, Any]:
    return package(
        quiet,
        source=home_of(model),
        file=file,
        manifest=model.manifest,
        library=str(library) if library else None,
    )


def contents(home: Path) -> dict[str, bytes]:
    return {
        file.relative_to(home).as_posix(): file.read_bytes()
        for file in home.rglob("*")
        if file.is_file() and file.name != "manifest.json"
    }


@pytest.fixture
def elsewhere(tmp_path: Path):
    """The store of another PC: its own data folder and database."""
    paths = Paths(tmp_path / "Máy khác")
    paths.make()
    database = Database(paths.database)
    yield ModelStore(database, paths)
    database.close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    made = tmp_path / "staging"
    made.mkdir()
    return made


# --- there and back -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gguf", "folder", "sharded"])
@pytest.mark.parametrize("link", [True, False])
def test_a_model_arrives_on_another_pc_byte_for_byte(
    kind: str, link: bool, store: ModelStore, elsewhere: ModelStore, tmp_path: Path
) -> None:
    source = tmp_path / "Ếch con.gguf" if kind == "gguf" else tmp_path / "Ếch con"
    if kind == "gguf":
        source.write_bytes(gguf())
    else:
        {"folder": model_folder, "sharded": sharded}[kind](source)
    model = import_model(store, source, link=link)
    verdict = {"verdict": "pass", "checks": [{"name": "hashes", "verdict": "pass"}]}
    model = store.note(
        model.id, verdict=verdict, origin={"repo": "phamhai/Frog", "revision": "abc"}
    )
    carried = tmp_path / "USB của tôi" / "Ếch.zip"

    figures = packed(model, carried)
    arrived = making.make(elsewhere, "unpack", quiet, source=carried)

    assert (arrived.id, arrived.name, arrived.format) == (model.id, model.name, model.format)
    assert {f["name"]: f["sha256"] for f in arrived.manifest["files"]} == {
        f["name"]: f["sha256"] for f in model.manifest["files"]
    }
    original = {
        f["name"]: (home_of(model) / f["name"]).read_bytes() for f in model.manifest["files"]
    }
    assert contents(home_of(arrived)) == original
    assert elsewhere.list() == [arrived]
    assert elsewhere.state(arrived) == "ready"
    claims = arrived.manifest["packaged"]
    assert claims["verdict"] == verdict
    assert claims["origin"]["repo"] == "phamhai/Frog"
    assert "verdict" not in arrived.manifest, "a verdict of elsewhere is no verdict of ours"
    assert figures["size"] == carried.stat().st_size
    assert figures["ratio"] == pytest.approx(carried.stat().st_size / model.size, abs=1e-4)
    assert [f.name for f in carried.parent.iterdir()] == [carried.name]


def test_paths_of_this_pc_do_not_travel(store: ModelStore, tmp_path: Path) -> None:
    source = model_folder(tmp_path / "Bí mật riêng")
    model = store.note(
        import_model(store, source).id,
        made={"step": "merge", "params": {"source": str(source), "type": "f16"}},
    )
    packed(model, tmp_path / "m.zip")
    with zipfile.ZipFile(tmp_path / "m.zip") as opened:
        about = json.loads(opened.read(MANIFEST))
    assert about["model"]["made"]["params"] == {"type": "f16"}
    assert str(tmp_path) not in json.dumps(about, ensure_ascii=False)


def test_a_library_travels_along_and_is_put_where_asked(
    store: ModelStore, tmp_path: Path, target: Path
) -> None:
    model = import_model(store, model_folder(tmp_path / "m"))
    library = tmp_path / "thư viện.hearth"
    library.write_bytes(archive(Raw("manifest.json", b"{}")) + os.urandom(100_000))
    packed(model, tmp_path / "m.zip", library)

    without = unpack(quiet, source=tmp_path / "m.zip", target=target)
    assert without["figures"]["library"]["unpacked"] is False
    assert LIBRARY not in contents(target)

    shutil.rmtree(target)
    target.mkdir()
    goal = tmp_path / "tmp" / "library.hearth"
    made = unpack(quiet, source=tmp_path / "m.zip", target=target, library=str(goal))
    assert goal.read_bytes() == library.read_bytes()
    assert LIBRARY not in {file["name"] for file in made["files"]}
    assert made["figures"]["library"]["sha256"] == hashlib.sha256(library.read_bytes()).hexdigest()


def test_the_same_model_gives_the_same_zip(store: ModelStore, tmp_path: Path) -> None:
    model = import_model(store, model_folder(tmp_path / "m"), link=False)
    packed(model, tmp_path / "a.zip")
    packed(model, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_weights_are_stored_and_text_is_compressed(store: ModelStore, tmp_path: Path) -> None:
    source = model_folder(tmp_path / "m")
    (source / "README.md").write_text("Xin chào các bạn. " * 20_000, encoding="utf-8")
    with (source / "model.safetensors").open("r+b") as weights:
        length = struct.unpack("<Q", weights.read(8))[0]
        weights.seek(8 + length)
        size = (source / "model.safetensors").stat().st_size - 8 - length
        weights.write(np.random.default_rng(1).standard_normal(size // 2).astype("<f2").tobytes())
    model = import_model(store, source)
    files = {f["name"].split("/")[1]: f for f in packed(model, tmp_path / "m.zip")["files"]}
    assert files["model.safetensors"]["packed"] == files["model.safetensors"]["size"]
    assert files["README.md"]["packed"] < files["README.md"]["size"] / 20
    with zipfile.ZipFile(tmp_path / "m.zip") as opened:
        assert opened.testzip() is None
        methods = {i.filename.split("/")[-1]: i.compress_type for i in opened.infolist()}
    assert methods["model.safetensors"] == zipfile.ZIP_STORED


def test_what_shrinks_like_a_bomb_is_packed_so_that_it_unpacks(
    store: ModelStore, tmp_path: Path, target: Path
) -> None:
    source = model_folder(tmp_path / "m")
    (source / "README.md").write_bytes(b" " * 5_000_000)
    model = import_model(store, source)
    packed(model, tmp_path / "m.zip")
    unpack(quiet, source=tmp_path / "m.zip", target=target)
    assert (target / "README.md").read_bytes() == b" " * 5_000_000


def test_a_file_that_changed_since_it_was_added_is_not_packed(
    store: ModelStore, tmp_path: Path
) -> None:
    source = model_folder(tmp_path / "m")
    model = import_model(store, source)
    weights = bytearray((source / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (source / "model.safetensors").write_bytes(weights)
    goal = tmp_path / "out" / "m.zip"
    with pytest.raises(BrokenModel, match=r"model\.safetensors is not what it was"):
        packed(model, goal)
    assert list(goal.parent.iterdir()) == []


def test_cancelling_leaves_neither_zip_nor_files(
    store: ModelStore, tmp_path: Path, target: Path
) -> None:
    model = import_model(store, model_folder(tmp_path / "m"))
    packed(model, tmp_path / "m.zip")

    def cancel(fraction: float, _message: str = "", **_values: Any) -> None:
        if fraction > 0.5:
            raise Cancelled

    goal = tmp_path / "out" / "m.zip"
    with pytest.raises(Cancelled):
        package(cancel, source=home_of(model), file=goal, manifest=model.manifest)
    assert list(goal.parent.iterdir()) == []
    with pytest.raises(Cancelled):
        unpack(cancel, source=tmp_path / "m.zip", target=target)
    assert list(target.iterdir()) == []


def test_a_cancelled_job_leaves_nothing_beside_the_zip(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is killed where it is: it cannot tidy up after itself."""
    model = import_model(store, model_folder(tmp_path / "m"))
    goal = tmp_path / "out" / "m.zip"
    goal.parent.mkdir()

    def killed(_step: str, _report: Any, *, file: Path, **_params: Any) -> dict[str, Any]:
        unfinished(file).write_bytes(b"half")
        raise Cancelled

    monkeypatch.setattr(making, "run", killed)
    with pytest.raises(Cancelled):
        Stages(store).package(lambda *_, **__: None, source=model, file=str(goal))
    assert list(goal.parent.iterdir()) == []


def test_an_older_zip_stays_until_the_new_one_is_whole(store: ModelStore, tmp_path: Path) -> None:
    source = model_folder(tmp_path / "m")
    model = import_model(store, source)
    goal = tmp_path / "m.zip"
    packed(model, goal)
    before = goal.read_bytes()
    (source / "config.json").write_text("{}")
    with pytest.raises(BrokenModel):
        packed(model, goal)
    assert goal.read_bytes() == before


def test_what_a_killed_run_left_beside_the_zip_is_overwritten(
    store: ModelStore, tmp_path: Path
) -> None:
    model = import_model(store, model_folder(tmp_path / "m"))
    goal = tmp_path / "out" / "m.zip"
    goal.parent.mkdir()
    goal.with_name(".m.zip.unfinished").write_bytes(b"half" * 100_000)
    packed(model, goal)
    assert [file.name for file in goal.parent.iterdir()] == ["m.zip"]
    assert zipfile.ZipFile(goal).testzip() is None


@pytest.mark.parametrize(
    ("number", "error", "said"),
    [
        (errno.EFBIG, CannotPack, "FAT32"),
        (errno.EROFS, CannotPack, "Read-only"),
        (errno.ENOSPC, DiskFullError, "room"),
    ],
)
def test_a_disk_that_does_not_take_the_zip_is_said(
    number: int,
    error: type[Exception],
    said: str,
    store: ModelStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = import_model(store, model_folder(tmp_path / "m"))

    def fail(_handle: int) -> None:
        raise OSError(number, os.strerror(number))

    goal = tmp_path / "out" / "m.zip"
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(error, match=said):
        packed(model, goal)
    assert list(goal.parent.iterdir()) == []


@pytest.mark.parametrize("step", ["package", "unpack"])
def test_a_disk_without_room_is_said_before_work(
    step: str, store: ModelStore, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = import_model(store, model_folder(tmp_path / "m"))
    packed(model, tmp_path / "m.zip")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=400_000_000))
    goal = tmp_path / "out" / "m.zip"
    work: Callable[[], object] = {
        "package": lambda: packed(model, goal),
        "unpack": lambda: unpack(quiet, source=tmp_path / "m.zip", target=target),
    }[step]
    with pytest.raises(DiskFullError, match=r"0\.5 GB > 0\.4 GB"):
        work()
    assert not goal.exists()
    assert list(target.iterdir()) == []


# --- zips made by hand --------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "Mô hình của tôi/", "a/b/c/"])
@pytest.mark.parametrize("method", [STORED, DEFLATED])
def test_a_zipped_folder_is_accepted_wherever_the_model_lies_in_it(
    prefix: str, method: int, store: ModelStore, tmp_path: Path
) -> None:
    source = model_folder(tmp_path / "m")
    entries = files_of(source, prefix)
    for entry in entries:
        entry.method = method
    junk = [
        Raw("__MACOSX/._config.json", b"\0\5\x16\7"),
        Raw(f"{prefix}.DS_Store", b"Bud1"),
        Raw(f"{prefix}train.py", b"print('hi')"),
        Raw(f"{prefix}optimizer.pt", b"PK\3\4"),
        Raw(f"{prefix}checkpoint-5/model.safetensors", b"old"),
        Raw(f"{prefix}manifest.json", b"not ours"),
        Raw(f"{prefix}empty/", mode=stat.S_IFDIR | 0o755),
    ]
    made_by_hand = tmp_path / "Bài tập.zip"
    made_by_hand.write_bytes(archive(*entries, *junk))
    model = making.make(store, "unpack", quiet, source=made_by_hand)
    assert contents(home_of(model)) == contents(source)
    assert model.name == (PurePosixPath(prefix).name if prefix else "Bài tập")
    assert store.state(model) == "ready"
    assert model.manifest["made"]["figures"]["packed_by"] == "hand"


def test_a_zipped_gguf_is_accepted(store: ModelStore, tmp_path: Path) -> None:
    file = tmp_path / "m.zip"
    file.write_bytes(archive(Raw("Frog-Q4_K_M.gguf", gguf(), DEFLATED), Raw("README.md", b"hi")))
    model = making.make(store, "unpack", quiet, source=file)
    assert model.format == "gguf"
    assert Path(model.path).read_bytes() == gguf()


def written_by(kind: str, file: Path, source: Path) -> None:
    """A zip as other programs write it."""
    if kind == "zip64":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
            for path in source.iterdir():
                with opened.open(path.name, "w", force_zip64=True) as entry:
                    entry.write(path.read_bytes())
    elif kind == "comment":
        with zipfile.ZipFile(file, "w") as opened:
            for path in source.iterdir():
                opened.write(path, path.name)
            opened.comment = b"PK\3\4 a comment that looks like an entry" * 20
    elif kind == "streamed":  # sizes come after the data

        class Pipe:
            def __init__(self) -> None:
                self.opened = file.open("wb")

            def write(self, data: bytes) -> int:
                return self.opened.write(data)

            def flush(self) -> None:
                self.opened.flush()

        pipe = Pipe()
        with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as opened:  # type: ignore[arg-type]
            for path in source.iterdir():
                opened.write(path, path.name)
        pipe.opened.close()
    else:
        shutil.make_archive(str(file.with_suffix("")), "zip", source)


@pytest.mark.parametrize("kind", ["zip64", "comment", "streamed", "shutil"])
def test_zips_of_other_programs_are_read(kind: str, tmp_path: Path, target: Path) -> None:
    source = model_folder(tmp_path / "m")
    (source / "Điều khoản.md").write_text("Điều 1")
    written_by(kind, tmp_path / "m.zip", source)
    unpack(quiet, source=tmp_path / "m.zip", target=target)
    assert contents(target) == contents(source)


@pytest.mark.parametrize("weights", ["state_dict.pt", "pytorch_model.bin", "model.pth"])
def test_a_zipped_state_dict_becomes_safetensors_and_the_pickle_is_gone(
    weights: str, store: ModelStore, tmp_path: Path, tiny_hf: Path
) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    source = Path(shutil.copytree(tiny_hf, tmp_path / "m"))
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    torch.save(tensors, source / weights)
    file = tmp_path / "m.zip"
    file.write_bytes(archive(*files_of(source, "m/")))
    model = making.make(store, "unpack", quiet, source=file)
    assert model.format == "hf"
    found = load_file(Path(model.path) / "model.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert not [
        name for name in contents(Path(model.path)) if name.endswith((".pt", ".bin", ".pth"))
    ]


# --- hostile ------------------------------------------------------------------------------------

NAMES = [
    "../evil.json", "../../evil.json", "a/../../evil.json", "a/b/../../../evil.json", "..", ".", "./x.json",
    "/etc/evil.json", "//server/share/evil.json", "\\\\server\\share\\evil.json", "\\evil.json",
    "C:\\evil.json", "C:/evil.json", "c:evil.json", "..\\evil.json", "a\\..\\..\\evil.json",
    "config.json:stream", "a:b", "CON", "con.json", "Aux.txt", "NUL", "prn.tar.json", "COM1.json",
    "lpt9.json", "COM¹.json", "ＣＯＮ.json", "CONIN$", "con .json", "a/nul/b.json", "name.", "name ", " name",
    "a./b.json", "new\nline.json", "\x1b[2Jred.json", "nul\0byte.json", "evil\u202enosj.json",
    "zero\u200bwidth.json", "what?.json", "star*.json", "<a>.json", "a|b.json", 'a"b.json', "a//b.json", "",
    "x" * 300, "/".join("y" * 200 for _ in range(6)), "///", "~/../x.json",
]  # fmt: skip


def model_entries(tmp_path: Path) -> list[Raw]:
    return files_of(model_folder(tmp_path / "sound"))


def unix_link(target: bytes) -> bytes:
    return struct.pack("<HH", 0x000D, 12 + len(target)) + bytes(12) + target


ZEROS = bytes(30_000_000)
LOOKS = b"Xin ch\xc3\xa0o. " * 500
MORE: dict[str, Callable[[list[Raw]], bytes]] = {
    "same name twice": lambda m: archive(*m, Raw("config.json", b"{}")),
    "names that differ by case": lambda m: archive(*m, Raw("CONFIG.json", b"{}")),
    "names that differ by folding": lambda m: archive(*m, Raw("straße.md"), Raw("STRASSE.md")),
    "composed and decomposed": lambda m: archive(*m, Raw("Điề.md"), Raw("Điề.md")),
    "a file that is a folder too": lambda m: archive(*m, Raw("config.json/x.json", b"{}")),
    "a folder that is a file too": lambda m: archive(*m, Raw("x/y.json"), Raw("x", b"{}")),
    "folders that differ by case": lambda m: archive(*m, Raw("Sub/a.json"), Raw("sub/b.json")),
    "symbolic link": lambda m: archive(*m, Raw("x.json", b"../../secret", mode=stat.S_IFLNK | 0o777)),
    "absolute link": lambda m: archive(*m, Raw("x.json", b"/etc/passwd", mode=stat.S_IFLNK | 0o777)),
    "link, then through it": lambda m: archive(
        *m, Raw("d", b"/tmp", mode=stat.S_IFLNK | 0o777), Raw("d/x.json", b"{}")
    ),
    "hard link": lambda m: archive(*m, Raw("x.json", b"{}", extra=unix_link(b"/etc/passwd"))),
    "character device": lambda m: archive(*m, Raw("x.json", mode=stat.S_IFCHR | 0o666)),
    "block device": lambda m: archive(*m, Raw("x.json", mode=stat.S_IFBLK | 0o666)),
    "named pipe": lambda m: archive(*m, Raw("x.json", mode=stat.S_IFIFO | 0o666)),
    "socket": lambda m: archive(*m, Raw("x.json", mode=stat.S_IFSOCK | 0o666)),
    "folder with content": lambda m: archive(*m, Raw("x/", b"secret")),
    "file that says it is a folder": lambda m: archive(*m, Raw("x.json", b"", mode=stat.S_IFDIR | 0o7)),
    "encrypted": lambda m: archive(*m, Raw("x.json", b"{}", flags=0x801)),
    "strongly encrypted": lambda m: archive(*m, Raw("x.json", b"{}", flags=0x841)),
    "encrypted by its own header": lambda m: archive(*m, Raw("x.json", b"{}", local_flags=0x801)),
    "bzip2": lambda m: archive(*m, Raw("x.json", b"{}", method=12)),
    "lzma": lambda m: archive(*m, Raw("x.json", b"{}", method=14)),
    "deflate64": lambda m: archive(*m, Raw("x.json", b"{}", method=9)),
    "zstandard": lambda m: archive(*m, Raw("x.json", b"{}", method=93)),
    "bomb of zeros": lambda m: archive(*m, Raw("README.md", ZEROS, DEFLATED)),
    "bomb beside the model": lambda m: archive(*m, Raw("junk.bin", ZEROS, DEFLATED)),
    "bomb in the model's place": lambda m: archive(*m[1:], Raw("x.safetensors", ZEROS, DEFLATED)),
    "archives in an archive": lambda m: archive(
        *[Raw(f"lib {n}.zip", archive(Raw("0.dll", ZEROS[:50_000], DEFLATED))) for n in range(16)]
    ),
    "the model is in an inner archive": lambda m: archive(Raw("model.zip", archive(*m))),
    "wholly overlapping": lambda m: archive(*m, Raw(m[0].name, b"", offset=0, only_listed=True)),
    "overlapping bomb": lambda m: archive(
        Raw("a.json", LOOKS, DEFLATED), *m,
        *[Raw("a.json", LOOKS, DEFLATED, offset=0, only_listed=True) for _ in range(20)],
    ),
    "partly overlapping": lambda m: archive(
        Raw("a.json", b"z" * 50, packed_size=200, size=200), *m
    ),
    "overlapping the directory": lambda m: archive(*m, Raw("z.json", b"abc", size=99, packed_size=99)),
    "larger than it says": lambda m: archive(*m, Raw("x.json", LOOKS, DEFLATED, size=10)),
    "smaller than it says": lambda m: archive(*m, Raw("x.json", LOOKS, DEFLATED, size=len(LOOKS) + 9)),
    "stored with two sizes": lambda m: archive(*m, Raw("x.json", LOOKS, size=10)),
    "more after the end": lambda m: archive(*m, Raw("x.json", LOOKS, DEFLATED, packed=deflated(LOOKS) + b"x")),
    "ends too early": lambda m: archive(*m, Raw("x.json", LOOKS, DEFLATED, packed=deflated(LOOKS)[:-4])),
    "packed as nonsense": lambda m: archive(*m, Raw("x.json", LOOKS, DEFLATED, packed=b"\xff" * 90)),
    "wrong checksum": lambda m: archive(*m, Raw("x.json", b"{}", crc=1)),
    "wrong checksum, packed": lambda m: archive(*m, Raw("x.json", LOOKS, DEFLATED, crc=1)),
    "another name inside": lambda m: archive(*m, Raw("x.json", b"{}", local_name="../x.json")),
    "another method inside": lambda m: archive(*m, Raw("x.json", LOOKS, local_method=8)),
    "starts nowhere": lambda m: archive(*m, Raw("x.json", b"{}", offset=1 << 30)),
    "starts in the middle": lambda m: archive(*m, Raw("x.json", b"{}", offset=7)),
    "name in broken UTF-8": lambda m: archive(*m, Raw(b"x\xff\xfe.json", b"{}")),
    "cut off": lambda m: archive(*m)[:-30],
    "cut in the middle": lambda m: archive(*m)[: len(archive(*m)) // 2],
    "first half missing": lambda m: archive(*m)[400:],
    "too many files": lambda m: archive(*m, *[Raw(f"{n}.json") for n in range(MAX_ENTRIES + 1)]),
    "says 65535 files": lambda m: archive(*m, count=65535),
    "says fewer files": lambda m: archive(*m, count=1),
    "directory of 4 GB": lambda m: archive(*m, directory_size=0xFFFFFFF0),
    "directory elsewhere": lambda m: archive(*m, directory_offset=1 << 30),
    "zip64 of 2^60 files": lambda m: archive(*m, count=0xFFFF, zip64=(1 << 60, 1 << 61, 0)),
    "zip64 that points nowhere": lambda m: archive(*m, count=0xFFFF, zip64=(len(m), 500, 1 << 62)),
    "empty zip": lambda m: archive(),
    "empty file": lambda m: b"",
    "no zip": lambda m: b"GGUF" + bytes(1000),
    "text": lambda m: "xin chào".encode() * 100,
    "only a magic": lambda m: b"PK\3\4" + bytes(100),
    "no model in it": lambda m: archive(Raw("README.md", b"hi"), Raw("photo.png", b"\x89PNG")),
    "weights without settings": lambda m: archive(*[e for e in m if e.name != "config.json"]),
    "two models": lambda m: archive(
        *[Raw(f"{n}/{e.name}", e.data) for n in "ab" for e in m]
    ),
    "two GGUF files": lambda m: archive(Raw("a.gguf", gguf()), Raw("b.gguf", gguf())),
}  # fmt: skip


def claimed(entries: list[Raw], **changes: Any) -> Raw:
    """hearth.json for these entries, with some of it changed."""
    about = {
        "format": "hearth-model",
        "version": 1,
        "model": {"id": "m-1", "name": "m", "role": "chat"},
        "folder": "m-1",
        "files": {
            str(e.name): {"size": len(e.data), "sha256": hashlib.sha256(e.data).hexdigest()}
            for e in entries
        },
    }
    return Raw(MANIFEST, json.dumps({**about, **changes}).encode())


def within(entries: list[Raw]) -> list[Raw]:
    return [Raw(f"m-1/{entry.name}", entry.data) for entry in entries]


def lying(entries: list[Raw]) -> dict[str, Callable[[], bytes]]:
    """Packages whose manifest does not tell the truth, or is no manifest."""
    m = within(entries)
    files = json.loads(claimed(m).data)["files"]
    first = str(m[0].name)
    wrong_hash = {**files, first: {**files[first], "sha256": "0" * 64}}
    wrong_size = {**files, first: {**files[first], "size": 1}}
    beside = Raw("evil.json", b"{}")
    own = Raw("m-1/manifest.json", b"{}")
    return {
        "another hash": lambda: archive(*m, claimed(m, files=wrong_hash)),
        "another size": lambda: archive(*m, claimed(m, files=wrong_size)),
        "a file too many": lambda: archive(*m, Raw("m-1/x.json", b"{}"), claimed(m)),
        "a file too few": lambda: archive(*m[1:], claimed(m)),
        "a file outside the folder": lambda: archive(*m, beside, claimed([*m, beside])),
        "a manifest of the store": lambda: archive(*m, own, claimed([*m, own])),
        "a newer version": lambda: archive(*m, claimed(m, version=99)),
        "no version": lambda: archive(*m, claimed(m, version=True)),
        "another format": lambda: archive(*m, claimed(m, format="x")),
        "a folder that leaves": lambda: archive(*m, claimed(m, folder="../m-1")),
        "no files": lambda: archive(claimed([], files={})),
        "files as a list": lambda: archive(*m, claimed(m, files=list(files))),
        "hashes as numbers": lambda: archive(*m, claimed(m, files=dict.fromkeys(files, 1))),
        "model as text": lambda: archive(*m, claimed(m, model="m")),
        "no JSON": lambda: archive(*m, Raw(MANIFEST, b"{")),
        "a list": lambda: archive(*m, Raw(MANIFEST, b"[]")),
        "nested without end": lambda: archive(*m, Raw(MANIFEST, b"[" * 200_000)),
        "no number": lambda: archive(*m, claimed(m, note=float("nan"))),
        "half a surrogate pair": lambda: archive(*m, claimed(m, note="\ud800")),
        "too long": lambda: archive(*m, claimed(m, note="x" * 5_000_000)),
    }


HOSTILE = (
    [f"name {name[:30]!r}" for name in NAMES]
    + sorted(MORE)
    + [f"manifest: {kind}" for kind in lying([Raw("config.json", b"{}")])]
)


def hostile(case: str, tmp_path: Path) -> bytes:
    entries = model_entries(tmp_path)
    if case.startswith("manifest: "):
        return lying(entries)[case.removeprefix("manifest: ")]()
    if case in MORE:
        return MORE[case](entries)
    return archive(*entries, Raw(NAMES[HOSTILE.index(case)], b"{}"))


def everything_in(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_writes_nothing_and_is_refused_by_name(
    case: str, tmp_path: Path, target: Path
) -> None:
    file = tmp_path / "Mô hình lạ.zip"
    file.write_bytes(hostile(case, tmp_path))
    before = everything_in(tmp_path)
    with pytest.raises(ModelError) as refusal:
        unpack(quiet, source=file, target=target, library=str(tmp_path / "library"))
    assert everything_in(tmp_path) == before
    for language in ("en", "vi"):
        text = refusal.value.text(language)
        assert file.name in text
        assert "{" not in text
        assert text.isprintable()
    assert refusal.value.text("en") != refusal.value.text("vi")
    assert refusal.value.next_step


def test_a_sound_archive_of_these_tests_is_accepted(tmp_path: Path, target: Path) -> None:
    """What is refused above is refused for its one fault."""
    entries = model_entries(tmp_path)
    file = tmp_path / "m.zip"
    for content in (archive(*entries), archive(*within(entries), claimed(within(entries)))):
        file.write_bytes(content)
        unpack(quiet, source=file, target=target)
        assert contents(target) == contents(tmp_path / "sound")
        shutil.rmtree(target)
        target.mkdir()


def test_a_hostile_archive_is_refused_in_the_child_and_leaves_no_model(
    store: ModelStore, tmp_path: Path
) -> None:
    file = tmp_path / "m.zip"
    file.write_bytes(hostile("link, then through it", tmp_path))
    with pytest.raises(BrokenModel, match=r"d is a link or a device"):
        making.make(store, "unpack", quiet, source=file)
    assert list(store.folder.iterdir()) == []


def test_a_model_that_only_the_owner_can_judge_is_named_by_its_archive_not_by_a_hidden_folder(
    store: ModelStore, tmp_path: Path
) -> None:
    source = model_folder(tmp_path / "m", auto_map={"AutoModel": "evil.Model"})
    file = tmp_path / "Lạ.zip"
    file.write_bytes(archive(*files_of(source)))
    with pytest.raises(BrokenModel, match="program code") as refusal:
        making.make(store, "unpack", quiet, source=file)
    assert "unfinished" not in str(refusal.value)
    assert "Lạ" in str(refusal.value)
    assert list(store.folder.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_large_archive_is_unpacked_in_little_memory(tmp_path: Path, target: Path) -> None:
    """300 MB stored and 60 MB out of 0.4 MB: the process stays far below 256 MB."""
    text = (b"Xin chao cac ban. " * 10_000 + os.urandom(900)) * 300
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as opened:
        for name, content in (("config.json", b"{}"), ("README.md", text)):
            opened.writestr(name, content, zipfile.ZIP_DEFLATED)
        with opened.open("model.safetensors", "w", force_zip64=True) as weights:
            for _ in range(75):
                weights.write(bytes(4 << 20))
    del text
    code = (
        "import sys; from pathlib import Path; from chatbot.models.unpack import unpack\n"
        "unpack(lambda *a, **k: None, source=Path(sys.argv[1]), target=Path(sys.argv[2]))\n"
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.zip"), str(target)],
        capture_output=True, text=True, cwd=PROJECT, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 128_000, "kB"


# --- for any name, any damage -------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        "..",
        ".",
        "/",
        "\\",
        ":",
        "a",
        "CON",
        "nul",
        "~",
        " ",
        ".json",
        "\0",
        "C:",
        "é",
        "é",
        "\u202e",
    ]
)
ODD_NAMES = st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=8).map("".join))


@given(ODD_NAMES)
@settings(max_examples=500)
def test_a_safe_name_stays_inside_on_every_system(name: str) -> None:
    if not is_safe(name):
        return
    windows = PureWindowsPath(name)
    assert (windows.drive, windows.root) == ("", "")
    assert not windows.is_reserved()
    assert windows.parts == PurePosixPath(name).parts == tuple(name.split("/"))
    assert ".." not in windows.parts
    root = Path("/somewhere/folder")
    assert Path(os.path.normpath(root / name)).is_relative_to(root)


@given(st.lists(ODD_NAMES, min_size=1, max_size=4))
@settings(max_examples=100)
def test_whatever_the_names_nothing_is_written_outside(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    sandbox = tmp_path_factory.mktemp("s")
    target, file = sandbox / "in" / "target", sandbox / "m.zip"
    target.mkdir(parents=True)
    entries = [Raw("config.json", b"{}"), Raw("model.safetensors", b"w")]
    entries += [Raw(name.encode("utf-8", "surrogatepass") + b".json", b"x") for name in names]
    file.write_bytes(archive(*entries))
    try:
        unpack(quiet, source=file, target=target)
    except ModelError:
        assert list(target.iterdir()) == []
    assert {path.name for path in sandbox.iterdir()} == {"in", "m.zip"}
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    shutil.rmtree(sandbox)


@given(st.data())
@settings(max_examples=200)
def test_a_damaged_archive_is_refused_or_gives_exactly_what_was_packed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = b"Xin chao. " * 50
    entries = [
        Raw("m-1/config.json", content, DEFLATED),
        Raw("m-1/model.safetensors", bytes(range(256))),
    ]
    whole = bytearray(archive(*entries, claimed(entries)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] = data.draw(st.integers(0, 255))
    sandbox = tmp_path_factory.mktemp("s")
    target, file = sandbox / "target", sandbox / "m.zip"
    target.mkdir()
    file.write_bytes(whole)
    try:
        made = unpack(quiet, source=file, target=target)
        for entry in made["files"]:
            found = (target / entry["name"]).read_bytes()
            assert hashlib.sha256(found).hexdigest() == entry["sha256"]
    except ModelError:
        assert list(target.iterdir()) == []
    assert {path.name for path in sandbox.iterdir()} == {"target", "m.zip"}
    shutil.rmtree(sandbox)


def test_entries_are_told_with_their_names_composed(tmp_path: Path) -> None:
    file = tmp_path / "m.zip"
    file.write_bytes(archive(Raw("Điề.md", b"x")))
    with Archive(file) as opened:
        assert [asdict(entry)["name"] for entry in opened.entries] == ["Điề.md"]
