"""The number types of weights: what their bytes mean, and what rounding to them may change.

GGUF types are decoded by the package gguf, apart from llama.cpp; `Requantiser` asks llama.cpp's own code
what it makes of the same rows, which is the exact expectation for a quantised tensor.
"""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from chatbot.hardware.process import physical_cores
from chatbot.memory.folder import DTYPES
from chatbot.memory.gguf import TYPES
from chatbot.models.verify.stored import row_size

FLOATS = ("F64", "F32", "BF16", "F16")
_NUMBERS = {name: number for number, (name, *_) in TYPES.items()}
_PLAIN = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U8": "<u1", "U16": "<u2", "U32": "<u4", "BOOL": "<u1",
}  # fmt: skip
_MANTISSA = {"F64": 52, "F32": 23, "BF16": 7, "F16": 10}
_SMALLEST = {"F64": -1074, "F32": -149, "BF16": -133, "F16": -24}

Values = np.ndarray[Any, np.dtype[Any]]


def decode(raw: Values, kind: str, width: int) -> Values | None:
    """The values of those bytes, rows × width, float32 (float64 for F64); None for an unknown type."""
    if kind == "BF16":
        wide = raw.view("<u2").astype(np.uint32) << 16
        return wide.view(np.float32).reshape(-1, width)
    if kind in _PLAIN:
        plain = raw.view(_PLAIN[kind]).reshape(-1, width)
        return plain if kind == "F64" else plain.astype(np.float32, copy=False)
    if kind in DTYPES:
        return None
    import gguf

    try:
        rows = raw.reshape(-1, row_size(kind, width))
        with np.errstate(all="ignore"):  # a damaged scale is NaN or infinite, and is counted later
            found: Values = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(_NUMBERS[kind]))
    except NotImplementedError:
        return None
    return found.reshape(-1, width)


def rounded(values: Values, kind: str) -> Values:
    """The nearest values that the float type can hold, ties to even; too large ones become infinite."""
    if kind == "BF16":
        bits = values.astype(np.float32).view(np.uint32)
        even = ((bits >> 16) & 1) + np.uint32(0x7FFF)
        return ((bits + even) & np.uint32(0xFFFF0000)).view(np.float32)
    if kind in ("F16", "F32"):
        with np.errstate(over="ignore"):
            narrow = values.astype(np.float16 if kind == "F16" else np.float32)
        return narrow.astype(np.float32)
    return values


def half_step(values: Values, kind: str) -> Values:
    """Half the distance between neighbours of that float type at each value."""
    _, exponent = np.frexp(np.abs(values).astype(np.float64))
    step: Values = np.ldexp(1.0, np.maximum(exponent - 1 - _MANTISSA[kind], _SMALLEST[kind]))
    return step / 2


class Requantiser:
    """What llama.cpp's own code makes of rows: bit for bit what `llama_model_quantize` writes."""

    def __init__(self, threads: int = 0) -> None:
        """Raises ImportError or OSError where llama.cpp is not installed."""
        self._library = _ggml()
        self._pool = ThreadPoolExecutor(
            threads or physical_cores(), thread_name_prefix="requantise"
        )

    def close(self) -> None:
        self._pool.shutdown()

    def needs_importance(self, kind: str) -> bool:
        """Whether the type cannot be made without an importance matrix."""
        return bool(self._library.ggml_quantize_requires_imatrix(_NUMBERS[kind]))

    def rows(self, values: Values, kind: str, importance: Values | None = None) -> Values:
        """The bytes of rows × width float32 values in that type, one row each."""
        values = np.ascontiguousarray(values, np.float32)
        count, width = values.shape
        size = row_size(kind, width)
        made = np.empty((count, size), np.uint8)
        weights = None
        if importance is not None:
            importance = np.ascontiguousarray(importance, np.float32)
            weights = importance.ctypes.data

        def part(begin: int, end: int) -> None:
            self._library.ggml_quantize_chunk(
                _NUMBERS[kind],
                values[begin:end].ctypes.data,
                made[begin:end].ctypes.data,
                0,
                end - begin,
                width,
                weights,
            )

        each = max(1, min(-(-count // physical_cores()), (1 << 18) // width))
        self._library.ggml_quantize_init(_NUMBERS[kind])  # not safe from several threads at once
        starts = range(0, count, each)
        list(self._pool.map(lambda b: part(b, min(b + each, count)), starts))
        return made


@cache
def _ggml() -> ctypes.CDLL:
    import llama_cpp

    folder = Path(llama_cpp.__file__).parent / "lib"
    names = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll")
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise ImportError("ggml-base")
    library = ctypes.CDLL(str(found))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        *[ctypes.c_int64] * 3,
        ctypes.c_void_p,
    ]
    library.ggml_quantize_init.argtypes = [ctypes.c_int]
    library.ggml_quantize_requires_imatrix.argtypes = [ctypes.c_int]
    library.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    return library
