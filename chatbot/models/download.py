"""Fetch a repository's files at one commit, so that nothing which ends it early loses much.

Bytes go straight into their file. Every STEP of them is synced to the disk, and only then a line in the
journal beside the folder says how far the file is good; a line that a power cut takes costs bytes, never
their truth. A later attempt cuts the file there, hashes what it has and asks for the rest. Nothing is
believed before its hash is the one that the hub lists for that commit.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from chatbot.errors import BrokenModel, ModelError
from chatbot.i18n import N_
from chatbot.models.files import BLOCK, Report, StoredFile, check_room
from chatbot.models.hub import PORTAL, SILENT_SECONDS, Hub, RemoteFile, is_page
from chatbot.models.journal import Journal, journal_of
from chatbot.models.names import is_safe
from chatbot.models.outside import Endpoint
from chatbot.settings import sync

STEP = 4_000_000
"""Bytes between two lines of the journal: with what a connection holds on its way (10 MB here), less than 16 MB."""
TRIES = 8
"""Attempts in a row that brought nothing; one that brought something starts the count anew."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
REPORT_SECONDS = 0.25
RATE_SECONDS = 5.0

_PASSING = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


def download(
    report: Report,
    *,
    target: Path,
    repo: str,
    revision: str,
    files: Sequence[dict[str, Any]],
    endpoint: str,
    tries: int = TRIES,
    first_wait: float = FIRST_WAIT,
    silent_seconds: float = SILENT_SECONDS,
) -> dict[str, Any]:
    """Fetch these files of a commit into `target`, going on from what an earlier attempt left there.

    Returns {files, figures}. Raises HubError, GatedModel, BrokenModel for content that is not what the hub
    lists, DiskFullError and Cancelled; what arrived is then kept.
    """
    wanted = [RemoteFile(**file) for file in files]
    for file in wanted:
        if not is_safe(file.path):
            raise ModelError(N_("one of its files has a name that cannot be kept."), name=repo)
    target.mkdir(parents=True, exist_ok=True)
    journal = Journal(journal_of(target))
    journal.begin({"repo": repo, "revision": revision, "endpoint": endpoint, "files": list(files)})
    left = sum(file.size - min(journal.good(file.path), file.size) for file in wanted)
    check_room(target, left)
    with Hub(Endpoint(endpoint), silent_seconds) as hub:
        work = _Download(report, hub, target, journal, repo, revision, wanted, tries, first_wait)
        stored = [work.fetch(file) for file in wanted]
    return {"files": [asdict(file) for file in stored], "figures": work.figures()}


class _PassingError(Exception):
    """An attempt that failed in a way that another one may not; `wait` is what the server asks for."""

    def __init__(self, detail: str, part: str = "", wait: float = 0.0) -> None:
        super().__init__(detail)
        self.detail, self.part, self.wait = detail, part, wait


class _Meter:
    """Bytes a second over the last seconds, and how long the rest takes."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._seen: deque[tuple[float, int]] = deque()
        self._arrived = 0
        self.done = 0

    def arrived(self, size: int) -> None:
        self.done += size
        self._arrived += size
        now = time.monotonic()
        if not self._seen or now - self._seen[-1][0] > 0.1:
            self._seen.append((now, self._arrived))
        while self._seen and now - self._seen[0][0] > RATE_SECONDS:
            self._seen.popleft()

    @property
    def rate(self) -> float:
        if not self._seen:
            return 0.0
        then, arrived = self._seen[0]
        return max(self._arrived - arrived, 0) / max(time.monotonic() - then, 0.5)

    @property
    def fraction(self) -> float:
        return min(self.done / max(self._total, 1), 1.0)

    def values(self, file: str) -> dict[str, Any]:
        """What a message tells: GB, MB/s, and the time left as h:mm:ss."""
        left = (self._total - self.done) / self.rate if self.rate > 1 else 0
        shown = (
            f"{int(left // 3600)}:{int(left % 3600 // 60):02}:{int(left % 60):02}" if left else "–"
        )
        return {
            "file": file,
            "done": self.done / 1e9,
            "total": self._total / 1e9,
            "rate": self.rate / 1e6,
            "left": shown,
        }


class _Download:
    """One run over the files of a repository."""

    def __init__(
        self,
        report: Report,
        hub: Hub,
        target: Path,
        journal: Journal,
        repo: str,
        revision: str,
        files: Sequence[RemoteFile],
        tries: int,
        first_wait: float,
    ) -> None:
        import httpx

        self._transport_error: Any = (httpx.HTTPError, httpx.InvalidURL)
        self._report = report
        self._hub = hub
        self._target = target
        self._journal = journal
        self._repo = repo
        self._revision = revision
        self._tries = tries
        self._first_wait = first_wait
        self._meter = _Meter(sum(file.size for file in files))
        self._reported_at = 0.0
        self._began = time.monotonic()
        self._fetched = self._resumed = self._retried = 0

    def figures(self) -> dict[str, Any]:
        """Bytes fetched now, found from before, attempts that failed, seconds."""
        return {
            "fetched": self._fetched,
            "resumed": self._resumed,
            "failed_attempts": self._retried,
            "seconds": round(time.monotonic() - self._began, 3),
        }

    def fetch(self, file: RemoteFile) -> StoredFile:
        """The file on the disk, its hash the one the hub lists. Raises BrokenModel when it comes wrong twice."""
        path = self._target / _kept_as(file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            before = self._meter.done
            found = self._complete(file, path)
            if found:
                return found
            self._meter.done = before
            self._begin_anew(file, path)
        raise BrokenModel(
            N_("{part} arrives with other content than the hub lists for it."),
            name=self._repo,
            part=file.path,
        )

    def _complete(self, file: RemoteFile, path: Path) -> StoredFile | None:
        """Fetch what is missing of a file; None when its content is not what the hub lists."""
        content = _Content(file)
        with path.open("r+b" if path.exists() else "w+b") as opened:
            good = min(self._journal.good(file.path), file.size, path.stat().st_size)
            opened.truncate(good)
            self._read_again(file, opened, good, content)
            self._fill(file, opened, content)
            opened.flush()
            os.fsync(opened.fileno())
        if not content.is_right():
            return None
        self._journal.note(file.path, file.size, self._journal.etag(file.path))
        sync(path.parent)
        return StoredFile(
            _kept_as(file.path), file.size, content.sha256.hexdigest(), path.stat().st_mtime_ns
        )

    def _read_again(
        self, file: RemoteFile, opened: IO[bytes], size: int, content: _Content
    ) -> None:
        """Hash what an earlier attempt brought."""
        while opened.tell() < size and (block := opened.read(min(BLOCK, size - opened.tell()))):
            content.take(block)
            self._meter.done += len(block)
            self._resumed += len(block)
            self._tell(N_("Checking what has arrived: {file}"), file)

    def _fill(self, file: RemoteFile, opened: IO[bytes], content: _Content) -> None:
        """Ask for the rest until it is there. Raises HubError when nothing comes any more."""
        empty_handed = 0
        while content.size < file.size:
            before = self._fetched
            try:
                self._ask(file, opened, content)
                continue
            except _PassingError as error:
                failure = error
            except self._transport_error as error:
                failure = _PassingError(N_("the connection broke ({part})."), type(error).__name__)
            self._retried += 1
            empty_handed = 1 if self._fetched > before else empty_handed + 1
            if empty_handed >= self._tries:
                raise self._hub.endpoint.refused(failure.detail, failure.part, self._repo)
            self._wait(file, max(failure.wait, self._first_wait * 2 ** (empty_handed - 1)))

    def _ask(self, file: RemoteFile, opened: IO[bytes], content: _Content) -> None:
        """One request for the rest of a file, written as it comes."""
        at, tag = content.size, self._journal.etag(file.path)
        headers = {"Range": f"bytes={at}-"} if at else {}
        if at and tag:
            headers["If-Range"] = tag
        with self._hub.stream(self._repo, self._revision, file.path, headers) as answer:
            start = self._start_of(answer, file, at)
            if start is None:
                # Another name for the content: ask without it, and let the hash decide.
                self._journal.note(file.path, self._journal.good(file.path), "")
                raise _PassingError(N_("the file changed on the way."))
            if start == 0 and at:
                self._restart(opened, content)
            tag = _strong(answer.headers.get("ETag", ""))
            try:
                self._write(file, opened, content, answer, tag)
            finally:
                self._save(file, opened, content, tag)

    def _start_of(self, answer: Any, file: RemoteFile, at: int) -> int | None:
        """Where the body begins: at `at`, or at 0. None when the server no longer has the same content.

        Raises _PassingError or HubError for everything that is not this file.
        """
        status = answer.status_code
        if status == 416:
            raise _PassingError(N_("it has less of the file than it lists."))
        if status in _PASSING:
            raise _PassingError(
                N_("it answers with an error of its own ({part})."),
                str(status),
                _asked_wait(answer),
            )
        if status not in (200, 206):
            raise self._hub.refusal(answer, self._repo)
        if is_page(answer) and not file.path.endswith((".html", ".htm")):
            raise _PassingError(PORTAL)
        if status == 206:
            found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if not found or int(found[1]) != at or found[3] not in ("*", str(file.size)):
                raise _PassingError(N_("it sends another part of the file than was asked for."))
            return at
        length = answer.headers.get("Content-Length", "")
        if not answer.headers.get("Content-Encoding") and length not in ("", str(file.size)):
            raise _PassingError(N_("it sends a file of another length than it lists."))
        tag = self._journal.etag(file.path)
        if at and tag and _strong(answer.headers.get("ETag", "")) != tag:
            return None
        return 0

    def _write(
        self, file: RemoteFile, opened: IO[bytes], content: _Content, answer: Any, tag: str
    ) -> None:
        saved = content.size
        for block in answer.iter_bytes():
            kept = block[: file.size - content.size]
            opened.write(kept)
            content.take(kept)
            self._meter.arrived(len(kept))
            self._fetched += len(kept)
            self._tell(
                N_("Downloading {file}: {done} of {total} GB, {rate} MB/s, {left} left"), file
            )
            if content.size - saved >= STEP:
                self._save(file, opened, content, tag)
                saved = content.size
            if len(kept) < len(block):
                break
        if content.size < file.size:
            raise _PassingError(N_("the connection broke ({part})."), "end of data")

    def _save(self, file: RemoteFile, opened: IO[bytes], content: _Content, tag: str) -> None:
        opened.flush()
        os.fsync(opened.fileno())
        self._journal.note(file.path, content.size, tag)

    def _restart(self, opened: IO[bytes], content: _Content) -> None:
        """Take the file from its start, as the server does not give parts."""
        self._meter.done -= content.size
        opened.seek(0)
        opened.truncate()
        content.clear()

    def _begin_anew(self, file: RemoteFile, path: Path) -> None:
        self._journal.note(file.path, 0, "")
        path.unlink(missing_ok=True)

    def _wait(self, file: RemoteFile, seconds: float) -> None:
        until = time.monotonic() + min(seconds, LONGEST_WAIT)
        while (left := until - time.monotonic()) > 0:
            self._tell(N_("The connection broke; trying again: {file}"), file)
            time.sleep(min(left, REPORT_SECONDS))

    def _tell(self, message: str, file: RemoteFile) -> None:
        if time.monotonic() - self._reported_at > REPORT_SECONDS:
            self._reported_at = time.monotonic()
            self._report(self._meter.fraction, message, **self._meter.values(file.path))


class _Content:
    """What a file's bytes hash to, so far."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self.clear()

    def clear(self) -> None:
        self.size = 0
        self.sha256 = hashlib.sha256()
        self._git = hashlib.sha1(f"blob {self._file.size}\0".encode(), usedforsecurity=False)

    def take(self, block: bytes) -> None:
        self.size += len(block)
        self.sha256.update(block)
        if not self._file.sha256:
            self._git.update(block)

    def is_right(self) -> bool:
        """Whether it is the content that the hub lists."""
        if self.size != self._file.size:
            return False
        if self._file.sha256:
            return self.sha256.hexdigest() == self._file.sha256
        return self._git.hexdigest() == self._file.blob


def _kept_as(path: str) -> str:
    """A GGUF lies at the top of its model's folder, whatever folder the repository keeps it in."""
    return path.rpartition("/")[2] if path.lower().endswith(".gguf") else path


def _strong(etag: str) -> str:
    """An ETag that promises the same bytes; '' for a weak one."""
    return etag if etag.startswith('"') and len(etag) < 300 else ""


def _asked_wait(answer: Any) -> float:
    asked = answer.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_WAIT) if asked.isdigit() else 0.0
