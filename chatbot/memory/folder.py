"""A Hugging Face model folder, read so that nothing in it can run or reach outside it.

Only config.json, the weights' headers and the tokenizer's settings are looked at. Program code,
settings that name code and weights outside the folder are refused by name.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeGuard

from chatbot.errors import BrokenModel
from chatbot.i18n import N_
from chatbot.memory import pickles
from chatbot.memory.config import described, tied
from chatbot.memory.facts import ModelFacts, Tensor

MAX_HEADER = 100_000_000  # the safetensors format's own limit
MAX_JSON = 100_000_000
DTYPES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I16": 2, "U16": 2,
    "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
INDEX = "model.safetensors.index.json"
SETTINGS_FILES = (
    "config.json", "generation_config.json", "tokenizer_config.json", "processor_config.json",
    "preprocessor_config.json",
)  # fmt: skip
CODE_KEYS = ("auto_map", "custom_pipelines", "custom_generate")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")

NO_JSON = N_("{part} is not readable JSON.")
_CODE = N_("it asks for program code of its own ({part}), and Hearth never runs a model's code.")
LEAVES = N_("{part} points outside the model's folder.")
ABSENT = N_("the file {part} is missing; the copy is incomplete.")
_NO_WEIGHTS = N_("the folder holds no weights (.safetensors).")
_BAD_HEADER = N_("the header of {part} is malformed or does not match the file's size.")


def read_folder(folder: Path) -> ModelFacts:
    """What the model in that folder is. Raises BrokenModel, or ModelError for what cannot be used yet."""
    config = safe_settings(folder, "config.json")
    pickled = pickle_files(folder)
    files = pickled or weight_files(folder)
    if pickled:
        kind = pickles.kind_in(config)
        tensors = [t for file in files for t in pickles.read_storages(folder / file, kind)]
    else:
        tensors = [tensor for file in files for tensor in read_safetensors(folder / file)]
    if not any(tensor.elements for tensor in tensors):
        raise BrokenModel(_NO_WEIGHTS, name=folder.name)
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise BrokenModel(N_("two of its tensors have the same name."), name=folder.name)
    if not pickled and (folder / INDEX).exists():
        mapped = set(_weight_map(folder, INDEX))
        if missing := mapped - {tensor.name for tensor in tensors}:
            raise BrokenModel(ABSENT, name=folder.name, part=min(missing))
    return replace(
        described(config, folder.name, draw=False),
        format="pt" if pickled else "hf",
        path=str(folder),
        files=tuple(files),
        name=name_of(folder),
        quantisation=main_type(tensors),
        tensors=tuple(tensors),
        chat_template=has_template(folder),
        tokenizer=any((folder / name).is_file() for name in TOKENIZERS),
        tied=tied(config) if pickled else not has_head(tensors),
    )


def read_config(folder: Path) -> ModelFacts:
    """The same from config.json alone, whether or not the weights are there: its tensors are drawn.

    Raises BrokenModel.
    """
    facts = described(safe_settings(folder, "config.json"), folder.name)
    return replace(
        facts,
        path=str(folder),
        name=name_of(folder),
        quantisation=main_type(facts.tensors),
        chat_template=has_template(folder),
        tokenizer=any((folder / name).is_file() for name in TOKENIZERS),
    )


def has_weights(folder: Path) -> bool:
    """Whether anything in the folder could be a model's weights."""
    return (
        any(file.suffix in (".safetensors", *pickles.SUFFIXES) for file in folder.iterdir())
        or (folder / INDEX).exists()
    )


def read_safetensors(file: Path) -> list[Tensor]:
    """The tensors that a safetensors file declares; its bytes must be exactly theirs.

    Raises BrokenModel when the header is too long, overlaps, leaves gaps or overruns the file.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            length = header_length(opened.read(8), size, file)
            header = opened.read(length)
    except OSError as error:
        raise BrokenModel(str(error), name=file.parent.name) from error
    return declared_tensors(header, size, file)


def header_length(start: bytes, size: int, file: Path) -> int:
    """Bytes of the header of a safetensors file of that size, from its first eight. Raises BrokenModel."""
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(MAX_HEADER, size - 8):
        raise BrokenModel(_BAD_HEADER, name=file.parent.name, part=file.name)
    return int(length)


def declared_tensors(header: bytes, size: int, file: Path) -> list[Tensor]:
    """The tensors of a safetensors file of that size by its header. Raises BrokenModel."""
    broken = BrokenModel(_BAD_HEADER, name=file.parent.name, part=file.name)
    try:
        entries = json.loads(header, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise broken from error
    if not isinstance(entries, dict):
        raise broken
    placed: list[tuple[int, int, Tensor]] = []
    for name, entry in entries.items():
        if name != "__metadata__":
            tensor, begin, end = _declared(name, entry, broken)
            placed.append((begin, end, tensor))
    placed.sort(key=lambda item: item[:2])
    position = 0
    for begin, end, _ in placed:
        if begin != position:
            raise broken
        position = end
    if 8 + len(header) + position != size or not placed:
        raise broken
    return [tensor for _, _, tensor in placed]


def weight_files(folder: Path) -> list[str]:
    """The names of the safetensors files that make up the model. Raises BrokenModel when one is absent."""
    if (folder / INDEX).exists():
        names = _indexed(folder, INDEX, (".safetensors",))
    else:
        names = sorted(file.name for file in folder.glob("*.safetensors"))
        if "model.safetensors" in names:
            names = ["model.safetensors"]
        elif len(names) > 1 or any(_SHARD.search(name) for name in names):
            raise BrokenModel(ABSENT, name=folder.name, part=INDEX)
    if not names:
        raise BrokenModel(_NO_WEIGHTS, name=folder.name)
    return _checked(folder, names)


def pickle_files(folder: Path) -> list[str]:
    """The names of the PyTorch files (.bin, .pt) with the weights; none where there are safetensors."""
    if (folder / INDEX).exists() or any(folder.glob("*.safetensors")):
        return []
    if (folder / pickles.INDEX).exists():
        return _checked(folder, _indexed(folder, pickles.INDEX, pickles.SUFFIXES))
    chosen = pickles.choose(folder)
    return _checked(folder, [chosen]) if chosen else []


def _indexed(folder: Path, index: str, suffixes: tuple[str, ...]) -> list[str]:
    names = sorted(set(_weight_map(folder, index).values()))
    for name in names:
        if not _is_plain(name, suffixes):
            raise BrokenModel(LEAVES, name=folder.name, part=name[:100])
    return names


def _checked(folder: Path, names: list[str]) -> list[str]:
    for name in names:
        file = folder / name
        if not file.is_file():
            raise BrokenModel(ABSENT, name=folder.name, part=name)
        if not is_inside(file, folder):
            raise BrokenModel(LEAVES, name=folder.name, part=name)
    return names


def is_inside(file: Path, folder: Path) -> bool:
    """Whether the file, links followed, lies in the folder or in the blobs of its hub cache."""
    real, home = file.resolve(), folder.resolve()
    if (
        home.parent.name == "snapshots"
    ):  # the hub's cache links snapshots/<commit>/x to blobs/<hash>
        return real.is_relative_to(home) or real.is_relative_to(home.parent.parent / "blobs")
    return real.is_relative_to(home)


def read_json(file: Path) -> Any:
    """A JSON file of a model folder. Raises BrokenModel."""
    try:
        if file.stat().st_size > MAX_JSON:
            raise BrokenModel(NO_JSON, name=file.parent.name, part=file.name)
        return json.loads(file.read_bytes(), object_pairs_hook=_without_doubles)
    except OSError as error:
        raise BrokenModel(str(error), name=file.parent.name) from error
    except (ValueError, RecursionError) as error:
        raise BrokenModel(NO_JSON, name=file.parent.name, part=file.name) from error


def name_of(folder: Path) -> str:
    """What people call the model in that folder; the hub's cache names folders by commit."""
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return folder.name


def safe_settings(folder: Path, wanted: str) -> dict[str, Any]:
    """That settings file of the folder, after every one of them was searched for what could run code."""
    config: Any = None
    for file in sorted(folder.glob("*.py")):
        raise BrokenModel(_CODE, name=folder.name, part=file.name)
    for name in dict.fromkeys((*SETTINGS_FILES, wanted)):
        file = folder / name
        if not file.exists():
            continue
        if not is_inside(file, folder):
            raise BrokenModel(LEAVES, name=folder.name, part=name)
        settings = read_json(file)
        if key := key_for_code(settings):
            raise BrokenModel(_CODE, name=folder.name, part=f"{name}: {key}")
        if name == wanted:
            config = settings
    if config is None:
        raise BrokenModel(ABSENT, name=folder.name, part=wanted)
    if not isinstance(config, dict):
        raise BrokenModel(NO_JSON, name=folder.name, part=wanted)
    return config


def key_for_code(settings: Any) -> str | None:
    """The first key, at any depth, by which a model could have code loaded."""
    waiting = [settings]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for key, entry in value.items():
                if _asks_for_code(key, entry):
                    return str(key)[:100]
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return None


def _asks_for_code(key: str, value: Any) -> bool:
    if key.endswith("_implementation"):  # of attention or experts: org/name is a program on the hub
        return "/" in json.dumps(value)
    return key in CODE_KEYS or key.endswith("_internal")


def _weight_map(folder: Path, index: str) -> dict[str, str]:
    if not is_inside(folder / index, folder):
        raise BrokenModel(LEAVES, name=folder.name, part=index)
    content = read_json(folder / index)
    found = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise BrokenModel(NO_JSON, name=folder.name, part=index)
    return found


def _is_plain(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether it is a bare file name on every system, of that kind: no folder, drive, share or stream."""
    return (
        name.endswith(suffixes)
        and not set(name) & set('/\\:*?"<>|\0')
        and PurePosixPath(name).name == name == PureWindowsPath(name).name
        and all(character.isprintable() for character in name)
    )


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _declared(name: str, entry: Any, broken: BrokenModel) -> tuple[Tensor, int, int]:
    """One entry of a safetensors header: the tensor and where its bytes begin and end."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        raise broken
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if entry["dtype"] not in DTYPES or not _are_sizes(shape) or not _are_sizes(offsets):
        raise broken
    if len(offsets) != 2 or len(shape) > 16:
        raise broken
    size = math.prod(shape) * DTYPES[entry["dtype"]]
    begin, end = offsets
    if end - begin != size:
        raise broken
    return Tensor(name, tuple(shape), entry["dtype"], size), begin, end


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)


def has_head(tensors: Sequence[Tensor]) -> bool:
    """Whether the output layer is a matrix of its own."""
    return any(tensor.name.startswith(("lm_head.", "output.")) for tensor in tensors)


def has_template(folder: Path) -> bool:
    """Whether a chat template lies in the folder."""
    if (folder / "chat_template.jinja").is_file():
        return True
    file = folder / "tokenizer_config.json"
    settings = read_json(file) if file.is_file() else {}
    return isinstance(settings, dict) and bool(settings.get("chat_template"))


def main_type(tensors: Sequence[Tensor]) -> str:
    """The type that most bytes are in."""
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.size
    return max(sizes, key=sizes.__getitem__)
