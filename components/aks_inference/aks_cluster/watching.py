"""What Azure is doing, while it takes its minutes: the operation, since when, and the state that Azure gives it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from aks_inference.aks_cluster.azure import AZURE_NATIVE_VERSION

STATUS_S = 15.0
"""Between two states for a display that keeps the last one."""
LINE_S = 60.0
"""Between two lines for a log that keeps all."""
_GET = "azure-native:containerservice:get"

State = Callable[[], Awaitable[str | None]]
Say = Callable[[str, bool], None]
"""With whether it is only for the moment."""


@dataclass(frozen=True)
class Work:
    """A long operation of Azure's."""

    what: str
    usual_minutes: int
    longest_minutes: int

    def text(self, spent_s: float, state: str | None) -> str:
        """`AKS cluster prod: Creating, since 3 min; usually about 10, given up after 60`."""
        since = f"{spent_s / 60:.0f} min" if spent_s >= 60 else f"{spent_s:.0f} s"
        doing = f"{state}, since {since}" if state else f"asked for {since} ago"
        return f"{self.what}: {doing}; usually about {self.usual_minutes} min, given up after {self.longest_minutes}"


async def watch(
    work: Work,
    begun: Awaitable[object],
    over: Awaitable[object],
    state: State,
    say: Say,
    status_s: float = STATUS_S,
    line_s: float = LINE_S,
) -> None:
    """Tells how it goes from `begun` until `over`. What ends sooner than that is not told."""
    end = asyncio.ensure_future(over)
    start = asyncio.ensure_future(begun)
    for each in (start, end):
        # Who registered the resource is told why it failed.
        each.add_done_callback(_well)
    await asyncio.wait((start, end), return_when=asyncio.FIRST_COMPLETED)
    if not _well(start):
        start.cancel()
        return
    clock = asyncio.get_running_loop().time
    since = last_line = clock()
    told = False
    while not end.done():
        await asyncio.wait((end,), timeout=status_s)
        if end.done():
            break
        found = await state()
        lasting = clock() - last_line >= line_s or not told
        if lasting:
            last_line = clock()
        say(work.text(clock() - since, found), not lasting)
        told = True
    if told and _well(end):
        say(f"{work.what}: done after {max(1, round((clock() - since) / 60))} min", False)


def follow(component: pulumi.Resource, work: Work, begun: object, made: pulumi.CustomResource, state: State) -> None:
    """Watches a resource while the program waits for it; not in a preview."""
    if pulumi.runtime.is_dry_run():
        return

    def say(text: str, passing: bool) -> None:
        pulumi.log.info(text, resource=component, ephemeral=passing)

    first = pulumi.Output.from_input(begun).future()
    _tasks.add(task := asyncio.ensure_future(watch(work, first, made.id.future(), state, say, STATUS_S, LINE_S)))
    task.add_done_callback(_tasks.discard)


def state_of(kind: str, inputs: Mapping[str, Any]) -> State:
    """Asks Azure, signed in as Pulumi is. `kind`: ManagedCluster or AgentPool."""

    async def state() -> str | None:
        known = {name: await pulumi.Output.from_input(value).future() for name, value in inputs.items()}
        versioned = pulumi.InvokeOptions(version=AZURE_NATIVE_VERSION)
        try:
            found = await pulumi.runtime.invoke_async(f"{_GET}{kind}", known, versioned)
        except Exception:  # noqa: BLE001 - the SDK raises nothing else; who only looks must not end what goes on
            return None
        return str(found["provisioningState"]) if found and found.get("provisioningState") else None

    return state


_tasks: set[asyncio.Task[None]] = set()


def _well(future: "asyncio.Future[object]") -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
