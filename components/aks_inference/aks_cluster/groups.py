"""The groups of arguments, converted: each value checked alone.

What they must be together is the business of `cluster_rules`.
"""

from typing import Annotated, Any

from pydantic import Field

from aks_inference.values import Anys, Flag, Labels, Leaf, Number, Spec, Text, Texts, Whole

LARGEST_POOL = 1_000
Nodes = Annotated[Whole, Field(ge=1, le=LARGEST_POOL)]
Natural = Annotated[Whole, Field(ge=0)]
Minutes = Annotated[Whole, Field(ge=1, le=1_440)]
Vcpus = Annotated[Whole, Field(ge=1)]
DEFAULT_MINUTES = 60
DEFAULT_SYSTEM_VM_SIZE = "Standard_D4s_v5"


class NetworkSpec(Spec):
    """The network."""

    plugin: Text | None = None
    plugin_mode: Text | None = None
    dataplane: Text | None = None
    policy: Text | None = None
    subnet_id: Leaf | None = None
    vnet_resourcegroup_name: Text | None = None
    vnet_name: Text | None = None
    subnet_name: Text | None = None
    service_cidr: Text | None = None
    dns_service_ip: Text | None = None
    docker_bridge_cidr: Text | None = None
    pod_cidr: Text | None = None
    pod_subnet_id: Leaf | None = None
    pod_ip_allocation: Text | None = None
    load_balancer_sku: Text | None = None
    dns_servers: Texts = ()
    own_route_table: Flag = False
    route_table_id: Leaf | None = None
    subnet_cidr: Text | None = None
    pod_subnet_cidr: Text | None = None
    subnet_used_addresses: Natural = 0
    subnet_region: Text | None = None
    subnet_delegations: Texts | None = None
    subnet_default_route: Text | None = None
    subnet_has_nat_gateway: Flag | None = None
    vnet_cidrs: Texts = ()
    other_subnet_cidrs: Texts = ()
    connected_cidrs: Texts = ()


class EgressSpec(Spec):
    """Egress."""

    outbound_type: Text | None = None
    managed_outbound_ip_count: Whole | None = None
    outbound_ip_ids: Annotated[tuple[Leaf, ...], *Anys.__metadata__] = ()
    allocated_outbound_ports: Whole | None = None
    idle_timeout_minutes: Whole | None = None
    public_ips_denied: Flag = False
    bootstrap_cache_registry_id: Leaf | None = None


class AccessSpec(Spec):
    """Access."""

    private_cluster: Flag = False
    private_dns_zone: Leaf | None = None
    public_fqdn: Flag | None = None
    fqdn_subdomain: Text | None = None
    authorized_ip_ranges: Texts = ()
    operator_ip_ranges: Texts = ()
    vnet_integration: Flag = False
    api_server_subnet_id: Leaf | None = None
    entra_id: Flag = False
    azure_rbac: Flag = False
    admin_group_ids: Texts = ()
    tenant_id: Text | None = None
    subscription_tenant_id: Text | None = None
    local_accounts: Flag = True


class IdentitySpec(Spec):
    """Identities."""

    system_assigned: Flag = False
    identity_id: Leaf | None = None
    kubelet_identity_id: Leaf | None = None


class SystemPoolSpec(Spec):
    """The system pool."""

    vm_size: Text = DEFAULT_SYSTEM_VM_SIZE
    count: Nodes | None = Field(None, description="use 1 to 1,000 nodes")
    autoscale: Flag = False
    min_count: Natural | None = None
    max_count: Natural | None = None
    max_pods: Whole | None = None
    zones: Texts = ()
    max_surge: Text | None = None
    os_disk_size_gb: Natural = 0


class PoolSpec(Spec):
    """A pool for inference."""

    name: Text | None = None
    exact_name: Flag = False
    vm_size: Text | None = None
    vcpus_per_node: Vcpus | None = None
    count: Whole | None = None
    autoscale: Flag = False
    min_count: Whole | None = None
    max_count: Whole | None = None
    max_pods: Whole | None = None
    spot: Flag = False
    spot_max_price: Number | None = None
    eviction_policy: Text | None = None
    zones: Texts = ()
    max_surge: Text | None = None
    max_unavailable: Text | None = None
    gpu_driver: Text | None = None
    gpu_instance_profile: Text | None = None
    labels: Labels
    taints: Texts | None = None
    os_sku: Text | None = None
    os_disk_size_gb: Whole = 0
    node_public_ip: Flag = False
    node_public_ip_prefix_id: Leaf | None = None
    subnet_id: Leaf | None = None
    pod_subnet_id: Leaf | None = None
    kubernetes_version: Text | None = None
    drain_timeout_minutes: Whole | None = None
    node_soak_minutes: Whole | None = None


class SecuritySpec(Spec):
    """Security and monitoring."""

    workload_identity: Flag = False
    oidc_issuer: Flag | None = None
    defender: Flag = False
    log_analytics_workspace_id: Leaf | None = None
    azure_policy: Flag = False
    image_cleaner: Flag = False
    image_cleaner_interval_hours: Whole | None = None
    kms: Flag = False
    kms_key_id: Leaf | None = None
    kms_network_access: Text | None = None
    kms_vault_id: Leaf | None = None
    container_insights: Flag = False
    managed_prometheus: Flag = False
    azure_monitor_workspace_id: Leaf | None = None
    key_vault_secrets: Flag = False
    app_routing: Flag = False


class ClusterRuntimeSpec(Spec):
    """The inference runtime. What its values must be is the business of `inference_runtime`."""

    image: Text | None = None
    registry: Any = None
    namespace: Any = None
    router_replicas: Any = None
    router_max_replicas: Any = None
    router_cores: Any = None
    router_max_cores: Any = None
    router_latency_threshold_ms: Any = None
    router_scale_down_delay_seconds: Any = None
    service_annotations: Labels
    url: Any = None
    image_pull_secrets: Any = None
    model_store: Any = None
    model_cache: Any = None
    model_volumes: Any = None
    state_webhook: Any = None
    otlp_endpoint: Any = None
    trace_ratio: Any = None
    prometheus_operator: Any = None
    acme_server: Any = None
    acme_email: Any = None
    allow_insecure_connections: Any = None


class MaintenanceWindowSpec(Spec):
    """When AKS may upgrade. Bounds: Spec 2025-09-01 MaintenanceWindow."""

    applies_to: Text | None = None
    day_of_week: Text | None = None
    start_time: Annotated[Text, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")] | None = Field(
        None, description="write hours and minutes: 22:00"
    )
    duration_hours: Annotated[Whole, Field(ge=4, le=24)] = Field(4, description="use 4 to 24 hours")
    interval_weeks: Annotated[Whole, Field(ge=1, le=4)] = Field(1, description="use 1 to 4 weeks")
    utc_offset: Annotated[Text, Field(pattern=r"^[-+]([0-9]|0[0-9]|1[0-4]):[0-5][0-9]$")] | None = Field(
        None, description="write it as +01:00"
    )
