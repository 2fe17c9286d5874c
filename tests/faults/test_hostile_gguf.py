"""150 hostile GGUF files, ten kinds of fifteen: each gets a reason, and Hearth's own process lives on.

Those that the pre-check lets through reach llama.cpp only in a child, as they would in use.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chatbot.child import Child
from chatbot.database import Database
from chatbot.errors import ChatbotError, ChildDied, ModelError
from chatbot.memory.gguf import MAX_KEYS, MAX_TENSORS
from chatbot.memory.headers import read_model
from chatbot.models.importing import import_model
from chatbot.models.making import CRASHES, run
from chatbot.models.store import ModelStore
from chatbot.settings import Paths
from tests.memory.building import CODES, gguf, metadata, text
from tests.memory.test_footprint import real_gguf

pytestmark = pytest.mark.faults

EACH = 15
HUGE = (1 << 62, 1 << 63, (1 << 64) - 1, 1 << 32, 1 << 40)


def key_of_kind(kind: int, value: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + text("a") + struct.pack("<I", kind) + value


def other_magic() -> Iterator[bytes]:
    whole = gguf()
    for magic in (
        b"GGML",
        b"ggjt",
        b"GGLA",
        b"FUGG",
        b"\0\0\0\0",
        b"PK\x03\x04",
        b"\x7fELF",
        b"MZ\x90\0",
    ):
        yield magic + whole[4:]
    for version in (0, 1, 4, 99, 1 << 31):
        yield gguf(version=version)
    yield b"GGUF" + struct.pack(">I", 3) + whole[8:]
    yield b"GGUF"


def lying_counts() -> Iterator[bytes]:
    for tensors in (0, MAX_TENSORS + 1, 5000, *HUGE):
        yield gguf(counts=(tensors, None))
    for keys in (MAX_KEYS + 1, 500, *HUGE):
        yield gguf(counts=(None, keys))


def lying_lengths() -> Iterator[bytes]:
    start = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)
    for length in (*HUGE, 0, 1025):
        yield start + struct.pack("<Q", length) + b"k" * 2000
    for length in HUGE:
        yield key_of_kind(CODES["str"], struct.pack("<Q", length) + b"abc")
    for item in (8, 10, 4):
        yield key_of_kind(9, struct.pack("<IQ", item, 1 << 61) + bytes(64))


def odd_values() -> Iterator[bytes]:
    for kind in (13, 77, 255, 1 << 31):
        yield key_of_kind(kind, bytes(64))
    for depth in (2, 10, 1000):
        yield key_of_kind(
            9, struct.pack("<IQ", 9, 1) * depth + struct.pack("<IQ", 4, 1) + bytes(64)
        )
    for item in (9, 13, 1 << 20):
        yield key_of_kind(9, struct.pack("<IQ", item, 4) + bytes(64))
    for name in (b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80"):
        yield b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + text(name) + struct.pack("<II", 4, 1)
    twice = text("a") + struct.pack("<II", 4, 1)
    yield b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + twice * 2 + bytes(64)
    yield gguf(metadata(general__architecture=("array", ("str", ["llama"]))))


def odd_alignments() -> Iterator[bytes]:
    for alignment in (0, 1, 3, 5, 7, 12, 31, 33, 48, 63, 1 << 21, 1 << 31):
        yield gguf(metadata(general__alignment=("u32", alignment)), alignment=64)
    for value in (("str", "32"), ("f32", 32.0), ("i32", -32)):
        yield gguf(metadata(general__alignment=value))


def odd_shapes() -> Iterator[bytes]:
    shapes: list[tuple[int, ...]] = [
        (), (0,), (4, 0), (0, 4), (1,) * 5, (1,) * 9, (1 << 63, 2), (1 << 32, 1 << 32),
        (1 << 40, 1 << 40), ((1 << 64) - 1,), (1 << 51,), (1 << 20, 1 << 20, 1 << 20, 1 << 20),
    ]  # fmt: skip
    for shape in shapes:
        yield gguf(tensors=[("a", shape, "F32")], data=bytes(4096))
    for columns in (1, 100, 255):
        yield gguf(tensors=[("a", (columns, 4), "Q4_K")], data=bytes(4096))


def odd_tensors() -> Iterator[bytes]:
    whole = gguf()
    place = whole.index(b"token_embd.weight") + 17 + 4 + 16
    for kind in (4, 5, 31, 32, 33, 36, 37, 38, 43, 200, 1 << 31):
        yield whole[:place] + struct.pack("<I", kind) + whole[place + 4 :]
    for name in ("", "a" * 64, "a" * 5000):
        yield gguf(tensors=[(name, (4,), "F32")])
    yield gguf(tensors=[("same", (64,), "F32")] * 2)


def odd_places() -> Iterator[bytes]:
    for name in ("output_norm.weight", "blk.0.attn_q.weight", "blk.1.attn_q.weight"):
        for offset in (
            0 if name != "token_embd.weight" else 64,
            17,
            1 << 20,
            1 << 62,
            (1 << 64) - 32,
        ):
            yield gguf(offsets={name: offset})


def cut_off() -> Iterator[bytes]:
    whole = gguf()
    for n in range(EACH):
        yield whole[: 4 + n * (len(whole) - 5) // EACH]


def lying_geometry() -> Iterator[bytes]:
    """Whole files whose figures do not belong to their tensors; some pass the pre-check."""
    lies: list[dict[str, Any]] = [
        {"llama__block_count": ("u32", 0)}, {"llama__block_count": ("u32", 513)},
        {"llama__block_count": ("u32", 3)}, {"llama__block_count": None},
        {"llama__embedding_length": ("u32", 1 << 30)}, {"llama__embedding_length": ("u32", 63)},
        {"llama__attention__head_count": ("u32", 0)}, {"llama__attention__head_count": ("u32", 1 << 30)},
        {"llama__attention__head_count_kv": ("u32", 3)}, {"llama__feed_forward_length": ("u32", 1)},
        {"llama__context_length": ("u32", 0)}, {"general__architecture": ("str", "no-such-model")},
        {"general__architecture": ("str", "\0" * 40)}, {"tokenizer__ggml__tokens": None},
        {"llama__attention__key_length": ("u32", 7)},
    ]  # fmt: skip
    for lie in lies:
        yield gguf(metadata(**lie))


KINDS = (
    other_magic, lying_counts, lying_lengths, odd_values, odd_alignments, odd_shapes, odd_tensors,
    odd_places, cut_off, lying_geometry,
)  # fmt: skip


@pytest.fixture(scope="module")
def worker() -> Iterator[Child]:
    child = Child("chatbot.models.worker", hung_after=30.0)
    yield child
    child.close(grace=0.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ModelStore]:
    paths = Paths(tmp_path / "Dữ liệu")
    paths.make()
    database = Database(paths.database)
    yield ModelStore(database, paths)
    database.close()


def test_there_are_a_hundred_and_fifty() -> None:
    assert [sum(1 for _ in kind()) for kind in KINDS] == [EACH] * len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_hostile_file_gets_a_reason_and_leaves_nothing(
    kind: Any, tmp_path: Path, store: ModelStore, worker: Child
) -> None:
    for number, data in enumerate(kind()):
        file = tmp_path / f"{number}.gguf"
        file.write_bytes(data)
        _is_named(lambda file=file: read_model(file))
        _is_named(lambda file=file: import_model(store, file, link=False))
        target = tmp_path / f"target {number}"
        target.mkdir()
        for step, more in (("quantise", {"type": "Q8_0"}), ("convert", {})):
            params = {"source": str(file), "target": str(target), **more}
            _is_named(
                lambda step=step, params=params: worker.call(step, params, timeout=60),
                crash_is_fine=True,
            )
    assert not [path for path in store.folder.iterdir() if path.name.startswith(".")]


def _is_named(ask: Any, *, crash_is_fine: bool = False) -> None:
    """It works, or says what is wrong with which model and what to do, in both languages."""
    error = _error_of(ask)
    if error is None:
        return
    if isinstance(error, ChildDied):
        assert crash_is_fine  # `making.run` turns it into an error about the model
        return
    assert isinstance(error, ModelError)
    assert error.values["name"]
    assert len(error.values["detail"]) > 10
    for language in ("en", "vi"):
        shown = error.text(language)  # type: ignore[arg-type]
        assert "{" not in shown
        assert shown.endswith(".")


def _error_of(ask: Any) -> ChatbotError | None:
    try:
        ask()
    except ChatbotError as error:
        return error
    return None


def test_bits_that_flip_anywhere_never_end_hearth(tmp_path: Path) -> None:
    """Files that pass the pre-check and lie deeper: to llama.cpp in a child, and the answer is an error."""
    seed = tmp_path / "seed.gguf"
    real_gguf(seed, layers=1, width=64, heads=4, kv_heads=2, type_="F16")
    whole, chance = seed.read_bytes(), random.Random(7)
    passed = 0
    worker = Child("chatbot.models.worker", hung_after=30.0)
    for number in range(60):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 8))):
            data[chance.randrange(8, 4000)] ^= 1 << chance.randrange(8)
        file = tmp_path / "flipped.gguf"
        file.write_bytes(data)
        target = tmp_path / f"target {number}"
        target.mkdir()
        if _error_of(lambda file=file: read_model(file)):
            continue
        passed += 1
        params = {"source": str(file), "target": str(target), "type": "Q4_0"}
        error = _error_of(lambda params=params: worker.call("quantise", params, timeout=60))
        assert error is None or isinstance(error, ModelError | ChildDied)
        if isinstance(error, ChildDied):
            assert error.values["detail"] in CRASHES
    worker.close(grace=0.0)
    assert passed > 10


def test_a_crash_in_the_child_becomes_an_error_about_the_model(tmp_path: Path) -> None:
    """What llama.cpp gives up on with an abort, the person hears of by the model's name."""
    seed = tmp_path / "abort.gguf"
    real_gguf(seed, layers=1, width=64, heads=4, kv_heads=2, type_="F16")
    data = seed.read_bytes()
    key = b"llama.attention.head_count_kv"
    place = data.index(key) + len(key) + 4
    seed.write_bytes(data[:place] + struct.pack("<I", 1 << 20) + data[place + 4 :])
    target = tmp_path / "đích"
    target.mkdir()
    with pytest.raises(ModelError) as error:
        run("quantise", lambda *_, **__: None, source=seed, target=target, type="Q4_K_M")
    assert error.value.values["name"]
