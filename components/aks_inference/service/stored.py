"""The models of a version that stores keep: looked up and protected by resources of their own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from aks_inference.resources import StoredModels
from aks_inference.service.endpoint import VersionPlan
from aks_inference.service.model_pods import Mounted
from aks_inference.service.models import ModelUse
from aks_inference_runtime.api.replica import model_directory

MOST_MOUNTED = 32
"""Each is a mount of its own in the pod; more models than that are fetched."""


@dataclass(frozen=True)
class Stored:
    """What is known of the models once they were looked up."""

    resources: tuple[StoredModels, ...]
    models: tuple[pulumi.Output[str], ...]
    """JSON of each: name, version, store, digest."""
    mounted: tuple[Mounted, ...] = ()
    """Of each, where they are mounted."""


def register_stored(
    prefix: str, endpoint: str, planned: VersionPlan, child: pulumi.ResourceOptions, *, mounted: bool = False
) -> Stored:
    """One resource for each store that keeps models of the version.

    Args:
        prefix: Required. Of the resources' names.
        endpoint: Required. The endpoint's name, for who wants to delete a model.
        planned: Required. The version.
        child: Required. The options that all children have.
        mounted: Optional. Whether pods mount the models, which are all in registries. Default: false.
    """
    version = planned.version.name
    stores: dict[str, list[ModelUse]] = {}
    for use in planned.models:
        if use.store is not None:
            stores.setdefault(use.store, []).append(use)
    resources, texts, images = [], [], []
    for index, (store, uses) in enumerate(stores.items()):
        known = [pulumi.Output.from_input(use.reference) for use in uses]
        inputs = {
            "store": store,
            "models": [each.apply(_model_id) for each in known],
            "user": f"endpoint {endpoint}, version {version}",
            "mounted": True if mounted else None,
        }
        found = StoredModels(f"{prefix}-{version}-models{f'-{index}' if index else ''}", inputs, child)
        resources.append(found)
        texts += [pulumi.Output.all(each, found.digests, place).apply(_told) for place, each in enumerate(known)]
        if mounted:
            shown = [pulumi.Output.all(found.images, place).apply(_image) for place in range(len(known))]
            images += [Mounted(image, each.apply(_place)) for image, each in zip(shown, known, strict=True)]
    return Stored(tuple(resources), tuple(texts), tuple(images))


def can_mount(models: Sequence[ModelUse]) -> bool:
    """Whether all models of a version are in registries; a pod mounts all of them, or fetches all."""
    return 0 < len(models) <= MOST_MOUNTED and all((use.store or "").startswith("oci://") for use in models)


def directory_of(models: Sequence[ModelUse]) -> pulumi.Output[str]:
    """AZUREML_MODEL_DIR."""
    references = [pulumi.Output.from_input(use.reference) for use in models]
    return pulumi.Output.all(*references).apply(lambda known: model_directory([_whole(each) for each in known]))


def _whole(reference: Mapping[str, Any]) -> dict[str, Any]:
    # A number comes back as a float over the protocol.
    return {**reference, "version": int(reference["version"])}


def _model_id(reference: Mapping[str, Any]) -> str:
    return f"{reference['name']}:{int(reference['version'])}"


def _place(reference: Mapping[str, Any]) -> str:
    return f"{reference['name']}/{int(reference['version'])}"


def _image(known: Sequence[Any]) -> str:
    images, place = known
    return str(images[int(place)])


def _told(known: Sequence[Any]) -> str:
    reference, digests, place = known
    return json.dumps({**_whole(reference), "digest": digests[int(place)]}, sort_keys=True)
