"""A client of the OCI distribution API 1.1 and of registries that answer its predecessors."""

from aks_inference_runtime.images.registry.client import RegistryClient
from aks_inference_runtime.images.registry.credentials import CredentialStore, Login
from aks_inference_runtime.images.registry.silence import Silence
from aks_inference_runtime.images.registry.transport import TransportOptions

__all__ = ["CredentialStore", "Login", "RegistryClient", "Silence", "TransportOptions"]
