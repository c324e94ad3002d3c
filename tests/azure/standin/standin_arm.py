"""Azure's API as far as clusters need it: it keeps state in a folder, takes its time, and refuses what Azure refuses.

Several processes share the folder; each call holds its lock.
"""

import contextlib
import fcntl
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from azure.mgmt.containerservice import models
from azure.mgmt.containerservice._utils.serialization import Serializer

from standin_bodies import Kind, form_errors
from standin_changes import judge_change
from standin_identities import judge_pool_identity
from standin_kubernetes import keep_nodes
from standin_monitor import problems
from standin_refusals import judge_cluster, judge_nodes, judge_pool, judge_subnets
from standin_world import Refused, World

CLUSTER = "Microsoft.ContainerService/managedClusters"
POOL = f"{CLUSTER}/agentPools"
VAULT_ADDON = "azureKeyvaultSecretsProvider"
FIXED_OF_POOL = (
    "vmSize", "maxPods", "availabilityZones", "vnetSubnetID", "podSubnetID", "osType", "osDiskSizeGB",
    "scaleSetPriority", "scaleSetEvictionPolicy", "spotMaxPrice", "gpuProfile", "gpuInstanceProfile",
    "enableNodePublicIP", "nodePublicIPPrefixID",
)  # fmt: skip
FIXED_OF_NETWORK = ("networkPlugin", "serviceCidr", "dnsServiceIP")
"""networkPluginMode, podCidr, policy and data plane Azure changes in place, the Pulumi provider does not."""
MODELS = {CLUSTER: "ManagedCluster", POOL: "AgentPool"}


class ArmError(Exception):
    """An answer of 400 and above."""

    def __init__(self, status: int, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f'Status={status} Code="{code}" Message="{message}"')
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after


class Azure:
    """One subscription. `settings.json` in the folder says what goes wrong:

    `seconds` that a cluster or pool takes; `throttle`: so many calls are answered 429; `clusters`: the quota;
    `deny_public_ips`; `locks`: ids; `fail`: id → code of the operation; `subnets`: id → what is known of it;
    `kubeconfig`: path of that of a real API server behind the clusters.
    """

    def __init__(self, folder: Path, data: Path, today: date) -> None:
        self._folder, self._data, self._today = folder, data, today
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, kind: Kind, identity: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Makes or changes a resource; what takes its time is answered before it is done."""
        with self._state() as state:
            self._throttled(state)
            self._judge(state, kind, identity, body)
            resources, key = state["resources"], identity.lower()
            seconds = self._settings().get("seconds", 0.0) if kind.arm_type in (CLUSTER, POOL) else 0.0
            doing = "Updating" if key in resources else "Creating"
            made = resources.get(key, {}).get("made") or _made(kind, identity, body)
            resources[key] = {
                "id": identity,
                "type": kind.arm_type,
                "body": dict(body),
                "made": made,
                "state": doing if seconds else "Succeeded",
                "ready": time.time() + seconds,
                "writes": resources.get(key, {}).get("writes", 0) + 1,
            }
            state["log"].append(f"PUT {kind.arm_type} {identity.rsplit('/', 1)[-1]}")
            self._nodes(state, kind.arm_type)
            return _shown(resources[key])

    def get(self, identity: str) -> dict[str, Any] | None:
        """As it is now."""
        with self._state() as state:
            self._throttled(state)
            found = state["resources"].get(identity.lower())
            if found is None:
                return None
            self._settle(state)
            return _shown(state["resources"][identity.lower()]) if identity.lower() in state["resources"] else None

    def listed(self, path: str) -> dict[str, Any]:
        """All resources of a type in a subscription."""
        subscription, _, arm_type = path.partition("/providers/")
        with self._state() as state:
            found = [
                _shown(one)
                for key, one in state["resources"].items()
                if one["type"] == arm_type and key.startswith(f"{subscription.lower()}/")
            ]
            return {"value": found}

    def get_quiet(self, identity: str) -> dict[str, Any] | None:
        """For the stand-in itself: no call of a client."""
        with self._state() as state:
            found = state["resources"].get(identity.lower())
            return _shown(found) if found else None

    def delete(self, identity: str) -> None:
        """Removes it, with all that is in it."""
        with self._state() as state:
            self._throttled(state)
            key = identity.lower()
            for lock in self._settings().get("locks", ()):
                if lock.lower().startswith(key) or key.startswith(lock.lower()):
                    raise ArmError(409, "ScopeLocked", f"the scope {lock} cannot be deleted because it is locked")
            if key in state["resources"]:
                self._busy(state, state["resources"][key]["type"], key)
                state["log"].append(f"DELETE {state['resources'][key]['type']} {identity.rsplit('/', 1)[-1]}")
            state["resources"] = {
                name: value
                for name, value in state["resources"].items()
                if name != key and not name.startswith(f"{key}/")
            }
            self._nodes(state, CLUSTER)

    def tag(self, scope: str, operation: str, tags: Mapping[str, str]) -> dict[str, str]:
        """Merge, Replace or Delete."""
        with self._state() as state:
            found = state["resources"].get(scope.lower())
            if found is None:
                raise ArmError(404, "ResourceNotFound", scope)
            kept: dict[str, str] = dict(found["body"].get("tags") or {})
            if operation == "Merge":
                kept |= tags
            else:
                kept = {name: value for name, value in kept.items() if name not in tags}
            found["body"]["tags"] = kept
            return kept

    def resources(self) -> dict[str, Any]:
        """All of them, by id in lower case."""
        with self._state() as state:
            return dict(state["resources"])

    def log(self) -> list[str]:
        """What was written, in order."""
        with self._state() as state:
            return list(state["log"])

    def configure(self, **settings: Any) -> None:
        """Changes what goes wrong."""
        merged = {**self._settings(), **settings}
        (self._folder / "settings.json").write_text(json.dumps(merged))

    @property
    def behind(self) -> Path | None:
        """The kubeconfig of what stands behind the clusters."""
        named = self._settings().get("kubeconfig")
        return Path(named) if named else None

    # -- how

    def _nodes(self, state: Mapping[str, Any], arm_type: str) -> None:
        if self.behind is not None and arm_type in (CLUSTER, POOL):
            keep_nodes(self.behind, state["resources"])

    def _settings(self) -> dict[str, Any]:
        path = self._folder / "settings.json"
        return json.loads(path.read_text()) if path.exists() else {}

    @contextlib.contextmanager
    def _state(self) -> Iterator[dict[str, Any]]:
        path = self._folder / "state.json"
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = json.loads(path.read_text()) if path.exists() else {"resources": {}, "log": [], "calls": 0}
            before = json.dumps(state)
            yield state
            if json.dumps(state) != before:
                path.write_text(json.dumps(state))

    def _throttled(self, state: dict[str, Any]) -> None:
        state["calls"] += 1
        if state["calls"] <= self._settings().get("throttle", 0):
            # The count is kept although the call fails.
            (self._folder / "state.json").write_text(json.dumps(state))
            raise ArmError(429, "TooManyRequests", "the request was throttled [rule 15]", retry_after=0.02)

    def _settle(self, state: dict[str, Any]) -> None:
        fail = {key.lower(): code for key, code in self._settings().get("fail", {}).items()}
        for key, value in state["resources"].items():
            if value["state"] not in {"Succeeded", "Failed"} and time.time() >= value["ready"]:
                value["state"] = "Failed" if key in fail else "Succeeded"

    def _busy(self, state: dict[str, Any], arm_type: str, key: str) -> None:
        self._settle(state)
        if not arm_type.startswith(CLUSTER):
            return
        cluster = key.split("/agentpools/", maxsplit=1)[0].split("/maintenanceconfigurations/", maxsplit=1)[0]
        found = state["resources"].get(cluster)
        if found is not None and found["state"] in {"Creating", "Updating", "Deleting"}:
            message = f"there is an in-progress operation ({found['state']}) on the cluster"
            raise ArmError(409, "OperationNotAllowed", message)

    def _judge(self, state: dict[str, Any], kind: Kind, identity: str, body: Mapping[str, Any]) -> None:
        key, settings = identity.lower(), self._settings()
        if errors := form_errors(kind, body):
            raise ArmError(400, "InvalidRequestContent", "; ".join(errors[:3]))
        if errors := model_errors(kind.arm_type, body):
            raise ArmError(400, "InvalidRequestContent", "; ".join(errors[:3]))
        if errors := list(problems(kind.arm_type, body, lambda one: state["resources"].get(one.lower()))):
            raise ArmError(400, "InvalidPayload", "; ".join(errors[:3]))
        self._busy(state, kind.arm_type, key)
        if kind.arm_type not in (CLUSTER, POOL):
            return
        holds, at_vault = self._holds(state), self._holds_at_vault(state)
        world = World(self._today, self._data, self._subnet(state), holds, at_vault, str(body.get("location", "")))
        try:
            if kind.arm_type == CLUSTER:
                self._cluster(state, key, body, world, settings)
            else:
                self._pool(state, key, body, world)
        except Refused as refused:
            raise ArmError(400, refused.code, f"{refused.message} [rule {refused.rule}]") from None

    def _cluster(
        self, state: dict[str, Any], key: str, body: Mapping[str, Any], world: World, settings: Mapping[str, Any]
    ) -> None:
        group = key.split("/providers/", maxsplit=1)[0]
        if group not in state["resources"]:
            raise ArmError(404, "ResourceGroupNotFound", group)
        old = state["resources"].get(key)
        if old is None:
            there = sum(one["type"] == CLUSTER for one in state["resources"].values())
            if there >= settings.get("clusters", 100):
                raise ArmError(403, "ManagedClusterCountExceedsQuotaLimit", f"{there} clusters [rule 15]")
        outbound = body["properties"].get("networkProfile", {}).get("outboundType", "loadBalancer")
        if settings.get("deny_public_ips") and outbound in {"loadBalancer", "managedNATGateway"}:
            raise ArmError(403, "RequestDisallowedByPolicy", f"{outbound} makes a public address [rule 3]")
        judge_cluster(key.rsplit("/", 1)[-1], body, world)
        if old is not None:
            judge_change(old["body"], body)
            _unchanged(old["body"]["properties"].get("networkProfile", {}), body["properties"]["networkProfile"],
                       FIXED_OF_NETWORK, "16")  # fmt: skip
            before = {pool["name"]: pool for pool in old["body"]["properties"]["agentPoolProfiles"]}
            for pool in body["properties"]["agentPoolProfiles"]:
                if pool["name"] in before:
                    _unchanged(before[pool["name"]], pool, FIXED_OF_POOL, "7")

    def _pool(self, state: dict[str, Any], key: str, body: Mapping[str, Any], world: World) -> None:
        cluster = key.split("/agentpools/", maxsplit=1)[0]
        found = state["resources"].get(cluster)
        if found is None:
            raise ArmError(404, "ResourceNotFound", cluster)
        properties, name = found["body"]["properties"], key.rsplit("/", 1)[-1]
        pool = dict(body["properties"])
        judge_pool(name, pool, properties, world)
        judge_pool_identity(pool, found["body"], world)
        old = state["resources"].get(key)
        if old is not None:
            _unchanged(old["body"]["properties"], pool, FIXED_OF_POOL, "7")
        others = [
            value["body"]["properties"]
            for other, value in state["resources"].items()
            if other.startswith(f"{cluster}/agentpools/") and other != key
        ]
        pools = [*properties["agentPoolProfiles"], *others, pool]
        network = properties.get("networkProfile", {})
        # A replacement has both pools for a while: that is counted, as Azure counts it.
        judge_nodes(network, pools, found["body"])
        judge_subnets(network, pools, world)

    def _subnet(self, state: dict[str, Any]) -> Callable[[str], Mapping[str, Any] | None]:
        known = {key.lower(): value for key, value in self._settings().get("subnets", {}).items()}
        return lambda identity: known.get(identity.lower())

    def _holds(self, state: dict[str, Any]) -> Callable[[str, str, str], bool]:
        def holds(who: str, role: str, scope: str) -> bool:
            return any(scope.lower().startswith(one) for one in _scopes(state["resources"], who, role))

        return holds

    def _holds_at_vault(self, state: dict[str, Any]) -> Callable[[str, str, str], bool]:
        def holds(who: str, role: str, vault: str) -> bool:
            return any(
                not one or one.endswith(f"/vaults/{vault.lower()}") for one in _scopes(state["resources"], who, role)
            )

        return holds


def _scopes(resources: Mapping[str, Any], who: str, role: str) -> Iterator[str]:
    """Where an identity has a role. Everywhere, for one that somebody else made: who knows what roles it has."""
    identity = resources.get(who.lower())
    if identity is None:
        yield ""
        return
    for one in resources.values():
        properties = one["body"].get("properties") or {}
        if (
            one["type"] == "Microsoft.Authorization/roleAssignments"
            and properties["principalId"] == identity["made"]["principalId"]
            and properties["roleDefinitionId"].endswith(role)
        ):
            yield one["id"].lower().split("/providers/microsoft.authorization/")[0]


def model_errors(arm_type: str, body: Mapping[str, Any]) -> list[str]:
    """What the API's own models say: properties that they do not know, and values out of their bounds."""
    name = MODELS.get(arm_type)
    if name is None:
        return []
    known = {key: value for key, value in vars(models).items() if isinstance(value, type)}
    model = known[name].deserialize(dict(body))
    errors = [f"unknown property {path}" for path in _unknown(model, name)]
    serializer = Serializer(known)
    try:
        serializer.body(model, name)
    except Exception as error:  # noqa: BLE001 - every error of a validation is one of the request
        errors.append(str(error))
    return errors


def _unknown(model: Any, path: str) -> Iterator[str]:
    if isinstance(model, list):
        for one in model:
            yield from _unknown(one, path)
    elif isinstance(model, dict):
        for one in model.values():
            yield from _unknown(one, path)
    elif hasattr(model, "_attribute_map"):
        yield from (f"{path}.{key}" for key in model.additional_properties or {})
        for name in model._attribute_map:
            yield from _unknown(getattr(model, name), f"{path}.{name}")


def _unchanged(old: Mapping[str, Any], new: Mapping[str, Any], names: tuple[str, ...], rule: str) -> None:
    for name in names:
        # What is not said is what the API took for it: saying something else is a change, too.
        if old.get(name) != new.get(name):
            raise ArmError(400, "PropertyChangeNotAllowed", f"changing property {name} is not allowed [rule {rule}]")


def _made(kind: Kind, identity: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """What Azure adds to a resource."""
    stable = str(uuid.uuid5(uuid.NAMESPACE_URL, identity.lower()))
    if kind.arm_type == CLUSTER:
        properties = body["properties"]
        group, name = identity.split("/")[4], identity.rsplit("/", 1)[-1]
        region = str(body.get("location", "")).replace(" ", "").lower()
        host = f"{properties.get('dnsPrefix') or properties.get('fqdnSubdomain')}-{stable[:8]}.hcp.{region}.azmk8s.io"
        private = (properties.get("apiServerAccessProfile") or {}).get("enablePrivateCluster")
        return {
            "fqdn": host,
            **({"privateFQDN": host.replace(".hcp.", ".privatelink.")} if private else {}),
            "nodeResourceGroup": properties.get("nodeResourceGroup") or f"MC_{group}_{name}_{region}",
            "currentKubernetesVersion": properties.get("kubernetesVersion") or "1.35.2",
            "identityProfile": {"kubeletidentity": {"objectId": stable, "clientId": stable}},
        }
    if kind.arm_type.endswith("/userAssignedIdentities"):
        return {"principalId": stable, "clientId": stable}
    return {}


def _principal(identity: str) -> str:
    """Of the identity that a cluster has by itself."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{identity.lower()}/identity"))


def _shown(value: Mapping[str, Any]) -> dict[str, Any]:
    body = value["body"]
    properties = {**(body.get("properties") or {}), **value["made"], "provisioningState": value["state"]}
    if (addon := (properties.get("addonProfiles") or {}).get(VAULT_ADDON)) and addon.get("enabled"):
        # AKS makes an identity for it.
        stable = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{value['id'].lower()}/{VAULT_ADDON}"))
        identity = {"clientId": stable[::-1], "objectId": stable}
        properties["addonProfiles"] = {**properties["addonProfiles"], VAULT_ADDON: {**addon, "identity": identity}}
    return {
        **body,
        **({"identity": {**body["identity"], "principalId": _principal(value["id"])}} if body.get("identity") else {}),
        "id": value["id"],
        "name": value["id"].rsplit("/", 1)[-1],
        "type": value["type"],
        "properties": properties,
    }
