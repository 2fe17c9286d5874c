"""Helper processes: start one, talk to it over its pipes, notice when it dies or hangs.

The owner (the Streamlit process) stays light and safe by running native or untrusted code in
children started as `python -m chatbot.<module>`. Parent side: `Child`. Child side: `serve`.

A frame is two little-endian lengths, a JSON object and a blob:

    u32 json_length | u32 blob_length | json | blob

    parent → child   {"id": 7, "method": "embed", "params": {...}} · {"cancel": 7}
    child → parent   {"id": 7, "event": {...}} · {"id": 7, "result": {...}} · {"id": 7, "error": {...}}
                     {"beat": true} every second, also while native code works

A child ends when its parent does: its stdin closes, and on Linux PDEATHSIG ends it at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from chatbot.errors import Cancelled, ChatbotError, ChildDied, ChildHung, ChildTimeout
from chatbot.settings import PROJECT

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
WORDS_KEPT, WORDS_LENGTH = 40, 400
"""Lines of a child's stderr, and bytes of each, that are kept for telling why it ended."""
WORDS_SECONDS = 0.5
# Ctrl+C in the terminal is for the owner, who ends its children in order.
_NEW_GROUP_ON_WINDOWS = 0x00000200  # CREATE_NEW_PROCESS_GROUP, which subprocess names only there
_OWN_GROUP: dict[str, Any] = (
    {"creationflags": _NEW_GROUP_ON_WINDOWS} if os.name == "nt" else {"process_group": 0}
)
Params = dict[str, Any]
Event = dict[str, Any]

# PDEATHSIG fires when the *thread* that forked ends, so every child is forked by one thread that
# lives as long as the process (Streamlit's script threads come and go).
_spawner = ThreadPoolExecutor(1, thread_name_prefix="spawner")


class Child:
    """One helper process that answers calls; safe to use from many threads.

    It starts with the first call and starts again after it died. `lowest_priority` keeps long work
    from making an answer stutter. `hung_after` seconds without a sign of life end it. With
    `keep_words` its last words on stderr can be asked for after its end.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        name: str | None = None,
        environment: dict[str, str] | None = None,
        lowest_priority: bool = False,
        hung_after: float = 6.0,
        start_within: float = 60.0,
        keep_words: bool = False,
    ) -> None:
        self._words: deque[tuple[float, bytes]] | None = (
            deque(maxlen=WORDS_KEPT) if keep_words else None
        )
        self._hearing: threading.Thread | None = None
        self.name = name or module.rpartition(".")[2]
        self._command = [sys.executable, "-m", module, *arguments]
        self._environment = environment or {}
        self._lowest_priority = lowest_priority
        self._hung_after = hung_after
        self._start_within = start_within
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._outbox: queue.SimpleQueue[tuple[Event, bytes] | None] = queue.SimpleQueue()
        self._calls: dict[int, queue.SimpleQueue[tuple[Event, bytes]]] = {}
        self._next_id = 0
        self._last_sign = 0.0
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        process = self._process
        return process.pid if process and process.poll() is None else None

    def call(
        self, method: str, params: Params | None = None, blob: bytes = b"", timeout: float = 600
    ) -> tuple[Event, bytes]:
        """The result of one method; events on the way are dropped. Raises the child's own error."""
        *_, last = self.stream(method, params, blob, timeout)
        return last

    def stream(
        self,
        method: str,
        params: Params | None = None,
        blob: bytes = b"",
        timeout: float | None = None,
        *,
        ticks: bool = False,
    ) -> Generator[tuple[Event, bytes], None, None]:
        """Events as they come and the result last. Closing the iterator cancels the call.

        `ticks` also yields an event {"tick": true} twice a second of silence, so that a caller who
        no longer wants the answer can look up and leave.

        Raises ChildDied, ChildHung, ChildTimeout, or whatever ChatbotError the child raised.
        """
        with self._lock:
            process = self._started()
            self._next_id += 1
            number = self._next_id
            inbox: queue.SimpleQueue[tuple[Event, bytes]] = queue.SimpleQueue()
            self._calls[number] = inbox
            outbox = self._outbox
            outbox.put(({"id": number, "method": method, "params": params or {}}, blob))
        deadline = time.monotonic() + timeout if timeout else None
        finished = False
        try:
            while True:
                try:
                    frame, data = inbox.get(timeout=0.5)
                except queue.Empty:
                    self._check_alive(process)
                    if deadline and time.monotonic() > deadline:
                        self._kill(process)
                        raise ChildTimeout(name=self.name, seconds=round(timeout or 0)) from None
                    if ticks:
                        yield {"tick": True}, b""
                    continue
                if "error" in frame:
                    finished = True
                    raise ChatbotError.from_dict(frame["error"])
                if "result" in frame:
                    finished = True
                    yield frame["result"], data
                    return
                yield frame["event"], data
        finally:
            self._calls.pop(number, None)
            if not finished:
                outbox.put(({"cancel": number}, b""))

    def close(self, grace: float = 2.0) -> None:
        """End the process: politely first, by force after `grace` seconds."""
        with self._lock:
            self._closed = True
            process, self._process = self._process, None
        if process is None:
            return
        self._outbox.put(None)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            self._kill(process)

    def last_words(self, since: float = 0.0) -> str:
        """The last lines that the process wrote to stderr, from that moment (`time.monotonic`) on.

        Of a process that ended every one is heard first.
        """
        if self._hearing and self.pid is None:
            self._hearing.join(WORDS_SECONDS)  # a grandchild may hold the pipe open
        lines = [line for at, line in list(self._words or ()) if at >= since]
        return b"".join(lines).decode("utf-8", "replace")

    def restart(self) -> None:
        """End the process now; the next call starts a fresh one."""
        process = self._process
        if process is not None:
            self._kill(process)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise ChildDied("closed", name=self.name)
        process = self._process
        if process and process.poll() is None:
            return process
        try:
            process = _spawner.submit(self._spawn).result()
        except OSError as error:  # no memory or no process left to give
            raise ChildDied(error.strerror or str(error), name=self.name) from error
        self._process = process
        self._outbox.put(None)  # ends the writer of the process before
        self._outbox = queue.SimpleQueue()
        # The first sign of life may take as long as its imports.
        self._last_sign = time.monotonic() + self._start_within
        for work in (
            threading.Thread(target=self._listen, args=(process,), daemon=True),
            threading.Thread(target=self._write, args=(process, self._outbox), daemon=True),
        ):
            work.start()
        if self._words is not None:
            self._words.clear()
            self._hearing = threading.Thread(
                target=self._overhear, args=(process, self._words), daemon=True
            )
            self._hearing.start()
        return process

    def _spawn(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **self._environment, "PYTHONUTF8": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(
            p for p in (str(PROJECT), os.environ.get("PYTHONPATH", "")) if p
        )
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if self._words is None else subprocess.PIPE,
            env=environment,
            cwd=PROJECT,
            **_OWN_GROUP,
        )
        if self._lowest_priority:
            lower_priority(process.pid)
        return process

    def _write(
        self,
        process: subprocess.Popen[bytes],
        outbox: queue.SimpleQueue[tuple[Event, bytes] | None],
    ) -> None:
        # A thread of its own: a stopped child leaves the pipe full, and no caller may wait on that.
        pipe = _pipe(process.stdin)
        with contextlib.suppress(OSError):
            while frame := outbox.get():
                _send(pipe, *frame)
        with contextlib.suppress(OSError):
            pipe.close()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        pipe = _pipe(process.stdout)
        while frame := _receive(pipe):
            self._last_sign = time.monotonic()
            message, blob = frame
            inbox = self._calls.get(message.get("id", 0))
            if inbox is not None:
                inbox.put((message, blob))

    @staticmethod
    def _overhear(process: subprocess.Popen[bytes], words: deque[tuple[float, bytes]]) -> None:
        for line in _pipe(process.stderr):
            words.append((time.monotonic(), line[:WORDS_LENGTH]))
            with contextlib.suppress(OSError):  # an owner without a console
                os.write(2, line)

    def _check_alive(self, process: subprocess.Popen[bytes]) -> None:
        code = process.poll()
        if code is not None:
            raise ChildDied(_ending(code), name=self.name)
        if time.monotonic() - self._last_sign > self._hung_after:
            self._kill(process)
            raise ChildHung(name=self.name)

    @staticmethod
    def _kill(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)


def lower_priority(pid: int) -> None:
    """Give a process the lowest CPU and disk priority, where the system lets us."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        process.nice(psutil.IDLE_PRIORITY_CLASS if os.name == "nt" else 19)
        if sys.platform == "linux":
            process.ionice(psutil.IOPRIO_CLASS_IDLE)
        elif sys.platform == "win32":
            process.ionice(psutil.IOPRIO_VERYLOW)


# --- the child's side -----------------------------------------------------------------------


class Request:
    """One call as the child sees it: parameters in, events out, and whether it was cancelled."""

    def __init__(self, number: int, params: Params, blob: bytes, send: Callable[..., None]) -> None:
        self.params = params
        self.blob = blob
        self._number = number
        self._send = send
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        self._cancelled.set()

    def check(self) -> None:
        """Raise Cancelled when nobody waits for the result any more."""
        if self.cancelled:
            raise Cancelled

    def event(self, event: Event, blob: bytes = b"") -> None:
        """Tell the parent something before the result is ready."""
        self._send({"id": self._number, "event": event}, blob)


Handler = Callable[[Request], Event | tuple[Event, bytes]]
AtRest = tuple[float, Callable[[], None]]
"""What to do after so many seconds without a call."""


def serve(
    handlers: dict[str, Handler],
    beside: Collection[str] = (),
    at_rest: AtRest | None = None,
) -> None:
    """Answer calls, one at a time, until the parent goes away. Never returns.

    A handler gets a Request and returns a JSON-able dict, or that and a blob; a ChatbotError it raises
    travels to the caller, any other exception travels as its type and message. Methods named in
    `beside` do not wait for the others: each call runs at once, in a thread of its own. `at_rest` runs
    once each time that no call came for so long.
    """
    _die_with_parent()
    pipe_out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not mix with frames
    pipe_in = os.fdopen(os.dup(0), "rb")
    writing = threading.Lock()
    waiting: queue.SimpleQueue[tuple[str, Request, int]] = queue.SimpleQueue()
    current: dict[int, Request] = {}

    def send(message: Event, blob: bytes = b"") -> None:
        with writing:
            try:
                _send(pipe_out, message, blob)
            except OSError:
                os._exit(0)  # the parent is gone

    def listen() -> None:
        while frame := _receive(pipe_in):
            message, blob = frame
            if "cancel" in message:
                if request := current.get(message["cancel"]):
                    request.cancel()
                continue
            number = message["id"]
            request = Request(number, message["params"], blob, send)
            current[number] = request
            if message["method"] in beside:
                work = (message["method"], request, number)
                threading.Thread(target=answer, args=work, daemon=True).start()
            else:
                waiting.put((message["method"], request, number))

    def answer(method: str, request: Request, number: int) -> None:
        reply, blob = _answer(handlers[method], request)
        current.pop(number, None)
        send({"id": number, **reply}, blob)

    def beat() -> None:
        while True:
            send({"beat": True})
            time.sleep(BEAT_SECONDS)

    threading.Thread(target=_then_exit, args=(listen,), daemon=True).start()
    threading.Thread(target=beat, daemon=True).start()
    while True:
        answer(*_next(waiting, at_rest))


_Work = tuple[str, Request, int]


def _next(waiting: queue.SimpleQueue[_Work], at_rest: AtRest | None) -> _Work:
    if at_rest is None:
        return waiting.get()
    seconds, work = at_rest
    try:
        return waiting.get(timeout=seconds)
    except queue.Empty:
        pass
    try:
        work()
    except Exception:  # nobody waits for it; the next call finds the process as it was
        log.exception("work at rest failed")
    return waiting.get()


def _then_exit(listen: Callable[[], None]) -> None:
    # Whatever ends the listening ends the process: one that beats but no longer hears is waited for in vain.
    try:
        listen()
    except BaseException:
        log.exception("the helper process can no longer listen")
        os._exit(1)
    os._exit(0)


def _answer(handler: Handler, request: Request) -> tuple[Event, bytes]:
    try:
        request.check()
        outcome = handler(request)
    except ChatbotError as error:
        return {"error": error.to_dict()}, b""
    except Exception as error:  # the caller must hear of every failure; the log keeps the trace
        log.exception("a call failed")
        return {"error": ChatbotError(f"{type(error).__name__}: {error}").to_dict()}, b""
    result, blob = outcome if isinstance(outcome, tuple) else (outcome, b"")
    return {"result": result}, blob


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the owner, who tells us


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def _send(pipe: IO[bytes], message: Event, blob: bytes = b"") -> None:
    text = json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass")
    pipe.write(struct.pack("<II", len(text), len(blob)) + text + blob)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> tuple[Event, bytes] | None:
    try:
        head = pipe.read(8)
        if len(head) < 8:
            return None
        text_length, blob_length = struct.unpack("<II", head)
        text, blob = pipe.read(text_length), pipe.read(blob_length)
    except (OSError, ValueError):
        return None
    if len(text) < text_length or len(blob) < blob_length:
        return None
    return json.loads(text.decode("utf-8", "surrogatepass")), blob
