from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatbot.errors import BrokenModel, ModelError
from chatbot.memory.gguf import MAX_KEYS, MAX_TENSORS, TYPES, read_gguf
from chatbot.memory.headers import read_model
from tests.memory.building import CODES, TENSORS, gguf, metadata, text


def written(folder: Path, data: bytes, name: str = "model.gguf") -> Path:
    file = folder / name
    file.write_bytes(data)
    return file


def test_a_whole_file_tells_its_geometry(tmp_path: Path) -> None:
    facts = read_model(written(tmp_path, gguf()))
    assert (facts.format, facts.architecture, facts.name) == ("gguf", "llama", "Tiny")
    assert (facts.context, facts.vocabulary, facts.width, facts.feed_forward) == (128, 5, 64, 96)
    assert facts.quantisation == "F16"
    assert facts.writes_text
    assert facts.chat_template
    assert facts.tokenizer
    assert facts.tied
    assert facts.parameters == 5 * 64 + 64 + 2 * 64 * 64
    assert facts.size_by_type() == {"F16": 2 * (320 + 4096), "Q8_0": 4352, "F32": 256}
    assert facts.size_of_blocks() == [8192, 4352]
    (first, second) = facts.layers
    assert first == second
    assert (first.heads, first.kv_heads, first.key_length, first.window) == (4, 2, 16, None)


def test_figures_may_differ_from_layer_to_layer(tmp_path: Path) -> None:
    values = metadata(
        llama__attention__head_count_kv=("array", ("u32", [2, 1])),
        llama__attention__key_length=("u32", 32),
        llama__attention__value_length=("u32", 8),
    )
    layers = read_model(written(tmp_path, gguf(values))).layers
    assert [layer.kv_heads for layer in layers] == [2, 1]
    assert {(layer.key_length, layer.value_length) for layer in layers} == {(32, 8)}


def test_sliding_windows_follow_the_architecture(tmp_path: Path) -> None:
    values = metadata(general__architecture=("str", "gemma3"))
    for key in list(values):
        if key.startswith("llama."):
            values[key.replace("llama.", "gemma3.")] = values.pop(key)
    values["gemma3.block_count"] = ("u32", 12)
    values["gemma3.attention.sliding_window"] = ("u32", 512)
    layers = read_model(written(tmp_path, gguf(values))).layers
    assert [n for n, layer in enumerate(layers) if layer.window is None] == [5, 11]


def test_an_adapter_or_an_embedder_is_not_a_model_that_writes(tmp_path: Path) -> None:
    adapter = metadata(general__type=("str", "adapter"))
    assert not read_model(written(tmp_path, gguf(adapter), "adapter.gguf")).writes_text
    embedder = metadata(general__architecture=("str", "bert"))
    assert not read_model(written(tmp_path, gguf(embedder), "bert.gguf")).writes_text


def test_the_type_table_is_the_one_of_the_gguf_library() -> None:
    constants = pytest.importorskip("gguf.constants")
    theirs = {
        int(kind): (kind.name, *constants.GGML_QUANT_SIZES[kind])
        for kind in constants.GGMLQuantizationType
    }
    assert theirs == TYPES


def header_with_key(kind: int, value: bytes) -> bytes:
    """A file whose only key is of that kind, followed by those bytes."""
    return b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + text("k") + struct.pack("<I", kind) + value


HUGE = 1 << 62
LYING = {
    "not gguf": b"GGML" + gguf()[4:],
    "big-endian": b"GGUF" + struct.pack(">I", 3) + gguf()[8:],
    "version 1": gguf(version=1),
    "version 4": gguf(version=4),
    "only the magic": b"GGUF",
    "cut in the counts": gguf()[:20],
    "cut in the keys": gguf()[:150],
    "cut in the tensors": gguf()[:-9000],
    "cut in the data": gguf()[:-1],
    "no tensors": gguf(tensors=()),
    "more tensors than there are": gguf(counts=(5000, None)),
    "tensor count of 2^62": gguf(counts=(HUGE, None)),
    "too many tensors": gguf(counts=(MAX_TENSORS + 1, None)),
    "key count of 2^62": gguf(counts=(None, HUGE)),
    "too many keys": gguf(counts=(None, MAX_KEYS + 1)),
    "the same key twice": gguf(counts=(None, 2), values={})[:24]
    + (text("k") + struct.pack("<IB", 0, 1)) * 2,
    "key of 2^62 characters": b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, HUGE) + b"k" * 64,
    "key without a name": b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 0) + bytes(64),
    "key that is not text": b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 2) + b"\xff\xfe" + bytes(64),
    "unknown kind of value": header_with_key(77, bytes(64)),
    "text of 2^62 characters": header_with_key(CODES["str"], struct.pack("<Q", HUGE) + b"abc"),
    "array of 2^62 texts": header_with_key(9, struct.pack("<IQ", 8, HUGE) + bytes(64)),
    "array of 2^62 numbers": header_with_key(9, struct.pack("<IQ", 10, HUGE) + bytes(64)),
    "array of arrays": header_with_key(9, struct.pack("<IQIQ", 9, 1, 9, 1) + bytes(64)),
    "alignment of zero": gguf(metadata(general__alignment=("u32", 0))),
    "alignment of 3": gguf(metadata(general__alignment=("u32", 3))),
    "alignment of 2^31": gguf(metadata(general__alignment=("u32", 1 << 31))),
    "alignment in words": gguf(metadata(general__alignment=("str", "32"))),
    "dimension of zero": gguf(tensors=[("a", (0, 4), "F32")]),
    "dimensions that overflow": gguf(tensors=[("a", (1 << 40, 1 << 40), "F32")], data=b""),
    "five dimensions": gguf(tensors=[("a", (1, 1, 1, 1, 1), "F32")]),
    "no dimensions": gguf(tensors=[("a", (), "F32")]),
    "row that is no whole block": gguf(tensors=[("a", (100, 4), "Q4_K")]),
    "tensor name of 64 characters": gguf(tensors=[("a" * 64, (4,), "F32")]),
    "tensor without a name": gguf(tensors=[("", (4,), "F32")]),
    "two tensors of one name": gguf(tensors=[TENSORS[0], TENSORS[0]]),
    "tensors that overlap": gguf(offsets={"output_norm.weight": 0}),
    "tensor past the end": gguf(offsets={"blk.1.attn_q.weight": 1 << 20}),
    "tensor at 2^63": gguf(offsets={"blk.1.attn_q.weight": 1 << 63}),
    "tensor off the alignment": gguf(offsets={"blk.1.attn_q.weight": 17025}),
    "architecture that is a number": gguf(metadata(general__architecture=("u32", 7))),
    "no architecture": gguf(metadata(general__architecture=None)),
    "no block count": gguf(metadata(llama__block_count=None)),
    "block count of zero": gguf(metadata(llama__block_count=("u32", 0))),
    "513 blocks": gguf(metadata(llama__block_count=("u32", 513))),
    "negative heads": gguf(metadata(llama__attention__head_count=("i32", -4))),
    "heads in words": gguf(metadata(llama__attention__head_count=("str", "four"))),
    "heads for one layer of two": gguf(
        metadata(llama__attention__head_count=("array", ("u32", [4])))
    ),
    "width of infinity": gguf(metadata(llama__embedding_length=("f32", float("inf")))),
}


@pytest.mark.parametrize("lie", LYING)
def test_a_file_that_lies_is_refused_with_a_reason(tmp_path: Path, lie: str) -> None:
    file = written(tmp_path, LYING[lie])
    with pytest.raises(ModelError) as refusal:
        read_model(file)
    for language in ("vi", "en"):
        said = refusal.value.text(language)  # type: ignore[arg-type]
        assert "model.gguf" in said
        assert "{" not in said


def test_a_tensor_of_unknown_type_is_refused(tmp_path: Path) -> None:
    whole = gguf(tensors=[("a", (32,), "F32")])
    at = whole.index(b"a" + struct.pack("<IQ", 1, 32)) + 13
    for kind in (4, 5, 31, 38, 255, 1 << 31):
        with pytest.raises(BrokenModel):
            read_gguf(written(tmp_path, whole[:at] + struct.pack("<I", kind) + whole[at + 4 :]))


def test_a_huge_sparse_file_of_declared_texts_takes_no_time_or_memory(tmp_path: Path) -> None:
    file = tmp_path / "sparse.gguf"
    file.write_bytes(header_with_key(9, struct.pack("<IQ", 8, 100_000_000)))
    with file.open("r+b") as opened:
        opened.truncate(3 << 30)
    started = time.perf_counter()
    with pytest.raises(BrokenModel):
        read_gguf(file)
    assert time.perf_counter() - started < 1


SEEDS = [
    gguf(),
    gguf(version=2),
    gguf(metadata(llama__attention__head_count_kv=("array", ("i32", [2, 1])))),
    gguf(metadata(general__alignment=("u32", 64)), alignment=64),
    gguf(tensors=[("token_embd.weight", (256, 8), "Q4_K"), ("output.weight", (256, 8), "IQ4_XS")]),
]


@settings(
    max_examples=800, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_mutation_raises_anything_but_a_refusal(tmp_path: Path, data: st.DataObject) -> None:
    mutant = bytearray(data.draw(st.sampled_from(SEEDS)))
    head = min(len(mutant), 1200)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, head - 1))
        match data.draw(st.sampled_from(["byte", "number", "cut", "repeat", "drop"])):
            case "byte":
                mutant[at] = data.draw(st.integers(0, 255))
            case "number":
                number = data.draw(
                    st.sampled_from([0, 1, 0xFF, 1 << 31, (1 << 32) - 1, HUGE, (1 << 64) - 1])
                )
                mutant[at : at + 8] = struct.pack("<Q", number)
            case "cut":
                del mutant[max(at, 1) :]
            case "repeat":
                mutant[at:at] = mutant[at : at + data.draw(st.integers(1, 64))]
            case "drop":
                del mutant[at : at + data.draw(st.integers(1, 16))]
        head = max(min(len(mutant), 1200), 1)
        if not mutant:
            mutant = bytearray(b"G")
    file = written(tmp_path, bytes(mutant))
    try:
        header = read_gguf(file)
    except BrokenModel:
        return
    assert sum(tensor.size for tensor in header.tensors) <= len(mutant)
    try:
        read_model(file)
    except BrokenModel as refusal:
        refusal.text("vi")  # must be sayable too


# --- several parts ---------------------------------------------------------------------------


def part(number: int, count: int, tensors: tuple[object, ...], total: int = 4) -> bytes:
    values = metadata() if number == 0 else {}
    values["split.no"] = ("u16", number)
    values["split.count"] = ("u16", count)
    values["split.tensors.count"] = ("i32", total)
    return gguf(values, tensors)  # type: ignore[arg-type]


def test_any_part_of_a_split_model_stands_for_the_whole(tmp_path: Path) -> None:
    first = written(tmp_path, part(0, 2, TENSORS[:2]), "big-00001-of-00002.gguf")
    second = written(tmp_path, part(1, 2, TENSORS[2:]), "big-00002-of-00002.gguf")
    facts = read_model(second)
    assert facts == read_model(first)
    assert facts.path == str(first)
    assert facts.files == (first.name, second.name)
    assert len(facts.tensors) == 4


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    first = written(tmp_path, part(0, 2, TENSORS[:2]), "big-00001-of-00002.gguf")
    with pytest.raises(BrokenModel, match=r"big-00002-of-00002\.gguf is missing"):
        read_model(first)


def test_parts_in_the_wrong_order_or_of_another_model_are_refused(tmp_path: Path) -> None:
    first = written(tmp_path, part(0, 2, TENSORS[:2]), "big-00001-of-00002.gguf")
    second = written(tmp_path, part(0, 2, TENSORS[2:]), "big-00002-of-00002.gguf")
    with pytest.raises(BrokenModel):
        read_model(first)
    second.write_bytes(part(1, 2, TENSORS[2:3]))
    with pytest.raises(BrokenModel, match="do not belong together"):
        read_model(first)


def test_a_renamed_lonely_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokenModel):
        read_model(written(tmp_path, part(0, 2, TENSORS[:2]), "renamed.gguf"))


def test_an_impossible_set_is_refused_before_its_parts_are_looked_for(tmp_path: Path) -> None:
    with pytest.raises(BrokenModel, match="impossible"):
        read_model(written(tmp_path, gguf(), "x-00001-of-99999.gguf"))


# --- what is not a model -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"PK\x03\x04rest of a zip", "zip"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"\x80", "neither"),
        (struct.pack("<Q", 100) + b'{"a"', "choose the folder"),
        (b"%PDF-1.7", "neither"),
    ],
)
def test_other_files_are_refused_for_what_they_are(
    tmp_path: Path, content: bytes, says: str
) -> None:
    with pytest.raises(ModelError, match=says):
        read_model(written(tmp_path, content))


def test_a_path_that_leads_nowhere_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read_model(tmp_path / "không có.gguf")
    with pytest.raises(ModelError):
        read_model(Path("a\0b"))


def test_the_extension_does_not_matter(tmp_path: Path) -> None:
    assert read_model(written(tmp_path, gguf(), "sha256-abc")).architecture == "llama"


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    file = written(tmp_path, gguf())
    assert read_model(file).context == 128
    file.write_bytes(
        gguf(metadata(llama__context_length=("u32", 4096), general__name=("str", "Other")))
    )
    assert read_model(file).context == 4096


def test_the_shared_gguf_and_folder_are_the_same_model(shared_models: Path) -> None:
    file = read_model(shared_models / "stories260K.gguf")
    folder = read_model(shared_models / "stories260K")
    assert file.parameters == folder.parameters == 260_032
    assert file.layers == folder.layers
    assert (file.context, file.vocabulary, file.width) == (
        folder.context,
        folder.vocabulary,
        folder.width,
    )
