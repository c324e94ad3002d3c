"""The state's way through memory and disk: nothing is lost, added or changed."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded_engine.backend import Serializer, integrity_problems
from embedded_engine.backend.checkpoint import parse_checkpoint
from embedded_engine.model import ModelError, Operation, OperationKind, Resource, Snapshot, urn_name, urn_type
from embedded_engine.secrets import Crypter, StateCipher, show_secrets
from embedded_engine.values import SECRET, SIGNATURE, equal
from embedded_engine.wirejson import dumps, plain_numbers

URNS = st.sampled_from([f"urn:pulumi:dev::tested::a:b:C::{name}" for name in ("one", "two", "three", "ü::x")])
NAMES = st.text(min_size=1, max_size=8)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def secret(value: Any) -> dict[str, Any]:
    return {SIGNATURE: SECRET, "value": value}


VALUES = st.recursive(
    PLAIN | PLAIN.map(secret),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3) | inner.map(secret),
    max_leaves=8,
)
PROPERTIES = st.dictionaries(NAMES, VALUES, max_size=4)
STRINGS = st.lists(st.text(max_size=5), max_size=3).map(tuple)
RESOURCES = st.builds(
    Resource,
    urn=URNS,
    type=st.just("a:b:C"),
    custom=st.booleans(),
    delete=st.booleans(),
    id=st.text(max_size=5),
    inputs=PROPERTIES,
    outputs=PROPERTIES,
    protect=st.booleans(),
    external=st.booleans(),
    dependencies=st.lists(URNS, max_size=2).map(tuple),
    init_errors=STRINGS,
    property_dependencies=st.dictionaries(NAMES, st.lists(URNS, max_size=2), max_size=2),
    pending_replacement=st.booleans(),
    additional_secret_outputs=STRINGS,
    custom_timeouts=st.dictionaries(st.sampled_from(["create", "update", "delete"]), st.integers(1, 9000)),
    import_id=st.text(max_size=5),
    retain_on_delete=st.booleans(),
    deleted_with=st.just("") | URNS,
    created=st.just("") | st.just("2026-01-01T00:00:00Z"),
    ignore_changes=STRINGS,
    replace_on_changes=STRINGS,
    refresh_before_update=st.booleans(),
    extra=st.just({}) | st.just({"somethingNew": {"x": [1]}}),
)
SNAPSHOTS = st.builds(
    Snapshot,
    resources=st.lists(RESOURCES, max_size=4).map(tuple),
    operations=st.lists(st.builds(Operation, RESOURCES, st.sampled_from(OperationKind)), max_size=2).map(tuple),
    manifest=st.just({"time": "t"}),
    metadata=st.just({}),
    secrets_providers=st.none() | st.just({"type": "passphrase", "state": {"salt": "v1:x"}}),
    extra=st.just({}) | st.just({"later": 1}),
)
CRYPTER = Crypter(b"k" * 32)


@settings(max_examples=60, deadline=None)
@given(SNAPSHOTS)
def test_a_snapshot_survives_the_checkpoint_file(snapshot: Snapshot) -> None:
    cipher = StateCipher(lambda: CRYPTER)
    text = Serializer(cipher.encode)("organization/tested/dev", snapshot)
    checkpoint = parse_checkpoint(text, Path("x"))
    assert checkpoint.stack == "organization/tested/dev"
    assert checkpoint.deployment is not None
    again = Snapshot.from_deployment(checkpoint.deployment, StateCipher(lambda: CRYPTER).decode)
    assert equal(again.to_deployment(), plain_numbers(snapshot.to_deployment()))


@settings(max_examples=60, deadline=None)
@given(SNAPSHOTS)
def test_an_export_that_shows_secrets_can_be_read_back(snapshot: Snapshot) -> None:
    exported = json.loads(dumps(snapshot.to_deployment(show_secrets)))
    again = Snapshot.from_deployment(exported, StateCipher(lambda: CRYPTER).decode)
    assert equal(again.to_deployment(), plain_numbers(snapshot.to_deployment()))


@settings(max_examples=40, deadline=None)
@given(PROPERTIES)
def test_unchanged_secrets_keep_their_ciphertexts(properties: dict[str, Any]) -> None:
    wire = Resource(urn="u", type="t", custom=True, inputs=properties, outputs=properties).to_wire()
    stored = json.loads(dumps(StateCipher(lambda: CRYPTER).encode(wire)))
    reader = StateCipher(lambda: CRYPTER)
    assert json.loads(dumps(reader.encode(reader.decode(stored)))) == stored


def test_no_plain_secret_reaches_the_file() -> None:
    inputs = {"a": secret("hunter2"), "b": [{"c": secret({"d": secret("hunter2")})}]}
    resource = Resource(urn="u", type="t", custom=True, inputs=inputs, outputs={"x": secret("hunter2")})
    snapshot = Snapshot((resource,), (Operation(resource, OperationKind.UPDATING),))
    text = Serializer(StateCipher(lambda: CRYPTER).encode)("s", snapshot).decode()
    assert "hunter2" not in text
    assert text.count('"ciphertext"') == 6


def test_an_unchanged_resource_is_turned_into_text_once() -> None:
    calls: list[str] = []

    def encode(wire: dict[str, Any]) -> dict[str, Any]:
        calls.append(wire["urn"])
        return wire

    serializer = Serializer(encode)
    first, second = (Resource(urn=f"urn:{n}", type="t", custom=True) for n in (1, 2))
    serializer("s", Snapshot((first,)))
    serializer("s", Snapshot((first, second), (Operation(second, OperationKind.CREATING),)))
    assert calls == ["urn:1", "urn:2"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (-0.5, "-0.5"),
        (1e15, "1000000000000000"),
        (1e30, "1e+30"),
        ("<ü>", '"<ü>"'),
        ({"b": [2.0], "a": None}, '{"b":[2],"a":null}'),
        (True, "true"),
    ],
)
def test_numbers_are_written_as_the_cli_does(value: Any, text: str) -> None:
    assert dumps(value) == text


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_json_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dumps({"x": value})


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        ({"type": "t", "custom": True}, "resource (without a urn): `urn` is missing"),
        ({"urn": "u", "type": "t"}, "resource u: `custom` is missing"),
        ({"urn": "u", "type": "t", "custom": "yes"}, "resource u: `custom` must be true or false, not str"),
        ({"urn": "u", "type": "t", "custom": True, "inputs": []}, "resource u: `inputs` must be an object, not list"),
        ({"urn": "u", "type": "t", "custom": True, "dependencies": "x"}, "resource u: `dependencies` must be a list"),
        ({"urn": "u", "type": "t", "custom": True, "dependencies": [[]]}, "an entry of dependencies` must be a string"),
        ({"urn": "u", "type": "t", "custom": True, "propertyDependencies": {"a": 5}}, "resource u: `a` must be a list"),
    ],
)
def test_a_damaged_resource_is_named(wire: dict[str, Any], text: str) -> None:
    with pytest.raises(ModelError) as raised:
        Snapshot.from_deployment({"resources": [wire]})
    assert text in str(raised.value)


def test_property_dependencies_that_the_cli_wrote_as_null_are_none() -> None:
    wire = {"urn": "u", "type": "t", "custom": True, "propertyDependencies": {"a": None, "b": ["urn:b"]}}
    (found,) = Snapshot.from_deployment({"resources": [wire]}).resources
    assert found.property_dependencies == {"a": [], "b": ["urn:b"]}


def test_an_unknown_pending_operation_is_refused() -> None:
    resource = {"urn": "u", "type": "t", "custom": True}
    with pytest.raises(ModelError, match="unknown kind 'dancing'"):
        Snapshot.from_deployment({"pending_operations": [{"resource": resource, "type": "dancing"}]})


def test_urns_are_taken_apart() -> None:
    urn = "urn:pulumi:dev::tested::my:app:App$kubernetes:apps/v1:Deployment::web::1"
    assert urn_type(urn) == "kubernetes:apps/v1:Deployment"
    assert urn_name(urn) == "web::1"


def resource(name: str, **fields: Any) -> Resource:
    return Resource(**{"urn": f"urn:{name}", "type": "t", "custom": True, **fields})


PROVIDER = resource("p", type="pulumi:providers:p", id="1")


@pytest.mark.parametrize(
    ("resources", "problem"),
    [
        ([resource("a"), resource("a")], "urn:a stands there twice"),
        ([resource("a", parent="urn:b"), resource("b")], "urn:a is a child of urn:b, which does not stand before it"),
        ([resource("a", dependencies=("urn:b",))], "urn:a depends on urn:b, which does not stand before it"),
        ([resource("a", property_dependencies={"x": ["urn:b"]})], "urn:a depends on urn:b"),
        ([resource("a", deleted_with="urn:b")], "urn:a depends on urn:b"),
        ([resource("a", provider="urn:p::1"), PROVIDER], "uses the provider urn:p::1"),
        ([PROVIDER, resource("a", provider="urn:p::2")], "uses the provider urn:p::2"),
        ([PROVIDER, resource("a", provider="urn:p::1"), resource("a", delete=True)], None),
    ],
)
def test_a_state_that_cannot_be_worked_with_is_noticed(resources: list[Resource], problem: str | None) -> None:
    found = integrity_problems(Snapshot(tuple(resources)))
    assert (problem is None and not found) or any(problem in text for text in found if problem)
