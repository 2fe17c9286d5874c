"""States of models that cannot forget: a sliding window, and layers with a running state beside attention."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from chatbot.engines.base import EngineSpec
from chatbot.engines.llama_cpp import LlamaCpp
from chatbot.types import GenerationOptions, GenerationStats, Turn
from tests.tiny_models import make_gguf

pytestmark = pytest.mark.slow
SYSTEM = Turn("system", "You read the rules of the house and the names of the rooms. " * 6)
FIRST = [SYSTEM, Turn("user", "the students of the school met in the hall. " * 12)]
OPTIONS = GenerationOptions(
    temperature=0, repeat_penalty=1.0, max_tokens=12, thinking=False, conversation="one"
)
SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}


@pytest.fixture(scope="module", params=["lfm2", "gemma3"])
def spec(request: pytest.FixtureRequest, tiny_hf: Path, tmp_path_factory) -> EngineSpec:
    """Random weights and the tiny model's tokenizer, as llama.cpp's converter writes them."""
    import torch
    import transformers

    settings = json.loads((tiny_hf / "config.json").read_text())
    words = {"vocab_size": settings["vocab_size"], "eos_token_id": settings["eos_token_id"]}
    torch.manual_seed(1)
    if request.param == "lfm2":
        kinds = ["conv", "full_attention"] * 2
        config = transformers.Lfm2Config(**SMALL, **words, layer_types=kinds)
        model = transformers.Lfm2ForCausalLM(config)
    else:
        config = transformers.Gemma3TextConfig(
            **SMALL | {"num_hidden_layers": 6}, **words, head_dim=32, sliding_window=64
        )
        model = transformers.Gemma3ForCausalLM(config)
    folder = tmp_path_factory.mktemp("shapes") / request.param
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_hf / name, folder)
    file = make_gguf(folder, folder.with_suffix(".gguf"))
    return EngineSpec("llama_cpp", path=str(file), threads=1, context=2048, batch=64)


def opened(spec: EngineSpec, folder: Path) -> LlamaCpp:
    engine = LlamaCpp(spec)
    engine.recall.use(str(folder), 10**9)
    return engine


def ask(engine: LlamaCpp, turns: list[Turn]) -> tuple[str, GenerationStats]:
    deltas = list(engine.stream(turns, OPTIONS))
    stats = deltas[-1].stats
    assert stats is not None
    return "".join(delta.text for delta in deltas), stats


def test_a_state_that_serves_only_whole(spec: EngineSpec, tmp_path: Path) -> None:
    before = opened(spec, tmp_path)
    text, first = ask(before, FIRST)
    before.recall.keep()
    before.recall.settle()
    turns = [*FIRST, Turn("assistant", text), Turn("user", "and the library?")]
    in_memory, second = ask(before, turns)
    assert second.cached_tokens >= first.prompt_tokens
    before.close()

    after = opened(spec, tmp_path)
    from_disk, restored = ask(after, turns)
    assert restored.restored_tokens == second.cached_tokens
    assert from_disk == in_memory
    # Another end of the same conversation: the state is of no use, the system prompt's is.
    after.recall.forget([])
    other = opened(spec, tmp_path)
    _, changed = ask(other, [*FIRST, Turn("assistant", "No."), Turn("user", "Why?")])
    assert changed.restored_tokens == changed.cached_tokens < first.prompt_tokens
    after.close()
    other.close()
