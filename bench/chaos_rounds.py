"""What a round of faults came to, and what several came to together; a run that ended between two goes on there."""

import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.harness import ROOT

WITHIN_S = 0.1
"""What was due so long before a fault may be under way when it comes."""

Records = list[tuple[float, float, int, str]]


@dataclass(frozen=True)
class Round:
    """The figures of faults that parts of their own had: routers, replicas, API server and clients."""

    faults: Sequence[str]
    gaps_ms: Sequence[float]
    """After each fault."""
    requests: int
    good: int
    failed: Mapping[str, Mapping[str, int]]
    """By the fault before, status and reason."""
    unanswered: int
    slowest_ms: float
    over_admissions: int
    lost_endpoints: int


def observed(records: Records, at: Sequence[tuple[float, str]], most: Sequence[int], lost: int) -> Round:
    """From what became of each request, the times of the faults, and the replicas' highest counts."""
    good = sorted(answered for _, answered, status, _ in records if status == 200)
    after: dict[str, Counter[str]] = {}
    for due, _, status, reason in records:
        if status != 200:
            before = [name for moment, name in at if moment <= due + WITHIN_S] or ["before"]
            after.setdefault(before[-1], Counter())[f"{status} {reason}".strip()] += 1
    return Round(
        faults=[name for _, name in at],
        gaps_ms=[1_000 * gap(good, began, until) for (began, _), (until, _) in pairwise([*at, (good[-1], "")])],
        requests=len(records),
        good=len(good),
        failed={name: dict(counts) for name, counts in after.items()},
        unanswered=sum(status == 0 and reason == "TimeoutError" for _, _, status, reason in records),
        slowest_ms=1_000 * max(answered - due for due, answered, _, _ in records),
        over_admissions=sum(count - 1 for count in most),
        lost_endpoints=lost,
    )


def gap(good: Sequence[float], began: float, until: float) -> float:
    """The longest time without a good answer from a fault to the next one."""
    within = [began, *(moment for moment in good if began < moment < until)]
    return max((b - a for a, b in pairwise(within)), default=until - began)


def together(rounds: Sequence[Round]) -> dict[str, Any]:
    """The figures of all."""
    gaps = sorted(length for one in rounds for length in one.gaps_ms)
    worst: dict[str, float] = {}
    failed: dict[str, Counter[str]] = {}
    for one in rounds:
        for name, length in zip(one.faults, one.gaps_ms, strict=True):
            worst[name] = max(worst.get(name, 0.0), round(length))
        for name, counts in one.failed.items():
            failed.setdefault(name, Counter()).update(counts)
    requests = sum(one.requests for one in rounds)
    return {
        "over_admissions": sum(one.over_admissions for one in rounds),
        "success": round(sum(one.good for one in rounds) / requests, 5),
        "gap_p99_ms": round(gaps[min(len(gaps) - 1, int(0.99 * len(gaps)))]),
        "lost_endpoints": sum(one.lost_endpoints for one in rounds),
        "unanswered": sum(one.unanswered for one in rounds),
        "slowest_ms": round(max(one.slowest_ms for one in rounds)),
        "requests": requests,
        "failed": {name: dict(counts) for name, counts in failed.items()},
        "longest_gap_ms": worst,
    }


class Kept:
    """The rounds of a run that is not through, in the system's folder for temporary files; of this commit only."""

    def __init__(self, order: Sequence[str]) -> None:
        self._path = Path(tempfile.gettempdir()) / f"aks-inference-chaos-{os.getuid()}.json"
        said = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout
        self._run = sha256(json.dumps([said, *order]).encode()).hexdigest()

    def read(self) -> list[Round]:
        """None of another run."""
        try:
            found = json.loads(self._path.read_text())
            return [Round(**one) for one in found["rounds"]] if found["run"] == self._run else []
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def write(self, rounds: Sequence[Round]) -> None:
        """Those so far."""
        self._path.write_text(json.dumps({"run": self._run, "rounds": [asdict(one) for one in rounds]}))

    def forget(self) -> None:
        """The run is through."""
        self._path.unlink(missing_ok=True)
