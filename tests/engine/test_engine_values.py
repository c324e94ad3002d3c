"""Property values: what goes over the wire, what may be shown, what counts as equal."""

from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from embedded_engine import values
from embedded_engine.values import ARCHIVE, ASSET, OUTPUT, RESOURCE, SECRET, SIGNATURE, UNKNOWN, Wire

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=15,
)


def hidden(value: Any) -> dict[str, Any]:
    return {SIGNATURE: SECRET, "value": value}


def out(**fields: Any) -> dict[str, Any]:
    return {SIGNATURE: OUTPUT, **fields}


@given(st.dictionaries(st.text(max_size=4), PLAIN, max_size=4))
def test_structs_round_trip(properties: dict[str, Any]) -> None:
    struct = values.to_struct(properties)
    assert values.equal(values.from_struct(struct), properties)
    # The same message as the library makes.
    assert struct == json_format.ParseDict(properties, struct_pb2.Struct())


def test_integral_numbers_are_integers() -> None:
    back = values.from_struct(values.to_struct({"i": 3, "f": 3.5, "big": 1e300, "b": True}))
    assert {key: type(value).__name__ for key, value in back.items()} == {
        "i": "int",
        "f": "float",
        "big": "float",
        "b": "bool",
    }


@pytest.mark.parametrize(
    ("value", "wire", "sent"),
    [
        (hidden("s"), Wire(), hidden("s")),
        (hidden("s"), Wire(secrets=False), "s"),
        ([hidden({"a": hidden(1)})], Wire(secrets=False), [{"a": 1}]),
        ({"a": UNKNOWN, "b": 1}, Wire(unknowns=False), {"b": 1}),
        ([UNKNOWN, 1], Wire(unknowns=False), [1]),
        ({"a": hidden(UNKNOWN)}, Wire(unknowns=False), {}),
        ({SIGNATURE: ASSET, "hash": "h", "path": "p"}, Wire(), {SIGNATURE: ASSET, "hash": "h", "path": "p"}),
        ({SIGNATURE: ASSET, "hash": "h", "path": "p"}, Wire(elide_assets=True), {SIGNATURE: ASSET, "hash": "h"}),
        ({SIGNATURE: ARCHIVE, "hash": "h", "assets": {}}, Wire(elide_assets=True), {SIGNATURE: ARCHIVE, "hash": "h"}),
        ({SIGNATURE: RESOURCE, "urn": "u", "id": "i"}, Wire(resources=False), "i"),
        ({SIGNATURE: RESOURCE, "urn": "u"}, Wire(resources=False), "u"),
    ],
)
def test_what_the_other_side_does_not_know_is_plain(value: Any, wire: Wire, sent: Any) -> None:
    assert values.from_struct(values.to_struct({"v": value}, wire)) == {"v": sent}


@pytest.mark.parametrize(
    ("value", "dependencies", "sent"),
    [
        ("v", (), "v"),
        ("v", ("u",), out(value="v", dependencies=["u"])),
        (UNKNOWN, ("u",), out(dependencies=["u"])),
        (hidden("s"), (), out(value="s", secret=True)),
        (hidden(UNKNOWN), (), out(secret=True)),
        ({"deep": hidden("s")}, (), {"deep": out(value="s", secret=True)}),
        (out(value="v", dependencies=["w"]), ("u",), out(value="v", dependencies=["w"])),
    ],
)
def test_components_get_output_values(value: Any, dependencies: tuple[str, ...], sent: Any) -> None:
    assert values.as_output_values(value, dependencies) == sent


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (out(), UNKNOWN),
        (out(value=1), 1),
        (out(value=1, secret=True), hidden(1)),
        (out(secret=True), hidden(UNKNOWN)),
        ([{"a": out(value=out(value=2))}], [{"a": 2}]),
    ],
)
def test_output_values_stand_for_plain_ones(value: Any, plain: Any) -> None:
    assert values.plain_outputs(value) == plain


@given(PLAIN)
def test_nothing_secret_is_shown(value: Any) -> None:
    shown = values.redact({"a": hidden(value), "b": [hidden(value), out(value=value, secret=True)]})
    assert shown == {"a": "[secret]", "b": ["[secret]", "[secret]"]}


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (1, 1.0, True),
        (True, 1, False),
        (0, False, False),
        ([1, [True]], [1.0, [True]], True),
        ({"a": None}, {}, False),
        ({"a": hidden(1)}, {"a": 1}, False),
        ("1", 1, False),
    ],
)
def test_equality(left: Any, right: Any, same: bool) -> None:
    assert values.equal(left, right) is same
    assert values.equal(right, left) is same


def test_secrets_are_kept_for_plugins_that_know_none() -> None:
    ins = {"a": hidden(1), "b": {"x": hidden(1), "y": 1}, "c": [hidden(1)], "gone": hidden(1)}
    outs = {"a": 1, "b": {"x": 1, "y": 1}, "c": [1], "d": 1}
    assert values.annotate_secrets(outs, ins) == {
        "a": hidden(1),
        "b": {"x": hidden(1), "y": 1},
        "c": hidden([1]),
        "d": 1,
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-1, "{-1}"),
        (None, "{<nil>}"),
        ("x", "{x}"),
        (True, "{true}"),
        (UNKNOWN, "output<string>{}"),
        (hidden("s"), "[secret]"),
        ([1, "a"], "{[{1} {a}]}"),
        ({"k": hidden(1)}, "{map[k:[secret]]}"),
    ],
)
def test_values_in_messages(value: Any, text: str) -> None:
    assert values.describe(value) == text
