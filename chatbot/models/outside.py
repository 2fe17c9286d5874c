"""The one way out of this PC: HTTPS to the model hub, and nowhere that a redirect might lead instead.

Every request and every redirect is checked before a byte is sent: the scheme, the host, and each address
that DNS gives for it. The connection then goes to the address that was checked, so that a second DNS
answer cannot move it.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from chatbot.errors import HubError, OfflineError, SettingsError
from chatbot.i18n import N_
from chatbot.settings import offline

HUB = "https://huggingface.co"
HUB_HOSTS = ("huggingface.co", "hf.co")
"""The hub and what it redirects to lie under these names."""

CONNECT_SECONDS = 15.0
NAT64 = ipaddress.ip_network("64:ff9b::/96")

_ELSEWHERE = N_("it redirects to {part}, where Hearth does not go. A network's sign-in page may be the cause:"
                " open the browser and sign in.")  # fmt: skip
_PRIVATE = N_(
    "{part} leads into this PC or its own network, and Hearth fetches nothing from there."
)
_UNKNOWN = N_("the name {part} is not known to this network.")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A hub: the public one, or the mirror that the user named in HF_ENDPOINT."""

    url: str = HUB

    @staticmethod
    def from_environment() -> Endpoint:
        """HF_ENDPOINT, else the public hub. Raises SettingsError for what is no address."""
        url = (os.environ.get("HF_ENDPOINT") or HUB).strip().rstrip("/")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise SettingsError(f"HF_ENDPOINT = {parts.scheme}://{parts.hostname or ''}")
        return Endpoint(url)

    @property
    def named(self) -> bool:
        """Whether the user chose it; then it may lie in the own network and speak plain HTTP."""
        return self.url != HUB

    @property
    def host(self) -> str:
        """As people read it, such as huggingface.co."""
        return urlsplit(self.url).netloc

    def is_at(self, scheme: str, host: str, port: int | None) -> bool:
        """Whether that is this very endpoint."""
        own = urlsplit(self.url)
        return (own.scheme, own.hostname, own.port or _port(own.scheme)) == (
            scheme,
            host.lower(),
            port or _port(scheme),
        )

    def addresses(
        self, scheme: str, host: str, port: int | None, *, anywhere: bool = False
    ) -> list[str]:
        """The addresses to connect to for a request to that host. Raises HubError where none may be."""
        self.check(scheme, host, port, anywhere=anywhere)
        try:
            answers = socket.getaddrinfo(host, port or _port(scheme), type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise self.refused(_UNKNOWN, host) from error
        found = list(dict.fromkeys(str(answer[4][0]) for answer in sorted(answers, key=_family)))
        if not self.is_at(scheme, host, port) or not self.named:
            for address in found:
                if not _is_public(address):
                    raise self.refused(_PRIVATE, host)
        return found

    def check(self, scheme: str, host: str, port: int | None, *, anywhere: bool = False) -> None:
        """Raise HubError for a place that a request must not go to, whatever DNS says of it.

        `anywhere` allows every host of the internet, as uploads need: the hub names a store for them.
        """
        if self.is_at(scheme, host, port):
            return
        if scheme != "https":
            raise self.refused(_ELSEWHERE, f"{scheme}://{host}")
        if (
            not anywhere
            and not self.named
            and not any(f".{host.lower()}".endswith(f".{known}") for known in HUB_HOSTS)
        ):
            raise self.refused(_ELSEWHERE, host)
        try:
            literal = _is_public(host.strip("[]"))
        except ValueError:
            return
        if not literal:
            raise self.refused(_PRIVATE, host)

    def refused(self, detail: str, part: str = "", name: str = "") -> HubError:
        """The error that this endpoint gave, or led to."""
        return HubError(detail, name=name or self.host, address=self.host, part=part)


class Guard:
    """A transport for httpx or its twin that only reaches what the endpoint allows.

    With a proxy in the environment the proxy looks names up; the host is checked all the same.
    """

    def __init__(self, library: Any, endpoint: Endpoint, *, anywhere: bool = False) -> None:
        """`library` is the module httpx, or httpx2 that huggingface_hub brings."""
        if offline():
            raise OfflineError
        for name in (library.__name__, "httpcore", "httpcore2"):  # they would log signed addresses
            logging.getLogger(name).setLevel(logging.WARNING)
        self._library = library
        self._endpoint = endpoint
        self._anywhere = anywhere
        self._direct = library.HTTPTransport(verify=_certificates())
        self._proxied: dict[str, Any] = {}

    def handle_request(self, request: Any) -> Any:
        """The answer. Raises HubError for a forbidden place, the library's errors for the network's."""
        url = request.url
        if proxy := _proxy_for(url.scheme, url.host):
            self._endpoint.check(url.scheme, url.host, url.port, anywhere=self._anywhere)
            if proxy not in self._proxied:
                self._proxied[proxy] = self._library.HTTPTransport(
                    verify=_certificates(), proxy=proxy
                )
            return self._proxied[proxy].handle_request(request)
        *others, last = self._endpoint.addresses(
            url.scheme, url.host, url.port, anywhere=self._anywhere
        )
        for address in others:
            try:
                return self._direct.handle_request(self._to(address, request))
            except (self._library.ConnectError, self._library.ConnectTimeout):
                continue
        return self._direct.handle_request(self._to(last, request))

    def _to(self, address: str, request: Any) -> Any:
        """The request at an address that was checked; certificates are still held to the name."""
        return self._library.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": request.url.host},
        )

    def close(self) -> None:
        for transport in (self._direct, *self._proxied.values()):
            transport.close()

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust: certifi's list, or SSL_CERT_FILE; reading it takes 50 ms."""
    import httpx

    return httpx.create_ssl_context()


def _proxy_for(scheme: str, host: str) -> str | None:
    proxy = getproxies().get(scheme)
    return proxy if proxy and not proxy_bypass(host) else None


def _port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def _family(answer: Any) -> int:
    return 0 if answer[0] == socket.AF_INET else 1  # a broken IPv6 route costs a whole timeout


def _is_public(address: str) -> bool:
    """Whether an address lies in the internet, also where it wraps an older one. Raises ValueError."""
    return all(
        found.is_global and not found.is_multicast and not found.is_reserved
        for found in _wrapped(ipaddress.ip_address(address.partition("%")[0]))
    )


def _wrapped(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The address itself and the IPv4 addresses that an IPv6 one may stand for."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
        return
    if address.ipv4_mapped:
        yield address.ipv4_mapped
        return
    if address in NAT64:
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return
    yield address
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
