"""What a model has read is kept on disk and fetched: the same answers, sooner, and never anything doubtful."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from chatbot import child
from chatbot.engines.base import EngineSpec, Transcript
from chatbot.engines.llama_cpp import LlamaCpp
from chatbot.engines.recall import LEAST, Recall, facts_of
from chatbot.engines.states import (
    SHARED,
    Facts,
    State,
    StateFolder,
    digest_of,
    name_of,
    shared_name,
)
from chatbot.engines.worker import EngineWorker
from chatbot.types import GenerationOptions, GenerationStats, Turn

SYSTEM = Turn("system", "You read the rules of the house and the names of the rooms. " * 6)
ROOM = 10**9
OPTIONS = GenerationOptions(
    temperature=0, repeat_penalty=1.0, max_tokens=40, thinking=False, conversation="one"
)


def first(words: str = "the students of the school met in the hall. ") -> list[Turn]:
    return [SYSTEM, Turn("user", words * 12)]


def ask(
    engine: EngineWorker | LlamaCpp, turns: Sequence[Turn], conversation: str = "one"
) -> tuple[str, GenerationStats]:
    deltas = list(engine.stream(turns, replace(OPTIONS, conversation=conversation)))
    stats = deltas[-1].stats
    assert stats is not None
    return "".join(delta.text for delta in deltas), stats


def following(turns: list[Turn], text: str) -> list[Turn]:
    return [*turns, Turn("assistant", text), Turn("user", "and the library?")]


@pytest.fixture(scope="module")
def spec(tiny_gguf: Path) -> EngineSpec:
    return EngineSpec("llama_cpp", name="tiny", path=str(tiny_gguf), threads=1, context=4096)


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    path = tmp_path / "trạng thái"
    path.mkdir()
    return StateFolder(path)


class Restarting:
    """An engine that keeps states in the folder; `again` closes it and opens another, as a restart does."""

    def __init__(self, spec: EngineSpec, folder: StateFolder) -> None:
        self._spec, self._folder = spec, folder
        self.limit = ROOM
        self.engine = self._opened()

    def ask(self, turns: Sequence[Turn], conversation: str = "one") -> tuple[str, GenerationStats]:
        self.engine.recall.use(str(self._folder.path), self.limit)
        return ask(self.engine, turns, conversation)

    def again(self) -> None:
        self.keep()
        self.engine.close()
        self.engine = self._opened()

    def keep(self) -> None:
        self.engine.recall.keep()
        self.engine.recall.settle()

    def _opened(self) -> LlamaCpp:
        engine = LlamaCpp(self._spec)
        engine.recall.use(str(self._folder.path), self.limit)
        return engine


@pytest.fixture
def hearth(spec: EngineSpec, folder: StateFolder) -> Iterator[Restarting]:
    made = Restarting(spec, folder)
    yield made
    made.engine.close()


@pytest.fixture
def worker(spec: EngineSpec, folder: StateFolder) -> Iterator[Callable[[], EngineWorker]]:
    """Makes workers that keep states in the folder, each in a process of its own."""
    made: list[EngineWorker] = []

    def make() -> EngineWorker:
        made.append(EngineWorker(spec, states=lambda: (str(folder.path), ROOM)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def plain(spec: EngineSpec) -> Iterator[LlamaCpp]:
    """An engine that keeps nothing; asked without conversation it tells what is right."""
    made = LlamaCpp(spec)
    yield made
    made.close()


def files(folder: StateFolder, ending: str = "*") -> list[str]:
    return sorted(file.name for file in folder.path.glob(f"*.{ending}"))


# --- going on ------------------------------------------------------------------------------


def test_a_conversation_goes_on_in_another_process_without_being_read_again(
    worker, plain: LlamaCpp, folder: StateFolder
) -> None:
    before = worker()
    text, stats = ask(before, first())
    assert stats.restored_tokens == 0
    before.close()

    after = worker()
    turns = following(first(), text)
    counted = after.count_tokens(turns, thinking=False)
    again, restored = ask(after, turns)
    assert restored.prompt_tokens == counted
    assert restored.restored_tokens == restored.cached_tokens
    assert restored.cached_tokens >= stats.prompt_tokens + stats.answer_tokens - 1
    assert again == ask(plain, turns, "")[0]
    if os.name == "posix":
        assert {f.stat().st_mode & 0o777 for f in folder.path.iterdir()} == {0o600}


def test_two_open_conversations_are_fetched_in_turn(hearth: Restarting, plain: LlamaCpp) -> None:
    one, stats = hearth.ask(first())
    hearth.ask(first("the names of all the rooms in the building. "), "other")
    hearth.engine.recall.settle()
    turns = following(first(), one)
    text, back = hearth.ask(turns)
    assert back.restored_tokens >= stats.prompt_tokens
    assert text == ask(plain, turns, "")[0]


def test_a_new_conversation_begins_after_the_system_prompt(
    hearth: Restarting, folder: StateFolder
) -> None:
    hearth.ask(first())
    hearth.again()
    for name in files(folder):
        if not name.startswith(SHARED):
            (folder.path / name).unlink()
    assert len(files(folder)) == 2
    _, stats = hearth.ask(first("they read and they met. "), "third")
    assert len(SYSTEM.text.split()) < stats.restored_tokens < stats.prompt_tokens
    assert stats.restored_tokens == stats.cached_tokens
    hearth.again()
    assert len(files(folder)) == 4  # one system prompt, one conversation


def test_without_a_conversation_nothing_is_kept(hearth: Restarting, folder: StateFolder) -> None:
    hearth.ask(first(), "")
    hearth.ask(first("the rooms of the house. "), "")
    hearth.keep()
    assert files(folder) == []


def test_at_rest_a_child_works_once_and_then_waits() -> None:
    waiting: queue.SimpleQueue = queue.SimpleQueue()
    done = threading.Event()
    rests: list[int] = []

    def rest() -> None:
        rests.append(1)
        threading.Timer(0.1, waiting.put, (("stream", None, 1),)).start()
        done.set()
        raise OSError("the disk is full")  # nobody waits for it

    assert child._next(waiting, (0.01, rest)) == ("stream", None, 1)
    assert done.is_set()
    assert rests == [1]


# --- never anything doubtful ---------------------------------------------------------------


def _cut(state: Path, _manifest: Path) -> None:
    os.truncate(state, state.stat().st_size // 2)


def _flip(state: Path, _manifest: Path) -> None:
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 16
    state.write_bytes(content)


def _lost(state: Path, _manifest: Path) -> None:
    state.unlink()


def _not_json(_state: Path, manifest: Path) -> None:
    manifest.write_bytes(manifest.read_bytes()[:-20])


def _other_model(_state: Path, manifest: Path) -> None:
    _change(manifest, lambda content: content["model"].update(model=[1, 2]))


def _other_tokens(_state: Path, manifest: Path) -> None:
    """Claims to hold what was asked, while it holds something else."""
    _change(manifest, lambda content: content["tokens"].__setitem__(9, content["tokens"][9] ^ 1))


def _nonsense(_state: Path, manifest: Path) -> None:
    _change(manifest, lambda content: content.update(tokens=["a"], held=-4))


def _forged(state: Path, manifest: Path) -> None:
    """Garbage of the right length with the right checksum: llama.cpp has to refuse it."""
    state.write_bytes(os.urandom(state.stat().st_size))
    _change(manifest, lambda content: content.update(digest=digest_of(state)))


def _change(manifest: Path, work: Callable[[dict], object]) -> None:
    content = json.loads(manifest.read_text(encoding="utf-8"))
    work(content)
    manifest.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    "damage",
    [_cut, _flip, _lost, _not_json, _other_model, _other_tokens, _nonsense, _forged],
)
def test_a_damaged_state_is_removed_and_the_answer_is_right(
    hearth: Restarting, plain: LlamaCpp, folder: StateFolder, damage
) -> None:
    text, _ = hearth.ask(first())
    hearth.keep()
    sound = {file.read_bytes() for file in folder.path.iterdir()}
    for manifest in folder.path.glob("*.json"):
        damage(manifest.with_suffix(".state"), manifest)
    damaged = {file.read_bytes() for file in folder.path.iterdir()} - sound
    assert damaged or len(files(folder)) < 4

    hearth.engine.read = []  # so that `again` keeps nothing
    hearth.again()
    turns = following(first(), text)
    again, stats = hearth.ask(turns)
    assert again == ask(plain, turns, "")[0]
    assert stats.restored_tokens == 0
    hearth.keep()
    assert not damaged & {file.read_bytes() for file in folder.path.iterdir()}
    hearth.again()
    assert hearth.ask(turns)[1].restored_tokens > 100


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_kill_while_writing_costs_no_more_than_the_state(
    worker, hearth: Restarting, plain: LlamaCpp, folder: StateFolder
) -> None:
    turns = first("the students and the teachers read. " * 8)
    right = ask(plain, turns, "")[0]
    for milliseconds in (0, 3, 8):
        here = worker()
        assert ask(here, turns, f"conversation {milliseconds}")[0] == right
        keeping = threading.Thread(target=here._keep, args=(5.0,))
        assert here.pid is not None
        pid = here.pid
        keeping.start()
        time.sleep(milliseconds / 1000)
        os.kill(pid, signal.SIGKILL)
        keeping.join(10)
        assert hearth.ask(turns, f"conversation {milliseconds}")[0] == right
        hearth.engine.recall.forget([])  # and what it read itself is not what is looked at
    folder.tidy([])
    left = [name for name in files(folder) if not name.startswith(SHARED)]
    assert left == []


# --- room and privacy ----------------------------------------------------------------------


def test_the_limit_holds_and_the_oldest_go_first(hearth: Restarting, folder: StateFolder) -> None:
    hearth.ask(first())
    hearth.keep()
    hearth.limit = round(folder.used() * 2.2)
    for name in ("two", "three", "four"):
        hearth.ask(first(f"{name} of the rooms in the house. "), name)
        hearth.keep()
        assert folder.used() <= hearth.limit
    facts = json.loads(next(folder.path.glob("*.json")).read_text(encoding="utf-8"))["model"]
    kept = {Path(name).stem for name in files(folder, "state")}
    assert name_of("four", facts) in kept
    assert name_of("one", facts) not in kept
    hearth.limit = 100
    hearth.ask(first("in the library. "), "five")
    hearth.keep()
    assert name_of("five", facts) not in {Path(name).stem for name in files(folder, "state")}


def test_what_is_forgotten_is_not_written_afterwards(
    hearth: Restarting, folder: StateFolder
) -> None:
    hearth.ask(first())
    hearth.keep()
    assert len(files(folder, "json")) == 2
    hearth.engine.recall.forget(["one"])
    hearth.again()
    assert files(folder) == []


def test_forgetting_everything_beside_a_running_answer(worker, folder: StateFolder) -> None:
    here = worker()
    deltas = here.stream(first(), replace(OPTIONS, max_tokens=2000, thinking=True))
    while not next(deltas).text:
        pass
    here.forget(None)
    deltas.close()
    here.close()
    assert files(folder) == []


# --- the folder ----------------------------------------------------------------------------


MODEL: Facts = {"path": "/models/a.gguf", "adapter": "/models/lora.gguf", "kv_type": "f16"}


def _put(folder: StateFolder, name: str, size: int = 1000, facts: Facts = MODEL) -> State:
    folder.temporary(name).write_bytes(os.urandom(size))
    digest = digest_of(folder.temporary(name))
    tokens = array("i", range(50))
    state = State(name, "hỏi \ud800", 40, tokens, 45, size, digest, 60.0, 1e8)
    folder.put(state, facts)
    return state


def test_a_state_returns_as_it_was_put(folder: StateFolder) -> None:
    state = _put(folder, name_of("c", MODEL))
    assert StateFolder(folder.path).states(MODEL) == [state]
    assert folder.sound(state)
    assert StateFolder(folder.path).states({**MODEL, "kv_type": "q8_0"}) == []
    assert files(folder) == []


def test_a_deleted_conversation_takes_what_conversations_share_along(folder: StateFolder) -> None:
    _put(folder, name_of("gone", MODEL))
    stays = _put(folder, name_of("stays", MODEL))
    _put(folder, shared_name([1, 2, 3], MODEL))
    folder.forget(["gone"])
    assert folder.states(MODEL) == [stays]
    assert len(files(folder)) == 2
    folder.forget()
    assert folder.used() == 0


@pytest.mark.parametrize("path", [MODEL["path"], MODEL["adapter"]])
def test_states_go_with_their_model_and_with_its_adapter(folder: StateFolder, path: str) -> None:
    _put(folder, name_of("c", MODEL))
    other = {**MODEL, "path": "/models/b.gguf", "adapter": ""}
    kept = _put(folder, name_of("c", other), facts=other)
    folder.forget_model(path)
    assert folder.states(other) == [kept]
    assert len(files(folder)) == 2


def test_the_one_used_longest_ago_goes_first(folder: StateFolder) -> None:
    states = [_put(folder, name_of(str(number), MODEL), 10_000) for number in range(4)]
    for age, state in enumerate(states):
        moment = time.time() - 100 + age
        os.utime(folder.path / f"{state.name}.json", (moment, moment))
    assert folder.sound(states[0])  # used now
    folder.trim(25_000)
    assert folder.states(MODEL) == [states[3], states[0]]


def test_what_a_crash_left_goes_and_what_is_being_written_stays(folder: StateFolder) -> None:
    kept = _put(folder, name_of("c", MODEL))
    _put(folder, name_of("deleted", MODEL))
    for name, age in (("old", 100), ("new", 0)):
        for file in (folder.temporary(name_of(name, MODEL)), folder.path / f"{name}-x.state"):
            file.write_bytes(b"half")
            moment = time.time() - age
            os.utime(file, (moment, moment))
    folder.tidy(["c", "old", "new"])
    assert folder.states(MODEL) == [kept]
    left = {file.name for file in folder.path.iterdir()}
    assert folder.temporary(name_of("new", MODEL)).name in left
    assert folder.temporary(name_of("old", MODEL)).name not in left
    assert "old-x.state" not in left


def test_the_states_never_take_more_than_a_tenth_of_what_is_free(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chatbot.engines import states as module

    class Disk:
        free = 3_000_000

    monkeypatch.setattr(module.shutil, "disk_usage", lambda _path: Disk)
    assert folder.limit(2000) == 300_000
    Disk.free = 10**12
    assert folder.limit(2000) == 2_000_000_000


# --- deciding ------------------------------------------------------------------------------


class Reading:
    """An engine without a model: it has read tokens, and writes a file of a given size for them."""

    def __init__(self, size: int = 1000, whole_states: bool = False) -> None:
        self.read: list[int] = []
        self.size = 4096
        self.whole_states = whole_states
        self._bytes = size

    def state_size(self) -> int:
        return self._bytes

    def save(self, file: Path) -> bool:
        file.write_bytes(bytes(self._bytes))
        return True

    def restore(self, _file: Path, tokens: Sequence[int]) -> bool:
        self.read = list(tokens)
        return True


@pytest.fixture
def recall(folder: StateFolder) -> Callable[..., tuple[Recall, Reading]]:
    def make(**values) -> tuple[Recall, Reading]:
        engine = Reading(**values)
        transcript = Transcript(lambda text, first: [], lambda tokens: "")
        made = Recall(engine, transcript, MODEL)
        made.use(str(folder.path), ROOM)
        return made, engine

    return make


def _read(recall: Recall, engine: Reading, conversation: str, prompt: list[int]) -> int:
    restored = recall.bring(conversation, prompt)
    engine.read = list(prompt)
    recall.ended("text of " + conversation, prompt, [7] * 5)
    return restored


def test_only_what_is_fetched_sooner_than_read_is_written_or_fetched(recall, folder) -> None:
    made, engine = recall(size=100_000_000)  # half a second of a slow disk
    made.note(1000, 0.5)  # 200 tokens are read in a tenth of a second
    _read(made, engine, "c", list(range(200)))
    made.keep()
    made.settle()
    assert files(folder) == []
    made.note(1000, 50.0)  # now in ten seconds
    made.keep()
    made.settle()
    assert len(files(folder)) == 2
    fast, _ = recall(size=100_000_000)
    fast.note(1000, 0.1)
    assert fast.bring("c", list(range(300))) == 0
    slow, _ = recall(size=100_000_000)
    assert slow.bring("c", list(range(300))) == 200


def test_no_write_is_begun_that_would_hold_up_the_end(recall, folder) -> None:
    made, engine = recall(size=400_000_000)
    _read(made, engine, "c", list(range(2000)))
    made.keep(within=0.8)
    made.settle()
    assert files(folder) == []


def test_a_recurrent_state_serves_whole_or_not_at_all(recall) -> None:
    made, engine = recall(whole_states=True)
    _read(made, engine, "c", list(range(200)))
    made.keep()
    made.settle()
    other, _ = recall(whole_states=True)
    assert other.bring("d", [*range(150), 3, 3, 3, 3]) == 0
    assert other.bring("c", list(range(300))) == 200


def test_a_side_question_does_not_make_the_conversation_be_written(recall, folder) -> None:
    made, engine = recall()
    _read(made, engine, "c", list(range(200)))
    made.bring("", [*range(200 - LEAST + 1), 3, 3])
    made.settle()
    assert files(folder) == []


def test_what_is_forgotten_while_an_earlier_write_is_awaited_is_not_written(
    recall, folder, monkeypatch
) -> None:
    made, engine = recall()
    _read(made, engine, "c", list(range(200)))
    settle = made.settle
    monkeypatch.setattr(made, "settle", lambda: made.forget(["c"]))
    made.keep()
    settle()
    assert files(folder) == []


def test_a_changed_file_is_another_model(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"weights")
    spec = EngineSpec("llama_cpp", path=str(file))
    before = facts_of(spec, "0.3.36", 0)
    assert facts_of(spec, "0.3.36", 0) == before
    file.write_bytes(b"others!")
    os.utime(file, (1, 1))
    assert facts_of(spec, "0.3.36", 0) != before
    now = facts_of(spec, "0.3.36", 0)
    assert facts_of(replace(spec, kv_type="q8_0"), "0.3.36", 0) != now
    assert facts_of(replace(spec, flash="on"), "0.3.36", 0) != now
    assert facts_of(replace(spec, flash="off"), "0.3.36", 0) == now  # as it is on a CPU anyway
