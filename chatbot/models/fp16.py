"""Prepare a model for the 16-bit engines: read it, convert it to FP16 where it fits, save it for any PC.

Tensor by tensor: what is in memory at any time is a few blocks of one tensor, never the model. The
conversion runs on the GPU where there is one; what is saved comes from main memory and names no device.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from chatbot.errors import ModelError, SettingsError
from chatbot.hardware.detect import detect, installed
from chatbot.hardware.process import peak
from chatbot.i18n import N_
from chatbot.memory.facts import Tensor
from chatbot.memory.folder import DTYPES, INDEX
from chatbot.models.files import Report, StoredFile, check_room
from chatbot.models.sources import HEAD, Opened, embedding_of, opened
from chatbot.models.state_dict import StateDictWriter
from chatbot.models.weights import FLOATS, Target, Writer, dtype_of, one_thread, write_file
from chatbot.types import Hardware

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Precision = Literal["auto", "f16", "bf16", "keep"]
Form = Literal["hf", "pt", "gguf"]

_TOO_LARGE = N_(
    "its tensor {part} holds values beyond what FP16 can hold (65,504); choose BF16, or let Hearth choose."
)
_ODD_TYPE = N_("its weights are of a type that cannot be converted ({part}).")
_LARGEST = {"F16": 65504.0, "BF16": 3.3895313892515355e38}
_CONFIG_NAMES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_REPORT_EVERY = 0.2
_SHARE = 0.96
"""Of the progress, what converting is; saving the rest."""


def prepare(
    report: Report,
    *,
    source: Path,
    target: Path,
    precision: Precision = "auto",
    form: Form = "hf",
    device: str = "auto",
) -> dict[str, Any]:
    """A copy of the model in 16 bits in the folder `target`: {files, figures}.

    `source` is a model folder (safetensors or PyTorch files), a PyTorch file beside its config.json, a zip
    or a GGUF file. `precision` auto takes FP16, and BF16 for a model with values that FP16 cannot hold;
    keep leaves every type as it is. `device` is auto, cpu, cuda or mps. figures: hardware, device,
    precision, tensors, parameters, saturated and flushed (weights that FP16 would make infinite, zero),
    too_large (their tensors), not_finite, kept_bf16, bytes_in, bytes_out, seconds, peak_memory.
    Raises BrokenModel, ModelError, DiskFullError, SettingsError.
    """
    started = time.monotonic()
    if precision not in get_args(Precision) or form not in get_args(Form):
        raise SettingsError(f"precision = {precision}, form = {form}")
    hardware = detect(target)
    _report_hardware(report, hardware)
    used = _device(device, hardware)
    scratch, work = target / ".opened", target / ".converted" if form == "gguf" else target
    work.mkdir(exist_ok=True)
    try:
        with opened(source, scratch, report) as model:
            done = _converted(report, model, work, precision, form, used)
        if form == "gguf":
            done.files = _gguf(report, work, target, model.name, done.precision)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if work != target:
            shutil.rmtree(work, ignore_errors=True)
    figures = {
        "hardware": _described(hardware),
        "device": used,
        "precision": done.precision.lower(),
        "tensors": len(model.tensors),
        "parameters": sum(tensor.elements for tensor in model.tensors),
        "saturated": sum(done.counts.saturated.values()),
        "flushed": done.counts.flushed,
        "not_finite": done.counts.not_finite,
        "too_large": sorted(done.counts.saturated)[:20],
        "kept_bf16": sum(done.kinds[t.name] == "BF16" for t in model.tensors),
        "bytes_in": sum(tensor.size for tensor in model.tensors),
        "bytes_out": sum(file.size for file in done.files),
        "seconds": round(time.monotonic() - started, 2),
        "peak_memory": peak(),
    }
    return {"files": [asdict(file) for file in done.files], "figures": figures}


@dataclass(slots=True)
class _Counts:
    """What the conversion would do, or did, to the values."""

    saturated: dict[str, int] = field(default_factory=dict)
    flushed: int = 0
    not_finite: int = 0


@dataclass(slots=True)
class _Done:
    files: list[StoredFile]
    precision: str
    kinds: dict[str, str]
    counts: _Counts


class _DoesNotFit(Exception):
    """FP16 cannot hold a value of this tensor."""


def _converted(
    report: Report, model: Opened, target: Path, precision: Precision, form: Form, device: str
) -> _Done:
    """The model's files in that folder. What overflows FP16 is done again as BF16, whole."""
    odd = [t for t in model.tensors if t.type.startswith("F8")]
    if odd:
        raise ModelError(_ODD_TYPE, name=model.name, part=odd[0].type)
    size = sum(tensor.size for tensor in model.tensors)
    report(
        0.01,
        N_("[1/3] Reading {name}: {tensors} tensors, {size} GB"),
        name=model.name,
        tensors=len(model.tensors),
        size=round(size / 1e9, 2),
    )
    wanted = {"auto": "F16", "f16": "F16", "bf16": "BF16", "keep": model.own}[precision]
    try:
        done = _written(report, model, target, wanted, form, device)
    except _DoesNotFit as error:
        if precision == "f16":
            raise ModelError(_TOO_LARGE, name=model.name, part=str(error)) from None
        report(0.01, N_("{part} holds values too large for FP16: BF16 is used"), part=str(error))
        done = _written(report, model, target, "BF16", form, device, judged="F16")
    report(_SHARE, N_("[3/3] Saving from main memory, so that the files load on any PC"))
    done.files += _beside(model, target, done.precision)
    return done


def _written(
    report: Report,
    model: Opened,
    target: Path,
    wanted: str,
    form: Form,
    device: str,
    judged: str = "",
) -> _Done:
    """The weights in the type `wanted` ("" for their own), counted by what `judged` can hold."""
    kinds = {t.name: wanted if wanted and t.type in FLOATS else t.type for t in model.tensors}
    tensors = [
        replace(t, type=kinds[t.name], size=t.elements * DTYPES[kinds[t.name]])
        for t in model.tensors
    ]
    check_room(target, sum(tensor.size for tensor in tensors))
    counts = _Counts()
    sink = _sink(target, tensors, model, form)
    before = {tensor.name: tensor for tensor in model.tensors}
    progress = _Progress(report, sum(t.size for t in model.tensors), wanted, device)
    try:
        with one_thread(), sink as writer:
            for tensor in writer.tensors:
                convert = _conversion(before[tensor.name], tensor, device, counts, judged)
                blocks = progress.through(model.weights.blocks(tensor.name))
                writer.put(tensor.name, convert(blocks))
    except _DoesNotFit:
        for file in target.iterdir():
            if file.is_file():
                file.unlink()
        raise
    return _Done(sink.files, wanted or _most(tensors), kinds, counts)


def _sink(target: Path, tensors: list[Tensor], model: Opened, form: Form) -> Target:
    if form != "pt":
        return Writer(target, tensors)
    embedding = embedding_of(tensors)
    tied = model.config.get("tie_word_embeddings") is True
    if embedding and tied and all(tensor.name != HEAD for tensor in tensors):
        return StateDictWriter(target, tensors, {HEAD: embedding.name})
    return StateDictWriter(target, tensors)


Blocks = Iterator["torch.Tensor"]


def _conversion(
    before: Tensor, after: Tensor, device: str, counts: _Counts, judged: str
) -> Callable[[Blocks], Blocks]:
    """How the blocks of that tensor change their type; what is lost on the way is counted.

    Without `judged` a value that the new type cannot hold raises _DoesNotFit.
    """
    if before.type not in FLOATS or (before.type == after.type and not judged):
        return lambda blocks: blocks
    limit = _LARGEST.get(judged or after.type)

    def convert(blocks: Blocks) -> Blocks:
        for block in blocks:
            converted = _cast(block, after.type, device)
            if limit is not None:
                fits = converted if not judged else _cast(block, judged, "cpu")
                lost = _count(block, fits, counts)
                if lost and not judged:
                    raise _DoesNotFit(before.name)
                if lost:
                    counts.saturated[before.name] = counts.saturated.get(before.name, 0) + lost
            yield converted

    return convert


def _cast(block: torch.Tensor, kind: str, device: str) -> torch.Tensor:
    dtype = dtype_of(kind)
    if device == "cpu":
        return block.to(dtype)
    return block.to(device).to(dtype).cpu()


def _count(before: torch.Tensor, after: torch.Tensor, counts: _Counts) -> int:
    """How many finite values became infinite; those that became zero are added to the counts."""
    import numpy as np
    import torch

    # Compared as integers: numpy counts those at the speed of memory. Twice the bits drops the sign.
    zero = after.view(torch.int16).numpy() << 1 == 0
    if np.count_nonzero(zero):
        integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[before.element_size()]
        values = before.view(integers).numpy()[np.flatnonzero(zero)]
        counts.flushed += int(np.count_nonzero(values << 1))
    low, high = torch.aminmax(before)
    largest = _LARGEST["F16" if after.dtype == torch.float16 else "BF16"]
    if -largest <= low.item() and high.item() <= largest:
        return 0
    finite = torch.isfinite(before)
    counts.not_finite += int((~finite).sum())
    return int((finite & ~torch.isfinite(after)).sum())


class _Progress:
    """Says how far converting is, a few times a second."""

    def __init__(self, report: Report, total: int, wanted: str, device: str) -> None:
        self._report = report
        self._total = max(total, 1)
        self._done = 0
        self._last = 0.0
        self._precision = {"F16": "FP16"}.get(wanted, wanted)
        self._message = _ON_GPU if device != "cpu" else _ON_CPU
        if not wanted:
            self._message = _AS_IT_IS

    def through(self, blocks: Blocks) -> Blocks:
        """The same blocks, counted as they pass."""
        for block in blocks:
            now = time.monotonic()
            if now - self._last > _REPORT_EVERY:
                self._last = now
                share = 0.01 + (_SHARE - 0.01) * self._done / self._total
                self._report(share, self._message, precision=self._precision)
            self._done += block.numel() * block.element_size()
            yield block


_ON_GPU = N_("[2/3] Converting to {precision} on the GPU")
_ON_CPU = N_("[2/3] Converting to {precision} on the processor")
_AS_IT_IS = N_("[2/3] Copying the weights as they are")


def _beside(model: Opened, target: Path, precision: str) -> list[StoredFile]:
    """Tokenizer, chat template, licence and settings, which name the new type."""
    config = json.dumps(_with_type(model.config, precision), ensure_ascii=False, indent=2)
    return [
        write_file(target / "config.json", f"{config}\n".encode()),
        *(
            write_file(target / file.name, file.read_bytes())
            for file in model.companions
            if file.name not in ("config.json", INDEX)
        ),
    ]


def _with_type(config: dict[str, Any], precision: str, outermost: bool = True) -> dict[str, Any]:
    """The settings with the type of the weights under either name that transformers gives it."""
    name = _CONFIG_NAMES.get(precision, "float32")
    changed = {
        key: _with_type(value, precision, outermost=False) if isinstance(value, dict) else value
        for key, value in config.items()
    }
    named = [key for key in ("dtype", "torch_dtype") if isinstance(changed.get(key), str)]
    for key in named or (["dtype"] if outermost else []):
        changed[key] = name
    return changed


def _most(tensors: list[Tensor]) -> str:
    """The type that most bytes of floats are in."""
    sizes: dict[str, int] = {}
    for tensor in tensors:
        if tensor.type in FLOATS:
            sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.size
    return max(sizes, key=lambda kind: sizes[kind], default="F32")


def _gguf(report: Report, work: Path, target: Path, name: str, precision: str) -> list[StoredFile]:
    from chatbot.models.gguf import convert

    done = convert(report, source=work, target=target, type=precision, name=name)
    return [StoredFile(**file) for file in done["files"]]


def _device(wanted: str, hardware: Hardware) -> str:
    """cuda or mps where this PC and its torch have it, else cpu."""
    if wanted not in ("auto", "cpu", "cuda", "mps"):
        raise SettingsError(f"device = {wanted}")
    usable = hardware.device if installed().transformers_gpu else "cpu"
    if wanted == "auto":
        return usable if usable == "cpu" or _answers(usable) else "cpu"
    if wanted not in ("cpu", usable):
        raise SettingsError(f"device = {wanted} ({usable})")
    return wanted


def _answers(device: str) -> bool:
    """Whether torch can compute there: the driver may be too old, the card's memory taken."""
    import torch

    try:
        torch.ones(1, device=device).half().cpu()
    except (RuntimeError, AssertionError) as error:
        log.warning("%s is not used: %s", device, error)
        return False
    return True


def _report_hardware(report: Report, hardware: Hardware) -> None:
    if not hardware.gpus:
        report(0.0, N_("No GPU: the processor does the work"))
        return
    report(
        0.0,
        N_("{count} GPU: {names}; {free} of {total} GB of its memory are free"),
        count=len(hardware.gpus),
        names=", ".join(gpu.name for gpu in hardware.gpus),
        free=round(sum(gpu.free for gpu in hardware.gpus) / 1e9, 1),
        total=round(sum(gpu.total for gpu in hardware.gpus) / 1e9, 1),
    )


def _described(hardware: Hardware) -> dict[str, Any]:
    return {
        "device": hardware.device,
        "count": len(hardware.gpus),
        "gpus": [{"name": gpu.name, "total": gpu.total, "free": gpu.free} for gpu in hardware.gpus],
    }
