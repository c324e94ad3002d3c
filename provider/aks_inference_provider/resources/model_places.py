"""Where the versions of a model are kept: by the supervisor of a local cluster, or in a store of its own."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from aks_inference_provider.resources.base import Operation
from aks_inference_provider.resources.model_content import facts, local_path, make_upload, telling
from aks_inference_provider.resources.targets import local_target, supervisor
from aks_inference_runtime.api.client import ModelRegistration, SupervisorClient
from aks_inference_runtime.api.status import ModelRecord
from aks_inference_runtime.models.stores import ModelStore, open_store


class Place(Protocol):
    """What the resource asks for."""

    async def put(self, operation: Operation, inputs: Mapping[str, Any]) -> ModelRecord:
        """Registers a version. Raises api.errors."""

    async def versions(self, name: str) -> Sequence[ModelRecord]:
        """The oldest first. Raises api.errors."""

    async def delete(self, name: str, version: int) -> None:
        """Raises NotFound, Conflict."""


class StorePlace:
    """A store that the plugin speaks to itself."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    async def put(self, operation: Operation, inputs: Mapping[str, Any]) -> ModelRecord:
        """Sends what is not there yet."""
        path = await local_path(inputs, operation)
        return await self._store.put(make_upload(inputs, path), telling(operation, "uploading"))

    async def versions(self, name: str) -> Sequence[ModelRecord]:
        """Of the store."""
        return await self._store.versions(name)

    async def delete(self, name: str, version: int) -> None:
        """In the store."""
        await self._store.delete(name, version)


class LocalPlace:
    """The supervisor of a local cluster: it takes files by their path on this machine."""

    def __init__(self, client: SupervisorClient) -> None:
        self._client = client

    async def put(self, operation: Operation, inputs: Mapping[str, Any]) -> ModelRecord:
        """Has the supervisor store the files."""
        path = await local_path(inputs, operation)
        count = len(inputs["files"])
        operation.progress.status(f"storing {count:,} file{'s' * (count != 1)}")
        registration = ModelRegistration(
            name=inputs["name"],
            source_path=str(path),
            child_paths=tuple(inputs.get("childPaths") or ()),
            **dict(facts(inputs)),
        )
        return await self._client.put_model(registration)

    async def versions(self, name: str) -> Sequence[ModelRecord]:
        """Of the cluster."""
        return [record for record in await self._client.models() if record.name == name]

    async def delete(self, name: str, version: int) -> None:
        """In the cluster."""
        await self._client.delete_model(name, version)


@asynccontextmanager
async def open_place(
    inputs: Mapping[str, Any], operation: Operation, *, needed: bool = False
) -> AsyncIterator[Place | None]:
    """The place that plain inputs name; None where its local cluster is gone and is not `needed`."""
    if inputs.get("store"):
        yield StorePlace(open_store(inputs["store"]))
        return
    async with supervisor(inputs["target"], operation, needed=needed) as client:
        yield LocalPlace(client) if client is not None else None


def reading_place(inputs: Mapping[str, Any], resource_id: str) -> Place:
    """The place of a resource, as it is: a cluster that was stopped is not started for it."""
    if inputs.get("store"):
        return StorePlace(open_store(inputs["store"]))
    place = resource_id.rpartition("/models/")[0]
    if place.startswith(("az://", "oci://")):
        return StorePlace(open_store(place))
    return LocalPlace(SupervisorClient(Path(place)))


def resource_id(inputs: Mapping[str, Any]) -> str:
    """`<store or state directory>/models/<name>`."""
    place = inputs.get("store") or local_target(inputs["target"]).state_directory
    return f"{place}/models/{inputs['name']}"


async def present(inputs: Mapping[str, Any], digests: Collection[str]) -> set[str]:
    """Contents that need not be sent again. Raises api.errors where the place does not answer."""
    if inputs.get("store"):
        return await open_store(inputs["store"]).present(inputs["name"], digests)
    client = SupervisorClient(Path(local_target(inputs["target"]).state_directory))
    stored = {
        digest for record in await client.models() if record.name == inputs["name"] for digest in record.files.values()
    }
    return stored & set(digests)
