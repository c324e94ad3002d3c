"""LocalEndpoint: a ScoringEndpoint on the runtime of this machine."""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from aks_inference_provider import PACKAGE
from aks_inference_provider.differences import Change, Diff, Difference, changes, top
from aks_inference_provider.errors import OperationCancelled, ResourceFailed, ResourcePartlyFailed
from aks_inference_provider.fields import Failure, Field, Kind, check_fields
from aks_inference_provider.resources.base import Caution, Checked, Computed, Made, Operation, Raw, State, Urn
from aks_inference_provider.resources.endpoint_keys import same_keys
from aks_inference_provider.resources.endpoint_rules import (
    check_endpoint,
    fixed_properties,
    read_endpoint,
    traffic,
    without_moves,
)
from aks_inference_provider.resources.known_models import missing_models
from aks_inference_provider.resources.local_declared import (
    KEYS,
    OWNER,
    callers_path,
    full,
    keys_that_stay,
    strayed,
    without_owner,
)
from aks_inference_provider.resources.local_stored import bring_models, drop_models
from aks_inference_provider.resources.targets import check_target, local_target, same_target, supervisor
from aks_inference_provider.wire import (
    UNKNOWN,
    Value,
    derive,
    has_secret,
    has_unknown,
    pick,
    plain,
    secret,
    whole_numbers,
)
from aks_inference_runtime.api.client import EndpointKeys, EndpointSubmission, SupervisorClient
from aks_inference_runtime.api.endpoint import AuthMode, ScoringEndpoint
from aks_inference_runtime.api.errors import NotFound, OperationFailed, RuntimeUnavailable
from aks_inference_runtime.api.keys import LONGEST_KEY, SHORTEST_KEY, kept_keys, key_problem
from aks_inference_runtime.api.status import EndpointStatus
from aks_inference_runtime.api.target import LocalTarget, format_target

DEFAULT_TIMEOUT_S = 600

KEY_TEXT = (
    f"Optional. {SHORTEST_KEY} to {LONGEST_KEY:,} characters that a header can carry. Default: generated, and kept "
    "from then on; one that is left out again stays, too."
)
INPUTS = (
    Field("target", Kind.STRING, "Required. The `target` of a LocalInferenceCluster.", required=True, replaces=True),
    Field("endpoint", Kind.OBJECT, "Required. The ScoringEndpoint (aks-inference.dev/v1).", required=True),
    Field(
        "effectiveTraffic",
        Kind.NUMBER_MAP,
        "Optional. Version → effective percent, for the preview. Default: as the endpoint says.",
    ),
    Field("primaryKey", Kind.STRING, KEY_TEXT, secret=True),
    Field("secondaryKey", Kind.STRING, KEY_TEXT, secret=True),
    Field(
        "timeoutSeconds",
        Kind.NUMBER,
        "Optional. How long a deployment may take before it counts as failed.",
        default=DEFAULT_TIMEOUT_S,
    ),
)
OUTPUTS = (
    Field("scoringUri", Kind.STRING, "Where to POST.", required=True),
    Field("swaggerUri", Kind.STRING, "Its OpenAPI document.", required=True),
    Field("state", Kind.STRING, "Azure ML's state: Healthy, Transitioning, Unhealthy …", required=True),
)
NAME_PATH = "endpoint.metadata.name"


def check(olds: Mapping[str, Any], news: Mapping[str, Any]) -> tuple[dict[str, Any], list[Failure]]:
    """Defaults for plain inputs, and all that is wrong with them, also beside the old ones (none: empty)."""
    failures = check_fields(INPUTS, news) + check_target(news.get("target"))
    endpoint, timeout = news.get("endpoint"), news.get("timeoutSeconds")
    in_endpoint = check_endpoint(endpoint)
    defaults: dict[str, Any] = {}
    if timeout is None:
        defaults["timeoutSeconds"] = DEFAULT_TIMEOUT_S
    elif isinstance(timeout, int | float) and not timeout > 0:
        failures.append(Failure("timeoutSeconds", f"{timeout:g} is not above 0"))
    for key in ("primaryKey", "secondaryKey"):
        value = news.get(key)
        if isinstance(value, str) and value != UNKNOWN and (problem := key_problem(value)):
            failures.append(Failure(key, "; ".join(problem)))
        elif value is not None and pick(endpoint, "spec", "auth") not in (None, UNKNOWN, AuthMode.KEY):
            failures.append(Failure(key, "is only for auth 'key'; leave it out or change endpoint.spec.auth"))
    failures += same_keys(news)
    if isinstance(endpoint, dict) and not in_endpoint:
        try:
            effective = traffic(endpoint) or UNKNOWN
        except ValueError as error:
            in_endpoint.append(Failure("endpoint.spec.versions", str(error)))
        else:
            given = news.get("effectiveTraffic")
            if given is None:
                defaults["effectiveTraffic"] = effective
            elif isinstance(given, dict) and not has_unknown([given, effective]) and given != effective:
                failures.append(Failure("effectiveTraffic", f"is {given}, but the endpoint makes it {effective}"))
    if not in_endpoint and not _another(olds, news):
        in_endpoint += fixed_properties(olds.get("endpoint"), endpoint)
    return defaults, failures + in_endpoint


def _another(olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
    """Whether the new inputs describe another endpoint than the old ones."""
    names = [pick(each, *NAME_PATH.split(".")) for each in (olds, news)]
    return names[0] != names[1] or not same_target(olds.get("target"), news.get("target"))


def diff(olds: Mapping[str, Any], news: Mapping[str, Any]) -> Diff:
    """What has to happen, from plain inputs: another name or target is another endpoint."""
    news = {**news, "endpoint": without_moves(olds.get("endpoint"), news.get("endpoint"))}
    found = {
        path: Difference(change, replaces=top(path) == "target" or path == NAME_PATH)
        for path, change in changes(whole_numbers(olds), whole_numbers(news)).items()
    }
    if "target" in found and same_target(olds.get("target"), news.get("target")):
        del found["target"]
    old_port, new_port = (pick(each, "endpoint", "spec", "port") for each in (olds, news))
    # The new one must not be taken away with the old one's name, nor want the port that the old one still has.
    apart = ("target" in found or NAME_PATH in found) and (new_port is None or new_port != old_port)
    return Diff(found, delete_before_replace=not apart)


def places(inputs: Raw) -> Computed:
    """The URIs, from raw inputs: an endpoint with a port of its own is served at its root."""
    endpoint = inputs.get("endpoint")
    sources = inputs.get("target"), pick(endpoint, "metadata", "name"), pick(endpoint, "spec", "port")
    return {
        "scoringUri": derive(lambda *known: f"{_base(*known)}/score", *sources),
        "swaggerUri": derive(lambda *known: f"{_base(*known)}/swagger.json", *sources),
    }


def _base(target: str, name: str, port: float | None) -> str:
    if port is not None:
        return f"http://127.0.0.1:{int(port)}"
    return f"http://127.0.0.1:{local_target(target).port}/api/v1/service/{name}"


class LocalEndpoint:
    """An endpoint, as a resource. Its id is `<state directory>/endpoints/<name>`."""

    token = f"{PACKAGE}:index:LocalEndpoint"
    description = "A scoring endpoint with its versions on the inference runtime of this machine."
    inputs = INPUTS
    outputs = OUTPUTS

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, str]] = {}
        """By URN the keys of endpoints that are replaced: the next one of the same URN has them, too."""
        self._strayed: dict[str, list[str]] = {}
        """By URN where the supervisor has something else than the state says, for the notes of a preview."""

    async def check(self, urn: Urn, olds: Raw, news: Raw) -> Checked:
        """See `check` and `missing_models`."""
        known_before, known = plain(olds), plain(news)
        defaults, failures = check(known_before, known)
        if not failures:
            for each in await missing_models(known_before, known):
                path = callers_path(urn.text, each.path)
                # The engine shows what stands at a property of the resource; the caller has no such property.
                failures.append(each if path == each.path else Failure("", f"{path}: {each.reason}"))
        return Checked({**news, **defaults}, failures)

    async def diff(self, state: State, news: Raw) -> Diff:
        """See `diff`; where nothing changed, looks whether the supervisor has what the state says (see `strayed`)."""
        found = diff(plain(state.inputs), plain(news))
        self._strayed[state.urn] = [] if found.properties else await strayed(state)
        if away := self._strayed[state.urn]:
            # An addition: the engine does not know the value that the supervisor has, and would show the new one twice.
            added = Difference(Change.ADD, of_input=False)
            return Diff(dict.fromkeys(away, added), found.delete_before_replace)
        if any(each.replaces for each in found.properties.values()):
            keys = {key: plain(state.outputs.get(key)) for key in KEYS}
            self._kept[state.urn] = {k: v for k, v in keys.items() if isinstance(v, str) and v != UNKNOWN}
        return found

    async def notes(self, inputs: Raw, state: State | None) -> list[str]:
        """Keys that are left out, and what an apply that was killed left at the supervisor."""
        found = keys_that_stay(plain(inputs), state)
        if state and (away := self._strayed.get(state.urn)):
            what = "no longer has it" if away == ["endpoint"] else f"has another {', '.join(away)}"
            found.append(
                Caution(f"the supervisor {what}, not what the last finished `up` declared; `up` puts it right")
            )
        return found

    def preview(self, inputs: Raw, state: State | None) -> Computed:
        """Generated keys are unknown at first and stay afterwards; the state shows when it is done."""
        outputs = {**places(inputs), "state": UNKNOWN}
        auth = pick(inputs.get("endpoint"), "spec", "auth")
        if plain(auth) in (None, UNKNOWN, AuthMode.KEY):
            found = _both_keys(inputs, state.outputs if state else {})
            outputs |= {key: secret(value or UNKNOWN) for key, value in zip(KEYS, found, strict=True)}
        return outputs

    async def create(self, operation: Operation, inputs: Raw) -> Made:
        """Declares the endpoint and waits until it is served whole."""
        target = local_target(plain(inputs)["target"])
        endpoint = _declared(operation.urn, inputs)
        async with supervisor(plain(inputs)["target"], operation, needed=True) as client:
            assert client is not None  # noqa: S101 - `needed` raises instead
            await _refuse_foreign(client, endpoint, operation.urn)
            resource_id = f"{target.state_directory}/endpoints/{endpoint.metadata.name}"
            kept = self._kept.get(operation.urn.text, {}) if endpoint.spec.auth is AuthMode.KEY else {}
            return Made(resource_id, await _deploy(client, operation, resource_id, endpoint, inputs, kept))

    async def update(self, operation: Operation, state: State, inputs: Raw) -> Computed:
        """As create; what did not change is left alone."""
        endpoint = _declared(operation.urn, inputs)
        async with supervisor(plain(inputs)["target"], operation, needed=True) as client:
            assert client is not None  # noqa: S101 - `needed` raises instead
            kept: dict[str, str] = {}
            try:
                await client.get_endpoint(endpoint.metadata.name)
            except NotFound:
                # Gone without the state's knowledge: it comes back with the keys that its callers have.
                known = {key: plain(state.outputs.get(key)) for key in KEYS}
                if endpoint.spec.auth is AuthMode.KEY:
                    kept = {key: value for key, value in known.items() if isinstance(value, str) and value != UNKNOWN}
            return await _deploy(client, operation, state.id, endpoint, inputs, kept)

    async def read(self, operation: Operation, state: State) -> State | None:
        """As it is declared at the supervisor and as it runs."""
        directory, _, name = state.id.rpartition("/endpoints/")
        client = SupervisorClient(directory)
        try:
            view = await client.get_endpoint(name)
            keys = await _keys(client, view.endpoint)
            target = plain(state.inputs.get("target")) or await _target(client, directory)
        except NotFound:
            return None
        except RuntimeUnavailable as error:
            operation.progress.warn(f"not read: {error}")
            return state
        declared = whole_numbers(without_owner(view.endpoint).to_wire())
        inputs = {**state.inputs, "target": state.inputs.get("target", target)}
        if not state.inputs or full(plain(state.inputs.get("endpoint"))) != declared:
            inputs["endpoint"] = _hidden(declared) if has_secret(state.inputs.get("endpoint")) else declared
            inputs["effectiveTraffic"] = traffic(declared)
        for key, value in keys.items():
            if key in state.inputs and plain(state.inputs[key]) != plain(value):
                inputs[key] = value
        outputs = {**inputs, **places(inputs), **keys, "state": str(view.status.state)}
        return State(state.id, inputs, outputs)

    async def delete(self, operation: Operation, state: State) -> None:
        """Takes it off the router, lets what is under way finish, stops its replicas."""
        name = state.id.rpartition("/endpoints/")[2]
        async with supervisor(plain(state.inputs)["target"], operation) as client:
            if client is None:
                return
            operation.progress.status("draining")
            try:
                view = await client.get_endpoint(name)
                if _owner(view.endpoint) in (None, operation.urn.text):
                    await client.delete_endpoint(name)
            except NotFound:
                pass
            await drop_models(None, state.id, operation)


def _declared(urn: Urn, inputs: Raw) -> ScoringEndpoint:
    """The endpoint that the inputs describe, marked with who declares it."""
    endpoint = read_endpoint(plain(inputs)["endpoint"])
    annotations = {**endpoint.metadata.annotations, OWNER: urn.text}
    return endpoint.model_copy(update={"metadata": endpoint.metadata.model_copy(update={"annotations": annotations})})


def _owner(endpoint: ScoringEndpoint) -> str | None:
    return endpoint.metadata.annotations.get(OWNER)


def _hidden(endpoint: Value) -> Value:
    """The endpoint with the variables of its versions secret: of what was found nobody knows which of them are."""
    spec = endpoint["spec"]
    versions = []
    for version in spec["versions"]:
        environment = version["environment"]
        variables = secret(environment["environmentVariables"])
        versions.append({**version, "environment": {**environment, "environmentVariables": variables}})
    return {**endpoint, "spec": {**spec, "versions": versions}}


async def _refuse_foreign(client: SupervisorClient, endpoint: ScoringEndpoint, urn: Urn) -> None:
    name = endpoint.metadata.name
    try:
        owner = _owner((await client.get_endpoint(name)).endpoint)
    except NotFound:
        return
    if owner not in (None, urn.text):
        raise ResourceFailed(
            f"{NAME_PATH}: {name!r} is already served there, declared by {owner}; take another name or destroy it"
        )


async def _deploy(
    client: SupervisorClient,
    operation: Operation,
    resource_id: str,
    endpoint: ScoringEndpoint,
    inputs: Raw,
    kept: Mapping[str, str] = MappingProxyType({}),
) -> Computed:
    """Declares and waits. From the declaration on a failure is a partial one: it is there.

    `kept`: the keys of the endpoint that this one replaces.
    """
    values = plain(inputs)
    primary, secondary = _both_keys(values, kept)
    await bring_models(endpoint, resource_id, operation)
    submission = EndpointSubmission(endpoint=endpoint, primary_key=primary, secondary_key=secondary)
    status = await client.put_endpoint(submission)
    name = endpoint.metadata.name
    outputs = {**places(inputs), **await _keys(client, endpoint)}
    timeout = operation.timeout_s or values.get("timeoutSeconds") or DEFAULT_TIMEOUT_S

    def told(now: EndpointStatus) -> None:
        operation.progress.status(summary(now))

    try:
        status = await client.wait_endpoint(name, status.generation, timeout, told)
    except (OperationFailed, RuntimeUnavailable, NotFound) as error:
        raise ResourcePartlyFailed(str(error), resource_id, {**outputs, "state": await _state(client, name)}) from None
    except asyncio.CancelledError:
        reason = f"cancelled while endpoint {name} was {await _state(client, name)}; it goes on in the background"
        raise ResourcePartlyFailed(reason, resource_id, {**outputs, "state": "Transitioning"}) from OperationCancelled()
    await drop_models(endpoint, resource_id, operation)
    return {**outputs, "state": str(status.state)}


async def _state(client: SupervisorClient, name: str) -> str:
    try:
        return str((await client.get_endpoint(name)).status.state)
    except (RuntimeUnavailable, NotFound):
        return "Unhealthy"


def _both_keys(inputs: Raw, before: Mapping[str, Any]) -> tuple[str | None, str | None]:
    (primary, old_primary), (secondary, old_secondary) = (
        (plain(inputs.get(key)) or None, plain(before.get(key))) for key in KEYS
    )
    return kept_keys(primary, secondary, (old_primary, old_secondary))


async def _keys(client: SupervisorClient, endpoint: ScoringEndpoint) -> dict[str, Any]:
    if endpoint.spec.auth is not AuthMode.KEY:
        return {}
    keys: EndpointKeys = await client.keys(endpoint.metadata.name)
    return {"primaryKey": secret(keys.primary_key), "secondaryKey": secret(keys.secondary_key)}


async def _target(client: SupervisorClient, directory: str) -> str:
    info = await client.info()
    return format_target(LocalTarget(name=info.name, state_directory=directory, port=info.port))


def summary(status: EndpointStatus) -> str:
    """One line for the display: the state with its reason, and each version's ready replicas with what holds it up."""
    reason = f" ({status.message.splitlines()[0]})" if status.message else ""
    versions = [
        f"{v.name} {v.replicas_ready}/{v.replicas_desired} ready"
        + (f" ({v.message.splitlines()[0]})" if v.message else "")
        for v in status.versions
    ]
    return ", ".join([f"{status.state}{reason}", *versions])
