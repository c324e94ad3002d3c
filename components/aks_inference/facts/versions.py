"""The calendar of Kubernetes versions on AKS."""

import calendar
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from types import MappingProxyType

from aks_inference.facts.table import read


@dataclass(frozen=True)
class KubernetesVersion:
    """One minor version. The page gives months for the first two: the last day of the month is taken."""

    minor: tuple[int, int]
    """(1, 35)."""
    preview: date
    ga: date
    end_of_life: date
    lts_end_of_life: date

    @property
    def name(self) -> str:
        """`1.35`."""
        return f"{self.minor[0]}.{self.minor[1]}"


@dataclass(frozen=True)
class VersionCalendar:
    """All versions of the page."""

    source: str
    date: date
    """The day of the page: what it says of later days is a plan."""
    versions: Mapping[tuple[int, int], KubernetesVersion]


@cache
def version_calendar() -> VersionCalendar:
    """The compiled calendar."""
    table = read("kubernetes_versions.json")
    versions = [KubernetesVersion(_minor(minor), *(_last_day(day) for day in days)) for minor, *days in table.records]
    return VersionCalendar(table.source, table.date, MappingProxyType({version.minor: version for version in versions}))


def _minor(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


def _last_day(text: str) -> date:
    """`2026-06` → 30 June 2026; `2026-06-15` → itself."""
    year, month, *day = map(int, text.split("-"))
    return date(year, month, day[0] if day else calendar.monthrange(year, month)[1])
