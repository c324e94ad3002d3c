"""Artifacts of runs and registered models of an MLflow tracking server.

The `mlflow` client runs in a process of its own (`python -m …sources.mlflow_client`): it takes a second to import, sets
up logging, and blocks; so it can be ended at any time, and its packages stay optional.
"""

import asyncio
import contextlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aks_inference_runtime.api.errors import InvalidInput, NotFound
from aks_inference_runtime.models.errors import MissingPackage, SourceUnavailable
from aks_inference_runtime.models.sources.address import Address

CLIENT = "aks_inference_runtime.models.sources.mlflow_client"
_KINDS = {"missing": NotFound, "invalid": InvalidInput, "package": MissingPackage}


@dataclass(frozen=True)
class Artifact:
    """What a server says of an artifact."""

    revision: str | None
    """None while the run is under way: its files may change."""
    base_name: str
    run_id: str
    experiment: str
    size: int


async def describe(address: Address, tracking_uri: str | None, experiment: str | None) -> Artifact:
    """Looks at an artifact without fetching it.

    Args:
        address: Required. Of a run's artifact or a registered model.
        tracking_uri: Required. The server; None: `MLFLOW_TRACKING_URI`.
        experiment: Required. The name of the experiment that the run must belong to, or None.

    Raises:
        NotFound, InvalidInput: no such run, artifact or model; the run belongs to another experiment.
        SourceUnavailable: the server does not answer.
        MissingPackage: the client is not installed.
    """
    answer = await _client("describe", address, tracking_uri, experiment, None)
    return Artifact(**answer)


async def download(address: Address, tracking_uri: str | None, target: Path) -> None:
    """The artifact's files below `target`. Raises as `describe`."""
    await _client("download", address, tracking_uri, None, target)


async def _client(
    what: str, address: Address, tracking_uri: str | None, experiment: str | None, target: Path | None
) -> dict[str, Any]:
    if not (tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")):
        raise InvalidInput(f"{address.text}: names no server; give tracking_uri or set MLFLOW_TRACKING_URI")
    order = {
        "what": what,
        "scheme": address.scheme.value,
        "place": address.place,
        "path": address.path,
        "experiment": experiment,
        "target": str(target) if target else None,
    }
    environment = {
        **os.environ,
        **({"MLFLOW_TRACKING_URI": tracking_uri} if tracking_uri else {}),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # A preview does not wait for minutes: 1, 2 and 4 seconds.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3"),
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": os.environ.get("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1"),
        "PYTHONWARNINGS": "ignore",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        CLIENT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    try:
        said, complaints = await process.communicate(json.dumps(order).encode())
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    try:
        answer: dict[str, Any] = json.loads(said)
    except ValueError:
        tail = complaints.decode(errors="replace").strip().splitlines()[-1:]
        raise SourceUnavailable(f"{address.text}: the mlflow client failed ({' '.join(tail)})") from None
    if (kind := answer.pop("error", None)) is not None:
        raise _KINDS.get(str(kind), SourceUnavailable)(f"{address.text}: {answer['message']}")
    return answer
