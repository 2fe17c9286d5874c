"""Memory runs out while a model loads, reads or writes: the conversation is kept and the next question answered.

A quick subset runs always; HEARTH_FULL=1 does each phase 50 times. HEARTH_OOM_TIMES changes that.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from chatbot import services as rooms
from chatbot.child import Child
from chatbot.engines import worker
from chatbot.errors import ChatbotError, OutOfMemory
from chatbot.memory.relief import cures_of
from chatbot.services import QUOTES, Services
from chatbot.settings import Paths, Settings, save_settings
from chatbot.types import Conversation, ConversationSettings, GenerationOptions, Message
from tests.faults.oom_worker import GROUP
from tests.tiny_models import tiny_gguf, tiny_hf

__all__ = ["tiny_gguf", "tiny_hf"]

FULL = bool(os.environ.get("HEARTH_FULL"))
TIMES = int(os.environ.get("HEARTH_OOM_TIMES") or (50 if FULL else 5))
SECONDS = 10.0
TORCH_SECONDS = 120.0
"""The same where a fresh process must import torch first, on a busy machine."""
KINDS = ("limit", "raise", "abort", "kill", "group")
PHASES = ("load", "prefill", "decode")
pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(3600 if FULL else 300),
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="needs prlimit and control groups"
    ),
]
OPTIONS = GenerationOptions(temperature=0, repeat_penalty=1.0, max_tokens=40)
LIMIT = 400 << 20
"""Bytes of the control group: more than a worker with a tiny model takes, little enough to fill quickly."""


@dataclass
class Case:
    """Open services with one tiny model, and where memory is ordered to run out."""

    services: Services
    model_id: str
    order: Path
    limit: float = SECONDS

    def begun(self) -> Conversation:
        """A conversation in which something was said already."""
        settings = ConversationSettings(model=self.model_id, scope="none", options=OPTIONS)
        history = self.services.history
        conversation = history.create(settings)
        asked = history.add(conversation.id, None, "user", "Xin chào")
        history.add(conversation.id, asked.id, "assistant", "Chào bạn! 😀")
        return conversation

    def rows(self, conversation: Conversation) -> list[tuple]:
        sql = "SELECT * FROM messages WHERE conversation_id = ? ORDER BY created_at, rowid"
        return [tuple(row) for row in self.services.database.rows(sql, (conversation.id,))]

    def strike(self, conversation: Conversation, phase: str, kind: str) -> tuple[Message, float]:
        """The message under which memory ran out, and how long after that it was told."""
        if phase == "load":
            self.services.engines.unload()
        self.order.with_suffix(".done").unlink(missing_ok=True)
        self.order.write_text(json.dumps({"phase": phase, "kind": kind}))
        message = self.services.answers.ask(conversation.id, "Kể tiếp đi.").wait(TORCH_SECONDS)
        told = time.time()
        return message, told - self.order.with_suffix(".done").stat().st_mtime


@pytest.fixture(scope="module")
def services(tmp_path_factory) -> Iterator[Services]:
    paths = Paths(tmp_path_factory.mktemp("hết bộ nhớ") / "dữ liệu")
    paths.make()
    save_settings(paths.settings, Settings(samples_added=True))
    yield rooms.open_services(paths)
    rooms.close_services()


@pytest.fixture(scope="module", autouse=True)
def ordered(tmp_path_factory) -> Iterator[Path]:
    """Every engine is run by the worker that can be ordered to run out of memory."""
    patch = pytest.MonkeyPatch()
    order = tmp_path_factory.mktemp("order") / "order.json"
    patch.setenv("HEARTH_OOM", str(order))
    plain = worker.Child

    def child(module: str, *arguments, **options) -> Child:
        return plain(
            module.replace("chatbot.engines.worker", "tests.faults.oom_worker"),
            *arguments,
            **options,
        )

    patch.setattr(worker, "Child", child)
    yield order
    patch.undo()


@pytest.fixture(scope="module")
def kinds() -> Iterator[tuple[str, ...]]:
    """What can be done to a process here: the kernel ends one only in a control group that we may make."""
    try:
        GROUP.mkdir(exist_ok=True)
        (GROUP / "memory.limit_in_bytes").write_text(str(LIMIT))
    except OSError:
        yield tuple(kind for kind in KINDS if kind != "group")
        return
    yield KINDS
    GROUP.rmdir()


def case_of(services: Services, order: Path, source: Path) -> Case:
    job = services.jobs.wait(services.workshop.take_in(source).id, 60)
    assert job.state == "done", job.error
    return Case(services, job.message, order)


@pytest.fixture(scope="module")
def on_llama_cpp(services, ordered, tiny_gguf) -> Case:
    return case_of(services, ordered, tiny_gguf)


@pytest.fixture(scope="module")
def on_transformers(services, ordered, tiny_hf) -> Case:
    return replace(case_of(services, ordered, tiny_hf), limit=TORCH_SECONDS)


@pytest.mark.parametrize("phase", PHASES)
def test_the_conversation_is_kept_and_the_next_question_answered(
    on_llama_cpp: Case, phase: str, kinds: tuple[str, ...]
) -> None:
    seconds = [run_out(on_llama_cpp, phase, kinds[number % len(kinds)]) for number in range(TIMES)]
    told, answered = (max(each) for each in zip(*seconds, strict=True))
    print(
        f"llama.cpp, {phase}: {TIMES} times; told in {told:.1f} s, answered in {answered:.1f} s at worst"
    )


@pytest.mark.parametrize("phase", PHASES if FULL else ["decode"])
def test_it_is_so_with_transformers(on_transformers: Case, phase: str) -> None:
    kinds = ("raise", "limit", "abort")
    times = 5 if FULL else 1  # each imports torch anew
    seconds = [run_out(on_transformers, phase, kinds[number % 3]) for number in range(times)]
    told, answered = (max(each) for each in zip(*seconds, strict=True))
    print(
        f"transformers, {phase}: {times} times; told in {told:.1f} s, answered in {answered:.1f} s at worst"
    )


def run_out(case: Case, phase: str, kind: str) -> tuple[float, float]:
    conversation = case.begun()
    before = case.rows(conversation)
    message, told = case.strike(conversation, phase, kind)
    assert told <= case.limit, (phase, kind)
    error = ChatbotError.from_json(message.error or "{}")
    assert message.state == "failed", (phase, kind, message)
    if kind == "kill":  # a kill for another reason is not called want of memory
        assert error.code == "child_died", (phase, kind, error)
    else:
        assert isinstance(error, OutOfMemory), (phase, kind, error)
        check(case, error, phase)
    if phase == "decode":
        assert message.text, (kind, "what was written is kept")
    after = case.rows(conversation)
    assert after[: len(before)] == before
    assert [row[4] for row in after[len(before) :]] == ["Kể tiếp đi.", message.text]
    begun = time.monotonic()
    answered = case.services.answers.ask(conversation.id, "Còn gì nữa?").wait(TORCH_SECONDS)
    seconds = time.monotonic() - begun
    assert answered.state == "complete", (phase, kind, answered.error)
    assert answered.text
    assert seconds <= case.limit, (phase, kind)
    assert case.rows(conversation)[: len(after)] == after
    return told, seconds


def check(case: Case, error: OutOfMemory, phase: str) -> None:
    """The error says what a person needs to go on."""
    assert error.values["phase"] == phase
    assert error.values["place"] == "ram"
    then, now = error.values["freed"]["ram"]
    assert then > 0
    assert now > 0
    cures = cures_of(error)
    assert cures[-1].model_id == QUOTES
    assert all(cure.saves > 0 for cure in cures[:-1])
    last = case.services.last_out_of_memory()
    assert last is not None
    assert last.id == error.values["incident"]


def test_the_first_way_is_tried_when_the_person_says_so_and_the_answer_says_it(
    on_llama_cpp: Case,
) -> None:
    services = on_llama_cpp.services
    conversation = on_llama_cpp.begun()
    failed, _ = on_llama_cpp.strike(conversation, "prefill", "raise")
    error = ChatbotError.from_json(failed.error or "{}")
    assert isinstance(error, OutOfMemory)
    cure = cures_of(error)[0]
    assert cure.kind == "batch"
    message = services.answer_again(failed, cure).wait(60)
    assert message.state == "complete"
    assert message.notices == (cure.notice("vi"),)
    assert "128" in message.notices[0]
    loaded = services.engines.loaded
    assert loaded is not None
    assert loaded.spec.batch == cure.wishes["batch"]
    assert services.last_out_of_memory().cure == cure
    versions = services.history.siblings(conversation.id)[message.id]
    assert versions == [failed.id, message.id]
    assert services.history.message(failed.id) == failed


def test_by_setting_it_goes_on_at_once_and_both_versions_stay(on_llama_cpp: Case) -> None:
    services = on_llama_cpp.services
    services.change_settings(retry_smaller="automatic")
    try:
        conversation = on_llama_cpp.begun()
        on_llama_cpp.order.write_text(json.dumps({"phase": "decode", "kind": "group"}))
        if not GROUP.exists():
            on_llama_cpp.order.write_text(json.dumps({"phase": "decode", "kind": "abort"}))
        first = services.answers.ask(conversation.id, "Kể tiếp đi.")
        last = first.last()
    finally:
        services.change_settings(retry_smaller="ask")
    assert first.message.state == "failed"
    assert first.message.text, "what was written is kept"
    assert last.state == "complete"
    assert len(last.notices) == 1
    assert services.answers.running(conversation.id) is None
    assert services.history.branch(conversation.id)[-1] == last
    assert services.history.siblings(conversation.id)[last.id] == [first.message.id, last.id]


def test_a_load_outside_a_conversation_says_what_would_help_and_does_it(on_llama_cpp: Case) -> None:
    services = on_llama_cpp.services
    services.engines.unload()
    on_llama_cpp.order.write_text(json.dumps({"phase": "load", "kind": "abort"}))
    with pytest.raises(OutOfMemory) as raised:
        services.load_model(on_llama_cpp.model_id)
    assert services.engines.loaded is None
    cure = cures_of(raised.value)[0]
    assert cure.kind == "context"
    assert cure.text("en")[1:] in str(raised.value)
    services.load_cured(cure)
    loaded = services.engines.loaded
    assert loaded is not None
    assert loaded.info.context == cure.wishes["context"]


def test_quotations_are_always_left(on_llama_cpp: Case) -> None:
    services = on_llama_cpp.services
    conversation = on_llama_cpp.begun()
    failed, _ = on_llama_cpp.strike(conversation, "load", "raise")
    error = ChatbotError.from_json(failed.error or "{}")
    assert isinstance(error, OutOfMemory)
    message = services.answer_again(failed, cures_of(error)[-1]).wait(60)
    assert (message.state, message.engine) == ("complete", "extractive")
