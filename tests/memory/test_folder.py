from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatbot.errors import BrokenModel
from chatbot.memory.folder import read_safetensors
from chatbot.memory.headers import read_model
from tests.memory.building import CONFIG, WEIGHTS, folder, safetensors, sharded


def test_a_folder_tells_its_geometry(tmp_path: Path) -> None:
    facts = read_model(folder(tmp_path / "Mô hình của tôi"))
    assert (facts.format, facts.architecture, facts.name) == ("hf", "llama", "Mô hình của tôi")
    assert (facts.context, facts.vocabulary, facts.width, facts.feed_forward) == (128, 5, 64, 96)
    assert facts.quantisation == "BF16"
    assert facts.parameters == 5 * 64 + 64 * 64 + 64
    assert facts.size_of_blocks() == [8192, 0]
    assert facts.writes_text
    assert facts.chat_template
    assert facts.tokenizer
    assert facts.tied
    assert facts.files == ("model.safetensors",)


def test_shards_make_one_model(tmp_path: Path) -> None:
    whole, parts = read_model(folder(tmp_path / "a")), read_model(sharded(tmp_path / "b"))
    assert {t.name for t in whole.tensors} == {t.name for t in parts.tensors}
    assert len(parts.files) == 2


def test_geometry_is_found_under_every_usual_name(tmp_path: Path) -> None:
    gpt2 = {"hidden_size": None, "n_embd": 32, "num_hidden_layers": None, "n_layer": 3,
            "num_attention_heads": None, "n_head": 4, "num_key_value_heads": None,
            "max_position_embeddings": None, "n_positions": 77, "intermediate_size": None}  # fmt: skip
    facts = read_model(folder(tmp_path, **gpt2))
    assert (facts.width, len(facts.layers), facts.context, facts.feed_forward) == (32, 3, 77, 128)
    assert facts.layers[0].kv_heads == 4
    assert facts.layers[0].key_length == 8


def test_the_writing_half_of_a_model_that_also_sees_counts(tmp_path: Path) -> None:
    text = {**CONFIG, "hidden_size": 128, "num_hidden_layers": 4}
    facts = read_model(folder(tmp_path, text_config=text, hidden_size=None))
    assert (facts.width, len(facts.layers)) == (128, 4)


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        ({"sliding_window": 8, "model_type": "mistral"}, [8, 8]),
        ({"sliding_window": 8, "model_type": "qwen2", "use_sliding_window": False}, [None, None]),
        ({"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}, [8, None]),
        ({"sliding_window": 8, "sliding_window_pattern": 2}, [8, None]),
        ({"sliding_window": None}, [None, None]),
    ],
)
def test_sliding_windows_are_known_per_layer(
    tmp_path: Path, config: dict[str, Any], windows: list[int | None]
) -> None:
    assert [layer.window for layer in read_model(folder(tmp_path, **config)).layers] == windows


def test_the_hubs_cache_is_readable_through_its_links(tmp_path: Path) -> None:
    snapshot = folder(tmp_path / "models--phamhai--Frog" / "snapshots" / "0123abcd")
    blobs = tmp_path / "models--phamhai--Frog" / "blobs"
    blobs.mkdir()
    for file in list(snapshot.iterdir()):
        file.rename(blobs / file.name)
        link(file, blobs / file.name)
    assert read_model(snapshot).name == "phamhai/Frog"


def link(where: Path, target: Path) -> None:
    try:
        where.symlink_to(target)
    except OSError:
        pytest.skip("this system does not let us make links")


# --- what could run code or reach outside --------------------------------------------------------


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize(
    "settings_",
    [
        {"auto_map": {"AutoModel": "modeling.Evil"}},
        {"_attn_implementation_internal": "evil/kernels"},
        {"text_config": {"deep": [{"auto_map": {}}]}},
    ],
)
def test_settings_that_name_code_are_refused_by_name(
    tmp_path: Path, file: str, settings_: dict[str, Any]
) -> None:
    folder(tmp_path)
    base = CONFIG if file == "config.json" else {}
    (tmp_path / file).write_text(json.dumps({**base, **settings_}))
    with pytest.raises(BrokenModel, match=rf"{file}: (auto_map|_attn_implementation_internal)"):
        read_model(tmp_path)


def test_program_code_in_the_folder_is_refused_by_name(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "modeling_evil.py").write_text("raise SystemExit")
    with pytest.raises(BrokenModel, match=r"modeling_evil\.py"):
        read_model(tmp_path)


OUTSIDE = ["../other.safetensors", "/etc/x.safetensors", "C:\\x.safetensors", "C:x.safetensors",
           "\\\\server\\share\\x.safetensors", "a/b.safetensors", "x\0.safetensors", "..", "",
           "model.safetensors:stream.safetensors", "weights.bin", "x\n.safetensors"]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_index_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    sharded(tmp_path / "model", {"model.norm.weight": name})
    (tmp_path / "other.safetensors").write_bytes(safetensors(WEIGHTS))
    with pytest.raises(BrokenModel, match="points outside"):
        read_model(tmp_path / "model")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    home = folder(tmp_path / "model")
    (home / name).rename(tmp_path / name)
    link(home / name, tmp_path / name)
    with pytest.raises(BrokenModel, match=f"{name} points outside"):
        read_model(home)


def test_pickled_weights_are_refused_with_the_cure(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(BrokenModel, match=r"Save it again with torch\.save"):
        read_model(tmp_path)


@pytest.mark.parametrize("absent", ["model-00002-of-00002.safetensors", "config.json"])
def test_an_absent_file_is_named(tmp_path: Path, absent: str) -> None:
    sharded(tmp_path)
    (tmp_path / absent).unlink()
    with pytest.raises(BrokenModel, match=f"{absent} is missing"):
        read_model(tmp_path)


def test_shards_without_their_index_are_refused(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(BrokenModel, match=r"index\.json is missing"):
        read_model(tmp_path)


def test_a_tensor_the_index_promises_must_be_there(tmp_path: Path) -> None:
    true_map = json.loads((sharded(tmp_path) / "model.safetensors.index.json").read_text())[
        "weight_map"
    ]
    sharded(tmp_path, {**true_map, "lm_head.weight": "model-00001-of-00002.safetensors"})
    with pytest.raises(BrokenModel, match=r"lm_head\.weight is missing"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "[" * 100_000, '{"a": 1, "a": 2}', '"text"', "\x00"]
)
def test_a_config_that_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    folder(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(BrokenModel):
        read_model(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": -1}, {"hidden_size": "64"}, {"hidden_size": 1e300}, {"hidden_size": True},
        {"num_hidden_layers": 513}, {"num_hidden_layers": 0}, {"num_attention_heads": 0},
        {"num_attention_heads": [4]}, {"num_key_value_heads": ["a", "b"]}, {"vocab_size": None},
        {"max_position_embeddings": 10**30}, {"head_dim": []},
    ],
)  # fmt: skip
def test_impossible_figures_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(BrokenModel):
        read_model(folder(tmp_path, **change))


def entry(**change: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **change}}


LYING = {
    "empty": b"",
    "seven bytes": b"1234567",
    "header longer than the file": struct.pack("<Q", 1 << 40) + b"{}",
    "header over 100 MB": struct.pack("<Q", 100_000_001) + b"{}",
    "no JSON": struct.pack("<Q", 4) + b"{{{{" + bytes(16),
    "deep JSON": struct.pack("<Q", 100_000) + b"[" * 100_000,
    "a list": safetensors({}, header=[1], extra=16),
    "no tensors": safetensors({}),
    "bytes after the end": safetensors(WEIGHTS, extra=1),
    "cut": safetensors(WEIGHTS)[:-1],
    "gap": safetensors({}, header=entry(data_offsets=[4, 20]), extra=20),
    "overlap": safetensors({}, header={**entry(), "b": entry()["a"]}, extra=16),
    "wrong size": safetensors({}, header=entry(shape=[5]), extra=16),
    "negative shape": safetensors({}, header=entry(shape=[-4]), extra=16),
    "shape in words": safetensors({}, header=entry(shape=["4"]), extra=16),
    "boolean shape": safetensors({}, header=entry(shape=[True, 4]), extra=16),
    "no offsets": safetensors({}, header={"a": {"dtype": "F32", "shape": [4]}}, extra=16),
    "three offsets": safetensors({}, header=entry(data_offsets=[0, 8, 16]), extra=16),
    "unknown type": safetensors({}, header=entry(dtype="F128"), extra=16),
    "type in a list": safetensors({}, header=entry(dtype=["F32"]), extra=16),
    "offsets backwards": safetensors({}, header=entry(data_offsets=[16, 0]), extra=16),
    "one name twice": struct.pack("<Q", 124)
    + (b"{" + (b'"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},' * 2)[:-1]).ljust(123)
    + b"}"
    + bytes(16),
}


@pytest.mark.parametrize("lie", LYING)
def test_a_safetensors_header_that_lies_is_refused(tmp_path: Path, lie: str) -> None:
    home = folder(tmp_path)
    (home / "model.safetensors").write_bytes(LYING[lie])
    with pytest.raises(BrokenModel, match=r"model\.safetensors"):
        read_model(home)


@settings(
    max_examples=600, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_mutation_raises_anything_but_a_refusal(tmp_path: Path, data: st.DataObject) -> None:
    mutant = bytearray(safetensors(WEIGHTS))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, 420))
        if data.draw(st.booleans()):
            mutant[at] = data.draw(st.sampled_from([*b'{}[]",:-0919eE\\ntf', 0, 255]))
        else:
            del mutant[at : at + data.draw(st.integers(1, 8))]
    file = tmp_path / "model.safetensors"
    file.write_bytes(mutant)
    try:
        tensors = read_safetensors(file)
    except BrokenModel:
        return
    assert sum(tensor.size for tensor in tensors) < len(mutant)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(
    max_examples=300, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.dictionaries(
    st.sampled_from([*CONFIG, "text_config", "layer_types", "sliding_window", "head_dim",
                     "quantization_config", "multi_query", "sliding_window_pattern"]),
    VALUES, min_size=1, max_size=4))  # fmt: skip
def test_no_config_raises_anything_but_a_refusal(tmp_path: Path, changes: dict[str, Any]) -> None:
    home = folder(tmp_path, **changes)
    os.utime(home / "config.json", ns=(0, hash(json.dumps(changes)) % 10**18))
    try:
        read_model(home)
    except BrokenModel as refusal:
        refusal.text("vi")  # must be sayable too
