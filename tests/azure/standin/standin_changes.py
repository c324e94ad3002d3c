"""What Azure refuses to change on a cluster that is there. Written from the documents, as the rest."""

from standin_world import Body
from standin_world import need as _need


def judge_change(old: Body, new: Body) -> None:
    """Raises Refused. Bodies of the cluster before and after."""
    before, after = old["properties"], new["properties"]
    was, is_now = _access(before), _access(after)
    integrated = bool(was.get("enableVnetIntegration"))
    kept = not integrated or bool(is_now.get("enableVnetIntegration"))
    _need(kept, "OperationNotAllowed", "API server VNet integration cannot be disabled", "2.15")
    same = bool(was.get("enablePrivateCluster")) == bool(is_now.get("enablePrivateCluster"))
    message = "enablePrivateCluster changes only with API server VNet integration"
    _need(same or integrated, "PropertyChangeNotAllowed", message, "4")
    entra = not before.get("aadProfile") or bool(after.get("aadProfile"))
    _need(entra, "PropertyChangeNotAllowed", "Entra integration cannot be switched off again", "12")
    issuer = (before.get("oidcIssuerProfile") or {}).get("enabled")
    # Left out it stays as it is.
    ended = issuer and (after.get("oidcIssuerProfile") or {}).get("enabled") is False
    _need(not ended, "OIDCIssuerFeatureCannotBeDisabled", "the issuer cannot be disabled", "12")
    one, other = _version(before.get("kubernetesVersion")), _version(after.get("kubernetesVersion"))
    back = one and other and other < one[: len(other)]
    _need(not back, "OperationNotAllowed", f"downgrade from {one} to {other}", "10")


def _access(properties: Body) -> Body:
    return properties.get("apiServerAccessProfile") or {}


def _version(text: str | None) -> tuple[int, ...]:
    return tuple(map(int, text.split("."))) if text else ()
