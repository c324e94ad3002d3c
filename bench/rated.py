"""One turn at a constant rate, and what a process spends on it."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.router import output

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


async def rated(address: str, rate: float, seconds: float, path: str, *headers: str) -> dict[str, float]:
    """One turn, by a process of its own. `address`: `[host:]port`, or several with commas between."""
    said = await output(sys.executable, "-m", "bench.constant_rate", address, str(rate), str(seconds), path, *headers)
    return dict(json.loads(said))


def per_core(told: Mapping[str, float], spent_ticks: int) -> float:
    """Good answers of a CPU second."""
    return (told["requests"] - told["failed"]) / max(spent_ticks / TICKS_PER_S, 1 / TICKS_PER_S)


def ticks(pid: int) -> int:
    """Of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
