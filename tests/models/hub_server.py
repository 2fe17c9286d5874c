"""A model hub on this PC for tests: the hub's HTTP API as far as its own client uses it, and its faults.

Large files are redirected to `/cdn/…` as the real one does. Faults are taken from a list, one for each
request for a file's bytes; with an empty list everything goes well.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".gguf", ".bin", ".model", ".pt")
BLOCK = 64 << 10
PORTAL = b"<html><title>Welcome to our Wi-Fi</title><body>Please sign in.</body></html>"


@dataclass
class Repo:
    """One repository; its commits are lists of files, the last one is main."""

    name: str
    commits: list[tuple[str, dict[str, bytes | Path]]] = field(default_factory=list)
    gated: str | bool = False
    private: bool = False
    card: dict[str, Any] = field(default_factory=dict)
    task: str = "text-generation"
    tags: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes | Path]) -> str:
        said = repr((self.name, len(self.commits), sorted(files))).encode()
        self.commits.append((hashlib.sha1(said).hexdigest(), files))
        return self.commits[-1][0]

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    def at(self, revision: str) -> tuple[str, dict[str, bytes | Path]] | None:
        if revision == "main":
            return self.commits[-1] if self.commits else None
        return next((commit for commit in self.commits if commit[0] == revision), None)


@dataclass(frozen=True)
class Seen:
    """A request as the server saw it; `sent` counts the bytes of a file's body."""

    method: str
    path: str
    headers: dict[str, str]
    start: int = 0


Fault = Callable[["_Handler", bytes, str, int], None]
"""Answers a request for bytes in its own way: handler, the whole content, its ETag, where to begin."""


class HubServer:
    """A hub under http://127.0.0.1:PORT; `token` opens gated and private repositories, `strangers` not."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.sent: dict[str, int] = {}
        """Bytes of each file's body that were written to a socket."""
        self.token = "hf_opensGatedRepositories"
        self.stranger = "hf_belongsToSomebodyElse"
        self.rate = 0.0
        """Bytes a second of a body; 0 for as fast as it goes."""
        self.redirect: str | None = None
        """Where requests for files are sent instead."""
        self.lfs: dict[str, bytes] = {}
        self.stopping = threading.Event()
        self._hashes: dict[int, tuple[Any, str, str]] = {}
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def add(self, name: str, files: dict[str, bytes | Path], **about: Any) -> str:
        """A repository with one commit; returns the commit."""
        repo = self.repos[name] = Repo(name, **about)
        return repo.commit(files)

    def hashes(self, content: bytes | Path) -> tuple[str, str]:
        """sha256 and git's blob id."""
        known = self._hashes.get(id(content))
        if not known:
            data = read(content)
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            known = self._hashes[id(content)] = (content, hashlib.sha256(data).hexdigest(), blob)
        return known[1], known[2]

    def close(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients are killed here on purpose


@contextmanager
def serving() -> Iterator[HubServer]:
    """A running hub, closed at the end."""
    server = HubServer()
    try:
        yield server
    finally:
        server.close()


def read(content: bytes | Path) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def do_PUT(self) -> None:
        self._route()

    def _route(self) -> None:
        parts = urlsplit(self.path)
        self.hub.seen.append(
            Seen(self.command, self.path, dict(self.headers.items()), self._start())
        )
        self.query = parse_qs(parts.query)
        for method, pattern, name in _ROUTES:
            match = re.fullmatch(pattern, parts.path)
            if match and self.command in method:
                getattr(self, name)(*map(unquote, match.groups()))
                return
        self.refuse(404, "RepoNotFound", "Repository not found")

    # --- what every answer is made of

    def json(self, value: Any, status: int = 200, **headers: str) -> None:
        self.answer(
            status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers}
        )

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str = "", message: str = "") -> None:
        self.json({"error": message}, status, **{"X-Error-Code": code, "X-Error-Message": message})

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _start(self) -> int:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        return int(found[1]) if found else 0

    def repo(self, name: str, *, content: bool = False) -> Repo | None:
        """The repository, or None after the refusal was sent."""
        repo = self.hub.repos.get(name)
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and given not in (self.hub.token, self.hub.stranger):
            self.refuse(401, "", "Invalid credentials in Authorization header")
            return None
        if repo is None or (repo.private and given != self.hub.token):
            self.refuse(401 if not given else 404, "RepoNotFound", "Repository not found")
            return None
        if content and repo.gated and given != self.hub.token:
            self.refuse(403 if given else 401, "GatedRepo", "Access to this model is restricted.")
            return None
        return repo

    def may_write(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {self.hub.token}":
            return True
        self.body()
        self.refuse(401, "", "Invalid username or password.")
        return False

    # --- reading

    def search(self) -> None:
        words = self.query.get("search", [""])[0].lower()
        limit = int(self.query.get("limit", ["20"])[0])
        found = [r for r in self.hub.repos.values() if words in r.name.lower() and not r.private]
        if "filter" in self.query:
            found = [r for r in found if set(self.query["filter"]) <= set(r.tags)]
        rows = [
            {"_id": r.name, "id": r.name, "modelId": r.name, "downloads": 10, "likes": 2, "gated": r.gated,
             "private": False, "tags": r.tags, "pipeline_tag": r.task,
             "lastModified": "2026-11-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z"}
            for r in found[:limit]
        ]  # fmt: skip
        self.json(rows)

    def info(self, name: str, revision: str = "main") -> None:
        repo = self.repo(name)
        if repo is None:
            return
        commit = repo.at(revision)
        if commit is None:
            self.refuse(404, "RevisionNotFound", "Invalid rev id")
            return
        siblings = []
        for path, content in commit[1].items():
            sha256, blob = self.hub.hashes(content)
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            row: dict[str, Any] = {"rfilename": path}
            if "blobs" in self.query:
                row |= {"size": size, "blobId": blob}
                if path.endswith(LARGE):
                    row["lfs"] = {"sha256": sha256, "size": size, "pointerSize": 134}
            siblings.append(row)
        self.json(
            {"_id": name, "id": repo.name, "sha": commit[0], "private": repo.private, "gated": repo.gated,
             "cardData": repo.card, "tags": repo.tags, "pipeline_tag": repo.task, "siblings": siblings,
             "lastModified": "2026-11-01T00:00:00.000Z", "downloads": 10, "likes": 2}
        )  # fmt: skip

    def tree(self, name: str, revision: str) -> None:
        repo = self.repo(name)
        commit = repo.at(revision) if repo else None
        if commit is None:
            if repo:
                self.refuse(404, "RevisionNotFound", "Invalid rev id")
            return
        self.json([self._row(path, content) for path, content in commit[1].items()])

    def paths_info(self, name: str, revision: str) -> None:
        wanted = json.loads(self.body())["paths"]
        repo = self.repo(name)
        commit = repo.at(revision) if repo else None
        if commit is not None:
            self.json([self._row(p, c) for p, c in commit[1].items() if p in wanted])

    def _row(self, path: str, content: bytes | Path) -> dict[str, Any]:
        sha256, blob = self.hub.hashes(content)
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        row: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": blob}
        if path.endswith(LARGE):
            row["lfs"] = {"oid": sha256, "size": size, "pointerSize": 134}
        return row

    def resolve(self, name: str, revision: str, path: str) -> None:
        repo = self.repo(name, content=True)
        if repo is None:
            return
        if self.hub.redirect and self.command == "GET":
            self.answer(302, b"", {"Location": self.hub.redirect})
            return
        commit = repo.at(revision)
        if commit is None:
            self.refuse(404, "RevisionNotFound", "Invalid rev id")
            return
        if path not in commit[1]:
            self.refuse(404, "EntryNotFound", "Entry not found")
            return
        content = commit[1][path]
        sha256, blob = self.hub.hashes(content)
        headers = {"X-Repo-Commit": commit[0], "Accept-Ranges": "bytes"}
        if path.endswith(LARGE):
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            headers |= {
                "X-Linked-Etag": f'"{sha256}"',
                "X-Linked-Size": str(size),
                "ETag": f'"{sha256}"',
            }
            where = (
                f"{self.hub.url}/cdn/{name}/{commit[0]}/{path}?Signature=secretSignature&Expires=99"
            )
            self.answer(302, b"", {**headers, "Location": where})
            return
        self.content(read(content), f'"{blob}"', path, headers)

    def cdn(self, name: str, commit: str, path: str) -> None:
        # The hub's client follows this redirect even for HEAD, as it stays on this host.
        data = read(dict(self.hub.repos[name].commits)[commit][path])
        sha256, _ = self.hub.hashes(dict(self.hub.repos[name].commits)[commit][path])
        headers = {
            "Accept-Ranges": "bytes",
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{sha256}"',
            "X-Linked-Size": str(len(data)),
        }
        self.content(data, f'"{sha256[:32]}"', path, headers)

    def content(self, data: bytes, etag: str, path: str, headers: dict[str, str]) -> None:
        """A file's bytes, or what the next fault makes of them."""
        if self.command == "GET" and self.hub.faults:
            self.hub.faults.pop(0)(self, data, etag, self._start())
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if not found or (condition and condition != etag):
            self.begin(200, len(data), {"ETag": etag, **headers})
            self.write(data, path)
            return
        start, end = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
        if start >= len(data):
            self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        ranged = {"ETag": etag, "Content-Range": f"bytes {start}-{end}/{len(data)}", **headers}
        self.begin(206, end + 1 - start, ranged)
        self.write(data[start : end + 1], path)

    def begin(self, status: int, length: int | None, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": "application/octet-stream", **headers}.items():
            self.send_header(key, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        else:
            self.close_connection = True
        self.end_headers()

    def write(self, data: bytes, path: str = "") -> None:
        if self.command == "HEAD":
            return
        began = time.monotonic()
        for at in range(0, len(data), BLOCK):
            block = data[at : at + BLOCK]
            self.wfile.write(block)
            self.hub.sent[path] = self.hub.sent.get(path, 0) + len(block)
            if self.hub.rate:
                behind = (at + len(block)) / self.hub.rate - (time.monotonic() - began)
                if behind > 0:
                    self.hub.stopping.wait(behind)

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    # --- writing

    def whoami(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self.refuse(401, "", "Invalid username or password.")
            return
        self.json(
            {
                "type": "user",
                "name": "student",
                "orgs": [],
                "auth": {"accessToken": {"role": "write"}},
            }
        )

    def create(self) -> None:
        if not self.may_write():
            return
        asked = json.loads(self.body())
        name = f"{asked.get('organization') or 'student'}/{asked['name']}"
        url = f"{self.hub.url}/{name}"
        if name in self.hub.repos:
            self.json({"error": "You already created this model repo", "url": url}, 409)
            return
        repo = self.hub.repos[name] = Repo(name, private=asked.get("visibility") == "private")
        repo.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        self.json({"url": url, "name": name, "id": name})

    def validate_yaml(self) -> None:
        content = json.loads(self.body())["content"]
        errors = [] if content.startswith("---\n") else [{"message": "no front matter"}]
        self.json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, name: str, revision: str) -> None:
        if not self.may_write():
            return
        asked, repo = json.loads(self.body())["files"], self.hub.repos[name]
        here = repo.commits[-1][1]
        self.json(
            {"files": [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular",
                 "shouldIgnore": False,
                 "oid": self._remote_oid(f["path"], here[f["path"]]) if f["path"] in here else None}
                for f in asked
            ]}
        )  # fmt: skip

    def _remote_oid(self, path: str, content: bytes | Path) -> str:
        sha256, blob = self.hub.hashes(content)
        return sha256 if path.endswith(LARGE) else blob

    def batch(self, name: str) -> None:
        if not self.may_write():
            return
        objects = json.loads(self.body())["objects"]
        answers = []
        for one in objects:
            answer: dict[str, Any] = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.hub.lfs:
                where = f"{self.hub.url}/lfs/{one['oid']}"
                answer["actions"] = {
                    "upload": {"href": where},
                    "verify": {"href": f"{where}/verify"},
                }
            answers.append(answer)
        self.json({"transfer": "basic", "objects": answers})

    def upload(self, oid: str) -> None:
        data = self.body()
        if self.hub.faults:
            self.hub.faults.pop(0)(self, data, oid, 0)
            return
        if hashlib.sha256(data).hexdigest() != oid:
            self.refuse(400, "", "wrong content")
            return
        self.hub.lfs[oid] = data
        self.answer(200)

    def verify(self, oid: str) -> None:
        self.body()
        self.answer(200 if oid in self.hub.lfs else 404)

    def commit(self, name: str, revision: str) -> None:
        if not self.may_write():
            return
        repo = self.hub.repos[name]
        files = dict(repo.commits[-1][1])
        for line in self.body().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.lfs[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        commit = repo.commit(files)
        self.json({"success": True, "commitOid": commit, "commitUrl": f"{self.hub.url}/{name}/commit/{commit}",
                   "hookOutput": ""})  # fmt: skip


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES = (
    ("GET", "/api/models", "search"),
    ("GET", "/api/whoami-v2", "whoami"),
    ("GET", f"/api/models/{_NAME}", "info"),
    ("GET", f"/api/models/{_NAME}/revision/([^/]+)", "info"),
    ("GET", f"/api/models/{_NAME}/tree/([^/]+)", "tree"),
    ("POST", f"/api/models/{_NAME}/paths-info/([^/]+)", "paths_info"),
    ("POST", f"/api/models/{_NAME}/preupload/([^/]+)", "preupload"),
    ("POST", f"/api/models/{_NAME}/commit/([^/]+)", "commit"),
    ("POST", "/api/repos/create", "create"),
    ("POST", "/api/validate-yaml", "validate_yaml"),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/lfs/([0-9a-f]{64})", "upload"),
    ("POST", r"/lfs/([0-9a-f]{64})/verify", "verify"),
    ("GET HEAD", f"/{_NAME}/resolve/([^/]+)/(.+)", "resolve"),
    ("GET HEAD", f"/cdn/{_NAME}/([^/]+)/(.+)", "cdn"),
)


# --- faults -----------------------------------------------------------------------------------


def _rest(handler: _Handler, data: bytes, etag: str, start: int, **changed: str) -> None:
    """The head of a right answer."""
    if start:
        changed.setdefault("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    handler.begin(206 if start else 200, len(data) - start, {"ETag": etag, **changed})


def reset_after(share: float) -> Fault:
    """A TCP reset after that share of what was asked for."""

    def fault(handler: _Handler, data: bytes, etag: str, start: int) -> None:
        _rest(handler, data, etag, start)
        handler.write(data[start : start + int((len(data) - start) * share)])
        time.sleep(0.02)  # else the reset overtakes what was sent
        handler.reset()

    return fault


def closed_after(share: float) -> Fault:
    """An ordinary close before the announced length."""

    def fault(handler: _Handler, data: bytes, etag: str, start: int) -> None:
        _rest(handler, data, etag, start)
        handler.write(data[start : start + int((len(data) - start) * share)])
        handler.close_connection = True

    return fault


def stalled_after(share: float) -> Fault:
    """Silence after that share, the connection held open."""

    def fault(handler: _Handler, data: bytes, etag: str, start: int) -> None:
        _rest(handler, data, etag, start)
        handler.write(data[start : start + int((len(data) - start) * share)])
        handler.hub.stopping.wait(5)
        handler.close_connection = True

    return fault


def flipped_at(share: float) -> Fault:
    """Everything as announced, one bit wrong."""

    def fault(handler: _Handler, data: bytes, etag: str, start: int) -> None:
        wrong = bytearray(data)
        wrong[start + int((len(data) - start - 1) * share)] ^= 1
        _rest(handler, data, etag, start)
        handler.write(bytes(wrong[start:]))

    return fault


def status(code: int, **headers: str) -> Fault:
    """That status instead of the file."""
    return lambda handler, data, etag, start: handler.answer(
        code, b"", {key.replace("_", "-"): value for key, value in headers.items()}
    )


def fine(handler: _Handler, data: bytes, etag: str, start: int) -> None:
    """No fault: what was asked for."""
    _rest(handler, data, etag, start)
    handler.write(data[start:])


def whole_instead_of_part(handler: _Handler, data: bytes, etag: str, start: int) -> None:
    """200 and everything, whatever part was asked for."""
    handler.begin(200, len(data), {"ETag": etag})
    handler.write(data)


def other_etag(handler: _Handler, data: bytes, etag: str, start: int) -> None:
    """The content is called something else now, and so If-Range does not hold."""
    handler.begin(200, len(data), {"ETag": f'"other-{time.monotonic_ns()}"'})
    handler.write(data)


def portal(handler: _Handler, data: bytes, etag: str, start: int) -> None:
    """The sign-in page of a network."""
    handler.answer(200, PORTAL, {"Content-Type": "text/html; charset=utf-8"})


def portal_redirect(handler: _Handler, data: bytes, etag: str, start: int) -> None:
    """A redirect to the sign-in page of a network."""
    handler.answer(302, b"", {"Location": "http://login.wifi.example/?back=hub"})


def other_length(more: int) -> Fault:
    """A body that is honestly announced, but longer or shorter than the file."""

    def fault(handler: _Handler, data: bytes, etag: str, start: int) -> None:
        wrong = data + b"\0" * more if more > 0 else data[:more]
        handler.begin(200, len(wrong), {"ETag": etag})
        handler.write(wrong)

    return fault


def without_length(more: int) -> Fault:
    """A body of unannounced length, `more` bytes longer than the file."""

    def fault(handler: _Handler, data: bytes, etag: str, start: int) -> None:
        handler.begin(200, None, {"ETag": etag})
        handler.write(data + b"\0" * more if more >= 0 else data[:more])

    return fault


def other_range(shift: int) -> Fault:
    """206 for another place than was asked for."""

    def fault(handler: _Handler, data: bytes, etag: str, start: int) -> None:
        at = max(start + shift, 0)
        where = f"bytes {at}-{len(data) - 1}/{len(data)}"
        handler.begin(206, len(data) - at, {"ETag": etag, "Content-Range": where})
        handler.write(data[at:])

    return fault


def range_header(text: str) -> Fault:
    """206 with that Content-Range."""

    def fault(handler: _Handler, data: bytes, etag: str, start: int) -> None:
        handler.begin(206, len(data) - start, {"ETag": etag, "Content-Range": text})
        handler.write(data[start:])

    return fault


def not_http(handler: _Handler, data: bytes, etag: str, start: int) -> None:
    """Something that is no HTTP at all."""
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    handler.close_connection = True


def packed(handler: _Handler, data: bytes, etag: str, start: int) -> None:
    """The whole file gzipped on the way, though nobody asked for that."""
    small = gzip.compress(data, 1)
    handler.begin(200, len(small), {"ETag": etag, "Content-Encoding": "gzip"})
    handler.write(small)


def badly_packed(handler: _Handler, data: bytes, etag: str, start: int) -> None:
    """Called gzip, and is none."""
    handler.begin(200, len(data), {"ETag": etag, "Content-Encoding": "gzip"})
    handler.write(data)


def cut_chunks(handler: _Handler, data: bytes, etag: str, start: int) -> None:
    """A chunked body that ends within a chunk."""
    handler.begin(200, None, {"ETag": etag, "Transfer-Encoding": "chunked"})
    half = data[: len(data) // 2]
    handler.wfile.write(b"%x\r\n" % len(data) + half)
    handler.close_connection = True


def hung_up(handler: _Handler, data: bytes, etag: str, start: int) -> None:
    """No answer at all."""
    handler.reset()


def redirected_to(url: str) -> Fault:
    return lambda handler, data, etag, start: handler.answer(302, b"", {"Location": url})
