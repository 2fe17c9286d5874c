"""The model hub as it is asked: search, what a repository holds at one commit, and bytes of its files.

Reading only; `download` fetches whole files and `push` sends them. Whatever the hub refuses becomes a
HubError or GatedModel that says why; neither the token nor a signed address stands in any of them.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from urllib.parse import quote

from chatbot import __version__
from chatbot.errors import GatedModel, HubError, ModelError
from chatbot.i18n import N_
from chatbot.models import tokens
from chatbot.models.outside import CONNECT_SECONDS, Endpoint, Guard

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9_][\w.-]{0,95})?", re.ASCII)
REVISION = re.compile(r"[\w][\w./-]{0,199}", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
SILENT_SECONDS = 20.0
MAX_ANSWER = 64_000_000
MAX_REDIRECTS = 5
EXPANDED = (
    "downloads",
    "likes",
    "gated",
    "tags",
    "pipeline_tag",
    "lastModified",
    "safetensors",
    "gguf",
)

WAITS = (0.3, 1.0)
"""Seconds before a question is asked again that got no answer."""

T = TypeVar("T")
Gate = Literal["", "auto", "manual"]

PORTAL = N_(
    "a web page came instead of the file. The network may want you to sign in: open the browser first."
)
_NO_ANSWER = N_("no answer ({part}).")


def names_repository(source: str) -> bool:
    """Whether that is written as the hub writes repositories, such as owner/model."""
    return "/" in source and bool(REPOSITORY.fullmatch(source))


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository: `sha256` where the hub keeps it as a large file, else git's hash of it."""

    path: str
    size: int
    sha256: str = ""
    blob: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """A repository that a search found; `parameters` is 0 where the hub does not say."""

    repo: str
    downloads: int
    likes: int
    gated: Gate
    tags: tuple[str, ...]
    task: str
    modified: str
    parameters: int
    gguf: bool


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A repository at one commit: everything needed to choose files, and to fetch exactly these."""

    repo: str
    revision: str
    files: tuple[RemoteFile, ...]
    gated: Gate
    private: bool
    task: str
    licence: str
    languages: tuple[str, ...]
    base: str
    """The repository it was made from, by its card."""
    parameters: int
    endpoint: str
    modified: str = ""

    def file(self, path: str) -> RemoteFile | None:
        return next((file for file in self.files if file.path == path), None)


class Hub:
    """One hub, asked over a guarded connection; use it as a context or close it."""

    def __init__(
        self, endpoint: Endpoint | None = None, silent_seconds: float = SILENT_SECONDS
    ) -> None:
        """Raises OfflineError where HEARTH_OFFLINE forbids the internet."""
        import httpx

        self.endpoint = endpoint or Endpoint.from_environment()
        self._httpx: Any = httpx
        self._token: str | None = None
        self._token_read = False
        guard: Any = Guard(httpx, self.endpoint)
        self._client = httpx.Client(
            transport=guard,
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
            timeout=httpx.Timeout(silent_seconds, connect=CONNECT_SECONDS),
            headers={"User-Agent": f"hearth/{__version__}", "Accept-Encoding": "identity"},
            trust_env=False,
        )

    def search(self, text: str, limit: int = 20, *, gguf: bool = False) -> list[Hit]:
        """Repositories whose name holds these words, the most downloaded first."""
        asked: dict[str, Any] = {"search": text.strip()[:200], "limit": limit, "sort": "downloads",
                                 "expand": list(EXPANDED)}  # fmt: skip
        if gguf:
            asked["filter"] = "gguf"
        found = self._json(f"{self.endpoint.url}/api/models", text.strip()[:80], asked)
        rows = found if isinstance(found, list) else []
        return [_hit(row) for row in rows if isinstance(row, dict) and _is_repo(row.get("id"))]

    def model(self, repo: str, revision: str = "main") -> RemoteModel:
        """What that repository holds at a branch, tag or commit. Raises ModelError, HubError, GatedModel."""
        check_repo(repo)
        if not REVISION.fullmatch(revision) or ".." in revision:
            raise ModelError(N_("this is not the name of a revision."), name=repo)
        url = f"{self.endpoint.url}/api/models/{repo}/revision/{quote(revision, safe='')}"
        found = self._json(url, repo, {"blobs": "true"})
        commit = found.get("sha") if isinstance(found, dict) else None
        if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
            raise self._error(N_("its answer does not name a commit."), repo)
        if COMMIT.fullmatch(revision) and commit != revision:
            raise self._error(N_("its answer is about another commit."), repo)
        return _model(found, repo, commit, self.endpoint.url)

    def read(self, model: RemoteModel, path: str, start: int = 0, length: int = 4_000_000) -> bytes:
        """At most `length` bytes of a file, from `start`. Raises HubError, GatedModel."""
        ranged = {"Range": f"bytes={start}-{start + length - 1}"}

        def ask() -> bytes:
            with self.stream(model.repo, model.revision, path, ranged) as answer:
                if answer.status_code == 416:
                    return b""
                if answer.status_code not in (200, 206):
                    raise self.refusal(answer, model.repo)
                if is_page(answer):
                    raise self._error(PORTAL, model.repo)
                if start and answer.status_code == 200:
                    raise self._error(N_("it does not give parts of files."), model.repo)
                return _bounded(answer.iter_bytes(), length)

        return self._patiently(ask, model.repo)

    @contextmanager
    def stream(
        self, repo: str, revision: str, path: str, headers: dict[str, str] | None = None
    ) -> Iterator[Any]:
        """The answer to a request for one file, of any status, its body unread.

        What goes wrong on the way stays httpx's own error, so that the caller can try again.
        """
        where = f"{self.endpoint.url}/{repo}/resolve/{revision}/{quote(path, safe='/')}"
        with self._client.stream("GET", where, headers=self._signed(headers)) as answer:
            yield answer

    def _patiently(self, ask: Callable[[], T], name: str) -> T:
        """The answer, asked for again when the connection breaks.

        Raises HubError that names what went wrong, and no address but the hub's.
        """
        for wait in (*WAITS, None):
            try:
                return ask()
            except (self._httpx.InvalidURL, UnicodeError) as error:
                raise self._error(
                    N_("it redirects to something that is no address."), name
                ) from error
            except self._httpx.HTTPError as error:
                if wait is None or not isinstance(error, self._httpx.TransportError):
                    raise self._error(_NO_ANSWER, name, type(error).__name__) from error
                time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def refusal(self, answer: Any, repo: str) -> HubError:
        """Why the hub did not deliver, from its status and headers."""
        code, status = answer.headers.get("X-Error-Code", ""), answer.status_code
        said = answer.headers.get("X-Error-Message", "").lower()
        if code == "GatedRepo":
            detail = (
                N_("the access token belongs to an account that has not accepted them, or that waits for consent.")
                if self.token
                else N_("there is no access token yet.")
            )  # fmt: skip
            return GatedModel(
                detail, name=repo, page=f"{self.endpoint.url}/{repo}", address=self.endpoint.host
            )
        if status == 401 and self.token and (not code or "invalid" in said):
            return self._error(N_("it does not accept the access token; enter a new one."), repo)
        if code == "RevisionNotFound":
            return self._error(N_("the repository has no such revision."), repo)
        if code == "EntryNotFound":
            return self._error(N_("the repository has no such file."), repo)
        if code == "RepoNotFound" or status in (401, 404):
            return self._error(
                N_("there is no such repository, or it is private and needs an access token."), repo
            )
        if status == 403:
            return self._error(N_("it refuses access; check what the access token allows."), repo)
        if status == 429:
            return self._error(N_("it has had too many requests; wait some minutes."), repo)
        return self._error(N_("it answers with an error of its own ({part})."), repo, str(status))

    @property
    def token(self) -> str | None:
        if not self._token_read:
            self._token, self._token_read = tokens.token(self.endpoint), True
        return self._token

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _json(self, url: str, name: str, asked: dict[str, Any]) -> Any:
        def ask() -> Any:
            with self._client.stream("GET", url, params=asked, headers=self._signed()) as answer:
                if answer.status_code != 200:
                    raise self.refusal(answer, name)
                if is_page(answer):
                    raise self._error(PORTAL, name)
                content = _bounded(answer.iter_bytes(), MAX_ANSWER)
            try:
                return json.loads(content)
            except (ValueError, RecursionError) as error:
                raise self._error(N_("its answer cannot be read."), name) from error

        return self._patiently(ask, name)

    def _signed(self, headers: dict[str, str] | None = None) -> dict[str, str]:
        # httpx leaves the token out when a redirect leads to another host.
        signed = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return {**(headers or {}), **signed}

    def _error(self, detail: str, name: str, part: str = "") -> HubError:
        return self.endpoint.refused(detail, part, name)


def check_repo(repo: str) -> None:
    """Raise ModelError for what can be no repository's name."""
    if not _is_repo(repo):
        raise ModelError(N_("a repository is named as in “owner/model”."), name=str(repo)[:100])


def is_page(answer: Any) -> bool:
    """Whether a web page came back, as from the sign-in page of a network."""
    return bool(answer.headers.get("Content-Type", "").lower().startswith("text/html"))


def _is_repo(name: Any) -> bool:
    return (
        isinstance(name, str)
        and bool(REPOSITORY.fullmatch(name))
        and ".." not in name
        and "--" not in name
    )


def _bounded(blocks: Iterator[bytes], most: int) -> bytes:
    """The first `most` bytes; the rest is never read."""
    found = bytearray()
    for block in blocks:
        found += block
        if len(found) >= most:
            break
    return bytes(found[:most])


def _hit(row: dict[str, Any]) -> Hit:
    return Hit(
        repo=row["id"],
        downloads=_count(row.get("downloads")),
        likes=_count(row.get("likes")),
        gated=_gate(row),
        tags=_texts(row.get("tags")),
        task=str(row.get("pipeline_tag") or ""),
        modified=str(row.get("lastModified") or ""),
        parameters=_parameters(row),
        gguf="gguf" in _texts(row.get("tags")) or isinstance(row.get("gguf"), dict),
    )


def _model(found: dict[str, Any], repo: str, commit: str, endpoint: str) -> RemoteModel:
    card = found.get("cardData")
    card = card if isinstance(card, dict) else {}
    listed = found.get("siblings")
    files = (
        [_file(row) for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    )
    return RemoteModel(
        repo=str(found["id"]) if _is_repo(found.get("id")) else repo,
        revision=commit,
        files=tuple(file for file in files if file),
        gated=_gate(found),
        private=found.get("private") is True,
        task=str(found.get("pipeline_tag") or ""),
        licence=next(iter(_texts(card.get("license"))), ""),
        languages=_texts(card.get("language")),
        base=next(filter(_is_repo, _texts(card.get("base_model"))), ""),
        parameters=_parameters(found),
        endpoint=endpoint,
        modified=str(found.get("lastModified") or ""),
    )


def _file(row: dict[str, Any]) -> RemoteFile | None:
    """A file as the hub lists it; None for one without a name, size or hash that can be held to."""
    path, size, blob = row.get("rfilename"), row.get("size"), row.get("blobId")
    large = row.get("lfs")
    sha256 = large.get("sha256") if isinstance(large, dict) else ""
    if isinstance(large, dict):
        size = large.get("size", size)
    if not isinstance(path, str) or type(size) is not int or size < 0:
        return None
    sha256 = sha256 if isinstance(sha256, str) and re.fullmatch(r"[0-9a-f]{64}", sha256) else ""
    blob = blob if isinstance(blob, str) and COMMIT.fullmatch(blob) else ""
    return RemoteFile(path, size, sha256, blob) if sha256 or blob else None


def _gate(row: dict[str, Any]) -> Gate:
    found = row.get("gated")
    return found if found in ("auto", "manual") else ("manual" if found is True else "")


def _parameters(row: dict[str, Any]) -> int:
    for part in (row.get("safetensors"), row.get("gguf")):
        if isinstance(part, dict) and _count(part.get("total")):
            return _count(part["total"])
    return 0


def _count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()
