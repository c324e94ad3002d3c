"""Metrics are asked for as Prometheus does it while something is measured."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.chaos_bed import AUTOSCALERS, ROUTERS, Chaos

EVERY_S = 1.0


@asynccontextmanager
async def scraped(bed: Chaos) -> AsyncIterator[list[int]]:
    """Of routers, autoscalers and gates, until the block ends; fills a list with the bytes of each round.

    Raises what a round ended with."""
    agents = [*ROUTERS.values(), *AUTOSCALERS.values()]
    urls = [f"http://{address}:{bed.bed.agent_port}/metrics" for address in agents]
    urls += [f"http://{replica.address}:{replica.ports[2]}/metrics" for replica in bed.replicas]
    rounds: list[int] = []

    async def one(url: str) -> int:
        async with bed.session.get(url, raise_for_status=True) as answer:
            return len(await answer.read())

    async def scrape() -> None:
        while True:
            rounds.append(sum(await asyncio.gather(*map(one, urls))))
            await asyncio.sleep(EVERY_S)

    scraping = asyncio.create_task(scrape())
    try:
        yield rounds
    finally:
        scraping.cancel()
        (ended,) = await asyncio.gather(scraping, return_exceptions=True)
    if isinstance(ended, Exception):
        raise ended
