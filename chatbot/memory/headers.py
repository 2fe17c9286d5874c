"""What a model is, from its header alone: one door for GGUF files, split GGUF files and folders.

The bytes decide, never the file's extension. Raises BrokenModel for what is damaged or hostile,
ModelError for what is simply not a model that Hearth can use.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from chatbot.errors import BrokenModel, ModelError
from chatbot.i18n import N_
from chatbot.memory.adapter import is_adapter, read_adapter
from chatbot.memory.facts import ModelFacts
from chatbot.memory.folder import has_weights, read_config, read_folder
from chatbot.memory.gguf import MAGIC, GgufHeader, read_gguf, read_start
from chatbot.memory.metadata import Metadata

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
MAX_PARTS = 1000


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


def read_or_draw(path: Path) -> ModelFacts:
    """The same, for a plan: of a folder that holds a config.json and no weights, from that alone."""
    bare = path.is_dir() and (path / "config.json").is_file() and not has_weights(path)
    return read_config(path) if bare else read_model(path)


def as_drawn(facts: ModelFacts) -> ModelFacts:
    """The same with its tensors named as in GGUF files, where it is a folder of this disk."""
    return read_config(Path(facts.path)) if facts.format == "hf" and facts.files else facts


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
    return assembled(parts, [read_gguf(part) for part in parts])


def assembled(parts: Sequence[Path], headers: Sequence[GgufHeader]) -> ModelFacts:
    """The model of a GGUF file, or of every part of a split one, in order. Raises BrokenModel."""
    first = headers[0]
    _check_split(parts, headers)
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise BrokenModel(N_("two of its tensors have the same name."), name=parts[0].name)
    facts = Metadata(first, tensors, parts[0]).facts()
    return replace(facts, files=tuple(part.name for part in parts))


def read_gguf_start(start: bytes, size: int, name: str) -> ModelFacts:
    """What the first bytes of a GGUF file say of the model: its geometry, perhaps no tensors.

    Raises BrokenModel, also when the bytes end before the geometry does.
    """
    header = read_start(start, size, name)
    return Metadata(header, header.tensors, Path(name)).facts()


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


def _check_split(parts: Sequence[Path], headers: Sequence[GgufHeader]) -> None:
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
