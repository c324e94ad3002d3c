"""How long a registry may be silent, whoever asks it: a preview of many services waits once."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from aks_inference_runtime.images.errors import RegistryUnavailable

LIMIT_S = 20.0
"""Longer than a connection that is refused and tried again, or a token's server that is slow, takes."""
QUIET_S = 60.0
"""A preview asks for an image twice, and for those of all services: what was silent is not waited for again so soon."""


class Silence:
    """Of the registries that clients ask; those that share one share the wait."""

    def __init__(
        self, limit_s: float = LIMIT_S, quiet_s: float = QUIET_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit_s = limit_s
        self._quiet_s = quiet_s
        self._clock = clock
        self._since: dict[str, float] = {}
        """When a registry was asked that has answered nobody since."""

    @contextlib.asynccontextmanager
    async def bounded(self, host: str) -> AsyncIterator[None]:
        """For one request with all its tries. Raises RegistryUnavailable when the registry's time is over."""
        now = self._clock()
        if now > self._since.get(host, now) + self._limit_s + self._quiet_s:
            del self._since[host]
        left = self._since.setdefault(host, now) + self._limit_s - now
        over = RegistryUnavailable(f"{host}: no answer within {self._limit_s:g} s")
        if left <= 0:
            raise over
        try:
            async with asyncio.timeout(left) as bound:
                yield
        except TimeoutError:
            if bound.expired():
                raise over from None
            raise
        except RegistryUnavailable:
            raise
        except Exception:
            self._since.pop(host, None)
            raise
        self._since.pop(host, None)
