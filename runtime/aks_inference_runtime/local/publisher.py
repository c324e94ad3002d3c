"""Tells the router what to serve: always the newest, one at a time, again until it has taken it."""

import asyncio
import logging
from collections.abc import Callable

from aks_inference_runtime.router.model import Router, RouterState

RETRY_S = 0.5
_log = logging.getLogger(__name__)


class Publisher:
    """Rounds are tasks of their own: who waits for one may leave without ending it for the others."""

    def __init__(self, router: Router, state: Callable[[], RouterState]) -> None:
        self._router = router
        self._state = state
        self._last: RouterState | None = None
        self._present: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None
        """Has not looked at the state yet: whoever comes now shares it."""

    async def publish(self) -> None:
        """Returns when the router serves what was wanted at the call or later. Raises what the router raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._round(self._present), name="publish")
            self._next.add_done_callback(_retrieved)
        await asyncio.shield(self._next)

    async def keep_trying(self) -> None:
        """Until cancelled: publishes again what failed."""
        told = ""
        while True:
            await asyncio.sleep(RETRY_S)
            try:
                await self.publish()
            except Exception as error:  # noqa: BLE001 - whatever the router met, the next round tries again
                if repr(error) != told:
                    _log.exception("the router did not take the new state; it is tried again")
                told = repr(error)
            else:
                told = ""

    async def close(self) -> None:
        """Ends what is under way; who waits for it is told by a cancellation."""
        rounds = [task for task in (self._next, self._present) if task is not None]
        for task in rounds:
            task.cancel()
        await asyncio.gather(*rounds, return_exceptions=True)

    async def _round(self, before: "asyncio.Task[None] | None") -> None:
        try:
            if before is not None:
                await asyncio.wait([before])
        finally:
            self._present, self._next = self._next, None
        state = self._state()
        if state == self._last:
            return
        self._last = None
        await self._router.apply(state)
        self._last = state


def _retrieved(task: "asyncio.Task[None]") -> None:
    """All who waited may have left: then nobody asks for the error, and the next round tells it."""
    if not task.cancelled():
        task.exception()
