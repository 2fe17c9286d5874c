"""Long work that outlives a page: queues in SQLite, each worked through by one thread.

A job is a kind and its parameters; the function registered for the kind does the work, mostly by
talking to a child process at the lowest priority. Kinds share a lane or have their own, so that an
hour's work on a model lets a document be read meanwhile. Jobs that were waiting or running when Hearth
ended start again, so their functions must be able to go on from what is already stored.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from chatbot.database import Database
from chatbot.errors import Cancelled, ChatbotError, NotFoundError
from chatbot.i18n import N_
from chatbot.types import Job, JobState, JobStep

log = logging.getLogger(__name__)

_KEPT = 200
_LOG_LINES = 200
_PROGRESS_SECONDS = 0.3
_AGAIN_SECONDS = 2.0


class JobContext:
    """What a running job may do: report, go through its steps, and see whether it was cancelled."""

    def __init__(self, jobs: Jobs, job: Job) -> None:
        self.job = job
        self.asked: JobState | None = None
        """What the person wants it to be instead of running: paused or cancelled."""
        self._jobs = jobs
        self._cancelled = threading.Event()
        self._reported_at = 0.0
        self._steps = list(job.steps)

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    @property
    def steps(self) -> tuple[JobStep, ...]:
        """The steps as they stand; those done before a restart stay done."""
        return tuple(self._steps)

    def cancel(self) -> None:
        self._cancelled.set()

    def report(self, progress: float | None, message: str = "") -> None:
        """Tell how far the work is (0..1). Raises Cancelled when the person pressed cancel."""
        if self.cancelled:
            raise Cancelled
        now = time.monotonic()
        if now - self._reported_at > _PROGRESS_SECONDS:
            self._reported_at = now
            self._jobs.update(self.job.id, progress=progress, message=message)

    def remember(self, **params: Any) -> None:
        """Keep these among the job's parameters, for when it goes on after a pause or a restart."""
        self.job.params.update(params)
        self._jobs.update(self.job.id, params=json.dumps(self.job.params, ensure_ascii=False))

    @contextmanager
    def step(self, number: int) -> Iterator[StepContext]:
        """Do that step: it is running inside the block, done after it, failed when the block raises.

        What ends with Cancelled, paused work too, waits to be done again.
        """
        began = time.monotonic()
        self._say(number, state="running", progress=0.0, message="", values={})
        try:
            if self.cancelled:
                raise Cancelled
            yield StepContext(self, number, began)
        except Cancelled:
            self._say(number, state="waiting", progress=0.0, seconds=time.monotonic() - began)
            raise
        except BaseException:
            self._say(number, state="failed", seconds=time.monotonic() - began)
            raise
        self._say(number, state="done", progress=1.0, seconds=time.monotonic() - began)

    def _say(self, number: int, **values: Any) -> None:
        """Store what is new about a step, with the job's own progress and a line in the log."""
        before = self._steps[number]
        step = self._steps[number] = replace(before, **values)
        row: dict[str, Any] = {
            "steps": _steps_json(self._steps),
            "progress": sum(s.progress * s.weight for s in self._steps)
            / max(sum(s.weight for s in self._steps), 1e-9),
        }
        if step.message and step.message != before.message:
            line = json.dumps([time.time(), step.name, step.message, step.values], default=str)
            log = self._jobs.job(self.job.id).log
            row["log"] = "\n".join([*log.splitlines()[1 - _LOG_LINES :], line])
        self._jobs.update(self.job.id, **row)


class StepContext:
    """One running step: call it to report, as a step of a model does."""

    def __init__(self, job: JobContext, number: int, began: float) -> None:
        self._job = job
        self._number = number
        self._began = began
        self._reported_at = 0.0

    def __call__(self, fraction: float, message: str = "", **values: Any) -> None:
        """How far the step is (0..1) and what it does, a msgid and its values. Raises Cancelled."""
        if self._job.cancelled:
            raise Cancelled
        now, known = time.monotonic(), self._job.steps[self._number]
        if now - self._reported_at < _PROGRESS_SECONDS and message in ("", known.message):
            return
        self._reported_at = now
        self._job._say(
            self._number,
            progress=min(max(fraction, 0.0), 1.0),
            message=message or known.message,
            values=values if message else known.values,
            seconds=now - self._began,
        )

    def say(self, message: str, **values: Any) -> None:
        """A sentence that stays with the step, and in the log."""
        self._job._say(self._number, message=message, values=values)

    def made(self, model: str) -> None:
        """The step made or took in that model: known from now on, also after a restart."""
        self._job._say(self._number, model=model)


Work = Callable[[JobContext], str | None]
"""Does one job; returns a closing message for the person, or None."""


class Jobs:
    """The queues: `register` kinds, `start`, then `submit`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kinds: dict[str, Work] = {}
        self._lanes: dict[str, str] = {}
        self._running: dict[str, JobContext] = {}
        self._wake = threading.Condition()
        self._closing = False
        self._threads: list[threading.Thread] = []

    def register(self, kind: str, work: Work, lane: str = "") -> None:
        """`work` does the jobs of that kind; jobs of one lane are done one after another."""
        self._kinds[kind] = work
        self._lanes[kind] = lane

    def start(self) -> None:
        """Take up what was left unfinished, then wait for more."""
        self._database.execute(
            "UPDATE jobs SET state = 'waiting', progress = NULL WHERE state = 'running'"
        )
        for lane in dict.fromkeys(self._lanes.values()):
            name = f"jobs-{lane}" if lane else "jobs"
            thread = threading.Thread(target=self._work, args=(lane,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def submit(
        self,
        kind: str,
        title: str,
        params: dict[str, Any] | None = None,
        steps: Sequence[JobStep] = (),
    ) -> Job:
        """Queue a piece of work."""
        if kind not in self._kinds:
            raise KeyError(kind)
        now = time.time()
        job_id = uuid.uuid4().hex
        self._database.execute(
            "INSERT INTO jobs (id, kind, state, title, params, steps, created_at, updated_at)"
            " VALUES (?, ?, 'waiting', ?, ?, ?, ?, ?)",
            (
                job_id,
                kind,
                title,
                json.dumps(params or {}, ensure_ascii=False),
                _steps_json(steps),
                now,
                now,
            ),
        )
        with self._wake:
            self._wake.notify_all()
        return self.job(job_id)

    def job(self, job_id: str) -> Job:
        """That job. Raises NotFoundError."""
        row = self._database.row("SELECT * FROM jobs WHERE id = ?", (job_id,))
        if row is None:
            raise NotFoundError(N_("this job"))
        return _job(row)

    def list(self, *, active: bool = False, kind: str | None = None) -> list[Job]:
        """Jobs, the latest first; `active` only those waiting or running."""
        rows = self._database.rows("SELECT * FROM jobs ORDER BY created_at DESC, rowid DESC")
        jobs = [_job(row) for row in rows]
        return [
            job
            for job in jobs
            if (not active or job.state in ("waiting", "running")) and kind in (None, job.kind)
        ]

    def cancel(self, job_id: str) -> None:
        """Ask a job to end; a waiting or paused one never starts."""
        self._stop(job_id, "cancelled")

    def pause(self, job_id: str) -> None:
        """Ask a job to end for now; `again` goes on with it."""
        self._stop(job_id, "paused")

    def again(self, job_id: str) -> None:
        """Queue a paused, failed or cancelled job once more; its finished steps stay done."""
        self._database.execute(
            "UPDATE jobs SET state = 'waiting', progress = NULL, error = NULL, updated_at = ?"
            " WHERE id = ? AND state IN ('paused', 'failed', 'cancelled')",
            (time.time(), job_id),
        )
        with self._wake:
            self._wake.notify_all()

    def remove(self, job_id: str) -> None:
        """Take a job that has ended off the list."""
        self._database.execute(
            "DELETE FROM jobs WHERE id = ? AND state IN ('done', 'failed', 'cancelled')", (job_id,)
        )

    def _stop(self, job_id: str, state: JobState) -> None:
        with self._wake:
            for running in self._running.values():
                if running.job.id == job_id:
                    running.asked = state
                    running.cancel()
                    return
        changed = self._database.execute(
            "UPDATE jobs SET state = ?, updated_at = ? WHERE id = ? AND state IN ('waiting', 'paused')",
            (state, time.time(), job_id),
        )
        if not changed:
            self.job(job_id)

    def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """The job once it has ended, or as it is after `timeout` seconds or when Hearth closes."""
        with self._wake:
            self._wake.wait_for(
                lambda: self._closing or self.job(job_id).state not in ("waiting", "running"),
                timeout,
            )
        return self.job(job_id)

    def update(self, job_id: str, **values: Any) -> None:
        columns = ", ".join(f"{name} = ?" for name in values)
        self._database.execute(
            f"UPDATE jobs SET {columns}, updated_at = ? WHERE id = ?",
            (*values.values(), time.time(), job_id),
        )

    def close(self) -> None:
        """End the running jobs; they start again with the next Hearth."""
        with self._wake:
            self._closing = True
            for running in self._running.values():
                running.cancel()
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(10)

    def _work(self, lane: str) -> None:
        while True:
            with self._wake:
                try:
                    job = None if self._closing else self._next(lane)
                except (
                    ChatbotError
                ) as error:  # a full disk or a locked file passes; the queue stays
                    log.warning("the waiting jobs cannot be read yet: %s", error.code)
                    self._wake.wait(_AGAIN_SECONDS)
                    continue
                if job is None:
                    if self._closing:
                        return
                    self._wake.wait()
                    continue
                context = self._running[lane] = JobContext(self, job)
            self._end(job.id, **self._outcome(job, context))
            with self._wake:
                del self._running[lane]
                self._wake.notify_all()

    def _outcome(self, job: Job, context: JobContext) -> dict[str, Any]:
        """Do the job; what its row says from then on."""
        try:
            self.update(job.id, state="running", progress=None)
            message = self._kinds[job.kind](context)
        except Cancelled:
            if context.asked is None and self._closing:  # it is taken up again next time
                return {"state": "waiting", "progress": None}
            return {"state": context.asked or "cancelled"}
        except ChatbotError as error:
            return {"state": "failed", "error": error.to_json()}
        except Exception as error:  # kept in the job's row and the log; the queue goes on
            log.exception("job %s failed", job.kind)
            wrapped = ChatbotError(f"{type(error).__name__}: {error}")
            return {"state": "failed", "error": wrapped.to_json()}
        return {"state": "done", "progress": 1.0, "message": message or ""}

    def _end(self, job_id: str, **values: Any) -> None:
        """Write down how a job ended, on a full disk as soon as there is room: the queue must go on."""
        while True:
            try:
                self.update(job_id, **values)
                self._database.execute(
                    "DELETE FROM jobs WHERE state NOT IN ('waiting', 'running', 'paused') AND id NOT IN"
                    " (SELECT id FROM jobs ORDER BY created_at DESC LIMIT ?)",
                    (_KEPT,),
                )
            except ChatbotError as error:
                log.warning("how a job ended cannot be stored yet: %s", error.code)
            else:
                return
            with self._wake:
                if self._wake.wait_for(lambda: self._closing, _AGAIN_SECONDS):
                    return

    def _next(self, lane: str) -> Job | None:
        for row in self._database.rows(
            "SELECT * FROM jobs WHERE state = 'waiting' ORDER BY created_at, rowid"
        ):
            if self._lanes.get(row["kind"]) == lane:
                return _job(row)
        return None


def _job(row: Any) -> Job:
    return Job(
        id=row["id"],
        kind=row["kind"],
        state=row["state"],
        title=row["title"],
        progress=row["progress"],
        message=row["message"],
        error=row["error"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        params=json.loads(row["params"]),
        steps=tuple(JobStep(**step) for step in json.loads(row["steps"])),
        log=row["log"],
    )


def _steps_json(steps: Sequence[JobStep]) -> str:
    return json.dumps([asdict(step) for step in steps], ensure_ascii=False, default=str)


def error_of(job: Job) -> ChatbotError | None:
    """Why the job failed; None when it did not."""
    return ChatbotError.from_json(job.error) if job.error else None
