"""KMS: the identity of a new cluster gets its right at the key before the cluster, as Azure asks."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from standin_identities import CRYPTO_USER, VAULT_CONTRIBUTOR, judge_identity
from standin_world import Refused, World

VAULT = (
    "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/keys/providers/Microsoft.KeyVault/vaults/keys"
)
KEY = "https://keys.vault.azure.net/keys/etcd/1"
NETWORK = 'network={"plugin": "azure", "plugin_mode": "overlay", "pod_cidr": "10.244.0.0/16"}'


def judged(kms: dict[str, Any], holds: Callable[[str, str, str], bool]) -> None:
    body = {"identity": {"type": "UserAssigned", "userAssignedIdentities": {"me": {}}}}
    world = World(date(2026, 11, 21), Path(), lambda _: None, lambda *_: True, holds)
    judge_identity(body, {"securityProfile": {"azureKeyVaultKms": {"enabled": True, "keyId": KEY, **kms}}}, world)


@pytest.mark.parametrize(
    ("kms", "held", "code"),
    [
        ({}, set(), "ForbiddenByRbac"),
        ({}, {VAULT_CONTRIBUTOR}, "ForbiddenByRbac"),
        ({"keyVaultNetworkAccess": "Private"}, {CRYPTO_USER}, "LinkedAuthorizationFailed"),
    ],
)
def test_what_azure_refuses_without_the_roles(kms: dict[str, Any], held: set[str], code: str) -> None:
    with pytest.raises(Refused) as caught:
        judged(kms, lambda who, role, vault: role in held)
    assert caught.value.code == code
    judged(kms, lambda who, role, vault: (who, vault) == ("me", "keys"))


def test_a_new_cluster_may_use_its_key(stack: Any, azure: Any) -> None:
    args = (NETWORK, 'vm_size="Standard_D4s_v5"')
    security = f'security={{"kms": True, "kms_key_id": "{KEY}"%s}}'
    stack.program(*args, security % "")
    assert "kms_vault_id: is needed" in stack.preview(code=1)
    stack.program(*args, security % f', "kms_vault_id": "{VAULT}"')
    stack.up()
    log = [line.split()[1].rpartition("/")[2] for line in azure.log()]
    assert log.index("roleAssignments") < log.index("managedClusters")
    assert stack.steps() == {"same": len(azure.resources()) + 4}
