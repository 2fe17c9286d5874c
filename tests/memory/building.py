"""Tiny model files, byte by byte: whole ones, and ones that lie."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from chatbot.memory.gguf import TYPES

CODES = {"u8": 0, "i8": 1, "u16": 2, "i16": 3, "u32": 4, "i32": 5, "f32": 6, "bool": 7, "str": 8,
         "array": 9, "u64": 10, "i64": 11, "f64": 12}  # fmt: skip
LAYOUTS = {"u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "f32": "f",
           "bool": "?", "u64": "Q", "i64": "q", "f64": "d"}  # fmt: skip
TYPE_IDS = {name: number for number, (name, _, _) in TYPES.items()}

Value = tuple[str, Any]
"""('u32', 7), ('str', 'llama') or ('array', ('str', ['a', 'b']))."""


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def encoded(kind: str, value: Any) -> bytes:
    if kind == "str":
        return text(value)
    if kind == "array":
        item, values = value
        head = struct.pack("<IQ", CODES[item], len(values))
        return head + b"".join(encoded(item, v) for v in values)
    return struct.pack("<" + LAYOUTS[kind], value)


def metadata(**changes: Value | None) -> dict[str, Value]:
    """What a small llama says of itself; keyword arguments (with __ for .) change it, None drops a key."""
    values: dict[str, Value] = {
        "general.architecture": ("str", "llama"),
        "general.name": ("str", "Tiny"),
        "general.file_type": ("u32", 1),
        "llama.context_length": ("u32", 128),
        "llama.embedding_length": ("u32", 64),
        "llama.block_count": ("u32", 2),
        "llama.feed_forward_length": ("u32", 96),
        "llama.attention.head_count": ("u32", 4),
        "llama.attention.head_count_kv": ("u32", 2),
        "tokenizer.ggml.model": ("str", "llama"),
        "tokenizer.ggml.tokens": ("array", ("str", ["<unk>", "<s>", "</s>", "▁xin", "▁chào"])),
        "tokenizer.ggml.scores": ("array", ("f32", [0.0] * 5)),
        "tokenizer.chat_template": ("str", "{{ messages }}"),
    }
    for key, value in changes.items():
        name = key.replace("__", ".")
        if value is None:
            del values[name]
        else:
            values[name] = value
    return values


Shape = tuple[str, tuple[int, ...], str]
TENSORS: tuple[Shape, ...] = (
    ("token_embd.weight", (64, 5), "F16"),
    ("output_norm.weight", (64,), "F32"),
    ("blk.0.attn_q.weight", (64, 64), "F16"),
    ("blk.1.attn_q.weight", (64, 64), "Q8_0"),
)


def size_of(shape: tuple[int, ...], kind: str) -> int:
    elements = 1
    for n in shape:
        elements *= n
    _, per_block, block = TYPES[TYPE_IDS[kind]]
    return elements // per_block * block


def gguf(
    values: Mapping[str, Value] | None = None,
    tensors: Iterable[Shape] = TENSORS,
    *,
    version: int = 3,
    alignment: int = 32,
    counts: tuple[int | None, int | None] = (None, None),
    offsets: Mapping[str, int] | None = None,
    data: bytes | None = None,
) -> bytes:
    """A whole GGUF file; `counts` (tensors, keys), `offsets` and `data` replace the true ones."""
    values = metadata() if values is None else values
    tensors = tuple(tensors)
    head = b"GGUF" + struct.pack("<I", version)
    head += struct.pack(
        "<QQ",
        len(tensors) if counts[0] is None else counts[0],
        len(values) if counts[1] is None else counts[1],
    )
    for key, (kind, value) in values.items():
        head += text(key) + struct.pack("<I", CODES[kind]) + encoded(kind, value)
    offset = 0
    for name, shape, kind in tensors:
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", TYPE_IDS[kind], (offsets or {}).get(name, offset))
        offset += -(-size_of(shape, kind) // alignment) * alignment
    padding = b"\0" * (-len(head) % alignment)
    return head + padding + (bytes(offset) if data is None else data)


def safetensors(
    tensors: Mapping[str, tuple[str, tuple[int, ...], int]], *, header: Any = None, extra: int = 0
) -> bytes:
    """A safetensors file of zeros; values are (dtype, shape, bytes); `header` replaces the true one."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (dtype, shape, size) in tensors.items():
        entries[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [position, position + size],
        }
        position += size
    encoded_header = json.dumps(entries if header is None else header).encode()
    return struct.pack("<Q", len(encoded_header)) + encoded_header + bytes(position + extra)


CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "vocab_size": 5,
}
WEIGHTS = {
    "model.embed_tokens.weight": ("BF16", (5, 64), 640),
    "model.layers.0.self_attn.q_proj.weight": ("BF16", (64, 64), 8192),
    "model.norm.weight": ("F32", (64,), 256),
}


def folder(where: Path, **config: Any) -> Path:
    """A model folder with config, weights and tokenizer; keyword arguments change the config."""
    where.mkdir(parents=True, exist_ok=True)
    (where / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (where / "model.safetensors").write_bytes(safetensors(WEIGHTS))
    (where / "tokenizer.json").write_text("{}")
    (where / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    return where


def sharded(where: Path, weight_map: Mapping[str, str] | None = None) -> Path:
    """The same in two shards with an index; `weight_map` replaces the true one."""
    folder(where)
    (where / "model.safetensors").unlink()
    names = list(WEIGHTS)
    shards = {
        "model-00001-of-00002.safetensors": names[:2],
        "model-00002-of-00002.safetensors": names[2:],
    }
    true_map = {}
    for shard, held in shards.items():
        (where / shard).write_bytes(safetensors({name: WEIGHTS[name] for name in held}))
        true_map.update(dict.fromkeys(held, shard))
    index = {"weight_map": dict(true_map if weight_map is None else weight_map)}
    (where / "model.safetensors.index.json").write_text(json.dumps(index))
    return where
