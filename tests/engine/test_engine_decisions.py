"""The pure decisions of a run, as tables: paths, comparisons, identities, order."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded_engine import values
from embedded_engine.deploy import paths
from embedded_engine.deploy.cells import make_urn
from embedded_engine.deploy.decisions import Decision, decide, is_import, replace_on_changes
from embedded_engine.deploy.goals import Alias, former_urns, seconds
from embedded_engine.deploy.targets import Targets
from embedded_engine.errors import EngineError
from embedded_engine.events import PropertyDiff
from embedded_engine.model import Resource
from embedded_engine.plugins.answers import Diff

STACK = "urn:pulumi:dev::p::pulumi:pulumi:Stack::p-dev"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text('ab.["$', max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab.[]" $', min_size=1, max_size=3), inner),
    max_leaves=12,
)


def resource(**fields: Any) -> Resource:
    return Resource(**{"urn": "u", "type": "t:t:T", "custom": True, **fields})


# -- paths


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a", ("a",)),
        ("a.b", ("a", "b")),
        ("a[0].b", ("a", 0, "b")),
        ("a[-1]", ("a", -1)),
        ('a["b.c"][2]', ("a", "b.c", 2)),
        ('["x\\"y"]', ('x"y',)),
        ("a[*].b", ("a", "*", "b")),
        ("*", ("*",)),
    ],
)
def test_paths_are_read(text: str, path: paths.Path) -> None:
    assert paths.parse(text) == path


@pytest.mark.parametrize("text", ["a.", "a[", 'a["b', "a[x]"])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(paths.PathError, match="property path"):
        paths.parse(text)


@pytest.mark.parametrize(
    ("pattern", "path", "inside"),
    [
        ("a", "a", True),
        ("a", "a.b[0]", True),
        ("a.b", "a", False),
        ("a.b", "a.c", False),
        ("*", "anything.at.all", True),
        ("a[*].x", "a[3].x", True),
        ("a[*].x", "a[3].y", False),
    ],
)
def test_a_path_lies_in_another(pattern: str, path: str, inside: bool) -> None:
    assert paths.contains(paths.parse(pattern), paths.parse(path)) is inside


@pytest.mark.parametrize(
    ("old", "new", "ignored", "result", "impossible"),
    [
        ({"a": 1}, {"a": 2}, ["a"], {"a": 1}, []),
        ({"a": 1}, {}, ["a"], {"a": 1}, []),
        ({}, {"a": 2}, ["a"], {}, []),
        ({"a": {"x": 1, "y": 1}}, {"a": {"x": 2, "y": 2}}, ["a.x"], {"a": {"x": 1, "y": 2}}, []),
        ({"a": {"x": 1}}, {"b": 1}, ["a.x"], {"b": 1}, ["a.x"]),
        ({"b": 1}, {"b": 2}, ["a.x"], {"b": 2}, []),
        ({"l": [1, 2, 3]}, {"l": [7, 8, 9]}, ["l[1]"], {"l": [7, 2, 9]}, []),
        ({"l": [1]}, {"l": [1, 2]}, ["l[1]"], {"l": [1, 2]}, ["l[1]"]),
        ({"l": [1, 2]}, {"l": [3, 4]}, ["l[*]"], {"l": [1, 2]}, []),
        ({"l": [1, 2]}, {"l": [3]}, ["l[*]"], {"l": [3]}, ["l[*]"]),
        ({"a": 1, "b": 1}, {"b": 2, "c": 2}, ["*"], {"a": 1, "b": 1}, []),
        ({"l": [{"x": 1}]}, {"l": [{"x": 2, "y": 2}]}, ["l[*].x"], {"l": [{"x": 1, "y": 2}]}, []),
    ],
)
def test_ignored_inputs_keep_their_old_value(
    old: Any, new: Any, ignored: list[str], result: Any, impossible: list[str]
) -> None:
    given_new = dict(new)
    assert paths.ignore_changes(new, old, ignored) == (result, impossible)
    assert new == given_new


@given(st.dictionaries(st.text("ab", min_size=1, max_size=2), JSON), st.dictionaries(st.text("ab", min_size=1), JSON))
def test_differences_name_what_differs(old: dict[str, Any], new: dict[str, Any]) -> None:
    found = paths.differences(old, new)
    assert bool(found) is not values.equal(old, new)
    for text, diff in found.items():
        path = paths.parse(text)
        in_old, in_new = paths.lookup(path, old), paths.lookup(path, new)
        assert (in_old[0], in_new[0]) == {"add": (False, True), "delete": (True, False), "update": (True, True)}[
            diff.kind
        ]
        assert diff.kind != "update" or not values.equal(in_old[1], in_new[1])
    assert {key for key in old.keys() | new.keys() if not values.equal(old.get(key, ...), new.get(key, ...))} == set(
        paths.top_keys(found)
    )


@given(st.dictionaries(st.text("ab", min_size=1, max_size=2), JSON), st.dictionaries(st.text("ab", min_size=1), JSON))
def test_ignoring_everything_leaves_the_old(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert paths.ignore_changes(new, old, ["*"]) == (old, [])


# -- decisions

SOME = Diff(True, diffs=("a",))
REPLACE = Diff(True, replaces=("a",), diffs=("a",))
DETAILED = Diff(True, diffs=("a",), detailed={"a.x": PropertyDiff("update-replace", True)})


@pytest.mark.parametrize(
    ("diff", "old", "wanted", "decision"),
    [
        (Diff(False), resource(), None, Decision("same")),
        (SOME, resource(), None, Decision("update")),
        (Diff(False), resource(init_errors=("sick",)), None, Decision("update")),
        (REPLACE, resource(), None, Decision("replace")),
        (DETAILED, resource(), None, Decision("replace")),
        (Diff(False), resource(pending_replacement=True), None, Decision("replace")),
        (Diff(True, ("a",), delete_before_replace=True), resource(), None, Decision("replace", True)),
        (Diff(True, ("a",), delete_before_replace=True), resource(), False, Decision("replace", False)),
        (REPLACE, resource(), True, Decision("replace", True)),
    ],
)
def test_a_comparison_decides(diff: Diff, old: Resource, wanted: bool | None, decision: Decision) -> None:
    assert decide(diff, old, wanted) == decision


@pytest.mark.parametrize(
    ("patterns", "replaces", "kinds"),
    [
        ([], (), {"a.x": "update", "b": "add"}),
        (["a"], ("a",), {"a.x": "update-replace", "b": "add"}),
        (["a.x"], (), {"a.x": "update-replace", "b": "add"}),
        (["*"], ("a", "b"), {"a.x": "update-replace", "b": "add-replace"}),
        (["c"], (), {"a.x": "update", "b": "add"}),
    ],
)
def test_changes_become_replacements_if_asked(
    patterns: list[str], replaces: tuple[str, ...], kinds: dict[str, str]
) -> None:
    detailed = {"a.x": PropertyDiff("update", True), "b": PropertyDiff("add", True)}
    found = replace_on_changes(Diff(True, diffs=("a", "b"), detailed=detailed), patterns, init_errors=False)
    assert found.replaces == replaces
    assert {path: entry.kind for path, entry in (found.detailed or {}).items()} == kinds
    assert found.replace is any(kind.endswith("-replace") for kind in kinds.values())


def test_one_that_was_never_well_is_replaced_if_asked() -> None:
    assert replace_on_changes(Diff(False), ["#initerror"], init_errors=True).replace
    assert not replace_on_changes(Diff(False), ["#initerror"], init_errors=False).replace


@pytest.mark.parametrize(
    ("wanted", "custom", "old", "expected"),
    [
        ("", True, None, False),
        ("x", True, None, True),
        ("x", False, None, False),
        ("x", True, resource(id="x"), False),
        ("x", True, resource(id="y"), True),
        ("x", True, resource(id="y", import_id="x"), False),
        ("x", True, resource(id="x", external=True), True),
    ],
)
def test_a_resource_is_imported_once(wanted: str, custom: bool, old: Resource | None, expected: bool) -> None:
    assert is_import(wanted, custom, old) is expected


# -- names


def test_urns_have_the_types_of_their_parents() -> None:
    box = make_urn("dev", "p", STACK, "m:i:Box", "box")
    assert box == "urn:pulumi:dev::p::m:i:Box::box"
    assert make_urn("dev", "p", box, "m:i:Item", "a") == "urn:pulumi:dev::p::m:i:Box$m:i:Item::a"
    assert make_urn("dev", "p", "", "m:i:Item", "a") == "urn:pulumi:dev::p::m:i:Item::a"


BOX, OLD_BOX = "urn:pulumi:dev::p::m:i:Box::crate", "urn:pulumi:dev::p::m:i:Box::box"


@pytest.mark.parametrize(
    ("name", "parent", "aliases", "parents_alias", "expected"),
    [
        ("new", STACK, (Alias(name="old"),), None, ["urn:pulumi:dev::p::m:i:Item::old"]),
        ("a", STACK, (Alias(type="m:i:Was"),), None, ["urn:pulumi:dev::p::m:i:Was::a"]),
        ("a", STACK, (Alias(urn="urn:x"),), None, ["urn:x"]),
        ("a", STACK, (Alias(project="q", stack="s"),), None, ["urn:pulumi:s::q::m:i:Item::a"]),
        ("a", STACK, (Alias(parent=BOX),), None, ["urn:pulumi:dev::p::m:i:Box$m:i:Item::a"]),
        ("a", BOX, (Alias(no_parent=True),), None, ["urn:pulumi:dev::p::m:i:Item::a"]),
        ("a", BOX, (Alias(parent=STACK),), None, ["urn:pulumi:dev::p::m:i:Item::a"]),
        ("a", BOX, (), OLD_BOX, ["urn:pulumi:dev::p::m:i:Box$m:i:Item::a"]),
        ("crate-a", BOX, (), OLD_BOX, ["urn:pulumi:dev::p::m:i:Box$m:i:Item::box-a"]),
    ],
)
def test_former_names(
    name: str, parent: str, aliases: tuple[Alias, ...], parents_alias: str | None, expected: list[str]
) -> None:
    assert former_urns(name, "m:i:Item", parent, aliases, parents_alias, {}, "dev", "p") == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90), ("5m", 300), ("1h30m", 5400), ("1.5s", 1.5), ("100ms", 0.1), ("0s", 0)]
)
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "5", "5 m", "m", "1x", "-1s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(EngineError, match="customTimeout"):
        seconds(text)


def test_targets() -> None:
    nothing, some = Targets(), Targets(["urn:a::x", "urn:b::*", "urn:**::z"])
    assert not nothing
    assert "anything" in nothing
    found = [urn for urn in ("urn:a::x", "urn:a::y", "urn:b::q", "urn:b::q::r", "urn:c::d::z") if urn in some]
    assert found == ["urn:a::x", "urn:b::q", "urn:c::d::z"]
    assert some.literals == ["urn:a::x"]
