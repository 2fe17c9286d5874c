"""Drafting guesses what was there before, only where it pays, and never changes a text."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.geometries import Geometry, llama, write_gguf
from chatbot.engines.base import CONTEXT_FULL, EngineSpec
from chatbot.engines.drafting import LENGTHS, LONGEST, RUN, Drafter, Experience, PromptLookup
from chatbot.engines.llama_cpp import LlamaCpp
from chatbot.types import Delta, GenerationOptions, Turn
from tests.engines.conftest import QUESTION, Answer, tiny_gguf

__all__ = ["tiny_gguf"]

TEXT = st.lists(st.integers(0, 3), max_size=60)


class Steadily:
    """Guesses that are right with a fixed chance."""

    def __init__(self, chance: float, matched: int = 20) -> None:
        self.matched = matched
        self._random = random.Random(1)
        self._chance = chance
        self._next: list[int] = []

    def ahead(self, count: int) -> list[int]:
        while len(self._next) < count:
            self._next.append(int(self._random.random() < self._chance))
        return self._next[:count]

    def took(self, token: int) -> bool:
        return self.ahead(1).pop(0) == token and self._next.pop(0) == token


def _written(drafter: Drafter, count: int, cost) -> tuple[float, list[int]]:
    """Write `count` tokens, each a 1: the time it took and the length of each draft."""
    spent, lengths, written = 0.0, [], 0
    while written < count:
        draft = drafter.propose(count - written - 1)
        size = 1 + len(draft)
        spent += cost(size)
        drafter.experience.read(size, cost(size))
        lengths.append(len(draft))
        right = next((at for at, token in enumerate(draft) if token != 1), len(draft))
        for _ in range(right + 1):
            drafter.took(1)
            written += 1
    return spent, lengths


# --- the lookup


@given(TEXT, TEXT)
def test_a_guess_is_what_followed_the_same_tokens_before(prompt, answer) -> None:
    lookup, text = PromptLookup(prompt), list(prompt)
    for token in [*answer, None]:
        ahead = lookup.ahead(5)
        known = any(text[at : at + RUN] == text[-RUN:] for at in range(len(text) - RUN))
        assert bool(ahead) == bool(lookup.matched) == (known and len(text) > RUN)
        if ahead:
            agree = min(lookup.matched, len(text))
            begins = [
                at for at in range(agree, len(text)) if text[at - agree : at] == text[-agree:]
            ]
            assert any((text[at:] * 5)[:5] == ahead for at in begins)
        if token is not None:
            assert lookup.took(token) == (ahead[:1] == [token])
            text.append(token)


def test_the_guess_follows_the_passage_it_began_in() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 5, 9, 9, 9, 3, 4, 5, 7, 7, 0, 1, 2, 3])
    assert lookup.ahead(4) == [4, 5, 9, 9]
    lookup.took(4)
    lookup.took(5)
    assert lookup.ahead(2) == [9, 9]  # though 3 4 5 was followed by 7 later
    assert lookup.matched == 5
    assert not lookup.took(7)
    assert lookup.ahead(2) == [7, 0]


def test_a_text_that_runs_in_a_circle_is_guessed_as_far_as_asked() -> None:
    assert PromptLookup([1, 2, 1, 2, 1]).ahead(5) == [2, 1, 2, 1, 2]


def test_a_long_prompt_is_found_in_again() -> None:
    lookup = PromptLookup([*range(10_000), 17, 18, 19])
    assert lookup.ahead(3) == [20, 21, 22]


# --- how much is drafted


@given(
    TEXT,
    st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 20)), max_size=60),
    st.dictionaries(st.sampled_from([n + 1 for n in LENGTHS]), st.floats(0.1, 50)),
)
@settings(deadline=None)
def test_a_draft_stays_in_its_room_and_the_counts_add_up(prompt, steps, times) -> None:
    experience = Experience()
    drafter = Drafter(PromptLookup(prompt), experience)
    for _ in range(9):
        experience.read(1, 1.0)
    accepted = drafted = 0
    tried: list[int] = []
    for token, room in steps:
        if tried and tried[0] == token:
            accepted += 1
            tried = tried[1:]
        else:
            tried = []
        drafter.took(token)
        if not tried:
            tried = drafter.propose(room)
            assert len(tried) <= max(room, 0)
            assert len(tried) in (0, *LENGTHS)
            drafted += len(tried)
            size = 1 + len(tried)
            experience.read(size, times.get(size, 1.0))
    assert (drafter.drafted, drafter.accepted) == (drafted, accepted)


@given(st.lists(st.tuples(st.integers(1, 40), st.booleans())), st.integers(2, 16))
def test_rates_and_costs_stay_sensible(guesses, size) -> None:
    experience = Experience()
    for matched, right in guesses:
        experience.guessed(matched, right=right)
        assert 0 <= experience.rate(matched) <= 1
    assert experience.cost(1) == 1
    assert 1 <= experience.cost(size) <= size


def test_drafts_grow_with_guesses_that_are_right_and_are_worth_it() -> None:
    drafter = Drafter(Steadily(1.0), Experience())
    spent, lengths = _written(drafter, 400, lambda size: 1 + 0.375 * (size - 1))
    assert lengths[-3] == LONGEST
    assert 400 / spent > 2.2
    assert drafter.accepted == drafter.drafted


@pytest.mark.parametrize("slope", [0.05, 0.375, 0.7])
def test_guesses_that_are_wrong_cost_less_than_two_percent(slope: float) -> None:
    drafter = Drafter(Steadily(0.0), Experience())
    spent, lengths = _written(drafter, 400, lambda size: 1 + slope * (size - 1))
    assert spent / 400 < 1.02
    assert not any(lengths[50:])
    assert drafter.accepted == 0 < drafter.drafted


def test_the_length_follows_what_a_batch_costs_here() -> None:
    def jagged(size: int) -> float:
        return {1: 1, 2: 1.7, 4: 2.6, 8: 6.0, 16: 16.5}[size]

    drafter = Drafter(Steadily(1.0), Experience())
    spent, lengths = _written(drafter, 600, jagged)
    assert lengths[-9:-4] == [3] * 5
    assert 600 / spent > 1.4


def test_hardly_anything_is_drafted_where_a_batch_costs_as_much_as_its_tokens() -> None:
    drafter = Drafter(Steadily(1.0), Experience())
    spent, lengths = _written(drafter, 400, lambda size: size)
    assert spent / 400 < 1.02
    assert sum(map(bool, lengths[50:])) <= 2 * len(
        LENGTHS
    )  # asked again, as the machine may have been busy


def test_drafting_begins_again_when_the_answer_quotes_again() -> None:
    experience = Experience()
    _written(Drafter(Steadily(0.0), experience), 200, lambda size: 1 + 0.375 * (size - 1))
    assert experience.rate(20) < 0.1
    again = Drafter(Steadily(1.0), experience)
    _, lengths = _written(again, 200, lambda size: 1 + 0.375 * (size - 1))
    assert next(at for at, length in enumerate(lengths) if length) < 40  # watched, at no price
    assert lengths[-3] == LONGEST


def test_one_hiccup_does_not_condemn_a_length() -> None:
    experience = Experience()
    for _ in range(9):
        experience.read(1, 1.0)
    experience.read(16, 900.0)
    assert experience.cost(16) < 8


# --- in the engine


class AlwaysWorthIt(Experience):
    """Batches are free, so that everything guessed is tried."""

    def cost(self, size: int) -> float:
        return 1.0


@pytest.fixture(scope="module")
def engine(tiny_gguf: Path) -> Iterator[LlamaCpp]:
    engine = _engine(tiny_gguf)
    yield engine
    engine.close()


def _engine(file: Path, **spec) -> LlamaCpp:
    spec = {"context": 1024, "batch": 128, "threads": 1, "steady": True, **spec}
    return LlamaCpp(
        EngineSpec("llama_cpp", path=str(file), **spec),
        lambda tokens: Drafter(PromptLookup(tokens), AlwaysWorthIt()),
    )


# The model goes round the words of its circle; the prompt has them in other orders too.
ASKED = (*QUESTION, Turn("user", "<think> the and of the and of in the of in and the and in" * 3))
WAYS = {
    "greedy": GenerationOptions(temperature=0, repeat_penalty=1.0),
    "greedy, penalty": GenerationOptions(temperature=0, repeat_penalty=1.4),
    "seed 1": GenerationOptions(temperature=0.8, repeat_penalty=1.0, seed=1),
    "seed 2": GenerationOptions(temperature=1.0, repeat_penalty=1.1, seed=2),
    "seed 3, all tokens": GenerationOptions(temperature=1.0, top_k=0, repeat_penalty=1.0, seed=3),
    "stop word": GenerationOptions(temperature=0, repeat_penalty=1.0, stop=("of in the and of",)),
    "its own end": GenerationOptions(temperature=0, repeat_penalty=1.0, thinking=False),
}


def _ask(engine: LlamaCpp, options: GenerationOptions, turns=ASKED) -> Answer:
    return Answer(list(engine.stream(turns, options)))


def _both(engine: LlamaCpp, options: GenerationOptions, turns=ASKED) -> tuple[Answer, Answer]:
    _ask(engine, replace(options, max_tokens=1), turns)  # both begin with the same cache
    plain = _ask(engine, replace(options, drafting=False), turns)
    return plain, _ask(engine, options, turns)


def _same(plain: Answer, drafted: Answer) -> None:
    assert drafted.text == plain.text
    for name in ("prompt_tokens", "cached_tokens", "answer_tokens", "finish"):
        assert getattr(drafted.stats, name) == getattr(plain.stats, name), name
    assert plain.stats.drafted == plain.stats.accepted == 0
    assert drafted.stats.accepted <= drafted.stats.drafted


@pytest.mark.parametrize("way", WAYS)
def test_the_text_is_the_same(engine: LlamaCpp, way: str) -> None:
    plain, drafted = _both(engine, replace(WAYS[way], max_tokens=90))
    _same(plain, drafted)
    if way in ("greedy", "seed 1"):
        assert drafted.stats.accepted > 20


def test_wrong_drafts_leave_nothing_behind(engine: LlamaCpp) -> None:
    written = replace(WAYS["greedy"], max_tokens=150)
    plain, drafted = _both(engine, written)
    assert drafted.stats.drafted > drafted.stats.accepted
    following = (*ASKED, Turn("assistant", "<think>" + drafted.text), Turn("user", "And then?"))
    options = replace(WAYS["greedy"], max_tokens=40)
    after_drafts = _ask(engine, options, following)
    _ask(engine, replace(written, drafting=False))
    after_none = _ask(engine, replace(options, drafting=False), following)
    _same(after_none, after_drafts)
    assert after_none.stats.cached_tokens > plain.stats.prompt_tokens + 100


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 20, 21])
def test_no_more_tokens_than_asked_for(engine: LlamaCpp, count: int) -> None:
    plain, drafted = _both(engine, replace(WAYS["greedy"], max_tokens=count))
    _same(plain, drafted)
    assert drafted.stats.answer_tokens == count


def test_a_full_context_is_the_same_to_the_token(tiny_gguf: Path) -> None:
    engine = _engine(tiny_gguf, context=180)
    try:
        turns = (*QUESTION, Turn("user", "<think> the and of in the and"))
        plain, drafted = _both(engine, replace(WAYS["greedy"], max_tokens=500), turns)
    finally:
        engine.close()
    _same(plain, drafted)
    assert plain.notices == drafted.notices == [CONTEXT_FULL]
    assert drafted.stats.prompt_tokens + drafted.stats.answer_tokens == 181
    assert drafted.stats.accepted > 20


def test_cancelled_in_the_middle_of_a_draft_it_goes_on_from_what_was_said(engine: LlamaCpp) -> None:
    options = replace(WAYS["greedy"], max_tokens=150)
    whole = _ask(engine, replace(options, drafting=False))
    for letters in (60, 75, 90):
        cut = _cut(engine, options, letters)
        assert cut.stats.finish == "cancelled"
        assert whole.text.startswith(cut.text)
        following = (*ASKED, Turn("assistant", "<think>" + cut.text), Turn("user", "And then?"))
        went_on = _ask(engine, replace(options, max_tokens=40), following)
        assert went_on.stats.cached_tokens >= cut.stats.prompt_tokens + cut.stats.answer_tokens - 1
        _cut(engine, replace(options, drafting=False), letters)
        plain = _ask(engine, replace(options, max_tokens=40, drafting=False), following)
        assert went_on.text == plain.text
        assert went_on.stats.cached_tokens == plain.stats.cached_tokens


def _cut(engine: LlamaCpp, options: GenerationOptions, letters: int) -> Answer:
    """The answer of which the reader had enough after so many letters."""
    said: list[Delta] = []

    def enough() -> bool:
        return len(Answer(said).text) >= letters

    for delta in engine.stream(ASKED, options, enough):
        said += [delta]
    return Answer(said)


def test_small_batches_draft_nothing(tiny_gguf: Path) -> None:
    engine = _engine(tiny_gguf, batch=LONGEST)
    try:
        assert _ask(engine, replace(WAYS["greedy"], max_tokens=60)).stats.drafted == 0
    finally:
        engine.close()


_RECURRENT = {"mamba_d_state": 16, "mamba_n_groups": 1, "mamba_d_conv": 4, "mamba_expand": 2}
_SHAPE = llama(4, 128, 4, 2, 256, 512, head_dim=32)
OTHER_SHAPES = {
    "mamba": {"hidden_size": 128, "num_hidden_layers": 2, "state_size": 16, "vocab_size": 512},
    "falcon_h1": {
        **_SHAPE,
        **_RECURRENT,
        "mamba_d_ssm": 128,
        "mamba_n_heads": 4,
        "mamba_d_head": 32,
    },
    "gemma3_text": {**_SHAPE, "sliding_window": 32},
}


@pytest.mark.parametrize("family", OTHER_SHAPES)
def test_what_cannot_be_forgotten_is_not_tried(family: str, tmp_path: Path) -> None:
    shape = Geometry(family, "F16", 1024, "f16", family, OTHER_SHAPES[family])
    engine = _engine(write_gguf(shape, tmp_path / "model.gguf"))
    turns = [Turn("user", "w1 w2 w3 w4 w5 w6 " * 20)]
    try:
        plain, drafted = _both(engine, replace(WAYS["greedy"], max_tokens=60), turns)
    finally:
        engine.close()
    assert drafted.text == plain.text
    # A sliding window can be wound back by a draft; a state that all tokens went into cannot.
    assert (drafted.stats.drafted > 0) == (family == "gemma3_text")
