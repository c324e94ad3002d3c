"""Models of other stores for a local cluster: the plugin brings them, as it has the caller's rights and variables."""

from pathlib import Path

from aks_inference_provider.resources.base import Operation
from aks_inference_provider.resources.model_content import telling
from aks_inference_runtime.api.endpoint import ModelReference, ScoringEndpoint
from aks_inference_runtime.models.mirror import bring, let_go


async def bring_models(endpoint: ScoringEndpoint, resource_id: str, operation: Operation) -> None:
    """Has the models of an endpoint on this machine before it is declared. Raises api.errors."""
    for reference in _used(endpoint):
        what = f"fetching model {reference.name}:{reference.version}"
        await bring(_state(resource_id), reference, operation.urn.text, telling(operation, what))


async def drop_models(endpoint: ScoringEndpoint | None, resource_id: str, operation: Operation) -> None:
    """Lets go of what the endpoint does not use any more. `endpoint`: as it is served; None: it is gone."""
    await let_go(_state(resource_id), () if endpoint is None else _used(endpoint), operation.urn.text)


def _used(endpoint: ScoringEndpoint) -> list[ModelReference]:
    found = [model for version in endpoint.spec.versions for model in version.models if model.store is not None]
    return list(dict.fromkeys(found))


def _state(resource_id: str) -> Path:
    return Path(resource_id.rpartition("/endpoints/")[0])
