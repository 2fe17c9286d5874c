"""A model that speaks slowly: an OpenAI-compatible server on loopback, one word at a time."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class SlowModel:
    """Streams `words` numbered words; each waits for `pace` seconds or until `hurry` is set."""

    def __init__(self, words: int = 60, pace: float = 0.5) -> None:
        self.words, self.pace = words, pace
        self.hurry = threading.Event()
        self.questions: list[str] = []
        self.open_streams = 0
        self._count = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.questions.append(body["messages"][-1]["content"])
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                outer._change(+1)
                try:
                    for number in range(outer.words):
                        outer.hurry.wait(outer.pace)
                        self._event({"choices": [{"delta": {"content": f"từ-{number} "}}]})
                    self._event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
                    self.wfile.write(b"data: [DONE]\n\n")
                except OSError:
                    pass  # the reader pressed stop
                finally:
                    outer._change(-1)

            def _event(self, chunk: dict[str, object]) -> None:
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                self.wfile.flush()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def _change(self, by: int) -> None:
        with self._count:
            self.open_streams += by


@contextmanager
def slow_model(words: int = 60, pace: float = 0.5) -> Iterator[SlowModel]:
    """The server while the block runs."""
    model = SlowModel(words, pace)
    threading.Thread(target=model.server.serve_forever, daemon=True).start()
    yield model
    model.hurry.set()
    model.server.shutdown()
