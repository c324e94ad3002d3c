"""EndpointKeys: the two keys of an endpoint on a cluster. They live in the stack's state; the cluster gets digests."""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from aks_inference_provider import PACKAGE
from aks_inference_provider.differences import Diff, Difference, changes
from aks_inference_provider.fields import Failure, Field, Kind, check_fields
from aks_inference_provider.resources.base import Checked, Computed, Made, Operation, Raw, State, Urn
from aks_inference_provider.wire import UNKNOWN, plain
from aks_inference_runtime.api.keys import SAME_KEYS, kept_keys, key_problem

FIRST_VERSION = 1
GENERATED_BYTES = 24
"""Of randomness in a generated key; 32 characters."""
KEYS = ("primaryKey", "secondaryKey")

INPUTS = (
    Field("primaryKey", Kind.STRING, "Optional. Default: generated.", secret=True),
    Field("secondaryKey", Kind.STRING, "Optional. Default: generated.", secret=True),
    Field(
        "keyVersion",
        Kind.INTEGER,
        "Optional. Another number makes a new primary key; the one before becomes the secondary one.",
        default=FIRST_VERSION,
    ),
)
OUTPUTS = (Field("digests", Kind.STRING, "SHA-256 hex digests of both keys, one a line.", required=True, secret=True),)
Generate = Callable[[], str]


def generate() -> str:
    """A new key."""
    return secrets.token_urlsafe(GENERATED_BYTES)


def check(news: Mapping[str, Any]) -> tuple[dict[str, Any], list[Failure]]:
    """Defaults for plain inputs, and what is wrong with them."""
    failures = check_fields(INPUTS, news)
    for key in KEYS:
        value = news.get(key)
        if isinstance(value, str) and value != UNKNOWN and (problem := key_problem(value)):
            failures.append(Failure(key, "; ".join(problem)))
    failures += same_keys(news)
    version = news.get("keyVersion")
    if isinstance(version, int | float) and version < FIRST_VERSION:
        failures.append(Failure("keyVersion", f"{version:g} is below {FIRST_VERSION}"))
    return ({"keyVersion": FIRST_VERSION} if version is None else {}), failures


def same_keys(news: Mapping[str, Any]) -> list[Failure]:
    """What is wrong with two keys that are each well."""
    primary, secondary = (news.get(key) for key in KEYS)
    same = isinstance(secondary, str) and secondary == primary != UNKNOWN
    return [Failure("secondaryKey", "; ".join(SAME_KEYS))] if same else []


def keys(inputs: Mapping[str, Any], before: Mapping[str, Any], new: Generate) -> dict[str, str]:
    """Both keys, from plain inputs and the plain outputs before (none: empty).

    A key that was generated stays until `keyVersion` changes: then the primary one becomes the secondary one, so that
    both the old and the new one are good while clients change over.
    """
    old_primary, old_secondary = (before.get(key) for key in KEYS)
    rotates = bool(before) and before.get("keyVersion", FIRST_VERSION) != inputs.get("keyVersion", FIRST_VERSION)
    given = (inputs.get("primaryKey") or None, inputs.get("secondaryKey") or None)
    primary, secondary = kept_keys(*given, (None, old_primary) if rotates else (old_primary, old_secondary))
    return {"primaryKey": primary or new(), "secondaryKey": secondary or new()}


def digests(both: Mapping[str, str]) -> str:
    """As the cluster gets them, in an order that says nothing."""
    return "\n".join(sorted(hashlib.sha256(key.encode()).hexdigest() for key in both.values()))


class EndpointKeys:
    """The keys, as a resource."""

    token = f"{PACKAGE}:index:EndpointKeys"
    description = "The two keys of an endpoint on a Kubernetes cluster."
    inputs = INPUTS
    outputs = OUTPUTS

    async def check(self, urn: Urn, olds: Raw, news: Raw) -> Checked:
        """See `check`."""
        defaults, failures = check(plain(news))
        return Checked({**news, **defaults}, failures)

    async def diff(self, state: State, news: Raw) -> Diff:
        """A key that is left out again stays."""
        olds, given = plain(state.inputs), plain(news)
        found = {path: Difference(change) for path, change in changes(olds, given).items()}
        return Diff({path: each for path, each in found.items() if path == "keyVersion" or given.get(path) is not None})

    def preview(self, inputs: Raw, state: State | None) -> Computed:
        """What is known of the keys."""
        given = plain(inputs)
        if any(given.get(key) == UNKNOWN for key in KEYS):
            return dict.fromkeys((*KEYS, "digests"), UNKNOWN)
        found = keys(given, plain(state.outputs) if state else {}, lambda: UNKNOWN)
        return {**found, "digests": UNKNOWN if UNKNOWN in found.values() else digests(found)}

    async def create(self, operation: Operation, inputs: Raw) -> Made:
        """Generates what was not given."""
        found = keys(plain(inputs), {}, generate)
        return Made(operation.urn.name, {**found, "digests": digests(found)})

    async def update(self, operation: Operation, state: State, inputs: Raw) -> Computed:
        """See `keys`."""
        found = keys(plain(inputs), plain(state.outputs), generate)
        return {**found, "digests": digests(found)}

    async def read(self, operation: Operation, state: State) -> State | None:
        """They are nowhere but in the state."""
        return state if state.outputs else None

    async def delete(self, operation: Operation, state: State) -> None:
        """Forgotten with the state."""
