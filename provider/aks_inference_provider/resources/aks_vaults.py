"""Key Vaults that a cluster uses, as Azure has them: who may read them, and from where. Told at preview."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from aks_inference.findings import Casing, in_casing
from aks_inference_provider.resources.base import Caution
from aks_inference_provider.wire import UNKNOWN
from aks_inference_runtime.azure.arm import Arm

VAULT_API = "2023-07-01"
"""Microsoft.KeyVault/vaults."""
_ADDON = "the identity of the cluster's Key Vault add-on (azurekeyvaultsecretsprovider-<cluster>)"
"""It fetches certificates. Doc csi-secrets-store-identity-access.md."""
_RBAC = "Azure role-based access control (az keyvault update --enable-rbac-authorization true)"


def vaults_of(given: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those whose id is known: `id`, `use` (`kms` or `certificate`), `private` of KMS."""
    found = given.get("vaults") or ()
    known = (one for one in found if isinstance(one, Mapping) and isinstance(one.get("id"), str))
    return [one for one in known if one["id"] != UNKNOWN]


async def look(azure: Arm, given: Mapping[str, Any]) -> list[Caution]:
    """What is to be said of all of them. Raises AzureFailed."""
    vaults = vaults_of(given)
    bodies = await asyncio.gather(*(azure.get(str(one["id"]), VAULT_API) for one in vaults))
    return [caution for one, body in zip(vaults, bodies, strict=True) for caution in vault_cautions(one, body)]


def vault_cautions(vault: Mapping[str, Any], body: Mapping[str, Any] | None) -> Iterator[Caution]:
    """What is to be said of one. `body` None: there is none."""
    name = f"the Key Vault {str(vault['id']).rsplit('/', 1)[-1]}"
    who = "the cluster's identity" if vault.get("use") == "kms" else _ADDON
    if body is None:
        yield Caution(f"{name} does not exist, or you have no right to see it: the cluster cannot use it")
        return
    properties: Mapping[str, Any] = body.get("properties") or {}
    if properties.get("enableRbacAuthorization") is not True:
        # The default of vaults that older APIs made.
        yield Caution(
            f"{name} decides by access policies, and a role that is given there means nothing to it: turn on {_RBAC}, "
            f"or add a policy for {who}"
        )
    closed = properties.get("publicNetworkAccess") == "Disabled"
    denied = ((properties.get("networkAcls") or {}).get("defaultAction") or "Allow") == "Deny"
    if vault.get("use") == "kms":
        access = in_casing("@kms_network_access", Casing.BOTH)
        if closed and not vault.get("private"):
            yield Caution(f"{name} has no public access, and KMS is to reach it in public: write {access} Private")
        elif denied and not vault.get("private"):
            yield Caution(
                f"{name} refuses all networks but those that it names: KMS must be let through, or {access} be Private"
            )
    elif closed or denied:
        how = "has no public access" if closed else "refuses all networks but those that it names"
        yield Caution(
            f"{name} {how}: the nodes must reach it, through a private endpoint in their network"
            f"{'' if closed else ', or as one that it names'}; else the certificate is neither brought nor renewed"
        )
