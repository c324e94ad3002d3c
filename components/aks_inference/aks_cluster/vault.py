"""Who fetches a certificate from a Key Vault: the identity of AKS's add-on for it, and its role at the certificate."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from aks_inference.aks_cluster.azure import AZURE_NATIVE_VERSION, AzureResource, role_definition
from aks_inference.cluster_rules.model import KEY_VAULT_ADDON
from aks_inference.facts import role_id
from aks_inference.inference_runtime.vault import parse_secret

ROLE = "Key Vault Secrets User"
"""Doc csi-secrets-store-identity-access.md: for objects of type secret, which holds a certificate with its key."""
LATER = "(known once the add-on is there)"
_CLUSTER = "azure-native:containerservice:getManagedCluster"
_CLIENT = "azure-native:authorization:getClientConfig"


@dataclass(frozen=True)
class VaultAccess:
    """Arguments of the runtime, and what it has to wait for."""

    arguments: Mapping[str, Any]
    after: tuple[pulumi.Resource, ...] = ()


def vault_access(
    name: str,
    secret_id: str,
    vault_id: Any,  # noqa: ANN401 - a text or an output of one
    cluster_id: pulumi.Output[str],
    opts: pulumi.ResourceOptions,
    provider: pulumi.ProviderResource | None = None,
) -> VaultAccess:
    """Looks the identity up, once the cluster is there, and gives it its role: at the certificate alone, whatever else
    the vault holds. `vault_id` None: that is the user's."""
    versioned = pulumi.InvokeOptions(version=AZURE_NATIVE_VERSION, provider=provider)
    place = {
        "resourceGroupName": cluster_id.apply(lambda text: text.split("/")[4]),
        "resourceName": cluster_id.apply(lambda text: text.split("/")[8]),
    }
    cluster = pulumi.runtime.invoke_output(_CLUSTER, place, versioned)
    identity = cluster.apply(addon_identity)
    client = pulumi.runtime.invoke_output(_CLIENT, {}, versioned)
    arguments = {
        "ssl_key_vault_client_id": identity.apply(lambda found: found["clientId"]),
        "ssl_key_vault_tenant_id": client.apply(lambda found: str(found["tenantId"])),
    }
    secret = parse_secret(secret_id)
    if vault_id is None or secret is None:
        return VaultAccess(arguments)
    inputs = {
        "scope": pulumi.Output.concat(vault_id, "/secrets/", secret.name),
        "principalId": identity.apply(lambda found: found["objectId"]),
        "principalType": "ServicePrincipal",
        "roleDefinitionId": role_definition(role_id(ROLE)),
    }
    role = AzureResource("authorization:RoleAssignment", f"{name}-certificate", inputs, opts)
    return VaultAccess(arguments, (role,))


def addon_identity(cluster: Mapping[str, Any]) -> dict[str, str]:
    """Ids of the add-on's identity. Raises RunError where an apply finds none."""
    addon: Mapping[str, Any] = (cluster.get("addonProfiles") or {}).get(KEY_VAULT_ADDON) or {}
    identity = addon.get("identity") or {}
    if addon.get("enabled") and identity.get("clientId") and identity.get("objectId"):
        return {name: str(identity[name]) for name in ("clientId", "objectId")}
    if pulumi.runtime.is_dry_run():
        # The same program may just turn it on.
        return {"clientId": LATER, "objectId": LATER}
    raise pulumi.RunError(
        "the cluster has no add-on for Key Vault (Secrets Store CSI driver): "
        "az aks enable-addons --addons azure-keyvault-secrets-provider --enable-secret-rotation"
    )


def vault_line(secret_id: str | None, vault_id: object) -> list[str]:
    """For the preview: whose the right at the certificate is to give."""
    if secret_id is None:
        return []
    if vault_id is not None:
        return [f"rights: the Key Vault add-on's identity gets {ROLE} at the certificate's secret in its vault"]
    return [
        f"rights: the Key Vault add-on's identity (azurekeyvaultsecretsprovider-<cluster>) must have {ROLE} at "
        f"{secret_id}; with @ssl_key_vault_id it gets the role here"
    ]
