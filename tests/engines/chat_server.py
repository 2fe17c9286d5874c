"""A small real HTTP server that speaks OpenAI's chat protocol, as a model that recites would."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ChatServer:
    """Recites `recited`, or goes round `endless` when much is asked for.

    The user's last message may hold orders: [refuse], [drop], [garbage], [silent], [no usage].
    """

    def __init__(self, recited: str, endless: str) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.hung_up = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(body)
                outer.headers.append(dict(self.headers))
                order = body["messages"][-1]["content"]
                if self.path != "/v1/chat/completions":
                    return self.refuse(404, "no such page")
                if "[refuse]" in order:
                    return self.refuse(401, "Incorrect API key provided")
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                try:
                    self.speak(body, order)
                except (BrokenPipeError, ConnectionResetError):
                    outer.hung_up.set()
                    self.close_connection = True

            def refuse(self, code: int, said: str) -> None:
                data = json.dumps({"error": {"message": said}}).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def speak(self, body: dict[str, Any], order: str) -> None:
                if "[silent]" in order:
                    while True:  # comments keep a stream open; they also tell us who has left
                        self.write(b": still thinking\n\n")
                        time.sleep(0.02)
                written = 0
                finish = "stop"
                for piece in outer.pieces(body, recited, endless):
                    if written == body["max_tokens"]:
                        finish = "length"
                        break
                    written += 1
                    self.event({"choices": [{"index": 0, "delta": {"content": piece}}]})
                    if "[drop]" in order and written == 3:
                        self.close_connection = True
                        self.connection.close()
                        return
                    if "[garbage]" in order:
                        self.write(b"data: {not json\n\n")
                self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
                if "[no usage]" not in order:
                    prompt = sum(len(m["content"].split()) for m in body["messages"])
                    usage = {"prompt_tokens": prompt, "completion_tokens": written}
                    self.event({"choices": [], "usage": usage})
                self.write(b"data: [DONE]\n\n")
                self.wfile.write(b"0\r\n\r\n")

            def event(self, data: dict[str, Any]) -> None:
                self.write(f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode())

            def write(self, data: bytes) -> None:
                # In pieces of five bytes: characters are torn between network packets.
                for at in range(0, len(data), 5):
                    part = data[at : at + 5]
                    self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                    self.wfile.flush()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @staticmethod
    def pieces(body: dict[str, Any], recited: str, endless: str) -> Iterator[str]:
        if body["temperature"] > 1:
            choose = random.Random(body.get("seed"))
            for _ in range(20):
                yield choose.choice(endless.split(" "))
        elif body["max_tokens"] > 1000:
            while True:
                yield endless
                time.sleep(0.001)
        else:
            yield from recited

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
