"""Add-ons and their conditions (aks-rules 13)."""

import re
from collections.abc import Iterator
from datetime import date

from aks_inference.cluster_rules.model import Cluster, Security
from aks_inference.cluster_rules.rulebook import RuleFinding, error, warning

INSIGHTS = error("13a", "Container insights needs a Log Analytics workspace", "Spec 2025-09-01 addonProfiles.omsagent")
PROMETHEUS = error("13b", "managed Prometheus needs an Azure Monitor workspace", "Doc azure-monitor; aks-rules 13")
DEFENDER = error(
    "13c", "Defender needs a Log Analytics workspace", "Spec 2025-09-01 ManagedClusterSecurityProfileDefender"
)
CLEANER = error("13d", "image cleaner: every 24 hours to three months", "Doc image-cleaner.md 2026-06-30")
KMS = error(
    "13e", "key management service: key, network, vault, identity", "Doc use-kms-etcd-encryption.md; Spec 2025-09-01"
)
INGRESS = warning("13f", "application routing with NGINX ends", "Doc managed-identity-overview.md")

CLEANER_HOURS = (24, 90 * 24)
NGINX_ENDS = date(2026, 11, 30)


def check_addons(cluster: Cluster) -> Iterator[RuleFinding]:
    """All of section 13."""
    security = cluster.security
    yield from _workspaces(security)
    yield from _cleaner(security)
    yield from _kms(cluster)
    if security.app_routing and cluster.today is not None:
        ended = cluster.today > NGINX_ENDS
        yield INGRESS.broken(
            (*security.path, "app_routing"),
            True,
            f"its NGINX {'was' if ended else 'is'} supported until {NGINX_ENDS}",
            "leave it out: the runtime's own router serves the scoring address",
        )


def _workspaces(security: Security) -> Iterator[RuleFinding]:
    if security.log_analytics_workspace_id is None:
        for name, on, rule in (
            ("container_insights", security.container_insights, INSIGHTS),
            ("defender", security.defender, DEFENDER),
        ):
            if on:
                yield rule.broken(
                    (*security.path, name),
                    True,
                    "needs @log_analytics_workspace_id, which is not given",
                    f"give the workspace's id, or turn off @{name}",
                )
    if security.managed_prometheus and security.azure_monitor_workspace_id is None:
        yield PROMETHEUS.broken(
            (*security.path, "managed_prometheus"),
            True,
            "needs @azure_monitor_workspace_id, which is not given",
            "give the workspace's id, or turn off @managed_prometheus",
        )


def _cleaner(security: Security) -> Iterator[RuleFinding]:
    hours, path = security.image_cleaner_interval_hours, (*security.path, "image_cleaner_interval_hours")
    low, high = CLEANER_HOURS
    if security.image_cleaner and hours is None:
        yield CLEANER.broken(path, None, "is needed with @image_cleaner", "write 168 (a week)")
    elif hours is not None and not security.image_cleaner:
        yield CLEANER.broken(path, hours, "goes only with @image_cleaner, which is off", "turn it on, or leave it out")
    elif hours is not None and not low <= hours <= high:
        yield CLEANER.broken(path, hours, f"must be from {low} to {high:,}", f"use {low if hours < low else high}")


def _kms(cluster: Cluster) -> Iterator[RuleFinding]:
    security = cluster.security
    path, access = (*security.path, "kms_key_id"), (*security.path, "kms_network_access")
    if not security.kms:
        for name in ("kms_key_id", "kms_network_access", "kms_vault_id"):
            value = getattr(security, name)
            if value is not None:
                yield KMS.broken(
                    (*security.path, name), value, "goes only with @kms, which is off", "turn it on, or leave it out"
                )
        return
    if security.kms_key_id is None:
        yield KMS.broken(path, None, "is needed with @kms", "give the key's identifier")
    if not cluster.identity.user_assigned:
        yield KMS.broken(
            (*security.path, "kms"),
            True,
            "needs a user-assigned identity that may use the key",
            "use one (the default)",
        )
    if security.kms_network_access not in {None, "Public", "Private"}:
        yield KMS.broken(access, security.kms_network_access, "is neither Public nor Private", "write one of them")
    elif security.kms_network_access == "Private":
        if security.kms_vault_id is None:
            yield KMS.broken(
                access, "Private", "needs @kms_vault_id, which is not given", "give the vault's resource id"
            )
        if not cluster.access.vnet_integration:
            yield KMS.broken(
                access,
                "Private",
                "needs API server @vnet_integration, which is off",
                'turn it on, or write @kms_network_access "Public"',
            )
    elif security.kms_vault_id is not None and not cluster.identity.made:
        yield KMS.broken(
            (*security.path, "kms_vault_id"),
            security.kms_vault_id,
            'goes only with @kms_network_access "Private", or with an identity that is made here and gets its role',
            "leave it out, or write that",
        )
    elif security.kms_vault_id is None and security.kms_key_id is not None and cluster.identity.made:
        yield KMS.broken(
            (*security.path, "kms_vault_id"),
            None,
            "is needed: the cluster's identity is made here, and must be given its role at the vault first",
            "give the vault's resource id, or `identity.identity_id` with rights at the key",
        )
    yield from _vault(security)


def _vault(security: Security) -> Iterator[RuleFinding]:
    """Whether the key is in the vault, as far as the names tell."""
    named = re.search(r"/vaults/([^/]+)/?$", security.kms_vault_id or "", re.IGNORECASE)
    host = re.match(r"https://([^./]+)\.", security.kms_key_id or "")
    if named and host and named[1].lower() != host[1].lower():
        yield KMS.broken(
            (*security.path, "kms_vault_id"),
            security.kms_vault_id,
            f"is the vault {named[1]}; the key of @kms_key_id is in {host[1]}",
            "name the vault of the key",
        )
