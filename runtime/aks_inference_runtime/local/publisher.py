"""Tells the router what to serve: always the newest, one at a time, again until it has taken it."""

import asyncio
import logging
from collections.abc import Callable

from aks_inference_runtime.router.model import Router, RouterState

RETRY_S = 0.5
_log = logging.getLogger(__name__)


class Publisher:
    """Several callers at once share one round."""

    def __init__(self, router: Router, state: Callable[[], RouterState]) -> None:
        self._router = router
        self._state = state
        self._lock = asyncio.Lock()
        self._last: RouterState | None = None

    async def publish(self) -> None:
        """Returns when the router serves what was wanted at the call or later. Raises what the router raises."""
        async with self._lock:
            state = self._state()
            if state == self._last:
                return
            self._last = None
            await self._router.apply(state)
            self._last = state

    async def keep_trying(self) -> None:
        """Until cancelled: publishes again what failed."""
        while True:
            await asyncio.sleep(RETRY_S)
            try:
                await self.publish()
            except Exception:  # noqa: BLE001 - whatever the router met, the next round tries again
                _log.exception("the router did not take the new state; it is tried again")
