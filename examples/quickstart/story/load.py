"""Load on the service until the autoscaler has answered it, and the way back."""

import asyncio
import time
from collections.abc import Callable, Sequence

from engine import StoryError
from places import Place
from scoring import Tally, press

SERVICE = "diabetes-service"
CLIENTS = 8
WANTED_REPLICAS = 3
LIMIT_S = 120
LOOK_EVERY_S = 0.3


async def _ready(place: Place) -> tuple[int, str]:
    for view in await place.status():
        if view["name"] == SERVICE:
            (version,) = view["versions"]
            return version["replicasReady"], version.get("lastScaling", "")
    raise StoryError(f"no service {SERVICE}")


async def scale_up_and_down(
    place: Place, uri: str, key: str, rows: Sequence[Sequence[float]], say: Callable[[str], None]
) -> tuple[list[int], Tally]:
    """Presses until three replicas serve, then waits for one. Returns the counts as they moved, and the tally."""
    seen: list[int] = []
    begun = time.monotonic()
    released = False

    async def watch(reached: Callable[[int], bool], what: str) -> None:
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            count, why = await _ready(place)
            if not seen or seen[-1] != count:
                seen.append(count)
                say(f"{time.monotonic() - begun:5.1f} s  {'█' * count} {count} ready   {why}")
            if reached(count):
                return
            await asyncio.sleep(LOOK_EVERY_S)
        raise StoryError(f"{what} not within {LIMIT_S} s; replicas so far: {seen}")

    async def up() -> None:
        nonlocal released
        try:
            await watch(lambda count: count >= WANTED_REPLICAS, f"{WANTED_REPLICAS} replicas")
        finally:
            released = True

    tally, _ = await asyncio.gather(press(uri, key, rows, CLIENTS, lambda: released), up())
    say(f"{time.monotonic() - begun:5.1f} s  load ends")
    await watch(lambda count: count == 1, "back to 1 replica")
    return seen, tally
