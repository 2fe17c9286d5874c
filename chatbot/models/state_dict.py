"""PyTorch files (.bin, .pt): read so that nothing in them can run, and written, one tensor at a time.

Reading: weights_only, and no second way. torch opens the pickle without any values (on its "meta"
device) and says where each tensor lies; the values are then read from there, each storage held against
the archive's checksum. Writing: the zip that torch.save writes, its storages streamed.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from chatbot.errors import BrokenModel
from chatbot.i18n import N_
from chatbot.memory.facts import Tensor
from chatbot.memory.folder import DTYPES
from chatbot.memory.pickles import STATE_DICT, records
from chatbot.models.files import StoredFile
from chatbot.models.weights import PIECE, kind_of, read_values
from chatbot.settings import sync

if TYPE_CHECKING:
    import torch

NESTED = ("state_dict", "model_state_dict", "model", "module")
"""Where training programs keep the weights in a checkpoint, beside the optimiser's state."""

_PROGRAM = N_(
    "its pickle asks for more than weights ({part}), which could run code. It was not opened."
)
_DAMAGED = N_("{part} is damaged: it cannot be read as PyTorch weights.")
_NO_WEIGHTS = N_("{part} holds something else than named weights.")
_CHECKSUM = N_("the checksum of {part} is wrong; the file was damaged on its way.")
_ODD = N_(
    "the tensor {part} is kept in a form that cannot be copied (sparse, quantised or expanded)."
)
_ASKED_FOR = re.compile(r"GLOBAL ([\w.]+)|(Unsupported (?:operand|class)[^\n]{0,60})")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor's values lie: in which storage of which file, and from which element on."""

    file: Path
    offset: int
    size: int
    checksum: int
    first: int
    strides: tuple[int, ...]


class StateDict:
    """The tensors of one or more PyTorch files. Raises BrokenModel for all that is not plain weights."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._places: dict[str, _Place] = {}
        self._tensors: dict[str, Tensor] = {}
        for file in files:
            for name, value in _opened(file).items():
                if name in self._tensors:
                    raise BrokenModel(N_("two of its tensors have the same name."), name=file.name)
                self._tensors[name], self._places[name] = value

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor, in the order of its bytes."""
        names = sorted(
            self._tensors, key=lambda name: (self._places[name].file, self._places[name].offset)
        )
        return tuple(self._tensors[name] for name in names)

    def blocks(self, name: str) -> Iterator[torch.Tensor]:
        """The tensor's values in pieces of at most PIECE bytes: flat, in its own type."""
        tensor, place = self._tensors[name], self._places[name]
        step = PIECE // DTYPES[tensor.type]
        if not tensor.elements:
            return
        if tensor.size == place.size and place.strides == _contiguous(tensor.shape):
            yield from self._storage(place, tensor, step)
        else:
            import torch

            whole = torch.cat(list(self._storage(place, tensor, step)))
            values = whole.as_strided(tensor.shape, place.strides, place.first)
            yield from values.contiguous().reshape(-1).split(step)

    @staticmethod
    def _storage(place: _Place, tensor: Tensor, step: int) -> Iterator[torch.Tensor]:
        import torch

        left, checksum = place.size // DTYPES[tensor.type], 0
        with place.file.open("rb", buffering=0) as file:
            file.seek(place.offset)
            while left:
                values = read_values(file, tensor.type, min(step, left))
                checksum = zlib.crc32(memoryview(values.view(torch.uint8).numpy()), checksum)
                left -= len(values)
                if not left and checksum != place.checksum:
                    raise BrokenModel(_CHECKSUM, name=place.file.name, part=tensor.name)
                yield values


def _opened(file: Path) -> dict[str, tuple[Tensor, _Place]]:
    """Every tensor of one file and where it lies."""
    import torch

    entries = {_data_offset(file, entry.header_offset): entry for entry in records(file).values()}
    try:
        content = torch.load(file, map_location="meta", weights_only=True, mmap=True)
    except Exception as error:  # a hostile pickle makes torch raise anything
        text = str(error)
        if found := _ASKED_FOR.search(text):
            raise BrokenModel(_PROGRAM, name=file.name, part=found[1] or found[2]) from error
        raise BrokenModel(_DAMAGED, name=file.name, part=file.name) from error
    found_tensors = {}
    for name, value in _weights(content, file).items():
        # A tensor without values has no storage in the file.
        offset = getattr(value.untyped_storage(), "_checkpoint_offset", -1)
        entry = entries.get(offset)
        size = value.untyped_storage().nbytes()
        if size and (entry is None or entry.file_size != size):
            raise BrokenModel(_DAMAGED, name=file.name, part=file.name)
        place = _Place(
            file,
            offset,
            size,
            entry.CRC if entry else 0,
            int(value.storage_offset()),
            tuple(value.stride()),
        )
        found_tensors[name] = (_described(name, value, place), place)
    return found_tensors


def _weights(content: Any, file: Path) -> dict[str, torch.Tensor]:
    import torch

    for key in NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content:
        raise BrokenModel(_NO_WEIGHTS, name=file.name, part=file.name)
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise BrokenModel(_NO_WEIGHTS, name=file.name, part=f"{file.name}: {str(name)[:100]}")
    return dict(content)


def _described(name: str, value: torch.Tensor, place: _Place) -> Tensor:
    """The tensor as a header would declare it; its values must lie within its storage."""
    import torch

    odd = BrokenModel(_ODD, name=place.file.name, part=name[:100])
    if value.layout != torch.strided or value.is_quantized or value.is_conj() or value.is_neg():
        raise odd
    try:
        kind = kind_of(value.dtype)
    except KeyError:
        raise odd from None
    shape, width = tuple(value.shape), DTYPES[kind]
    tensor = Tensor(name, shape, kind, value.numel() * width)
    last = place.first + sum(
        (length - 1) * stride for length, stride in zip(shape, place.strides, strict=True)
    )
    if tensor.elements and (tensor.size > place.size or (last + 1) * width > place.size):
        raise odd
    return tensor


def _data_offset(file: Path, header: int) -> int:
    """Where an entry's bytes begin: after its header, whose length stands in it."""
    with file.open("rb") as opened:
        opened.seek(header)
        start = opened.read(30)
    if len(start) < 30 or start[:4] != b"PK\3\4":
        raise BrokenModel(_DAMAGED, name=file.name, part=file.name)
    name, extra = struct.unpack("<HH", start[26:30])
    return header + 30 + int(name) + int(extra)


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides))


class StateDictWriter:
    """Writes state_dict.pt into a folder: what torch.save would write, without the model in memory.

    `same` names tensors that share another's storage, as tied embeddings do. No device is in the file.
    """

    def __init__(
        self, folder: Path, tensors: Iterable[Tensor], same: Mapping[str, str] | None = None
    ) -> None:
        self.tensors = tuple(tensors)
        self.files: list[StoredFile] = []
        self._path = folder / STATE_DICT
        self._same = dict(same or {})
        self._coming = list(reversed(self.tensors))

    def __enter__(self) -> StateDictWriter:
        self._file = _Hashing(self._path)
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED, allowZip64=True)
        self._zip.writestr(_entry("state_dict/data.pkl"), _pickled(self.tensors, self._same))
        self._zip.writestr(_entry("state_dict/byteorder"), b"little")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._zip.writestr(_entry("state_dict/version"), b"3\n")
            self._zip.close()
        except OSError:  # of a disk that is full: what filled it is under way already
            if kind is None:
                raise
        finally:
            self._file.close()
        if kind is not None:
            return
        if self._coming:
            raise ValueError(f"{self._coming[-1].name} was not written")
        sync(self._path)
        found = self._path.stat()
        self.files.append(
            StoredFile(STATE_DICT, found.st_size, self._file.digest.hexdigest(), found.st_mtime_ns)
        )

    def put(self, name: str, blocks: Iterable[torch.Tensor]) -> None:
        """Write the next tensor, given as pieces in the type that was announced."""
        import torch

        tensor = self._coming.pop()
        if tensor.name != name:
            raise ValueError(f"{name} is not the tensor that comes next")
        number, left = len(self.tensors) - len(self._coming) - 1, tensor.size
        entry = _entry(f"state_dict/data/{number}")
        entry.extra = _padding(self._file.tell() + 30 + len(entry.filename) + _WIDE)
        with self._zip.open(entry, "w", force_zip64=True) as file:
            for block in blocks:
                values = block.contiguous().reshape(-1).view(torch.uint8)
                left -= values.numel()
                file.write(memoryview(values.numpy()))
        if left:
            raise ValueError(f"{name} has another size than was announced")


_WIDE = 20
"""Bytes of the zip64 field that goes before our padding."""
_ALIGNED = 64
_STORAGES = {
    "F64": "DoubleStorage", "F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage",
    "I64": "LongStorage", "I32": "IntStorage", "I16": "ShortStorage", "I8": "CharStorage",
    "U8": "ByteStorage", "BOOL": "BoolStorage",
}  # fmt: skip


class _Hashing(io.RawIOBase):
    """A file that is hashed while it is written, which a zip cannot go back in."""

    def __init__(self, path: Path) -> None:
        self.digest = hashlib.sha256()
        self._opened: IO[bytes] = path.open("xb", buffering=0)
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        self.digest.update(left)
        self._position += len(left)
        count = len(left)
        while left:
            left = left[self._opened.write(left) :]
        return count

    def close(self) -> None:
        self._opened.close()
        super().close()


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))


def _padding(position: int) -> bytes:
    """An extra field so long that what follows it is aligned, as torch pads too."""
    missing = (-position - 4) % _ALIGNED
    return b"FB" + struct.pack("<H", missing) + b"Z" * missing


@dataclass(frozen=True)
class _Storage:
    """A storage that is in the archive, as a pickle refers to it."""

    reference: tuple[Any, ...]


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.reference if isinstance(value, _Storage) else None


class _Rebuilt:
    """A tensor as torch.save pickles it: how to build it from a storage."""

    def __init__(self, tensor: Tensor, key: int) -> None:
        self._tensor = tensor
        self._key = key

    def __reduce__(self) -> tuple[Any, ...]:
        import torch

        tensor = self._tensor
        kind = getattr(torch, _STORAGES[tensor.type])
        storage = _Storage(("storage", kind, str(self._key), "cpu", tensor.elements))
        strides = _contiguous(tensor.shape)
        arguments: tuple[Any, ...] = (storage, 0, tensor.shape, strides, False, OrderedDict())
        return torch._utils._rebuild_tensor_v2, arguments


def _pickled(tensors: Sequence[Tensor], same: Mapping[str, str]) -> bytes:
    keys = {tensor.name: number for number, tensor in enumerate(tensors)}
    by_name = {tensor.name: tensor for tensor in tensors}
    content: OrderedDict[str, _Rebuilt] = OrderedDict()
    for name in (*keys, *same):
        original = same.get(name, name)
        content[name] = _Rebuilt(by_name[original], keys[original])
    target = io.BytesIO()
    _Pickler(target, protocol=2).dump(content)
    return target.getvalue()
