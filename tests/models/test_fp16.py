"""Preparing a model: what torch would convert, bit for bit, in every form, with the losses counted."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from chatbot.errors import BrokenModel, Cancelled, ModelError, SettingsError
from chatbot.memory.headers import read_model
from chatbot.memory.plan import plan
from chatbot.models import fp16
from chatbot.models.fp16 import prepare
from chatbot.models.importing import check_usable
from chatbot.models.making import make
from chatbot.models.state_dict import StateDict, StateDictWriter
from chatbot.models.store import ModelStore
from chatbot.models.weights import Weights
from chatbot.types import Gpu
from tests.models.preparing import (
    EMBEDDING,
    HEAD,
    Heard,
    as_pytorch,
    change,
    fingerprint,
    prepared,
    same,
    weights,
    with_weights,
)
from tests.tiny_models import make_gguf

NORM = "model.norm.weight"


def halved(folder: Path, dtype: torch.dtype = torch.float16) -> dict[str, torch.Tensor]:
    return {name: tensor.to(dtype) for name, tensor in weights(folder).items()}


@pytest.fixture
def stories(shared_data: Path) -> Path:
    return shared_data / "models" / "stories260K"


# --- what comes out ------------------------------------------------------------------------------


def test_every_weight_is_what_torch_makes_of_it(tiny_hf: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    figures = prepared(tiny_hf, tmp_path / "out")
    found = weights(tmp_path / "out")
    assert same(found, halved(tiny_hf))
    theirs = AutoModelForCausalLM.from_pretrained(tiny_hf, dtype=torch.float16).state_dict()
    assert same(found, theirs)
    assert figures["precision"] == "f16"
    assert figures["tensors"] == len(found)
    assert figures["parameters"] == sum(t.numel() for t in found.values())
    assert figures["bytes_out"] == sum(f.stat().st_size for f in (tmp_path / "out").iterdir())
    assert (figures["saturated"], figures["not_finite"], figures["kept_bf16"]) == (0, 0, 0)


def test_everything_that_goes_with_the_weights_is_saved_along(
    tiny_hf: Path, tmp_path: Path
) -> None:
    source = tmp_path / "nguồn"
    shutil.copytree(tiny_hf, source)
    (source / "LICENSE").write_text("as it is", "utf-8")
    (source / "chat_template.jinja").write_text("{{ messages }}", "utf-8")
    (source / "optimizer.pt").write_bytes(b"not asked for")
    before = fingerprint(source)
    prepared(source, tmp_path / "out")
    assert fingerprint(source) == before
    for name in before.keys() - {"model.safetensors", "config.json", "optimizer.pt"}:
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    assert not (tmp_path / "out" / "optimizer.pt").exists()
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    was = json.loads((source / "config.json").read_text("utf-8"))
    assert config == was | {"torch_dtype": "float16"}
    assert read_model(tmp_path / "out").quantisation == "F16"


def test_settings_name_the_type_wherever_they_named_one(tiny_hf: Path, tmp_path: Path) -> None:
    source = with_weights(tiny_hf, tmp_path / "in", {}, dtype="float32", torch_dtype=None)
    change(source / "config.json", text_config={"dtype": "float32", "vocab_size": 340})
    prepared(source, tmp_path / "out", precision="bf16")
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert config["dtype"] == "bfloat16"
    assert config["text_config"] == {"dtype": "bfloat16", "vocab_size": 340}


def test_greedy_text_stays_the_same(stories: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prepared(stories, tmp_path / "out")
    told = []
    for folder in (stories, tmp_path / "out"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        asked = tokenizer("Once upon a time", return_tensors="pt")
        answer = model.generate(**asked, max_new_tokens=80, do_sample=False)
        told.append((model.dtype, tokenizer.decode(answer[0])))
    assert [dtype for dtype, _ in told] == [torch.float32, torch.float16]
    assert told[0][1] == told[1][1]


# --- what FP16 cannot hold -----------------------------------------------------------------------


def test_a_model_whose_values_overflow_becomes_bf16_as_a_whole(
    tiny_hf: Path, tmp_path: Path
) -> None:
    loud = torch.ones(64)
    loud[:3] = torch.tensor([70000.0, -1e9, 65520.0])
    source = with_weights(tiny_hf, tmp_path / "in", {NORM: loud})
    figures = prepared(source, tmp_path / "out")
    found = weights(tmp_path / "out")
    assert same(found, halved(source, torch.bfloat16))
    assert figures["precision"] == "bf16"
    assert (figures["saturated"], figures["too_large"]) == (3, [NORM])
    assert figures["kept_bf16"] == figures["tensors"] == len(found)
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert config["torch_dtype"] == "bfloat16"


def test_the_largest_value_that_fp16_holds_is_no_overflow(tiny_hf: Path, tmp_path: Path) -> None:
    edge = torch.ones(64)
    edge[:2] = torch.tensor([65504.0, -65519.996])
    source = with_weights(tiny_hf, tmp_path / "in", {NORM: edge})
    assert prepared(source, tmp_path / "out")["precision"] == "f16"
    assert weights(tmp_path / "out")[NORM][:2].tolist() == [65504.0, -65504.0]


def test_fp16_by_force_is_refused_by_the_tensors_name(tiny_hf: Path, tmp_path: Path) -> None:
    source = with_weights(tiny_hf, tmp_path / "in", {NORM: torch.full((64,), 1e6)})
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match=rf"{NORM} holds values beyond"):
        prepare(Heard(), source=source, target=tmp_path / "out", precision="f16")
    assert list((tmp_path / "out").iterdir()) == []


def test_weights_that_become_zero_are_counted(tiny_hf: Path, tmp_path: Path) -> None:
    faint = torch.ones(64)
    zero_in_fp16 = [2.0**-25, -(2.0**-25), 1e-8, -1e-30, 1e-45]
    faint[: len(zero_in_fp16)] = torch.tensor(zero_in_fp16)
    faint[10:14] = torch.tensor([0.0, -0.0, 2.0**-25 * 1.0001, 2.0**-24])  # none of these is lost
    source = with_weights(tiny_hf, tmp_path / "in", {NORM: faint})
    usual = prepared(tiny_hf, tmp_path / "usual")["flushed"]
    assert prepared(source, tmp_path / "out")["flushed"] == usual + len(zero_in_fp16)
    expected = weights(source)
    lost = sum(int(((t != 0) & (t.half() == 0)).sum()) for t in expected.values())
    assert usual + len(zero_in_fp16) == lost


def test_what_was_not_finite_before_is_no_loss(tiny_hf: Path, tmp_path: Path) -> None:
    odd = torch.ones(64)
    odd[:3] = torch.tensor([math.inf, -math.inf, math.nan])
    source = with_weights(tiny_hf, tmp_path / "in", {NORM: odd})
    figures = prepared(source, tmp_path / "out")
    assert (figures["precision"], figures["not_finite"], figures["saturated"]) == ("f16", 3, 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.float16])
def test_any_type_of_weights_is_converted(
    tiny_hf: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    source = with_weights(tiny_hf, tmp_path / "in", halved(tiny_hf, dtype))
    prepared(source, tmp_path / "out")
    assert same(weights(tmp_path / "out"), halved(source))


def test_keep_keeps_every_type_and_whole_numbers_stay_whole(tiny_hf: Path, tmp_path: Path) -> None:
    mixed = {NORM: torch.ones(64, dtype=torch.bfloat16), "model.places": torch.arange(7)}
    source = with_weights(tiny_hf, tmp_path / "in", mixed)
    assert prepared(source, tmp_path / "kept", precision="keep")["precision"] == "f32"
    assert same(weights(tmp_path / "kept"), weights(source))
    prepared(source, tmp_path / "out")
    assert weights(tmp_path / "out")["model.places"].dtype == torch.int64


# --- tied embeddings -----------------------------------------------------------------------------


def test_tied_embeddings_are_saved_once(tiny_hf: Path, tmp_path: Path) -> None:
    table = weights(tiny_hf)[EMBEDDING]
    tied = with_weights(tiny_hf, tmp_path / "in", {HEAD: table.clone()}, tie_word_embeddings=True)
    prepared(tied, tmp_path / "out")
    assert HEAD not in weights(tmp_path / "out")
    assert read_model(tmp_path / "out").tied


@pytest.mark.parametrize("tie", [True, False])
def test_an_output_layer_of_its_own_stays(tiny_hf: Path, tmp_path: Path, tie: bool) -> None:
    table = weights(tiny_hf)[EMBEDDING]
    head = weights(tiny_hf)[HEAD] if tie else table.clone()
    source = with_weights(tiny_hf, tmp_path / "in", {HEAD: head}, tie_word_embeddings=tie)
    prepared(source, tmp_path / "out")
    assert same(weights(tmp_path / "out"), halved(source))


# --- every form it may come in -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pytorch_model.bin", "state_dict.pt", "retriever_trained.pt"])
def test_a_folder_of_pytorch_files(tiny_hf: Path, tmp_path: Path, name: str) -> None:
    source = as_pytorch(tiny_hf, tmp_path / "in", name)
    (source / "training_args.bin").write_bytes(b"\x80\x02.")
    assert read_model(source).format == "pt"
    assert read_model(source).parameters == sum(t.numel() for t in weights(tiny_hf).values())
    prepared(source, tmp_path / "out")
    assert same(weights(tmp_path / "out"), halved(tiny_hf))


def test_a_sharded_pytorch_folder(tiny_hf: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    shutil.copytree(tiny_hf, source, ignore=shutil.ignore_patterns("*.safetensors"))
    found, names = weights(tiny_hf), sorted(weights(tiny_hf))
    parts = {"pytorch_model-00001-of-00002.bin": names[:5], "pytorch_model-00002-of-00002.bin": names[5:]}  # fmt: skip
    for file, part in parts.items():
        torch.save({name: found[name] for name in part}, source / file)
    placed = {name: file for file, part in parts.items() for name in part}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": placed}))
    prepared(source, tmp_path / "out")
    assert same(weights(tmp_path / "out"), halved(tiny_hf))


@pytest.mark.parametrize("nest", ["state_dict", "model"])
def test_a_single_file_beside_its_settings(tiny_hf: Path, tmp_path: Path, nest: str) -> None:
    content = {nest: weights(tiny_hf), "epoch": 3, "optimizer": {"lr": 0.1}}
    source = as_pytorch(tiny_hf, tmp_path / "in", "checkpoint.pt", content)
    prepared(source / "checkpoint.pt", tmp_path / "out")
    assert same(weights(tmp_path / "out"), halved(tiny_hf))


def test_parameters_views_and_shared_storages_are_read_as_they_are(
    tiny_hf: Path, tmp_path: Path
) -> None:
    found = weights(tiny_hf)
    table, layer = found[EMBEDDING], "model.layers.0.mlp.up_proj.weight"
    content = {
        **{name: torch.nn.Parameter(tensor) for name, tensor in found.items()},
        layer: found[layer].t().contiguous().t(),
        NORM: torch.cat([torch.zeros(5), found[NORM]])[5:],
        HEAD: table,
        EMBEDDING: table,
    }
    source = as_pytorch(tiny_hf, tmp_path / "in", "model.pt", content)
    prepared(source, tmp_path / "out")
    assert same(weights(tmp_path / "out"), halved(tiny_hf) | {HEAD: table.half()})


def test_a_zip(tiny_hf: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "mang về"), "zip", tiny_hf))
    prepared(archive, tmp_path / "out")
    assert same(weights(tmp_path / "out"), halved(tiny_hf))


def test_a_gguf_file_gives_back_what_went_in(
    tiny_hf: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    figures = prepared(tiny_gguf, tmp_path / "out", precision="keep")
    assert same(weights(tmp_path / "out"), weights(tiny_hf))
    assert figures["precision"] == "f32"
    facts = read_model(tmp_path / "out")
    assert facts.writes_text
    assert facts.chat_template
    ours, theirs = (AutoTokenizer.from_pretrained(f) for f in (tmp_path / "out", tiny_hf))
    said = "Điều 20. Người lao động được nghỉ 12 ngày <|im_end|> school"
    assert ours(said).input_ids == theirs(said).input_ids
    assert ours.chat_template == theirs.chat_template


def test_program_code_beside_a_gguf_is_neither_run_nor_asked_about(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A downloads folder may hold another model's files, and transformers would ask on stdin."""
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda *_: asked.append("?") or "y")
    canary = tmp_path / "canary"
    beside = Path(shutil.copy(tiny_gguf, tmp_path / "tiny.gguf"))
    (tmp_path / "evil.py").write_text(f"open({str(canary)!r}, 'w')")
    named = {"auto_map": {"AutoTokenizer": ["evil.T", None], "AutoConfig": "evil.C"}}
    for name in ("tokenizer_config.json", "config.json"):
        settings = {**named, "tokenizer_class": "EvilTokenizer", "model_type": "evil"}
        (tmp_path / name).write_text(json.dumps(settings))
    with contextlib.suppress(ModelError):
        prepared(beside, tmp_path / "out")
    assert not canary.exists()
    assert asked == []


def test_a_zip_with_a_gguf_in_it(tiny_hf: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    archive = tmp_path / "mang về.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.write(tiny_gguf, "một mô hình/tiny.gguf")
    prepared(archive, tmp_path / "out")
    assert same(weights(tmp_path / "out"), halved(tiny_hf))


def test_a_gguf_of_sentencepiece_splits_text_as_llama_cpp_does(
    shared_data: Path, tmp_path: Path
) -> None:
    from llama_cpp import Llama
    from transformers import AutoTokenizer

    file = shared_data / "models" / "stories260K.gguf"
    prepared(file, tmp_path / "out")
    ours, theirs = (
        AutoTokenizer.from_pretrained(tmp_path / "out"),
        Llama(str(file), vocab_only=True),
    )
    for said in ("hello", " hello", "  two  spaces", "x</s> y", "<s>Điều 20", "\tbảng", ""):
        ids = theirs.tokenize(said.encode(), add_bos=True, special=True)
        assert ours(said).input_ids == ids, said


def test_a_gguf_tells_how_far_its_positions_are_stretched(tiny_hf: Path, tmp_path: Path) -> None:
    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip
    source = with_weights(tiny_hf, tmp_path / "in", {}, rope_scaling=scaling, rope_theta=500000.0)
    gguf = make_gguf(source, tmp_path / "stretched.gguf")
    prepared(gguf, tmp_path / "out", precision="keep")
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert config["rope_parameters"] == {**scaling, "rope_theta": 500000.0}
    assert same(weights(tmp_path / "out"), weights(source))


def test_a_quantised_gguf_becomes_fp16_again(tiny_hf: Path, tmp_path: Path) -> None:
    gguf = make_gguf(tiny_hf, tmp_path / "tiny-q8_0.gguf", "q8_0")
    figures = prepared(gguf, tmp_path / "out", precision="keep")
    assert figures["precision"] == "f16"
    for name, tensor in weights(tmp_path / "out").items():
        assert tensor.dtype == torch.float16
        assert torch.allclose(tensor.float(), weights(tiny_hf)[name], atol=0.02)


# --- every form it may leave in ------------------------------------------------------------------


def test_a_state_dict_loads_strictly_and_names_no_device(stories: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    prepared(stories, tmp_path / "out", form="pt")
    assert read_model(tmp_path / "out").format == "pt"
    content = (tmp_path / "out" / "state_dict.pt").read_bytes()
    assert b"cuda" not in content[:4096]
    state = torch.load(tmp_path / "out" / "state_dict.pt", weights_only=True, mmap=True)
    assert {tensor.device.type for tensor in state.values()} == {"cpu"}
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path / "out"))
    model.half().load_state_dict(state)  # strict: the tied output layer stands in it too
    assert state[HEAD].data_ptr() == state[EMBEDDING].data_ptr()
    assert torch.equal(model.get_input_embeddings().weight, halved(stories)[EMBEDDING])
    prepared(tmp_path / "out", tmp_path / "back")
    assert same(weights(tmp_path / "back"), halved(stories))


@pytest.mark.parametrize("fails_at", [0, 1, 5])
def test_a_state_dict_that_ends_early_closes_its_file(
    tiny_hf: Path, tmp_path: Path, fails_at: int
) -> None:
    reader = Weights(tiny_hf)
    writer = StateDictWriter(tmp_path, reader.tensors)

    def write_some() -> None:
        with writer:
            for tensor in writer.tensors[:fails_at]:
                writer.put(tensor.name, reader.blocks(tensor.name))
            raise Cancelled

    with pytest.raises(Cancelled):
        write_some()
    assert writer.files == []
    (tmp_path / "state_dict.pt").rename(tmp_path / "free.pt")
    with pytest.raises(BrokenModel):
        StateDict([tmp_path / "free.pt"])


def test_a_gguf_is_made_of_it(stories: Path, tmp_path: Path) -> None:
    prepared(stories, tmp_path / "out", form="gguf")
    (file,) = (tmp_path / "out").iterdir()
    facts = read_model(file)
    assert facts.quantisation == "F16"
    assert facts.parameters == sum(t.numel() for t in weights(stories).values())


def test_a_state_dict_is_a_way_station_and_says_so(tiny_hf: Path, tmp_path: Path) -> None:
    facts = read_model(as_pytorch(tiny_hf, tmp_path / "in", "state_dict.pt"))
    with pytest.raises(ModelError, match="prepare it"):
        check_usable(facts)
    with pytest.raises(ModelError, match="prepare it"):
        plan(fp16.detect(tmp_path), facts)


# --- what is said on the way ---------------------------------------------------------------------


def said(source: Path, target: Path, **params: str) -> Heard:
    heard = Heard()
    target.mkdir()
    prepare(heard, source=source, target=target, **params)  # type: ignore[arg-type]
    return heard


def test_it_opens_with_the_hardware_and_goes_in_three_named_steps(
    tiny_hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = said(tiny_hf, tmp_path / "out", device="cpu")
    assert heard.messages[0].startswith(("No GPU", "1 GPU"))
    assert [message[:5] for message in heard.messages[1:]] == ["[1/3]", "[2/3]", "[3/3]"]
    assert heard.fractions == sorted(heard.fractions)

    card = Gpu(0, "NVIDIA RTX 4060 Laptop", "cuda", 8_585_000_000, 7_900_000_000)
    real = fp16.detect(tmp_path)
    fake = SimpleNamespace(device="cuda", gpus=(card,), ram_total=real.ram_total)
    monkeypatch.setattr(fp16, "detect", lambda _: fake)
    first = said(tiny_hf, tmp_path / "gpu", device="cpu").messages[0]
    assert first == "1 GPU: NVIDIA RTX 4060 Laptop; 7.9 of 8.6 GB of its memory are free"


def test_without_a_gpu_that_is_said_plainly(
    tiny_hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fp16, "detect", lambda _: SimpleNamespace(device="cpu", gpus=()))
    assert said(tiny_hf, tmp_path / "out").messages[0].startswith("No GPU")
    with pytest.raises(SettingsError, match="device = cuda"):
        prepare(Heard(), source=tiny_hf, target=tmp_path / "out", device="cuda")


def test_cancelling_ends_it_between_blocks(tiny_hf: Path, tmp_path: Path) -> None:
    def report(fraction: float, message: str = "", **_: object) -> None:
        if message.startswith("[2/3]"):
            raise Cancelled

    with pytest.raises(Cancelled):
        prepare(report, source=tiny_hf, target=tmp_path)


# --- what it refuses -----------------------------------------------------------------------------


def test_what_cannot_be_prepared_is_refused_with_the_reason(tiny_hf: Path, tmp_path: Path) -> None:
    def refused(source: Path, reason: str) -> None:
        with pytest.raises(ModelError, match=reason):
            prepare(Heard(), source=source, target=tmp_path)

    quantised = with_weights(
        tiny_hf, tmp_path / "gptq", {}, quantization_config={"quant_method": "gptq"}
    )
    refused(quantised, "quantised with gptq")
    eight = with_weights(tiny_hf, tmp_path / "f8", {NORM: torch.ones(64).to(torch.float8_e4m3fn)})
    refused(eight, "F8_E4M3")
    refused(tmp_path / "nowhere", "neither a model folder")
    (tmp_path / "notes.txt").write_text("hello, this is no model")
    refused(tmp_path / "notes.txt", "neither a model folder")


def test_a_damaged_storage_is_found_by_its_checksum(tiny_hf: Path, tmp_path: Path) -> None:
    source = as_pytorch(tiny_hf, tmp_path / "in", "pytorch_model.bin")
    file = source / "pytorch_model.bin"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    (tmp_path / "out").mkdir()
    with pytest.raises(BrokenModel, match="checksum of"):
        prepare(Heard(), source=source, target=tmp_path / "out")


# --- in a child, into the list -------------------------------------------------------------------


def test_a_pytorch_folder_comes_into_the_list_as_safetensors(
    store: ModelStore, tiny_hf: Path, tmp_path: Path
) -> None:
    source = as_pytorch(tiny_hf, tmp_path / "Tải về", "pytorch_model.bin")
    heard = Heard()
    model = make(store, "prepare", heard, source=source, precision="keep")
    assert (model.format, model.parameters) == ("hf", read_model(tiny_hf).parameters)
    assert same(weights(Path(model.path)), weights(tiny_hf))
    assert not list(Path(model.path).glob("*.bin"))
    assert model.manifest["made"]["figures"]["precision"] == "f32"
    assert heard.messages[1].startswith("[1/3]")

    state = make(store, "prepare", heard, source=Path(model.path), form="pt", parent=model.id)
    assert (state.format, state.parameters) == ("pt", model.parameters)
    assert ModelStore(store._database, SimpleNamespace(models=store.folder)).get(state.id)  # type: ignore[arg-type]


def test_a_model_of_one_empty_table_is_refused(tiny_hf: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    shutil.copytree(tiny_hf, source)
    save_file({EMBEDDING: torch.empty(0, 64)}, source / "model.safetensors")
    with pytest.raises(BrokenModel, match="no weights"):
        prepare(Heard(), source=source, target=tmp_path)
