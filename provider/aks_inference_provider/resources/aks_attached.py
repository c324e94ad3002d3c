"""AttachedCluster: an AKS cluster that exists, held by one stack at a time.

The hold is a tag on the cluster with the name of who holds it, so that every other stack sees it. Detaching takes the
tag away and leaves the cluster and everything on it as they are. Azure has no "set it if nobody did": who wants to hold
a cluster first writes a tag that is its own, and goes on only if it then sees nobody else's. Of two at the same moment
at least one sees the other; both may give up, never both go on. That holds as long as Azure shows a tag once it has
accepted it, and merges tags without losing those of a merge beside it: it is taken for so, Azure does not promise it.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from aks_inference.aks_cluster.purpose import Purpose, vcpu_check
from aks_inference.cluster_rules import Cluster, Pool
from aks_inference.cluster_rules.model import KEY_VAULT_ADDON
from aks_inference.cluster_rules.versions import check_versions
from aks_inference.findings import Casing, in_casing
from aks_inference.vm_sizes import VmSize, find_size
from aks_inference_provider import PACKAGE
from aks_inference_provider.differences import Diff, Difference, changes, top
from aks_inference_provider.errors import ResourceFailed
from aks_inference_provider.fields import Failure, Field, Kind, check_fields
from aks_inference_provider.resources.aks_vaults import look
from aks_inference_provider.resources.base import Checked, Computed, Made, Operation, Raw, State, Urn
from aks_inference_provider.wire import UNKNOWN, has_unknown, plain
from aks_inference_runtime.azure.arm import CLUSTER_API, Arm, AzureFailed, arm, credentials_of

HOLDER_TAG = "aks-inference-held-by"
"""Names of tags hold no slash. The value is `project/stack/name`."""
CLAIM_TAG = "aks-inference-claimed-by-"
"""With a digest of the value, which is the same: of who is about to hold it."""
INPUTS = (
    Field("resourceId", Kind.STRING, "Optional. The cluster's resource id.", replaces=True),
    Field("resourceGroup", Kind.STRING, "Optional. With `clusterName`, instead of the id.", replaces=True),
    Field("clusterName", Kind.STRING, "Optional. With `resourceGroup`, instead of the id.", replaces=True),
    Field("subscriptionId", Kind.STRING, "Optional. Default: that of the credentials.", replaces=True),
    Field("purpose", Kind.STRING, "Required. FastProd, DenseProd or DevTest.", required=True),
    Field("vcpusPerNode", Kind.INTEGER, "Optional. vCPU of nodes whose size is not known."),
    Field("keyVaultAddon", Kind.BOOLEAN, "Optional. Whether it must have the add-on for Key Vault. Default: false."),
    Field("related", Kind.OBJECT, "Optional. The vault of its certificate. Default: not looked up."),
    Field("holder", Kind.STRING, "Who holds it: `project/stack/name`.", computed=True),
    Field("pools", Kind.OBJECT, "Its autoscaled pools, and the most nodes of each.", computed=True),
)
OUTPUTS = (
    Field("clusterId", Kind.STRING, "The cluster's resource id.", required=True),
    Field("name", Kind.STRING, "Its name.", required=True),
    Field("group", Kind.STRING, "Its resource group.", required=True),
    Field("location", Kind.STRING, "Its region.", required=True),
    Field("kubernetesVersion", Kind.STRING, "Its version.", required=True),
    Field("apiServer", Kind.STRING, "Host of its API server.", required=True),
    Field("autoscaledPools", Kind.OBJECT, "Its autoscaled pools, and the most nodes of each.", required=True),
)
_NO_CREDENTIALS = (
    "not looked up: no Azure credentials here (ARM_CLIENT_ID and others, or the Azure CLI); what the cluster has is "
    "checked when it is attached"
)


def findings_of(body: Mapping[str, Any], news: Mapping[str, Any], holder: str) -> tuple[list[Failure], list[str]]:
    """What is wrong with a cluster that exists, and what is to be said of it."""
    properties: Mapping[str, Any] = body.get("properties") or {}
    path = "resourceId" if news.get("resourceId") else "clusterName"
    failures = list(_refused(body, properties, path, holder))
    notes: list[str] = []
    if news.get("keyVaultAddon") is True:
        failures += _addon(body, properties, path)
        notes += _rotation(body, properties)
    wrong, said = _vcpus(properties, news)
    failures += wrong
    notes += said
    sku: Mapping[str, Any] = body.get("sku") or {}
    cluster = Cluster(
        existing=True,
        kubernetes_version=properties.get("currentKubernetesVersion") or properties.get("kubernetesVersion"),
        tier=sku.get("tier") or "Free",
        support_plan=properties.get("supportPlan") or "KubernetesOfficial",
        today=datetime.now(UTC).date(),
    )
    notes += [f"{body.get('name')}: {finding.reason(Casing.BOTH)}" for finding in check_versions(cluster)]
    return failures, notes


def _refused(body: Mapping[str, Any], properties: Mapping[str, Any], path: str, holder: str) -> Iterator[Failure]:
    name, held = body.get("name"), _tags(body).get(HOLDER_TAG)
    if held is not None and held != holder:
        yield Failure(
            path,
            f"{name} is attached already, by {held}: a second attachment would break the first; detach it there "
            f"(destroy), or remove the cluster's tag {HOLDER_TAG} if that stack is gone",
        )
    state = properties.get("provisioningState")
    if state in {"Deleting", "Failed", "Canceled"}:
        yield Failure(path, f"{name} is in the state {state}; mend it first: az aks show, az aks update")
    if (properties.get("powerState") or {}).get("code") == "Stopped":
        yield Failure(path, f"{name} is stopped; start it first: az aks start")
    if (properties.get("networkProfile") or {}).get("loadBalancerSku", "").lower() == "basic":
        yield Failure(
            path,
            f"{name} has a Basic load balancer, which Azure ended on 30 September 2025; move it to Standard first",
        )


def _addon(body: Mapping[str, Any], properties: Mapping[str, Any], path: str) -> Iterator[Failure]:
    """What mounts a certificate from a Key Vault."""
    addon = (properties.get("addonProfiles") or {}).get(KEY_VAULT_ADDON) or {}
    name = body.get("name")
    if not addon.get("enabled"):
        secret = in_casing("@ssl_key_vault_secret_id", Casing.BOTH)
        rule = f"{name} has no add-on for Key Vault, which brings the certificate of {secret}"
        mend = "az aks enable-addons --addons azure-keyvault-secrets-provider --enable-secret-rotation"
        yield Failure(path, f"{rule}; turn it on: {mend}")


def _rotation(body: Mapping[str, Any], properties: Mapping[str, Any]) -> Iterator[str]:
    addon = (properties.get("addonProfiles") or {}).get(KEY_VAULT_ADDON) or {}
    if addon.get("enabled") and str((addon.get("config") or {}).get("enableSecretRotation")).lower() != "true":
        mend = "az aks addon update --addon azure-keyvault-secrets-provider --enable-secret-rotation"
        rule = "its add-on for Key Vault does not rotate: a renewed certificate is not served"
        yield f"{body.get('name')}: {rule}; {mend}"


def _vcpus(properties: Mapping[str, Any], news: Mapping[str, Any]) -> tuple[list[Failure], list[str]]:
    """The rule of 12 over all nodes: an attached cluster has no pool that is for inference alone."""
    each = news.get("vcpusPerNode")
    pools = []
    for profile in properties.get("agentPoolProfiles") or ():
        named = str(profile.get("vmSize") or "")
        size = find_size(named) or (VmSize(named, int(each), 0.0, 0) if each else None)
        scaled = bool(profile.get("enableAutoScaling"))
        least = profile.get("minCount") if scaled else profile.get("count")
        spot = profile.get("scaleSetPriority") == "Spot"
        pools.append(Pool(str(profile.get("name")), named, size, count=int(least or 0), spot=spot))
    purpose = Purpose(news["purpose"]) if news.get("purpose") in list(Purpose) else Purpose.FAST_PROD
    checks, found = vcpu_check(pools, purpose, flat=False)
    failures = [Failure("purpose", one.reason(Casing.BOTH)) for one in found if one.severity == "error"]
    return failures, [*checks, *(one.reason(Casing.BOTH) for one in found if one.severity != "error")]


def computed(body: Mapping[str, Any]) -> Computed:
    """The outputs, of what Azure says."""
    properties: Mapping[str, Any] = body.get("properties") or {}
    identity = str(body.get("id"))
    return {
        "clusterId": identity,
        "name": body.get("name"),
        "group": identity.split("/")[4] if identity.count("/") >= 8 else "",
        "location": body.get("location") or "",
        "kubernetesVersion": properties.get("currentKubernetesVersion") or properties.get("kubernetesVersion") or "",
        "apiServer": properties.get("privateFQDN") or properties.get("fqdn") or "",
        "autoscaledPools": pools_of(body),
    }


def pools_of(body: Mapping[str, Any]) -> dict[str, int]:
    """Autoscaled pools → the most nodes; no pod of ours runs on those of Windows."""
    properties: Mapping[str, Any] = body.get("properties") or {}
    return {
        str(profile.get("name")): int(profile["maxCount"])
        for profile in properties.get("agentPoolProfiles") or ()
        if profile.get("enableAutoScaling") and profile.get("maxCount") and profile.get("osType") != "Windows"
    }


def path_of(news: Mapping[str, Any], subscription: str | None) -> str:
    """The path of the cluster in Azure's API. Raises ResourceFailed."""
    if news.get("resourceId"):
        return str(news["resourceId"])
    subscription = news.get("subscriptionId") or subscription
    if not subscription:
        told = "the subscription is not known: set ARM_SUBSCRIPTION_ID, or give @subscription_id"
        raise ResourceFailed(in_casing(told, Casing.BOTH))
    group, name = news.get("resourceGroup"), news.get("clusterName")
    provider = "providers/Microsoft.ContainerService/managedClusters"
    return f"/subscriptions/{subscription}/resourceGroups/{group}/{provider}/{name}"


class AttachedCluster:
    """See the module."""

    token = f"{PACKAGE}:index:AttachedCluster"
    description = "An AKS cluster that exists, held by one stack."
    inputs = INPUTS
    outputs = OUTPUTS

    async def check(self, urn: Urn, olds: Raw, news: Raw) -> Checked:
        """Looks the cluster up where credentials allow."""
        new = plain(news)
        failures = check_fields(INPUTS, new)
        holder = f"{urn.project}/{urn.stack}/{urn.name}"
        inputs = {**news, "holder": holder, "pools": plain(olds).get("pools")}
        related = new.pop("related", None)
        if failures or has_unknown(new):
            return Checked(inputs, failures)
        try:
            if not credentials_of(os.environ).usable:
                return Checked(inputs, (), [_NO_CREDENTIALS])
            async with arm() as azure:
                body = await _look(azure, new)
        except (AzureFailed, ResourceFailed) as error:
            return Checked(inputs, (), [f"not looked up: {error}"])
        if body is None:
            where = "resourceId" if new.get("resourceId") else "clusterName"
            return Checked(inputs, [Failure(where, "there is no such cluster, or no right to see it")])
        inputs["pools"] = pools_of(body)
        wrong, notes = findings_of(body, new, holder)
        if isinstance(related, Mapping) and related != plain(olds).get("related"):
            notes += await _vaults(related)
        return Checked(inputs, wrong, notes)

    async def diff(self, state: State, news: Raw) -> Diff:
        """Another cluster is another resource."""
        replacing = {field.name for field in INPUTS if field.replaces}
        found = changes(plain(state.inputs), plain(news))
        return Diff({path: Difference(change, replaces=top(path) in replacing) for path, change in found.items()})

    def preview(self, inputs: Raw, state: State | None) -> Computed:
        """What it had; of a new one, what its id tells."""
        known = plain(inputs)
        pools = {} if known.get("pools") is None else {"autoscaledPools": known["pools"]}
        if state is not None:
            return {field.name: state.outputs.get(field.name, UNKNOWN) for field in OUTPUTS} | pools
        found: dict[str, Any] = {field.name: UNKNOWN for field in OUTPUTS} | pools
        identity = known.get("resourceId")
        if isinstance(identity, str) and identity.count("/") == 8:
            found |= {"clusterId": identity, "name": identity.split("/")[8], "group": identity.split("/")[4]}
        elif known.get("clusterName") is not None:
            found |= {"name": known["clusterName"], "group": known.get("resourceGroup")}
        return found

    async def create(self, operation: Operation, inputs: Raw) -> Made:
        """Checks it and takes hold of it."""
        news = plain(inputs)
        async with arm() as azure:
            body = await _look(azure, news)
            if body is None:
                raise ResourceFailed(f"{path_of(news, azure.subscription)}: no such cluster, or no right to see it")
            failures, _ = findings_of(body, news, news["holder"])
            if failures:
                raise ResourceFailed("; ".join(failure.reason for failure in failures))
            identity, holder = str(body["id"]), str(news["holder"])
            if _tags(body).get(HOLDER_TAG) != holder:
                operation.progress.status("taking hold of the cluster")
                body = await _hold(azure, identity, holder)
            elif left := _own(body, _claim(holder)):
                # Whoever wrote it was killed, or Azure did not let it be removed: it would lock everybody out later.
                await azure.change_tags(identity, "Delete", left)
        return Made(str(body["id"]), computed(body))

    async def update(self, operation: Operation, state: State, inputs: Raw) -> Computed:
        """Purpose and vCPU are this side's own: the cluster is only looked at, and serves on."""
        return (await self.create(operation, inputs)).computed

    async def read(self, operation: Operation, state: State) -> State | None:
        """Gone when the cluster is gone or somebody else holds it."""
        news = plain(state.inputs)
        async with arm() as azure:
            body = await azure.get(state.id, CLUSTER_API)
        if body is None or _tags(body).get(HOLDER_TAG) != news.get("holder"):
            return None
        return State(state.id, state.inputs, {**state.inputs, **computed(body)})

    async def delete(self, operation: Operation, state: State) -> None:
        """Takes the tags away that are ours; the cluster stays."""
        holder = str(plain(state.inputs).get("holder"))
        async with arm() as azure:
            body = await azure.get(state.id, CLUSTER_API)
            if own := _own(body or {}, {HOLDER_TAG: holder, **_claim(holder)}):
                await azure.change_tags(state.id, "Delete", own)


async def _hold(azure: Arm, identity: str, holder: str) -> dict[str, Any]:
    """The cluster, held. Raises ResourceFailed where somebody else holds it, or is about to."""
    claim = _claim(holder)
    await azure.change_tags(identity, "Merge", claim)
    try:
        if others := _of_others(await azure.get(identity, CLUSTER_API), holder):
            tags = " ".join(f"{name}={value}" for name, value in sorted(others.items()))
            raise ResourceFailed(
                f"{', '.join(sorted(set(others.values())))} takes hold of the cluster at the same moment: apply again; "
                f"where that stack is gone, remove its tag first: az tag update --resource-id {identity} "
                f"--operation Delete --tags {tags}"
            )
        await azure.change_tags(identity, "Merge", {HOLDER_TAG: holder})
    finally:
        await azure.change_tags(identity, "Delete", claim)
    after = await azure.get(identity, CLUSTER_API)
    if after is None or _tags(after).get(HOLDER_TAG) != holder:
        raise ResourceFailed("the cluster is gone, or somebody took its tag away at the same moment")
    return after


def _claim(holder: str) -> dict[str, str]:
    return {f"{CLAIM_TAG}{hashlib.sha256(holder.encode()).hexdigest()[:12]}": holder}


def _own(body: Mapping[str, Any], tags: Mapping[str, str]) -> dict[str, str]:
    """Those of these tags that the cluster has."""
    present = _tags(body)
    return {name: value for name, value in tags.items() if present.get(name) == value}


def _of_others(body: Mapping[str, Any] | None, holder: str) -> dict[str, str]:
    """The tags of others that hold it or are about to."""
    tags = {name: str(value) for name, value in _tags(body or {}).items()}
    return {
        name: value
        for name, value in tags.items()
        if value != holder and (name == HOLDER_TAG or name.startswith(CLAIM_TAG))
    }


def _tags(body: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = body.get("tags") or {}
    return found


async def _vaults(related: Mapping[str, Any]) -> list[str]:
    try:
        async with arm() as azure:
            return [*await look(azure, related)]
    except AzureFailed as error:
        return [f"the vault was not looked up: {error}"]


async def _look(azure: Arm, news: Mapping[str, Any]) -> dict[str, Any] | None:
    return await azure.get(path_of(news, azure.subscription), CLUSTER_API)
