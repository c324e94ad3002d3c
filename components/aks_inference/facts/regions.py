"""Regions of the public and the sovereign clouds."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from aks_inference.facts.table import read


@dataclass(frozen=True)
class Region:
    """One region."""

    name: str
    """`westeurope`."""
    display_name: str
    """`West Europe`."""
    cloud: str
    """`AzureCloud`, `AzureUSGovernment` or `AzureChinaCloud`."""
    paired_region: str | None
    zones: bool | None
    """Whether it has availability zones (then 1, 2 and 3); None where the list does not say."""
    early_access: bool
    aks_automatic: bool


@cache
def regions() -> Mapping[str, Region]:
    """All regions of the list, by name."""
    return MappingProxyType({record[0]: Region(*record) for record in read("regions.json").records})


def short_region(name: str) -> str:
    """The one spelling of a region's names: `westeurope` for `West Europe`, `westEurope` or itself."""
    return name.replace(" ", "").lower()


def region_named(name: str) -> Region | None:
    """By short or display name: `westeurope`, `West Europe`; None when the list does not know it."""
    return regions().get(short_region(name))
