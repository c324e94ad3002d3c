"""What routers and autoscaler are told: settings and the pod that they are."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.kubernetes import ROUTER_TOKEN_VARIABLE, SETTINGS_VARIABLE, RuntimeSettings

_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,256}")


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


def router_token(environment: Mapping[str, str] = os.environ) -> str | None:
    """From the file that AKS_INFERENCE_ROUTER_TOKEN names; None without one. Raises InvalidInput."""
    path = environment.get(ROUTER_TOKEN_VARIABLE)
    if not path or not Path(path).exists():
        return None
    try:
        token = Path(path).read_text().strip()
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{ROUTER_TOKEN_VARIABLE}={path}: {error}") from None
    if not _TOKEN.fullmatch(token):
        # Not its content.
        raise InvalidInput(f"{ROUTER_TOKEN_VARIABLE}={path}: no token: 16 to 256 letters, digits, dashes, underscores")
    return token


def settings(environment: Mapping[str, str] = os.environ) -> RuntimeSettings:
    """From AKS_INFERENCE_SETTINGS, or the file that it names; their defaults without. Raises InvalidInput."""
    given = environment.get(SETTINGS_VARIABLE)
    if not given:
        return RuntimeSettings()
    try:
        return RuntimeSettings.model_validate_json(given if given.startswith("{") else Path(given).read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidInput(f"{SETTINGS_VARIABLE}={given}: {error}") from None
