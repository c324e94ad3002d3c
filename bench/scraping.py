"""Metrics are asked for as Prometheus does it while something is measured."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle

from bench.chaos_bed import AUTOSCALERS, ROUTERS, Chaos

EVERY_S = 15.0
"""For each; one after the other, spread over it."""


@asynccontextmanager
async def scraped(bed: Chaos) -> AsyncIterator[list[int]]:
    """Of routers, autoscalers and gates, until the block ends; fills a list with the bytes of each answer.

    Raises what an answer ended with."""
    agents = [*ROUTERS.values(), *AUTOSCALERS.values()]
    urls = [f"http://{address}:{bed.bed.agent_port}/metrics" for address in agents]
    urls += [f"http://{replica.address}:{replica.ports[2]}/metrics" for replica in bed.replicas]
    answers: list[int] = []

    async def one(url: str) -> int:
        async with bed.session.get(url, raise_for_status=True) as answer:
            return len(await answer.read())

    async def scrape() -> None:
        for url in cycle(urls):
            answers.append(await one(url))
            await asyncio.sleep(EVERY_S / len(urls))

    scraping = asyncio.create_task(scrape())
    try:
        yield answers
    finally:
        scraping.cancel()
        (ended,) = await asyncio.gather(scraping, return_exceptions=True)
    if isinstance(ended, Exception):
        raise ended
