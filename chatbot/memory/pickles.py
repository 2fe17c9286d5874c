"""Weights kept as PyTorch files (.bin, .pt): which ones there are and how large, without unpickling.

A PyTorch file is a zip: a pickle that says what the tensors are, and each storage's bytes as an entry
of its own. Only the zip's directory is read here; the pickle is opened in a child alone.
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

from chatbot.errors import BrokenModel, ModelError
from chatbot.i18n import N_
from chatbot.memory.facts import Tensor

INDEX = "pytorch_model.bin.index.json"
STATE_DICT = "state_dict.pt"
SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
MAX_DIRECTORY = 64 << 20
MAX_PICKLE = 64 << 20
_USUAL = ("pytorch_model.bin", STATE_DICT, "model.pt", "model.bin", "model.pth")
_BESIDE = ("training_args", "optimizer", "scheduler", "rng_state", "scaler")
_TORCH_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}
_WIDTHS = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8}

_ABSENT = N_("the file {part} is missing; the copy is incomplete.")
_NO_TORCH_FILE = N_(
    "{part} is not a PyTorch file as torch.save writes it today, or it was cut off. Save it again"
    " with torch.save, or as safetensors."
)
_ODD_ENTRY = N_("{part} is a PyTorch file packed in a way that torch.save does not.")
NOT_YET = N_(
    "its weights are PyTorch files (.bin, .pt); prepare it: that makes a copy as safetensors."
)
SEVERAL = N_("several PyTorch files lie there and no index says what belongs together ({part}).")


def is_torch_zip(file: Path) -> bool:
    """Whether that zip archive is a PyTorch file: it holds <folder>/data.pkl. Raises BrokenModel."""
    with _directory(file) as archive:
        return bool(_pickles(archive))


def choose(folder: Path) -> str | None:
    """The one PyTorch file of a folder without an index that holds the weights; None without any."""
    names = sorted(
        file.name
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and not file.name.lower().startswith(_BESIDE)
    )
    for usual in _USUAL:
        if usual in names:
            return usual
    if len(names) > 1:
        raise ModelError(SEVERAL, name=folder.name, part=", ".join(names[:3]))
    return names[0] if names else None


def read_storages(file: Path, kind: str) -> list[Tensor]:
    """Each storage as if it were a tensor of type `kind`: what the zip's directory says of its size.

    A PyTorch file's tensors have their names in the pickle, which is not opened here.
    """
    width = _WIDTHS[kind]
    return [
        Tensor(f"{file.name}/{number}", (record.file_size // width,), kind, record.file_size)
        for number, record in records(file).items()
    ]


def records(file: Path) -> dict[str, zipfile.ZipInfo]:
    """The entries of a PyTorch file that hold values, by the storage's key. Raises BrokenModel."""
    odd = BrokenModel(_ODD_ENTRY, name=file.parent.name, part=file.name)
    with _directory(file) as archive:
        names, entries, found = archive.namelist(), archive.infolist(), _pickles(archive)
        if len(found) != 1 or len(set(names)) < len(names):
            raise odd
        root = found[0].removesuffix("data.pkl")
        if archive.getinfo(found[0]).file_size > MAX_PICKLE or f"{root}constants.pkl" in names:
            raise odd  # the second is TorchScript, which is a program
        if any(
            e.compress_type != zipfile.ZIP_STORED or e.compress_size != e.file_size for e in entries
        ):
            raise odd
        try:
            archive.read(found[0])  # its checksum, which torch does not look at
            order = archive.read(f"{root}byteorder") if f"{root}byteorder" in names else b"little"
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise BrokenModel(_NO_TORCH_FILE, name=file.parent.name, part=file.name) from error
        if order != b"little":
            raise odd
    start = f"{root}data/"
    return {e.filename.removeprefix(start): e for e in entries if e.filename.startswith(start)}


def _pickles(archive: zipfile.ZipFile) -> list[str]:
    return [n for n in archive.namelist() if n.count("/") == 1 and n.endswith("/data.pkl")]


def kind_in(config: dict[str, object]) -> str:
    """The type that config.json says the weights have; F32 where it says nothing usable."""
    named = str(config.get("dtype") or config.get("torch_dtype") or "")
    return _TORCH_NAMES.get(named.removeprefix("torch."), "F32")


def _directory(file: Path) -> zipfile.ZipFile:
    """The zip opened, its directory of a bounded size."""
    broken = BrokenModel(_NO_TORCH_FILE, name=file.parent.name, part=file.name)
    try:
        if _directory_size(file) > MAX_DIRECTORY:
            raise broken
        return zipfile.ZipFile(file)
    except FileNotFoundError as error:
        raise BrokenModel(_ABSENT, name=file.parent.name, part=file.name) from error
    except (OSError, ValueError, struct.error, zipfile.BadZipFile, NotImplementedError) as error:
        raise broken from error


def _directory_size(file: Path) -> int:
    """Bytes of the zip's directory, which zipfile reads whole."""
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(max(size - 70_000, 0))
        tail = opened.read()
    end = tail.rfind(b"PK\5\6")
    if end < 0:
        raise zipfile.BadZipFile("no end of directory")
    sizes: list[int] = [struct.unpack_from("<I", tail, end + 12)[0]]
    wide = tail.rfind(b"PK\6\6", 0, end)  # what zipfile believes where there is one
    if wide >= 0:
        sizes = [size for size in sizes if size < 0xFFFFFFFF]
        sizes.append(struct.unpack_from("<Q", tail, wide + 40)[0])
    return max(sizes)
