"""Key Vaults that cannot be read as they are declared are told at preview, where Azure can be asked."""

from typing import Any

import pytest

from aks_inference_provider.resources.aks_vaults import vault_cautions, vaults_of
from aks_inference_provider.wire import UNKNOWN

VAULT = (
    "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/keys/providers/Microsoft.KeyVault/vaults/keys"
)
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
        (CERTIFICATE, {}, ["decides by access policies"]),
        (CERTIFICATE, CLOSED, ["has no public access: the nodes must reach it"]),
        (CERTIFICATE, DENIED, ["refuses all networks but those that it names: the nodes must reach it"]),
        (CERTIFICATE, {**OPEN, "networkAcls": {"defaultAction": "Allow"}}, []),
        (KMS, CLOSED, ["write kms_network_access Private"]),
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
