"""transformers: a KV cache of fixed place and its recorded steps say what the growing cache says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from benchmarks import cuda
from chatbot.engines import static
from chatbot.engines.base import EngineSpec
from chatbot.engines.growing import Growing
from chatbot.engines.replay import Replay
from chatbot.engines.static import Static, Unsuitable
from chatbot.engines.transformers import Transformers
from chatbot.errors import OutOfMemory
from chatbot.memory.config import described
from chatbot.memory.footprint import kv_bytes
from chatbot.types import Delta, GenerationOptions, GenerationStats, Turn
from tests.engines.conftest import GREEDY, QUESTION
from tests.engines.fake_graphs import FakeGraph, act_out
from tests.models.adapters import ALL, make_adapter

SHAPE = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
SLIDING = {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 2}
GEMMA = {"head_dim": 16, "sliding_window": 24, "query_pre_attn_scalar": 16}
LONG = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
FAMILIES = {
    "grouped": ("Llama", {}),
    "every head its own key": ("Llama", {"num_key_value_heads": 4}),
    "one key for all": ("Llama", {"num_key_value_heads": 1}),
    "scaled positions": (
        "Llama",
        {
            "rope_parameters": LONG | {"rope_theta": 1e4, "original_max_position_embeddings": 64},
        },
    ),
    "normed heads": ("Qwen3", {"head_dim": 32}),
    "biased": ("Qwen2", {}),
    "window in some layers": ("Qwen2", SLIDING),
    "window in every layer": ("Mistral", {"sliding_window": 24}),
    "two kinds of positions": ("Gemma3", GEMMA),
}


def model(family: str, change: dict[str, Any]) -> Any:
    torch.manual_seed(5)
    named = "Gemma3TextConfig" if family == "Gemma3" else f"{family}Config"
    config = getattr(transformers, named)(**SHAPE | change)
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_of_fixed_place_gives_the_logits_of_the_growing_one(family: str) -> None:
    ours = model(*FAMILIES[family])
    grown = Growing(torch, ours, "cpu")
    tokens = [(13 * at + 5) % 300 for at in range(120)]
    right = grown.read(tokens, len(tokens))
    fixed = Static(torch, ours, 150, 64, "cpu")
    near = lambda found, *at: torch.testing.assert_close(  # noqa: E731
        found, right[slice(*at)], rtol=0, atol=2e-5
    )
    near(fixed.read(tokens[:50]), 49, 50)
    for at in range(50, 60):
        near(fixed.read(tokens[at : at + 1]), at, at + 1)
    near(fixed.read(tokens[60:63], 3), 60, 63)
    near(fixed.read(tokens[63:78], 15), 63, 78)
    near(fixed.read(tokens[78:110], 2), 108, 110)
    assert fixed.forget(70) == 70  # what was read after it is written over
    near(fixed.read(tokens[70:73], 3), 70, 73)
    near(fixed.read(tokens[73:]), 119, 120)
    assert fixed.forget(0) == 0
    near(fixed.read(tokens[:40]), 39, 40)


def test_the_last_places_of_the_context_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "WINDOW", 16)
    ours = model("Llama", {"max_position_embeddings": 64})
    tokens = [(13 * at + 5) % 300 for at in range(64)]
    right = Growing(torch, ours, "cpu").read(tokens, 64)
    fixed = Static(torch, ours, 64, 16, "cpu")
    for at in range(0, 60, 4):  # through every window, with rows past the end of the context
        found = fixed.read(tokens[at : at + 4], 4)
        torch.testing.assert_close(found, right[at : at + 4], rtol=0, atol=2e-5)
    for at in range(60, 64):
        torch.testing.assert_close(fixed.read(tokens[at : at + 1])[0], right[at], rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", ["grouped", "window in some layers"])
def test_the_cache_takes_what_the_plan_counts(family: str) -> None:
    ours = model(*FAMILIES[family])
    fixed = Static(torch, ours, 400, 64, "cpu")
    fixed.read(list(range(40)))
    taken = sum(places.nbytes for both in fixed._cache._layers.values() for places in both)
    layers = described(ours.config.to_dict(), "a model").layers
    assert kv_bytes(layers, 400, 4) <= taken <= kv_bytes(layers, 424, 4)


def test_a_broken_number_does_not_outlive_its_conversation() -> None:
    ours = model("Llama", {})
    fixed = Static(torch, ours, 100, 32, "cpu")
    tokens = list(range(20, 60))
    right = fixed.read(tokens).clone()
    weights = ours.get_input_embeddings().weight.data
    kept = weights[7].clone()
    weights[7] = float("nan")
    assert fixed.read([7]).isnan().any()
    weights[7] = kept
    fixed.forget(0)
    torch.testing.assert_close(fixed.read(tokens), right)


@pytest.mark.parametrize(
    ("family", "change", "reason"),
    [
        ("Gemma2", GEMMA, "attention is eager"),
        ("Llama4", {}, "chunked"),
    ],
)
def test_a_model_that_needs_another_cache_is_left_to_grow(
    family: str, change: dict[str, Any], reason: str
) -> None:
    if family == "Llama4":
        ours = model("Llama", {})
        ours.config.layer_types = ["chunked_attention"] * 4
        ours.config.attention_chunk_size = 16
    else:
        ours = model(family, change)
    with pytest.raises(Unsuitable, match=reason):
        Static(torch, ours, 100, 32, "cpu")


def test_wrong_logits_are_found_and_the_model_is_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = model("Llama", {})
    tokens = list(range(20, 60))
    right = Growing(torch, ours, "cpu").read(tokens)
    monkeypatch.setattr(static._Places, "clear", lambda _self: None)
    whole = static._Places.update
    monkeypatch.setattr(
        static._Places, "update", lambda self, k, v, at: whole(self, k, v.flip(1), at)
    )
    with pytest.raises(Unsuitable, match="differ"):
        Static(torch, ours, 100, 32, "cpu")
    assert torch.equal(Growing(torch, ours, "cpu").read(tokens), right)


# --- the engine


@contextmanager
def loaded(folder: Path, **named: Any) -> Iterator[Transformers]:
    told = {"batch": 128, "precision": "fp32", "threads": 1, **named}
    engine_only = {name: told.pop(name) for name in ("static", "guesses") if name in told}
    engine = Transformers(EngineSpec("transformers", path=str(folder), **told), **engine_only)
    try:
        yield engine
    finally:
        engine.close()


def written(
    engine: Transformers, options: GenerationOptions, turns: Sequence[Turn] = QUESTION
) -> tuple[str, GenerationStats]:
    deltas: list[Delta] = list(engine.stream(turns, options))
    stats = deltas[-1].stats
    assert stats is not None
    return "".join(delta.text for delta in deltas), stats


ASKED = {
    "greedy": replace(GREEDY, thinking=True, max_tokens=80),
    "penalised": replace(GREEDY, thinking=True, max_tokens=80, repeat_penalty=1.3),
    "drawn": GenerationOptions(seed=11, max_tokens=80, temperature=1.2),
    "drawn from all": GenerationOptions(
        seed=4, max_tokens=60, temperature=2.0, top_k=0, top_p=1.0, min_p=0.0, repeat_penalty=1.0
    ),
}


@pytest.mark.parametrize("asked", ASKED)
def test_the_answer_is_the_same_with_either_cache_drafted_or_not(asked: str, tiny_hf: Path) -> None:
    texts, drafted = set(), 0
    turns = (*QUESTION, Turn("user", " the and of in" * 40))
    for fixed in (False, True):
        with loaded(tiny_hf, static=fixed) as engine:
            assert engine.info.steps == "launched"
            assert bool(engine.info.steps_reason) == fixed
            for drafting in (False, True):
                options = replace(ASKED[asked], drafting=drafting)
                text, stats = written(engine, options, turns)
                again, _ = written(engine, options, turns)  # the prefix is there already
                texts |= {text, again}
                drafted += stats.drafted
                assert drafting or not stats.drafted
    assert len(texts) == 1
    if asked == "greedy":
        assert drafted > 0


class Foreseen:
    """Guesses that know the answer, or always guess wrong."""

    def __init__(self, answer: Sequence[int], wrong: int = 0) -> None:
        self._answer, self._wrong, self._at = list(answer), wrong, 0
        self.matched = 30

    def ahead(self, count: int) -> list[int]:
        return [(token + self._wrong) % 340 for token in self._answer[self._at :][:count]]

    def took(self, token: int) -> bool:
        self._at += 1
        return self._wrong == 0 and self._answer[self._at - 1 : self._at] == [token]


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("asked", ["greedy", "penalised", "drawn"])
def test_right_guesses_save_reads_and_wrong_ones_change_nothing(
    asked: str, fixed: bool, tiny_hf: Path
) -> None:
    options = ASKED[asked]
    with loaded(tiny_hf, static=fixed) as engine:
        plain, stats = written(engine, replace(options, drafting=False))
        answer = engine._read[stats.prompt_tokens :]  # all but the last
        reads: list[int] = []
        read = engine._reader.read
        engine._reader.read = lambda tokens, keep=1: reads.append(keep) or read(tokens, keep)
        engine._guesses = lambda _prompt: Foreseen(answer)
        text, foreseen = written(engine, options)
        assert text == plain
        assert foreseen.accepted == foreseen.drafted > 0.7 * stats.answer_tokens
        assert len(reads) < stats.answer_tokens / 2
        engine._guesses = lambda _prompt: Foreseen(answer, wrong=1)
        text, misled = written(engine, options)
        assert text == plain
        assert misled.drafted > misled.accepted == 0
        engine._guesses = lambda _prompt: Foreseen(answer)
        stream = engine.stream(QUESTION, options)
        for delta in stream:
            if delta.text:
                break
        stream.close()  # in the middle of a draft
        text, after = written(engine, replace(options, drafting=False))
        assert text == plain
        assert after.cached_tokens == after.prompt_tokens - 1


def test_an_unmerged_adapter_reads_with_either_cache(tiny_hf: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", tiny_hf, target_modules=ALL, r=4)
    with loaded(tiny_hf) as engine:
        plain = engine.forward(list(range(40)))
    logits = []
    for fixed in (False, True):
        with loaded(tiny_hf, adapter=str(adapter), static=fixed) as engine:
            assert isinstance(engine._reader, Static) == fixed
            logits.append(engine.forward(list(range(40))))
    torch.testing.assert_close(*logits, rtol=0, atol=2e-4)
    assert (plain - logits[0]).abs().max() > 0.01


def test_a_model_that_cannot_is_answered_by_the_growing_cache_and_the_reason_kept(
    tiny_hf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_given: Any, **_named: Any) -> None:
        raise ValueError("attention of its own kind")

    with loaded(tiny_hf, static=False) as engine:
        right, _ = written(engine, ASKED["drawn"])
    monkeypatch.setattr(static, "_grouped", refuses)
    with loaded(tiny_hf, static=True) as engine:
        assert isinstance(engine._reader, Growing)
        assert engine.info.steps == "launched"
        assert "attention of its own kind" in engine.info.steps_reason
        assert written(engine, ASKED["drawn"])[0] == right


# --- recorded steps


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that records and replays, acted out on the CPU."""
    act_out(monkeypatch)
    monkeypatch.setattr(static, "Replay", lambda torch, _device: Replay(torch, "cuda"))
    monkeypatch.setattr(static, "WINDOW", 64)


@pytest.mark.parametrize("asked", ASKED)
def test_replayed_steps_write_what_launched_ones_do(
    asked: str, tiny_hf: Path, graphs: None
) -> None:
    turns = (*QUESTION, Turn("user", " the and of in" * 40))
    with loaded(tiny_hf, static=False) as engine:
        right, _ = written(engine, ASKED[asked], turns)
    with loaded(tiny_hf, static=True, context=1024) as engine:
        assert engine.info.steps == "recorded"
        for _ in range(2):
            before = FakeGraph.replays
            text, stats = written(engine, ASKED[asked], turns)
            assert text == right
            if stats.answer_tokens > 20:
                assert FakeGraph.replays > before
        assert engine._reader.recorded
        windows = {window for _, window in engine._reader._replay._graphs}
        assert len(windows) > 1  # the answer grew from one window into the next


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_recorded(family: str, graphs: None) -> None:
    ours = model(*FAMILIES[family])
    tokens = [(13 * at + 5) % 300 for at in range(80)]
    right = Growing(torch, ours, "cpu").read(tokens, len(tokens))
    fixed = Static(torch, ours, 150, 64, "cpu")
    fixed.read(tokens[:40])
    for at in range(40, 80):
        found = fixed.read(tokens[at : at + 1])
        torch.testing.assert_close(found[0], right[at], rtol=0, atol=2e-5)
    assert fixed.recorded
    assert FakeGraph.replays > 30


def test_what_cannot_be_recorded_is_launched_and_the_reason_told(
    tiny_hf: Path, graphs: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forward = static._grouped
    monkeypatch.setattr(
        static, "_grouped", lambda *a, **k: (a[1].sum().item(), forward(*a, **k))[1]
    )
    with loaded(tiny_hf, static=True) as engine:
        assert engine.info.steps == "launched"
        assert "not permitted when stream is capturing" in engine.info.steps_reason
        assert engine.info.steps_reason in caplog.text
        text, _ = written(engine, ASKED["greedy"])
    with loaded(tiny_hf, static=False) as engine:
        assert text == written(engine, ASKED["greedy"])[0]


def test_no_memory_while_recording_is_out_of_memory(
    tiny_hf: Path, graphs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loaded(tiny_hf, static=True, context=2048) as engine:
        plain, _ = written(engine, ASKED["greedy"])

        @contextmanager
        def full(*_given: Any, **_named: Any) -> Iterator[None]:
            try:
                raise torch.OutOfMemoryError("CUDA out of memory")
            finally:
                raise RuntimeError("operation failed due to a previous error during capture")
            yield

        with monkeypatch.context() as broken:
            broken.setattr(torch.cuda, "graph", full)
            engine._reader._replay.forget()
            with pytest.raises(OutOfMemory):
                list(engine.stream(QUESTION, ASKED["greedy"]))
        assert written(engine, ASKED["greedy"])[0] == plain  # and the engine goes on
        assert engine._reader.recorded


def test_the_benchmark_measures_every_way_of_writing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = "cuda --device cpu --shape tiny --tokens 8 --rounds 1 --json"
    monkeypatch.setattr(sys, "argv", asked.split())
    cuda.main()
    told = json.loads(capsys.readouterr().out)
    (row,) = told["rows"]
    assert all(row[name] > 0 for name in cuda.COLUMNS if name != "memory")
    assert row["steps"] == "launched"
    assert cuda.shown(row).count("|") == len(cuda.COLUMNS) + 2
    assert "(launched)" in cuda.shown(row)
