"""Reads what an issuer publishes."""

import asyncio
import json
from typing import Any

import aiohttp

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.proxies import machine_proxy

FETCH_S = 5.0
MOST_BYTES = 1_048_576
"""Of a document: hundreds of keys."""


async def fetch(url: str) -> dict[str, Any]:
    """The JSON object at a URL. Raises RuntimeUnavailable. Rare (`keys.FRESH_S`): no connection is kept for it."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(FETCH_S)) as session,
            session.get(url, proxy=machine_proxy(url)) as answer,
        ):
            answer.raise_for_status()
            found = json.loads(await _whole(answer.content))
    except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as error:
        # Not its representation: that shows a proxy's login.
        raise RuntimeUnavailable(f"{url}: {type(error).__name__}: {error}") from None
    if not isinstance(found, dict):
        raise RuntimeUnavailable(f"{url}: no JSON object")
    return found


async def _whole(content: aiohttp.StreamReader) -> bytes:
    try:
        await content.readexactly(MOST_BYTES + 1)
    except asyncio.IncompleteReadError as error:
        return error.partial
    raise ValueError(f"more than {MOST_BYTES} bytes")
