"""PlainPort: whether the runtime that gets TLS serves without it, which ends then.

Where the certificate is issued, it may come late or never: who served before serves on until it is there. That is noted
in Check, so that a preview knows what the routers will be told. Once it is there the routers are told no more of it:
one that cannot read it later would open the port again.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from aks_inference.findings import Casing, in_casing
from aks_inference_provider import PACKAGE
from aks_inference_provider.differences import Diff, Difference, changes
from aks_inference_provider.errors import ResourceFailed
from aks_inference_provider.fields import Field, Kind, check_fields
from aks_inference_provider.resources.base import Caution, Checked, Computed, Made, Operation, Raw, State, Urn
from aks_inference_provider.resources.other_runtimes import there
from aks_inference_provider.wire import UNKNOWN, has_unknown, plain
from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.api.kubernetes import ISSUED_TLS_NAME, ROUTER_NAME, SETTINGS_VARIABLE
from aks_inference_runtime.jobs.connect import connection_of
from aks_inference_runtime.kubernetes.client import connected

LOOK_S = 10.0
"""Of a cluster, in a preview: one that does not answer is looked at when it is applied."""
INPUTS = (
    Field("namespace", Kind.STRING, "Required. The runtime's.", required=True),
    Field("issued", Kind.BOOLEAN, "Required. Whether its certificate is issued once TLS is declared.", required=True),
    Field("kubeconfig", Kind.STRING, "Optional. Content or path. Default: that of the environment.", secret=True),
    Field("context", Kind.STRING, "Optional. Context of the kubeconfig. Default: its current one."),
    Field("served", Kind.BOOLEAN, "Whether it served without TLS before.", computed=True),
)
OUTPUTS = (Field("untilCertificate", Kind.BOOLEAN, "Whether it does until there is a certificate.", required=True),)
_ASKED = ("namespace", "kubeconfig", "context", "issued")


class PlainPort:
    """See the module. Its id is its name; nothing is made."""

    token = f"{PACKAGE}:index:PlainPort"
    description = "Whether a runtime that gets TLS served without it before, and does until there is a certificate."
    inputs = INPUTS
    outputs = OUTPUTS

    async def check(self, urn: Urn, olds: Raw, news: Raw) -> Checked:
        """Looks at the runtime where it was not looked at before, else for the certificate as long as that is waited
        for."""
        old, given = plain(olds), plain(news)
        failures = check_fields(INPUTS, given)
        if failures or has_unknown(given):
            return Checked(news, failures)
        known = "served" in old and all(old.get(name) == given.get(name) for name in _ASKED)
        if known and not _until(old):
            return Checked({**news, "served": old["served"]})
        with suppress(AksInferenceError, TimeoutError):
            return Checked({**news, "served": await (_waits(given) if known else _served(given))})
        return Checked({**news, "served": True} if known else news)

    async def diff(self, state: State, news: Raw) -> Diff:
        """Nothing was made."""
        found = changes(plain(state.inputs), plain(news))
        return Diff({path: Difference(change) for path, change in found.items()})

    def preview(self, inputs: Raw, state: State | None) -> Computed:
        """Known as far as the cluster could be asked."""
        given = plain(inputs)
        return {"untilCertificate": UNKNOWN if "served" not in given else _until(given)}

    async def notes(self, inputs: Raw, state: State | None) -> Sequence[str]:
        """What ends for who asks without TLS, and when."""
        given = plain(inputs)
        if state is not None and _until(plain(state.inputs)) and given.get("served") is False and given.get("issued"):
            return ["the certificate is there: HTTP has ended for good, which each router is told, one after the other"]
        if state is not None or not given.get("served"):
            return []
        when = "the certificate is there" if given.get("issued") else "the routers are made anew"
        both = "to serve both for a while, add @allow_insecure_connections"
        return [
            Caution(in_casing(f"HTTP ends on port 80 as soon as {when}: it is then answered 400; {both}", Casing.BOTH))
        ]

    async def create(self, operation: Operation, inputs: Raw) -> Made:
        """Looks, where that is still to be done. Raises ResourceFailed."""
        return Made(operation.urn.name, await _known(inputs))

    async def update(self, operation: Operation, state: State, inputs: Raw) -> Computed:
        """As `create`."""
        return await _known(inputs)

    async def read(self, operation: Operation, state: State) -> State | None:
        """The record is the truth."""
        return state

    async def delete(self, operation: Operation, state: State) -> None:
        """Nothing was made."""


async def _known(inputs: Raw) -> Computed:
    given = plain(inputs)
    if "served" not in given:
        try:
            given = {**given, "served": await _served(given)}
        except (AksInferenceError, TimeoutError) as error:
            why = f"no answer within {LOOK_S:g} s" if isinstance(error, TimeoutError) else str(error)
            raise ResourceFailed(f"not known whether the runtime serves without TLS: {why}") from None
    return {"untilCertificate": _until(given)}


def _until(given: Mapping[str, Any]) -> bool:
    return bool(given.get("served") and given.get("issued"))


async def _served(given: Mapping[str, Any]) -> bool:
    router = await _found(given, "/apis/apps/v1", f"deployments/{ROUTER_NAME}")
    if router is None or router["metadata"].get("deletionTimestamp") or (told := told_to(router)) is None:
        return False
    if told.get("httpsPort") is None or told.get("allowInsecureConnections"):
        return True
    return bool(told.get("plainUntilCertificate")) and await _waits(given)


async def _waits(given: Mapping[str, Any]) -> bool:
    """Whether the routers still have no certificate that was issued."""
    # Loaded here: what reads certificates takes long to load.
    from aks_inference_runtime.kubernetes.objects import tls_secret

    secret = await _found(given, "/api/v1", f"secrets/{ISSUED_TLS_NAME}")
    return secret is None or tls_secret(secret) is None


async def _found(given: Mapping[str, Any], group: str, name: str) -> dict[str, Any] | None:
    connection = await asyncio.to_thread(connection_of, given.get("kubeconfig"), given.get("context"))
    async with asyncio.timeout(LOOK_S), connected(connection) as api:
        return await there(api, f"{group}/namespaces/{given['namespace']}/{name}")


def told_to(router: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings in a router's Deployment; None: they are elsewhere. Pure."""
    containers = router["spec"]["template"]["spec"]["containers"]
    told = {one["name"]: one.get("value") for each in containers for one in each.get("env") or ()}
    try:
        # As JSON: another release may say more, or less.
        settings: dict[str, Any] = json.loads(told.get(SETTINGS_VARIABLE) or "")
    except ValueError:
        return None
    return settings
