"""A GGUF file read back into the tensors of a model folder, one at a time.

transformers knows which GGUF tensor is which of its own, and how llama.cpp's converter had changed it; the
gguf package undoes the quantisation. What was lost in quantising stays lost.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatbot.errors import ModelError
from chatbot.i18n import N_
from chatbot.memory.facts import Tensor
from chatbot.memory.gguf import read_gguf
from chatbot.memory.headers import read_model
from chatbot.models.weights import PIECE

if TYPE_CHECKING:
    import torch

_UNKNOWN = N_(
    "its kind ({part}) cannot be turned back into a model folder; take the original model instead."
)
_UNMATCHED = N_(
    "its tensor {part} has no place in a model folder of that kind; take the original model."
)
_SPLIT = N_("it is a GGUF file in several parts; join them with llama-gguf-split first.")
_SCALED = N_(
    "its long context is kept in a way that a model folder cannot say; take the original model instead."
)
_SPACE = "\u2581"
_LOW, _HIGH, _ORIGINAL = 1.0, 4.0, 8192
_LLAMA3_FACTORS = (8.0, 32.0)
"""Of Llama 3.1 and 3.2: how far their context was stretched."""


class Dequantised:
    """The tensors of a GGUF file under their Hugging Face names, as F32; settings and tokenizer in `folder`.

    A context. Raises BrokenModel for a damaged file, ModelError for a kind of model that transformers
    cannot turn back: mixtures of experts, and what it does not know.
    """

    def __init__(self, file: Path, folder: Path) -> None:
        facts = read_model(file)  # its header is held against the file before any library sees it
        self.name = facts.name
        if len(facts.files) > 1:
            raise ModelError(_SPLIT, name=self.name)
        if any("_exps" in tensor.name for tensor in facts.tensors):
            raise ModelError(_UNKNOWN, name=self.name, part=f"{facts.architecture}, experts")
        self._file = file
        self._folder = folder
        main = next(iter(facts.size_by_type()))
        self.own = main if main in ("F32", "BF16") else "F16"
        self._architecture = facts.architecture
        _write_settings(file, folder, self.name, facts.architecture)
        self.tensors: tuple[Tensor, ...] = ()
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())

    def __enter__(self) -> Dequantised:
        import gguf
        from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

        self._reader = gguf.GGUFReader(self._file)
        self._processor = TENSOR_PROCESSORS.get(self._architecture, TensorProcessor)(
            config=self.config
        )
        names, shapes = _names(self._folder, self._processor)
        self._quantised: dict[str, Any] = {}
        found = []
        for tensor in self._reader.tensors:
            if tensor.name == "rope_freqs.weight":
                self.config["rope_parameters"] |= _scaling(tensor.data, self.config, self.name)
            elif tensor.name not in names:
                raise ModelError(_UNMATCHED, name=self.name, part=tensor.name)
            else:
                name = names[tensor.name]
                self._quantised[name] = tensor
                found.append(Tensor(name, shapes[name], "F32", math.prod(shapes[name]) * 4))
        self.tensors = tuple(found)
        return self

    def __exit__(self, *_: object) -> None:
        del self._reader, self._quantised  # the file is mapped as long as one of them lives

    def blocks(self, name: str) -> Iterator[torch.Tensor]:
        """The tensor's values in pieces of at most PIECE bytes: flat, F32."""
        import numpy as np
        import torch
        from gguf import dequantize

        tensor = self._quantised[name]
        values = dequantize(tensor.data, tensor.tensor_type)
        processed = self._processor.process(
            weights=values,
            name=tensor.name,
            tensor_key_mapping={},
            parsed_parameters={"tensors": {}},
        )
        whole = torch.from_numpy(np.array(processed.weights, dtype=np.float32)).reshape(-1)
        yield from whole.split(PIECE // 4)


def _write_settings(file: Path, folder: Path, name: str, architecture: str) -> None:
    """config.json and the tokenizer, as transformers reads them out of the GGUF file."""
    from transformers import AutoConfig, AutoTokenizer
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    place: dict[str, Any] = {
        "pretrained_model_name_or_path": file.parent,
        "gguf_file": file.name,
        "local_files_only": True,
        "trust_remote_code": False,  # unsaid, it would ask for leave on stdin
    }
    try:
        config = AutoConfig.from_pretrained(**place)
        tokenizer = AutoTokenizer.from_pretrained(**place)
    except Exception as error:  # whatever these libraries do not know raises as it likes
        raise ModelError(_UNKNOWN, name=name, part=architecture) from error
    writer = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    if writer is None:
        raise ModelError(_UNKNOWN, name=name, part=architecture)
    config.architectures = [writer]
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _mend_spaces(folder / "tokenizer.json", read_gguf(file).values)


def _mend_spaces(file: Path, header: dict[str, Any]) -> None:
    """Let a SentencePiece tokenizer treat spaces as llama.cpp does: one goes before every piece of text.

    transformers puts it before the first one alone, and never where a space stands already.
    """
    tokenizer = json.loads(file.read_bytes())
    if header.get("tokenizer.ggml.model") != "llama" or tokenizer.get("normalizer") is not None:
        return
    spaces: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    ]
    if header.get("tokenizer.ggml.add_space_prefix", True):
        spaces.insert(0, {"type": "Prepend", "prepend": _SPACE})
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": spaces}
    tokenizer["pre_tokenizer"] = None
    file.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


def _names(folder: Path, processor: Any) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """The model folder's name for each GGUF tensor, and the shapes by those names."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import get_gguf_hf_weights_map

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return get_gguf_hf_weights_map(model, processor), shapes


def _scaling(factors: Any, config: dict[str, Any], name: str) -> dict[str, Any]:
    """The scaling of the positions that these factors came from; only Llama 3's is known."""
    import numpy as np

    length = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    theta = float(config["rope_parameters"]["rope_theta"])
    turns = _ORIGINAL / (2 * math.pi * theta ** (np.arange(0, length, 2) / length))
    for factor in _LLAMA3_FACTORS:
        smooth = np.clip((turns - _LOW) / (_HIGH - _LOW), 0, 1)
        expected = 1 / ((1 - smooth) / factor + smooth)
        if np.shape(factors) == expected.shape and np.allclose(factors, expected, rtol=1e-4):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": _LOW,
                "high_freq_factor": _HIGH,
                "original_max_position_embeddings": _ORIGINAL,
            }
    raise ModelError(_SCALED, name=name)
