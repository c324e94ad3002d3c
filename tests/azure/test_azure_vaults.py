"""Key Vaults that cannot be read as they are declared are told at preview, where Azure can be asked."""

import asyncio
from datetime import date
from typing import Any

import pytest

from aks_inference.aks_cluster.attach import AttachPlan
from aks_inference.aks_cluster.lifecycle import attached_facts
from aks_inference.aks_cluster.spec import plan_cluster
from aks_inference_provider.resources import aks_attached
from aks_inference_provider.resources.aks_attached import AttachedCluster
from aks_inference_provider.resources.aks_vaults import vault_cautions, vaults_of
from aks_inference_provider.resources.base import Urn
from aks_inference_provider.wire import UNKNOWN

VAULT = (
    "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/keys/providers/Microsoft.KeyVault/vaults/keys"
)
ATTACHED = VAULT.replace("KeyVault/vaults/keys", "ContainerService/managedClusters/prod")
OPEN = {"enableRbacAuthorization": True, "publicNetworkAccess": "Enabled"}
DENIED = {**OPEN, "networkAcls": {"defaultAction": "Deny"}}
CLOSED = {**OPEN, "publicNetworkAccess": "Disabled"}
CERTIFICATE, KMS = {"id": VAULT, "use": "certificate"}, {"id": VAULT, "use": "kms", "private": False}


@pytest.mark.parametrize(
    ("vault", "properties", "says"),
    [
        (CERTIFICATE, OPEN, []),
        (KMS, OPEN, []),
        (CERTIFICATE, None, ["the Key Vault keys does not exist, or you have no right to see it"]),
        (CERTIFICATE, {"enableRbacAuthorization": False}, ["decides by access policies"]),
        (CERTIFICATE, {}, ["or add a policy for the identity of the cluster's Key Vault add-on (azurekeyvaultsecrets"]),
        (KMS, {}, ["or add a policy for the cluster's identity"]),
        (CERTIFICATE, CLOSED, ["has no public access: the nodes must reach it"]),
        (CERTIFICATE, DENIED, ["refuses all networks but those that it names: the nodes must reach it"]),
        (CERTIFICATE, {**OPEN, "networkAcls": {"defaultAction": "Allow"}}, []),
        (KMS, CLOSED, ["write kmsNetworkAccess (in Python kms_network_access) Private"]),
        (KMS, DENIED, ["KMS must be let through"]),
        ({**KMS, "private": True}, CLOSED, []),
        ({**KMS, "private": True}, {**CLOSED, "enableRbacAuthorization": False}, ["decides by access policies"]),
    ],
)
def test_what_is_said(vault: dict[str, Any], properties: dict[str, Any] | None, says: list[str]) -> None:
    found = list(vault_cautions(vault, None if properties is None else {"properties": properties}))
    assert len(found) == len(says), found
    assert all(text in caution for text, caution in zip(says, found, strict=True)), found


def test_what_is_known_later_is_not_looked_up() -> None:
    assert vaults_of({"vaults": [{**KMS, "id": UNKNOWN}, CERTIFICATE]}) == [CERTIFICATE]
    assert vaults_of({}) == []


def test_of_an_attached_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked up with the cluster, and said once; what is known later keeps nothing else from being looked at."""
    bodies = {ATTACHED: {"id": ATTACHED, "name": "prod"}, VAULT: {"properties": CLOSED}}

    class Arm:
        subscription = "1"

        async def __aenter__(self) -> "Arm":
            return self

        async def __aexit__(self, *_: object) -> None: ...

        async def get(self, path: str, _version: str) -> dict[str, Any] | None:
            return bodies.get(path)

    monkeypatch.setattr(aks_attached, "arm", Arm)
    for name in ("ARM_TENANT_ID", "ARM_CLIENT_ID", "ARM_CLIENT_SECRET"):
        monkeypatch.setenv(name, "x")
    urn = Urn.parse("urn:pulumi:dev::proj::aks-inference:index:AttachedCluster::prod")

    def said(vault: dict[str, Any] | None, olds: dict[str, Any] | None = None) -> list[str]:
        news = {"resourceId": ATTACHED, "purpose": "DevTest"}
        related = {} if vault is None else {"related": {"vaults": [vault]}}
        checked = asyncio.run(AttachedCluster().check(urn, olds or {}, {**news, **related}))
        assert not checked.failures
        assert checked.inputs.items() >= related.items()
        assert any("DevTest" in note for note in checked.notes), "the cluster was looked at"
        return [note for note in checked.notes if "Key Vault" in note]

    assert [each.partition(":")[0] for each in said(CERTIFICATE)] == ["the Key Vault keys has no public access"]
    assert said(CERTIFICATE, {"related": {"vaults": [CERTIFICATE]}}) == []
    assert said({**CERTIFICATE, "id": UNKNOWN}) == said(None) == []
    plan, _ = plan_cluster(
        "prod",
        {
            "resource_id": ATTACHED,
            "ssl_cname": "scoring.example.com",
            "ssl_key_vault_secret_id": "https://keys.vault.azure.net/secrets/scoring",
            "ssl_key_vault_id": VAULT,
            "runtime": {"image": "acme.azurecr.io/runtime:1"},
        },
        date(2026, 11, 21),
    )
    assert isinstance(plan, AttachPlan)
    assert attached_facts(plan) == {"vaults": [CERTIFICATE]}


@pytest.mark.long
def test_at_preview(stack: Any, azure: Any, tables: Any) -> None:
    from standin_http import ArmServer

    stack.program(
        'ssl_cname="scoring.example.com", ssl_key_vault_secret_id="https://keys.vault.azure.net/secrets/scoring"',
        f'ssl_key_vault_id="{VAULT}", runtime=dict(image="acme.azurecr.io/runtime:1"), vm_size="Standard_D4s_v5"',
    )
    told = "warning: the Key Vault keys"
    assert told not in stack.preview()
    with ArmServer(azure) as server:
        stack.environment |= server.environment
        assert f"{told} does not exist" in stack.preview()
        own = {"tenantId": "00000000-0000-0000-0000-00000000000f", "sku": {"family": "A", "name": "standard"}}
        kind = tables.kind("azure-native:keyvault:Vault")
        azure.put(kind, VAULT, {"location": "westeurope", "properties": {**own, **CLOSED}})
        assert f"{told} has no public access" in stack.preview()
        azure.put(kind, VAULT, {"location": "westeurope", "properties": {**own, **OPEN}})
        assert told not in stack.preview()
