"""ClusterGuard: what a cluster keeps for life, and its cost, compared with the last time.

A component sees no old state, and the engine tells of a replacement without what it takes away. This resource is made
before the cluster and checked before it: a change that replaces the cluster fails here unless it is agreed to.
"""

import asyncio
import os
import uuid
from collections.abc import Mapping
from typing import Any

from aks_inference.findings import Casing, in_casing, show_value
from aks_inference_provider import PACKAGE
from aks_inference_provider.differences import Diff, Difference, changes
from aks_inference_provider.fields import Failure, Field, Kind, check_fields
from aks_inference_provider.resources.aks_changes import crowded, refusals, steps_left_out
from aks_inference_provider.resources.aks_network import NETWORK_API, network_failures, network_id
from aks_inference_provider.resources.aks_regions import cautions, places, wanted
from aks_inference_provider.resources.aks_vaults import look, vaults_of
from aks_inference_provider.resources.base import Caution, Checked, Computed, Made, Operation, Raw, State, Urn
from aks_inference_provider.wire import UNKNOWN, has_unknown, plain
from aks_inference_runtime.azure.arm import AzureFailed, arm, credentials_of

INPUTS = (
    Field("fixed", Kind.OBJECT, "Required. Argument → value of what the cluster keeps for life.", required=True),
    Field("oneWay", Kind.OBJECT, "Optional. Argument → value of what AKS does not change back. Default: none."),
    Field("room", Kind.OBJECT, "Optional. Argument → range and what each pool takes of it. Default: not known."),
    Field("cost", Kind.OBJECT, "Required. `lowest` and `highest` USD a month, `complete`.", required=True),
    Field("network", Kind.OBJECT, "Optional. The subnet, and what is to fit into its network. Default: not looked up."),
    Field(
        "related", Kind.OBJECT, "Optional. Registries, storage accounts, vaults, the region. Default: not looked up."
    ),
    Field("allowReplacement", Kind.BOOLEAN, "Optional. Agrees to replacements. Default: false."),
)
LOST = (
    "the cluster is deleted and made anew: lost are all its nodes, everything that runs on it (all services with their "
    "keys, unless they are declared), volumes in its node resource group and the addresses of its API server and "
    "scoring name; nothing answers meanwhile (about 20 minutes)"
)
"""Doc azure-aks-docs faq.yml: the node resource group goes with its cluster."""


def replacements(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[str]:
    """`network.podCidr changes from … to …`, for each; what is not known yet cannot be said."""
    before, after = olds.get("fixed"), news.get("fixed")
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return []
    found = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if not has_unknown([old, new]) and changes(old, new):
            found.append(f"{name} changes from {_shown(old)} to {_shown(new)}")
    return found


def cost_change(olds: Mapping[str, Any], news: Mapping[str, Any]) -> str | None:
    """`USD +120.00 to +480.00 a month`; None where nothing changes."""
    before, after = olds.get("cost"), news.get("cost")
    if not isinstance(before, Mapping) or not isinstance(after, Mapping) or has_unknown([before, after]):
        return None
    lowest, highest = (float(after[key]) - float(before[key]) for key in ("lowest", "highest"))
    if abs(lowest) < 0.005 and abs(highest) < 0.005:
        return None
    shown = f"{lowest:+,.2f}" if abs(lowest - highest) < 0.005 else f"{lowest:+,.2f} to {highest:+,.2f}"
    partly = "" if before.get("complete") and after.get("complete") else " (of the parts whose price is known)"
    return f"cost of this change: USD {shown} a month{partly}"


class ClusterGuard:
    """See the module."""

    token = f"{PACKAGE}:index:ClusterGuard"
    description = "What an AKS cluster keeps for life, compared with the last time before anything is changed."
    inputs = INPUTS
    outputs: tuple[Field, ...] = ()

    async def check(self, urn: Urn, olds: Raw, news: Raw) -> Checked:
        """Refuses a change that replaces the cluster, unless `allowReplacement` is true."""
        old, new = plain(olds), plain(news)
        failures = check_fields(INPUTS, new)
        replacing = replacements(old, new) if old else []
        notes = [text for text in [cost_change(old, new)] if text]
        if replacing and new.get("allowReplacement") is True:
            agreed = in_casing("agreed to by @allow_replacement", Casing.BOTH)
            notes.append(f"{'; '.join(replacing)}: {LOST}; {agreed}")
        elif replacing and new.get("allowReplacement") != UNKNOWN:
            mend = in_casing("keep the old values, or set @allow_replacement to true", Casing.BOTH)
            failures.append(Failure("allowReplacement", f"{'; '.join(replacing)}: {LOST}; {mend}"))
        elif not replacing:
            # A cluster that is made anew may be anything.
            failures += (Failure("oneWay", text) for text in refusals(old.get("oneWay"), new.get("oneWay")))
            failures += (Failure("room", text) for text in crowded(old.get("room"), new.get("room")))
            notes += map(Caution, steps_left_out(old.get("oneWay"), new.get("oneWay")))
        if not old and not failures:
            # A network that a cluster is in already holds it.
            wrong, said = await _network(new.get("network"))
            failures += wrong
            notes += said
        if new.get("related") != old.get("related") and not failures:
            notes += await _related(new.get("related"))
        return Checked(news, failures, notes)

    async def diff(self, state: State, news: Raw) -> Diff:
        """A change of the record only: the cluster itself says what happens to it."""
        found = changes(plain(state.inputs), plain(news))
        return Diff({path: Difference(change) for path, change in found.items()})

    def preview(self, inputs: Raw, state: State | None) -> Computed:
        """There are no outputs."""
        return {}

    async def create(self, operation: Operation, inputs: Raw) -> Made:
        """Nothing but the record."""
        return Made(str(uuid.uuid5(uuid.NAMESPACE_URL, operation.urn.text)), {})

    async def update(self, operation: Operation, state: State, inputs: Raw) -> Computed:
        """Nothing but the record."""
        return {}

    async def read(self, operation: Operation, state: State) -> State | None:
        """The record is the truth."""
        return state

    async def delete(self, operation: Operation, state: State) -> None:
        """Nothing but the record."""


async def _network(given: object) -> tuple[list[Failure], list[str]]:
    """Looks the virtual network up where credentials allow."""
    if not isinstance(given, Mapping) or has_unknown(given) or (path := network_id(given)) is None:
        return [], []
    try:
        if not credentials_of(os.environ).usable:
            return [], ["the virtual network was not looked up: no Azure credentials here"]
        async with arm() as azure:
            body = await azure.get(path, NETWORK_API)
    except AzureFailed as error:
        return [], [f"the virtual network was not looked up: {error}"]
    return list(network_failures(body, given)), []


async def _related(given: object) -> list[str]:
    """Looks registries, storage accounts and vaults up where credentials allow; without them nothing is said of it."""
    if not isinstance(given, Mapping) or not any((*wanted(given), vaults_of(given))):
        return []
    try:
        if not credentials_of(os.environ).usable:
            return []
        async with arm() as azure:
            regions, vaults = await asyncio.gather(places(azure, given), look(azure, given))
            return [*cautions(given.get("location"), regions), *vaults]
    except AzureFailed as error:
        return [f"registries, storage and vaults were not looked up: {error}"]


def _shown(value: object) -> str:
    return "its default" if value is None else show_value(value)
