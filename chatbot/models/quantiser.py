"""llama.cpp's quantiser: asked with our choices, listened to while it works, never believed.

`llama_model_quantize` tells how far it is and what it could not do only in its log, and of a disk that
ran full it tells nothing; `models.gguf` opens what it wrote.
"""

from __future__ import annotations

import ctypes
import re
import shutil
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatbot.errors import (
    BrokenModel,
    Cancelled,
    CannotConvert,
    DiskFullError,
    MissingBackend,
    ModelError,
)
from chatbot.hardware.process import physical_cores
from chatbot.i18n import N_
from chatbot.memory.facts import ModelFacts, Tensor
from chatbot.memory.gguf import TYPES
from chatbot.memory.metadata import FILE_TYPES
from chatbot.models.files import Report
from chatbot.models.importance import read_importance
from chatbot.models.llama_log import heard

FLOATS = ("F32", "F16", "BF16")
_QUANTISING = N_("Quantising: {part}")
_KEPT = 40  # of its last lines
_WRITTEN = "quantised.part"
_BLOCKS = {name: per_block for name, per_block, _ in TYPES.values()}
_TYPE_IDS = {name: number for number, (name, _, _) in TYPES.items()}
_FILE_TYPE_IDS = {name: number for number, name in FILE_TYPES.items()}
# Types for whose odd columns llama.cpp knows no way out, so that it would refuse the whole model.
_WITHOUT_FALLBACK = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4", "Q1_0")

_AT = re.compile(r"\[\s*\d+/\s*\d+\]\s+(\S+)")
_FALLBACK = re.compile(
    r"warning: (\S+)\s+- ncols\s+\d+ not divisible by.*required for type\s+(\w+)"
)
_FAILED = re.compile(r"failed to quantize: (.+)")
_WHY = "error loading model: "
_DAMAGED = ("invalid data", "corrupt", "incomplete", "validation failed", "not within the file")


@dataclass(frozen=True, slots=True)
class Wish:
    """What to make: the type, the importance matrix if any, whether lossy sources are fine, threads (0: all)."""

    type: str
    importance: Path | None = None
    requantise: bool = False
    threads: int = 0


def run_quantiser(report: Report, facts: ModelFacts, file: Path, wish: Wish) -> dict[str, str]:
    """Let llama.cpp write `file`; the type each tensor should have had where its shape forbade it.

    `report` hears from 0 to 1. Raises BrokenModel, CannotConvert, DiskFullError, MissingBackend, Cancelled.
    """
    try:
        from llama_cpp import llama_cpp as c
    except ImportError as error:
        raise MissingBackend(str(error), name=facts.name) from error

    params = c.llama_model_quantize_default_params()
    params.ftype = _FILE_TYPE_IDS[wish.type]
    params.nthread = wish.threads or physical_cores()
    params.allow_requantize = wish.requantise
    kept: list[Any] = []  # what the parameters point to must live as long as the call
    overrides = _overrides(facts, wish.type)
    if overrides:
        params.tt_overrides = _override_array(c, overrides, kept)
    if wish.importance is not None:
        params.imatrix = _importance_array(c, facts, wish.importance, kept)
    hearing = _Hearing(report, facts.tensors)
    source = str(Path(facts.path).absolute()).encode()
    # On Windows it opens what it writes by the old code page: a plain name here takes every path.
    with heard(c, hearing.hear), chdir(file.parent):
        code = c.llama_model_quantize(source, _WRITTEN.encode(), ctypes.byref(params))
    if hearing.ended is not None:
        raise hearing.ended
    if code:
        raise _failed(facts, hearing.lines, file.parent)
    if (
        written := file.with_name(_WRITTEN)
    ).exists():  # else `models.gguf` says that nothing is there
        written.rename(file)
    return dict.fromkeys(overrides, wish.type) | hearing.fallbacks


def check_loads(file: Path, name: str) -> None:
    """Raise BrokenModel unless llama.cpp takes the file: names, shapes and vocabulary; no weight is read.

    Without llama.cpp nothing is checked: the file cannot be run here either.
    """
    try:
        from llama_cpp import llama_cpp as c
    except ImportError:
        return
    params = c.llama_model_default_params()
    params.load_mode, params.no_alloc = c.LLAMA_LOAD_MODE_NONE, True
    params.n_gpu_layers, params.use_extra_bufts = 0, False
    lines: list[str] = []
    with heard(c, lines.append):
        model = c.llama_model_load_from_file(str(file).encode(), params)
    if not model:
        reasons = [line.partition(_WHY)[2] for line in lines if _WHY in line] or lines[-1:]
        raise BrokenModel(
            N_("llama.cpp does not take it ({part})."), name=name, part="; ".join(reasons)
        )
    c.llama_model_free(model)


def disk_is_full(folder: Path) -> bool:
    """Whether that disk has no room left at all: the cause of a file that was cut off."""
    return shutil.disk_usage(folder).free < 1 << 20


def _overrides(facts: ModelFacts, wanted: str) -> dict[str, str]:
    """Types for tensors whose columns fit no block of the wanted type, where llama.cpp would give up."""
    found = {}
    block = _BLOCKS.get(wanted, 256)
    for tensor in facts.tensors:
        columns = tensor.shape[-1]
        if len(tensor.shape) < 2 or wanted in FLOATS:
            continue
        if columns % 32:
            found[tensor.name] = "F16"
        elif wanted in _WITHOUT_FALLBACK and columns % block:
            found[tensor.name] = "Q8_0"
    return found


def _override_array(c: Any, overrides: dict[str, str], kept: list[Any]) -> Any:
    array = (c.llama_model_tensor_override * (len(overrides) + 1))()
    for entry, (name, used) in zip(array, overrides.items(), strict=False):
        pattern = f"^{re.escape(name)}$".encode()
        kept.append(pattern)
        entry.pattern, entry.type = pattern, _TYPE_IDS[used]
    kept.append(array)
    return array


def _importance_array(c: Any, facts: ModelFacts, importance: Path, kept: list[Any]) -> Any:
    values = read_importance(importance)
    inputs = {t.name: t.elements // t.shape[-2] for t in facts.tensors if len(t.shape) > 1}
    if any(inputs.get(name) != data.size for name, data in values.items()) or not values:
        raise CannotConvert(
            N_("the importance matrix {part} was measured on another model."),
            name=facts.name,
            part=importance.name,
        )
    array = (c.llama_model_imatrix_data * (len(values) + 1))()
    for entry, (name, data) in zip(array, values.items(), strict=False):
        encoded = name.encode()
        kept.extend((encoded, data))
        entry.name, entry.size = encoded, data.size
        entry.data = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    kept.append(array)
    return array


class _Hearing:
    """What llama.cpp says while it quantises: how far it is, which tensors had to be of another type."""

    def __init__(self, report: Report, tensors: Sequence[Tensor]) -> None:
        self.lines: list[str] = []
        self.fallbacks: dict[str, str] = {}
        self.ended: Cancelled | None = None
        self._report = report
        self._sizes = {tensor.name: tensor.size for tensor in tensors}
        self._total = max(sum(self._sizes.values()), 1)
        self._done = 0

    def hear(self, text: str) -> None:
        self.lines = [*self.lines[1 - _KEPT :], text]
        if match := _FALLBACK.search(text):
            self.fallbacks[match[1]] = match[2].upper()
        elif match := _AT.search(text):
            try:
                self._report(self._done / self._total, _QUANTISING, part=match[1])
            except Cancelled as error:  # a callback from C cannot raise; `run_quantiser` does
                self.ended = error
            self._done += self._sizes.get(match[1], 0)


def _failed(facts: ModelFacts, lines: list[str], folder: Path) -> ModelError | DiskFullError:
    said = [match[1] for line in lines if (match := _FAILED.search(line))]
    reason = said[-1] if said else next(iter(lines[::-1]), "llama_model_quantize")
    if disk_is_full(folder):
        return DiskFullError(str(folder))
    kind = BrokenModel if any(word in reason for word in _DAMAGED) else CannotConvert
    return kind(
        N_("llama.cpp cannot quantise it ({part})."), name=facts.name, part=reason, lines=lines
    )
