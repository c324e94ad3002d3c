"""Arguments of AksInferenceCluster, as they come over the wire.

The first group is Azure ML's AksCompute.provisioning_configuration, one for one; the others are what AKS has besides.
"""

from collections.abc import Mapping
from typing import NotRequired, TypedDict

import pulumi


class NetworkArgs(TypedDict):
    """The cluster's network. Azure ML's flat arguments say the same; each thing is given in one way."""

    plugin: NotRequired[str | None]
    """Optional. `kubenet` or `azure`. Default: `azure` with a subnet or a mode, else `kubenet` as in Azure ML."""
    plugin_mode: NotRequired[str | None]
    """Optional. `overlay`: with plugin `azure`, pods get addresses of their own range. Default: addresses of the
    nodes' subnet."""
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


class SystemPoolArgs(TypedDict):
    """The small pool for the cluster's own pods."""

    vm_size: NotRequired[str | None]
    """Optional. At least 2 vCPU and 4 GiB. Default: Standard_D4s_v5."""
    count: NotRequired[int | None]
    """Optional. Nodes. Default: 3; 1 with purpose DevTest."""


class AksInferenceClusterArgs(TypedDict):
    """An AKS cluster for inference."""

    cluster_purpose: NotRequired[str | None]
    """Optional. FastProd, DenseProd or DevTest. Default: FastProd, which needs at least 12 vCPU."""
    agent_count: NotRequired[int | None]
    """Optional. Nodes for inference. Default: 3; 1 with purpose DevTest."""
    vm_size: NotRequired[str | None]
    """Optional. Size of the nodes for inference. Default: Standard_D3_v2 (4 vCPU)."""
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
    """Optional. PublicIp or InternalLoadBalancer; the latter is not supported yet. Default: PublicIp."""
    load_balancer_subnet: NotRequired[str | None]
    """Optional. Only with InternalLoadBalancer. Default: aks-subnet."""
    ssl_cname: NotRequired[str | None]
    """Optional. TLS is not supported yet: refused once its rules hold (with both files, or none of the three)."""
    ssl_cert_pem_file: NotRequired[str | None]
    """Optional. See `ssl_cname`."""
    ssl_key_pem_file: NotRequired[str | None]
    """Optional. See `ssl_cname`."""
    leaf_domain_label: NotRequired[str | None]
    """Optional. TLS is not supported yet: refused once its rules hold (not with a certificate of one's own)."""
    overwrite_existing_domain: NotRequired[bool | None]
    """Optional. Only with `leaf_domain_label`. Default: false."""
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
    """Optional. Attaching an existing cluster is not supported yet: refused."""
    tags: NotRequired[Mapping[str, pulumi.Input[str]] | None]
    """Optional. Of all Azure resources of the cluster. Default: none."""
