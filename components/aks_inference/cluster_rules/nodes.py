"""What the nodes of a pool carry: labels, taints and their operating system (aks-rules 7)."""

import re
from collections import Counter
from collections.abc import Iterator

from aks_inference.cluster_rules.model import Cluster, Pool
from aks_inference.cluster_rules.rulebook import RuleFinding, error, warning
from aks_inference.findings import Verbatim

LABELS = error(
    "7m", "labels have Kubernetes' form, and none that AKS or the component keeps", "Doc use-labels.md 2024-06-10"
)
TAINTS = error(
    "7n", "taints are key=value:Effect", "Spec 2025-09-01 nodeTaints; azure-cli acs/_validators.py validate_taint"
)
OS_SKU = error("7o", "operating systems that the API knows, for Linux", "Spec 2025-09-01 OSSKU")
OS_SKU_ENDS = warning("7p", "operating systems whose images end", "aks-rules 7; Doc includes/*retirement.md")

POOL_LABEL = "aks-inference.dev/pool"
"""Stable label for selectors: pools change their names when a fixed property changes."""
OS_SKUS = ("Ubuntu", "AzureLinux", "AzureLinux3")
"""Of 2025-09-01, with neither Windows nor what ends; Ubuntu2404 came with a later version of the API."""
ENDING_OS_SKUS = {"Ubuntu2204": "Ubuntu", "CBLMariner": "AzureLinux3"}
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_KEPT_PREFIXES = ("kubernetes.azure.com/", "kubernetes.io/")
_KEPT_LABELS = ("node.kubernetes.io/instance-type", "topology.kubernetes.io/region", "topology.kubernetes.io/zone")
_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LONGEST_PREFIX = 253
_TAINT = re.compile(r"(?P<key>[^=:]+)=(?P<value>[^=:]+):(?P<effect>[^=:]+)")


def check_nodes(cluster: Cluster) -> Iterator[RuleFinding]:
    """All findings about labels, taints and operating systems."""
    for pool in cluster.pools:
        yield from _labels(pool)
        yield from _taints(pool)
        yield from _os_sku(pool)


def is_label_key(text: str) -> bool:
    """Whether Kubernetes takes it as the key of a label or a taint."""
    prefix, slash, name = text.rpartition("/")
    whole = not slash or (len(prefix) <= _LONGEST_PREFIX and _PREFIX.fullmatch(prefix) is not None)
    return whole and _LABEL.fullmatch(name) is not None


def _labels(pool: Pool) -> Iterator[RuleFinding]:
    times = Counter(key for key, _ in pool.labels)
    for key, value in dict(pool.labels).items():
        path = (*pool.path, "labels", Verbatim(key))
        if key == POOL_LABEL:
            if times[key] > 1:
                yield LABELS.broken(path, value, "holds the pool's name: selectors rely on it", "leave it out")
        elif not is_label_key(key):
            says = "its key must be up to 63 letters, digits, `-`, `_` and `.`, a letter or digit at both ends"
            yield LABELS.broken(path, value, says, 'for example "team", or "example.com/team"')
        elif key.startswith(_KEPT_PREFIXES) or key in _KEPT_LABELS:
            yield LABELS.broken(path, value, "AKS keeps this label for itself", "use a prefix of your own")
        elif value and not _LABEL.fullmatch(value):
            says = "must be up to 63 letters, digits, `-`, `_` and `.`, a letter or digit at both ends"
            yield LABELS.broken(path, value, says, "shorten or mend it")


def _taints(pool: Pool) -> Iterator[RuleFinding]:
    for index, taint in enumerate(pool.taints):
        path, found = (*pool.path, "taints", index), _TAINT.fullmatch(taint)
        if found is None or not is_label_key(found["key"]) or not _LABEL.fullmatch(found["value"]):
            yield TAINTS.broken(path, taint, "is not key=value:Effect", 'for example "sku=gpu:NoSchedule"')
        elif found["effect"] not in EFFECTS:
            says = f"its effect is none of {', '.join(EFFECTS)}"
            yield TAINTS.broken(path, taint, says, f'for example "{found["key"]}={found["value"]}:NoSchedule"')


def _os_sku(pool: Pool) -> Iterator[RuleFinding]:
    sku, path = pool.os_sku, (*pool.path, "os_sku")
    if sku is None or sku in OS_SKUS:
        return
    if sku in ENDING_OS_SKUS:
        yield OS_SKU_ENDS.broken(path, sku, "its node images end", f'write "{ENDING_OS_SKUS[sku]}"')
    elif sku.startswith("Windows"):
        yield OS_SKU.broken(path, sku, "the serving runtime runs on Linux", f"use one of {', '.join(OS_SKUS)}")
    else:
        close = {word.lower(): word for word in OS_SKUS}.get(sku.lower())
        mend = f'write "{close}"' if close else f"use one of {', '.join(OS_SKUS)}, or leave it out"
        yield OS_SKU.broken(path, sku, "is not known to AKS", mend)
