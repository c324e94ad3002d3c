"""What a virtual machine costs by the hour."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from types import MappingProxyType

from aks_inference.facts.table import read


@dataclass(frozen=True)
class PriceList:
    """Linux, pay as you go. It holds no spot prices: those change by the hour."""

    source: str
    date: date
    regions: tuple[str, ...]
    usd_per_hour: Mapping[str, tuple[float | None, ...]]
    """By size in lower case; one price per region, in the order of `regions`."""

    def hourly(self, size: str, region: str) -> float | None:
        """USD per hour; None where the list does not say."""
        prices = self.usd_per_hour.get(size.lower())
        return prices[self.regions.index(region)] if prices and region in self.regions else None


@cache
def price_list() -> PriceList:
    """The compiled list."""
    table = read("prices.json")
    prices = {name.lower(): tuple(prices) for name, *prices in table.records}
    return PriceList(table.source, table.date, table.columns[1:], MappingProxyType(prices))
