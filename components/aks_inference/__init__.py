"""Model serving on Kubernetes, on AKS and on this machine, declared with Pulumi.

Names are loaded when they are first asked for: checks without a stack need no Pulumi, which takes long to load.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aks_inference.aks_cluster.args import AksInferenceClusterArgs
    from aks_inference.aks_cluster.component import AksInferenceCluster
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
    from aks_inference.images.args import CustomImageArgs, RegistryArgs
    from aks_inference.inference_runtime.args import InferenceRuntimeArgs
    from aks_inference.inference_runtime.component import InferenceRuntime
    from aks_inference.local_cluster.args import LocalInferenceClusterArgs
    from aks_inference.local_cluster.component import LocalInferenceCluster
    from aks_inference.registered_model.args import RegisteredModelArgs
    from aks_inference.registered_model.component import RegisteredModel
    from aks_inference.rollout.args import ControlledRolloutEndpointArgs, VersionArgs
    from aks_inference.rollout.component import ControlledRolloutEndpoint
    from aks_inference.service.args import EnvironmentArgs, InferenceConfigArgs, ModelWebServiceArgs
    from aks_inference.service.component import ModelWebService
    from aks_inference.training_job.args import TrainingJobArgs
    from aks_inference.training_job.component import TrainingJob

_PLACES = {
    "AccessArgs": "aks_cluster.groups_args",
    "AksInferenceCluster": "aks_cluster.component",
    "AksInferenceClusterArgs": "aks_cluster.args",
    "ClusterRuntimeArgs": "aks_cluster.groups_args",
    "ControlledRolloutEndpoint": "rollout.component",
    "ControlledRolloutEndpointArgs": "rollout.args",
    "CustomImageArgs": "images.args",
    "EgressArgs": "aks_cluster.groups_args",
    "EnvironmentArgs": "service.args",
    "IdentityArgs": "aks_cluster.groups_args",
    "InferenceConfigArgs": "service.args",
    "InferenceRuntime": "inference_runtime.component",
    "InferenceRuntimeArgs": "inference_runtime.args",
    "LocalInferenceCluster": "local_cluster.component",
    "LocalInferenceClusterArgs": "local_cluster.args",
    "MaintenanceWindowArgs": "aks_cluster.groups_args",
    "ModelWebService": "service.component",
    "ModelWebServiceArgs": "service.args",
    "NetworkArgs": "aks_cluster.groups_args",
    "PoolArgs": "aks_cluster.groups_args",
    "RegistryArgs": "images.args",
    "RegisteredModel": "registered_model.component",
    "RegisteredModelArgs": "registered_model.args",
    "SecurityArgs": "aks_cluster.groups_args",
    "SystemPoolArgs": "aks_cluster.groups_args",
    "TrainingJob": "training_job.component",
    "TrainingJobArgs": "training_job.args",
    "VersionArgs": "rollout.args",
}
_HOSTED = (
    "LocalInferenceCluster",
    "RegisteredModel",
    "ModelWebService",
    "ControlledRolloutEndpoint",
    "AksInferenceCluster",
    "InferenceRuntime",
    "TrainingJob",
)

COMPONENTS: list[type[Any]]
"""What the plugin hosts."""


def __getattr__(name: str) -> object:
    if name == "COMPONENTS":
        found: Any = [__getattr__(component) for component in _HOSTED]
    elif name in _PLACES:
        found = getattr(import_module(f"aks_inference.{_PLACES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


if "pulumi" in sys.modules:
    # Resources that a program declares after this import wait for its checks, too.
    from aks_inference.program import current_program

    current_program()

__all__ = [
    "COMPONENTS",
    "AccessArgs",
    "AksInferenceCluster",
    "AksInferenceClusterArgs",
    "ClusterRuntimeArgs",
    "ControlledRolloutEndpoint",
    "ControlledRolloutEndpointArgs",
    "CustomImageArgs",
    "EgressArgs",
    "EnvironmentArgs",
    "IdentityArgs",
    "InferenceConfigArgs",
    "InferenceRuntime",
    "InferenceRuntimeArgs",
    "LocalInferenceCluster",
    "LocalInferenceClusterArgs",
    "MaintenanceWindowArgs",
    "ModelWebService",
    "ModelWebServiceArgs",
    "NetworkArgs",
    "PoolArgs",
    "RegisteredModel",
    "RegisteredModelArgs",
    "RegistryArgs",
    "SecurityArgs",
    "SystemPoolArgs",
    "TrainingJob",
    "TrainingJobArgs",
    "VersionArgs",
]
