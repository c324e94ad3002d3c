"""The pure parts of the provider: values on the wire, types, differences, URNs."""

import socket
from typing import Any

import pytest
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from aks_inference_provider import wire
from aks_inference_provider.differences import Change, Diff, Difference, changes, top, without_ignored
from aks_inference_provider.fields import Failure, Field, Kind, check_fields, check_type, did_you_mean
from aks_inference_provider.resources.base import Urn
from aks_inference_provider.resources.endpoint_rules import check_endpoint, traffic
from aks_inference_provider.resources.local_endpoint import diff as endpoint_diff
from aks_inference_provider.resources.local_endpoint import summary
from aks_inference_provider.resources.local_runtime import LocalRuntime
from aks_inference_provider.resources.targets import check_target, same_target
from aks_inference_runtime.api.status import EndpointStatus, ServiceState, VersionStatus
from aks_inference_runtime.api.target import KubernetesTarget, LocalTarget, format_target

LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53).map(float) | st.text(max_size=8)
PLAIN = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))
OBJECTS = st.dictionaries(st.text(min_size=1, max_size=4), PLAIN, max_size=4)


def without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_null(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        kept = [without_null(each) for each in value]
        while kept and kept[-1] is None:
            kept.pop()
        return kept
    return value


@given(OBJECTS)
def test_values_survive_the_way_there_and_back(value: dict[str, Any]) -> None:
    assert wire.to_raw(wire.to_struct(value)) == value


@given(OBJECTS)
def test_nothing_differs_from_itself(value: dict[str, Any]) -> None:
    assert changes(value, value) == {}


@given(OBJECTS, OBJECTS)
def test_differences_are_found_both_ways(old: dict[str, Any], new: dict[str, Any]) -> None:
    forth, back = changes(old, new), changes(new, old)
    mirror = {Change.ADD: Change.DELETE, Change.DELETE: Change.ADD, Change.UPDATE: Change.UPDATE}
    assert {path: mirror[change] for path, change in forth.items()} == back
    assert bool(forth) == (without_null(old) != without_null(new))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1}, {"a": 2}, {"a": "UPDATE"}),
        ({"a": None}, {}, {}),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c.d": 2}}, {'a["c.d"]': "ADD"}),
        ({"a": [1, 2]}, {"a": [1]}, {"a[1]": "DELETE"}),
        ({"a": [1]}, {"a": {"0": 1}}, {"a": "UPDATE"}),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}, {}]}, {"a[0].b": "UPDATE", "a[1]": "ADD"}),
        ({'say "a"': 1}, {}, {'["say \\"a\\""]': "DELETE"}),
    ],
)
def test_paths(old: Any, new: Any, expected: dict[str, str]) -> None:
    assert changes(old, new) == expected


@pytest.mark.parametrize(("path", "name"), [("a", "a"), ("a.b[0]", "a"), ("a[0].b", "a"), ('a["x.y"]', "a")])
def test_top(path: str, name: str) -> None:
    assert top(path) == name


@pytest.mark.parametrize(
    ("ignored", "left"),
    [
        ([], {"a.b", "a.bc", "d[0]"}),
        (["a.b"], {"a.bc", "d[0]"}),
        (["a", "d"], set()),
        (["d"], {"a.b", "a.bc"}),
        (["*"], set()),
    ],
)
def test_ignored(ignored: list[str], left: set[str]) -> None:
    each = Difference(Change.UPDATE)
    assert set(without_ignored(Diff({"a.b": each, "a.bc": each, "d[0]": each}), ignored).properties) == left


def test_output_values_become_secrets_and_unknowns() -> None:
    def output(**shape: Any) -> dict[str, Any]:
        return {wire.SIGNATURE: wire.OUTPUT, **shape}

    given_values = {
        "known": output(value="v"),
        "unknown": output(),
        "secret": output(value=output(value="v"), secret=True),
        "secret unknown": output(secret=True),
        "list": [output(value=1.0), {"inner": output()}],
    }
    assert wire.to_raw(wire.to_struct(given_values)) == {
        "known": "v",
        "unknown": wire.UNKNOWN,
        "secret": wire.secret("v"),
        "secret unknown": wire.secret(wire.UNKNOWN),
        "list": [1.0, {"inner": wire.UNKNOWN}],
    }


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["a", "b"], "ab"),
        (["a", wire.UNKNOWN], wire.UNKNOWN),
        ([wire.secret("a"), "b"], wire.secret("ab")),
        ([wire.secret(wire.UNKNOWN), "b"], wire.secret(wire.UNKNOWN)),
    ],
)
def test_derive(sources: list[Any], expected: Any) -> None:
    assert wire.derive(lambda a, b: a + b, *sources) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": {"b": 1}}, 1),
        ({"a": {}}, None),
        ({}, None),
        ({"a": wire.UNKNOWN}, wire.UNKNOWN),
        (wire.UNKNOWN, wire.UNKNOWN),
        ({"a": wire.secret({"b": 1})}, wire.secret(1)),
        (wire.secret({"a": wire.UNKNOWN}), wire.secret(wire.UNKNOWN)),
        ({"a": "text"}, None),
    ],
)
def test_pick(value: Any, expected: Any) -> None:
    assert wire.pick(value, "a", "b") == expected


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("targt", "unknown property; did you mean 'target'?"),
        ("primary_key", "unknown property; did you mean 'primaryKey'?"),
        ("TARGET", "unknown property; did you mean 'target'?"),
        ("zzz", "unknown property; expected one of primaryKey, target"),
    ],
)
def test_did_you_mean(name: str, sentence: str) -> None:
    assert did_you_mean(name, ["target", "primaryKey"]) == sentence


@pytest.mark.parametrize(
    ("kind", "value", "failures"),
    [
        (Kind.STRING, "x", []),
        (Kind.STRING, 1.0, ["p: must be a string, not 1"]),
        (Kind.INTEGER, 3.0, []),
        (Kind.INTEGER, 2.5, ["p: must be an integer, not 2.5"]),
        (Kind.INTEGER, True, ["p: must be an integer, not true"]),
        (Kind.NUMBER, False, ["p: must be a number, not false"]),
        (Kind.BOOLEAN, "true", ["p: must be a boolean, not a string"]),
        (Kind.STRINGS, ["a", 1.0, None], ["p[1]: must be a string, not 1", "p[2]: must be a string, not null"]),
        (Kind.STRINGS, {"a": "b"}, ["p: must be an array of strings, not an object"]),
        (Kind.STRING_MAP, {"a": [], "b": "c"}, ["p.a: must be a string, not an array"]),
        (Kind.NUMBER_MAP, {"a": wire.UNKNOWN}, []),
        (Kind.OBJECT, [], ["p: must be an object, not an array"]),
        *((kind, wire.UNKNOWN, []) for kind in Kind),
    ],
)
def test_types(kind: Kind, value: Any, failures: list[str]) -> None:
    assert [f"{f.path}: {f.reason}" for f in check_type("p", kind, value)] == failures


def test_a_text_in_a_wrong_place_is_not_shown() -> None:
    assert check_fields([Field("port", Kind.INTEGER, "")], {"port": "hunter2"}) == [
        Failure("port", "must be an integer, not a string")
    ]


def test_what_the_engine_adds_is_no_unknown_property() -> None:
    assert check_fields([], {"__defaults": []}) == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("urn:pulumi:dev::proj::a:b:C$x:y:Z::name", ("dev", "proj", "x:y:Z", "name")),
        ("urn:pulumi:dev::proj::x:y:Z::na::me", ("dev", "proj", "x:y:Z", "na::me")),
        ("nonsense", ("", "", "", "nonsense")),
    ],
)
def test_urn(text: str, parts: tuple[str, ...]) -> None:
    assert Urn.parse(text)[1:] == parts


def test_targets() -> None:
    local = format_target(LocalTarget(name="l", state_directory="/s"))
    assert check_target(local) == check_target(wire.UNKNOWN) == check_target(None) == []
    assert "needs a LocalInferenceCluster" in check_target(format_target(KubernetesTarget(name="k")))[0].reason
    assert same_target(local, local.replace(" ", "   "))
    assert not same_target(local, wire.UNKNOWN)


def shape(*versions: dict[str, Any], port: int | None = None) -> dict[str, Any]:
    code = {"entryScript": "s.py", "digest": "sha256:0"}
    spec: dict[str, Any] = {"versions": [{"code": code, **each} for each in versions]}
    return {"metadata": {"name": "svc"}, "spec": spec | ({"port": port} if port else {})}


def test_two_unknown_names_are_not_the_same_name() -> None:
    two = shape({"name": wire.UNKNOWN, "isDefault": True}, {"name": wire.UNKNOWN})
    assert check_endpoint(two) == []
    assert traffic(two) is None


def test_a_rule_over_something_unknown_waits() -> None:
    assert check_endpoint(shape({"name": "a", "isDefault": wire.UNKNOWN})) == []
    found = check_endpoint(shape({"name": "a", "isDefault": False}))
    assert [f.reason for f in found] == ["exactly one version must be the default"]


@pytest.mark.parametrize(
    ("old", "new", "delete_first"),
    [
        ({"target": "s", "port": None}, {"target": "t", "port": None}, False),
        ({"target": "s", "port": 80}, {"target": "t", "port": 80}, True),
        ({"target": "s", "port": 80}, {"target": "t", "port": 81}, False),
        ({"target": "s", "port": None}, {"target": "s", "port": None}, True),
    ],
)
def test_a_replacement_must_not_fight_with_the_old_one(
    old: dict[str, Any], new: dict[str, Any], delete_first: bool
) -> None:
    values = [
        {
            "target": format_target(LocalTarget(name="l", state_directory=f"/{each['target']}")),
            "endpoint": shape({"name": "a"}, port=each["port"]),
        }
        for each in (old, new)
    ]
    assert endpoint_diff(*values).delete_before_replace is delete_first


def test_the_summary_is_one_line() -> None:
    version = VersionStatus(
        name="b", state=ServiceState.FAILED, replicas_desired=2, replicas_ready=1, message="init failed\nTraceback"
    )
    status = EndpointStatus(name="svc", state=ServiceState.TRANSITIONING, generation=1, versions=(version,))
    assert summary(status) == "Transitioning, b 1/2 ready (init failed)"
    full = status.model_copy(update={"message": "the disk is full\nmore"})
    assert summary(full) == "Transitioning (the disk is full), b 1/2 ready (init failed)"


def test_a_struct_without_values_is_an_empty_object() -> None:
    assert wire.to_raw(struct_pb2.Struct()) == {}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"sourceDirectory": "/elsewhere/source"}, []),
        ({"sourceDirectory": "/elsewhere/other"}, ["endpoint.spec.versions[0].code.sourceDirectory"]),
        ({"entryScript": "other.py"}, ["endpoint.spec.versions[0].code.entryScript"]),
        (
            {"sourceDirectory": "/elsewhere/source", "digest": "sha256:" + "1" * 64},
            ["endpoint.spec.versions[0].code.digest", "endpoint.spec.versions[0].code.sourceDirectory"],
        ),
    ],
)
def test_code_that_only_moved_is_no_change(change: dict[str, str], found: list[str]) -> None:
    code = {"sourceDirectory": "/checkout/source", "entryScript": "score.py", "digest": "sha256:" + "0" * 64}

    def inputs(code: dict[str, str]) -> dict[str, Any]:
        return {"endpoint": {"metadata": {"name": "svc"}, "spec": {"versions": [{"name": "a", "code": code}]}}}

    assert sorted(endpoint_diff(inputs(code), inputs({**code, **change})).properties) == found


async def test_a_default_folder_that_no_cluster_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null")
    urn = Urn.parse("urn:pulumi:dev::proj::aks-inference:index:LocalRuntime::local")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        news = {"name": "local", "port": float(free.getsockname()[1])}
    (failure,) = (await LocalRuntime().check(urn, {}, news)).failures
    assert failure.path == "stateDirectory"
    assert "cannot be made: /dev/null is not a folder; give another folder" in str(failure)
