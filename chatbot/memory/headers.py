"""What a model is, from its header alone: one door for GGUF files, split GGUF files and folders.

The bytes decide, never the file's extension. Raises BrokenModel for what is damaged or hostile,
ModelError for what is simply not a model that Hearth can use.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

from chatbot.errors import BrokenModel, ModelError
from chatbot.i18n import N_
from chatbot.memory.adapter import is_adapter, read_adapter
from chatbot.memory.config import MAX_LAYERS
from chatbot.memory.facts import AdapterFacts, Layer, ModelFacts, Tensor
from chatbot.memory.folder import read_folder
from chatbot.memory.gguf import MAGIC, GgufHeader, read_gguf, read_start

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
MAX_PARTS = 1000
MAX_FIGURE = 1 << 31

# general.file_type of llama.cpp: the name people know the quantisation by.
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M",
    18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S",
    25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M",
    32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
}  # fmt: skip

# Architectures whose header gives a window but not which layers use it: every n-th layer sees all
# (src/llama-model.cpp, set_swa_pattern).
SLIDING_PATTERNS = {
    "gemma2": 2, "gemma3": 6, "gemma3n": 5, "cohere2": 4, "gpt-oss": 2, "exaone4": 4, "olmo2": 4,
}  # fmt: skip
NO_WRITERS = (
    "bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "modern-bert", "jina-bert-v2",
    "jina-bert-v3", "eurobert", "clip", "t5encoder", "wavtokenizer-dec", "gemma-embedding",
)  # fmt: skip

_ODD = N_("its header gives no usable number for {part}.")


def read_model(path: Path) -> ModelFacts:
    """What the model at that path is: a GGUF file (any part of a split one) or a folder.

    Read again only when a file's size or time changed.
    """
    try:
        files = sorted(path.iterdir()) if path.is_dir() else split_parts(path)
        stamp = tuple((s.st_size, s.st_mtime_ns) for s in (_stat(file) for file in files) if s)
        return _read(path, stamp)
    except (OSError, ValueError) as error:  # not ours to read, or no path at all
        raise ModelError(str(error), name=path.name) from error


@lru_cache(maxsize=32)
def _read(path: Path, _stamp: tuple[tuple[int, int], ...]) -> ModelFacts:
    if path.is_dir():
        return read_adapter(path) if is_adapter(path) else read_folder(path)
    kind = kind_of_file(path)
    if kind == "gguf":
        return _read_gguf_model(path)
    raise ModelError(_REFUSALS[kind], name=path.name)


def kind_of_file(path: Path) -> str:
    """gguf, safetensors, zip, pickle, empty, other or absent, by the first bytes."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError:
        return "absent"
    if not start:
        return "empty"
    if start[:4] == MAGIC:
        return "gguf"
    if start[:4] == b"PK\x03\x04":
        return "zip"
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    return "safetensors" if start[8:9] == b"{" else "other"


def _stat(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except OSError:
        return None


_REFUSALS = {
    "absent": N_("there is no such file or folder."),
    "empty": N_("the file is empty; the copy is incomplete."),
    "safetensors": N_("choose the folder that holds this file together with its config.json."),
    "zip": N_("it is a zip archive or a PyTorch file; unpack it or save the model as safetensors."),
    "pickle": N_("it is a pickle file, which can run code when opened; save it as safetensors."),
    "other": N_("it is neither a GGUF file nor a model folder."),
}


def _read_gguf_model(path: Path) -> ModelFacts:
    parts = split_parts(path)
    headers = [read_gguf(part) for part in parts]
    first = headers[0]
    _check_split(parts, headers)
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise BrokenModel(N_("two of its tensors have the same name."), name=path.name)
    facts = _Metadata(first, tensors, parts[0]).facts()
    return replace(facts, files=tuple(part.name for part in parts))


def read_gguf_start(start: bytes, size: int, name: str) -> ModelFacts:
    """What the first bytes of a GGUF file say of the model: its geometry, perhaps no tensors.

    Raises BrokenModel, also when the bytes end before the geometry does.
    """
    header = read_start(start, size, name)
    return _Metadata(header, header.tensors, Path(name)).facts()


def split_parts(path: Path) -> list[Path]:
    """Every part of a split GGUF in order; the file alone where it is whole. Raises BrokenModel."""
    match = _PART.fullmatch(path.name)
    if not match:
        return [path]
    count = int(match["count"])
    if not 1 <= int(match["number"]) <= count <= MAX_PARTS:
        raise BrokenModel(N_("its name says that it is part of an impossible set."), name=path.name)
    suffix = path.name[-5:]
    names = [f"{match['stem']}-{n:05}-of-{count:05}{suffix}" for n in range(1, count + 1)]
    for name in names:
        if not path.with_name(name).is_file():
            raise BrokenModel(
                N_("the part {part} is missing; put all parts into one folder."),
                name=path.name,
                part=name,
            )
    return [path.with_name(name) for name in names]


def _check_split(parts: list[Path], headers: list[GgufHeader]) -> None:
    """The parts must say of themselves what their names say."""
    for number, (part, header) in enumerate(zip(parts, headers, strict=True)):
        count = header.values.get("split.count", 0) or 1
        if count != len(parts) or header.values.get("split.no", 0) != number:
            raise BrokenModel(
                N_("{part} is not the part of the model that its name says."),
                name=parts[0].name,
                part=part.name,
            )
    total = headers[0].values.get("split.tensors.count")
    if len(parts) > 1 and total != sum(len(header.tensors) for header in headers):
        raise BrokenModel(N_("its parts do not belong together."), name=parts[0].name)


class _Metadata:
    """A GGUF's metadata, asked by meaning."""

    def __init__(self, header: GgufHeader, tensors: tuple[Tensor, ...], path: Path) -> None:
        self._header = header
        self._tensors = tensors
        self._path = path
        self._architecture = self._text("general.architecture")

    def facts(self) -> ModelFacts:
        kind = self._text("general.type") or "model"
        writes = kind == "model" and self._architecture not in NO_WRITERS
        if writes and not self._architecture:
            raise self._broken(_ODD, "general.architecture")
        return ModelFacts(
            format="adapter" if kind == "adapter" else "gguf",
            path=str(self._path),
            files=(),
            name=self._text("general.name") or self._path.stem,
            architecture=self._architecture,
            writes_text=writes,
            quantisation=self._quantisation(),
            context=self._figure("context_length") if writes else 0,
            vocabulary=self._vocabulary() if writes else 0,
            width=self._figure("embedding_length") if writes else 0,
            feed_forward=max(self._per_layer("feed_forward_length", 0)) if writes else 0,
            layers=self._layers() if writes else (),
            tensors=self._tensors,
            chat_template=self._header.lengths.get("tokenizer.chat_template", 0) > 0,
            tokenizer=self._header.lengths.get("tokenizer.ggml.tokens", 0) > 0,
            tied=not any(tensor.name == "output.weight" for tensor in self._tensors),
            adapter=self._adapter() if kind == "adapter" else None,
        )

    def _adapter(self) -> AdapterFacts:
        """Of a LoRA file for llama.cpp: its targets by their names in the base's GGUF."""
        halves = [t for t in self._tensors if t.name.endswith(".lora_b") and len(t.shape) == 2]
        alpha = self._header.values.get("adapter.lora.alpha")
        return AdapterFacts(
            base="",
            kind="LoRA",
            rank=max((half.shape[-1] for half in halves), default=0),
            alpha=alpha if isinstance(alpha, float) and math.isfinite(alpha) else 0.0,
            targets=tuple(sorted({half.name.split(".")[-3] for half in halves})),
        )

    def _layers(self) -> tuple[Layer, ...]:
        heads = self._per_layer("attention.head_count", 0)
        kv_heads = self._per_layer("attention.head_count_kv", None) or heads
        width = self._figure("embedding_length")
        usual = width // max(*heads, 1)
        key_length = self._figure("attention.key_length", usual)
        value_length = self._figure("attention.value_length", usual)
        return tuple(
            Layer(heads[n], kv_heads[n], key_length, value_length, window)
            for n, window in enumerate(self._windows())
        )

    def _windows(self) -> list[int | None]:
        count = self._block_count()
        window = self._figure("attention.sliding_window", 0)
        pattern = self._value("attention.sliding_window_pattern")
        if not window:
            return [None] * count
        if isinstance(pattern, tuple) and len(pattern) == count:
            return [window if slides else None for slides in pattern]
        every = pattern if type(pattern) is int else SLIDING_PATTERNS.get(self._architecture, 0)
        if every < 1:
            return [None] * count
        return [window if n % every < every - 1 else None for n in range(count)]

    def _block_count(self) -> int:
        count = self._figure("block_count")
        if not 0 < count <= MAX_LAYERS:
            raise self._broken(_ODD, "block_count")
        return count

    def _vocabulary(self) -> int:
        return self._header.lengths.get("tokenizer.ggml.tokens") or self._figure("vocab_size", 0)

    def _quantisation(self) -> str:
        label = FILE_TYPES.get(self._header.values.get("general.file_type", -1))
        if label:
            return label
        largest = max(self._tensors, key=lambda tensor: tensor.size, default=None)
        return largest.type if largest else ""

    def _per_layer(self, key: str, default: int | None) -> list[int]:
        """One number for each layer, where the file gives one for all or one for each."""
        found = self._value(key)
        count = self._block_count()
        if found is None:
            return [] if default is None else [default] * count
        numbers = list(found) if isinstance(found, tuple) else [found] * count
        if len(numbers) < count or not all(_is_figure(number) for number in numbers):
            raise self._broken(_ODD, key)
        return numbers[:count]

    def _figure(self, key: str, default: int | None = None) -> int:
        found = self._value(key)
        found = default if found is None else found
        if not _is_figure(found):
            raise self._broken(_ODD, key)
        return found

    def _value(self, key: str) -> Any:
        return self._header.values.get(f"{self._architecture}.{key}")

    def _text(self, key: str) -> str:
        found = self._header.values.get(key, "")
        if not isinstance(found, str):
            raise self._broken(_ODD, key)
        return found

    def _broken(self, detail: str, part: str) -> BrokenModel:
        return BrokenModel(detail, name=self._path.name, part=part)


def _is_figure(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < MAX_FIGURE
