"""How long the pods of a version may take, and what tells one form of them from another. Pure."""

import hashlib
import json

from aks_inference.manifests import Manifest
from aks_inference_runtime.api.endpoint import MOST, EndpointVersion
from aks_inference_runtime.api.keys import DIGEST_LENGTH
from aks_inference_runtime.api.kubernetes import POD_TEMPLATE_ANNOTATION

PROGRESS_S = 3_600
"""Without a further replica that is ready, until a rollout is given up: a new GPU node, its drivers, an image of 20 GB
and the model take half an hour and more. Kubernetes' own 600 s are shorter than many a start that is well."""


def progress_s(version: EndpointVersion) -> int:
    """Seconds that a replica may take to its readiness: more than its liveness probe leaves it."""
    probe = version.liveness_probe
    return min(MOST, PROGRESS_S + probe.initial_delay_seconds + probe.period_seconds * probe.failure_threshold)


def template_digest(manifest: Manifest) -> str:
    """Of a Deployment without outputs: another one with each change of its pods. Of secrets it has names alone."""
    text = json.dumps(manifest["spec"]["template"], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def with_digest(manifest: Manifest, digest: object) -> Manifest:
    """The Deployment that says which pods it makes: who reads its version knows whether this is its newest form."""
    metadata = manifest["metadata"]
    said = {**metadata["annotations"], POD_TEMPLATE_ANNOTATION: digest}
    return {**manifest, "metadata": {**metadata, "annotations": said}}
