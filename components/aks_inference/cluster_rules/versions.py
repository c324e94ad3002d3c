"""Kubernetes versions by date, support plans, tiers and upgrade channels (aks-rules 10 and 11)."""

import re
from collections.abc import Iterator
from datetime import date, timedelta

from aks_inference.cluster_rules.kinds import NetworkKind, network_kind
from aks_inference.cluster_rules.model import Cluster
from aks_inference.cluster_rules.rulebook import RuleFinding, error, warning
from aks_inference.facts import KubernetesVersion, region_named, version_calendar
from aks_inference.findings import Severity

_DOC = "Doc supported-kubernetes-versions.md 2026-08"
_CHANNELS = "Doc auto-upgrade-cluster.md, auto-upgrade-node-os-image.md"
FORM = error("10a", "version is minor or patch: 1.35, 1.35.2", _DOC)
SUPPORTED = error("10b", "version is supported on the day", _DOC)
ENDS_SOON = warning("10c", "support ends soon, or has ended for a cluster that exists", _DOC)
LONG_TERM = error(
    "10d",
    "long-term support: tier Premium and its support plan, both or neither",
    "Doc long-term-support.md 2026-08-05",
)
CHANNEL = error("10e", "upgrade channels are words that AKS knows", "Spec 2025-09-01 autoUpgradeProfile")
CHANNEL_VERSION = warning("10f", "upgrade channel and version do not work against each other", _CHANNELS)
POOL_VERSION = error(
    "10g", "pools have the control plane's version when the cluster is made", "Doc create-node-pools.md"
)
TIER = error("11a", "tier and SKU are words that AKS knows", "Spec 2025-09-01 sku")
AUTOMATIC = error(
    "11b",
    "AKS Automatic: regions, tier, network, Azure ML",
    "Doc intro-aks-automatic.md, aks-automatic-limitations.md 2026-07-24",
)

CHANNELS = ("rapid", "stable", "patch", "node-image", "none")
NODE_CHANNELS = ("None", "Unmanaged", "NodeImage", "SecurityPatch")
TIERS = ("Free", "Standard", "Premium")
SOON = timedelta(days=60)
LONG_TERM_PLAN = "AKSLongTermSupport"
PLANS = ("KubernetesOfficial", LONG_TERM_PLAN)
_FORM = re.compile(r"([0-9]+)\.([0-9]+)(?:\.([0-9]+))?")


def check_versions(cluster: Cluster) -> Iterator[RuleFinding]:
    """All of sections 10 and 11."""
    yield from _version(cluster)
    yield from _plan(cluster)
    yield from _channels(cluster)
    yield from _pools(cluster)
    yield from _automatic(cluster)


def supported_minors(today: date) -> tuple[str, ...]:
    """Minor versions in ordinary support on that day, oldest first."""
    versions = version_calendar().versions.values()
    return tuple(version.name for version in versions if version.ga <= today <= version.end_of_life)


def _version(cluster: Cluster) -> Iterator[RuleFinding]:
    text, path = cluster.kubernetes_version, (*cluster.path, "kubernetes_version")
    if text is None:
        return
    match = _FORM.fullmatch(text)
    if match is None:
        yield FORM.broken(path, text, "is no version", "write a minor version (1.35, newest patch) or a patch (1.35.2)")
        return
    if cluster.today is None:
        return
    calendar = version_calendar()
    known = calendar.versions.get((int(match[1]), int(match[2])))
    if known is not None:
        yield from _known(cluster, text, known, cluster.today)
    elif (int(match[1]), int(match[2])) < min(calendar.versions):
        yield SUPPORTED.broken(path, text, "is no longer offered by AKS", _use(cluster.today))
    else:
        yield SUPPORTED.broken(
            path,
            text,
            f"is not in the calendar of {calendar.date:%B %Y}; AKS may not offer it yet",
            _use(cluster.today),
            Severity.WARNING,
        )


def _known(cluster: Cluster, text: str, version: KubernetesVersion, today: date) -> Iterator[RuleFinding]:
    path, page = (*cluster.path, "kubernetes_version"), version_calendar().date
    long_term = cluster.support_plan == LONG_TERM_PLAN and cluster.tier == "Premium"
    end = version.lts_end_of_life if long_term else version.end_of_life
    if today > end:
        plan = ""
        if not long_term and today <= version.lts_end_of_life:
            plan = f', or @tier "Premium" with @support_plan "{LONG_TERM_PLAN}" (until {version.lts_end_of_life})'
        says = f"support of {version.name} ended on {end}"
        if cluster.existing:
            yield ENDS_SOON.broken(path, text, f"{says}; no new pools can be added", f"upgrade: {_use(today)}{plan}")
        else:
            yield SUPPORTED.broken(path, text, f"{says}; no new clusters", f"{_use(today)}{plan}")
    elif today < version.preview:
        yield SUPPORTED.broken(
            path, text, f"is planned for {version.ga:%B %Y}", _use(today), _unless_planned(version.preview)
        )
    elif today < version.ga:
        yield SUPPORTED.broken(path, text, f"is in preview until {version.ga:%B %Y}", _use(today), Severity.WARNING)
    elif version.ga > page:
        yield ENDS_SOON.broken(
            path,
            text,
            f"was planned for {version.ga:%B %Y} in the calendar of {page:%B %Y}; a region may not offer it yet",
            f"check with `az aks get-versions`, or {_use(page)}",
        )
    elif end - today <= SOON:
        days = (end - today).days
        yield ENDS_SOON.broken(
            path, text, f"support ends on {end}, in {days} day{'s' if days != 1 else ''}", _use(end + SOON)
        )


def _unless_planned(preview: date) -> Severity | None:
    """What lies after the calendar's own date may have come earlier."""
    return Severity.WARNING if preview <= version_calendar().date + SOON else None


def _plan(cluster: Cluster) -> Iterator[RuleFinding]:
    if cluster.tier not in TIERS:
        yield TIER.broken(
            (*cluster.path, "tier"), cluster.tier, "is not known to AKS", f"use one of {', '.join(TIERS)}"
        )
        return
    path = (*cluster.path, "support_plan")
    if cluster.support_plan not in PLANS:
        yield LONG_TERM.broken(path, cluster.support_plan, "is not known to AKS", f"use one of {', '.join(PLANS)}")
    elif cluster.support_plan == LONG_TERM_PLAN and cluster.tier != "Premium":
        yield LONG_TERM.broken(
            path, cluster.support_plan, f'needs @tier "Premium", and @tier is "{cluster.tier}"', 'write @tier "Premium"'
        )
    elif cluster.tier == "Premium" and cluster.support_plan != LONG_TERM_PLAN:
        yield LONG_TERM.broken(
            (*cluster.path, "tier"),
            "Premium",
            f'goes only with @support_plan "{LONG_TERM_PLAN}", and @support_plan is "{cluster.support_plan}"',
            'write that plan, or @tier "Standard"',
        )


def _channels(cluster: Cluster) -> Iterator[RuleFinding]:
    channel, nodes = cluster.upgrade_channel, cluster.node_os_upgrade_channel
    path, version = (*cluster.path, "upgrade_channel"), cluster.kubernetes_version
    for name, value, known in (
        ("upgrade_channel", channel, CHANNELS),
        ("node_os_upgrade_channel", nodes, NODE_CHANNELS),
    ):
        if value is not None and value not in known:
            yield CHANNEL.broken((*cluster.path, name), value, "is not known to AKS", f"use one of {', '.join(known)}")
    if channel == "node-image":
        yield CHANNEL_VERSION.broken(
            path, channel, "is an old form", 'use @upgrade_channel "patch" with @node_os_upgrade_channel "NodeImage"'
        )
        if nodes not in {None, "NodeImage"}:
            yield CHANNEL_VERSION.broken(
                (*cluster.path, "node_os_upgrade_channel"),
                nodes,
                'with @upgrade_channel "node-image" AKS sets it to "NodeImage"',
                'write "NodeImage", or another @upgrade_channel',
            )
    match = _FORM.fullmatch(version or "")
    if channel in {"stable", "rapid"} and match is not None:
        yield CHANNEL_VERSION.broken(
            path,
            channel,
            f"moves the cluster to newer minor versions, and AKS refuses to go back to @kubernetes_version {version}",
            'leave out @kubernetes_version, or use @upgrade_channel "patch"',
        )
    elif channel == "patch" and match is not None and match[3] is not None:
        yield CHANNEL_VERSION.broken(
            path,
            channel,
            f"moves the cluster to newer patches, and AKS refuses to go back to @kubernetes_version {version}",
            f"write @kubernetes_version {match[1]}.{match[2]}",
        )
    if cluster.support_plan == LONG_TERM_PLAN and channel in {"stable", "rapid"}:
        yield CHANNEL_VERSION.broken(
            path,
            channel,
            f'moves the cluster on, past the version that @support_plan "{LONG_TERM_PLAN}" keeps',
            'use "patch"',
        )


def _pools(cluster: Cluster) -> Iterator[RuleFinding]:
    version = _FORM.fullmatch(cluster.kubernetes_version or "")
    for pool in cluster.pools:
        if pool.kubernetes_version is None:
            continue
        own, path = _FORM.fullmatch(pool.kubernetes_version), (*pool.path, "kubernetes_version")
        if own is None:
            yield FORM.broken(path, pool.kubernetes_version, "is no version", "write 1.35 or 1.35.2")
        elif version is not None and (int(own[1]), int(own[2])) > (int(version[1]), int(version[2])):
            yield POOL_VERSION.broken(
                path,
                pool.kubernetes_version,
                f"is newer than the control plane's @kubernetes_version {cluster.kubernetes_version}",
                "upgrade the control plane first, or leave it out",
            )
        elif version is not None and not cluster.existing and pool.kubernetes_version != cluster.kubernetes_version:
            yield POOL_VERSION.broken(
                path,
                pool.kubernetes_version,
                f"a new cluster's pools have its @kubernetes_version, {cluster.kubernetes_version}",
                "leave it out",
            )


def _automatic(cluster: Cluster) -> Iterator[RuleFinding]:
    sku, path = cluster.sku_name, (*cluster.path, "sku_name")
    if sku not in {"Base", "Automatic"}:
        yield TIER.broken(path, sku, "is not known to AKS", "use Base or Automatic")
    if sku != "Automatic":
        return
    if cluster.tier != "Standard":
        yield AUTOMATIC.broken(
            path, sku, f'needs @tier "Standard", and @tier is "{cluster.tier}"', 'write @tier "Standard"'
        )
    region = region_named(cluster.location) if cluster.location else None
    if region is not None and not region.aks_automatic:
        yield AUTOMATIC.broken(path, sku, f"is not offered in {region.name}", 'use another region, or @sku_name "Base"')
    network = cluster.network
    if network_kind(network) is not NetworkKind.OVERLAY or network.dataplane not in {None, "cilium"}:
        yield AUTOMATIC.broken(
            path,
            sku,
            "has Azure CNI Overlay with Cilium, and @network says something else (the default is kubenet)",
            'write @plugin "azure", @plugin_mode "overlay" and @dataplane "cilium" in @network',
        )
    if cluster.azure_ml:
        yield AUTOMATIC.broken(path, sku, "the Azure Machine Learning extension does not run on it", 'write "Base"')


def _use(today: date) -> str:
    """The newest versions of that day, of those that the calendar knew as released."""
    page = version_calendar().date
    minors = [name for name in supported_minors(today) if version_calendar().versions[_minor(name)].ga <= page]
    return f"use {' or '.join(minors[-2:])}" if minors else "use a current version"


def _minor(name: str) -> tuple[int, int]:
    major, minor = name.split(".")
    return int(major), int(minor)
