"""An issuer's public keys: fetched when needed, again when a token names an unknown one, kept while it is away."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import jwt

from aks_inference_runtime.api.errors import RuntimeUnavailable

FRESH_S = 3_600.0
"""Keys older than this are fetched again: a key that was withdrawn is forgotten by then."""
UNKNOWN_S = 10.0
"""At most so often for tokens that name a key which is not there: anybody can send such."""

Fetch = Callable[[str], Awaitable[dict[str, Any]]]
"""A JSON document by its URL; raises RuntimeUnavailable."""
_log = logging.getLogger(__name__)


class IssuerKeys:
    """Of one issuer."""

    def __init__(self, issuer: str, jwks_uri: str | None, fetch: Fetch, clock: Callable[[], float]) -> None:
        self._issuer = issuer
        self._uri = jwks_uri
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._tried: float | None = None
        self._fetched: float | None = None
        self._failed = False
        """The newest attempt to read them."""
        self._lock = asyncio.Lock()

    async def key(self, name: str) -> jwt.PyJWK | None:
        """The key of that name (`kid`); None: the issuer has none.

        Raises RuntimeUnavailable when that cannot be told, because its keys cannot be read.
        """
        if name in self._keys and not self._stale(self._clock()):
            # Not behind whoever waits for a slow issuer: anybody can send a token that names an unknown key.
            return self._keys[name]
        async with self._lock:
            now = self._clock()
            missing = name not in self._keys
            if (self._stale(now) or missing) and (self._tried is None or not 0 <= now - self._tried < UNKNOWN_S):
                self._tried = now
                await self._read(now)
            if name not in self._keys and self._failed:
                raise RuntimeUnavailable(f"the keys of {self._issuer} could not be read")
            return self._keys.get(name)

    def _stale(self, now: float) -> bool:
        return self._fetched is None or not 0 <= now - self._fetched < FRESH_S

    async def _read(self, now: float) -> None:
        try:
            uri = self._uri
            if uri is None:
                document = await self._fetch(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
                uri = str(document["jwks_uri"])
            found = await self._fetch(uri)
            keys = {}
            for entry in found["keys"]:
                if entry.get("kid") and entry.get("use", "sig") == "sig":
                    try:
                        keys[str(entry["kid"])] = jwt.PyJWK.from_dict(entry, entry.get("alg") or _algorithm(entry))
                    except (jwt.PyJWTError, ValueError, KeyError) as error:
                        _log.info("a key of %s is of a kind that is not used: %s", self._issuer, error)
        except (RuntimeUnavailable, KeyError, TypeError, AttributeError) as error:
            _log.warning("the keys of %s were not read: %r", self._issuer, error)
            self._failed = True
            return
        self._keys, self._fetched, self._failed = keys, now, False


def _algorithm(entry: dict[str, Any]) -> str:
    if entry.get("kty") == "RSA":
        return "RS256"
    return {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}[str(entry.get("crv"))]
