"""What a whole run of the tests came to, as one JSON file."""

import json
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

OUTCOMES = ("passed", "failed", "error", "skipped", "rerun")


def summary(stats: dict[str, list[Any]], seconds: float, area: Callable[[str], str]) -> dict[str, Any]:
    """Counts, the names of what failed, why what was skipped was, the seconds of each area.

    `stats`: of pytest's terminal reporter. `area`: of a test's id.
    """
    areas: Counter[str] = Counter()
    for report in (report for each in stats.values() for report in each if hasattr(report, "duration")):
        areas[area(report.nodeid)] += report.duration
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    skipped = Counter(_reason(report) for report in stats.get("skipped", ()))
    return {
        **{name: len(stats.get(name, ())) for name in OUTCOMES},
        "seconds": round(seconds),
        "not_passed": sorted(
            {report.nodeid for name in ("failed", "error", "rerun") for report in stats.get(name, ())}
        ),
        "skipped_because": dict(sorted(skipped.items())),
        "seconds_of_areas": {name: round(taken) for name, taken in areas.most_common()},
        "machine": {
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "python": platform.python_version(),
        },
        "commit": commit.stdout.strip() or None,
    }


def write(path: Path, stats: dict[str, list[Any]], seconds: float, area: Callable[[str], str]) -> None:
    """See `summary`."""
    path.write_text(json.dumps(summary(stats, seconds, area), indent=2) + "\n")


def _reason(report: Any) -> str:
    told = report.longrepr
    return str(told[2] if isinstance(told, tuple) else told).removeprefix("Skipped: ")
