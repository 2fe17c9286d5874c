"""Steps `convert` (model folder → GGUF file) and `quantise` (GGUF file → smaller GGUF file).

Both write one file into the folder `target`, open it again and hand it over only when it is what was
asked for: llama.cpp's own quantiser is known to report success on a disk that ran full.
"""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chatbot.child import Child
from chatbot.errors import BrokenModel, CannotConvert, DiskFullError, ModelError, SettingsError
from chatbot.i18n import N_
from chatbot.memory.facts import ModelFacts
from chatbot.memory.gguf import TYPES
from chatbot.memory.headers import read_model
from chatbot.memory.metadata import FILE_TYPES
from chatbot.models.files import Report, all_stored, check_room
from chatbot.models.lora_gguf import convert_adapter
from chatbot.models.quantiser import FLOATS, Wish, check_loads, disk_is_full, run_quantiser
from chatbot.settings import sync

CONVERTED = ("F16", "BF16", "F32", "Q8_0")
"""Types the converter writes; every other one comes out of `quantise`."""
QUANTISED = tuple(name for name in FILE_TYPES.values() if name not in (*FLOATS, "NVFP4"))
"""Types that `quantise` writes, besides the floats."""
NEED_IMPORTANCE = (
    "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S",
)  # fmt: skip
"""Types that llama.cpp refuses to write without an importance matrix."""

HUNG_AFTER = 60.0
_WRITTEN = 0.9  # of the work; the rest is hashing what was written
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TQDM_DISABLE": "1",
}
_WRITING, _CHECKING = N_("Writing the GGUF file"), N_("Checking what was written")
_HEADER = 50_000_000  # room for vocabulary and merges
_WHOLE = ("I8", "I16", "I32", "I64")

_BYTES = {name: size / per_block for name, per_block, size in TYPES.values()}
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
    base: Path | None = None,
    name: str = "",
) -> dict[str, Any]:
    """The model folder `source` as one GGUF file in `target`: {files, figures}.

    An adapter's folder becomes a LoRA file for the GGUF of its base, the folder `base`. `name` is what
    the model calls itself, else the folder's name. figures: types (bytes of each),
    pre_tokenizer {name, why, tried}, tensors, parameters, bytes_in, bytes_out, seconds.
    Raises ModelError, BrokenModel, DiskFullError, SettingsError.
    """
    started = time.monotonic()
    wanted, facts = type.upper(), read_model(source)
    if wanted not in CONVERTED:
        raise SettingsError(f"type = {type} ({', '.join(CONVERTED)})")
    if facts.format == "adapter":
        return _converted_adapter(report, facts, target, base)
    _check_convertible(facts)
    name = name or facts.name
    expected = int(sum(tensor.elements * _BYTES[wanted] for tensor in facts.tensors))
    check_room(target, expected + _HEADER)
    file = target / _file_name(name, wanted)
    params = {"source": facts.path, "file": str(file), "type": wanted.lower(), "name": name}
    done = _converted(report, params, file, expected)
    made = _reopened(file, name)
    ours, theirs = _geometry(made), _geometry(facts)
    if facts.writes_text and ours != theirs:
        raise _unlike(facts, f"{ours} ≠ {theirs}")
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
    wish = Wish(type.upper(), importance, requantise, threads or 0)
    if wish.type not in (*QUANTISED, *FLOATS):
        raise SettingsError(f"type = {type} ({', '.join(QUANTISED)})")
    facts = read_model(source)
    _check_quantisable(facts, wish)
    check_room(target, int(facts.parameters * _BYTES.get(wish.type, _BYTES["Q8_0"])) + _HEADER)
    stem = _TYPE_IN_NAME.sub("", _SPLIT.sub("", Path(facts.path).stem))
    file = target / _file_name(stem, wish.type)

    def progress(fraction: float, message: str = "", **values: Any) -> None:
        report(_WRITTEN * fraction, message, **values)

    fallbacks = run_quantiser(progress, facts, file, wish)
    made = _reopened(file, facts.name)
    if _shapes(made) != _shapes(facts):
        raise _unlike(facts, f"{len(made.tensors)} ≠ {len(facts.tensors)}")
    used = {tensor.name: tensor.type for tensor in made.tensors}
    figures = {
        "asked": wish.type,
        "types": made.size_by_type(),
        "fallbacks": [
            {"tensor": tensor, "wanted": wanted, "used": used[tensor]}
            for tensor, wanted in fallbacks.items()
            if tensor in used
        ],
        "importance": importance is not None,
        "tensors": len(made.tensors),
        "bytes_in": facts.size,
        "bytes_out": file.stat().st_size,
    }
    return _handed_over(report, file, figures, started)


def _converted_adapter(
    report: Report, facts: ModelFacts, target: Path, base: Path | None
) -> dict[str, Any]:
    if base is None:
        raise CannotConvert(
            N_("an adapter becomes a GGUF file only together with its base model."), name=facts.name
        )
    return convert_adapter(report, source=base, adapter=Path(facts.path), target=target)


def _check_convertible(facts: ModelFacts) -> None:
    if facts.format != "hf":
        raise CannotConvert(N_("only a model folder can be converted to GGUF."), name=facts.name)
    if not facts.tokenizer:
        raise CannotConvert(
            N_("its tokenizer is missing; the copy is incomplete."), name=facts.name
        )


def _check_quantisable(facts: ModelFacts, wish: Wish) -> None:
    if facts.format != "gguf":
        raise CannotConvert(
            N_("only a GGUF file can be quantised; convert it first."), name=facts.name
        )
    lossy = sorted({tensor.type for tensor in facts.tensors} - {*FLOATS, *_WHOLE})
    if lossy and not wish.requantise:
        raise CannotConvert(
            N_(
                "it is quantised already ({part}); quantise the F16 or BF16 file it came from, or say that"
                " losing precision twice is fine."
            ),
            name=facts.name,
            part=", ".join(lossy),
        )
    if wish.type == facts.quantisation:
        raise CannotConvert(
            N_("it is of the type {part} already."), name=facts.name, part=wish.type
        )
    if wish.type in NEED_IMPORTANCE and wish.importance is None:
        raise CannotConvert(
            N_("{part} needs an importance matrix; measure it from your documents first."),
            name=facts.name,
            part=wish.type,
        )


def _converted(report: Report, params: dict[str, Any], file: Path, expected: int) -> dict[str, Any]:
    """Run the converter in a process of its own; how far it is shows in the growing file."""
    child = Child(
        "chatbot.models.converter",
        name="convert",
        environment=_QUIET,
        lowest_priority=True,
        hung_after=HUNG_AFTER,
    )
    try:
        for event, _ in child.stream("convert", params, ticks=True):
            if "tick" not in event:
                return event
            written = file.stat().st_size if file.exists() else 0
            report(_WRITTEN * min(written / max(expected, 1), 1.0), _WRITING)
        raise AssertionError("a stream ends with its result")
    finally:
        child.close(grace=0.0)


def _reopened(file: Path, name: str) -> ModelFacts:
    """The facts of what was written. Raises DiskFullError or BrokenModel when it is not a whole model."""
    try:
        facts = read_model(file)
    except ModelError as error:
        if disk_is_full(file.parent):
            raise DiskFullError(str(file.parent)) from error
        raise
    check_loads(file, name)
    return facts


def _unlike(facts: ModelFacts, part: str) -> BrokenModel:
    return BrokenModel(
        N_("what was written does not match it ({part}); nothing was kept."),
        name=facts.name,
        part=part,
    )


def _geometry(facts: ModelFacts) -> tuple[int, int, int]:
    return len(facts.layers), facts.width, facts.vocabulary


def _shapes(facts: ModelFacts) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tensor.shape for tensor in facts.tensors}


def _handed_over(
    report: Report, file: Path, figures: dict[str, Any], started: float
) -> dict[str, Any]:
    def after(fraction: float, message: str = "", **values: Any) -> None:
        report(_WRITTEN + (1 - _WRITTEN) * fraction, message, **values)

    after(0.0, _CHECKING)
    sync(file)
    files = all_stored(file.parent, [file.name], after, _CHECKING)
    figures["seconds"] = round(time.monotonic() - started, 3)
    return {"files": [asdict(stored) for stored in files], "figures": figures}


def _file_name(name: str, wanted: str) -> str:
    stem = _UNSAFE.sub("-", name.rpartition("/")[2]).strip(" .") or "model"
    return f"{stem[:100]}-{wanted}.gguf"
