"""What Azure refuses about the identities of a cluster and their rights. Written from the documents, as the rest."""

import re

from standin_world import Body, World
from standin_world import need as _need

NO_IDENTITIES = {"usdodcentral", "usdodeast", "usgoviowa"}
NETWORK_CONTRIBUTOR = "4d97b98b-1d4f-4787-a291-c67834d212e7"
CRYPTO_USER = "12338af0-0e69-4776-bea7-57ae8d297424"
VAULT_CONTRIBUTOR = "f25e0fa2-a7c8-4377-a976-54943a77a395"


def judge_identity(body: Body, p: Body, world: World) -> None:
    """Raises Refused."""
    identity: Body = body.get("identity") or {}
    user = identity.get("type") == "UserAssigned"
    region = str(body.get("location") or "").replace(" ", "").lower()
    _need(not (user and region in NO_IDENTITIES), "InvalidParameter", "no user-assigned identities here", "12")
    own_kubelet = bool((p.get("identityProfile") or {}).get("kubeletidentity"))
    code = "CustomKubeletIdentityOnlySupportedOnUserAssignedMSICluster"
    _need(user or not own_kubelet, code, "the control plane's identity must be user-assigned", "12")
    np: Body = p.get("networkProfile") or {}
    subnets = {pool["vnetSubnetID"] for pool in p.get("agentPoolProfiles") or [] if pool.get("vnetSubnetID")}
    if np.get("networkPlugin") == "kubenet" and subnets:
        _need(user, "CustomRouteTableMissingPermission", "kubenet in a subnet needs a user-assigned identity", "1.5")
    if user:
        addresses = ((np.get("loadBalancerProfile") or {}).get("outboundIPs") or {}).get("publicIPs") or []
        for who in identity.get("userAssignedIdentities") or {}:
            for address in addresses:
                message = f"the client {who} has no permission on {address['id']}"
                held = world.holds_role(who, NETWORK_CONTRIBUTOR, address["id"])
                _need(held, "LinkedAuthorizationFailed", message, "3")
            for subnet in subnets:
                message = f"the client {who} has no permission on {subnet}"
                _need(world.holds_role(who, NETWORK_CONTRIBUTOR, subnet), "LinkedAuthorizationFailed", message, "1.12")
            _key(who, (p.get("securityProfile") or {}).get("azureKeyVaultKms") or {}, world)


def judge_pool_identity(pool: Body, cluster: Body, world: World) -> None:
    """A further pool's subnets and prefix, against the identity of its cluster. Raises Refused."""
    for who in (cluster.get("identity") or {}).get("userAssignedIdentities") or {}:
        for name in ("vnetSubnetID", "podSubnetID", "nodePublicIPPrefixID"):
            scope = pool.get(name)
            message = f"the client {who} has no permission on {scope}"
            held = scope is None or world.holds_role(who, NETWORK_CONTRIBUTOR, scope)
            _need(held, "LinkedAuthorizationFailed", message, "1.12")


def _key(who: str, kms: Body, world: World) -> None:
    """Whether the identity may use the key of the vault, and see to a private one."""
    host = re.match(r"https://([^./]+)", kms.get("keyId") or "")
    if not kms.get("enabled") or host is None:
        return
    code, closed = "ForbiddenByRbac", kms.get("keyVaultNetworkAccess") == "Private"
    _need(world.holds_at_vault(who, CRYPTO_USER, host[1]), code, f"{who}: keys/encrypt/action on {host[1]}", "13")
    held = not closed or world.holds_at_vault(who, VAULT_CONTRIBUTOR, host[1])
    _need(held, "LinkedAuthorizationFailed", f"{who} has no permission on the vault {host[1]}", "13")
