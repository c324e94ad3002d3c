"""Requests to registries: TLS, authorization, redirects, retries with back-off, bounded bodies."""

import asyncio
import contextlib
import functools
import io
import json
import logging
import os
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urljoin, urlsplit

import aiohttp

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.images.errors import AccessDenied, RegistryError, RegistryUnavailable
from aks_inference_runtime.images.registry.backoff import RETRIED_STATUS, Backoff
from aks_inference_runtime.images.registry.challenge import parse_challenges
from aks_inference_runtime.images.registry.credentials import CredentialStore
from aks_inference_runtime.images.registry.silence import Silence
from aks_inference_runtime.images.registry.tokens import Ask, Authorizer
from aks_inference_runtime.proxies import machine_proxy

log = logging.getLogger(__name__)

MAX_BODY = 4 * 1024 * 1024
"""Manifests and answers beyond this are refused (distribution specification: clients may expect 4 MiB)."""
MAX_ERROR_BODY = 64 * 1024
SMALL_BYTES = 64 * 1024
"""What is read and sent at once."""
MAX_REDIRECTS = 5
MAX_RENEWALS = 2
CONNECTIONS = 5
"""To one registry, at most: each costs both sides as much as some small requests."""
CONNECT_S = 10.0
IDLE_S = 60.0
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
NETWORK_ERRORS = (aiohttp.ClientError, TimeoutError, ConnectionError, ssl.SSLError)


@dataclass(frozen=True)
class TransportOptions:
    """How registries are reached."""

    ca_file: Path | None = None
    """Optional. PEM file of certificate authorities to trust beside the machine's."""
    plain_http: frozenset[str] = frozenset()
    """Optional. Hosts (with port) without TLS. This machine's own (loopback) are, unless `ca_file` is given."""
    backoff: Backoff = field(default_factory=Backoff)
    chunk_bytes: int = 8 * 1024 * 1024
    """Optional. What is uploaded at once: lost at worst by a break, and held in memory per upload."""
    silence: Silence | None = None
    """Optional. Bounds the wait for a registry; share one among clients. Default: each request's tries, minutes."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    now: Callable[[], float] = time.time
    random: Callable[[], float] = field(default=random.random)

    def uses_tls(self, host: str) -> bool:
        """Whether a registry is spoken to by https."""
        name = urlsplit(f"//{host}").hostname
        return host not in self.plain_http and (name not in LOOPBACK or self.ca_file is not None)


@dataclass(frozen=True)
class Answer:
    """A response, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class Transport:
    """One session to any number of registries; an async context manager."""

    def __init__(self, credentials: CredentialStore, options: TransportOptions) -> None:
        self.options = options
        self._authorizer = Authorizer(
            credentials, lambda ask: asyncio.ensure_future(self._token(ask)), options.uses_tls
        )
        self._tls = _shared_context(options.ca_file)
        self._session: aiohttp.ClientSession | None = None
        self._proxies: dict[str, str | None] = {}
        self._origins: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit_per_host=CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=IDLE_S),
            headers={"User-Agent": "aks-inference"},
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def origin(self, host: str) -> str:
        """Scheme and host of a registry."""
        if host not in self._origins:
            self._origins[host] = f"{'https' if self.options.uses_tls(host) else 'http'}://{host}"
        return self._origins[host]

    async def request(
        self,
        method: str,
        url: str,
        *,
        host: str,
        scope: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        expected: frozenset[int] = frozenset({200}),
        retried: bool = True,
    ) -> Answer:
        """One request, tried again while that may help. Raises RegistryError, AccessDenied, RegistryUnavailable."""
        silence = self.options.silence
        async with silence.bounded(host) if silence is not None else contextlib.nullcontext():
            return await self._tried(method, url, host, scope, headers, body, expected, retried)

    async def _tried(
        self,
        method: str,
        url: str,
        host: str,
        scope: str,
        headers: Mapping[str, str] | None,
        body: bytes | None,
        expected: frozenset[int],
        retried: bool,
    ) -> Answer:
        failures = 0
        while True:
            retry_after = None
            try:
                async with self.once(method, url, host=host, scope=scope, headers=headers, body=body) as response:
                    if response.status in expected:
                        content = b"" if method == "HEAD" else await bounded(response, MAX_BODY, host)
                        return Answer(response.status, response.headers, content, str(response.url))
                    if response.status not in RETRIED_STATUS or not retried:
                        raise await refusal(response, method, host)
                    retry_after = response.headers.get("Retry-After")
                    reason = str(await refusal(response, method, host))
                    self._heard(host, reason)
            except NETWORK_ERRORS as error:
                reason = f"{host}: {method} failed ({_network(error)})"
                refused = isinstance(error, aiohttp.ClientConnectorCertificateError)
                if refused:
                    self._heard(host, reason)
                if refused or not retried:
                    raise RegistryUnavailable(reason) from None
            failures += 1
            await self.pause(failures, retry_after, reason)

    def _heard(self, host: str, refusal: str = "") -> None:
        if self.options.silence is not None:
            self.options.silence.heard(host, refusal)

    async def pause(self, failures: int, retry_after: str | None, reason: str) -> None:
        """Waits before the next try. Raises RegistryUnavailable when there is none."""
        options = self.options
        wait = options.backoff.wait_s(failures, retry_after, options.now(), options.random())
        if wait is None:
            raise RegistryUnavailable(f"{reason}; gave up after {failures} tries")
        log.info("%s; next try in %.1f s", reason, wait)
        await options.sleep(wait)

    @contextlib.asynccontextmanager
    async def once(
        self,
        method: str,
        url: str,
        *,
        host: str,
        scope: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One exchange, with authorization and redirects, without retries; the body is the caller's to read."""
        renewals = redirects = 0
        origin = self.origin(host)
        while True:
            own = url.startswith(f"{origin}/")
            authorization = self._authorizer.header(host, scope) if own else None
            sent = {**(headers or {}), **({"Authorization": authorization} if authorization else {})}
            async with self._request(method, url, headers=sent, data=body) as response:
                if own:
                    self._heard(host)
                if response.status == 401 and own:
                    challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
                    if renewals == MAX_RENEWALS:
                        raise self._authorizer.refused(host)
                    renewals += 1
                    await response.release()
                    await self._authorizer.answer(host, scope, challenges, authorization)
                    continue
                if response.status in {301, 302, 303, 307, 308} and "Location" in response.headers:
                    url = urljoin(url, response.headers["Location"])
                    redirects += 1
                    if redirects > MAX_REDIRECTS or (origin.startswith("https:") and not url.startswith("https:")):
                        raise RegistryError(f"{host}: redirects too often, or away from https", response.status)
                    continue
                yield response
                return

    async def _token(self, ask: Ask) -> Mapping[str, object]:
        headers = {"Authorization": ask.authorization} if ask.authorization else {}
        host = urlsplit(ask.url).netloc
        failures = 0
        while True:
            retry_after = None
            try:
                method = "GET" if ask.form is None else "POST"
                async with self._request(method, ask.url, params=ask.query, data=ask.form, headers=headers) as response:
                    if response.status == 200:
                        return _json_object(await bounded(response, MAX_BODY, host), host)
                    error = await refusal(response, "token", host)
                    if response.status not in RETRIED_STATUS:
                        raise error
                    reason, retry_after = str(error), response.headers.get("Retry-After")
                    # Where it is the registry's own.
                    self._heard(host, reason)
            except NETWORK_ERRORS as error:
                reason = f"{host}: token request failed ({_network(error)})"
            failures += 1
            await self.pause(failures, retry_after, reason)

    def _request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        data: bytes | Mapping[str, str] | None = None,
        params: Sequence[tuple[str, str]] = (),
    ) -> "aiohttp.client._RequestContextManager":
        if self._session is None:
            raise RuntimeError("the transport is used outside of its context")
        # aiohttp sends a stream piece by piece, large bytes at once; and it closes it, so each request has its own.
        content = io.BytesIO(data) if isinstance(data, bytes) and len(data) > SMALL_BYTES else data
        return self._session.request(
            method, url, headers=headers, data=content, params=params, proxy=self._proxy(url), allow_redirects=False
        )

    def _proxy(self, url: str) -> str | None:
        scheme, _, rest = url.partition("://")
        origin = f"{scheme}://{rest.partition('/')[0]}"
        if origin not in self._proxies:
            self._proxies[origin] = machine_proxy(url)
        return self._proxies[origin]


_MACHINES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Where OpenSSL is told of the machine's authorities."""


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """The machine's authorities, and those of a file. A context of the caller's own."""
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=str(ca_file))
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(f"{ca_file}: holds no certificates in PEM form ({error}); name another file") from None
    return context


def _shared_context(ca_file: Path | None) -> ssl.SSLContext:
    """To read the machine's authorities costs more than all requests of a changed entry script: once is enough."""
    state: tuple[float, ...] = ()
    if ca_file is not None:
        with contextlib.suppress(OSError):  # told when it is read
            stat = ca_file.stat()
            state = stat.st_ino, stat.st_mtime_ns, stat.st_size
    return _read_once(ca_file, state, *map(os.environ.get, _MACHINES))


@functools.lru_cache(maxsize=8)
def _read_once(ca_file: Path | None, *_as_it_is_now: object) -> ssl.SSLContext:
    return tls_context(ca_file)


async def bounded(response: aiohttp.ClientResponse, limit: int, host: str) -> bytes:
    """A body up to a limit. Raises RegistryError beyond it."""
    parts = bytearray()
    async for part in response.content.iter_any():
        parts += part
        if len(parts) > limit:
            raise RegistryError(f"{host}: answers with more than {limit} bytes", response.status)
    return bytes(parts)


async def refusal(response: aiohttp.ClientResponse, what: str, host: str) -> RegistryError:
    """The error for a status, in the registry's own words where it has some."""
    try:
        text = await bounded(response, MAX_ERROR_BODY, host)
    except (RegistryError, *NETWORK_ERRORS):
        text = b""
    words = _words(text)
    message = f"{host}: {what} answered {response.status}{f' ({words})' if words else ''}"
    kind = AccessDenied if response.status in {401, 403} else RegistryError
    return kind(message, response.status)


def _words(text: bytes) -> str:
    try:
        errors = json.loads(text)["errors"]
        return "; ".join(f"{one.get('code', '')}: {one.get('message', '')}" for one in errors)[:500]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def _json_object(content: bytes, host: str) -> Mapping[str, object]:
    try:
        raw = json.loads(content)
    except ValueError:
        raw = None
    if not isinstance(raw, dict):
        raise RegistryError(f"{host}: answers with something that is no JSON object")
    return raw


def _network(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
