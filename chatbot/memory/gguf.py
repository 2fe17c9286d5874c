"""The header of a GGUF file, read so that a hostile file can do no harm.

No length, count or offset of the file is believed before it was held against the file's real size;
nothing is allocated from a declared number. Whatever is wrong raises BrokenModel.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from chatbot.errors import BrokenModel
from chatbot.i18n import N_
from chatbot.memory.facts import Tensor

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_METADATA = 1 << 30
MAX_KEYS = 4096
MAX_TENSORS = 1 << 16
MAX_STRINGS = (
    4_000_000  # in all arrays together; the largest vocabularies with merges have under 1 M
)
KEPT_TEXT = (
    1024  # of a metadata string; names are short, and of a template only its presence counts
)
KEPT_NUMBERS = 4096  # of an array; per-layer figures are shorter
MAX_KEY = 1024
MAX_NAME = 63  # GGML_MAX_NAME
MAX_DIMENSIONS = 4
MAX_ELEMENTS = 1 << 50

TEXT, ARRAY = 8, 9
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}

# ggml type id: name, elements in a block, bytes of a block.
TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2),
    26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip

_SHORT = N_("the file ends before its header does; the copy is incomplete.")
_MALFORMED = N_("its header is malformed ({part}).")
_OUTSIDE = N_("the tensor {part} lies outside the file; the copy is incomplete.")


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Metadata and tensors of one file.

    `values` holds numbers, booleans, the first 1,024 characters of texts and short number arrays;
    `lengths` the number of entries of every array and characters of every text.
    """

    version: int
    values: dict[str, Any]
    lengths: dict[str, int]
    tensors: tuple[Tensor, ...]
    size: int
    header_size: int
    """Bytes before the tensors' data."""
    complete: bool = True
    """Whether all of it was there to read; otherwise it has no tensors."""


def read_gguf(path: Path) -> GgufHeader:
    """The header of one GGUF file. Raises BrokenModel for anything that llama.cpp should never see."""
    try:
        with path.open("rb", buffering=1 << 20) as file:
            return _Reader(file, path.stat().st_size, path.name).header()
    except OSError as error:
        raise BrokenModel(str(error), name=path.name) from error


def read_start(start: bytes, size: int, name: str) -> GgufHeader:
    """As much of the header as stands in a file's first bytes; `size` is the whole file's. No tensors.

    The sizes of a model come before its tokenizer, so the first kilobytes tell them. Raises BrokenModel.
    """
    reader = _Reader(BytesIO(start), size, name)
    try:
        return reader.header()
    except BrokenModel:
        if not reader.ran_out:
            raise
    return GgufHeader(0, reader.values, reader.lengths, (), size, len(start), complete=False)


class _Reader:
    ran_out = False
    """Whether the bytes ended before the header did."""

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self.values: dict[str, Any] = {}
        self.lengths: dict[str, int] = {}
        self._file = file
        self._size = size
        self._name = name
        self._position = 0
        self._strings = 0

    def header(self) -> GgufHeader:
        if self._take(4) != MAGIC:
            raise self._broken(N_("it is not a GGUF file."))
        version = self._number("I")
        if version not in VERSIONS:
            raise self._broken(N_("its GGUF version is not one Hearth reads ({part})."), version)
        tensor_count, key_count = self._number("Q"), self._number("Q")
        if not 0 < tensor_count <= MAX_TENSORS:
            raise self._broken(N_("it holds no usable number of tensors ({part})."), tensor_count)
        if key_count > MAX_KEYS:
            raise self._broken(_MALFORMED, key_count)
        values, lengths = self.values, self.lengths
        for _ in range(key_count):
            key = self._key()
            if key in values:
                raise self._broken(_MALFORMED, key)
            values[key] = self._value(self._number("I"), key)
        alignment = values.get("general.alignment", 32)
        if (
            type(alignment) is not int
            or not 0 < alignment <= 1 << 20
            or alignment & (alignment - 1)
        ):
            raise self._broken(N_("its alignment is not a power of two ({part})."), alignment)
        declared = [self._tensor() for _ in range(tensor_count)]
        start = -(-self._position // alignment) * alignment
        self._check_places(declared, start, alignment)
        return GgufHeader(
            version, values, lengths, tuple(t for t, _ in declared), self._size, start
        )

    def _tensor(self) -> tuple[Tensor, int]:
        """One tensor and the offset of its data."""
        length = self._number("Q")
        if not 0 < length <= MAX_NAME:
            raise self._broken(_MALFORMED, N_("tensor name"))
        name = self._utf8(self._take(length))
        dimensions = self._number("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise self._broken(_MALFORMED, name)
        shape = [self._number("Q") for _ in range(dimensions)]
        kind, offset = self._number("I"), self._number("Q")
        if kind not in TYPES:
            raise self._broken(N_("it uses a tensor type that is not known here ({part})."), kind)
        elements = 1
        for dimension in shape:
            elements *= dimension
            if not 0 < elements <= MAX_ELEMENTS:
                raise self._broken(_MALFORMED, name)
        type_name, per_block, block_size = TYPES[kind]
        if shape[0] % per_block:
            raise self._broken(_MALFORMED, name)
        size = elements // per_block * block_size
        return Tensor(name, tuple(reversed(shape)), type_name, size), offset

    def _check_places(self, declared: list[tuple[Tensor, int]], start: int, alignment: int) -> None:
        names = {tensor.name for tensor, _ in declared}
        if len(names) < len(declared):
            raise self._broken(N_("two of its tensors have the same name."))
        end = 0
        for tensor, offset in sorted(declared, key=lambda pair: pair[1]):
            if offset % alignment or offset < end:
                raise self._broken(
                    N_("its tensors overlap or are misplaced ({part})."), tensor.name
                )
            end = offset + tensor.size
            if start + end > self._size:
                raise self._broken(_OUTSIDE, tensor.name)

    def _value(self, kind: int, key: str) -> Any:
        """A metadata value; its length is written down where it has one."""
        if kind in SCALARS:
            return self._number(SCALARS[kind])
        if kind == TEXT:
            length = self.lengths[key] = self._number("Q")
            kept = self._take(min(length, KEPT_TEXT))
            self._skip(length - len(kept))
            return kept.decode("utf-8", "replace")
        if kind != ARRAY:
            raise self._broken(_MALFORMED, key)
        item, count = self._number("I"), self._number("Q")
        self.lengths[key] = count
        if item == TEXT:
            self._skip_strings(count)
            return None
        if item not in SCALARS:
            raise self._broken(_MALFORMED, key)
        width = struct.calcsize("<" + SCALARS[item])
        if count > KEPT_NUMBERS:
            self._skip(count * width)
            return None
        return struct.unpack(f"<{count}{SCALARS[item]}", self._take(count * width))

    def _skip_strings(self, count: int) -> None:
        self._strings += count
        if self._strings > MAX_STRINGS:
            raise self._broken(_MALFORMED, count)
        if count * 8 > self._size - self._position:
            raise self._broken(_SHORT)
        for _ in range(count):
            self._skip(self._number("Q"))

    def _key(self) -> str:
        length = self._number("Q")
        if not 0 < length <= MAX_KEY:
            raise self._broken(_MALFORMED, length)
        return self._utf8(self._take(length))

    def _utf8(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise self._broken(_MALFORMED, repr(data[:40])) from None

    def _number(self, code: str) -> Any:
        layout = "<" + code
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _take(self, length: int) -> bytes:
        self._advance(length)
        data = self._file.read(length)
        if len(data) < length:  # it shrank while we read, or only its start is here
            self.ran_out = True
            raise self._broken(_SHORT)
        return data

    def _skip(self, length: int) -> None:
        self._advance(length)
        self._file.seek(length, 1)

    def _advance(self, length: int) -> None:
        self._position += length
        if self._position > self._size:
            raise self._broken(_SHORT)
        if self._position > MAX_METADATA:
            raise self._broken(_MALFORMED, self._position)

    def _broken(self, detail: str, part: object = "") -> BrokenModel:
        return BrokenModel(detail, name=self._name, part=str(part))
