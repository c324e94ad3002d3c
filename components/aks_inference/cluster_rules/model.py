"""What the rules judge: a cluster as it is declared, frozen, in Azure's own words.

None means "not given" for an argument and "not known" for what only Azure can tell (the range of a subnet, a route):
a rule about something unknown says nothing. `path` is where the caller declared a part.
"""

from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from aks_inference.facts import short_region
from aks_inference.findings import Path
from aks_inference.vm_sizes import VmSize

KNOWN_LATER = "(known later)"
"""Stands for an id that is an output: given, and not to be judged."""


@dataclass(frozen=True)
class Pool:
    """A node pool. `vm_size` None: AKS picks one."""

    name: str
    vm_size: str | None = None
    size: VmSize | None = None
    """None: a size that the table does not know, or an output."""
    mode: str = "User"
    """`System` or `User`."""
    count: int = 1
    autoscale: bool = False
    min_count: int | None = None
    max_count: int | None = None
    max_pods: int | None = None
    """None: the default of the network model."""
    os_type: str = "Linux"
    spot: bool = False
    spot_max_price: Decimal | None = None
    """USD per hour; None or -1: up to the pay-as-you-go price."""
    eviction_policy: str | None = None
    zones: tuple[str, ...] = ()
    max_surge: str | None = None
    """`3` or `33%`."""
    max_unavailable: str | None = None
    gpu_driver: str | None = None
    """`Install` or `None`."""
    gpu_instance_profile: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[str, ...] = ()
    """`key=value:Effect`."""
    os_sku: str | None = None
    os_disk_size_gb: int | None = None
    node_public_ip: bool = False
    node_public_ip_prefix_id: str | None = None
    subnet_id: str | None = None
    pod_subnet_id: str | None = None
    kubernetes_version: str | None = None
    drain_timeout_minutes: int | None = None
    node_soak_minutes: int | None = None
    path: Path = ("pools", 0)

    @property
    def least_nodes(self) -> int:
        """With the autoscaler its minimum."""
        return max(0, self.min_count if self.autoscale and self.min_count is not None else self.count)

    @property
    def most_nodes(self) -> int:
        """With the autoscaler its maximum."""
        return max(0, self.max_count if self.autoscale and self.max_count is not None else self.count)


@dataclass(frozen=True)
class Subnet:
    """A subnet that exists, as far as it is known."""

    id: str
    cidr: str | None = None
    region: str | None = None
    delegations: tuple[str, ...] | None = None
    default_route: str | None = None
    """Next hop type of 0.0.0.0/0 in its route table: `VirtualAppliance`, `VirtualNetworkGateway`, `Internet`, …;
    empty: known to have no such route."""
    nat_gateway: bool | None = None
    used_addresses: int = 0
    """Taken by others than this cluster."""


@dataclass(frozen=True)
class Network:
    """Network model and ranges."""

    plugin: str | None = None
    plugin_mode: str | None = None
    dataplane: str | None = None
    policy: str | None = None
    mode: str | None = None
    service_cidr: str | None = None
    dns_service_ip: str | None = None
    pod_cidr: str | None = None
    docker_bridge_cidr: str | None = None
    subnet: Subnet | None = None
    pod_subnet: Subnet | None = None
    pod_ip_allocation: str | None = None
    """`DynamicIndividual` or `StaticBlock`."""
    vnet_cidrs: tuple[str, ...] = ()
    other_subnets: tuple[Subnet, ...] = ()
    """Of the same virtual network."""
    connected_cidrs: tuple[str, ...] = ()
    """Peered networks and those behind a gateway."""
    load_balancer_sku: str | None = None
    dns_servers: tuple[str, ...] = ()
    own_route_table: bool = False
    route_table_id: str | None = None
    path: Path = ("network",)


@dataclass(frozen=True)
class Egress:
    """How nodes reach the world."""

    outbound_type: str | None = None
    managed_outbound_ip_count: int | None = None
    outbound_ip_count: int | None = None
    """Own public addresses (or those of own prefixes) at the load balancer."""
    allocated_outbound_ports: int | None = None
    idle_timeout_minutes: int | None = None
    public_ips_denied: bool = False
    """A policy of the subscription denies public addresses."""
    bootstrap_cache_registry_id: str | None = None
    path: Path = ("egress",)


@dataclass(frozen=True)
class Access:
    """How the API server is reached and who is let in."""

    private_cluster: bool = False
    private_dns_zone: str | None = None
    """`system`, `none` or a zone's resource id."""
    public_fqdn: bool | None = None
    fqdn_subdomain: str | None = None
    authorized_ip_ranges: tuple[str, ...] = ()
    operator_ip_ranges: tuple[str, ...] = ()
    """Ranges from which the runtime is operated (pipelines, this machine): they must be let in."""
    vnet_integration: bool = False
    api_server_subnet: Subnet | None = None
    entra_id: bool = False
    azure_rbac: bool = False
    tenant_id: str | None = None
    subscription_tenant_id: str | None = None
    local_accounts: bool = True
    path: Path = ("access",)


@dataclass(frozen=True)
class Identity:
    """The control plane's identity and the kubelet's."""

    user_assigned: bool = True
    made: bool = True
    """With the cluster, which gives it its roles; else it exists, with roles of its own."""
    own_kubelet_identity: bool = False
    federated_credentials: int = 0
    path: Path = ("identity",)


KEY_VAULT_ADDON = "azureKeyvaultSecretsProvider"
"""The name of AKS's add-on with the Secrets Store CSI driver (Spec 2025-09-01, addonProfiles)."""


@dataclass(frozen=True)
class Security:
    """Security and monitoring add-ons."""

    workload_identity: bool = False
    oidc_issuer: bool | None = None
    defender: bool = False
    log_analytics_workspace_id: str | None = None
    azure_policy: bool = False
    image_cleaner: bool = False
    image_cleaner_interval_hours: int | None = None
    kms: bool = False
    kms_key_id: str | None = None
    kms_network_access: str | None = None
    """`Public` or `Private`."""
    kms_vault_id: str | None = None
    container_insights: bool = False
    managed_prometheus: bool = False
    azure_monitor_workspace_id: str | None = None
    key_vault_secrets: bool = False
    """The Secrets Store CSI driver with the Key Vault provider."""
    app_routing: bool = False
    path: Path = ("security",)


@dataclass(frozen=True)
class Tls:
    """The certificate of the scoring address."""

    cname: str | None = None
    cert_pem_file: str | None = None
    key_pem_file: str | None = None
    key_vault_secret_id: str | None = None
    leaf_domain_label: str | None = None
    overwrite_existing_domain: bool = False
    minimum_version: str | None = None
    load_balancer_type: str | None = None
    """`PublicIp` (default) or `InternalLoadBalancer`."""
    load_balancer_subnet: str | None = None
    served: bool = True
    """A router has the address; without the runtime there is none."""
    path: Path = ()


@dataclass(frozen=True)
class Cluster:
    """A whole cluster."""

    name: str | None = None
    location: str | None = None
    pools: tuple[Pool, ...] = ()
    network: Network = field(default_factory=Network)
    egress: Egress = field(default_factory=Egress)
    access: Access = field(default_factory=Access)
    identity: Identity = field(default_factory=Identity)
    security: Security = field(default_factory=Security)
    tls: Tls = field(default_factory=Tls)
    dns_prefix: str | None = None
    subscription_id: str | None = None
    """The GUID of the subscription that the cluster is made in."""
    resource_group: str | None = None
    node_resource_group: str | None = None
    admin_username: str | None = None
    kubernetes_version: str | None = None
    existing: bool = False
    """It exists already: rules for creation only do not apply."""
    sku_name: str = "Base"
    tier: str = "Free"
    support_plan: str = "KubernetesOfficial"
    upgrade_channel: str | None = None
    node_os_upgrade_channel: str | None = None
    node_provisioning: str = "Manual"
    autoscaler_profile: tuple[tuple[str, object], ...] = ()
    """Settings of the cluster autoscaler by name in snake_case: ("scan_interval", "10s")."""
    azure_ml: bool = False
    """Attached to an Azure ML workspace as well."""
    related_locations: tuple[tuple[str, str], ...] = ()
    """Regions of what the cluster uses: ("registry", "westeurope")."""
    ids: tuple[tuple[Path, str, str], ...] = ()
    """Resource ids that it names: where, of what kind (`ids.KINDS`), and the id."""
    tags: tuple[tuple[str, object], ...] = ()
    today: date | None = None
    """The day to judge versions and retirements by. None: those rules say nothing."""
    path: Path = ()

    @property
    def region(self) -> str | None:
        """`location` in the one spelling."""
        return short_region(self.location) if self.location else None
