"""StoredModels: models of a store that a version of an endpoint uses: looked up, and protected while it does."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from aks_inference_provider import PACKAGE
from aks_inference_provider.differences import Diff, Difference, changes
from aks_inference_provider.fields import Failure, Field, Kind, check_fields, each_once
from aks_inference_provider.resources.base import Checked, Computed, Made, Operation, Raw, State, Urn
from aks_inference_provider.wire import UNKNOWN, has_unknown, plain
from aks_inference_runtime.api.errors import AksInferenceError, InvalidInput, NotFound, RuntimeUnavailable
from aks_inference_runtime.api.status import ModelRecord
from aks_inference_runtime.models.stores import ModelStore, open_store
from aks_inference_runtime.models.stores.oci import OciStore
from aks_inference_runtime.models.stores.store import find_version

LOOK_S = 5.0
"""Of a store in a preview; one that does not answer in that time tells nothing, and refuses nothing."""
PARALLEL = 8
INPUTS = (
    Field("store", Kind.STRING, "Required. Address of the store.", required=True, replaces=True),
    Field("models", Kind.STRINGS, "Required. `name:version` of each model.", required=True, replaces=True),
    Field("user", Kind.STRING, "Required. Who uses them, as told to who deletes one.", required=True, replaces=True),
    Field("mounted", Kind.BOOLEAN, "Optional. Pods mount them as images. Default: false.", replaces=True),
)
OUTPUTS = (
    Field("digests", Kind.STRINGS, "`sha256:<hex>` over names and contents of each model.", required=True),
    Field("images", Kind.STRINGS, "Of each model, with its digest; empty where they are not mounted.", required=True),
    Field("mark", Kind.STRING, "Under which the store protects them.", required=True),
)


def check(news: Mapping[str, Any]) -> list[Failure]:
    """All that is wrong with plain inputs, short of what the store has."""
    failures = check_fields(INPUTS, news)
    store, models = news.get("store"), news.get("models")
    if isinstance(store, str) and store != UNKNOWN:
        try:
            opened = open_store(store)
        except InvalidInput as error:
            failures.append(Failure("store", str(error)))
        else:
            if news.get("mounted") and not isinstance(opened, OciStore):
                failures.append(Failure("mounted", f"{store} is no registry, and pods mount images of registries"))
    for index, model in enumerate(models if isinstance(models, list) else ()):
        if isinstance(model, str) and model != UNKNOWN and parse(model) is None:
            failures.append(Failure(f"models[{index}]", f"{model!r} is no model id `name:version`"))
    return each_once(failures)


def parse(model: str) -> tuple[str, int] | None:
    """`name:version` taken apart; None where it is not one."""
    name, _, version = model.rpartition(":")
    return (name, int(version)) if name and version.isascii() and version.isdigit() and int(version) > 0 else None


def mark(urn: Urn, inputs: Mapping[str, Any]) -> str:
    """Who uses the models: another one for another choice, so that what replaces this one protects its own models
    before this one lets go of its."""
    identity = "\n".join([urn.text, inputs["store"], *sorted(inputs["models"])])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    return f"{inputs['user']} of {urn.project}/{urn.stack} ({digest})"


class StoredModels:
    """The models of one version, as a resource. Its id is its mark."""

    token = f"{PACKAGE}:index:StoredModels"
    description = "Models of a store that a version of an endpoint uses; protected from being deleted while it does."
    inputs = INPUTS
    outputs = OUTPUTS

    async def check(self, urn: Urn, olds: Raw, news: Raw) -> Checked:
        """Also whether the models are there, as far as the store tells now. Those used before are protected."""
        given, before = plain(news), plain(olds)
        failures = check(given)
        if not failures and given != before and not has_unknown(given.get("store")):
            failures = await _missing(given)
        return Checked(news, failures)

    async def diff(self, state: State, news: Raw) -> Diff:
        """Any change is another choice, made before this one goes."""
        found = changes(plain(state.inputs), plain(news))
        return Diff({path: Difference(change, replaces=True) for path, change in found.items()})

    def preview(self, inputs: Raw, state: State | None) -> Computed:
        """What is in the store is known when it is applied."""
        if state is None:
            return {field.name: UNKNOWN for field in OUTPUTS}
        # A state from before there were any has none.
        return {
            "images": [],
            **{field.name: state.outputs[field.name] for field in OUTPUTS if field.name in state.outputs},
        }

    async def create(self, operation: Operation, inputs: Raw) -> Made:
        """Looks the models up and protects them. Raises NotFound, StoreUnavailable."""
        given = plain(inputs)
        store, by = open_store(given["store"]), mark(operation.urn, given)
        models = _models(given)
        operation.progress.status(f"looking up {len(models)} model(s) in {store.address}")
        try:
            records = await _each(models, lambda name, version: _use(store, name, version, by))
            images = await _images(store, records) if given.get("mounted") else []
        except BaseException:
            await asyncio.shield(_release(store, models, by))
            raise
        return Made(by, {"digests": [record.digest for record in records], "images": images, "mark": by})

    async def update(self, operation: Operation, state: State, inputs: Raw) -> Computed:
        """Never asked for: every change replaces."""
        return state.outputs

    async def read(self, operation: Operation, state: State) -> State | None:
        """Gone when one of the models is."""
        given = plain(state.inputs)
        if not given:
            return None
        store = open_store(given["store"])
        try:
            await _each(_models(given), lambda name, version: find_version(store, name, version))
        except NotFound:
            return None
        except RuntimeUnavailable as error:
            operation.progress.warn(f"not read: {error}")
        return state

    async def delete(self, operation: Operation, state: State) -> None:
        """Ends the protection; the models stay. Raises StoreUnavailable."""
        given = plain(state.inputs)
        await _release(open_store(given["store"]), _models(given), str(plain(state.outputs)["mark"]))


async def _images(store: ModelStore, records: Sequence[ModelRecord]) -> list[str]:
    """Raises InvalidInput for a store that is no registry."""
    if not isinstance(store, OciStore):
        raise InvalidInput(f"{store.address} is no registry, and pods mount images of registries")
    return [str(await store.mountable(record)) for record in records]


async def _use(store: ModelStore, name: str, version: int, by: str) -> ModelRecord:
    record = await find_version(store, name, version)
    using = asyncio.ensure_future(store.use(name, version, by))
    try:
        await asyncio.shield(using)
    except asyncio.CancelledError:
        # What a thread or another machine has begun goes on: it is let go of once it is there.
        await asyncio.wait([using])
        raise
    return record


async def _release(store: ModelStore, models: Sequence[tuple[str, int]], by: str) -> None:
    async def one(name: str, version: int) -> None:
        try:
            await store.release(name, version, by)
        except NotFound:
            return

    await _each(models, one)


async def _each(models: Sequence[tuple[str, int]], call: Any) -> list[Any]:  # noqa: ANN401 - a coroutine function
    """Calls for all models, some at a time. Raises the first error."""
    room = asyncio.Semaphore(PARALLEL)

    async def one(name: str, version: int) -> Any:  # noqa: ANN401 - whatever the call gives
        async with room:
            return await call(name, version)

    tasks = [asyncio.create_task(one(name, version)) for name, version in models]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _models(given: Mapping[str, Any]) -> list[tuple[str, int]]:
    return [found for model in given["models"] if (found := parse(model)) is not None]


async def _missing(given: Mapping[str, Any]) -> list[Failure]:
    store = open_store(given["store"])
    known = [(i, parsed) for i, m in enumerate(given["models"]) if m != UNKNOWN and (parsed := parse(m)) is not None]

    async def look(name: str, version: int) -> str:
        try:
            await find_version(store, name, version)
        except NotFound as error:
            return f"{error}; name one of them, or pass a RegisteredModel of this program"
        return ""

    try:
        async with asyncio.timeout(LOOK_S):
            asked = list(dict.fromkeys(parsed for _, parsed in known))
            found = dict(zip(asked, await _each(asked, look), strict=True))
    except (AksInferenceError, TimeoutError):
        return []
    return each_once(Failure(f"models[{index}]", found[parsed]) for index, parsed in known if found[parsed])
