"""Long work is done once, can be cancelled, and is taken up again after a restart."""

from __future__ import annotations

import json
import threading

import pytest

from chatbot.database import Database
from chatbot.errors import DiskFullError, ModelError, NotFoundError
from chatbot.jobs import Jobs
from chatbot.types import JobStep


@pytest.fixture
def jobs(database):
    made = Jobs(database)
    yield made
    made.close()


def test_jobs_run_in_order_and_report(jobs):
    done = []
    jobs.register("work", lambda c: done.append(c.job.params["n"]) or f"{c.job.params['n']} xong")
    jobs.start()
    submitted = [jobs.submit("work", "Việc", {"n": n}) for n in range(5)]
    last = jobs.wait(submitted[-1].id, 10)
    assert done == [0, 1, 2, 3, 4]
    assert (last.state, last.message, last.progress) == ("done", "4 xong", 1.0)


def test_cancel_ends_a_running_job_and_a_waiting_one_never_starts(jobs):
    started = threading.Event()
    ran = []

    def work(context):
        ran.append(context.job.id)
        started.set()
        while True:
            context.report(0.5, "đang làm")

    jobs.register("work", work)
    jobs.start()
    first, second = jobs.submit("work", "a"), jobs.submit("work", "b")
    assert started.wait(10)
    jobs.cancel(second.id)
    jobs.cancel(first.id)
    assert jobs.wait(first.id, 10).state == "cancelled"
    assert jobs.wait(second.id, 10).state == "cancelled"
    assert ran == [first.id]


def test_a_failure_is_kept_with_its_cure_and_the_queue_goes_on(jobs):
    def full(_context):
        raise DiskFullError("3 MB")

    def broken(_context):
        raise RuntimeError("boom")

    jobs.register("full", full)
    jobs.register("broken", broken)
    jobs.register("fine", lambda _c: None)
    jobs.start()
    failed, broke, fine = (jobs.submit(kind, kind) for kind in ("full", "broken", "fine"))
    assert jobs.wait(fine.id, 10).state == "done"
    assert json.loads(jobs.job(failed.id).error)["code"] == "disk_full"
    assert "boom" in jobs.job(broke.id).error


def test_a_full_disk_does_not_end_the_queue(jobs, database, monkeypatch):
    """How a job ended is written once there is room; later jobs run."""
    monkeypatch.setattr("chatbot.jobs._AGAIN_SECONDS", 0.01)
    refused = threading.Event()
    execute = database.execute

    def full(sql, values=()):
        if "failed" in values and not refused.is_set():
            refused.set()
            raise DiskFullError("0 MB")
        return execute(sql, values)

    def no_room(_context):
        raise DiskFullError("3 MB")

    monkeypatch.setattr(database, "execute", full)
    jobs.register("no_room", no_room)
    jobs.register("fine", lambda _c: None)
    jobs.start()
    failed, fine = jobs.submit("no_room", "a"), jobs.submit("fine", "b")
    assert jobs.wait(fine.id, 10).state == "done"
    assert refused.is_set()
    assert jobs.job(failed.id).state == "failed"


def test_a_job_cut_by_a_restart_is_taken_up_again(database, paths):
    started, runs = threading.Event(), []

    def work(context):
        runs.append(context.job.id)
        started.set()
        while len(runs) == 1:
            context.report(None)

    first = Jobs(database)
    first.register("work", work)
    first.start()
    job = first.submit("work", "lâu")
    assert started.wait(10)
    first.close()
    database.close()

    again = Jobs(Database(paths.database))
    again.register("work", work)
    again.start()
    assert again.wait(job.id, 10).state == "done"
    assert runs == [job.id, job.id]
    again.close()


@pytest.mark.parametrize(("ask", "state"), [(Jobs.pause, "paused"), (Jobs.cancel, "cancelled")])
def test_what_was_paused_or_cancelled_just_before_the_end_stays_so(database, ask, state):
    started, closing = threading.Event(), threading.Event()

    def work(context):
        started.set()
        assert closing.wait(10)
        context.report(None)

    first = Jobs(database)
    first.register("work", work)
    first.start()
    job = first.submit("work", "lâu")
    assert started.wait(10)
    ask(first, job.id)
    ending = threading.Thread(target=first.close)
    ending.start()
    while not first._closing:
        pass
    closing.set()
    ending.join(10)
    assert first.job(job.id).state == state


def test_an_unknown_job_is_named(jobs):
    with pytest.raises(NotFoundError):
        jobs.job("nowhere")


def test_a_queue_that_cannot_be_read_for_a_moment_is_read_again(jobs, database, monkeypatch):
    rows, failed = database.rows, threading.Event()

    def failing_once(sql, values=()):
        if "'waiting' ORDER BY" in sql and not failed.is_set():
            failed.set()
            raise DiskFullError
        return rows(sql, values)

    monkeypatch.setattr(database, "rows", failing_once)
    jobs.register("work", lambda _context: "")
    jobs.start()
    job = jobs.submit("work", "Việc", {})
    assert failed.wait(10)
    assert jobs.wait(job.id, 10).state == "done"


def test_lanes_do_not_wait_for_each_other(jobs):
    began, free = threading.Event(), threading.Event()

    def long(context):
        began.set()
        while not free.is_set():
            context.report(None)

    jobs.register("long", long, lane="models")
    jobs.register("short", lambda _c: "xong")
    jobs.start()
    first = jobs.submit("long", "lâu")
    assert began.wait(10)
    second = jobs.submit("short", "nhanh")
    assert jobs.wait(second.id, 10).state == "done"
    assert jobs.job(first.id).state == "running"
    free.set()
    assert jobs.wait(first.id, 10).state == "done"


def test_steps_done_stay_done_when_a_job_is_paused_failed_and_begun_again(jobs, monkeypatch):
    monkeypatch.setattr("chatbot.jobs._PROGRESS_SECONDS", 0.0)
    done, trouble, reached = [], [ModelError("no", name="m")], threading.Event()

    def work(context):
        for number, step in enumerate(context.steps):
            if step.state == "done":
                continue
            with context.step(number) as report:
                report(0.5, "Checking {name}", name=step.name)
                if step.name == "second" and trouble:
                    raise trouble.pop()
                while step.name == "third" and not reached.is_set():
                    reached.set()
                    while True:
                        report(0.5)
                report.made(f"model-{step.name}")
                done.append(step.name)

    jobs.register("chain", work)
    jobs.start()
    steps = [JobStep("first", weight=2), JobStep("second"), JobStep("third")]
    job = jobs.wait(jobs.submit("chain", "ba bước", {}, steps).id, 10)
    assert job.state == "failed"
    assert [step.state for step in job.steps] == ["done", "failed", "waiting"]
    assert job.steps[0].model == "model-first"
    assert job.progress == pytest.approx((2 + 0.5) / 4)
    assert json.loads(job.log.splitlines()[0])[1:] == [
        "first",
        "Checking {name}",
        {"name": "first"},
    ]

    jobs.again(job.id)
    assert reached.wait(10)
    jobs.pause(job.id)
    paused = jobs.wait(job.id, 10)
    assert (paused.state, paused.steps[2].state) == ("paused", "waiting")

    jobs.again(job.id)
    ended = jobs.wait(job.id, 10)
    assert (ended.state, ended.error, done) == ("done", None, ["first", "second", "third"])
    jobs.remove(job.id)
    assert jobs.list() == []
