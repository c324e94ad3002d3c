"""The custom resources: pure checks and diffs, and thin effects through the runtime's api."""

from collections.abc import Mapping

from aks_inference_provider.resources.aks_attached import AttachedCluster
from aks_inference_provider.resources.aks_guard import ClusterGuard
from aks_inference_provider.resources.base import CustomResource
from aks_inference_provider.resources.cluster_kinds import ClusterKinds
from aks_inference_provider.resources.cluster_object import ClusterObject
from aks_inference_provider.resources.endpoint_keys import EndpointKeys
from aks_inference_provider.resources.endpoint_name import EndpointName
from aks_inference_provider.resources.image import Image
from aks_inference_provider.resources.image_volumes import ImageVolumes
from aks_inference_provider.resources.local_endpoint import LocalEndpoint
from aks_inference_provider.resources.local_runtime import LocalRuntime
from aks_inference_provider.resources.model import Model
from aks_inference_provider.resources.plain_port import PlainPort
from aks_inference_provider.resources.pool_drain import PoolDrain
from aks_inference_provider.resources.stored_models import StoredModels
from aks_inference_provider.resources.training_run import TrainingRun

RESOURCES: Mapping[str, CustomResource] = {
    each.token: each
    for each in (
        LocalRuntime(),
        Model(),
        LocalEndpoint(),
        ClusterGuard(),
        AttachedCluster(),
        PoolDrain(),
        ClusterObject(),
        ClusterKinds(),
        PlainPort(),
        EndpointKeys(),
        EndpointName(),
        Image(),
        TrainingRun(),
        StoredModels(),
        ImageVolumes(),
    )
}
"""All of them, by token."""
