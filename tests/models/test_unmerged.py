"""An adapter runs beside its base, on both engines, and says what the merged model says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chatbot.engines.base import EngineSpec
from chatbot.engines.llama_cpp import LlamaCpp
from chatbot.engines.transformers import Transformers
from chatbot.engines.worker import EngineWorker
from chatbot.errors import BrokenModel, CannotConvert, ModelError
from chatbot.memory.headers import read_model
from chatbot.models.lora_gguf import convert_adapter
from chatbot.models.merge import merge
from chatbot.types import GenerationOptions, Turn
from tests.models.adapters import ALL, change_config, furthest, make_adapter, make_base
from tests.tiny_models import RECITED, tiny_gguf, tiny_hf

__all__ = ["tiny_gguf", "tiny_hf"]

READ = list(range(3, 40))
EVERY = {"target_modules": ALL}


def quiet(*_: object, **__: object) -> None:
    """Nobody listens."""


def by_transformers(path: Path, adapter: Path | None = None) -> torch.Tensor:
    """The logits after READ."""
    spec = EngineSpec("transformers", path=str(path), adapter=str(adapter or ""), precision="fp32")
    engine = Transformers(spec)
    try:
        return engine.forward(READ)
    finally:
        engine.close()


def by_llama_cpp(path: Path, adapter: Path | None = None) -> torch.Tensor:
    """The logits after READ."""
    engine = LlamaCpp(
        EngineSpec("llama_cpp", path=str(path), adapter=str(adapter or ""), threads=1)
    )
    try:
        for _ in engine._prefill(READ, 0, lambda: False):
            pass
        found = engine.library.llama_get_logits_ith(engine.context, -1)
        size = engine.library.llama_vocab_n_tokens(engine.vocab)
        return torch.tensor(np.ctypeslib.as_array(found, (size,)).copy())
    finally:
        engine.close()


def merged(base: Path, adapter: Path, target: Path) -> Path:
    target.mkdir()
    merge(quiet, source=base, adapter=adapter, target=target)
    return target


def lora_file(base: Path, adapter: Path, target: Path) -> Path:
    target.mkdir()
    done = convert_adapter(quiet, source=base, adapter=adapter, target=target)
    return target / done["files"][0]["name"]


@pytest.mark.parametrize(
    "config",
    [
        EVERY | {"lora_alpha": 16},
        EVERY | {"use_rslora": True, "rank_pattern": {"q_proj": 8}, "alpha_pattern": {"k_proj": 3}},
        EVERY | {"use_dora": True},
        EVERY | {"modules_to_save": ["lm_head", "norm"]},
        EVERY | {"trainable_token_indices": [1, 2]},
        {"target_modules": ["embed_tokens", "lm_head", "q_proj"]},
        {"target_modules": r".*self_attn\.(q|v)_proj"},
    ],
    ids=["lora", "patterns", "dora", "saved", "tokens", "embeddings", "regex"],
)
def test_transformers_runs_an_adapter_unmerged(
    tiny_hf: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    adapter = make_adapter(tmp_path / "adapter", tiny_hf, **config)
    found = by_transformers(tiny_hf, adapter)
    assert furthest(found, by_transformers(merged(tiny_hf, adapter, tmp_path / "merged"))) < 1e-5
    assert furthest(found, by_transformers(tiny_hf)) > 1e-3


def test_added_tokens_are_there_unmerged_too(tiny_hf: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", tiny_hf, resize=400, **EVERY)
    found = by_transformers(tiny_hf, adapter)
    assert len(found) == 400
    assert furthest(found, by_transformers(merged(tiny_hf, adapter, tmp_path / "merged"))) < 1e-5


@pytest.mark.parametrize(
    "config",
    [
        EVERY | {"lora_alpha": 16},
        EVERY | {"use_rslora": True, "rank_pattern": {"q_proj": 8}, "alpha_pattern": {"k_proj": 3}},
        {"target_modules": ["embed_tokens", "lm_head", "k_proj"]},
    ],
    ids=["lora", "patterns", "embeddings"],
)
def test_llama_cpp_runs_an_adapter_unmerged(
    tiny_hf: Path, tiny_gguf: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    adapter = make_adapter(tmp_path / "adapter", tiny_hf, **config)
    file = lora_file(tiny_hf, adapter, tmp_path / "lora")
    found = by_llama_cpp(tiny_gguf, file)
    expected = by_transformers(merged(tiny_hf, adapter, tmp_path / "merged"))
    assert furthest(found, expected) < 1e-2
    assert furthest(found, by_llama_cpp(tiny_gguf)) > 5 * furthest(found, expected)
    facts = read_model(file)
    assert facts.adapter is not None
    assert facts.adapter.rank >= 4
    assert not facts.writes_text


def test_rows_that_llama_cpp_keeps_turned_are_turned_in_the_adapter(tmp_path: Path) -> None:
    base = make_base(tmp_path / "gpt2", kind="gpt2")
    adapter = make_adapter(tmp_path / "adapter", base, target_modules=["c_attn", "c_proj", "c_fc"])
    shapes = {t.name: t.shape for t in read_model(lora_file(base, adapter, tmp_path / "l")).tensors}
    assert shapes["blk.0.attn_qkv.weight.lora_a"] == (4, 32)
    assert shapes["blk.0.attn_qkv.weight.lora_b"] == (96, 4)


@pytest.mark.parametrize(
    ("part", "config"),
    [
        ("DoRA", EVERY | {"use_dora": True}),
        ("modules_to_save", EVERY | {"modules_to_save": ["lm_head"]}),
        ("trainable_token_indices", EVERY | {"trainable_token_indices": [1]}),
    ],
)
def test_what_llama_cpp_has_no_place_for_is_said(
    tiny_hf: Path, tmp_path: Path, part: str, config: dict[str, Any]
) -> None:
    adapter = make_adapter(tmp_path / "adapter", tiny_hf, **config)
    with pytest.raises(CannotConvert, match=f"cannot run {part} of an adapter unmerged"):
        lora_file(tiny_hf, adapter, tmp_path / "lora")
    assert not list((tmp_path / "lora").iterdir())


def test_a_part_of_tied_embeddings_cannot_be_a_lora_file(tmp_path: Path) -> None:
    base = make_base(tmp_path / "tied", tie_word_embeddings=True)
    adapter = make_adapter(tmp_path / "adapter", base, target_modules=["lm_head", "q_proj"])
    with pytest.raises(CannotConvert, match="merge it"):
        lora_file(base, adapter, tmp_path / "lora")


def test_an_adapter_of_another_model_is_refused_by_both(
    tiny_hf: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    other = make_base(tmp_path / "other")
    adapter = make_adapter(tmp_path / "adapter", other, **EVERY)
    file = lora_file(other, adapter, tmp_path / "lora")
    with pytest.raises(ModelError):
        by_llama_cpp(tiny_gguf, file)
    with pytest.raises(ModelError):
        by_transformers(tiny_hf, adapter)
    with pytest.raises(BrokenModel):
        by_llama_cpp(tiny_gguf, tmp_path / "absent.gguf")


def test_settings_that_would_import_or_unpickle_are_not_taken(
    tiny_hf: Path, tmp_path: Path
) -> None:
    adapter = make_adapter(tmp_path / "adapter", tiny_hf, **EVERY)
    expected = by_transformers(tiny_hf, adapter)
    change_config(
        adapter,
        megatron_config={"x": 1},
        megatron_core="antigravity",
        init_lora_weights="corda",
        corda_config={"cache_file": str(tmp_path / "trap.pt")},
        auto_mapping={"base_model_class": "x", "parent_library": "antigravity"},
    )
    assert furthest(by_transformers(tiny_hf, adapter), expected) == 0


def test_weights_that_find_no_place_are_refused(tiny_hf: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", tiny_hf, **EVERY)
    change_config(adapter, target_modules=["q_proj"])
    with pytest.raises(BrokenModel, match="do not fit"):
        by_transformers(tiny_hf, adapter)


@pytest.mark.parametrize("backend", ["transformers", "llama_cpp"])
def test_a_worker_chats_with_base_and_adapter(
    tiny_hf: Path, tiny_gguf: Path, tmp_path: Path, backend: str
) -> None:
    # A change too weak to alter the greedy choice: the tiny model still recites.
    adapter = make_adapter(tmp_path / "adapter", tiny_hf, size=0.01, **EVERY)
    path, beside = tiny_hf, adapter
    if backend == "llama_cpp":
        path, beside = tiny_gguf, lora_file(tiny_hf, adapter, tmp_path / "lora")
    worker = EngineWorker(
        EngineSpec(backend, name="x", path=str(path), adapter=str(beside), threads=1)
    )
    try:
        options = GenerationOptions(
            temperature=0, repeat_penalty=1.0, max_tokens=64, thinking=False
        )
        answer = "".join(delta.text for delta in worker.stream([Turn("user", "?")], options))
        assert answer == RECITED
    finally:
        worker.close()


def test_the_adapters_tokenizer_and_template_are_used(tiny_hf: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", tiny_hf, **EVERY)
    (adapter / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    engine = Transformers(
        EngineSpec("transformers", path=str(tiny_hf), adapter=str(adapter), precision="fp32")
    )
    assert engine._template.render([Turn("user", "Xin chào")], thinking=False).text == "Xin chào!"
    engine.close()
