"""The virtual network of a cluster that is to be made, as Azure has it: what the arguments did not say is looked up.

Numbers in brackets are those of docs/aks-rules.md.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from aks_inference.cluster_rules.addresses import Range, overlaps, parse_range, smallest_prefix, usable
from aks_inference.facts import short_region
from aks_inference_provider.fields import Failure

NETWORK_API = "2024-05-01"
_PATH = "network"
"""The property of the guard; the texts name the arguments."""


def network_id(given: Mapping[str, Any]) -> str | None:
    """The id of the virtual network, where the subnet's is known."""
    subnet = given.get("subnetId")
    if not isinstance(subnet, str) or "/subnets/" not in subnet or subnet.count("/") != 10:
        return None
    return subnet.rsplit("/subnets/", 1)[0]


def network_failures(body: Mapping[str, Any] | None, given: Mapping[str, Any]) -> Iterator[Failure]:
    """What is wrong with it. `body` None: there is none."""
    subnet_id = str(given.get("subnetId"))
    if body is None:
        rule = f"network.subnetId: the virtual network of {subnet_id} does not exist, or you have no right to see it"
        yield Failure(_PATH, f"{rule}; make it first, or mend the id")
        return
    properties: Mapping[str, Any] = body.get("properties") or {}
    subnets = {str(one.get("name")).lower(): one.get("properties") or {} for one in properties.get("subnets") or ()}
    mine = subnets.get(subnet_id.rsplit("/", 1)[-1].lower())
    if mine is None:
        there = ", ".join(sorted(subnets)) or "none"
        yield Failure(_PATH, f"network.subnetId: {subnet_id} does not exist; the network's subnets: {there} [1.11]")
        return
    here, there = spelled_once(given.get("location")), spelled_once(body.get("location"))
    if here and there and here != there:
        yield Failure(
            _PATH, f"location: the virtual network is in {there}, the cluster in {here}; use one region [1.11]"
        )
    if mine.get("delegations"):
        services = ", ".join(str((one.get("properties") or {}).get("serviceName")) for one in mine["delegations"])
        yield Failure(_PATH, f"network.subnetId: {subnet_id} is delegated to {services}; use another subnet [1.11]")
    yield from _egress(mine, str(given.get("outboundType") or ""))
    if given.get("ownRoutes") is False and (table := (mine.get("routeTable") or {}).get("id")):
        rule = f"network.routeTableId: kubenet's identity needs a role at the subnet's route table, {table}"
        yield Failure(_PATH, f"{rule}; give its id [1.5]")
    yield from _ranges(subnets, properties, given)
    yield from _addresses(mine, given)


def _egress(mine: Mapping[str, Any], outbound: str) -> Iterator[Failure]:
    if outbound == "userDefinedRouting" and not mine.get("routeTable"):
        yield Failure(_PATH, "egress.outboundType: userDefinedRouting, and the subnet has no route table; add one [3c]")
    if outbound == "userAssignedNATGateway" and not mine.get("natGateway"):
        rule = "egress.outboundType: userAssignedNATGateway, and the subnet has no NAT gateway"
        yield Failure(_PATH, f"{rule}; associate one [3e]")


def _ranges(
    subnets: Mapping[str, Mapping[str, Any]], properties: Mapping[str, Any], given: Mapping[str, Any]
) -> Iterator[Failure]:
    named = [(f"the subnet {name}", text) for name, one in subnets.items() for text in _prefixes(one)]
    peered = [
        ("the peered network", text)
        for one in properties.get("virtualNetworkPeerings") or ()
        for text in ((one.get("properties") or {}).get("remoteAddressSpace") or {}).get("addressPrefixes") or ()
    ]
    for argument, rule, others in (("serviceCidr", "2.4", named), ("podCidr", "2.7", [*named, *peered])):
        own = _range(given.get(argument))
        for what, text in others:
            other = _range(text)
            if own is not None and other is not None and overlaps(own, other):
                says = f"network.{argument}: {given[argument]} overlaps {what}, {text}; use another range [{rule}]"
                yield Failure(_PATH, says)


def _addresses(mine: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[Failure]:
    needed = given.get("neededAddresses")
    sizes = [one for text in _prefixes(mine) if (one := _range(text)) is not None and one.version == 4]
    if not isinstance(needed, int | float) or not sizes:
        return
    # Addresses that others have: of network interfaces that are there.
    taken = len(mine.get("ipConfigurations") or ())
    room = sum(map(usable, sizes)) - taken
    if needed > room:
        says = f"network.subnetId: the cluster needs {needed:,.0f} addresses, the subnet has {room:,} free"
        yield Failure(_PATH, f"{says}; use /{smallest_prefix(int(needed) + taken)} [2.10, 2.11]")


def _prefixes(subnet: Mapping[str, Any]) -> list[str]:
    one = subnet.get("addressPrefix")
    return [str(one)] if one else [str(text) for text in subnet.get("addressPrefixes") or ()]


def _range(text: object) -> Range | None:
    return parse_range(text) if isinstance(text, str) else None


def spelled_once(region: object) -> str:
    """A region as Azure or a program gives it, in the one spelling; "" for what is none."""
    return short_region(region) if isinstance(region, str) else ""
