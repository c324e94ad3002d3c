"""Manifests of objects in a cluster. Pure, and without Pulumi: checks without a stack read them, too."""

from collections.abc import Mapping
from typing import Any

WAIT_FOR_READY = {"pulumi.com/waitFor": "condition=Ready"}
Manifest = dict[str, Any]


def named(api_version: str, kind: str, name: str, namespace: str | None, **more: Any) -> Manifest:  # noqa: ANN401 - JSON
    """A manifest with its metadata; `labels` and `annotations` go there, the rest beside it."""
    metadata: Manifest = {"name": name}
    if namespace is not None:
        metadata["namespace"] = namespace
    for key in ("labels", "annotations"):
        if found := more.pop(key, None):
            metadata[key] = dict(found)
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **more}


def logical(manifest: Mapping[str, Any]) -> str:
    """A short name for a manifest among the others of a component."""
    return f"{manifest['kind'].lower()}-{manifest['metadata']['name']}"
