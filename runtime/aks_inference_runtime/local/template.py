"""What a replica is made of: versions with the same template share replicas, a changed one needs new ones. Pure."""

import hashlib
import json

from aks_inference_runtime.api.endpoint import EndpointVersion
from aks_inference_runtime.scoring.server import code_folder, entry_script


def template_of(version: EndpointVersion, environment_hash: str) -> str:
    """16 hex digits over all that a running replica cannot change any more.

    Traffic, scaling, waiting times, keys, tags and descriptions are not in it: they change without touching a replica.
    """
    content: dict[str, object] = {
        "code": [version.code.digest, code_folder(version.code), entry_script(version.code)],
        "models": [(model.name, model.version) for model in version.models],
        "environment": environment_hash,
        "variables": sorted(version.environment.environment_variables.items()),
        "resources": version.resources.model_dump(mode="json"),
        "concurrency": version.requests.replica_max_concurrent_requests,
        "timeout": version.requests.scoring_timeout_ms,
        "start": [version.liveness_probe.initial_delay_seconds, version.liveness_probe.period_seconds],
    }
    if version.model_data is not None:
        content["model_data"] = version.model_data.to_wire()
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def rollout(wanted: int, new_ready: int, old: int) -> tuple[int, int]:
    """How many new and how many old replicas to have while a version changes: one more than wanted at most.

    Args:
        wanted: Required. Replicas that the version is to have.
        new_ready: Required. Ready ones of the new template.
        old: Required. Ones of older templates that take requests.
    """
    if old == 0:
        return wanted, 0
    return min(wanted, new_ready + 1), max(0, wanted - new_ready)
