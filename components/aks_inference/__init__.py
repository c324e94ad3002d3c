"""Model serving on Kubernetes, on AKS and on this machine, declared with Pulumi."""

from aks_inference.aks_cluster.args import AksInferenceClusterArgs, NetworkArgs, SystemPoolArgs
from aks_inference.aks_cluster.component import AksInferenceCluster
from aks_inference.local_cluster.args import LocalInferenceClusterArgs
from aks_inference.local_cluster.component import LocalInferenceCluster
from aks_inference.program import current_program
from aks_inference.registered_model.args import RegisteredModelArgs
from aks_inference.registered_model.component import RegisteredModel
from aks_inference.rollout.args import ControlledRolloutEndpointArgs, VersionArgs
from aks_inference.rollout.component import ControlledRolloutEndpoint
from aks_inference.service.args import EnvironmentArgs, InferenceConfigArgs, ModelWebServiceArgs
from aks_inference.service.component import ModelWebService

COMPONENTS = [
    LocalInferenceCluster,
    RegisteredModel,
    ModelWebService,
    ControlledRolloutEndpoint,
    AksInferenceCluster,
]
"""What the plugin hosts."""

# Resources that a program declares after this import wait for its checks, too.
current_program()

__all__ = [
    "COMPONENTS",
    "AksInferenceCluster",
    "AksInferenceClusterArgs",
    "ControlledRolloutEndpoint",
    "ControlledRolloutEndpointArgs",
    "EnvironmentArgs",
    "InferenceConfigArgs",
    "LocalInferenceCluster",
    "LocalInferenceClusterArgs",
    "ModelWebService",
    "ModelWebServiceArgs",
    "NetworkArgs",
    "RegisteredModel",
    "RegisteredModelArgs",
    "SystemPoolArgs",
    "VersionArgs",
]
