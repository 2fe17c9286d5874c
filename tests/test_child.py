"""What a helper process promises: answers, liveness, and no orphan."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from chatbot.child import Child
from chatbot.errors import (
    Cancelled,
    ChatbotError,
    ChildDied,
    ChildHung,
    ChildTimeout,
    EmptyDocument,
)
from chatbot.settings import PROJECT

MODULE = "tests.echo_child"


@pytest.fixture
def child():
    made = Child(MODULE, hung_after=3)
    yield made
    made.close()


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(condition, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_call_returns_what_it_was_given(child):
    text = "Điều 20 \U0001f525 \ud800 lẻ"  # also half a surrogate pair, as broken text has it
    result, blob = child.call("echo", {"x": text}, b"\0\xff" * 5)
    assert result == {"x": text}
    assert blob == b"\0\xff" * 5


def test_blobs_of_many_megabytes_pass_unchanged(child):
    blob = os.urandom(1 << 20) * 48
    assert child.call("echo", {"x": 1}, blob)[1] == blob


def test_events_arrive_in_order_and_the_result_last(child):
    frames = [frame for frame, _ in child.stream("count", {"n": 20})]
    assert frames == [{"i": i} for i in range(20)] + [{"done": True}]


def test_many_threads_each_get_their_own_answers(child):
    def ask(i: int):
        return child.call("echo", {"x": i}, bytes([i]) * 1000)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(64)))
    assert answers == [({"x": i}, bytes([i]) * 1000) for i in range(64)]


def test_closing_the_stream_cancels_the_work(child):
    stream = child.stream("count", {"n": 100_000})
    next(stream)
    stream.close()
    start = time.monotonic()
    child.call("echo", {"x": 1})  # one call at a time: this waits for the cancelled one to end
    assert time.monotonic() - start < 5


def test_a_call_cancelled_while_it_waits_is_never_begun(child, tmp_path):
    running = child.stream("count", {"n": 100_000})
    next(running)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(child.call, "touch", {"file": str(tmp_path / "begun")})
        assert wait_until(lambda: len(child._calls) == 2)
        child._outbox.put(({"cancel": child._next_id}, b""))
        running.close()
        with pytest.raises(Cancelled):
            waiting.result(20)
    assert not (tmp_path / "begun").exists()


def test_errors_of_ours_arrive_as_themselves(child):
    with pytest.raises(EmptyDocument) as caught:
        child.call("empty", {})
    assert caught.value.values["name"] == "Quy chế.pdf"


def test_any_other_exception_arrives_with_its_name(child):
    with pytest.raises(ChatbotError, match="ZeroDivisionError"):
        child.call("boom", {})
    assert child.call("echo", {"x": 1})[0] == {"x": 1}  # and the child lives on


def test_what_a_library_prints_does_not_mix_with_the_frames(child, capfd):
    assert child.call("noisy", {})[0] == {"done": True}
    child.close()
    assert "printed by a library" in capfd.readouterr().err


def test_a_killed_child_is_told_at_once_and_replaced(child):
    stream = child.stream("count", {"n": 100_000})
    next(stream)
    first = child.pid
    psutil.Process(first).kill()
    with pytest.raises(ChildDied):
        list(stream)
    assert child.call("echo", {"x": 2})[0] == {"x": 2}
    assert child.pid != first


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGSTOP")
def test_a_stopped_child_counts_as_hung_and_is_ended(child):
    stream = child.stream("count", {"n": 100_000})
    next(stream)
    pid = child.pid
    os.kill(pid, signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(ChildHung):
        list(stream)
    assert time.monotonic() - start < 8
    assert wait_until(lambda: ended(pid))
    assert child.call("echo", {"x": 3})[0] == {"x": 3}


def test_busy_native_work_is_not_taken_for_a_hang():
    """Longer than `hung_after`, with the interpreter free to beat."""
    child = Child(MODULE, hung_after=2)
    try:
        assert child.call("sleep", {"seconds": 4})[0] == {"done": True}
    finally:
        child.close()


def test_a_call_that_takes_too_long_ends_the_child(child):
    child.call("echo", {"x": 0})
    pid = child.pid
    with pytest.raises(ChildTimeout):
        child.call("sleep", {"seconds": 60}, timeout=0.6)
    assert wait_until(lambda: ended(pid))


def test_close_ends_the_process_and_refuses_further_calls(child):
    child.call("echo", {"x": 1})
    pid = child.pid
    child.close()
    assert wait_until(lambda: ended(pid), 5)
    with pytest.raises(ChildDied):
        child.call("echo", {"x": 1})


def test_close_does_not_wait_for_work_that_will_not_end(child):
    stream = child.stream("count", {"n": 100_000})
    next(stream)
    start = time.monotonic()
    child.close(grace=1)
    assert time.monotonic() - start < 5


@pytest.mark.faults
@pytest.mark.parametrize("way", ["kill", "exit"])
def test_no_child_outlives_its_owner(way: str, tmp_path):
    """The owner is killed, or ends without closing, while its child is deep in native sleep."""
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
                import sys, threading
                from chatbot.child import Child
                child = Child("tests.echo_child")
                child.call("echo", {"x": 1})
                threading.Thread(
                    target=child.call, args=("sleep", {"seconds": 600}), daemon=True
                ).start()
                print(child.pid, flush=True)
                sys.stdin.readline()
            """),
        ],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = int(owner.stdout.readline())
    assert not ended(pid)
    if way == "kill":
        owner.kill()
    else:
        owner.communicate("go\n", timeout=30)
    owner.wait(30)
    assert wait_until(lambda: ended(pid), 10)


def test_a_child_started_in_a_thread_outlives_that_thread():
    """Streamlit's script threads come and go; their children must not."""
    child = Child(MODULE)
    try:
        thread = threading.Thread(target=child.call, args=("echo", {"x": 1}))
        thread.start()
        thread.join(60)
        first = child.pid
        assert child.call("echo", {"x": 2})[0] == {"x": 2}
        assert child.pid == first
    finally:
        child.close()


def test_long_work_can_run_at_the_lowest_priority():
    child = Child(MODULE, lowest_priority=True)
    try:
        child.call("echo", {"x": 1})
        nice = psutil.Process(child.pid).nice()
        assert nice == (psutil.IDLE_PRIORITY_CLASS if os.name == "nt" else 19)
    finally:
        child.close()


def test_a_child_that_cannot_start_says_so():
    child = Child("tests.no_such_module")
    with pytest.raises(ChildDied):
        child.call("echo", {})
    child.close()


def test_cancelled_is_an_error_that_travels(child):
    stream = child.stream("until_cancelled", {})
    next(stream)
    child._outbox.put(({"cancel": child._next_id}, b""))
    with pytest.raises(Cancelled):
        list(stream)


def test_a_process_that_cannot_be_started_is_told_and_the_next_call_tries_again(child, monkeypatch):
    def no_memory():
        raise OSError(12, "Cannot allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr(child, "_spawn", no_memory)
        with pytest.raises(ChildDied, match="Cannot allocate"):
            child.call("echo")
    assert child.call("echo", {"x": 1})[0] == {"x": 1}


def test_the_last_words_of_a_child_are_known_and_still_reach_the_owners_stderr(capfd):
    child = Child(MODULE, keep_words=True)
    child.call("noisy")
    process = psutil.Process(child.pid)
    process.kill()
    process.wait(10)
    assert "written by native code" in child.last_words()
    assert child.last_words(since=time.monotonic()) == ""
    assert "written by native code" in capfd.readouterr().err
    child.call("echo", {"x": 1})
    assert child.last_words() == "", "those of the process before are forgotten"
    child.close()
