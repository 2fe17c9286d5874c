"""A model on another machine, or in another program: any endpoint that speaks OpenAI's chat protocol.

The server applies its own chat template and tokenizer, so `count_tokens` is an estimate here, and the
statistics are estimates too where the server sends no usage; a notice then says so.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import queue
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from chatbot.engines.base import Cancelled, Clock, EngineSpec, Finish, StopWords, never
from chatbot.errors import MissingBackend, OfflineError, RemoteError
from chatbot.i18n import N_
from chatbot.settings import offline
from chatbot.types import Delta, EngineInfo, GenerationOptions, Turn

ESTIMATED = N_("The remote server does not count tokens: the numbers below are estimates.")

BYTES_PER_TOKEN = 3.5
"""A middle between English (about 4.5) and Vietnamese (about 3) in current tokenizers."""
TOKENS_PER_TURN = 4
CONNECT_SECONDS = 10.0
SILENT_SECONDS = 600.0
"""A server on a slow machine may read a long prompt for minutes before its first word."""
LOOK_UP_SECONDS = 0.1
_LOCAL_NAMES = frozenset(["localhost", "ip6-localhost"])

_Item = dict[str, Any] | RemoteError | None


class OpenAI:
    """A remote model under `spec.url` (such as http://127.0.0.1:8000/v1), called `spec.model_id` there."""

    def __init__(self, spec: EngineSpec) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingBackend(str(error), name=spec.title) from error
        self._httpx: Any = httpx
        self._url = spec.url.rstrip("/") + "/chat/completions"
        self._address = urlsplit(spec.url).netloc.rpartition("@")[2] or spec.url
        self._model = spec.model_id or spec.name
        self._key = spec.key
        if offline() and not _is_this_machine(urlsplit(spec.url).hostname or ""):
            raise OfflineError
        self.info = EngineInfo("openai", spec.title, context=spec.context, device=self._address)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def stream(
        self,
        turns: Sequence[Turn],
        options: GenerationOptions,
        cancelled: Cancelled = never,
    ) -> Iterator[Delta]:
        """Yield text as the server sends it and the stats last. Raises RemoteError."""
        clock = Clock()
        stops = StopWords(options.stop)
        usage: dict[str, Any] = {}
        finish: Finish = "stop"
        pieces: list[str] = []
        for item in self._received(self._asking(turns, options), cancelled):
            usage = item.get("usage") or usage
            choice: dict[str, Any] = next(iter(item.get("choices") or ()), {})
            piece = (choice.get("delta") or {}).get("content") or ""
            if piece:
                clock.token()
                pieces.append(piece)
            if text := stops.feed(piece):
                yield Delta(text=text)
            if choice.get("finish_reason") == "length":
                finish = "length"
            if stops.stopped:
                break
        if text := stops.end():
            yield Delta(text=text)
        if cancelled():
            finish = "cancelled"
        if not usage:
            yield Delta(notice=ESTIMATED)
        details = usage.get("prompt_tokens_details") or {}
        yield Delta(
            stats=clock.stats(
                prompt=usage.get("prompt_tokens") or self.count_tokens(turns),
                cached=details.get("cached_tokens") or 0,
                answer=usage.get("completion_tokens") or _estimate("".join(pieces)),
                context=self.info.context,
                finish=finish,
            )
        )

    def count_tokens(self, turns: Sequence[Turn], *, thinking: bool = True) -> int:  # noqa: ARG002
        """An estimate from the length of the text: only the server knows its tokenizer."""
        return sum(_estimate(turn.text) + TOKENS_PER_TURN for turn in turns)

    def close(self) -> None:
        """End the connections."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _asking(self, turns: Sequence[Turn], options: GenerationOptions) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": turn.role, "content": turn.text} for turn in turns],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": options.temperature,
            "top_p": options.top_p,
            "max_tokens": options.max_tokens,
        }
        if options.seed is not None:
            body["seed"] = options.seed
        if options.stop:
            body["stop"] = list(
                options.stop[:4]
            )  # the protocol takes four; the rest is ours to find
        return body

    def _received(self, body: dict[str, Any], cancelled: Cancelled) -> Iterator[dict[str, Any]]:
        # The connection lives in the event loop, where cancelling closes it at once, even while the
        # server is silent; this thread only looks up between two messages.
        inbox: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        work = asyncio.run_coroutine_threadsafe(self._receive(body, inbox), self._loop)
        try:
            while not cancelled():
                try:
                    item = inbox.get(timeout=LOOK_UP_SECONDS)
                except queue.Empty:
                    continue
                if item is None:
                    return
                if isinstance(item, RemoteError):
                    raise item
                yield item
        finally:
            work.cancel()

    async def _receive(self, body: dict[str, Any], inbox: queue.SimpleQueue[_Item]) -> None:
        httpx = self._httpx
        timeout = httpx.Timeout(SILENT_SECONDS, connect=CONNECT_SECONDS)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            async with (
                httpx.AsyncClient(timeout=timeout) as client,
                client.stream("POST", self._url, json=body, headers=headers) as response,
            ):
                if response.status_code != 200:
                    await response.aread()
                    inbox.put(self._refused(response))
                    return
                async for item in _events(response.aiter_lines()):
                    if "error" in item:
                        inbox.put(RemoteError(_said(item), address=self._address))
                        return
                    inbox.put(item)
                    if item.get("done"):
                        inbox.put(None)
                        return
            inbox.put(RemoteError("the connection ended early", address=self._address))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            # Named by its type where it says nothing; never with the request, which holds the key.
            said = str(error) or type(error).__name__
            inbox.put(RemoteError(said, address=self._address))

    def _refused(self, response: Any) -> RemoteError:
        try:
            said = _said(response.json())
        except ValueError:
            said = response.text[:300]
        return RemoteError(f"{response.status_code} {said}".strip(), address=self._address)


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of an event stream; the closing [DONE] as {"done": True}."""
    async for line in lines:
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        yield {"done": True} if data == "[DONE]" else json.loads(data)


def _said(body: Any) -> str:
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        error = error.get("message") or error
    return str(error)[:300]


def _estimate(text: str) -> int:
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in _LOCAL_NAMES
