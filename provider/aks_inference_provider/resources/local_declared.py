"""What a supervisor has declared, beside what the state says of it: an apply that was killed leaves them apart."""

import asyncio
from collections.abc import Iterator
from typing import Any

from aks_inference_provider.resources.base import State
from aks_inference_provider.resources.endpoint_rules import read_endpoint, without_moves
from aks_inference_provider.wire import UNKNOWN, Value, has_unknown, join_path, pick, plain, whole_numbers
from aks_inference_runtime.api.client import SupervisorClient
from aks_inference_runtime.api.endpoint import AuthMode, ScoringEndpoint
from aks_inference_runtime.api.errors import AksInferenceError, NotFound

OWNER = "aks-inference.dev/urn"
"""Annotation: the resource that declared an endpoint; another one of the same name is refused."""
KEYS = ("primaryKey", "secondaryKey")
LOOK_S = 3.0
"""A supervisor that does not answer in that time tells nothing."""


def without_owner(endpoint: ScoringEndpoint) -> ScoringEndpoint:
    """The endpoint as its inputs describe it."""
    annotations = {key: text for key, text in endpoint.metadata.annotations.items() if key != OWNER}
    return endpoint.model_copy(update={"metadata": endpoint.metadata.model_copy(update={"annotations": annotations})})


def full(endpoint: Value) -> Value:
    """A plain endpoint with all defaults, to compare with what a supervisor says; as it is where it is not whole."""
    try:
        return whole_numbers(read_endpoint(endpoint).to_wire())
    except ValueError:
        return endpoint


async def strayed(state: State) -> list[str]:
    """The paths of the state's inputs that the supervisor has otherwise; none where it does not answer."""
    directory, _, name = state.id.rpartition("/endpoints/")
    inputs = plain(state.inputs)
    endpoint = inputs.get("endpoint")
    if not directory or not isinstance(endpoint, dict) or has_unknown(endpoint):
        return []
    client = SupervisorClient(directory)
    try:
        async with asyncio.timeout(LOOK_S):
            view = await client.get_endpoint(name)
            given = {key: inputs[key] for key in KEYS if inputs.get(key) not in (None, UNKNOWN)}
            asks = bool(given) and view.endpoint.spec.auth is AuthMode.KEY
            keys = (await client.keys(name)).to_wire() if asks else given
    except NotFound:
        return ["endpoint"]
    except (AksInferenceError, TimeoutError, ValueError):
        # Also an answer of another version that cannot be read: what it means is for the apply to find out.
        return []
    there = whole_numbers(without_owner(view.endpoint).to_wire())
    # The state knows a checkout that moved by its new place, the supervisor by the one before.
    wanted = without_moves(there, full(endpoint))
    return [*paths(there, wanted, endpoint, "endpoint"), *(key for key, value in given.items() if keys[key] != value)]


def paths(there: Value, wanted: Value, given: Value, path: str) -> Iterator[str]:
    """Where two values differ, as deep as `given` (what is wanted, without its defaults) has something there."""
    if there == wanted:
        return
    inner: list[tuple[Any, Any, Any, Any]] = []
    if isinstance(there, dict) and isinstance(wanted, dict) and isinstance(given, dict):
        each = sorted(there.keys() | wanted.keys())
        inner = [(there.get(key), wanted.get(key), given.get(key), key) for key in each]
    elif all(isinstance(each, list) for each in (there, wanted, given)) and len(there) == len(wanted) == len(given):
        inner = [(*values, index) for index, values in enumerate(zip(there, wanted, given, strict=True))]
    differing = [values for values in inner if values[0] != values[1]]
    if not differing or any(values[2] is None for values in differing):
        yield path
        return
    for before, after, known, key in differing:
        yield from paths(before, after, known, join_path(path, key))


def callers_path(urn: str, path: str) -> str:
    """The path of an endpoint's property as the component's caller knows it; as it is without a component."""
    types = urn.split("::", 3)[2] if urn.count("::") >= 3 else ""
    inside = path.removeprefix("endpoint.spec.")
    if "ModelWebService$" in types:
        return inside.partition("].")[2]
    return inside if "ControlledRolloutEndpoint$" in types else path


def keys_that_stay(inputs: Value, state: State | None) -> list[str]:
    """A note where keys that were given are left out."""
    before = plain(state.inputs) if state else {}
    left = [key for key in KEYS if before.get(key) is not None and inputs.get(key) is None]
    if not left or pick(inputs.get("endpoint"), "spec", "auth") not in (None, AuthMode.KEY):
        return []
    return [f"{' and '.join(left)}: no longer given; the keys stay as they are; give others to end them"]
