"""The groups of arguments in the words of the rules. What is known only later counts as given."""

from collections.abc import Iterator, Sequence
from typing import Any

from aks_inference.aks_cluster.groups import AccessSpec, EgressSpec, IdentitySpec, MaintenanceWindowSpec, SecuritySpec
from aks_inference.cluster_rules.model import KNOWN_LATER, Access, Egress, Identity, Security, Subnet
from aks_inference.facts import short_region
from aks_inference.findings import Finding, Path, did_you_mean, under
from aks_inference.values import is_late, read

WINDOW_NAMES = {"cluster": "aksManagedAutoUpgradeSchedule", "nodes": "aksManagedNodeOSUpgradeSchedule"}
"""Doc planned-maintenance.md: the two schedules by what they apply to."""
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def known(value: object) -> str | None:
    """A text for the rules."""
    return KNOWN_LATER if is_late(value) else value if isinstance(value, str) else None


def egress_part(spec: EgressSpec) -> Egress:
    """Egress."""
    return Egress(
        outbound_type=spec.outbound_type,
        managed_outbound_ip_count=spec.managed_outbound_ip_count,
        outbound_ip_count=len(spec.outbound_ip_ids) or None,
        allocated_outbound_ports=spec.allocated_outbound_ports,
        idle_timeout_minutes=spec.idle_timeout_minutes,
        public_ips_denied=spec.public_ips_denied,
        bootstrap_cache_registry_id=known(spec.bootstrap_cache_registry_id),
    )


def access_part(spec: AccessSpec, location: str | None, subscription: str | None) -> Access:
    """Access."""
    zone = spec.private_dns_zone
    if is_late(zone):
        word = "private" if spec.vnet_integration else "privatelink"
        region = short_region(location or "-")
        provider = "providers/Microsoft.Network/privateDnsZones"
        zone = f"/subscriptions/{subscription or '-'}/resourceGroups/-/{provider}/{word}.{region}.azmk8s.io"
    subnet = known(spec.api_server_subnet_id)
    return Access(
        private_cluster=spec.private_cluster,
        private_dns_zone=zone,
        public_fqdn=spec.public_fqdn,
        fqdn_subdomain=spec.fqdn_subdomain,
        authorized_ip_ranges=spec.authorized_ip_ranges,
        operator_ip_ranges=spec.operator_ip_ranges,
        vnet_integration=spec.vnet_integration,
        api_server_subnet=Subnet(subnet) if subnet else None,
        entra_id=spec.entra_id,
        azure_rbac=spec.azure_rbac,
        tenant_id=spec.tenant_id,
        subscription_tenant_id=spec.subscription_tenant_id,
        local_accounts=spec.local_accounts,
    )


def identity_part(spec: IdentitySpec) -> Identity:
    """Identities."""
    return Identity(
        user_assigned=not spec.system_assigned,
        made=not spec.system_assigned and spec.identity_id is None,
        own_kubelet_identity=spec.kubelet_identity_id is not None,
    )


def named_ids(
    registries: Sequence[Any],
    routes: object,
    egress: EgressSpec,
    identity: IdentitySpec,
    security: SecuritySpec,
    pools: Sequence[Any],
) -> tuple[tuple[Path, str, str], ...]:
    """The resource ids that are texts: where, of what kind, and the id. `pools`: as the rules see them."""
    found: list[tuple[Path, str, object]] = [
        *((("registry_ids", index), "registry", one) for index, one in enumerate(registries)),
        (("network", "route_table_id"), "route table", routes),
        *(
            (("egress", "outbound_ip_ids", index), "public address", one)
            for index, one in enumerate(egress.outbound_ip_ids)
        ),
        (("egress", "bootstrap_cache_registry_id"), "registry", egress.bootstrap_cache_registry_id),
        (("identity", "identity_id"), "user-assigned identity", identity.identity_id),
        (("identity", "kubelet_identity_id"), "user-assigned identity", identity.kubelet_identity_id),
        (("security", "log_analytics_workspace_id"), "Log Analytics workspace", security.log_analytics_workspace_id),
        (("security", "azure_monitor_workspace_id"), "workspace of Azure Monitor", security.azure_monitor_workspace_id),
        (("security", "kms_vault_id"), "Key Vault", security.kms_vault_id),
    ]
    found += (
        ((*pool.path, "node_public_ip_prefix_id"), "public address prefix", pool.node_public_ip_prefix_id)
        for pool in pools
    )
    return tuple((path, kind, one) for path, kind, one in found if isinstance(one, str) and one != KNOWN_LATER)


def identity_rules(spec: IdentitySpec) -> Iterator[Finding]:
    """What does not go together; paths relative to the group."""
    if spec.system_assigned and spec.identity_id is not None:
        yield Finding(("identity_id",), "goes only without @system_assigned, which is on", "leave out one of them")


def security_part(spec: SecuritySpec) -> Security:
    """Security and monitoring."""
    return Security(
        workload_identity=spec.workload_identity,
        oidc_issuer=spec.oidc_issuer,
        defender=spec.defender,
        log_analytics_workspace_id=known(spec.log_analytics_workspace_id),
        azure_policy=spec.azure_policy,
        image_cleaner=spec.image_cleaner,
        image_cleaner_interval_hours=spec.image_cleaner_interval_hours,
        kms=spec.kms,
        kms_key_id=known(spec.kms_key_id),
        kms_network_access=spec.kms_network_access,
        kms_vault_id=known(spec.kms_vault_id),
        container_insights=spec.container_insights,
        managed_prometheus=spec.managed_prometheus,
        azure_monitor_workspace_id=known(spec.azure_monitor_workspace_id),
        key_vault_secrets=spec.key_vault_secrets,
        app_routing=spec.app_routing,
    )


def windows(given: Sequence[Any]) -> tuple[list[MaintenanceWindowSpec], list[Finding]]:
    """The maintenance windows."""
    made: list[MaintenanceWindowSpec] = []
    findings: list[Finding] = []
    for index, declared in enumerate(given):
        path = ("maintenance_windows", index)
        if not isinstance(declared, dict):
            mend = "write an object with @applies_to, @day_of_week and @start_time"
            findings.append(Finding(path, "is no window", mend, declared))
            continue
        got = read(MaintenanceWindowSpec, declared, ("applies_to", "day_of_week", "start_time"))
        findings += under(path, got.findings)
        findings += under(path, _window(got.spec, made))
        made.append(got.spec)
    return made, findings


def _window(spec: MaintenanceWindowSpec, before: Sequence[MaintenanceWindowSpec]) -> Iterator[Finding]:
    for name, value, words in (
        ("applies_to", spec.applies_to, tuple(WINDOW_NAMES)),
        ("day_of_week", spec.day_of_week, DAYS),
    ):
        if value is not None and value not in words:
            yield Finding((name,), "is not known to AKS", did_you_mean(value, words).replace("@", ""), value)
    if spec.applies_to is not None and any(other.applies_to == spec.applies_to for other in before):
        yield Finding(("applies_to",), "has a window already; AKS keeps one of each", "join them", spec.applies_to)
