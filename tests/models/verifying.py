"""Models to verify, and the faults that are planted in copies of them."""

from __future__ import annotations

import ctypes
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from chatbot.memory.metadata import FILE_TYPES
from chatbot.models.verify import verify
from chatbot.models.verify.llama import quiet
from chatbot.models.verify.stored import open_model
from tests.tiny_models import make_hf

FTYPES = {name: number for number, name in FILE_TYPES.items()}
HIDDEN, INNER, LAYERS, HEADS, KEY_HEADS = 256, 256, 2, 8, 4

Arrays = dict[str, np.ndarray]


def ignore(_fraction: float, _message: str = "", **_values: Any) -> None:
    """A report that nobody hears."""


def check(source: Path, parent: Path | None = None, **params: Any) -> dict[str, Any]:
    """The verdict without running the models, unless asked for."""
    return verify(ignore, source=source, parent=parent, **{"run": False} | params)


def failed(verdict: dict[str, Any]) -> set[str]:
    """The names of the checks that failed."""
    return {found["name"] for found in verdict["checks"] if found["verdict"] == "fail"}


def found(verdict: dict[str, Any], name: str) -> dict[str, Any]:
    """That check."""
    return next(each for each in verdict["checks"] if each["name"] == name)


def wide_hf(folder: Path, *, dtype: str = "float32", tied: bool = False, seed: int = 1) -> Path:
    """A Llama whose rows are whole blocks of every quantised type; random but for its tokenizer."""
    make_hf(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config |= {
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "tie_word_embeddings": tied,
        "torch_dtype": dtype,
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    random = np.random.default_rng(seed)
    size = config["vocab_size"]

    def noise(*shape: int, scale: float = 0.05) -> np.ndarray:
        return (random.standard_normal(shape) * scale).astype(np.float32)

    narrow = HIDDEN * KEY_HEADS // HEADS
    weights = {"model.embed_tokens.weight": noise(size, HIDDEN, scale=1.0)}
    weights["model.norm.weight"] = 1 + noise(HIDDEN)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        weights |= {
            f"{at}self_attn.q_proj.weight": noise(HIDDEN, HIDDEN),
            f"{at}self_attn.k_proj.weight": noise(narrow, HIDDEN),
            f"{at}self_attn.v_proj.weight": noise(narrow, HIDDEN),
            f"{at}self_attn.o_proj.weight": noise(HIDDEN, HIDDEN),
            f"{at}mlp.gate_proj.weight": noise(INNER, HIDDEN),
            f"{at}mlp.up_proj.weight": noise(INNER, HIDDEN),
            f"{at}mlp.down_proj.weight": noise(HIDDEN, INNER),
            f"{at}input_layernorm.weight": 1 + noise(HIDDEN),
            f"{at}post_attention_layernorm.weight": 1 + noise(HIDDEN),
        }
    if not tied:
        weights["lm_head.weight"] = noise(size, HIDDEN)
    save(folder, weights, dtype)
    return folder


def save(folder: Path, weights: Arrays, dtype: str = "float32") -> None:
    """Write the weights of a folder in that type."""
    import torch
    from safetensors.torch import save_file

    kind = getattr(torch, dtype)
    tensors = {n: torch.from_numpy(np.ascontiguousarray(w)).to(kind) for n, w in weights.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def load(folder: Path) -> dict[str, Any]:
    """A folder's weights as torch tensors."""
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """Change a folder's weights in place."""
    from safetensors.torch import save_file

    tensors = {name: tensor.clone() for name, tensor in load(folder).items()}
    edit(tensors)
    save_file(
        {n: t.contiguous() for n, t in tensors.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


def cast(source: Path, target: Path, dtype: str) -> Path:
    """A copy of the folder with its weights in another type."""
    import torch

    copied = copy(source, target)

    def edit(tensors: dict[str, Any]) -> None:
        tensors |= {name: t.to(getattr(torch, dtype)) for name, t in tensors.items()}

    return change(copied, edit)


def copy(source: Path, target: Path) -> Path:
    """A copy of a file or folder."""
    if source.is_dir():
        return Path(shutil.copytree(source, target))
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(source, target))


def quantised(source: Path, target: Path, kind: str) -> Path:
    """The GGUF in another type, by llama.cpp itself."""
    library = quiet()
    params = library.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = FTYPES[kind], 1, True
    done = library.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(params)
    )
    assert done == 0
    return target


def flip(file: Path, position: int, bit: int = 0) -> None:
    """Turn over one bit of a file."""
    with file.open("r+b") as opened:
        opened.seek(position)
        byte = opened.read(1)[0]
        opened.seek(position)
        opened.write(bytes([byte ^ 1 << bit]))


def place(model: Path, tensor: str) -> tuple[int, int]:
    """Where the bytes of that tensor begin in the model's only file, and how many they are."""
    stored = open_model(model).tensors[tensor]
    raw = stored.read(0, stored.rows).tobytes()
    data = open_model(model).files[0].read_bytes()
    assert data.count(raw) == 1
    return data.index(raw), len(raw)


def write_metadata(file: Path, changes: dict[str, Any], drop: tuple[str, ...] = ()) -> Path:
    """Write the GGUF file anew with other metadata."""
    import gguf

    reader = gguf.GGUFReader(file)
    values = {key: field.contents() for key, field in reader.fields.items()}
    target = file.with_suffix(".new")
    writer = gguf.GGUFWriter(target, values["general.architecture"])
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture" or key in drop:
            continue
        value = changes.get(key, values[key])
        sub = field.types[-1] if len(field.types) > 1 else None
        writer.add_key_value(key, value, field.types[0], sub_type=sub)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    del reader
    target.replace(file)
    return file
