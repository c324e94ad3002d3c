"""An endpoint's state is another one: told to a webhook where there is one."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from aks_inference_runtime.proxies import machine_proxy

ATTEMPT_S = 5.0
PAUSES_S = (1.0, 4.0, 16.0)
"""Between attempts to reach the webhook; after the last one the change is not told."""
MOST_AT_ONCE = 4
"""Attempts: of thousands of endpoints all may change together."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StateChange:
    """An endpoint's state is another one."""

    namespace: str
    name: str
    generation: int
    before: str | None
    """None: it is new."""
    after: str
    message: str
    scoring_uri: str
    at: datetime

    def hook(self) -> dict[str, Any]:
        """What the webhook gets. `text` is what chat systems show."""
        came = f"{self.before} → " if self.before else ""
        why = f": {self.message}" if self.message else ""
        return {
            "text": f"endpoint {self.namespace}/{self.name}: {came}{self.after}{why}",
            "endpoint": self.name,
            "namespace": self.namespace,
            "generation": self.generation,
            "before": self.before,
            "state": self.after,
            "message": self.message,
            "scoringUri": self.scoring_uri,
            "time": self.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        }


class Hook:
    """Tells changes; one that cannot be told is logged, and holds nothing up."""

    def __init__(self, address: Path | None) -> None:
        """`address`: the file with the webhook's address, a secret; read for each change, so that a new one counts at
        once. None, or no such file: nobody is told."""
        self._file = address
        self._newest: dict[tuple[str, str], StateChange] = {}
        """By endpoint, of those that are being told."""
        self._few = asyncio.Semaphore(MOST_AT_ONCE)

    async def tell(self, change: StateChange) -> None:
        """Tries it some times. While an earlier one of the same endpoint is under way that goes on with this one: the
        last one that is told is the newest."""
        key = (change.namespace, change.name)
        under_way = key in self._newest
        self._newest[key] = change
        if under_way:
            return
        try:
            told = None
            while told is not self._newest[key]:
                told = await self._tell(key)
        finally:
            del self._newest[key]

    async def _tell(self, key: tuple[str, str]) -> StateChange:
        """The newest, which may become another one between two attempts; gives the one of the last attempt."""
        for pause in (*PAUSES_S, None):
            async with self._few:
                change = self._newest[key]
                url = self._address()
                problem = "" if url is None else await _post(url, change.hook())
            if not problem or pause is None:
                break
            await asyncio.sleep(pause)
        if problem:
            # Its address is a secret: whoever has it may write there.
            _log.warning("the webhook was not told of %s/%s: %s", change.namespace, change.name, problem)
        return change

    def _address(self) -> str | None:
        if self._file is None:
            return None
        try:
            return self._file.read_text().strip() or None
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("the webhook's address cannot be read: %s", type(error).__name__)
            return None


async def _post(url: str, body: Mapping[str, Any]) -> str:
    """Nothing, or what went wrong."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(ATTEMPT_S)) as session,
            session.post(url, json=body, proxy=machine_proxy(url)) as answer,
        ):
            return "" if answer.status < 300 else f"status {answer.status}"
    except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
        return type(error).__name__
