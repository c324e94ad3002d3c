"""Clients that were answered before their body had come, and send the rest too slowly.

`refuse.lua` drops what comes after such an answer, for `refusals.DROP_SECONDS`; but Lua in HAProxy waits for 64 KiB at
a time, and who sends a byte now and then would hold a connection for days. So it names those who are late, and the
agent ends their streams: HAProxy is asked for its streams only where somebody is late.
"""

import re

from aks_inference_runtime.router import refusals
from aks_inference_runtime.router.admin import AdminSocket

MOST = 200
"""Streams that are ended at once; the rest has its turn at the next look."""
_OWN_FRONTENDS = frozenset({"GLOBAL", "park", "hold"})
_STREAM = re.compile(r"(0x[0-9a-f]+): proto=\S+ src=(\S+) fe=(\S+) be=\S+ srv=<none> .* age=(\S+) .* scb=\[8,")
"""A stream that HAProxy answers itself (state 8 of its server side, and no server)."""
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def named(lines: list[str]) -> frozenset[str]:
    """From `show refused`: where those are who are late, as `<address>:<port>`, or `unix`."""
    return frozenset(line.removeprefix("late ") for line in lines if line.startswith("late "))


def streams(text: str, late: frozenset[str], older_s: float) -> list[str]:
    """From `show sess`: the streams of those who are late. Those of a Unix socket have no name of their own."""
    found = []
    for line in text.splitlines():
        match = _STREAM.match(line)
        if match is None or match[3] in _OWN_FRONTENDS or _age_s(match[4]) < older_s:
            continue
        # A connection may have a later request already: that one is young.
        if ("unix" if match[2].startswith("unix:") else match[2]) in late:
            found.append(match[1])
    return found[:MOST]


async def end(admin: AdminSocket, lines: list[str]) -> None:
    """Ends who is late by the answer to `show refused`. Raises RuntimeUnavailable when HAProxy does not answer."""
    late = named(lines)
    if late:
        found = streams(await admin.run("show sess"), late, refusals.DROP_SECONDS)
        for stream in found:
            await admin.run(f"shutdown session {stream}")


def _age_s(text: str) -> int:
    """`1m30s` in seconds."""
    return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"(\d+)([dhms])", text))
