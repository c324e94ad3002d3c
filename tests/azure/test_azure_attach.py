"""Attaching a cluster that exists: looked at, held by one stack, left as it was."""

import asyncio
import re
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager, nullcontext, suppress
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest

from aks_inference_provider.errors import ResourceFailed
from aks_inference_provider.resources import aks_attached
from aks_inference_provider.resources.aks_attached import CLAIM_TAG, HOLDER_TAG, AttachedCluster, computed, findings_of
from aks_inference_provider.resources.base import State
from aks_inference_runtime.azure import arm as azure_arm
from aks_inference_runtime.azure.arm import Arm, AzureFailed, credentials_of

ID = (
    "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg"
    "/providers/Microsoft.ContainerService/managedClusters/shared"
)
BODY = {
    "location": "northeurope",
    "tags": {"team": "a"},
    "identity": {"type": "SystemAssigned"},
    "sku": {"name": "Base", "tier": "Standard"},
    "properties": {
        "dnsPrefix": "shared",
        "kubernetesVersion": "1.35",
        "networkProfile": {"networkPlugin": "azure", "networkPluginMode": "overlay", "loadBalancerSku": "standard"},
        "agentPoolProfiles": [{"name": "system", "mode": "System", "count": 3, "vmSize": "Standard_D4s_v5"}],
    },
}


@pytest.fixture
def existing(azure: Any, tables: Any) -> Any:
    """A cluster that somebody made."""
    group = tables.kind("azure-native:resources:ResourceGroup")
    azure.put(group, ID.split("/providers/", maxsplit=1)[0], {"location": "northeurope"})
    azure.put(tables.kind("azure-native:containerservice:ManagedCluster"), ID, BODY)
    return azure


@pytest.mark.long
def test_one_stack_holds_it(
    make_stack: Callable[[str], Any], existing: Any, as_outputs: Callable[[Any], dict[str, Any]]
) -> None:
    from standin_http import ArmServer

    with ArmServer(existing) as server:
        one, other = make_stack("one"), make_stack("other")
        one.environment |= server.environment
        other.environment |= server.environment
        one.program(f'resource_id="{ID}"', resource="first")
        shown = one.preview()
        assert "system 3 × Standard_D4s_v5 (4 vCPU) = 12 vCPU; FastProd needs at least 12: ok" in shown
        one.up()
        tags = existing.get(ID)["tags"]
        assert tags == {"team": "a", HOLDER_TAG: "one/dev/first"}
        assert set(one.steps()) == {"same"}
        # The same list as of a cluster of one's own, with its names.
        hosts = as_outputs(one)["hosts"]
        assert {"mcr.microsoft.com:443", "management.azure.com:443"} <= set(hosts)
        (api,) = [host for host in hosts if ".hcp.northeurope." in host]
        assert api.startswith("shared-"), hosts

        # Group and name say the same cluster; whoever comes second is told who has it.
        other.program('resource_group="rg", cluster_name="shared"')
        assert "is attached already, by one/dev/first" in other.preview(code=1)
        assert "is attached already, by one/dev/first" in other.up(code=1)
        assert existing.get(ID)["tags"] == tags

        before = existing.get(ID)["properties"]
        one.destroy()
        assert existing.get(ID)["tags"] == {"team": "a"}
        assert existing.get(ID)["properties"] == before
        other.up()
        assert existing.get(ID)["tags"][HOLDER_TAG] == "other/dev/prod"


def test_without_credentials_it_is_said(make_stack: Callable[[str], Any], existing: Any) -> None:
    stack = make_stack("one")
    stack.program(f'resource_id="{ID}"')
    assert "not looked up: no Azure credentials here" in stack.preview()
    assert "no Azure credentials" in stack.up(code=1)


NEWS = {"resourceId": ID, "purpose": "FastProd"}


@pytest.mark.parametrize(
    ("change", "news", "path", "says"),
    [
        ({"tags": {HOLDER_TAG: "x/y/z"}}, {}, "resourceId", "by x/y/z"),
        ({"properties": {"provisioningState": "Failed"}}, {}, "resourceId", "in the state Failed"),
        ({"properties": {"powerState": {"code": "Stopped"}}}, {}, "resourceId", "is stopped"),
        ({"properties": {"networkProfile": {"loadBalancerSku": "Basic"}}}, {}, "resourceId", "Basic load balancer"),
        ({"properties": {"agentPoolProfiles": [{"name": "a", "count": 2, "vmSize": "Standard_D4s_v5"}]}}, {}, "purpose",
         "= 8 vCPU; FastProd needs at least 12: use 1 more node, a larger vmSize (in Python vm_size), or "
         "clusterPurpose (in Python cluster_purpose) DevTest"),
        ({"properties": {"agentPoolProfiles": [{"name": "a", "count": 2, "vmSize": "Standard_X"}]}},
         {"vcpusPerNode": 4.0}, "purpose", "= 8 vCPU"),
    ],
)  # fmt: skip
def test_what_is_refused(change: dict[str, Any], news: dict[str, Any], path: str, says: str) -> None:
    body = {"name": "shared", **BODY, **change}
    if "properties" in change:
        body["properties"] = {**BODY["properties"], **change["properties"]}  # type: ignore[dict-item]
    failures, _ = findings_of(body, {**NEWS, **news}, "one/dev/first")
    assert [failure.path for failure in failures] == [path]
    assert says in failures[0].reason


def test_what_is_accepted_with_a_word() -> None:
    body = {"name": "shared", **BODY, "properties": {**BODY["properties"], "kubernetesVersion": "1.33"}}  # type: ignore[dict-item]
    failures, notes = findings_of(body, {**NEWS, "purpose": "DevTest"}, "one/dev/first")
    assert failures == []
    assert any("1.33" in note for note in notes)
    assert any("not for production" in note for note in notes)
    assert findings_of({**body, "tags": {HOLDER_TAG: "one/dev/first"}}, NEWS, "one/dev/first")[0] == []


GROWS = {"name": "cpu", "count": 3, "vmSize": "Standard_D4s_v5", "enableAutoScaling": True, "maxCount": 9}
FIXED = {"name": "gpu", "count": 3, "vmSize": "Standard_D4s_v5", "enableAutoScaling": False}
WINDOWS = {**GROWS, "name": "win", "osType": "Windows"}


def test_what_its_pools_may_become_is_known_at_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas are wanted for nodes that are still to come, as on a cluster of one's own."""
    body = {
        "id": ID,
        "name": "shared",
        **BODY,
        "properties": {**BODY["properties"], "agentPoolProfiles": [GROWS, FIXED, WINDOWS]},
    }  # type: ignore[dict-item]
    assert computed(body)["autoscaledPools"] == {"cpu": 9}

    async def look(*_: Any) -> Any:
        return body

    monkeypatch.setattr(aks_attached, "_look", look)
    monkeypatch.setattr(aks_attached, "credentials_of", lambda _: SimpleNamespace(usable=True))
    monkeypatch.setattr(aks_attached, "arm", lambda: nullcontext(None))
    attached, urn = AttachedCluster(), SimpleNamespace(project="p", stack="s", name="n")
    news: Any = {"resourceId": ID, "purpose": "DevTest"}

    def checked(olds: Any) -> Any:
        found = asyncio.run(attached.check(urn, olds, news))  # type: ignore[arg-type]
        assert not found.failures
        return found.inputs

    first = checked({})
    assert first["pools"] == {"cpu": 9}
    assert attached.preview(first, None)["autoscaledPools"] == {"cpu": 9}
    state = State(ID, first, {**first, **computed(body)})
    assert not asyncio.run(attached.diff(state, checked(first))).properties
    grown = {**GROWS, "maxCount": 12}
    body["properties"]["agentPoolProfiles"] = [grown]  # type: ignore[index]
    then = checked(first)
    assert asyncio.run(attached.diff(state, then)).properties
    assert attached.preview(then, state)["autoscaledPools"] == {"cpu": 12}
    # Who may not look leaves it as it was.
    monkeypatch.setattr(aks_attached, "credentials_of", lambda _: SimpleNamespace(usable=False))
    assert checked(then)["pools"] == {"cpu": 12}


def test_credentials() -> None:
    assert not credentials_of({"PATH": "/nowhere"}).usable
    full = {"ARM_TENANT_ID": "t", "ARM_CLIENT_ID": "c", "ARM_CLIENT_SECRET": "s", "PATH": "/nowhere"}
    assert credentials_of(full).usable
    assert credentials_of({key.replace("ARM_", "AZURE_"): value for key, value in full.items()}).usable
    assert "'s'" not in repr(credentials_of(full))
    assert credentials_of({"ARM_ENVIRONMENT": "china"}).management == "https://management.chinacloudapi.cn"
    with pytest.raises(AzureFailed, match="https only"):
        credentials_of({"ARM_RESOURCE_MANAGER_ENDPOINT": "http://example.com"})
    with pytest.raises(AzureFailed, match="none of public"):
        credentials_of({"ARM_ENVIRONMENT": "mars"})


class Tagged:
    """A cluster with tags, as ARM shows and changes them; who asks waits for its turn."""

    subscription = "s"

    def __init__(self) -> None:
        self.body = {"id": ID, "name": "shared", **deepcopy(BODY)}
        self.refused: set[str] = set()
        """Operations."""

    @property
    def tags(self) -> dict[str, str]:
        found: Any = self.body["tags"]
        return dict(found)

    async def get(self, _path: str, _api: str) -> dict[str, Any]:
        await Turn()
        return deepcopy(self.body)

    async def change_tags(self, _scope: str, operation: str, tags: dict[str, str]) -> None:
        await Turn()
        if operation in self.refused:
            raise AzureFailed("no right to do so", 403)
        kept = self.tags
        self.body["tags"] = kept | tags if operation == "Merge" else {k: v for k, v in kept.items() if k not in tags}


class Turn:
    def __await__(self) -> Any:
        yield


def held(holder: str) -> Coroutine[Any, Any, Any]:
    operation: Any = SimpleNamespace(progress=SimpleNamespace(status=lambda _text: None))
    return AttachedCluster().create(operation, {**NEWS, "holder": holder})


def ends(
    attaching: list[Coroutine[Any, Any, Any]], turns: list[int]
) -> tuple[list[bool | None], list[tuple[int, bool]]]:
    """Whether each succeeded; and of each turn whose it was and whether the other could have had it. Beyond `turns` the
    first goes on that can.
    """
    done: list[bool | None] = [None, None]
    took: list[tuple[int, bool]] = []
    while None in done:
        index = turns[len(took)] if len(took) < len(turns) else done.index(None)
        took.append((index, done[1 - index] is None))
        try:
            attaching[index].send(None)
        except StopIteration:
            done[index] = True
        except ResourceFailed:
            done[index] = False
    return done, took


def alone(attaching: Coroutine[Any, Any, Any]) -> None:
    """To its end."""
    with suppress(StopIteration):
        while True:
            attaching.send(None)


@pytest.fixture
def tagged(monkeypatch: pytest.MonkeyPatch) -> Tagged:
    cluster = Tagged()

    @asynccontextmanager
    async def arm() -> Any:
        yield cluster

    monkeypatch.setattr(aks_attached, "arm", arm)
    return cluster


def detached(holder: str) -> Coroutine[Any, Any, Any]:
    operation: Any = None
    return AttachedCluster().delete(operation, State(ID, {**NEWS, "holder": holder}, {}))


@pytest.mark.parametrize("mends", [held, detached])
def test_a_claim_that_stayed_is_removed_by_the_next_apply_and_by_destroy(
    tagged: Tagged, mends: Callable[..., Coroutine[Any, Any, Any]]
) -> None:
    tagged.refused = {"Delete"}
    with pytest.raises(AzureFailed):
        alone(held("one/dev/a"))
    assert len(tagged.tags) == 3, "held, with the claim"
    tagged.refused.clear()
    alone(mends("one/dev/a"))
    assert tagged.tags == {"team": "a"} | ({HOLDER_TAG: "one/dev/a"} if mends is held else {})


def test_whose_claim_stayed_is_said_with_how_to_remove_it(tagged: Tagged) -> None:
    tagged.body["tags"] = {"team": "a", f"{CLAIM_TAG}0123": "gone/dev/x"}
    command = f"az tag update --resource-id {ID} --operation Delete --tags {CLAIM_TAG}0123=gone/dev/x"
    with pytest.raises(ResourceFailed, match=f"gone/dev/x takes hold .* {re.escape(command)}$"):
        alone(held("one/dev/a"))
    assert tagged.tags == {"team": "a", f"{CLAIM_TAG}0123": "gone/dev/x"}
    # A claim of somebody else is not a matter of who detaches.
    tagged.body["tags"] = {HOLDER_TAG: "one/dev/a", f"{CLAIM_TAG}0123": "gone/dev/x"}
    alone(detached("one/dev/a"))
    assert tagged.tags == {f"{CLAIM_TAG}0123": "gone/dev/x"}


def test_of_two_stacks_at_the_same_moment_never_both_hold_it(tagged: Tagged) -> None:
    """In every order that their requests can have."""
    holders = ["one/dev/a", "two/dev/b"]
    seen = set()
    turns: list[int] | None = []
    while turns is not None:
        tagged.body = {"id": ID, "name": "shared", **deepcopy(BODY)}
        done, took = ends([held(holder) for holder in holders], turns)
        assert done != [True, True], took
        expected = {"team": "a"}
        if True in done:
            expected[HOLDER_TAG] = holders[done.index(True)]
        assert tagged.tags == expected, took
        seen.add(tuple(done))
        # The next order: the second has the last turn of the first that it could have had.
        while took and took[-1] != (0, True):
            took.pop()
        turns = [*(index for index, _ in took[:-1]), 1] if took else None
    assert seen == {(True, False), (False, True), (False, False)}


class InTheWay:
    """A cluster at which something goes on: so many writes of tags are answered 409."""

    def __init__(self, times: int) -> None:
        self.times, self.looks = times, 0
        self.tags: dict[str, str] = {}

    def get(self, _path: str) -> dict[str, Any]:
        from standin_arm import ArmError

        self.looks += 1
        raise ArmError(409, "Conflict", "something goes on")

    def tag(self, _path: str, _operation: str, tags: dict[str, str]) -> dict[str, str]:
        from standin_arm import ArmError

        if self.times:
            self.times -= 1
            raise ArmError(409, "OperationNotAllowed", "another operation is in progress")
        self.tags = tags
        return tags


async def test_tags_wait_for_what_goes_on_at_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    from standin_http import ArmServer

    monkeypatch.setattr(azure_arm, "_wait", lambda _header, _attempt: 0)
    cluster: Any = InTheWay(2)
    with ArmServer(cluster) as server:
        async with Arm(credentials_of(server.environment)) as azure:
            await azure.change_tags(ID, "Merge", {"a": "b"})
            assert cluster.tags == {"a": "b"}
            # Not for ever, and nothing else waits for it.
            cluster.times = 1_000
            with pytest.raises(AzureFailed, match="409 OperationNotAllowed"):
                await azure.change_tags(ID, "Merge", {"a": "c"})
            assert cluster.times == 1_000 - azure_arm._ATTEMPTS
            with pytest.raises(AzureFailed, match="409 Conflict"):
                await azure.get(ID, azure_arm.CLUSTER_API)
            assert cluster.looks == 1
