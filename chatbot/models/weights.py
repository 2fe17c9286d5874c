"""A model's weights, one tensor at a time: read from a Hugging Face folder, written into another.

Only the tensor at hand is in memory. Files are read with plain reads and not mapped: mapped pages count
as the process's memory, and a folder that changes while it is mapped kills the reader.

    weights = Weights(source)
    with Writer(target, weights.tensors) as writer:
        for tensor in writer.tensors:
            writer.put(tensor.name, weights.blocks(tensor.name))
    files = writer.files        # StoredFile of every file written, hashed on the way
"""

from __future__ import annotations

import errno
import hashlib
import json
import queue
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from chatbot.errors import BrokenModel, DiskFullError
from chatbot.i18n import N_
from chatbot.memory.facts import Tensor
from chatbot.memory.folder import DTYPES, INDEX, read_safetensors, weight_files
from chatbot.models.files import StoredFile
from chatbot.settings import sync

if TYPE_CHECKING:
    import torch

PIECE = 1 << 20
"""Bytes of a block: large enough for the disk, small enough to stay in the processor's cache."""
SHARD = 5_000_000_000
"""Bytes of weights in one file, as on the hub."""
WAITING = 16
"""Blocks that may wait for the disk."""

_TORCH_NAMES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "I32": "int32",
    "U32": "uint32", "I64": "int64", "U64": "uint64", "F16": "float16", "BF16": "bfloat16",
    "F32": "float32", "F64": "float64", "C64": "complex64", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip
FLOATS = ("F16", "BF16", "F32", "F64")
_CHANGED = N_("its files changed while they were read; wait until they are complete.")


def dtype_of(kind: str) -> torch.dtype:
    """torch's name for a safetensors type such as BF16."""
    import torch

    dtype: torch.dtype = getattr(torch, _TORCH_NAMES[kind])
    return dtype


def kind_of(dtype: torch.dtype) -> str:
    """The safetensors type of a torch dtype; KeyError where the format has none."""
    return {name: kind for kind, name in _TORCH_NAMES.items()}[str(dtype).removeprefix("torch.")]


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes in this thread alone: for blocks this small its threads cost more than they save."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Source(Protocol):
    """Where weights come from, one tensor at a time."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in the order in which they are best read."""

    def blocks(self, name: str) -> Iterator[torch.Tensor]:
        """The tensor's values in pieces of at most PIECE bytes: flat, in its own type, on the CPU."""


class Target(Protocol):
    """Where weights go, one tensor at a time; a context, complete when left."""

    tensors: tuple[Tensor, ...]
    """All that is coming, in the order in which `put` takes it."""
    files: list[StoredFile]
    """What was written, once the context is left."""

    def __enter__(self) -> Target:
        """Begin to write."""

    def __exit__(self, kind: object, *_: object) -> None:
        """Finish, unless an error ended the writing."""

    def put(self, name: str, blocks: Iterable[torch.Tensor]) -> None:
        """Write the next tensor, given in pieces."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor's bytes lie."""

    file: Path
    offset: int


class Weights:
    """The safetensors of a model folder, or those `files` in it.

    Raises BrokenModel for headers that do not fit the files.
    """

    def __init__(self, folder: Path, files: Sequence[str] = ()) -> None:
        self._places: dict[str, Place] = {}
        self._tensors: dict[str, Tensor] = {}
        for name in files or weight_files(folder):
            file = folder / name
            with file.open("rb") as opened:
                offset = 8 + struct.unpack("<Q", opened.read(8))[0]
            for tensor in read_safetensors(file):
                self._tensors[tensor.name] = tensor
                self._places[tensor.name] = Place(file, offset)
                offset += tensor.size

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor, file by file, in the order of its bytes."""
        return tuple(self._tensors.values())

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def tensor(self, name: str) -> torch.Tensor:
        """That tensor whole, in its own type and shape, in memory of its own on the CPU."""
        tensor, place = self._tensors[name], self._places[name]
        with place.file.open("rb", buffering=0) as file:
            file.seek(place.offset)
            return read_values(file, tensor.type, tensor.elements).reshape(tensor.shape)

    def blocks(self, name: str) -> Iterator[torch.Tensor]:
        """The tensor's values in pieces of at most PIECE bytes: flat, in its own type."""
        tensor, place = self._tensors[name], self._places[name]
        step = PIECE // DTYPES[tensor.type]
        with place.file.open("rb", buffering=0) as file:
            file.seek(place.offset)
            for begin in range(0, tensor.elements, step):
                yield read_values(file, tensor.type, min(step, tensor.elements - begin))


def read_values(file: FileIO, kind: str, count: int) -> torch.Tensor:
    """The next `count` values of an unbuffered file, in memory of their own. Raises BrokenModel."""
    import torch

    values = torch.empty(count, dtype=dtype_of(kind))
    waiting = memoryview(values.view(torch.uint8).numpy())
    while waiting:
        read = file.readinto(waiting)  # a read stops at 2 GB
        if not read:
            raise BrokenModel(_CHANGED, name=Path(str(file.name)).name)
        waiting = waiting[read:]
    return values


class Writer:
    """Writes safetensors into a folder, a new file every SHARD bytes, the index last; each file synced.

    What is coming must be known: `tensors`, which `put` takes in the order of `Writer.tensors`. Hashing
    and writing happen in a thread of their own, beside reading and computing. Raises DiskFullError.
    """

    def __init__(self, folder: Path, tensors: Iterable[Tensor], shard: int = SHARD) -> None:
        # Wide types first: readers map a file's bytes, and values must lie at multiples of their width.
        self.tensors = tuple(sorted(tensors, key=lambda tensor: -DTYPES[tensor.type]))
        self.files: list[StoredFile] = []
        """Every file written, the index included; complete after the `with`."""
        self._folder = folder
        self._shards = _split(self.tensors, shard)
        self._coming = [tensor.name for tensor in reversed(self.tensors)]
        self._sizes = {tensor.name: tensor.size for tensor in self.tensors}
        self._last = {part[-1].name for part in self._shards}
        self._queue: queue.Queue[Any] = queue.Queue(WAITING)
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._shard = -1

    def __enter__(self) -> Writer:
        self._thread.start()
        self._begin_shard()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()
        if kind is None:
            self._check()
            if self._coming:
                raise ValueError(f"{self._coming[-1]} was not written")
            self._write_index()

    def put(self, name: str, blocks: Iterable[torch.Tensor]) -> None:
        """Write the next tensor, given as pieces of any shape in the type that was announced.

        The pieces belong to the writer from then on.
        """
        import torch

        if not self._coming or self._coming[-1] != name:
            raise ValueError(f"{name} is not the tensor that comes next")
        left = self._sizes[name]
        for block in blocks:
            self._check()
            values = block.contiguous().reshape(-1).view(torch.uint8)
            left -= values.numel()
            if values.numel():
                self._queue.put(memoryview(values.numpy()))
        if left:
            raise ValueError(f"{name} has another size than was announced")
        self._coming.pop()
        if name in self._last:
            self._queue.put(_END)
            if self._coming:
                self._begin_shard()

    def _begin_shard(self) -> None:
        self._shard += 1
        name, tensors = self._name(self._shard), self._shards[self._shard]
        self._queue.put(self._folder / name)
        self._queue.put(memoryview(_header(tensors)))

    def _name(self, shard: int) -> str:
        count = len(self._shards)
        return (
            "model.safetensors" if count == 1 else f"model-{shard + 1:05}-of-{count:05}.safetensors"
        )

    def _write(self) -> None:
        """The thread: opens, hashes, writes and syncs what comes through the queue."""
        file: _Hashed | None = None
        try:
            while (item := self._queue.get()) is not None:
                if self._failed:  # whoever puts must not wait for room
                    continue
                try:
                    if isinstance(item, Path):
                        file = _Hashed(item)
                    elif file and item is _END:
                        self.files.append(file.finished())
                        file = None
                    elif file:
                        file.write(item)
                except (OSError, ValueError, MemoryError) as error:  # `put` raises it
                    self._failed = error
        finally:
            if file:
                file.close()

    def _check(self) -> None:
        error = self._failed
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(str(self._folder)) from error
        if error:
            raise error

    def _write_index(self) -> None:
        if len(self._shards) == 1:
            return
        places = {
            tensor.name: self._name(number)
            for number, part in enumerate(self._shards)
            for tensor in part
        }
        total = {"total_size": sum(self._sizes.values())}
        text = json.dumps({"metadata": total, "weight_map": dict(sorted(places.items()))}, indent=2)
        self.files.append(write_file(self._folder / INDEX, text.encode()))


def write_file(file: Path, content: bytes) -> StoredFile:
    """Write a small file, synced; its hash. Raises DiskFullError."""
    try:
        file.write_bytes(content)
        sync(file)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(str(file.parent)) from error
        raise
    found = file.stat()
    digest = hashlib.sha256(content).hexdigest()
    return StoredFile(file.name, found.st_size, digest, found.st_mtime_ns)


class _Hashed:
    """A file that is hashed while it is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = hashlib.sha256()
        self._file: BinaryIO = path.open("xb", buffering=0)

    def write(self, data: memoryview) -> None:
        self._digest.update(data)
        while data:
            data = data[self._file.write(data) :]

    def finished(self) -> StoredFile:
        self._file.close()
        sync(self._path)
        found = self._path.stat()
        return StoredFile(
            self._path.name, found.st_size, self._digest.hexdigest(), found.st_mtime_ns
        )

    def close(self) -> None:
        self._file.close()


_END = object()


def _split(tensors: Sequence[Tensor], shard: int) -> list[list[Tensor]]:
    """The tensors of each file, in order; one larger than `shard` has a file of its own."""
    parts: list[list[Tensor]] = []
    size = 0
    for tensor in tensors:
        if not parts or size + tensor.size > shard:
            parts.append([])
            size = 0
        parts[-1].append(tensor)
        size += tensor.size
    return parts


def _header(tensors: Sequence[Tensor]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for tensor in tensors:
        entries[tensor.name] = {
            "dtype": tensor.type,
            "shape": list(tensor.shape),
            "data_offsets": [position, position + tensor.size],
        }
        position += tensor.size
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
