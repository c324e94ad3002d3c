"""How the scoring server is started: pure, so that a process and a pod get the same.

Source: azureml-inference-server-http 1.5 (its variables and how it runs gunicorn), azureml-core 1.61 (folders).
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from aks_inference_runtime import model_data
from aks_inference_runtime.api.endpoint import Code, EndpointVersion, ModelReference, Probe
from aks_inference_runtime.model_data.script.azureml import monitoring

MODELS_FOLDER = "azureml-models"
APPLICATION = "azureml_inference_server_http.server.entry:app"
SETTINGS_FILE = Path(__file__).with_name("gunicorn_settings.py")
SCORING_MARGIN_MS = 1_000
"""The server gives a score up that much after the router did, so that its slot comes back."""
WORKER_MARGIN_S = 30
_LONGEST_WORKER_TIMEOUT_S = 1_000_000_000
"""gunicorn waits with select(), which ends at 2^63 ns."""
MODEL_DATA_SCRIPT = Path(model_data.__file__).with_name("script")
"""What stands on the import path of a replica whose script collects model data."""
PATH = "PYTHONPATH"
INIT_EXIT_CODE = 3
"""Of the server when the entry script fails at import or in init()."""


def code_folder(code: Code) -> str:
    """The folder of the code in the app root; empty when the entry script stands alone."""
    return Path(code.source_directory).name or "source" if code.source_directory else ""


def entry_script(code: Code) -> str:
    """AZUREML_ENTRY_SCRIPT: relative to the app root, with forward slashes."""
    if code.source_directory is None:
        return Path(code.entry_script).name
    return str(PurePosixPath(code_folder(code)) / PurePosixPath(code.entry_script))


def model_directory(app_root: Path, models: Sequence[ModelReference]) -> Path:
    """AZUREML_MODEL_DIR: of one model its version's folder, else the folder of all."""
    folder = app_root / MODELS_FOLDER
    return folder / models[0].name / str(models[0].version) if len(models) == 1 else folder


def start_deadline_s(probe: Probe) -> float:
    """Seconds until a replica that never answered its health path is given up."""
    return float(probe.initial_delay_seconds + probe.period_seconds * probe.failure_threshold)


def worker_timeout_s(version: EndpointVersion) -> int:
    """WORKER_TIMEOUT: above the longest score, and above the longest start, which counts too."""
    score = math.ceil(version.requests.scoring_timeout_ms / 1_000) + WORKER_MARGIN_S
    start = math.ceil(start_deadline_s(version.liveness_probe)) + WORKER_MARGIN_S
    return min(max(score, start), _LONGEST_WORKER_TIMEOUT_S)


def variables(
    endpoint: str, version: EndpointVersion, app_root: Path, server_version: str | None = None
) -> dict[str, str]:
    """The environment variables of a replica; the user's own come first, what the platform fixes wins."""
    threads = str(max(1, math.ceil(version.resources.cpu_cores_limit or version.resources.cpu_cores)))
    own = version.environment.environment_variables
    fixed = {
        "AML_APP_ROOT": str(app_root),
        "AZUREML_ENTRY_SCRIPT": entry_script(version.code),
        "AZUREML_MODEL_DIR": str(model_directory(app_root, version.models)),
        "SERVICE_NAME": endpoint,
        "SERVICE_PATH_PREFIX": f"api/v1/service/{endpoint}",
        "SCORING_TIMEOUT_MS": str(version.requests.scoring_timeout_ms + SCORING_MARGIN_MS),
        "WORKER_COUNT": str(version.requests.replica_max_concurrent_requests),
        "WORKER_TIMEOUT": str(worker_timeout_s(version)),
        "AML_APP_INSIGHTS_ENABLED": "true" if own.get("AML_APP_INSIGHTS_ENABLED") == "true" else "false",
    }
    if folder := code_folder(version.code):
        fixed["AZUREML_SOURCE_DIRECTORY"] = folder
    if server_version:
        fixed["HTTP_X_MS_SERVER_VERSION"] = f"azmlinfsrv/{server_version}"
    # Numeric libraries would start a thread per core of the machine in every replica.
    defaults = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
    return defaults | dict(own) | fixed


def collecting(
    version: EndpointVersion, told: Mapping[str, str], script: Path, spool: str | None = None
) -> dict[str, str]:
    """Further environment variables of a replica whose script hands model data over.

    Args:
        version: Required. The version.
        told: Required. The other variables.
        script: Required. Where the package stands that scripts import.
        spool: Optional. The folder of what is on its way to Blob Storage. Default: none, the store is a folder.
    """
    if version.model_data is None:
        return {}
    found = {
        PATH: os.pathsep.join([str(script), *([told[PATH]] if told.get(PATH) else [])]),
        monitoring.ENABLED: "false",
    }
    if version.model_data.store is None:
        return found
    found |= {monitoring.ENABLED: "true", monitoring.WORKSPACE: version.model_data.workspace}
    if spool is None:
        return found | {monitoring.FOLDER: version.model_data.store}
    return found | {monitoring.FOLDER: spool, monitoring.SPOOL: "true"}


def command(python: Path, bind: str, version: EndpointVersion) -> list[str]:
    """The server on an address (`127.0.0.1:5001`, `fd://3`); its own launcher would listen on all interfaces."""
    return [
        str(python),
        "-m",
        "gunicorn",
        "--config",
        str(SETTINGS_FILE),
        "--bind",
        bind,
        "--workers",
        str(version.requests.replica_max_concurrent_requests),
        "--timeout",
        str(worker_timeout_s(version)),
        APPLICATION,
    ]
