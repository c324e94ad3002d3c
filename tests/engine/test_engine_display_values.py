"""How one value, one path, one change is written."""

from typing import Any

import pytest
from engine_resources import APP, DISK, SERVER, resource, secret, step

from embedded_engine.display.diff import changes_of, path_text
from embedded_engine.display.tree import seconds
from embedded_engine.display.values import block, one_line
from embedded_engine.display.words import short_type
from embedded_engine.events import (
    PropertyDiff,
)
from embedded_engine.values import ASSET, OUTPUT, SIGNATURE, UNKNOWN


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\n\x1b[31m\x7f", '"a\\n\\u001b[31m\\u007f"'),
        (3.0, "3"),
        (0.25, "0.25"),
        (None, "null"),
        ({}, "{}"),
        ([], "[]"),
        ({"b": [1, "x"], "a": secret(1)}, '{a: [secret], b: [1, "x"]}'),
        (UNKNOWN, "output<string>"),
        ("1c4a061d-8072-4f0a-a4cb-0ff528b18fe7", "output<bool>"),
        ({SIGNATURE: OUTPUT}, "output<string>"),
        ({SIGNATURE: OUTPUT, "value": 5}, "5"),
        ({SIGNATURE: OUTPUT, "value": 5, "secret": True}, "[secret]"),
        ({SIGNATURE: ASSET, "path": "a.txt", "hash": "0123456789"}, "asset(path a.txt, 0123456)"),
    ],
)
def test_values(value: Any, text: str) -> None:
    assert one_line(value) == text
    assert one_line([value] * 40, 30) == ("[" + ", ".join([text] * 40))[:29] + "…"


def test_a_value_over_several_lines() -> None:
    value = {"list": [1, {"x": secret(1)}], "n": 1}
    lines = ["{", "    list: [", "        [0]: 1", "        [1]: {", "            x: [secret]", "        }", "    ]"]
    assert block(value, "  ") == "\n  ".join([*lines, "    n   : 1", "}"])


@pytest.mark.parametrize(
    ("path", "text"), [(["a", "b", 0, "c"], "a.b[0].c"), (["a b"], "a b"), (["a.b", 1], '["a.b"][1]'), ([""], '[""]')]
)
def test_path_texts(path: list[str | int], text: str) -> None:
    assert path_text(path) == text


def server_change(old: dict[str, Any], new: dict[str, Any], **fields: Any) -> list[tuple[str, str, Any, Any, bool]]:
    before, after = resource(DISK, inputs=old, outputs={"computed": "c", **old}), resource(DISK, inputs=new)
    return [(c.place, c.kind, c.old, c.new, c.replaces) for c in changes_of(step("update", before, after, **fields))]


@pytest.mark.parametrize(
    ("old", "new", "fields", "changes"),
    [
        ({"a": 1}, {"a": 1.0}, {}, []),
        ({"a": 1}, {"a": True}, {}, [("a", "update", 1, True, False)]),
        (
            {"a": {"b": [1, 2]}},
            {"a": {"b": [1, 3, 4]}},
            {},
            [("a.b[1]", "update", 2, 3, False), ("a.b[2]", "add", None, 4, False)],
        ),
        ({"a": 1, "b": 1}, {"a": 2}, {"diffs": ["a"]}, [("a", "update", 1, 2, False)]),
        ({"a": 1}, {}, {"keys": ["a"]}, [("a", "delete", 1, None, True)]),
        ({"a": secret(1)}, {"a": secret(1)}, {}, []),
        (
            {"a": secret({"b": 1})},
            {"a": secret({"b": 2})},
            {},
            [("a", "update", secret({"b": 1}), secret({"b": 2}), False)],
        ),
        # A provider that says what changed is believed, also where the inputs are the same.
        (
            {"a": 1},
            {"a": 1},
            {"detailed_diff": {"computed": PropertyDiff("update")}},
            [("computed", "update", "c", None, False)],
        ),
        (
            {"a": 1, "b": 1},
            {"a": 2, "b": 2},
            {"detailed_diff": {"a": PropertyDiff("update")}},
            [("a", "update", 1, 2, False)],
        ),
        (
            {"a": secret({"b": 1})},
            {"a": secret({"b": 2})},
            {"detailed_diff": {"a.b": PropertyDiff("update")}},
            [("a.b", "update", secret(1), secret(2), False)],
        ),
        (
            {},
            {},
            {"detailed_diff": {"no[path": PropertyDiff("add-replace")}},
            [('["no[path"]', "add", None, None, True)],
        ),
    ],
)
def test_changes(old: dict[str, Any], new: dict[str, Any], fields: dict[str, Any], changes: list[Any]) -> None:
    assert server_change(old, new, **fields) == changes


@pytest.mark.parametrize(
    ("urn", "text"),
    [
        (SERVER, "cloud:compute:Server"),
        (APP, "my:app:App"),
        ("urn:pulumi:d::p::kubernetes:apps/v1:Deployment::x", "kubernetes:apps/v1:Deployment"),
    ],
)
def test_types_are_short(urn: str, text: str) -> None:
    assert short_type(urn) == text


@pytest.mark.parametrize(("duration", "text"), [(0.004, "0.00s"), (9.5, "9.50s"), (59.6, "1m0s"), (3601, "60m1s")])
def test_durations(duration: float, text: str) -> None:
    assert seconds(duration) == text
