"""A model as it lies on the disk: its tensors, read a few rows at a time, and what its headers say.

Written apart from the code that makes models, so that one mistake cannot hide in both. Only PyTorch
files are mapped into memory; what the header checks of `chatbot.memory` refuse is never read here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from chatbot.errors import BrokenModel, ModelError
from chatbot.i18n import N_
from chatbot.memory import adapter
from chatbot.memory.adapter import is_adapter
from chatbot.memory.folder import DTYPES, read_json, read_safetensors, weight_files
from chatbot.memory.gguf import ARRAY, SCALARS, TEXT, TYPES, read_gguf
from chatbot.memory.headers import kind_of_file, read_model, split_parts
from chatbot.memory.pickles import SUFFIXES
from chatbot.models.state_dict import NESTED
from chatbot.models.weights import kind_of

if TYPE_CHECKING:
    import numpy as np

CONFIG = "config.json"
_NO_KIND = N_("its weights are of a type that no model has.")
_NO_MODEL = N_("it is neither a GGUF file nor a model folder.")
Form = Literal["hf", "gguf", "pt", "adapter"]

_BLOCKS = {name: (elements, size) for name, elements, size in TYPES.values()} | {
    name: (1, size) for name, size in DTYPES.items()
}


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor on the disk, as rows of `width` values; a vector has one value in each row."""

    name: str
    shape: tuple[int, ...]
    type: str
    read: Callable[[int, int], np.ndarray]
    """The bytes of the rows from `begin` to `end`, as they are on the disk."""

    @property
    def width(self) -> int:
        return self.shape[-1] if len(self.shape) > 1 else 1

    @property
    def rows(self) -> int:
        return self.elements // max(self.width, 1)

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def row_size(self) -> int:
        return row_size(self.type, self.width)

    @property
    def size(self) -> int:
        return self.rows * self.row_size


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model's tensors by name, and its settings: config.json, or the metadata of a GGUF file."""

    form: Form
    path: Path
    tensors: dict[str, Stored]
    settings: dict[str, Any]
    files: tuple[Path, ...] = field(default=())
    """Those with weights."""

    @property
    def home(self) -> Path:
        """The folder with its tokenizer and settings."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def size(self) -> int:
        """Bytes of all weights."""
        return sum(tensor.size for tensor in self.tensors.values())

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.tensors.values())

    @property
    def architecture(self) -> str:
        key = "general.architecture" if self.form == "gguf" else "model_type"
        return str(self.settings.get(key, ""))


def row_size(kind: str, width: int) -> int:
    """Bytes of `width` values of that type; whole blocks only."""
    elements, size = _BLOCKS[kind]
    if width % elements:
        raise ValueError(f"{width} values are no whole blocks of {kind}")
    return width // elements * size


def open_model(path: Path) -> StoredModel:
    """The model at that path: a GGUF file, or a folder with safetensors, a state_dict or an adapter.

    Raises BrokenModel for what is damaged, ModelError for what is none of these.
    """
    if path.is_file():
        if kind_of_file(path) == "gguf":
            return _open_gguf(path)
        if path.suffix.lower() in SUFFIXES and (path.parent / CONFIG).is_file():
            return _open_state_dict(path, (path,))
        raise ModelError(_NO_MODEL, name=path.name)
    if is_adapter(path):
        return _open_adapter(path)
    if not (path / CONFIG).is_file():
        raise ModelError(_NO_MODEL, name=path.name)
    facts = read_model(path)
    if facts.format == "pt":
        return _open_state_dict(path, tuple(path / name for name in facts.files))
    return _open_folder(path)


def _open_folder(folder: Path) -> StoredModel:
    files = tuple(folder / name for name in weight_files(folder))
    tensors = {tensor.name: tensor for file in files for tensor in _safetensors(file)}
    return StoredModel("hf", folder, tensors, read_json(folder / CONFIG), files)


def _open_adapter(folder: Path) -> StoredModel:
    file = adapter.weights_file(folder)
    pickled = file.name == adapter.PICKLED
    tensors = _pickled((file,)) if pickled else {one.name: one for one in _safetensors(file)}
    return StoredModel("adapter", folder, tensors, read_json(folder / adapter.CONFIG), (file,))


def tensors_of(file: Path) -> dict[str, Stored]:
    """The tensors of a single file: GGUF, safetensors or PyTorch. Raises BrokenModel."""
    if file.suffix == ".gguf":
        return _open_gguf(file).tensors
    if file.suffix in SUFFIXES:
        return _pickled((file,))
    return {tensor.name: tensor for tensor in _safetensors(file)}


def _safetensors(file: Path) -> Iterator[Stored]:
    declared = read_safetensors(file)
    with file.open("rb") as opened:
        offset = 8 + int(struct.unpack("<Q", opened.read(8))[0])
    for tensor in declared:
        yield _stored(tensor.name, tensor.shape, tensor.type, file, offset)
        offset += tensor.size


def _open_state_dict(path: Path, files: tuple[Path, ...]) -> StoredModel:
    return StoredModel("pt", path, _pickled(files), read_json(files[0].parent / CONFIG), files)


def _pickled(files: tuple[Path, ...]) -> dict[str, Stored]:
    tensors = {}
    for file in files:
        for name, value in state_of(file).items():
            try:
                kind = kind_of(value.dtype)
            except KeyError:
                raise BrokenModel(_NO_KIND, name=file.name) from None
            rows = value.reshape(-1, value.shape[-1] if value.dim() > 1 else 1)
            tensors[name] = Stored(name, tuple(value.shape), kind, partial(_torch_rows, rows))
    return tensors


def state_of(file: Path) -> dict[str, Any]:
    """A PyTorch file's tensors by name, mapped and not read. Raises BrokenModel for all but plain weights."""
    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises bare classes of many kinds for a damaged archive
        raise BrokenModel(str(error).splitlines()[0], name=file.name) from error
    for name in NESTED:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    found = state if isinstance(state, dict) else {}
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


def _torch_rows(values: Any, begin: int, end: int) -> np.ndarray:
    import torch

    rows: np.ndarray = values[begin:end].contiguous().reshape(-1).view(torch.uint8).numpy()
    return rows


def _open_gguf(path: Path) -> StoredModel:
    tensors: dict[str, Stored] = {}
    settings: dict[str, Any] = {}
    files = tuple(split_parts(path))
    for number, file in enumerate(files):
        header = read_gguf(file)  # what is hostile ends here
        with file.open("rb", buffering=1 << 20) as opened:
            values, places = _Metadata(opened).read()
        if number == 0:
            settings = values
        for tensor in header.tensors:
            offset = header.header_size + places[tensor.name]
            tensors[tensor.name] = _stored(tensor.name, tensor.shape, tensor.type, file, offset)
    return StoredModel("gguf", path, tensors, settings, files)


def _stored(name: str, shape: tuple[int, ...], kind: str, file: Path, offset: int) -> Stored:
    width = shape[-1] if len(shape) > 1 else 1
    if width % _BLOCKS[kind][0]:  # a quantised vector is one row
        shape, width = (1, *shape), math.prod(shape)
    return Stored(name, shape, kind, partial(_rows, file, offset, row_size(kind, width)))


def _rows(file: Path, offset: int, size: int, begin: int, end: int) -> np.ndarray:
    import numpy as np

    values = np.empty((end - begin) * size, np.uint8)
    waiting = memoryview(values.data)
    with file.open("rb", buffering=0) as opened:
        opened.seek(offset + begin * size)
        while waiting:
            count = opened.readinto(waiting)  # a read stops at 2 GB
            if not count:
                raise BrokenModel(N_("the file ends before its weights do."), name=file.name)
            waiting = waiting[count:]
    return values


class _Metadata:
    """Every value of a GGUF header whose lengths were already held against the file's size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self) -> tuple[dict[str, Any], dict[str, int]]:
        """The metadata, and where each tensor's bytes begin after the header."""
        self._file.seek(8)
        tensors, keys = self._number("Q"), self._number("Q")
        values = {self._text(): self._value(self._number("I")) for _ in range(keys)}
        places = {}
        for _ in range(tensors):
            name = self._text()
            for _ in range(self._number("I")):
                self._number("Q")
            self._number("I")
            places[name] = self._number("Q")
        return values, places

    def _value(self, kind: int) -> Any:
        if kind == TEXT:
            return self._text()
        if kind != ARRAY:
            return self._number(SCALARS[kind])
        item, count = self._number("I"), self._number("Q")
        if item == TEXT:
            return [self._text() for _ in range(count)]
        layout = f"<{count}{SCALARS[item]}"
        return list(struct.unpack(layout, self._file.read(struct.calcsize(layout))))

    def _text(self) -> str:
        return self._file.read(self._number("Q")).decode("utf-8", "replace")

    def _number(self, code: str) -> Any:
        layout = "<" + code
        return struct.unpack(layout, self._file.read(struct.calcsize(layout)))[0]
