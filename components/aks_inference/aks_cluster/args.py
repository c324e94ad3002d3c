"""Arguments of AksInferenceCluster, as they come over the wire.

The first group is Azure ML's AksCompute.provisioning_configuration, one for one; the others are what AKS has besides.
"""

from collections.abc import Mapping
from typing import NotRequired, TypedDict

import pulumi

from aks_inference.aks_cluster.groups_args import (
    AccessArgs,
    ClusterRuntimeArgs,
    EgressArgs,
    IdentityArgs,
    MaintenanceWindowArgs,
    NetworkArgs,
    PoolArgs,
    SecurityArgs,
    SystemPoolArgs,
)


class AksInferenceClusterArgs(TypedDict):
    """An AKS cluster for inference."""

    cluster_purpose: NotRequired[str | None]
    """Optional. FastProd, DenseProd or DevTest. Default: FastProd, which needs at least 12 vCPU."""
    agent_count: NotRequired[int | None]
    """Optional. Nodes for inference, where `pools` is not given. Default: 3; 1 with purpose DevTest."""
    vm_size: NotRequired[str | None]
    """Optional. Size of the nodes for inference, where `pools` is not given. Default: Standard_D3_v2 (4 vCPU)."""
    location: NotRequired[str | None]
    """Optional. Azure region. Default: the one of the `azure-native` configuration."""
    vnet_resourcegroup_name: NotRequired[str | None]
    """Optional. See `network.vnet_resourcegroup_name`."""
    vnet_name: NotRequired[str | None]
    """Optional. See `network.vnet_name`."""
    subnet_name: NotRequired[str | None]
    """Optional. See `network.subnet_name`."""
    service_cidr: NotRequired[str | None]
    """Optional. See `network.service_cidr`."""
    dns_service_ip: NotRequired[str | None]
    """Optional. See `network.dns_service_ip`."""
    docker_bridge_cidr: NotRequired[str | None]
    """Optional. See `network.docker_bridge_cidr`."""
    load_balancer_type: NotRequired[str | None]
    """Optional. Of the scoring address: PublicIp, or InternalLoadBalancer, which needs `runtime`. Default: PublicIp."""
    load_balancer_subnet: NotRequired[str | None]
    """Optional. Only with InternalLoadBalancer. Default: aks-subnet."""
    ssl_cname: NotRequired[str | None]
    """Optional. The host that clients ask for, with both files; turns TLS on at the router, which `runtime` brings. Its
    record in the DNS is yours to make. Default: no TLS."""
    ssl_cert_pem_file: NotRequired[str | None]
    """Optional. Path of the certificate in PEM form, its issuers' behind it. Read and checked at preview. A change
    reaches new connections without a failed request."""
    ssl_key_pem_file: NotRequired[str | None]
    """Optional. Path of its key in PEM form, not encrypted. Secret in the stack's state and in the cluster."""
    leaf_domain_label: NotRequired[str | None]
    """Optional. TLS at `<label><6 characters>.<region>.cloudapp.azure.com` instead, with a certificate that
    cert-manager, which must be on the cluster, gets and renews. Default: none."""
    overwrite_existing_domain: NotRequired[bool | None]
    """Optional. Only with `leaf_domain_label`. Changes nothing: the name belongs to the cluster. Default: false."""
    network: NotRequired[NetworkArgs | None]
    """Optional. The network in one group."""
    vcpus_per_node: NotRequired[int | None]
    """Optional. vCPU of `vm_size` where this package does not know the size."""
    system_pool: NotRequired[SystemPoolArgs | None]
    """Optional. The pool for the cluster's own pods."""
    resource_group_name: NotRequired[pulumi.Input[str] | None]
    """Optional. An existing resource group. Default: a new one."""
    cluster_name: NotRequired[str | None]
    """Optional. 3 to 24 letters, digits and dashes, first a letter, last a letter or digit. Default: the resource's
    name."""
    resource_id: NotRequired[str | None]
    """Optional. Attaches this cluster, which exists, instead of creating one."""
    resource_group: NotRequired[str | None]
    """Optional. With `cluster_name`: attaches the cluster of this group in the subscription that is signed in."""
    tags: NotRequired[Mapping[str, pulumi.Input[str]] | None]
    """Optional. Of all Azure resources of the cluster. Default: none."""
    egress: NotRequired[EgressArgs | None]
    """Optional. How the nodes reach the world. Default: through a load balancer."""
    access: NotRequired[AccessArgs | None]
    """Optional. How the API server is reached. Default: in public, with local accounts."""
    identity: NotRequired[IdentityArgs | None]
    """Optional. The cluster's identities. Default: a new user-assigned one."""
    pools: NotRequired[list[PoolArgs] | None]
    """Optional. Pools for inference, instead of `agent_count` and `vm_size`."""
    security: NotRequired[SecurityArgs | None]
    """Optional. Security and monitoring. Default: nothing of it."""
    runtime: NotRequired[ClusterRuntimeArgs | None]
    """Optional. The inference runtime on the cluster; services can name the cluster only with it. Default: none."""
    registry_ids: NotRequired[list[pulumi.Input[str]] | None]
    """Optional. Container registries that the nodes pull from: their identity gets the role AcrPull. Default: none."""
    related_locations: NotRequired[Mapping[str, str] | None]
    """Optional. Regions of what the cluster uses, such as `registry` or `storage`: a warning where they differ.
    Default: none."""
    kubernetes_version: NotRequired[str | None]
    """Optional. `1.35` (its newest patch) or `1.35.2`. Default: AKS's own."""
    tier: NotRequired[str | None]
    """Optional. `Free`, `Standard` or `Premium`. Default: Standard; Free with purpose DevTest."""
    sku_name: NotRequired[str | None]
    """Optional. `Base` or `Automatic`. Default: Base."""
    support_plan: NotRequired[str | None]
    """Optional. `KubernetesOfficial` or `AKSLongTermSupport`. Default: KubernetesOfficial."""
    upgrade_channel: NotRequired[str | None]
    """Optional. `rapid`, `stable`, `patch`, `node-image` or `none`. Default: AKS's own, none."""
    node_os_upgrade_channel: NotRequired[str | None]
    """Optional. `None`, `Unmanaged`, `NodeImage` or `SecurityPatch`. Default: AKS's own, NodeImage."""
    maintenance_windows: NotRequired[list[MaintenanceWindowArgs] | None]
    """Optional. When AKS may upgrade by itself. Default: any time."""
    node_provisioning: NotRequired[str | None]
    """Optional. `Manual`, or `Auto`: AKS makes nodes of any size as pods need them. Default: Manual."""
    autoscaler_profile: NotRequired[Mapping[str, str] | None]
    """Optional. Settings of AKS's cluster autoscaler by name: `scan_interval`, `expander`, …. Default: AKS's own."""
    dns_prefix: NotRequired[str | None]
    """Optional. 1 to 54 letters, digits and hyphens. Default: the cluster's name."""
    node_resource_group: NotRequired[str | None]
    """Optional. Group that AKS makes for the nodes. Default: MC_<group>_<cluster>_<region>."""
    subscription_id: NotRequired[str | None]
    """Optional. The subscription, to check ids against. Default: that of the credentials."""
    minimum_tls_version: NotRequired[str | None]
    """Optional. `1.2` or `1.3`. Default: 1.2, with 1.3 on."""
    ssl_key_vault_secret_id: NotRequired[str | None]
    """Optional. The certificate in a Key Vault instead of two files: `https://<vault>.vault.azure.net/secrets/<name>`.
    AKS's add-on for Key Vault (Secrets Store CSI driver), which it turns on, brings it into the cluster; an attached
    cluster must have it. Without a version renewals are followed, without a failed request."""
    ssl_key_vault_id: NotRequired[pulumi.Input[str] | None]
    """Optional. Resource id of that vault: the add-on's identity gets the role Key Vault Secrets User there, at the
    secret of this certificate alone. Default: the right is yours to give."""
    allow_replacement: NotRequired[bool | None]
    """Optional. Agrees to changes that replace the cluster or its system pool, and lose what is on it. Default:
    false."""
    create_timeout_minutes: NotRequired[int | None]
    """Optional. For the cluster and each pool. Default: 60."""
    update_timeout_minutes: NotRequired[int | None]
    """Optional. For the cluster and each pool. Default: 60."""
    delete_timeout_minutes: NotRequired[int | None]
    """Optional. For the cluster and each pool. Default: 60."""
