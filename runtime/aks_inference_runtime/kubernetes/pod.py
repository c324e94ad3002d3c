"""What routers and autoscaler are told: settings and the pod that they are."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.kubernetes import SETTINGS_VARIABLE, RuntimeSettings


@dataclass(frozen=True)
class Pod:
    """Which pod this process is."""

    name: str
    address: str


def pod(environment: Mapping[str, str] = os.environ) -> Pod:
    """From POD_NAME and POD_IP. Raises InvalidInput."""
    missing = [name for name in ("POD_NAME", "POD_IP") if not environment.get(name)]
    if missing:
        raise InvalidInput(f"not set: {', '.join(missing)}; the Deployment gives them by the downward API")
    return Pod(environment["POD_NAME"], environment["POD_IP"])


def settings(environment: Mapping[str, str] = os.environ) -> RuntimeSettings:
    """From the file that AKS_INFERENCE_SETTINGS names; its defaults without one. Raises InvalidInput."""
    path = environment.get(SETTINGS_VARIABLE)
    if not path:
        return RuntimeSettings()
    try:
        return RuntimeSettings.model_validate_json(Path(path).read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidInput(f"{SETTINGS_VARIABLE}={path}: {error}") from None
