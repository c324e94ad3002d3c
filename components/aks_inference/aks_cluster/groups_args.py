"""The groups of AksInferenceCluster's arguments, as they come over the wire."""

from collections.abc import Mapping
from typing import NotRequired, TypedDict

import pulumi

from aks_inference.images.args import RegistryArgs


class NetworkArgs(TypedDict):
    """The cluster's network. Azure ML's flat arguments say the same; each thing is given in one way."""

    plugin: NotRequired[str | None]
    """Optional. `kubenet`, `azure` or `none` (a CNI of one's own). Default: `azure` with a subnet, a mode or a data
    plane, else `kubenet` as in Azure ML."""
    plugin_mode: NotRequired[str | None]
    """Optional. `overlay`: with plugin `azure`, pods get addresses of their own range. Default: addresses of the
    nodes' subnet."""
    dataplane: NotRequired[str | None]
    """Optional. `azure` or `cilium`. Default: AKS's own choice, `azure`."""
    policy: NotRequired[str | None]
    """Optional. Network policies: `none`, `calico`, `cilium` or `azure`. Default: none."""
    subnet_id: NotRequired[pulumi.Input[str] | None]
    """Optional. Resource id of the nodes' subnet; instead of the three names."""
    vnet_resourcegroup_name: NotRequired[str | None]
    """Optional. Resource group of the virtual network; with `vnet_name` and `subnet_name`."""
    vnet_name: NotRequired[str | None]
    """Optional. The virtual network, which must exist."""
    subnet_name: NotRequired[str | None]
    """Optional. The nodes' subnet in it."""
    service_cidr: NotRequired[str | None]
    """Conditional. Range of the services' addresses, such as 10.0.0.0/16; required with a subnet."""
    dns_service_ip: NotRequired[str | None]
    """Conditional. An address in `service_cidr`, not its first; required with a subnet."""
    docker_bridge_cidr: NotRequired[str | None]
    """Optional. Accepted with a warning: AKS has no such setting any more."""
    pod_cidr: NotRequired[str | None]
    """Optional. kubenet and overlay: range of the pods' addresses. Default: 10.244.0.0/16."""
    pod_subnet_id: NotRequired[pulumi.Input[str] | None]
    """Optional. Azure CNI: a subnet for the pods' addresses, apart from that of the nodes."""
    pod_ip_allocation: NotRequired[str | None]
    """Optional. With `pod_subnet_id`: `DynamicIndividual` or `StaticBlock`. Default: DynamicIndividual."""
    load_balancer_sku: NotRequired[str | None]
    """Optional. `standard`; Azure ended `basic`. Default: standard."""
    dns_servers: NotRequired[list[str] | None]
    """Optional. Addresses of the virtual network's own DNS servers: for the list of required hosts. Default: none."""
    own_route_table: NotRequired[bool | None]
    """Optional. The subnet has a route table of yours (kubenet). Default: false, or true with `route_table_id`."""
    route_table_id: NotRequired[pulumi.Input[str] | None]
    """Conditional. Resource id of that table: the identity that is made here gets the role Network Contributor there,
    which kubenet needs before the cluster is made."""
    subnet_cidr: NotRequired[str | None]
    """Optional. Range of the nodes' subnet: what it can hold is checked. Default: not known."""
    pod_subnet_cidr: NotRequired[str | None]
    """Optional. Range of the pods' subnet. Default: not known."""
    subnet_used_addresses: NotRequired[int | None]
    """Optional. Addresses of the nodes' subnet that others take. Default: 0."""
    subnet_region: NotRequired[str | None]
    """Optional. Region of the virtual network. Default: not known."""
    subnet_delegations: NotRequired[list[str] | None]
    """Optional. Services that the nodes' subnet is delegated to. Default: not known."""
    subnet_default_route: NotRequired[str | None]
    """Optional. Next hop type of 0.0.0.0/0 in the subnet's route table, such as `VirtualAppliance`; empty: it has no
    such route. Default: not known."""
    subnet_has_nat_gateway: NotRequired[bool | None]
    """Optional. Whether the nodes' subnet has a NAT gateway. Default: not known."""
    vnet_cidrs: NotRequired[list[str] | None]
    """Optional. Ranges of the virtual network. Default: not known."""
    other_subnet_cidrs: NotRequired[list[str] | None]
    """Optional. Ranges of the network's other subnets. Default: not known."""
    connected_cidrs: NotRequired[list[str] | None]
    """Optional. Ranges of peered networks and of those behind a gateway. Default: none."""


class EgressArgs(TypedDict):
    """How the nodes reach the world."""

    outbound_type: NotRequired[str | None]
    """Optional. `loadBalancer`, `managedNATGateway`, `userAssignedNATGateway`, `userDefinedRouting` (a firewall) or
    `none` (network isolated). Default: loadBalancer."""
    managed_outbound_ip_count: NotRequired[int | None]
    """Optional. Public addresses that AKS makes for the load balancer or the NAT gateway. Default: 1."""
    outbound_ip_ids: NotRequired[list[pulumi.Input[str]] | None]
    """Optional. Public addresses of yours at the load balancer instead. Default: none."""
    allocated_outbound_ports: NotRequired[int | None]
    """Optional. Ports of each node, a multiple of 8; 0: AKS decides. Default: 0."""
    idle_timeout_minutes: NotRequired[int | None]
    """Optional. Of outbound connections, 4 to 120. Default: Azure's own."""
    public_ips_denied: NotRequired[bool | None]
    """Optional. A policy of the subscription denies public addresses. Default: false."""
    bootstrap_cache_registry_id: NotRequired[pulumi.Input[str] | None]
    """Conditional. With `none`: the private registry that AKS's own images come from."""


class AccessArgs(TypedDict):
    """How the API server is reached, and who is let in."""

    private_cluster: NotRequired[bool | None]
    """Optional. The API server has a private address only. Default: false."""
    private_dns_zone: NotRequired[pulumi.Input[str] | None]
    """Optional. `system`, `none` or the resource id of a zone. Default: system."""
    public_fqdn: NotRequired[bool | None]
    """Optional. A private cluster's name resolves in public, too. Default: AKS's own choice, true."""
    fqdn_subdomain: NotRequired[str | None]
    """Optional. With a zone of one's own: the name in it. Default: made from the DNS prefix."""
    authorized_ip_ranges: NotRequired[list[str] | None]
    """Optional. Ranges that may reach the API server. Default: all."""
    operator_ip_ranges: NotRequired[list[str] | None]
    """Optional. Ranges from which the runtime is deployed and operated; they must be let in. Default: none."""
    vnet_integration: NotRequired[bool | None]
    """Optional. The API server in a subnet of the virtual network. Default: false."""
    api_server_subnet_id: NotRequired[pulumi.Input[str] | None]
    """Optional. With `vnet_integration`: its subnet. Default: AKS makes one."""
    entra_id: NotRequired[bool | None]
    """Optional. People sign in with Microsoft Entra ID. Default: false."""
    azure_rbac: NotRequired[bool | None]
    """Optional. Azure roles decide inside the cluster; needs `entra_id`. With a `runtime` who applies must have the
    role Azure Kubernetes Service RBAC Cluster Admin, or be in one of `admin_group_ids`. Default: false."""
    admin_group_ids: NotRequired[list[str] | None]
    """Optional. Entra groups that administer the cluster. Default: none."""
    tenant_id: NotRequired[str | None]
    """Optional. Entra tenant. Default: that of the subscription."""
    subscription_tenant_id: NotRequired[str | None]
    """Optional. The subscription's tenant, to check `tenant_id` against. Default: not known."""
    local_accounts: NotRequired[bool | None]
    """Optional. The cluster's own administrator account. Default: true."""


class IdentityArgs(TypedDict):
    """The cluster's identities."""

    system_assigned: NotRequired[bool | None]
    """Optional. The control plane's identity is made by AKS. Default: false, a user-assigned identity."""
    identity_id: NotRequired[pulumi.Input[str] | None]
    """Optional. A user-assigned identity of yours, which has its roles already. Default: a new one."""
    kubelet_identity_id: NotRequired[pulumi.Input[str] | None]
    """Optional. A user-assigned identity of yours for the nodes. Default: AKS makes one."""


class SystemPoolArgs(TypedDict):
    """The small pool for the cluster's own pods."""

    vm_size: NotRequired[str | None]
    """Optional. At least 2 vCPU and 4 GiB. Default: Standard_D4s_v5."""
    count: NotRequired[int | None]
    """Optional. Nodes. Default: 3; 1 with purpose DevTest."""
    autoscale: NotRequired[bool | None]
    """Optional. AKS's cluster autoscaler changes the number of nodes. Default: false."""
    min_count: NotRequired[int | None]
    """Conditional. Required with `autoscale`: fewest nodes."""
    max_count: NotRequired[int | None]
    """Conditional. Required with `autoscale`: most nodes."""
    max_pods: NotRequired[int | None]
    """Optional. Pods of a node, 10 to 250. Default: the network model's."""
    zones: NotRequired[list[str] | None]
    """Optional. Availability zones. Default: none."""
    max_surge: NotRequired[str | None]
    """Optional. Nodes added while upgrading, `1` or `33%`. Default: AKS's own, 10%."""
    os_disk_size_gb: NotRequired[int | None]
    """Optional. 0: AKS decides by size. Default: 0."""


class PoolArgs(TypedDict):
    """A node pool for inference."""

    name: str
    """Required. 1 to 8 lower-case letters and digits, first a letter; the pool's name in Azure has a suffix of four
    characters that changes with what a pool keeps for life."""
    exact_name: NotRequired[bool | None]
    """Optional. No suffix (then up to 12 characters): a change of size is then first a removal. Default: false."""
    vm_size: str
    """Required. Size of the nodes."""
    vcpus_per_node: NotRequired[int | None]
    """Optional. vCPU of `vm_size` where this package does not know the size."""
    count: NotRequired[int | None]
    """Optional. Nodes; with `autoscale` only at first. Default: 1, or `min_count`."""
    autoscale: NotRequired[bool | None]
    """Optional. AKS's cluster autoscaler changes the number of nodes. Default: false."""
    min_count: NotRequired[int | None]
    """Conditional. Required with `autoscale`: fewest nodes."""
    max_count: NotRequired[int | None]
    """Conditional. Required with `autoscale`: most nodes."""
    max_pods: NotRequired[int | None]
    """Optional. Pods of a node, 10 to 250. Default: the network model's."""
    spot: NotRequired[bool | None]
    """Optional. Spare capacity that Azure can take back. Default: false."""
    spot_max_price: NotRequired[float | None]
    """Optional. USD an hour, up to five decimals; -1: the pay-as-you-go price. Default: -1."""
    eviction_policy: NotRequired[str | None]
    """Optional. With `spot`: `Delete` or `Deallocate`. Default: Delete."""
    zones: NotRequired[list[str] | None]
    """Optional. Availability zones. Default: none."""
    max_surge: NotRequired[str | None]
    """Optional. Nodes added while upgrading, `1` or `33%`. Default: AKS's own, 10%."""
    max_unavailable: NotRequired[str | None]
    """Optional. Nodes that may be missing while upgrading, `1` or `10%`. Default: 0."""
    gpu_driver: NotRequired[str | None]
    """Optional. `Install` or `None` (a GPU operator brings it). Default: Install."""
    gpu_instance_profile: NotRequired[str | None]
    """Optional. Parts of a GPU: `MIG1g`, `MIG2g`, `MIG3g`, `MIG4g` or `MIG7g`. Default: whole GPUs."""
    labels: NotRequired[Mapping[str, str] | None]
    """Optional. Labels of the nodes, beside `aks-inference.dev/pool` with the pool's name. Default: none."""
    taints: NotRequired[list[str] | None]
    """Optional. `key=value:Effect`. Default: none; `sku=gpu:NoSchedule` for sizes with a GPU."""
    os_sku: NotRequired[str | None]
    """Optional. `Ubuntu`, `AzureLinux` or `AzureLinux3`. Default: AKS's own, Ubuntu."""
    os_disk_size_gb: NotRequired[int | None]
    """Optional. 0: AKS decides by size. Default: 0."""
    node_public_ip: NotRequired[bool | None]
    """Optional. Each node has a public address. Default: false."""
    node_public_ip_prefix_id: NotRequired[pulumi.Input[str] | None]
    """Optional. The prefix that these addresses come from. Default: any."""
    subnet_id: NotRequired[pulumi.Input[str] | None]
    """Optional. Another subnet of the same virtual network; the identity that is made here gets its role there. Where
    the id is known only when it is applied, another one removes the pool before its successor is made. Default: the
    cluster's."""
    pod_subnet_id: NotRequired[pulumi.Input[str] | None]
    """Optional. Another subnet for the pods. Default: the cluster's."""
    kubernetes_version: NotRequired[str | None]
    """Optional. Default: the control plane's."""
    drain_timeout_minutes: NotRequired[int | None]
    """Optional. How long an upgrade waits for a node's pods. Default: AKS's own, 30."""
    node_soak_minutes: NotRequired[int | None]
    """Optional. Pause after each upgraded node, 0 to 30. Default: 0."""


class SecurityArgs(TypedDict):
    """Security and monitoring."""

    workload_identity: NotRequired[bool | None]
    """Optional. Pods get tokens of managed identities. Default: false."""
    oidc_issuer: NotRequired[bool | None]
    """Optional. The cluster's token issuer. Default: on with `workload_identity`."""
    defender: NotRequired[bool | None]
    """Optional. Microsoft Defender for Containers. Default: false."""
    log_analytics_workspace_id: NotRequired[pulumi.Input[str] | None]
    """Conditional. Required with `defender` and `container_insights`."""
    azure_policy: NotRequired[bool | None]
    """Optional. Azure Policy for Kubernetes. Default: false."""
    image_cleaner: NotRequired[bool | None]
    """Optional. Unused images are removed from nodes. Default: false."""
    image_cleaner_interval_hours: NotRequired[int | None]
    """Conditional. Required with `image_cleaner`: 24 to 2,160."""
    kms: NotRequired[bool | None]
    """Optional. Secrets in etcd are encrypted with a key of a Key Vault. Default: false."""
    kms_key_id: NotRequired[pulumi.Input[str] | None]
    """Conditional. Required with `kms`: the key's identifier."""
    kms_network_access: NotRequired[str | None]
    """Optional. Of the vault: `Public` or `Private`. Default: Public."""
    kms_vault_id: NotRequired[pulumi.Input[str] | None]
    """Conditional. The vault's resource id. Required with a private vault, and wherever the cluster's identity is made
    here: it gets the role Key Vault Crypto User there (and, with a private vault, Key Vault Contributor), for which the
    vault must use Azure RBAC. Where it has access policies give `identity.identity_id` of one that may use the key."""
    container_insights: NotRequired[bool | None]
    """Optional. Container logs in Log Analytics. Default: false."""
    managed_prometheus: NotRequired[bool | None]
    """Optional. Azure Monitor's managed Prometheus. Default: false."""
    azure_monitor_workspace_id: NotRequired[pulumi.Input[str] | None]
    """Conditional. Required with `managed_prometheus`."""
    key_vault_secrets: NotRequired[bool | None]
    """Optional. The Secrets Store driver with the Key Vault provider. Default: false."""
    app_routing: NotRequired[bool | None]
    """Optional. AKS's NGINX ingress beside the runtime's router. Default: false."""


class ClusterRuntimeArgs(TypedDict):
    """The inference runtime on the cluster."""

    image: NotRequired[str | None]
    """Conditional. Image that holds this package with `python` on PATH: routers, autoscaler and the gates beside the
    replicas run from it. This or `registry` is required. Default: found in the registry, or built and pushed there."""
    registry: NotRequired[RegistryArgs | None]
    """Optional. Where images of services without one, and the runtime's own, are looked up and built to. Default: none,
    every service names its image."""
    namespace: NotRequired[str | None]
    """Optional. Namespace of the runtime, made for it. Default: aks-inference-system."""
    router_replicas: NotRequired[int | None]
    """Optional. Router pods to begin with and at least, 1 to 32. Default: 3; DevTest: 1, and no other value."""
    router_max_replicas: NotRequired[int | None]
    """Optional. Router pods at most, 1 to 32: while routing is slow there is one more after the other, as far as the
    nodes have room. Default: 8, or `router_replicas` if that is more; DevTest: 1, and no other value."""
    router_cores: NotRequired[float | None]
    """Optional. Cores that each router's pod asks for at first and at least, 0.1 to 8. Default: 0.25."""
    router_max_cores: NotRequired[float | None]
    """Optional. Cores that each may come to ask for while routing is slow, before there are more pods: where its node
    has room and the cluster resizes pods in place (Kubernetes 1.33). Up to 8: a router has a pair
    of HAProxy processes for every two cores. Default: 2, or `router_cores` if that is more; DevTest: `router_cores`,
    and no other value."""
    router_latency_threshold_ms: NotRequired[float | None]
    """Optional. Routing that takes longer for ten seconds, without any wait for a replica, is slow; 0.5 to 1,000 ms.
    Default: 3."""
    router_scale_down_delay_seconds: NotRequired[int | None]
    """Optional. Less CPU used for so long takes cores, then pods away again, 30 to 86,400. Default: 300."""
    service_annotations: NotRequired[Mapping[str, str] | None]
    """Optional. Of the router's Service, beside those that `load_balancer_type` makes. Default: none."""
    url: NotRequired[str | None]
    """Optional. Where clients reach the router, where something stands in front of it. Default: its Service."""
    image_pull_secrets: NotRequired[list[str] | None]
    """Optional. Names of Secrets in the runtime's namespace. Default: none, the nodes' own rights."""
    model_store: NotRequired[str | None]
    """Optional. Store of the models that are registered with this cluster as their target, and of those that services
    name as `name:version`: `az://account/container[/prefix]` or `oci://registry[/repository]`. Default: none, each
    model has a store of its own."""
    model_cache: NotRequired[str | None]
    """Optional. Absolute folder of the nodes that their replicas share to fetch each model once; an empty text: none,
    for namespaces that forbid volumes of the host. Default: /var/cache/aks-inference/models."""
    model_volumes: NotRequired[bool | None]
    """Optional. Nodes mount models in registries (`oci://`) as image volumes; no init container fetches them. Needs
    Kubernetes 1.35 (AKS turns no feature gate on) and containerd 2.1: looked up at preview. Up to 32 models a version,
    all of them in registries: others are fetched. With a `model_store` of another kind it is refused. Default:
    false."""
    state_webhook: NotRequired[pulumi.Input[str] | None]
    """Optional. Secret. Where each changed state of an endpoint is told to (a POST of JSON; chat systems show its
    `text`). Kubernetes events tell it in any case. Default: none."""
    otlp_endpoint: NotRequired[str | None]
    """Optional. OpenTelemetry collector (OTLP over HTTP, such as `http://collector.monitoring:4318`) that gets the
    requests' traces. Default: none, nothing is traced."""
    trace_ratio: NotRequired[float | None]
    """Optional. Share of the requests that are traced, 0 to 1, where their caller does not decide it by `traceparent`.
    Default: 0.1."""
    prometheus_operator: NotRequired[bool | None]
    """Optional. Declares PodMonitors and the alert rules as a PrometheusRule, for the Prometheus operator. Default:
    false."""
    acme_server: NotRequired[str | None]
    """Optional. With `leaf_domain_label`: directory of the certificate authority (ACME). Default: Let's Encrypt's."""
    acme_email: NotRequired[str | None]
    """Optional. With `leaf_domain_label`: for the account at the certificate authority. Default: none."""
    allow_insecure_connections: NotRequired[bool | None]
    """Optional. With TLS: serves requests without it, too. Default: false, they get 400."""


class MaintenanceWindowArgs(TypedDict):
    """When AKS may upgrade by itself."""

    applies_to: str
    """Required. `cluster` (Kubernetes versions) or `nodes` (node images)."""
    day_of_week: str
    """Required. `Monday` to `Sunday`."""
    start_time: str
    """Required. `HH:MM`."""
    duration_hours: NotRequired[int | None]
    """Optional. 4 to 24. Default: 4."""
    interval_weeks: NotRequired[int | None]
    """Optional. 1 to 4. Default: 1."""
    utc_offset: NotRequired[str | None]
    """Optional. Such as `+01:00`. Default: UTC."""
