"""What sees of a target only its address and the keys."""

import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from testbed.project import Project

KEY = "contract-key-1"


@dataclass(frozen=True)
class Answer:
    status: int
    reason: str
    version: str
    text: str
    headers: Any
    seconds: float


class Client:
    """Asks the endpoints at one address."""

    def __init__(self, address: str, session: aiohttp.ClientSession) -> None:
        self.address, self.session = address, session

    async def score(
        self,
        body: object = None,
        endpoint: str = "contract",
        key: str | None = KEY,
        method: str = "POST",
        **headers: str,
    ) -> Answer:
        sent = {**({"Authorization": f"Bearer {key}"} if key else {}), **headers}
        begun = time.monotonic()
        uri = f"http://{self.address}/api/v1/service/{endpoint}/score"
        async with self.session.request(method, uri, json=body or {}, headers=sent) as answer:
            text = await answer.text()
            told = answer.headers
            return Answer(
                answer.status,
                told.get("x-aks-inference-reason", ""),
                told.get("x-aks-inference-version", ""),
                text,
                told,
                time.monotonic() - begun,
            )


@dataclass(frozen=True)
class Target:
    """What serves."""

    address: str
    """`host:port`."""
    project: Project
