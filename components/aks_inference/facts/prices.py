"""What a virtual machine costs by the hour."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache

from aks_inference.facts.table import read


@dataclass(frozen=True)
class PriceList:
    """Linux, pay as you go. It holds no spot prices: those change by the hour."""

    source: str
    date: date
    regions: frozenset[str]
    usd_per_hour: Mapping[tuple[str, str], float]
    """By (size in lower case, region)."""

    def hourly(self, size: str, region: str) -> float | None:
        """USD per hour; None where the list does not say."""
        return self.usd_per_hour.get((size.lower(), region))


@cache
def price_list() -> PriceList:
    """The compiled list."""
    table = read("prices.json")
    regions = table.columns[1:]
    return PriceList(
        source=table.source,
        date=table.date,
        regions=frozenset(regions),
        usd_per_hour={
            (name.lower(), region): price
            for name, *prices in table.records
            for region, price in zip(regions, prices, strict=True)
            if price is not None
        },
    )
