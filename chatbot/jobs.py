"""Long work that outlives a page: a queue in SQLite, worked through by one thread.

A job is a kind and its parameters; the function registered for the kind does the work, mostly by
talking to a child process at the lowest priority. Jobs that were waiting or running when Hearth ended
start again, so their functions must be able to go on from what is already stored.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from chatbot.database import Database
from chatbot.errors import Cancelled, ChatbotError, NotFoundError
from chatbot.i18n import N_
from chatbot.types import Job

log = logging.getLogger(__name__)

_KEPT = 200
_PROGRESS_SECONDS = 0.3
_AGAIN_SECONDS = 2.0


class JobContext:
    """What a running job may do: report, and see whether it was cancelled."""

    def __init__(self, jobs: Jobs, job: Job) -> None:
        self.job = job
        self._jobs = jobs
        self._cancelled = threading.Event()
        self._reported_at = 0.0

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

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


Work = Callable[[JobContext], str | None]
"""Does one job; returns a closing message for the person, or None."""


class Jobs:
    """The queue: `register` kinds, `start`, then `submit`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kinds: dict[str, Work] = {}
        self._running: JobContext | None = None
        self._wake = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def register(self, kind: str, work: Work) -> None:
        self._kinds[kind] = work

    def start(self) -> None:
        """Take up what was left unfinished, then wait for more."""
        self._database.execute(
            "UPDATE jobs SET state = 'waiting', progress = NULL WHERE state = 'running'"
        )
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._thread.start()

    def submit(self, kind: str, title: str, params: dict[str, Any] | None = None) -> Job:
        """Queue a piece of work."""
        if kind not in self._kinds:
            raise KeyError(kind)
        now = time.time()
        job_id = uuid.uuid4().hex
        self._database.execute(
            "INSERT INTO jobs (id, kind, state, title, params, created_at, updated_at)"
            " VALUES (?, ?, 'waiting', ?, ?, ?, ?)",
            (job_id, kind, title, json.dumps(params or {}, ensure_ascii=False), now, now),
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
        """Ask a job to end; a waiting one never starts."""
        with self._wake:
            if self._running and self._running.job.id == job_id:
                self._running.cancel()
                return
        changed = self._database.execute(
            "UPDATE jobs SET state = 'cancelled', updated_at = ? WHERE id = ? AND state = 'waiting'",
            (time.time(), job_id),
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
        """End the running job; it starts again with the next Hearth."""
        with self._wake:
            self._closing = True
            if self._running:
                self._running.cancel()
            self._wake.notify_all()
        if self._thread:
            self._thread.join(10)

    def _work(self) -> None:
        while True:
            with self._wake:
                try:
                    job = None if self._closing else self._next()
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
                context = self._running = JobContext(self, job)
            self._end(job.id, **self._outcome(job, context))
            with self._wake:
                self._running = None
                self._wake.notify_all()

    def _outcome(self, job: Job, context: JobContext) -> dict[str, Any]:
        """Do the job; what its row says from then on."""
        try:
            self.update(job.id, state="running", progress=None)
            message = self._kinds[job.kind](context)
        except Cancelled:
            # Closing Hearth is not the person's cancel: the job is taken up again next time.
            return {"state": "waiting" if self._closing else "cancelled", "progress": None}
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
                    "DELETE FROM jobs WHERE state NOT IN ('waiting', 'running') AND id NOT IN"
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

    def _next(self) -> Job | None:
        for row in self._database.rows(
            "SELECT * FROM jobs WHERE state = 'waiting' ORDER BY created_at, rowid"
        ):
            if row["kind"] in self._kinds:
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
    )


def error_of(job: Job) -> ChatbotError | None:
    """Why the job failed; None when it did not."""
    return ChatbotError.from_json(job.error) if job.error else None
