"""What a replica's scoring server is told, for those who declare pods: the same as a process on this machine gets."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from aks_inference_runtime.api.endpoint import EndpointVersion, ModelReference
from aks_inference_runtime.scoring import server

APP_ROOT = "/var/azureml-app"
"""Where Azure ML's images have the code, and below it the models (azureml-v1.md 4.7)."""
MODELS_ROOT = f"{APP_ROOT}/{server.MODELS_FOLDER}"
CACHE_VOLUME = "model-cache"
"""Of a pod: the folder of the node that its models are fetched into."""
MODEL_DATA_SCRIPT = "/opt/aks-inference/model-data"
"""Of a replica: the package that scripts import to collect model data."""
MODEL_DATA_SPOOL = "/var/aks-inference/model-data"
"""Of a pod: rows on their way to Blob Storage."""
MODELS_CONTAINER = "models"
"""Of a pod: the init container that fetches the models."""


def variables(endpoint: str, version: EndpointVersion) -> dict[str, str]:
    """The environment variables of a replica in a pod."""
    told = server.variables(endpoint, version, Path(APP_ROOT))
    return told | server.collecting(version, told, Path(MODEL_DATA_SCRIPT), MODEL_DATA_SPOOL)


def model_data_script() -> dict[str, Path]:
    """Files of the package that scripts import to collect model data, by their names under its folder."""
    root = server.MODEL_DATA_SCRIPT
    return {path.relative_to(root).as_posix(): path for path in sorted((root / "azureml").rglob("*.py"))}


def code_folder(version: EndpointVersion) -> str:
    """Folder of the code in the app root."""
    return server.code_folder(version.code)


def entry_script(version: EndpointVersion) -> str:
    """The entry script in the app root."""
    return server.entry_script(version.code)


def model_directory(references: Sequence[Mapping[str, object]]) -> str:
    """AZUREML_MODEL_DIR of these models, each as JSON."""
    return str(server.model_directory(Path(APP_ROOT), [ModelReference.model_validate(each) for each in references]))
