"""Send a model to the person's own repository on the hub, file by file, so that a broken upload goes on.

Every file is read and held to the manifest's hash before it leaves. What the repository has already is
not sent again: the hub's own client compares hashes, and its chunks where the hub can take them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from chatbot.errors import BrokenModel, HubError
from chatbot.i18n import N_
from chatbot.models import tokens
from chatbot.models.card import model_card
from chatbot.models.files import Report, stored
from chatbot.models.hub import Hub, check_repo
from chatbot.models.outside import CONNECT_SECONDS, Endpoint, Guard

SILENT_SECONDS = 300.0
LARGE = 10_000_000
"""Files from here on are a commit each."""


def push(
    report: Report,
    *,
    source: Path,
    repo: str,
    manifest: dict[str, Any],
    private: bool = True,
) -> dict[str, Any]:
    """Upload the files that the manifest lists, with a model card written from it.

    `repo` without an owner goes to the owner of the token. The repository is made, private unless asked
    otherwise; one that exists keeps its visibility. Returns {repo, url, commit, files, bytes, seconds}.
    Raises HubError, BrokenModel when a file is not what the manifest says, OfflineError, Cancelled.
    """
    began = time.monotonic()
    endpoint = Endpoint.from_environment()
    check_repo(repo)
    token = tokens.token(endpoint)
    if token is None:
        raise endpoint.refused(
            N_("there is no access token; make one that may write, and enter it in Hearth."),
            name=repo,
        )
    files = _checked(source, manifest, report)
    api = _client(endpoint, token)
    explain = _Explained(endpoint, repo)
    with explain:
        if "/" not in repo:
            repo = f"{api.whoami()['name']}/{repo}"
        url = str(api.create_repo(repo, private=private, exist_ok=True))
    from huggingface_hub import CommitOperationAdd

    small: list[Any] = [CommitOperationAdd("README.md", model_card(manifest).encode())]
    large: list[list[Any]] = []
    for path, size, sha256 in files:
        if path == source / "README.md":
            continue  # the card says what this model is, not what its base was
        addition = CommitOperationAdd(path.relative_to(source).as_posix(), path)
        addition.upload_info.sha256 = bytes.fromhex(sha256)
        if size >= LARGE:
            large.append([addition])
        else:
            small.append(addition)
    total, sent, commit = max(sum(size for _, size, _ in files), 1), 0, ""
    for batch in (small, *large):
        name, size = batch[-1].path_in_repo, sum(one.upload_info.size for one in batch)

        def send(batch: list[Any] = batch, name: str = name) -> str:
            with explain:
                return str(api.create_commit(repo, batch, commit_message=f"Add {name}").oid)

        def tell(name: str = name, size: int = size, share: float = min(sent / total, 1.0)) -> None:
            report(
                0.1 + 0.9 * share,
                N_("Uploading {file} ({size} GB) to {repo}"),
                file=name,
                size=size / 1e9,
                repo=repo,
            )

        commit = _while_reporting(send, tell)
        sent += size
    return {
        "repo": repo,
        "url": url,
        "commit": commit,
        "files": len(files) + 1,
        "bytes": sent,
        "seconds": round(time.monotonic() - began, 3),
    }


def _checked(source: Path, manifest: dict[str, Any], report: Report) -> list[tuple[Path, int, str]]:
    """The model's files with size and hash, as the manifest has them. Raises BrokenModel."""
    total, done = max(sum(file["size"] for file in manifest["files"]), 1), 0
    found = []
    for listed in manifest["files"]:
        path = source / listed["name"]

        def read(size: int) -> None:
            nonlocal done
            done += size
            report(0.1 * done / total, N_("Checking the files before they are sent"))

        if not path.is_file() or stored(path, read=read).sha256 != listed["sha256"]:
            raise BrokenModel(
                N_("{part} is no longer what it was when the model was added."),
                name=manifest.get("name", ""),
                part=listed["name"],
            )
        found.append((path, listed["size"], listed["sha256"]))
    return found


def _client(endpoint: Endpoint, token: str) -> Any:
    """The hub's own client, over our guarded connection."""
    import httpx2
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.utils import _http
    from huggingface_hub.utils.tqdm import disable_progress_bars

    def connection() -> Any:
        guard: Any = Guard(httpx2, endpoint, anywhere=True)
        return httpx2.Client(
            transport=guard,
            event_hooks={"request": [_http.hf_request_event_hook]},
            follow_redirects=True,
            timeout=httpx2.Timeout(SILENT_SECONDS, connect=CONNECT_SECONDS),
        )

    disable_progress_bars()
    constants.HF_HUB_DISABLE_XET = endpoint.named  # a mirror speaks plain HTTP only
    huggingface_hub.set_client_factory(connection)
    return huggingface_hub.HfApi(endpoint=endpoint.url, token=token)


class _Explained:
    """Turns what the hub's client raises into HubError, without tokens and signed addresses."""

    def __init__(self, endpoint: Endpoint, repo: str) -> None:
        self._endpoint = endpoint
        self._repo = repo

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError

        cause: BaseException | None = error
        while cause is not None:  # uploads in threads wrap what went wrong
            if isinstance(cause, HubError):
                raise cause
            if isinstance(cause, HfHubHTTPError):
                raise self._refusal(cause.response) from None
            if isinstance(cause, httpx2.HTTPError):
                raise self._endpoint.refused(
                    N_("no answer ({part})."), type(cause).__name__, self._repo
                ) from None
            cause = cause.__cause__
        if isinstance(error, ValueError | RuntimeError):
            raise self._endpoint.refused(
                N_("its answer cannot be read."), name=self._repo
            ) from error

    def _refusal(self, answer: Any) -> HubError:
        if answer.status_code in (401, 403):
            return self._endpoint.refused(
                N_("it does not let this access token write there; make one that may."),
                name=self._repo,
            )
        with Hub(self._endpoint) as hub:
            return hub.refusal(answer, self._repo)


def _while_reporting(work: Callable[[], str], tell: Callable[[], None]) -> str:
    """What `work` returns, done in a thread while `tell` is called twice a second and may raise Cancelled."""
    thread = ThreadPoolExecutor(1)
    try:
        outcome = thread.submit(work)
        while True:
            tell()
            try:
                return outcome.result(timeout=0.5)
            except TimeoutError:
                if outcome.done():
                    raise
    finally:
        thread.shutdown(wait=False)
