"""An issuer's public keys: fetched when needed, again when a token names an unknown one, kept while it is away.

Only a token whose key is not at hand waits for them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from aks_inference_runtime.api.errors import RuntimeUnavailable

FRESH_S = 3_600.0
"""Keys older than this are used only where the issuer does not give others: a key that was withdrawn is forgotten."""
RENEW_S = 0.75 * FRESH_S
"""From then on they are fetched again, and no token waits for that."""
PATIENCE_S = 1.0
"""So long one waits that comes first after a long time, for what the issuer says now. A silent one holds nobody up."""
UNKNOWN_S = 10.0
"""At most so often for tokens that name a key which is not there: anybody can send such."""

RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
"""RFC 7518, 3.4: an algorithm for each."""
ALGORITHMS = (*RSA_ALGORITHMS, *CURVES.values())
"""Signatures with a public key; a shared secret or none is never accepted."""

Fetch = Callable[[str], Awaitable[dict[str, Any]]]
"""A JSON document by its URL; raises RuntimeUnavailable."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """A public key of an issuer."""

    name: str | None
    """Its `kid`."""
    algorithms: tuple[str, ...]
    """That it signs with: the one that the issuer says, else all of its type."""
    public: Any
    """As PyJWT takes it."""


class IssuerKeys:
    """Of one issuer."""

    def __init__(self, issuer: str, jwks_uri: str | None, fetch: Fetch, clock: Callable[[], float]) -> None:
        self._issuer = issuer
        self._uri = jwks_uri
        self._fetch = fetch
        self._clock = clock
        self._keys: tuple[Key, ...] = ()
        self._tried: float | None = None
        self._fetched: float | None = None
        self._failed = False
        """The newest attempt to read them."""
        self._reading: asyncio.Task[None] | None = None

    async def key(self, name: str | None, algorithm: str) -> Key | None:
        """The key of that name (`kid`) for signatures of that kind; without a name the only one there is for them
        (OpenID Connect Core 10.1). None: the issuer has none.

        Raises RuntimeUnavailable when that cannot be told, because its keys cannot be read.
        """
        now = self._clock()
        found = self._fitting(name, algorithm)
        if found is None or self._older(RENEW_S, now):
            self._begin(now)
        if self._reading is not None and (found is None or (self._older(FRESH_S, now) and not self._failed)):
            patience = max(0.0, (self._tried or now) + PATIENCE_S - now)
            # One attempt for all: whoever leaves does not end it.
            await asyncio.wait([self._reading], timeout=patience if found is not None else None)
            found = self._fitting(name, algorithm)
        if found is None and self._failed:
            raise RuntimeUnavailable(f"the keys of {self._issuer} could not be read")
        return found

    async def close(self) -> None:
        """Ends reading."""
        if (reading := self._reading) is not None:
            self._failed = True
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    def _begin(self, now: float) -> None:
        if self._reading is None and (self._tried is None or not 0 <= now - self._tried < UNKNOWN_S):
            self._tried = now
            self._reading = asyncio.create_task(self._read(now))
            self._reading.add_done_callback(self._done)

    def _done(self, _: asyncio.Task[None]) -> None:
        self._reading = None

    def _fitting(self, name: str | None, algorithm: str) -> Key | None:
        fitting = [key for key in self._keys if algorithm in key.algorithms and name in (None, key.name)]
        return fitting[0] if len(fitting) == 1 or (fitting and name is not None) else None

    def _older(self, seconds: float, now: float) -> bool:
        return self._fetched is None or not 0 <= now - self._fetched < seconds

    async def _read(self, now: float) -> None:
        try:
            uri = self._uri
            if uri is None:
                document = await self._fetch(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
                uri = str(document["jwks_uri"])
            found = await self._fetch(uri)
            keys = []
            for entry in found["keys"]:
                if entry.get("use", "sig") == "sig":
                    try:
                        keys.append(_read(entry))
                    except (jwt.PyJWTError, ValueError, KeyError) as error:
                        _log.info("a key of %s is of a kind that is not used: %s", self._issuer, error)
        except Exception as error:  # noqa: BLE001 - whatever it publishes, what was read before stays
            _log.warning("the keys of %s were not read: %r", self._issuer, error)
            self._failed = True
            return
        self._keys, self._fetched, self._failed = tuple(keys), now, False


def _read(entry: Mapping[str, Any]) -> Key:
    """Raises PyJWTError, ValueError, KeyError."""
    of_type = RSA_ALGORITHMS if entry.get("kty") == "RSA" else (CURVES[str(entry.get("crv"))],)
    said = entry.get("alg")
    algorithms = of_type if said is None else tuple(one for one in of_type if one == said)
    if not algorithms:
        raise ValueError(f"alg {said!r} for kty {entry.get('kty')!r}")
    name = None if entry.get("kid") is None else str(entry["kid"])
    return Key(name, algorithms, jwt.PyJWK.from_dict(dict(entry), algorithms[0]).key)
