"""A model in any form it may come in, opened for reading tensor by tensor: folder, PyTorch file, zip, GGUF."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatbot.errors import ModelError
from chatbot.i18n import N_
from chatbot.memory.facts import Tensor
from chatbot.memory.folder import name_of, safe_settings
from chatbot.memory.headers import kind_of_file, read_model
from chatbot.memory.pickles import is_torch_zip
from chatbot.models.files import Report
from chatbot.models.importing import companions
from chatbot.models.state_dict import StateDict
from chatbot.models.weights import Source, Weights

if TYPE_CHECKING:
    import torch

EMBEDDINGS = (
    "embed_tokens.weight", "wte.weight", "word_embeddings.weight", "tok_embeddings.weight",
    "embed_in.weight", "embeddings.weight",
)  # fmt: skip
HEAD = "lm_head.weight"

_ADAPTER = N_("it is an adapter; merge it into its base model first.")
_QUANTISED = N_("its weights are quantised with {part}; choose the plain model or a GGUF file.")
_UNKNOWN = N_("it is neither a model folder nor a PyTorch, zip or GGUF file.")


@dataclass(frozen=True, slots=True)
class Opened:
    """A model that is being read: its settings, its weights, and the files that go with it as they are."""

    name: str
    config: dict[str, Any]
    weights: Source
    companions: tuple[Path, ...]
    tensors: tuple[Tensor, ...]
    """The weights' tensors without a second copy of tied embeddings."""
    own: str = ""
    """The type to keep where the weights come in another than they are read in, as a GGUF's do."""


@contextmanager
def opened(path: Path, scratch: Path, report: Report) -> Iterator[Opened]:
    """The model at that path; `scratch` is a folder for what must be unpacked first, made when needed.

    Raises BrokenModel for what is damaged or hostile, ModelError for what cannot be read this way.
    """
    if path.is_dir():
        yield _folder(path)
        return
    kind = kind_of_file(path)
    if kind == "gguf":
        from chatbot.models.dequantise import Dequantised

        scratch.mkdir(exist_ok=True)
        with Dequantised(path, scratch) as weights:
            beside = tuple(sorted(scratch.iterdir()))
            yield replace(_opened(weights.name, weights.config, weights, beside), own=weights.own)
    elif kind == "zip" and not is_torch_zip(path):
        from chatbot.models.unpack import unpack

        scratch.mkdir(exist_ok=True)
        files = unpack(report, source=path, target=scratch)["files"]
        ggufs = [file["name"] for file in files if file["name"].lower().endswith(".gguf")]
        if ggufs:
            with opened(scratch / ggufs[0], scratch / "from-gguf", report) as model:
                yield model
        else:
            yield _folder(scratch, path.stem)
    elif kind in ("zip", "pickle"):
        config = _plain_settings(path.parent, path.stem)
        yield _opened(path.stem, config, StateDict([path]), companions(path.parent))
    else:
        raise ModelError(_UNKNOWN, name=path.name)


def _folder(folder: Path, name: str = "") -> Opened:
    facts = read_model(folder)
    name = name or name_of(folder)
    if facts.format == "adapter":
        raise ModelError(_ADAPTER, name=name)
    config = _plain_settings(folder, name)
    pickled = facts.format == "pt"
    weights: Source = (
        StateDict([folder / file for file in facts.files]) if pickled else Weights(folder)
    )
    return _opened(name, config, weights, companions(folder))


def _opened(name: str, config: dict[str, Any], weights: Source, beside: tuple[Path, ...]) -> Opened:
    tensors = weights.tensors
    double = _double(weights, tensors) if config.get("tie_word_embeddings") is True else None
    return Opened(name, config, weights, beside, tuple(t for t in tensors if t is not double))


def _plain_settings(folder: Path, name: str) -> dict[str, Any]:
    config = safe_settings(folder, "config.json")
    quantised = config.get("quantization_config")
    if quantised is not None:
        method = quantised.get("quant_method", "?") if isinstance(quantised, dict) else "?"
        raise ModelError(_QUANTISED, name=name, part=str(method)[:100])
    return config


def _double(weights: Source, tensors: tuple[Tensor, ...]) -> Tensor | None:
    """The output layer, where it is stored although it is the embedding table, value for value."""
    head, embedding = _called(tensors, HEAD), embedding_of(tensors)
    if head is None or embedding is None:
        return None
    if (head.shape, head.type) != (embedding.shape, embedding.type):
        return None
    pairs = zip(weights.blocks(head.name), weights.blocks(embedding.name), strict=True)
    return head if all(_same(one, other) for one, other in pairs) else None


def embedding_of(tensors: Sequence[Tensor]) -> Tensor | None:
    """The table of the tokens' vectors."""
    return _called(tensors, *EMBEDDINGS)


def _called(tensors: Sequence[Tensor], *names: str) -> Tensor | None:
    return next((t for t in tensors if f".{t.name}".endswith(tuple(f".{n}" for n in names))), None)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    import torch

    return bool(torch.equal(one.view(torch.uint8), other.view(torch.uint8)))
