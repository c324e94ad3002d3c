"""Effective traffic: each version gets its percentage, the default also what no version has (I6)."""

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from aks_inference_runtime.api.endpoint import EndpointSpec

HUNDREDTHS = 10_000
"""One percent is 100: percentages have up to two decimals."""


class Share(NamedTuple):
    """A version, as far as traffic goes."""

    name: str
    percentile: float
    is_default: bool


def hundredths(percentile: float) -> int:
    """A percentage as hundredths of a percent. Raises ValueError for more than two decimals or outside 0..100."""
    scaled = Decimal(str(percentile)) * 100
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{percentile} has more than two decimals")
    if not 0 <= scaled <= HUNDREDTHS:
        raise ValueError(f"{percentile} is not between 0 and 100")
    return int(scaled)


def effective_traffic(shares: Sequence[Share]) -> dict[str, int]:
    """By version name, hundredths of a percent that add up to 10,000. Raises ValueError for a sum above 100."""
    own = {share.name: hundredths(share.percentile) for share in shares}
    total = sum(own.values())
    if total > HUNDREDTHS:
        raise ValueError(f"the traffic percentiles sum to {total / 100:g}; at most 100")
    default = next(share.name for share in shares if share.is_default)
    own[default] += HUNDREDTHS - total
    return own


def declared_traffic(spec: EndpointSpec) -> dict[str, int]:
    """The same, of what an endpoint declares."""
    return effective_traffic([Share(v.name, v.traffic_percentile, v.is_default) for v in spec.versions])
