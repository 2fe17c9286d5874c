"""Steps `convert` (model folder → GGUF file) and `quantise` (GGUF file → smaller GGUF file).

Both write one file into the folder `target`, open it again and hand it over only when it is what was
asked for: llama.cpp's own quantiser is known to report success on a disk that ran full.
"""

from __future__ import annotations

import ctypes
import logging
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chatbot.child import Child
from chatbot.errors import (
    BrokenModel,
    Cancelled,
    CannotConvert,
    DiskFullError,
    MissingBackend,
    ModelError,
    SettingsError,
)
from chatbot.i18n import N_
from chatbot.memory.facts import ModelFacts, Tensor
from chatbot.memory.gguf import TYPES
from chatbot.memory.headers import FILE_TYPES, read_model
from chatbot.models.files import Report, all_stored, check_room
from chatbot.settings import sync

log = logging.getLogger(__name__)

CONVERTED = ("F16", "BF16", "F32", "Q8_0")
"""Types the converter writes; every other one comes out of `quantise`."""
FLOATS = ("F32", "F16", "BF16")
QUANTISED = tuple(name for name in FILE_TYPES.values() if name not in (*FLOATS, "NVFP4"))
NEED_IMPORTANCE = (
    "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S",
)  # fmt: skip
"""Types that llama.cpp refuses to write without an importance matrix."""

HUNG_AFTER = 60.0
WRITTEN_BY = 0.9  # of the work; the rest is hashing what was written
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_WRITING = N_("Writing the GGUF file")
_QUANTISING = N_("Quantising: {part}")
_CHECKING = N_("Checking what was written")
_KEPT = 40  # of the converter's or quantiser's last lines
_HEADER = 50_000_000  # room for vocabulary and merges

_BYTES = {name: size / per_block for name, per_block, size in TYPES.values()}
_BLOCKS = {name: per_block for name, per_block, _ in TYPES.values()}
_TYPE_IDS = {name: number for number, (name, _, _) in TYPES.items()}
_FILE_TYPE_IDS = {name: number for number, name in FILE_TYPES.items()}
# Types for whose odd columns llama.cpp knows no way out, so that it would refuse the whole model.
_WITHOUT_FALLBACK = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4", "NVFP4", "Q1_0")

_AT = re.compile(r"\[\s*(\d+)/\s*(\d+)\]\s+(\S+)")
_FALLBACK = re.compile(
    r"warning: (\S+)\s+- ncols\s+(\d+) not divisible by.*required for type\s+(\w+)"
)
_FAILED = re.compile(r"failed to quantize: (.+)")
_DAMAGED = ("invalid data", "corrupt", "incomplete", "validation failed", "not within the file")
_TYPE_IN_NAME = re.compile(
    r"[-._ ](?:" + "|".join(sorted(FILE_TYPES.values(), key=len, reverse=True)) + r")$",
    re.IGNORECASE,
)
_SPLIT = re.compile(r"-\d{5}-of-\d{5}$")
_UNSAFE = re.compile(r'[\x00-\x1f<>:"/\\|?*]+')


def convert(
    report: Report,
    *,
    source: Path,
    target: Path,
    type: str = "F16",  # noqa: A002  (the steps' common word)
    name: str = "",
) -> dict[str, Any]:
    """The model folder `source` as one GGUF file in `target`: {files, figures}.

    `name` is what the model calls itself, else the folder's name. figures: types (bytes of each),
    pre_tokenizer {name, why, tried}, tensors, parameters, bytes_in, bytes_out, seconds.
    Raises ModelError, BrokenModel, DiskFullError, SettingsError.
    """
    started = time.monotonic()
    wanted = type.upper()
    if wanted not in CONVERTED:
        raise SettingsError(f"type = {type} ({', '.join(CONVERTED)})")
    facts = read_model(source)
    if facts.format != "hf":
        raise CannotConvert(N_("only a model folder can be converted to GGUF."), name=facts.name)
    if not facts.tokenizer:
        raise CannotConvert(N_("its tokenizer is missing; the copy is incomplete."), name=facts.name)
    expected = int(sum(t.elements * _BYTES[wanted] for t in facts.tensors))
    check_room(target, expected + _HEADER)
    file = target / _file_name(name or facts.name, wanted)
    done = _converted(report, facts, file, wanted, name or facts.name, expected)
    made = _reopened(file)
    if (made.vocabulary, len(made.layers)) != (facts.vocabulary, len(facts.layers)) and (
        facts.writes_text
    ):
        raise _unlike(facts, f"{made.vocabulary}/{len(made.layers)}")
    figures = {
        "asked": wanted,
        "types": made.size_by_type(),
        "pre_tokenizer": done["pre_tokenizer"],
        "tensors": len(made.tensors),
        "parameters": made.parameters,
        "bytes_in": facts.size,
        "bytes_out": file.stat().st_size,
    }
    return _handed_over(report, file, figures, started)


def quantise(
    report: Report,
    *,
    source: Path,
    target: Path,
    type: str,  # noqa: A002  (the steps' common word)
    importance: Path | None = None,
    requantise: bool = False,
    threads: int | None = None,
) -> dict[str, Any]:
    """The GGUF `source` as one of another type in `target`: {files, figures}.

    `importance` is a file of `measure_importance` or llama.cpp's own; `requantise` allows a source
    that lost precision already; `threads` None takes one for each core. figures: asked, types (bytes of
    each as written), fallbacks [{tensor, wanted, used}], importance, bytes_in, bytes_out, seconds.
    Raises ModelError, BrokenModel, DiskFullError, SettingsError, MissingBackend.
    """
    started = time.monotonic()
    wanted = type.upper()
    if wanted not in (*QUANTISED, *FLOATS):
        raise SettingsError(f"type = {type} ({', '.join(QUANTISED)})")
    facts = read_model(source)
    _check_quantisable(facts, wanted, importance, requantise=requantise)
    check_room(target, _room(facts, wanted))
    stem = _TYPE_IN_NAME.sub("", _SPLIT.sub("", Path(facts.path).stem))
    file = target / _file_name(stem, wanted)
    overrides = _overrides(facts, wanted)
    fallbacks = _quantised(report, facts, file, wanted, overrides, importance, requantise, threads)
    made = _reopened(file)
    if _shapes(made) != _shapes(facts):
        raise _unlike(facts, f"{len(made.tensors)}/{len(facts.tensors)}")
    used = {tensor.name: tensor.type for tensor in made.tensors}
    figures = {
        "asked": wanted,
        "types": made.size_by_type(),
        "fallbacks": [
            {"tensor": name, "wanted": better, "used": used[name]}
            for name, better in fallbacks.items()
            if name in used
        ],
        "importance": importance is not None,
        "tensors": len(made.tensors),
        "bytes_in": facts.size,
        "bytes_out": file.stat().st_size,
    }
    return _handed_over(report, file, figures, started)


def _converted(
    report: Report, facts: ModelFacts, file: Path, wanted: str, name: str, expected: int
) -> dict[str, Any]:
    """Run the converter in a process of its own; how far it is shows in the growing file."""
    child = Child(
        "chatbot.models.converter",
        name="convert",
        environment=_OFFLINE,
        lowest_priority=True,
        hung_after=HUNG_AFTER,
    )
    params = {"source": facts.path, "file": str(file), "type": wanted.lower(), "name": name}
    try:
        for event, _ in child.stream("convert", params, ticks=True):
            if "pre_tokenizer" in event:
                return event
            written = file.stat().st_size if file.exists() else 0
            report(WRITTEN_BY * min(written / max(expected, 1), 1.0), _WRITING)
        raise AssertionError("a stream ends with its result")
    finally:
        child.close(grace=0.0)


def _check_quantisable(
    facts: ModelFacts, wanted: str, importance: Path | None, *, requantise: bool
) -> None:
    if facts.format != "gguf":
        raise CannotConvert(
            N_("only a GGUF file can be quantised; convert it first."), name=facts.name
        )
    lossy = sorted({tensor.type for tensor in facts.tensors} - {*FLOATS, "I8", "I16", "I32", "I64"})
    if lossy and not requantise:
        raise CannotConvert(
            N_(
                "it is quantised already ({part}); quantise the F16 or BF16 file it came from, or say that"
                " losing precision twice is fine."
            ),
            name=facts.name,
            part=", ".join(lossy),
        )
    if wanted == facts.quantisation:
        raise CannotConvert(N_("it is of the type {part} already."), name=facts.name, part=wanted)
    if wanted in NEED_IMPORTANCE and importance is None:
        raise CannotConvert(
            N_("{part} needs an importance matrix; measure it from your documents first."),
            name=facts.name,
            part=wanted,
        )


def _overrides(facts: ModelFacts, wanted: str) -> dict[str, str]:
    """Types for the tensors whose columns no block of the wanted type fits and llama.cpp would give up on."""
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


def _quantised(
    report: Report,
    facts: ModelFacts,
    file: Path,
    wanted: str,
    overrides: dict[str, str],
    importance: Path | None,
    requantise: bool,
    threads: int | None,
) -> dict[str, str]:
    """Let llama.cpp write the file; the type each tensor should have had where its shape forbade it."""
    try:
        from llama_cpp import llama_cpp as c
    except ImportError as error:
        raise MissingBackend(str(error), name=facts.name) from error
    import psutil

    params = c.llama_model_quantize_default_params()
    params.ftype = _FILE_TYPE_IDS[wanted]
    params.nthread = threads or psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    params.allow_requantize = requantise
    kept: list[Any] = []  # what the parameters point to must live as long as the call
    if overrides:
        params.tt_overrides = _override_array(c, overrides, kept)
    if importance is not None:
        params.imatrix = _importance_array(c, importance, kept)
    hearing = _Hearing(report, facts.tensors)
    with _heard(c, hearing):
        code = c.llama_model_quantize(facts.path.encode(), str(file).encode(), ctypes.byref(params))
    if hearing.ended is not None:
        raise hearing.ended
    if code:
        raise _failed(facts, hearing.lines, file.parent)
    return dict.fromkeys(overrides, wanted) | hearing.fallbacks


def _override_array(c: Any, overrides: dict[str, str], kept: list[Any]) -> Any:
    array = (c.llama_model_tensor_override * (len(overrides) + 1))()
    for entry, (name, used) in zip(array, overrides.items(), strict=False):
        pattern = f"^{re.escape(name)}$".encode()
        kept.append(pattern)
        entry.pattern, entry.type = pattern, _TYPE_IDS[used]
    kept.append(array)
    return array


def _importance_array(c: Any, importance: Path, kept: list[Any]) -> Any:
    from chatbot.models.importance import read_importance

    values = read_importance(importance)
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
            self.fallbacks[match[1]] = match[3].upper()
        elif match := _AT.search(text):
            try:
                self._report(WRITTEN_BY * self._done / self._total, _QUANTISING, part=match[3])
            except Cancelled as error:  # a callback from C cannot raise; `_quantised` does
                self.ended = self.ended or error
            self._done += self._sizes.get(match[3], 0)


@contextmanager
def _heard(c: Any, hearing: _Hearing) -> Iterator[None]:
    from llama_cpp._logger import llama_log_callback as usual

    callback = c.llama_log_callback(
        lambda _level, text, _data: hearing.hear(text.decode("utf-8", "replace").strip())
    )
    c.llama_log_set(callback, None)
    try:
        yield
    finally:
        c.llama_log_set(usual, None)


def _failed(facts: ModelFacts, lines: list[str], folder: Path) -> ModelError | DiskFullError:
    said = [match[1] for line in lines if (match := _FAILED.search(line))]
    reason = said[-1] if said else next(iter(lines[::-1]), "llama_model_quantize")
    if _disk_is_full(folder):
        return DiskFullError(str(folder))
    kind = BrokenModel if any(word in reason for word in _DAMAGED) else CannotConvert
    return kind(
        N_("llama.cpp cannot quantise it ({part})."), name=facts.name, part=reason, lines=lines
    )


def _reopened(file: Path) -> ModelFacts:
    """The facts of what was written. Raises DiskFullError or BrokenModel when it is not a whole GGUF file."""
    try:
        return read_model(file)
    except ModelError as error:
        if _disk_is_full(file.parent):
            raise DiskFullError(str(file.parent)) from error
        raise


def _disk_is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < 1 << 20


def _unlike(facts: ModelFacts, part: str) -> BrokenModel:
    return BrokenModel(
        N_("what was written does not match it ({part}); nothing was kept."),
        name=facts.name,
        part=part,
    )


def _shapes(facts: ModelFacts) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tensor.shape for tensor in facts.tensors}


def _handed_over(
    report: Report, file: Path, figures: dict[str, Any], started: float
) -> dict[str, Any]:
    def after(fraction: float, message: str = "", **values: Any) -> None:
        report(WRITTEN_BY + (1 - WRITTEN_BY) * fraction, message, **values)

    after(0.0, _CHECKING)
    sync(file)
    files = all_stored(file.parent, [file.name], after, _CHECKING)
    figures["seconds"] = round(time.monotonic() - started, 3)
    return {"files": [asdict(stored) for stored in files], "figures": figures}


def _file_name(name: str, wanted: str) -> str:
    stem = _UNSAFE.sub("-", name.rpartition("/")[2]).strip(" .") or "model"
    return f"{stem[:100]}-{wanted}.gguf"


def _room(facts: ModelFacts, wanted: str) -> int:
    """At most so many bytes the file will have."""
    per_weight = _BYTES.get(wanted, _BYTES["Q8_0"]) if wanted in FLOATS else _BYTES["Q8_0"]
    return int(facts.parameters * per_weight) + _HEADER
