"""What every engine promises, tried on each of them in its real child process."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import psutil
import pytest

from chatbot.engines.base import CONTEXT_FULL, EngineSpec
from chatbot.engines.openai import ESTIMATED
from chatbot.engines.worker import EngineWorker
from chatbot.errors import Busy, ContextOverflow
from chatbot.types import GenerationOptions, Turn
from tests.engines.conftest import GREEDY, QUESTION, Case

FREE = GenerationOptions(
    temperature=3.0,
    top_k=0,
    top_p=1.0,
    min_p=0.0,
    repeat_penalty=1.0,
    max_tokens=20,
    thinking=False,
)


def test_deltas_join_to_the_answer_and_the_last_one_carries_the_stats(case: Case) -> None:
    answer = case.ask()
    assert answer.text == case.text
    assert [delta for delta in answer.deltas if delta.stats] == answer.deltas[-1:]
    assert answer.stats.finish == "stop"
    assert answer.stats.answer_tokens > 3
    assert answer.stats.seconds >= answer.stats.seconds_to_first_token >= 0


def test_characters_are_never_torn(case: Case) -> None:
    for delta in case.ask().deltas:
        assert "\ufffd" not in delta.text
        delta.text.encode("utf-8")  # no half of a surrogate pair either


def test_a_stop_word_ends_the_answer_and_is_never_shown(case: Case) -> None:
    stop = case.text[3:-4]
    answer = case.ask(stop=("never said", stop))
    assert answer.text == case.text[:3]
    assert answer.stats.finish == "stop"


def test_what_only_looks_like_a_stop_word_is_shown(case: Case) -> None:
    assert case.ask(stop=(case.text[-4:] + "!",)).text == case.text


def test_max_tokens_ends_the_answer_and_says_so(case: Case) -> None:
    answer = case.ask(max_tokens=3)
    assert answer.stats.answer_tokens == 3
    assert answer.stats.finish == "length"
    assert case.text.startswith(answer.text)


def test_the_same_seed_repeats_and_another_differs(case: Case) -> None:
    if case.worker.spec.backend == "extractive":
        pytest.skip("quotations are not drawn by chance")
    ask = lambda seed: list(case.worker.stream(case.turns, replace(FREE, seed=seed)))  # noqa: E731
    texts = ["".join(d.text for d in ask(seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_token_counts_are_exact(case: Case) -> None:
    counted = case.worker.count_tokens(case.turns, thinking=False)
    stats = case.ask().stats
    if case.worker.spec.backend == "openai":
        assert stats.prompt_tokens == sum(
            len(turn.text.split()) for turn in case.turns
        )  # the server's
        assert counted > 0
        return
    assert counted == stats.prompt_tokens
    assert case.worker.count_tokens(case.turns, thinking=False) == counted  # also after the answer


def test_a_count_does_not_wait_for_the_answer_before_it(case: Case) -> None:
    stream = case.worker.stream(case.long_turns, case.long)
    _first_text(stream)
    counted = case.worker.count_tokens(case.turns)
    assert counted > 0
    assert next(stream).stats is None  # it still writes
    stream.close()


def test_cancelled_while_writing_the_next_question_is_answered(case: Case) -> None:
    case.ask()
    stream = case.worker.stream(case.long_turns, case.long)
    _first_text(stream)
    stream.close()
    start = time.monotonic()
    assert case.ask().text == case.text
    assert time.monotonic() - start < 5


def test_cancelling_while_writing_stops_the_model(model_case: Case) -> None:
    case = model_case
    stream = case.worker.stream(case.long_turns, case.long)
    _first_text(stream)
    stream.close()
    # What the model went on to read is seen by asking it to go on from there.
    went_on = Turn("assistant", "<think>" + " the and of in" * 900)
    following = (*case.long_turns, went_on, Turn("user", "?"))
    stats = case.ask(following, max_tokens=1).stats
    prompt = case.worker.count_tokens(case.long_turns)
    assert prompt <= stats.cached_tokens < prompt + 1500


def test_cancelling_while_reading_stops_within_a_batch(model_case: Case) -> None:
    case = model_case
    long_prompt = [Turn("user", "the rules of the house " * 900)]
    stream = case.worker.stream(long_prompt, GREEDY)
    for delta in stream:
        if delta.progress:
            break
    stream.close()
    stats = case.ask(long_prompt, max_tokens=1).stats
    assert stats.prompt_tokens > 3000
    assert 128 <= stats.cached_tokens < stats.prompt_tokens - 128


def test_llama_cpp_ends_even_a_single_long_batch_early(spec_of) -> None:
    worker = EngineWorker(replace(spec_of("llama_cpp"), batch=8192))
    try:
        worker.load()
        long_prompt = [Turn("user", "the rules of the house " * 1200)]
        stream = worker.stream(long_prompt, GREEDY)
        assert next(stream).progress == 0.0
        stream.close()
        *_, last = worker.stream(long_prompt, replace(GREEDY, max_tokens=1))
        assert last.stats.prompt_tokens > 4000
        assert last.stats.cached_tokens == 0  # a batch that was read to its end would be remembered
    finally:
        worker.close()


def test_reading_a_prompt_tells_its_progress(model_case: Case) -> None:
    answer = model_case.ask([Turn("user", "all the names in the library " * 100)], max_tokens=1)
    told = [delta.progress for delta in answer.deltas if delta.progress is not None]
    assert len(told) > 3
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_the_second_turn_reads_only_what_is_new(model_case: Case) -> None:
    case = model_case
    first = case.ask(seed=3, temperature=3.0, top_k=0, top_p=1.0, min_p=0.0)
    following = (*case.turns, Turn("assistant", first.text), Turn("user", "And then?"))
    second = case.ask(following).stats
    read_before = first.stats.prompt_tokens + first.stats.answer_tokens - 1
    assert second.cached_tokens >= read_before - 1
    new = second.prompt_tokens - second.cached_tokens
    assert new <= 12 + case.worker.count_tokens([Turn("user", "And then?")])


def test_a_reused_prefix_does_not_change_the_answer(model_case: Case, spec_of) -> None:
    case = model_case
    following = (*case.turns, Turn("assistant", case.ask().text), Turn("user", "And then?"))
    options = replace(FREE, seed=5)
    reused = list(case.worker.stream(following, options))
    assert reused[-1].stats.cached_tokens > 0
    fresh = EngineWorker(spec_of(case.worker.spec.backend))
    try:
        anew = list(fresh.stream(following, options))
    finally:
        fresh.close()
    assert anew[-1].stats.cached_tokens == 0
    assert "".join(d.text for d in reused) == "".join(d.text for d in anew)


@pytest.mark.parametrize("backend", ["llama_cpp", "transformers"])
def test_a_full_context_is_said(backend: str, spec_of) -> None:
    worker = EngineWorker(replace(spec_of(backend), context=100))
    try:
        assert worker.info.context == 100
        with pytest.raises(ContextOverflow) as raised:
            list(worker.stream([Turn("user", "the " * 200)], GREEDY))
        assert raised.value.values["context"] == 100
        assert raised.value.values["needed"] > 200
        deltas = list(worker.stream(QUESTION, replace(GREEDY, thinking=True, max_tokens=500)))
        stats = deltas[-1].stats
        assert stats.finish == "length"
        assert CONTEXT_FULL in [delta.notice for delta in deltas]
        assert stats.prompt_tokens + stats.answer_tokens == 101  # the last one was never read
    finally:
        worker.close()


def test_unloading_frees_the_process_and_the_next_question_loads_again(case: Case) -> None:
    case.ask()
    process = psutil.Process(case.worker.pid)
    case.worker.unload()
    assert not process.is_running()
    assert case.worker.pid is None
    assert case.ask().text == case.text


def test_questions_are_answered_in_order_and_each_sees_its_place(case: Case) -> None:
    first = case.worker.stream(case.long_turns, case.long)
    _first_text(first)
    order: list[int] = []
    places: dict[int, list[int]] = {1: [], 2: []}
    texts: dict[int, str] = {}

    def ask(number: int) -> None:
        text = ""
        for delta in case.worker.stream(case.turns, case.short):
            if delta.queue_place is not None:
                places[number].append(delta.queue_place)
            text += delta.text
        texts[number] = text
        order.append(number)

    threads = []
    for number in (1, 2):
        threads.append(threading.Thread(target=ask, args=(number,)))
        threads[-1].start()
        _wait_until(lambda at=number: places[at])
    first.close()
    for thread in threads:
        thread.join(30)
    assert order == [1, 2]
    assert places[1][0] == 1
    assert places[2][0] == 2
    assert texts == {1: case.text, 2: case.text}


def test_a_full_queue_says_busy() -> None:
    worker = EngineWorker(EngineSpec())
    waiting = [worker.stream([Turn("user", "?")], GREEDY) for _ in range(17)]
    try:
        for stream in waiting:
            next(stream)  # the first one is answered, sixteen wait
        with pytest.raises(Busy):
            next(worker.stream([Turn("user", "?")], GREEDY))
        waiting[5].close()  # one gives up, so there is room again
        again = worker.stream([Turn("user", "?")], GREEDY)
        assert next(again).queue_place == 16
        again.close()
    finally:
        for stream in waiting:
            stream.close()
        worker.close()


def test_a_server_that_does_not_count_is_said_to_be_estimated(spec_of) -> None:
    worker = EngineWorker(spec_of("openai"))
    try:
        deltas = list(worker.stream([Turn("user", "[no usage] hello")], GREEDY))
        assert ESTIMATED in [delta.notice for delta in deltas]
        assert deltas[-1].stats.prompt_tokens > 0
    finally:
        worker.close()


def _first_text(stream) -> None:
    for delta in stream:
        if delta.text:
            return


def _wait_until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
