"""The custom resources about clusters; the plugin (provider/) implements them."""

import pulumi

from aks_inference._version import PACKAGE
from aks_inference.resources import _ProviderResource


class ClusterGuard(_ProviderResource):
    """Compares what a cluster keeps for life, and its cost, with the last time. Inputs: `fixed`, `cost`,
    `allowReplacement`."""

    _token = f"{PACKAGE}:index:ClusterGuard"
    _outputs = ()


class PoolDrain(_ProviderResource):
    """Empties a node pool before it is deleted. Inputs: `poolId`, `kubeconfig` (without it the pool goes as it is)."""

    _token = f"{PACKAGE}:index:PoolDrain"
    _outputs = ()


class AttachedCluster(_ProviderResource):
    """An AKS cluster that exists, held by one stack. Inputs: `resourceId`, or `resourceGroup` and `clusterName`;
    `purpose`, `subscriptionId`, `vcpusPerNode`, `keyVaultAddon`, `related`."""

    _token = f"{PACKAGE}:index:AttachedCluster"
    _outputs = ("clusterId", "name", "group", "location", "kubernetesVersion", "apiServer", "autoscaledPools")

    @property
    def cluster_id(self) -> pulumi.Output[str]:
        """Its resource id."""
        return self._output("clusterId")

    @property
    def autoscaled_pools(self) -> pulumi.Output[dict[str, int]]:
        """Its autoscaled pools → the most nodes of each."""
        return self._output("autoscaledPools")

    @property
    def name(self) -> pulumi.Output[str]:
        """Its name."""
        return self._output("name")

    @property
    def group(self) -> pulumi.Output[str]:
        """Its resource group."""
        return self._output("group")

    @property
    def location(self) -> pulumi.Output[str]:
        """Its region."""
        return self._output("location")

    @property
    def api_server(self) -> pulumi.Output[str]:
        """Host of its API server."""
        return self._output("apiServer")
