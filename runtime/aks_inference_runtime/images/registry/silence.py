"""How long a registry may be silent, whoever asks it: a preview of many services waits once."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from aks_inference_runtime.images.errors import RegistryUnavailable

LIMIT_S = 20.0
"""Longer than a connection that is refused and tried again, or a token's server that is slow, takes."""
QUIET_S = 60.0
"""A preview asks for an image twice, and for those of all services: what was silent is not waited for again so soon."""


@dataclass(frozen=True)
class _Mark:
    """A registry was asked, and has answered nobody since."""

    since: float
    why: str = ""
    """What was said of it, where it could not even be asked."""


@dataclass(eq=False)
class _Bound:
    """A request that is under way."""

    timeout: asyncio.Timeout
    since: float
    """When the registry was asked first, or has answered anybody last."""
    refusal: str = ""
    """The registry's last answer, where that was to try again later."""


class Silence:
    """Of the registries that clients ask; those that share one share the wait."""

    def __init__(
        self, limit_s: float = LIMIT_S, quiet_s: float = QUIET_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit_s = limit_s
        self._quiet_s = quiet_s
        self._clock = clock
        self._marks: dict[str, _Mark] = {}
        self._open: dict[str, set[_Bound]] = {}

    @contextlib.asynccontextmanager
    async def bounded(self, host: str) -> AsyncIterator[None]:
        """For one request with all its tries. Raises RegistryUnavailable when the registry's time is over."""
        now = self._clock()
        mark = self._marks.get(host)
        if mark is None or now > mark.since + self._limit_s + self._quiet_s:
            mark = self._marks[host] = _Mark(now)
        left = mark.since + self._limit_s - now
        if left <= 0:
            raise self._over(host, mark)
        bound, silent, why = _Bound(asyncio.timeout(left), mark.since), False, mark.why
        try:
            async with bound.timeout:
                self._open.setdefault(host, set()).add(bound)
                yield
        except TimeoutError:
            if not bound.timeout.expired():
                raise
            if bound.refusal:
                raise RegistryUnavailable(f"{bound.refusal}; waited for {self._limit_s:g} s") from None
            silent = True
            raise self._over(host, mark) from None
        except RegistryUnavailable as error:
            silent = not bound.refusal
            why = str(error)
            raise
        finally:
            self._close(host, bound)
            if silent:
                # Another request that was given up may have taken the mark away.
                self._marks[host] = _Mark(bound.since, why)
            else:
                self._marks.pop(host, None)

    def heard(self, host: str, refusal: str = "") -> None:
        """A registry has answered: who waits for it goes on waiting. `refusal`: its words, where it wants to be asked
        again later."""
        now = self._clock()
        if host in self._marks:
            self._marks[host] = _Mark(now)
        for bound in self._open.get(host, ()):
            bound.since, bound.refusal = now, refusal
            if not bound.timeout.expired():
                bound.timeout.reschedule(asyncio.get_running_loop().time() + self._limit_s)

    def _close(self, host: str, bound: _Bound) -> None:
        others = self._open.get(host, set())
        others.discard(bound)
        if not others:
            self._open.pop(host, None)

    def _over(self, host: str, mark: _Mark) -> RegistryUnavailable:
        why = f" ({mark.why})" if mark.why else ""
        return RegistryUnavailable(f"{host}: no answer within {self._limit_s:g} s{why}")
