"""Images of environments: what identifies them, where they are, how they are built. Knows nothing of Pulumi."""

from aks_inference_runtime.images.build.application import Application
from aks_inference_runtime.images.build.choose import Builder
from aks_inference_runtime.images.ensure import BuildSettings, Ensured, ensure_image
from aks_inference_runtime.images.environment.key import canonical_definition, image_key
from aks_inference_runtime.images.environment.model import EnvironmentDefinition
from aks_inference_runtime.images.environment.read import read_environment, read_file, read_inference_config
from aks_inference_runtime.images.lookup import Lookup, RegistryPlace, find, find_all
from aks_inference_runtime.images.of_service import ensure_service
from aks_inference_runtime.images.registry import CredentialStore, Login, RegistryClient, TransportOptions

__all__ = [
    "Application",
    "BuildSettings",
    "Builder",
    "CredentialStore",
    "Ensured",
    "EnvironmentDefinition",
    "Login",
    "Lookup",
    "RegistryClient",
    "RegistryPlace",
    "TransportOptions",
    "canonical_definition",
    "ensure_image",
    "ensure_service",
    "find",
    "find_all",
    "image_key",
    "read_environment",
    "read_file",
    "read_inference_config",
]
