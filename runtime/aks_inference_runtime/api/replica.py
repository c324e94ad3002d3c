"""What a replica's scoring server is told, for those who declare pods: the same as a process on this machine gets."""

from pathlib import Path

from aks_inference_runtime.api.endpoint import EndpointVersion
from aks_inference_runtime.scoring import server

APP_ROOT = "/var/azureml-app"
"""Where Azure ML's images have the code, and below it the models (azureml-v1.md 4.7)."""


def variables(endpoint: str, version: EndpointVersion) -> dict[str, str]:
    """The environment variables of a replica in a pod."""
    return server.variables(endpoint, version, Path(APP_ROOT))


def code_folder(version: EndpointVersion) -> str:
    """Folder of the code in the app root."""
    return server.code_folder(version.code)


def entry_script(version: EndpointVersion) -> str:
    """The entry script in the app root."""
    return server.entry_script(version.code)
