"""Planted faults in weights and files are caught; sound models pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatbot.errors import Cancelled
from chatbot.models.files import stored
from chatbot.models.verify import ones, step, tensors, verify
from chatbot.models.verify import stored as stored_files
from chatbot.models.verify.check import check as passing
from chatbot.models.verify.stored import open_model
from tests.models.verifying import (
    HEADS,
    HIDDEN,
    cast,
    change,
    check,
    copy,
    failed,
    flip,
    found,
    load,
    place,
    quantised,
    wide_hf,
)
from tests.tiny_models import make_gguf


@pytest.fixture(autouse=True)
def _weights_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenizers and templates are other tests' matter, and a second each."""
    for module in (step.tokens, step.templates):
        monkeypatch.setattr(module, "compare", lambda *_, **__: passing("other"))


Q = "model.layers.{}.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kiểm chứng")


@pytest.fixture(scope="module")
def hf(home: Path) -> Path:
    return wide_hf(home / "gốc")


@pytest.fixture(scope="module")
def half(hf: Path, home: Path) -> Path:
    return cast(hf, home / "half", "float16")


@pytest.fixture(scope="module")
def f16(hf: Path, home: Path) -> Path:
    return make_gguf(hf, home / "f16.gguf", "f16")


@pytest.fixture(scope="module")
def q4(f16: Path, home: Path) -> Path:
    return quantised(f16, home / "q4 k m.gguf", "Q4_K_M")


def test_the_same_folder_is_exactly_the_same(hf: Path, tmp_path: Path) -> None:
    verdict = check(copy(hf, tmp_path / "copy"), hf)
    assert verdict["verdict"] == "pass"
    weights = found(verdict, "weights")
    assert weights["measured"]["epsilon"] == 0.0
    assert weights["measured"]["unchanged"] == weights["measured"]["tensors"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounding_to_a_narrower_type_passes_with_the_error_of_that_type(
    hf: Path, tmp_path: Path, dtype: str
) -> None:
    verdict = check(cast(hf, tmp_path / "narrow", dtype), hf)
    assert verdict["verdict"] == "pass"
    relative = found(verdict, "weights")["measured"]["relative"]
    # Uniform rounding of the last bit: about 2^-p / √12 · 1.5 of the length, p bits of mantissa.
    expected = {"float16": 2.1e-4, "bfloat16": 1.65e-3}[dtype]
    assert relative == pytest.approx(expected, rel=0.1)


def test_gguf_of_every_float_type_passes(hf: Path, f16: Path, tmp_path: Path) -> None:
    verdict = check(f16, hf)
    assert verdict["verdict"] == "pass"
    assert set(verdict["types"]) == {"F16", "F32"}
    for kind in ("F32", "BF16"):
        made = quantised(f16, tmp_path / f"{kind}.gguf", kind)
        assert check(made, f16)["verdict"] == "pass"
        assert check(made, hf)["verdict"] == "pass"  # by way of F16: rounded twice
        assert failed(check(made, hf, step="convert")) == {"weights", "embedding"}, (
            "not in one step"
        )
    assert check(f16, hf, step="convert")["verdict"] == "pass"


@pytest.mark.parametrize(
    "kind", ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K", "IQ4_XS", "IQ3_S"]
)
def test_every_quantised_type_passes_against_the_file_and_the_folder(
    hf: Path, f16: Path, tmp_path: Path, kind: str
) -> None:
    made = quantised(f16, tmp_path / f"{kind}.gguf", kind)
    for parent in (f16, hf):
        verdict = check(made, parent)
        assert verdict["verdict"] == "pass", verdict
        measured = found(verdict, "weights")["measured"]
        assert measured["recomputed_rows"] == measured["identical_rows"] > 0
    assert all(name in verdict["types"] for name in ("F32",))


def test_it_names_the_types_really_used(f16: Path, q4: Path, hf: Path) -> None:
    types = check(q4, f16)["types"]
    assert {"Q4_K", "Q6_K", "F32"} <= set(types)
    assert types["Q4_K"]["relative"] == pytest.approx(0.072, rel=0.1)
    assert types["Q6_K"]["relative"] == pytest.approx(0.018, rel=0.1)


# --- faults in folders


def _swap(one: str, other: str) -> Callable[[dict[str, Any]], None]:
    def edit(weights: dict[str, Any]) -> None:
        weights[one], weights[other] = weights[other], weights[one]

    return edit


def _head(weights: dict[str, Any]) -> None:
    rows = weights[Q.format(1)].reshape(HEADS, -1, HIDDEN)
    weights[Q.format(1)] = rows[[1, 0, *range(2, HEADS)]].reshape(HIDDEN, HIDDEN)


def _nan(weights: dict[str, Any]) -> None:
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")


def _infinite(weights: dict[str, Any]) -> None:
    weights["model.norm.weight"][7] = float("inf")


def _other_layer(weights: dict[str, Any]) -> None:
    weights[Q.format(1)] = weights[Q.format(0)].clone()


def _last_bit(weights: dict[str, Any]) -> None:
    import torch

    tensor = weights["model.layers.0.mlp.down_proj.weight"]
    kind = torch.int32 if tensor.dtype == torch.float32 else torch.int16
    tensor.view(kind)[11, 13] ^= 1


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "swapped tensors": (_swap(Q.format(0), "model.layers.0.self_attn.o_proj.weight"), "weights"),
    "swapped norms": (
        _swap("model.layers.0.input_layernorm.weight", "model.norm.weight"),
        "weights",
    ),
    "two heads change places": (_head, "weights"),
    "not a number": (_nan, "finite"),
    "infinite": (_infinite, "finite"),
    "a tensor of another layer": (_other_layer, "weights"),
    "the last bit of one weight": (_last_bit, "weights"),
    "output layer lost": (lambda weights: weights.pop("lm_head.weight"), "structure"),
    "a layer's tensor lost": (lambda weights: weights.pop(Q.format(1)), "structure"),
    "one tensor more": (
        lambda weights: weights.update({"model.extra.weight": weights[Q.format(0)].clone()}),
        "structure",
    ),
    "another shape": (
        lambda weights: weights.update({Q.format(0): weights[Q.format(0)].T[:128].contiguous()}),
        "structure",
    ),
}


UNSEEN = ("the last bit of one weight", "another shape")
"""The last bit of a 32-bit weight goes when it is rounded; a folder of another shape is none to compare with."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_folder_is_caught(hf: Path, half: Path, tmp_path: Path, fault: str) -> None:
    edit, name = FAULTS[fault]
    for made in (hf, half):  # an exact step, and one that rounds
        verdict = check(change(copy(made, tmp_path / made.name), edit), hf)
        assert verdict["verdict"] == "fail"
        assert name in failed(verdict)


@pytest.mark.parametrize("fault", [f for f in FAULTS if f not in UNSEEN])
@pytest.mark.parametrize("kind", ["F16", "Q4_K_M"])
def test_a_fault_before_the_conversion_is_caught(
    f16: Path, q4: Path, hf: Path, tmp_path: Path, fault: str, kind: str
) -> None:
    """The same damage seen from GGUF: the parent is what the file should have been made from."""
    edit, name = FAULTS[fault]
    made = f16 if kind == "F16" else q4
    verdict = check(made, change(copy(hf, tmp_path / "parent"), edit))
    assert verdict["verdict"] == "fail"
    # What is broken in the parent alone shows as a difference; a lost output layer as a tensor too many.
    assert failed(verdict) & {name, "weights", "structure"}


# --- faults in GGUF files


@pytest.mark.parametrize("bit", [0, 3, 7])
@pytest.mark.parametrize(
    "tensor", ["blk.0.attn_q.weight", "blk.1.ffn_down.weight", "output.weight"]
)
def test_one_flipped_bit_of_a_gguf_is_caught_without_hashes(
    f16: Path, q4: Path, tmp_path: Path, tensor: str, bit: int
) -> None:
    for made, parent in ((f16, f16), (q4, f16)):
        damaged = copy(made, tmp_path / made.name)
        begin, size = place(damaged, tensor)
        flip(damaged, begin + size // 2 + 37, bit)
        verdict = check(damaged, parent)
        assert "weights" in failed(verdict) or "finite" in failed(verdict)
        if made is q4:
            assert found(verdict, "weights")["measured"]["worst"][0]["name"] == tensor


def test_random_bits_of_a_quantised_file_are_caught_without_hashes(
    f16: Path, q4: Path, tmp_path: Path
) -> None:
    random = np.random.default_rng(4)
    names = [
        "blk.0.attn_k.weight",
        "blk.1.ffn_gate.weight",
        "token_embd.weight",
        "blk.0.ffn_up.weight",
    ]
    for number in range(8):
        damaged = copy(q4, tmp_path / f"{number}.gguf")
        begin, size = place(damaged, names[number % 4])
        flip(damaged, begin + int(random.integers(size)), int(random.integers(8)))
        assert check(damaged, f16)["verdict"] == "fail", number
        damaged.unlink()


def test_blocks_that_change_places_in_a_quantised_file_are_caught(
    f16: Path, q4: Path, tmp_path: Path
) -> None:
    damaged = copy(q4, tmp_path / "heads.gguf")
    begin, size = place(damaged, "blk.0.attn_q.weight")
    head = size // HEADS
    data = bytearray(damaged.read_bytes())
    first, second = data[begin : begin + head], data[begin + head : begin + 2 * head]
    data[begin : begin + head], data[begin + head : begin + 2 * head] = second, first
    damaged.write_bytes(data)
    assert "weights" in failed(check(damaged, f16))


def test_a_quantised_tensor_of_another_layer_is_caught(f16: Path, q4: Path, tmp_path: Path) -> None:
    damaged = copy(q4, tmp_path / "layers.gguf")
    one, size = place(damaged, "blk.0.ffn_gate.weight")
    other, _ = place(damaged, "blk.1.ffn_gate.weight")
    data = bytearray(damaged.read_bytes())
    data[one : one + size] = data[other : other + size]
    damaged.write_bytes(data)
    verdict = check(damaged, f16)
    assert "weights" in failed(verdict)
    assert found(verdict, "weights")["measured"]["worst"][0]["relative"] > 1


def test_q_and_k_in_the_wrong_order_are_caught(hf: Path, f16: Path, tmp_path: Path) -> None:
    """A converter that forgets to permute makes a file that runs and talks nonsense."""
    damaged = copy(f16, tmp_path / "unpermuted.gguf")
    begin, size = place(damaged, "blk.0.attn_q.weight")
    rows = load(hf)[Q.format(0)].half().numpy().tobytes()
    data = bytearray(damaged.read_bytes())
    data[begin : begin + size] = rows
    damaged.write_bytes(data)
    assert "weights" in failed(check(damaged, hf))


# --- files


def _hashed(home: Path, files: list[Path]) -> list[dict[str, Any]]:
    return [asdict(stored(file, file.relative_to(home).as_posix())) for file in files]


def test_a_flipped_bit_in_any_file_is_caught_by_its_hash(half: Path, tmp_path: Path) -> None:
    damaged = copy(half, tmp_path / "folder")
    listed = _hashed(damaged, sorted(damaged.iterdir()))
    assert check(damaged, files=listed)["verdict"] == "pass"
    for file in sorted(damaged.iterdir()):
        before = file.read_bytes()
        flip(file, len(before) // 2, 5)
        verdict = check(damaged, files=listed)
        assert "files" in failed(verdict)
        assert found(verdict, "files")["measured"]["changed"] == [file.name]
        file.write_bytes(before)


def test_a_truncated_or_missing_shard_is_caught(half: Path, f16: Path, tmp_path: Path) -> None:
    for made in (half, f16):
        damaged = copy(made, tmp_path / made.name)
        file = damaged if damaged.is_file() else damaged / "model.safetensors"
        data = file.read_bytes()
        listed = _hashed(file.parent, [file])
        file.write_bytes(data[:-1000])
        assert failed(check(damaged, made)) == {"structure"}  # no hashes were written down
        assert failed(check(damaged, made, files=listed)) == {"files", "structure"}
        file.unlink()
        assert failed(check(damaged, made, files=listed)) == {"files", "structure"}


def test_every_file_is_hashed_before_anything_else(half: Path, tmp_path: Path) -> None:
    verdict = check(half, files=_hashed(half, sorted(half.iterdir())))
    assert next(each["name"] for each in verdict["checks"]) == "files"
    assert found(verdict, "files")["measured"]["bytes"] == sum(
        file.stat().st_size for file in half.iterdir()
    )
    assert found(check(half), "files")["verdict"] == "skipped"


# --- the note's own checks


def test_the_distance_of_the_embedding_is_its_frobenius_norm(hf: Path, half: Path) -> None:
    before, after = (load(f)["model.embed_tokens.weight"].double() for f in (hf, half))
    measured = found(check(half, hf), "embedding")["measured"]
    assert measured["distance"] == pytest.approx(float((after - before).norm()), rel=1e-9)
    assert measured["norm"] == pytest.approx(float(before.norm()), rel=1e-6)


@pytest.fixture(params=["safetensors", "bfloat16", "state_dict", "gguf", "quantised"])
def stored_as(
    request: pytest.FixtureRequest, half: Path, f16: Path, q4: Path, tmp_path: Path
) -> Path:
    import torch

    if request.param == "bfloat16":
        return cast(half, tmp_path / "bf16", "bfloat16")
    if request.param == "state_dict":
        folder = copy(half, tmp_path / "pt")
        torch.save(load(half), folder / "state_dict.pt")
        (folder / "model.safetensors").unlink()
        return folder
    return {"safetensors": half, "gguf": f16, "quantised": q4}[request.param]


def test_an_embedding_of_ones_keeps_its_mean_through_its_own_format(
    stored_as: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(stored_as)
    sound = ones.ones(model)
    assert sound.verdict == "pass", sound
    assert sound.measured["mean"] == pytest.approx(1.0, abs=1e-3)
    real = stored_files.tensors_of

    def damaged(file: Path) -> Any:
        data = bytearray(file.read_bytes())
        tensor = next(iter(real(file).values()))
        begin = data.index(tensor.read(0, tensor.rows).tobytes())
        data[begin : begin + tensor.size // 2] = bytes(tensor.size // 2)
        file.write_bytes(data)
        return real(file)

    monkeypatch.setattr(ones, "tensors_of", damaged)
    broken = ones.ones(model)
    assert broken.measured["mean"] == pytest.approx(0.5, abs=1e-2), "what lies in the file"
    assert broken.verdict == "fail"


@pytest.mark.parametrize(
    ("said", "caught"),
    [
        ({"eos_token_id": [2, 1], "temperature": 0.6}, False),
        ({"eos_token_id": [1], "temperature": 0.6}, True),
        ({"eos_token_id": [1, 2]}, True),
        ({"eos_token_id": [1, 2], "temperature": 1.5}, True),
        (None, True),
    ],
)
def test_a_model_that_no_longer_knows_when_to_stop_is_caught(
    half: Path, tmp_path: Path, said: dict[str, Any] | None, caught: bool
) -> None:
    origin, made = copy(half, tmp_path / "origin"), copy(half, tmp_path / "made")
    begun = {"eos_token_id": [1, 2], "temperature": 0.6}
    (origin / "generation_config.json").write_text(json.dumps(begun), "utf-8")
    if said is None:
        (made / "generation_config.json").unlink()
    else:
        (made / "generation_config.json").write_text(json.dumps(said), "utf-8")
    verdict = check(made, origin)
    assert failed(verdict) == ({"settings"} if caught else set())


@pytest.mark.parametrize(
    ("dtype", "failing"),
    [("float8_e4m3fn", set()), ("complex64", set()), ("complex128", {"structure"})],
)
def test_types_that_nothing_decodes_are_said_and_raise_nothing(
    half: Path, tmp_path: Path, dtype: str, failing: set[str]
) -> None:
    import torch

    made = copy(half, tmp_path / "pt")
    kind = getattr(torch, dtype)
    torch.save({n: w.float().to(kind) for n, w in load(half).items()}, made / "state_dict.pt")
    (made / "model.safetensors").unlink()
    verdict = check(made, half)
    assert failed(verdict) == failing
    if not failing:
        assert found(verdict, "weights")["verdict"] == "skipped"
        assert verdict["types"].keys() == {"F8_E4M3" if "8" in dtype else "C64"}


# --- behaviour


def test_progress_rises_to_its_end_and_cancelling_ends_it(hf: Path, half: Path) -> None:
    told: list[float] = []

    def report(fraction: float, _message: str = "", **_values: Any) -> None:
        told.append(fraction)
        if len(told) > 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        verify(report, source=half, parent=hf, run=False)
    assert told == sorted(told)


def test_memory_stays_a_few_pieces_however_large_the_tensors(
    hf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = tensors.Measuring.take

    def take(self: Any, begin: int, end: int) -> None:
        sizes.append((end - begin) * self._pair.made.width)
        real(self, begin, end)

    monkeypatch.setattr(tensors, "PIECE", 4096)
    monkeypatch.setattr(tensors.Measuring, "take", take)
    assert check(hf, hf)["verdict"] == "pass"
    assert max(sizes) <= 4096
    assert sum(sizes) == sum(t.numel() for t in load(hf).values())


def test_the_model_stays_as_it_was(hf: Path, f16: Path, tmp_path: Path) -> None:
    folder = copy(hf, tmp_path / "hf")
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}
    check(f16, folder)
    assert {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in folder.iterdir()} == before
    shutil.rmtree(folder)
