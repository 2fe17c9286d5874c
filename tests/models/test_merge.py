"""An adapter in its base says exactly what base and adapter say side by side, or is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from chatbot.errors import BrokenModel, Cancelled, DiskFullError, ModelError
from chatbot.memory.headers import read_model
from chatbot.models import importing, making
from chatbot.models.merge import merge
from chatbot.models.store import ModelStore
from chatbot.models.verify import verify
from tests.models.adapters import (
    ALL,
    CONV1D,
    VOCABULARY,
    change_config,
    furthest,
    give_tokenizer,
    logits,
    make_adapter,
    make_base,
    unmerged,
)

BASES = {
    "llama": {},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "gpt2": {"kind": "gpt2"},
    "experts": {"kind": "experts"},
    "fp16": {"dtype": torch.float16},
    "bf16": {"dtype": torch.bfloat16},
}


def quiet(*_: object, **__: object) -> None:
    """Nobody listens."""


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder, made = tmp_path_factory.mktemp("mô hình nền"), {}

    def base(name: str) -> Path:
        if name not in made:
            made[name] = make_base(folder / f"{name} chữ", **BASES[name])
        return made[name]

    return base


def merged(source: Path, adapter: Path, target: Path, **options: Any) -> dict[str, Any]:
    """The figures of a merge into a new folder."""
    target.mkdir()
    return merge(quiet, source=source, adapter=adapter, target=target, **options)["figures"]


EVERY = {"target_modules": ALL}
VARIANTS: dict[str, tuple[str, dict[str, Any], int]] = {
    "lora": ("llama", EVERY | {"lora_alpha": 16}, 14),
    "all-linear": ("llama", {"target_modules": "all-linear"}, 14),
    "a pattern of targets": ("llama", {"target_modules": r".*\.(q|v)_proj"}, 4),
    "rslora": ("llama", EVERY | {"use_rslora": True}, 14),
    "dora": ("llama", EVERY | {"use_dora": True}, 14),
    "dora and rslora": ("llama", EVERY | {"use_dora": True, "use_rslora": True}, 14),
    "patterns": (
        "llama",
        EVERY | {"rank_pattern": {"q_proj": 8, "model.layers.1.mlp.up_proj": 2},
                 "alpha_pattern": {r"layers\.0\..*k_proj": 32}},
        14,
    ),
    "patterns and rslora": ("llama", EVERY | {"use_rslora": True, "rank_pattern": {"v_proj": 9}}, 14),
    "some layers": ("llama", EVERY | {"layers_to_transform": [1]}, 7),
    "all but one": ("llama", EVERY | {"exclude_modules": ["v_proj"]}, 12),
    "a head of its own": ("llama", EVERY | {"modules_to_save": ["lm_head"]}, 15),
    "norms of its own": ("llama", EVERY | {"modules_to_save": ["norm", "input_layernorm"]}, 19),
    "embeddings": ("llama", {"target_modules": ["embed_tokens", "q_proj"]}, 3),
    "embeddings dora": ("llama", {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True}, 3),
    "head": ("llama", {"target_modules": ["lm_head", "q_proj"]}, 3),
    "some tokens": ("llama", EVERY | {"trainable_token_indices": [1, 5, 9]}, 15),
    "some tokens by layer": ("llama", EVERY | {"trainable_token_indices": {"embed_tokens": [4]}}, 15),
    "bare parameters": ("llama", {"target_modules": [], "target_parameters": ["q_proj.weight"]}, 2),
    "pissa's cousin": ("llama", EVERY | {"init_lora_weights": "orthogonal"}, 14),
    "tied": ("tied", EVERY, 14),
    "tied embeddings": ("tied", {"target_modules": ["embed_tokens", "q_proj"]}, 4),
    "tied head": ("tied", {"target_modules": ["lm_head", "q_proj"]}, 4),
    "tied, both": ("tied", {"target_modules": ["lm_head", "embed_tokens"]}, 2),
    "tied, both as one": (
        "tied", {"target_modules": ["lm_head", "embed_tokens"], "ensure_weight_tying": True}, 1,
    ),
    "tied, embeddings of its own": ("tied", EVERY | {"modules_to_save": ["embed_tokens"]}, 15),
    "tied, head of its own": ("tied", EVERY | {"modules_to_save": ["lm_head"]}, 15),
    "tied, both of its own": ("tied", EVERY | {"modules_to_save": ["lm_head", "embed_tokens"]}, 16),
    "tied, some tokens": ("tied", EVERY | {"trainable_token_indices": [2, 3]}, 15),
    "biases of the layers": ("biases", EVERY | {"bias": "lora_only"}, 28),
    "all biases": ("biases", EVERY | {"bias": "all"}, 28),
    "B with a bias": ("biases", {"target_modules": ["q_proj", "k_proj"], "lora_bias": True}, 8),
    "conv1d": ("gpt2", {"target_modules": CONV1D, "fan_in_fan_out": True}, 8),
    "conv1d dora": ("gpt2", {"target_modules": CONV1D, "use_dora": True}, 8),
    "conv1d and tied embeddings": ("gpt2", {"target_modules": ["c_attn", "wte"]}, 3),
    "experts": (
        "experts",
        {"target_modules": ["q_proj"],
         "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
        6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_merged_model_answers_as_base_and_adapter_do(
    bases: Callable[[str], Path], tmp_path: Path, variant: str
) -> None:
    name, config, targets = VARIANTS[variant]
    base = bases(name)
    adapter = make_adapter(tmp_path / "adapter", base, **config)
    figures = merged(base, adapter, tmp_path / "merged")
    expected = logits(unmerged(base, adapter))
    assert furthest(logits(tmp_path / "merged"), expected) < 1e-5
    assert furthest(logits(base), expected) > 1e-4
    assert figures["targets"] == targets
    assert figures["changed"] + len(figures["unchanged"]) == targets
    assert figures["rank"] == 4


@pytest.mark.parametrize(
    "variant",
    ["patterns", "embeddings dora", "tied embeddings", "tied, some tokens", "all biases", "B with a bias",
     "experts"],
)  # fmt: skip
def test_the_check_that_computes_it_anew_agrees(
    bases: Callable[[str], Path], tmp_path: Path, variant: str
) -> None:
    """`verify` shares no arithmetic with `merge`."""
    name, config, _ = VARIANTS[variant]
    base = Path(shutil.copytree(bases(name), tmp_path / "base"))
    adapter = make_adapter(tmp_path / "adapter", base, **config)
    merged(base, adapter, tmp_path / "merged")
    verdict = verify(
        quiet, source=tmp_path / "merged", parent=base, adapter=adapter, step="merge", files=None
    )
    found = {each["name"]: each["verdict"] for each in verdict["checks"]}
    assert {found[part] for part in ("structure", "weights", "adapter")} == {"pass"}


@pytest.mark.parametrize("name", ["fp16", "bf16"])
@pytest.mark.parametrize("config", [{}, {"use_dora": True}], ids=["lora", "dora"])
def test_in_16_bits_the_logits_stay_within_a_hundredth(
    bases: Callable[[str], Path], tmp_path: Path, name: str, config: dict[str, Any]
) -> None:
    base = bases(name)
    adapter = make_adapter(tmp_path / "adapter", base, **EVERY, **config)
    figures = merged(base, adapter, tmp_path / "merged")
    wrapped = unmerged(base, adapter)
    expected = logits(wrapped)
    theirs = furthest(logits(wrapped.merge_and_unload()), expected)
    assert furthest(logits(tmp_path / "merged"), expected) <= max(1e-2, theirs)
    assert {t.type for t in read_model(tmp_path / "merged").tensors} == {
        "F16" if name == "fp16" else "BF16"
    }
    assert 0 < figures["rounding"] < 0.1


@pytest.mark.parametrize("variant", ["lora", "dora", "patterns", "conv1d", "all biases"])
def test_the_weights_are_those_of_pefts_own_merge(
    bases: Callable[[str], Path], tmp_path: Path, variant: str
) -> None:
    name, config, _ = VARIANTS[variant]
    adapter = make_adapter(tmp_path / "adapter", bases(name), **config)
    merged(bases(name), adapter, tmp_path / "merged")
    theirs = unmerged(bases(name), adapter).merge_and_unload().state_dict()
    ours = load_file(tmp_path / "merged" / "model.safetensors")
    assert ours.keys() <= theirs.keys()
    for tensor, values in ours.items():
        assert torch.allclose(values, theirs[tensor], rtol=0, atol=1e-6), tensor


def test_tensors_without_an_adapter_keep_every_byte(
    bases: Callable[[str], Path], tmp_path: Path
) -> None:
    adapter = make_adapter(tmp_path / "adapter", bases("bf16"), target_modules=["q_proj"])
    merged(bases("bf16"), adapter, tmp_path / "merged")
    before = load_file(bases("bf16") / "model.safetensors")
    after = load_file(tmp_path / "merged" / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"model.layers.{n}.self_attn.q_proj.weight" for n in (0, 1)}


def test_shards_are_read_and_pieces_smaller_than_a_row_come_out_right(
    bases: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    from chatbot.models import merged as merging
    from chatbot.models import weights

    base = tmp_path / "shards"
    AutoModelForCausalLM.from_pretrained(bases("llama")).save_pretrained(
        base, max_shard_size="20KB"
    )
    assert len(read_model(base).files) > 2
    adapter = make_adapter(tmp_path / "adapter", base, **EVERY, use_dora=True)
    merged(base, adapter, tmp_path / "whole")
    monkeypatch.setattr(weights, "PIECE", 100)  # 25 values; a row has 32 or 48
    monkeypatch.setattr(merging, "PIECE", 100)
    merged(base, adapter, tmp_path / "pieces")
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    for name, values in load_file(tmp_path / "pieces" / "model.safetensors").items():
        assert torch.allclose(values, whole[name], rtol=0, atol=1e-6), name


# --- vocabulary, tokenizer, template ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "config", "untied"),
    [
        ("llama", EVERY | {"modules_to_save": ["embed_tokens", "lm_head"]}, False),
        ("llama", EVERY, False),  # PEFT saves resized embeddings unasked
        ("llama", {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}, False),
        ("tied", EVERY, False),
        ("tied", {"target_modules": ["embed_tokens", "q_proj"]}, True),
    ],
)
def test_added_tokens_make_the_vocabulary_grow(
    bases: Callable[[str], Path], tmp_path: Path, name: str, config: dict[str, Any], untied: bool
) -> None:
    adapter = make_adapter(tmp_path / "adapter", bases(name), resize=VOCABULARY + 5, **config)
    figures = merged(bases(name), adapter, tmp_path / "merged")
    expected = logits(unmerged(bases(name), adapter, VOCABULARY + 5))
    assert furthest(logits(tmp_path / "merged"), expected) < 1e-5
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["vocab_size"] == VOCABULARY + 5
    assert figures["added_tokens"] == 5
    assert figures["untied"] is untied


def test_one_table_resized_and_not_the_other_is_refused(
    bases: Callable[[str], Path], tmp_path: Path
) -> None:
    adapter = make_adapter(tmp_path / "adapter", bases("llama"), resize=VOCABULARY + 5, **EVERY)
    weights = load_file(adapter / "adapter_model.safetensors")
    del weights["base_model.model.lm_head.weight"]
    save_file(weights, adapter / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="vocabulary of 101 tokens"):
        merged(bases("llama"), adapter, tmp_path / "merged")


@pytest.fixture
def spoken(tmp_path: Path) -> tuple[Path, Path]:
    """A base with a tokenizer and a template, and an adapter."""
    base = give_tokenizer(make_base(tmp_path / "base", vocab_size=400), tmp_path / "tokenizer")
    (base / "LICENSE").write_text("Apache")
    (base / "generation_config.json").write_text('{"eos_token_id": 2}')
    return base, make_adapter(tmp_path / "adapter", base, **EVERY)


def test_the_bases_settings_tokenizer_and_licence_come_along(
    spoken: tuple[Path, Path], tmp_path: Path
) -> None:
    merged(*spoken, tmp_path / "merged")
    for name in ("tokenizer.json", "tokenizer_config.json", "LICENSE", "generation_config.json"):
        assert (tmp_path / "merged" / name).read_bytes() == (spoken[0] / name).read_bytes()
    assert not list((tmp_path / "merged").glob("adapter*"))


def test_the_adapters_tokenizer_and_template_win(spoken: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = spoken
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<luật>", "<điều>"])
    tokenizer.chat_template = "{{ messages[0].content }} của bộ chuyển"
    tokenizer.save_pretrained(adapter)
    merged(base, adapter, tmp_path / "merged")
    found = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert found.encode("<luật>") == tokenizer.encode("<luật>")
    assert found.chat_template == tokenizer.chat_template


def test_a_tokenizer_without_a_template_keeps_the_bases(
    spoken: tuple[Path, Path], tmp_path: Path
) -> None:
    base, adapter = spoken
    tokenizer = AutoTokenizer.from_pretrained(base)
    before = tokenizer.chat_template
    tokenizer.chat_template = None
    tokenizer.save_pretrained(adapter)
    merged(base, adapter, tmp_path / "merged")
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template == before


def test_a_template_without_a_tokenizer_wins_too(spoken: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = spoken
    (adapter / "chat_template.jinja").write_text("{{ messages }}")
    merged(base, adapter, tmp_path / "merged")
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template == "{{ messages }}"


def test_a_tokenizer_with_more_tokens_than_the_model_has_room_for_is_refused(
    spoken: tuple[Path, Path], tmp_path: Path
) -> None:
    base, adapter = spoken
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens([f"<{n}>" for n in range(100)])
    tokenizer.save_pretrained(adapter)
    with pytest.raises(ModelError, match="has room for 400"):
        merged(base, adapter, tmp_path / "merged")


def test_weights_kept_as_a_pickle_are_read_as_weights_only(
    bases: Callable[[str], Path], tmp_path: Path
) -> None:
    base = bases("llama")
    safe = make_adapter(tmp_path / "safe", base, **EVERY)
    pickled = make_adapter(tmp_path / "pickled", base, safe=False, **EVERY)
    merged(base, safe, tmp_path / "one")
    merged(base, pickled, tmp_path / "two")
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


# --- what is refused ----------------------------------------------------------------------------


def tensors(adapter: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """The adapter's weights, changed."""
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file({name: values.contiguous() for name, values in weights.items()}, file)


Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


def zero(weights: dict[str, torch.Tensor], half: str) -> None:
    for name, values in weights.items():
        if half in name:
            values.zero_()


def renamed(weights: dict[str, torch.Tensor], before: str, after: str) -> None:
    for name in list(weights):
        weights[name.replace(before, after)] = weights.pop(name)


class Canary:
    """Writes a file when it is unpickled by something careless."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch '{self.path}'",))


WRONG: dict[str, tuple[str, Callable[[Path], object]]] = {
    "no config": ("adapter_config.json is missing", lambda a: (a / "adapter_config.json").unlink()),
    "broken json": ("not readable JSON", lambda a: (a / "adapter_config.json").write_text("{")),
    "json that is a list": ("not readable JSON", lambda a: (a / "adapter_config.json").write_text("[]")),
    "doubled keys": (
        "not readable JSON", lambda a: (a / "adapter_config.json").write_text('{"r": 1, "r": 2}'),
    ),
    "prefix tuning": ("PREFIX_TUNING", lambda a: change_config(a, peft_type="PREFIX_TUNING")),
    "ia3": ("IA3", lambda a: change_config(a, peft_type="IA3")),
    "adalora": ("ADALORA", lambda a: change_config(a, peft_type="ADALORA")),
    "no kind": ("of the kind None", lambda a: change_config(a, peft_type=...)),
    "pissa": ("pissa_niter_4 had changed", lambda a: change_config(a, init_lora_weights="pissa_niter_4")),
    "loftq": ("loftq had changed", lambda a: change_config(a, init_lora_weights="loftq")),
    "replicated layers": (
        "layer_replication", lambda a: change_config(a, layer_replication=[[0, 2], [1, 2]]),
    ),
    "megatron": ("megatron_config", lambda a: change_config(a, megatron_config={"a": 1})),
    "alora": (
        "alora_invocation_tokens", lambda a: change_config(a, alora_invocation_tokens=[1, 2]),
    ),
    "rank of nothing": ("usable value for r", lambda a: change_config(a, r=0)),
    "rank of text": ("usable value for r", lambda a: change_config(a, r="8")),
    "alpha of text": ("usable value for lora_alpha", lambda a: change_config(a, lora_alpha="x")),
    "infinite alpha": (
        "usable value for lora_alpha",
        lambda a: (a / "adapter_config.json").write_text(
            '{"peft_type": "LORA", "r": 4, "lora_alpha": Infinity}'
        ),
    ),
    "another rank": ("another rank", lambda a: change_config(a, r=8)),
    "a rank pattern that lies": (
        "another rank", lambda a: change_config(a, rank_pattern={"q_proj": 2}),
    ),
    "a pattern that is none": (
        "usable value for rank_pattern", lambda a: change_config(a, rank_pattern={"(": 2}),
    ),
    "no weights": ("adapter_model.safetensors is missing",
                   lambda a: (a / "adapter_model.safetensors").unlink()),
    "cut off": ("malformed", lambda a: os.truncate(a / "adapter_model.safetensors", 3000)),
    "no B": ("half of the change", lambda a: tensors(a, lambda w: w.pop(f"{Q0}.lora_B.weight"))),
    "no A": ("half of the change", lambda a: tensors(a, lambda w: w.pop(f"{Q0}.lora_A.weight"))),
    "a layer left out": (
        "layers.0.self_attn.q_proj are missing",
        lambda a: tensors(
            a, lambda w: [w.pop(f"{Q0}.lora_{h}.weight") for h in "AB"]
        ),
    ),
    "a target left out": (
        "v_proj are missing",
        lambda a: tensors(a, lambda w: [w.pop(n) for n in list(w) if "v_proj" in n]),
    ),
    "dora without magnitudes": (
        "not those that adapter_config", lambda a: change_config(a, use_dora=True),
    ),
    "a bias nobody spoke of": (
        "does not have", lambda a: tensors(a, lambda w: w.update({f"{Q0}.lora_B.bias": torch.ones(32)})),
    ),
    "a switch that is a word": (
        "usable value for use_rslora", lambda a: change_config(a, use_rslora="yes"),
    ),
    "a saved layer left out": (
        "for lm_head are missing", lambda a: change_config(a, modules_to_save=["lm_head"]),
    ),
    "rows outside the table": (
        "usable value for trainable_token_indices",
        lambda a: (
            change_config(a, trainable_token_indices=[1, 4096]),
            tensors(a, lambda w: w.update({
                "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": torch.ones(2, 32)
            })),
        ),
    ),
    "more layers": (
        "does not have",
        lambda a: tensors(a, lambda w: renamed(w, "layers.1", "layers.7")),
    ),
    "other layers": (
        "does not have", lambda a: tensors(a, lambda w: renamed(w, "q_proj", "query")),
    ),
    "a part of another method": (
        "no part of a LoRA", lambda a: tensors(a, lambda w: w.update({f"{Q0}.ia3_l": torch.ones(3)})),
    ),
    "wider": (
        "belongs to another model",
        lambda a: tensors(a, lambda w: w.update({f"{Q0}.lora_A.weight": torch.ones(4, 64)})),
    ),
    "taller": (
        "belongs to another model",
        lambda a: tensors(a, lambda w: w.update({f"{Q0}.lora_B.weight": torch.ones(31, 4)})),
    ),
    "halves of two": (
        "two halves", lambda a: tensors(a, lambda w: w.update({f"{Q0}.lora_A.weight": torch.ones(5, 32)})),
    ),
    "three dimensions": (
        "two halves", lambda a: tensors(a, lambda w: w.update({f"{Q0}.lora_A.weight": torch.ones(4, 32, 1)})),
    ),
    "nan": (
        "no numbers", lambda a: tensors(a, lambda w: w[f"{Q0}.lora_A.weight"].fill_(float("nan"))),
    ),
    "infinity": (
        "no numbers", lambda a: tensors(a, lambda w: w[f"{Q0}.lora_B.weight"][0].fill_(float("inf"))),
    ),
    "untrained": ("changes nothing", lambda a: tensors(a, lambda w: zero(w, "lora_B"))),
    "alpha of zero": ("changes nothing", lambda a: change_config(a, lora_alpha=0)),
    "too small for any digit": (
        "changes nothing",
        lambda a: tensors(a, lambda w: [values.mul_(1e-9) for values in w.values()]),
    ),
    "code beside it": ("own", lambda a: (a / "modeling.py").write_text("print(1)")),
    "code in its tokenizer": (
        "auto_map",
        lambda a: (a / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": "x.y"}}'),
    ),
    "a broken tokenizer": (
        "tokenizer.json is not readable", lambda a: (a / "tokenizer.json").write_text("[1]"),
    ),
    "a pickle that runs": (
        "could run code",
        lambda a: (
            (a / "adapter_model.safetensors").unlink(),
            torch.save({"x": Canary(a.parent / "canary")}, a / "adapter_model.bin"),
        ),
    ),
    "a pickle of something else": (
        "something else",
        lambda a: (
            (a / "adapter_model.safetensors").unlink(),
            torch.save({"x": 1}, a / "adapter_model.bin"),
        ),
    ),
    "text called a pickle": (
        "not a PyTorch file",
        lambda a: (
            (a / "adapter_model.safetensors").unlink(),
            (a / "adapter_model.bin").write_text("xin chào"),
        ),
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def right(bases: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("right") / "adapter", bases("llama"), **EVERY)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_adapter_is_refused_by_name_before_anything_is_written(
    bases: Callable[[str], Path], right: Path, tmp_path: Path, wrong: str
) -> None:
    cause, spoil = WRONG[wrong]
    adapter = Path(shutil.copytree(right, tmp_path / "bộ chuyển"))
    spoil(adapter)
    with pytest.raises(ModelError, match=cause) as refusal:
        merged(bases("llama"), adapter, tmp_path / "merged")
    assert refusal.value.text("vi") != refusal.value.text("en")
    late = ("alpha of zero", "too small for any digit")  # only the sum shows it
    assert wrong in late or not list((tmp_path / "merged").iterdir())
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "adapter_config.json", "tokenizer.json"]
)
def test_an_adapter_that_links_outside_is_refused(
    bases: Callable[[str], Path], right: Path, tmp_path: Path, name: str
) -> None:
    adapter = Path(shutil.copytree(right, tmp_path / "adapter"))
    outside = tmp_path / "outside"
    outside.write_bytes((adapter / name).read_bytes() if (adapter / name).exists() else b"{}")
    (adapter / name).unlink(missing_ok=True)
    try:
        (adapter / name).symlink_to(outside)
    except OSError:
        pytest.skip("this system does not let us make links")
    with pytest.raises(BrokenModel, match="points outside"):
        merged(bases("llama"), adapter, tmp_path / "merged")


def test_another_base_of_the_same_shape_is_refused_where_its_name_is_known(
    bases: Callable[[str], Path], right: Path, tmp_path: Path
) -> None:
    adapter = Path(shutil.copytree(right, tmp_path / "adapter"))
    change_config(adapter, base_model_name_or_path="unsloth/Llama-3.2-1B-Instruct-bnb-4bit")
    with pytest.raises(ModelError, match="trained on unsloth/Llama"):
        merged(bases("llama"), adapter, tmp_path / "a", base_name="meta-llama/Llama-3.2-1B")
    for number, name in enumerate(("meta-llama/Llama-3.2-1B-Instruct", "")):
        merged(bases("llama"), adapter, tmp_path / f"b{number}", base_name=name)


def test_a_quantised_base_is_refused_with_the_reason(
    bases: Callable[[str], Path], right: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(bases("llama"), tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"bitsandbytes.*16-bit model.*QLoRA"):
        merged(base, right, tmp_path / "merged")


def test_a_change_beyond_the_number_format_is_refused(
    bases: Callable[[str], Path], tmp_path: Path
) -> None:
    adapter = make_adapter(tmp_path / "adapter", bases("fp16"), **EVERY, size=300)
    with pytest.raises(ModelError, match="beyond what"):
        merged(bases("fp16"), adapter, tmp_path / "merged")


def test_a_change_that_rounding_would_swallow_is_refused(
    bases: Callable[[str], Path], tmp_path: Path
) -> None:
    adapter = make_adapter(tmp_path / "adapter", bases("bf16"), **EVERY)
    tensors(adapter, lambda w: w[f"{Q0}.lora_B.weight"].mul_(1e-7))
    with pytest.raises(ModelError, match=r"q_proj.weight is too small"):
        merged(bases("bf16"), adapter, tmp_path / "merged")


def test_an_adapter_is_no_base(right: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="merged into a model folder"):
        merged(right, right, tmp_path / "merged")


# --- the step in its child ----------------------------------------------------------------------


def hashes(folder: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()}


def test_a_merged_model_is_listed_with_what_was_measured(
    store: ModelStore, spoken: tuple[Path, Path]
) -> None:
    base, adapter = spoken
    listed = importing.import_model(store, base)
    addition = importing.import_model(store, adapter, link=False)
    assert addition.format == "adapter"
    assert addition.manifest["adapter"]["rank"] == 4
    assert list(addition.manifest["adapter"]["targets"]) == sorted(ALL)
    before = hashes(base) | hashes(adapter)
    told: list[float] = []
    model = making.make(
        store,
        "merge",
        lambda fraction, message="", **values: told.append(fraction),
        name="merged",
        parent=listed.id,
        source=base,
        adapter=Path(addition.path),
    )
    assert model.manifest["made"]["step"] == "merge"
    assert model.manifest["made"]["parent"] == listed.id
    assert model.manifest["made"]["figures"]["changed"] == 14
    assert told == sorted(told)
    assert store.state(model) == "ready"
    assert hashes(base) | hashes(adapter) == before
    files = {file["name"]: file["sha256"] for file in model.manifest["files"]}
    assert hashes(Path(model.path)) == files | {
        "manifest.json": hashes(Path(model.path))["manifest.json"]
    }


def test_a_refused_or_cancelled_merge_leaves_nothing(
    store: ModelStore, spoken: tuple[Path, Path], tmp_path: Path
) -> None:
    base, adapter = spoken
    broken = Path(shutil.copytree(adapter, tmp_path / "broken"))
    tensors(broken, lambda w: zero(w, "lora_B"))

    def give_up(_fraction: float, _message: str = "", **_: Any) -> None:
        raise Cancelled

    with pytest.raises(ModelError, match="changes nothing"):
        making.make(store, "merge", quiet, source=base, adapter=broken)
    with pytest.raises(Cancelled):
        making.make(store, "merge", give_up, source=base, adapter=adapter)
    assert store.list() == []
    assert list(store.folder.iterdir()) == []


def test_a_disk_without_room_is_said_before_anything_is_written(
    bases: Callable[[str], Path], right: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=400_000_000))
    with pytest.raises(DiskFullError):
        merged(bases("llama"), right, tmp_path / "merged")
    assert list((tmp_path / "merged").iterdir()) == []
