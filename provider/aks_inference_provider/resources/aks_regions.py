"""Where the registries and the storage of a cluster are, as Azure says: another region costs time and traffic."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from aks_inference_provider.resources.aks_network import spelled_once
from aks_inference_provider.resources.base import Caution
from aks_inference_provider.wire import UNKNOWN
from aks_inference_runtime.azure.arm import Arm

REGISTRY_API = "2023-07-01"
STORAGE_API = "2023-01-01"
_MEND = "models and images take longer from there, and the traffic is paid for; use one region, or replicate"

Places = Mapping[str, str | None]
"""What it is → its region; None: there is none, or one has no right to see it."""


def wanted(given: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Ids of registries and names of storage accounts, as far as they are known."""
    ids = [one for one in given.get("registryIds") or () if isinstance(one, str) and one != UNKNOWN]
    accounts = [one for one in given.get("storageAccounts") or () if isinstance(one, str) and one != UNKNOWN]
    return ids, accounts


async def places(azure: Arm, given: Mapping[str, Any]) -> dict[str, str | None]:
    """Looks them up. Raises AzureFailed."""
    ids, accounts = wanted(given)
    found = await asyncio.gather(*(azure.get(one, REGISTRY_API) for one in ids))
    regions: dict[str, str | None] = {
        f"the registry {one.rsplit('/', 1)[-1]}": _region(body) for one, body in zip(ids, found, strict=True)
    }
    if accounts and azure.subscription:
        # An account is named without its group: its name is its own in all of Azure.
        path = f"/subscriptions/{azure.subscription}/providers/Microsoft.Storage/storageAccounts"
        listed = ((await azure.get(path, STORAGE_API)) or {}).get("value") or ()
        by_name = {str(one.get("name")): _region(one) for one in listed}
        # One of another subscription is not seen; that is no mistake.
        regions |= {f"the storage account {one}": by_name[one] for one in accounts if one in by_name}
    return regions


def cautions(location: object, regions: Places) -> Iterator[Caution]:
    """What is to be said of them."""
    here = spelled_once(location)
    for what, region in regions.items():
        if region is None:
            yield Caution(f"{what} does not exist, or you have no right to see it: nodes cannot pull from it")
        elif here and spelled_once(region) != here:
            yield Caution(f"{what} is in {region}, the cluster in {location}: {_MEND}")


def _region(body: Mapping[str, Any] | None) -> str | None:
    return str(body.get("location") or "") if body else None
