"""An adapter's folder tells what it is and which base it fits, or is refused; nothing in it runs."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatbot.errors import BrokenModel, ModelError
from chatbot.memory.adapter import check_fit, fits, parts_of, same_model
from chatbot.memory.facts import ModelFacts, Tensor
from chatbot.memory.headers import read_model
from tests.memory.building import safetensors

LAYER = "base_model.model.model.layers.0.self_attn.q_proj"
WEIGHTS = (
    Tensor(f"{LAYER}.lora_A.weight", (8, 64), "F32", 8 * 64 * 4),
    Tensor(f"{LAYER}.lora_B.weight", (64, 8), "F32", 8 * 64 * 4),
)
CONFIG = {
    "peft_type": "LORA",
    "base_model_name_or_path": "meta-llama/Llama-3.2-1B",
    "r": 8,
    "lora_alpha": 16,
    "target_modules": ["q_proj"],
    "modules_to_save": None,
}


def adapter(folder: Path, tensors: tuple[Tensor, ...] = WEIGHTS, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config))
    declared = {tensor.name: (tensor.type, tensor.shape, tensor.size) for tensor in tensors}
    (folder / "adapter_model.safetensors").write_bytes(safetensors(declared))
    return folder


def base(*tensors: tuple[str, tuple[int, ...]], tied: bool = False) -> ModelFacts:
    return ModelFacts(
        format="hf", path="", files=(), name="base", architecture="llama", writes_text=True,
        quantisation="BF16", context=0, vocabulary=100, width=64, feed_forward=0, layers=(),
        tensors=tuple(Tensor(name, shape, "BF16", 0) for name, shape in tensors), chat_template=True,
        tokenizer=True, tied=tied,
    )  # fmt: skip


RIGHT = base(("model.layers.0.self_attn.q_proj.weight", (64, 64)))


def test_an_adapter_tells_its_base_rank_and_targets(tmp_path: Path) -> None:
    facts = read_model(adapter(tmp_path / "đồ án", use_dora=True, use_rslora=True))
    assert facts.format == "adapter"
    assert not facts.writes_text
    assert facts.parameters == 2 * 8 * 64
    assert facts.adapter is not None
    assert facts.adapter.base == "meta-llama/Llama-3.2-1B"
    assert facts.adapter.kind == "DoRA + rsLoRA"
    assert (facts.adapter.rank, facts.adapter.alpha) == (8, 16.0)
    assert facts.adapter.targets == ("q_proj",)


def test_a_folder_with_a_whole_model_in_it_is_the_model(tmp_path: Path) -> None:
    from tests.memory.building import folder

    both = folder(tmp_path / "both")
    (both / "adapter_config.json").write_text(json.dumps(CONFIG))
    assert read_model(both).format == "hf"


def test_a_config_of_the_base_beside_it_changes_nothing(tmp_path: Path) -> None:
    found = adapter(tmp_path / "a")
    (found / "config.json").write_text('{"model_type": "llama"}')
    assert read_model(found).format == "adapter"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("meta-llama/Llama-3.2-1B", "unsloth/Llama-3.2-1B", True),
        ("unsloth/llama-3.2-1b-bnb-4bit", "meta-llama/Llama-3.2-1B", True),
        ("unsloth/Llama-3.2-1B-unsloth-bnb-4bit", "meta-llama/Llama-3.2-1B", True),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "Qwen/Qwen2.5-7B-Instruct", True),
        ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B-Instruct", False),
        ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-3B", False),
    ],
)
def test_mirrors_and_quantised_copies_are_the_same_model(one: str, other: str, same: bool) -> None:
    assert same_model(one, other) is same
    assert same_model(other, one) is same


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.q_proj", "layers.0.self_attn.q_proj",
             "language_model.model.layers.0.self_attn.q_proj"],
)  # fmt: skip
def test_outermost_names_may_differ(tmp_path: Path, name: str) -> None:
    facts = read_model(adapter(tmp_path / "a"))
    assert fits(facts, base((f"{name}.weight", (64, 64))))


def test_what_does_not_fit_is_said_with_its_numbers(tmp_path: Path) -> None:
    facts = read_model(adapter(tmp_path / "a"))
    check_fit(facts, RIGHT)
    check_fit(facts, RIGHT, "unsloth/Llama-3.2-1B-bnb-4bit")
    with pytest.raises(ModelError, match=r"made for 64 × 64, but the base model has 128 × 64"):
        check_fit(facts, base(("model.layers.0.self_attn.q_proj.weight", (128, 64))))
    with pytest.raises(ModelError, match="does not have"):
        check_fit(facts, base(("model.layers.0.mlp.up_proj.weight", (64, 64))))
    with pytest.raises(ModelError, match=r"trained on meta-llama/Llama-3\.2-1B"):
        check_fit(facts, RIGHT, "Qwen/Qwen3-1.7B")
    assert not fits(facts, RIGHT, "Qwen/Qwen3-1.7B")


def test_a_head_that_shares_the_embeddings_can_be_adapted(tmp_path: Path) -> None:
    head = (
        Tensor("base_model.model.lm_head.lora_A.weight", (8, 64), "F32", 2048),
        Tensor("base_model.model.lm_head.lora_B.weight", (100, 8), "F32", 3200),
    )
    facts = read_model(adapter(tmp_path / "a", head))
    assert fits(facts, base(("model.embed_tokens.weight", (100, 64)), tied=True))
    assert not fits(facts, base(("model.embed_tokens.weight", (100, 64)), tied=False))


def test_parts_are_told_apart_by_their_names() -> None:
    def tensor(name: str) -> Tensor:
        return Tensor(f"base_model.model.{name}", (4, 4), "F32", 64)

    parts = parts_of(
        [
            tensor("a.lora_A.weight"),
            tensor("a.lora_B.weight"),
            tensor("a.lora_B.bias"),
            tensor("a.lora_magnitude_vector"),
            tensor("e.lora_embedding_A"),
            tensor("e.lora_embedding_B"),
            tensor("e.base_layer.weight"),
            tensor("old.lora_A.default.weight"),
            tensor("old.lora_B.default.weight"),
            tensor("h.modules_to_save.default.weight"),
            tensor("t.token_adapter.trainable_tokens_delta"),
        ],
        "x",
    )
    assert [(u.layer, u.embedding, bool(u.bias), bool(u.magnitude)) for u in parts.updates] == [
        ("a", False, True, True),
        ("e", True, False, False),
        ("old", False, False, False),
    ]
    assert [(s.name, s.rows) for s in parts.saved] == [
        ("e.weight", False),
        ("h.weight", False),
        ("t.weight", True),
    ]
    with pytest.raises(BrokenModel, match="no part of a LoRA"):
        parts_of([tensor("a.lora_C.weight")], "x")


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
_keys = st.sampled_from(
    [*CONFIG, "use_dora", "use_rslora", "init_lora_weights", "target_parameters", "rank_pattern",
     "layer_replication", "megatron_config", "auto_map"],
)  # fmt: skip


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(_keys, _values, max_size=4))
def test_no_config_raises_anything_but_a_refusal(tmp_path: Path, changes: dict[str, Any]) -> None:
    found = adapter(tmp_path / "a", **changes)
    with contextlib.suppress(ModelError):
        check_fit(read_model(found), RIGHT, "a/b")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text(alphabet="ab.AB_lora0weightembdingsv", max_size=40), max_size=4, unique=True)
)
def test_no_tensor_name_raises_anything_but_a_refusal(names: list[str]) -> None:
    facts = [Tensor(name, (2, 2), "F32", 16) for name in names]
    with contextlib.suppress(ModelError):
        parts_of(facts, "x")
