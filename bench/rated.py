"""One turn at a constant rate, and what a process spends on it."""

import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.router import output

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_STOLEN = 7
"""Its place among the kinds of time in /proc/stat."""


async def rated(address: str, rate: float, seconds: float, path: str, *headers: str) -> dict[str, float]:
    """One turn, by a process of its own. `address`: `[host:]port`, or several with commas between.

    `stolen`: the share of this machine's time that its host gave to others meanwhile, where it tells."""
    before = _machine_ticks()
    said = await output(sys.executable, "-m", "bench.constant_rate", address, str(rate), str(seconds), path, *headers)
    spent = [after - earlier for after, earlier in zip(_machine_ticks(), before, strict=True)]
    return {**json.loads(said), "stolen": round(spent[_STOLEN] / max(1, sum(spent)), 4)}


def added(ours: Sequence[Mapping[str, float]], direct: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What some turns took longer than others: of the least disturbed turn of each, and by their medians."""
    found = {}
    for what in ("mean_ms", "p99_ms"):
        for prefix, chosen in (("added", min), ("median_added", statistics.median)):
            longer = chosen(turn[what] for turn in ours) - chosen(turn[what] for turn in direct)
            found[f"{prefix}_{what}"] = round(longer, 3)
    return found


def per_core(told: Mapping[str, float], spent_ticks: int) -> float:
    """Good answers of a CPU second."""
    return (told["requests"] - told["failed"]) / max(spent_ticks / TICKS_PER_S, 1 / TICKS_PER_S)


def ticks(pid: int) -> int:
    """Of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _machine_ticks() -> list[int]:
    # The last two kinds are counted within the first two.
    return list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
