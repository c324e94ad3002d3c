"""Changes that AKS refuses to make in place, though Pulumi plans them as updates. Pure: the arguments before and after.

Numbers in brackets are those of docs/aks-rules.md.
"""

import re
from collections.abc import Iterator, Mapping

from aks_inference.findings import Casing, in_casing

_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
PRIVATE, INTEGRATED = "access.privateCluster", "access.vnetIntegration"
ENTRA, ISSUER, VERSION = "access.entraId", "security.oidcIssuer", "kubernetesVersion"


def refusals(before: object, after: object) -> Iterator[str]:
    """What Azure would say no to, with the mend. What is unknown or was not recorded says nothing."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return
    if INTEGRATED in before and _ends(before, after, INTEGRATED):
        # Doc api-server-vnet-integration.md: "once enabled, the feature is permanent".
        yield f"{INTEGRATED}: was true, and AKS never turns it off again; keep it [2.15]"
    changes = PRIVATE in before and PRIVATE in after and before[PRIVATE] is not after[PRIVATE]
    if changes and isinstance(after[PRIVATE], bool) and before.get(INTEGRATED) is not True:
        # Doc private-clusters.md, prerequisites: only clusters with VNet integration can be changed.
        yield (
            f"{PRIVATE}: changes from {_word(before[PRIVATE])} to {_word(after[PRIVATE])}, and AKS does that only with "
            f"API server VNet integration; keep it, or turn on {INTEGRATED} first, in an apply of its own [4i]"
        )
    if _ends(before, after, ENTRA):
        # Doc entra-id-control-plane-authentication.md.
        yield f"{ENTRA}: was true, and AKS never turns it off again; keep it [12a]"
    if _ends(before, after, ISSUER):
        # Doc use-oidc-issuer.md.
        yield f"{ISSUER}: was true, and AKS never turns it off again; keep it, or leave it out [12d]"
    old, new = _version(before.get(VERSION)), _version(after.get(VERSION))
    # A minor version alone is its newest patch.
    if old and new and (new[:2] < old[:2] or (new[:2] == old[:2] and None not in (old[2], new[2]) and new < old)):
        yield f"{VERSION}: goes back from {before[VERSION]} to {after[VERSION]}, which AKS refuses; keep it [10f]"


def steps_left_out(before: object, after: object) -> Iterator[str]:
    """What AKS refuses of most clusters, and takes of some (long-term support, versions whose support has ended)."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return
    old, new = _version(before.get(VERSION)), _version(after.get(VERSION))
    if old and new and new[0] == old[0] and (new[1] or 0) > (old[1] or 0) + 1:
        between = ", ".join(f"{old[0]}.{minor}" for minor in range((old[1] or 0) + 1, new[1] or 0))
        says = (
            f"{VERSION}: goes from {before[VERSION]} to {after[VERSION]} at once, and AKS mostly wants every minor one"
        )
        yield f"{says}: apply {between} first"


def crowded(before: object, after: object) -> Iterator[str]:
    """Ranges that hold the pools, and not those beside them that are to go once the new ones are there."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return
    for argument, room in after.items():
        there, pools = (before.get(argument) or {}).get("pools") or {}, room["pools"]
        going = {name: count for name, count in there.items() if name not in pools}
        needed, more = sum(pools.values()), sum(going.values())
        if going and needed <= room["available"] < needed + more:
            rule = f"{argument}: {', '.join(sorted(going))} goes once its successor is there, and until then the pools"
            says = f"{rule} need {needed + more:,.0f} addresses of the {room['available']:,.0f} of {room['range']}"
            exact = in_casing("@exact_name", Casing.BOTH)
            yield f"{says}; use fewer nodes for that time, or {exact}, with which the old pool goes first [2.9–2.12]"


def _ends(before: Mapping[str, object], after: Mapping[str, object], name: str) -> bool:
    return before.get(name) is True and after.get(name) is False


def _word(value: object) -> str:
    return str(value).lower()


def _version(text: object) -> tuple[int, int, int | None] | None:
    found = _VERSION.fullmatch(text) if isinstance(text, str) else None
    return (int(found[1]), int(found[2]), int(found[3]) if found[3] else None) if found else None
