"""Reads what an issuer publishes."""

from typing import Any

import aiohttp

from aks_inference_runtime.api.errors import RuntimeUnavailable

FETCH_S = 5.0


async def fetch(url: str) -> dict[str, Any]:
    """The JSON object at a URL. Raises RuntimeUnavailable. Rare (`keys.FRESH_S`): no connection is kept for it."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(FETCH_S)) as session,
            session.get(url) as answer,
        ):
            answer.raise_for_status()
            found = await answer.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise RuntimeUnavailable(f"{url}: {error!r}") from None
    if not isinstance(found, dict):
        raise RuntimeUnavailable(f"{url}: no JSON object")
    return found
