"""What the declared nodes and the tier cost a month, from minimum to maximum."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from aks_inference.cluster_rules.model import Pool
from aks_inference.facts import PriceList, short_region

HOURS_PER_MONTH = 730
"""As Azure's own price pages count."""
TIER_USD_PER_HOUR = {"Free": 0.0, "Standard": 0.10, "Premium": 0.60}
"""Management of one cluster (azure.microsoft.com/pricing/details/kubernetes-service); other clouds may differ."""
NOT_COUNTED = "discs, load balancer, traffic, registry, storage and logs are not counted"


@dataclass(frozen=True)
class CostLine:
    """A part of the bill, USD a month. None: not known."""

    name: str
    lowest: float | None
    highest: float | None
    note: str = ""


@dataclass(frozen=True)
class Cost:
    """The bill of the nodes and the cluster's tier."""

    lines: tuple[CostLine, ...]
    price_date: date
    price_source: str

    @property
    def lowest(self) -> float:
        """Sum of what is known."""
        return sum(line.lowest or 0.0 for line in self.lines)

    @property
    def highest(self) -> float:
        """Sum of what is known."""
        return sum(line.highest or 0.0 for line in self.lines)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Lines without one or both prices."""
        return tuple(line.name for line in self.lines if line.lowest is None or line.highest is None)

    def text(self) -> str:
        """One line for people."""
        shown = f"{self.lowest:,.2f}" + (f" to {self.highest:,.2f}" if self.highest != self.lowest else "")
        without = f"; unknown: {', '.join(self.unknown)}" if self.unknown else ""
        return f"USD {shown} a month{without} (prices of {self.price_date}; {NOT_COUNTED})"


@dataclass(frozen=True)
class CostChange:
    """What a change of the declaration does to the bill."""

    lowest: float
    highest: float
    comparable: bool
    """False where one of the two has unknown parts: the difference is then of the known ones only."""

    def text(self) -> str:
        """One line for people."""
        shown = (
            f"{self.lowest:+,.2f}" if self.lowest == self.highest else f"{self.lowest:+,.2f} to {self.highest:+,.2f}"
        )
        return f"USD {shown} a month{'' if self.comparable else ' (of the parts whose price is known)'}"


def monthly_cost(pools: Sequence[Pool], location: str | None, tier: str, prices: PriceList) -> Cost:
    """From the pools' least to their most nodes."""
    region = short_region(location) if location else None
    hourly = TIER_USD_PER_HOUR.get(tier)
    lines = [_pool(pool, region, prices) for pool in pools]
    month = None if hourly is None else hourly * HOURS_PER_MONTH
    lines.append(CostLine(f"tier {tier}", month, month, "" if hourly is not None else "price unknown"))
    return Cost(tuple(lines), prices.date, prices.source)


def cost_change(before: Cost, after: Cost) -> CostChange:
    """After minus before."""
    return CostChange(
        lowest=after.lowest - before.lowest,
        highest=after.highest - before.highest,
        comparable=not before.unknown and not after.unknown,
    )


def _pool(pool: Pool, region: str | None, prices: PriceList) -> CostLine:
    name = f"pool {pool.name}"
    if pool.vm_size is None or region is None:
        missing = "size" if pool.vm_size is None else "region"
        return CostLine(name, None, None, f"price unknown: the {missing} is not known")
    hourly = prices.hourly(pool.vm_size, region)
    if pool.spot:
        return _spot(pool, name, hourly, prices)
    if hourly is None:
        return CostLine(name, None, None, f"no price of {pool.vm_size} in {region} in the list of {prices.date}")
    month = hourly * HOURS_PER_MONTH
    return CostLine(name, month * pool.least_nodes, month * pool.most_nodes, f"{pool.vm_size}: USD {hourly:g} an hour")


def _spot(pool: Pool, name: str, hourly: float | None, prices: PriceList) -> CostLine:
    """The spot price itself changes by the hour; its bounds are the pay-as-you-go price and the user's own."""
    limit = pool.spot_max_price
    if limit is not None and not (limit.is_finite() and limit > 0):
        limit = None
    bounds = [bound for bound in (hourly, float(limit) if limit is not None else None) if bound is not None]
    lowest = 0.0 if pool.least_nodes == 0 else None
    if not bounds:
        return CostLine(name, lowest, None, f"spot; no price of {pool.vm_size} in the list of {prices.date}")
    month = min(bounds) * HOURS_PER_MONTH
    return CostLine(name, lowest, month * pool.most_nodes, f"spot: at most USD {min(bounds):g} an hour")
