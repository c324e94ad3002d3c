"""Whether the models that an endpoint names are stored: asked at preview, so that the apply does not find it out."""

from collections.abc import Iterator
from typing import NamedTuple

from aks_inference.findings import Casing, in_casing
from aks_inference.service.known_models import stored_models, unknown_model
from aks_inference_provider.fields import Failure, each_once
from aks_inference_provider.resources.base import Raw
from aks_inference_provider.resources.targets import local_target
from aks_inference_provider.wire import UNKNOWN, Value, pick
from aks_inference_runtime.api.errors import InvalidInput

_declared: set[tuple[str, str]] = set()
"""State directory and name of the models that this deployment declares: they may come with the same apply."""


class Use(NamedTuple):
    """A model that an endpoint names, and where."""

    path: str
    name: str
    version: int


def declare(target: Value, name: Value) -> None:
    """A model of this deployment was checked."""
    if isinstance(target, str) and isinstance(name, str) and UNKNOWN not in (target, name):
        try:
            _declared.add((local_target(target).state_directory, name))
        except InvalidInput:
            return


async def missing_models(olds: Raw, news: Raw) -> list[Failure]:
    """What is wrong with the models of checked plain inputs, as far as the supervisor knows now.

    Those that the endpoint had before are there: they cannot be deleted while it uses them.
    """
    target = news.get("target")
    before = {(use.name, use.version) for use in _uses(olds)} if olds.get("target") == target else set()
    asked = [use for use in _uses(news) if (use.name, use.version) not in before]
    if not asked or not isinstance(target, str) or target == UNKNOWN:
        return []
    directory = local_target(target).state_directory
    stored = await stored_models(directory)
    if stored is None:
        return []
    present = {(record.name, record.version) for record in stored}
    return each_once(
        Failure(use.path, in_casing("; ".join(unknown_model(use.name, use.version, stored)), Casing.BOTH))
        for use in asked
        if (use.name, use.version) not in present and (directory, use.name) not in _declared
    )


def _uses(values: Raw) -> Iterator[Use]:
    versions = pick(values.get("endpoint"), "spec", "versions")
    for index, version in enumerate(versions if isinstance(versions, list) else ()):
        models = pick(version, "models")
        for position, model in enumerate(models if isinstance(models, list) else ()):
            name, number = pick(model, "name"), pick(model, "version")
            if pick(model, "store") is not None:
                continue  # the business of StoredModels
            if isinstance(name, str) and name != UNKNOWN and isinstance(number, int | float):
                yield Use(f"endpoint.spec.versions[{index}].models[{position}]", name, int(number))
