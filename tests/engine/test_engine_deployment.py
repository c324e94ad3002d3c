"""Whole runs over the real protocol: what fails half, what goes on, what is refreshed, replaced, refused, lost."""

import json

import pytest
from engine_lab import Lab

# -- failures


def test_what_does_not_depend_on_a_failure_goes_on_if_asked(lab: Lab) -> None:
    program = """
    bad = Thing("bad", value="1", fail="create")
    Thing("after", pulumi.ResourceOptions(depends_on=[bad]), value="1")
    box = Box("box", pulumi.ResourceOptions(depends_on=[bad]))
    Thing("in-box", pulumi.ResourceOptions(parent=box), value="1")
    Thing("apart", value="1")
    """
    seen = lab.up(program, "--continue-on-error", code=1)
    assert seen.ended["apart"] == ["create"]
    assert not {"after", "box", "in-box"} & seen.ops.keys()
    assert seen.said("create of bad failed as asked")
    assert seen.messages[-1] == "update failed"
    assert {"apart"} == lab.resources().keys() - {"tested-dev", "default"}


def test_a_failure_ends_the_run_otherwise(lab: Lab) -> None:
    program = """
    bad = Thing("bad", value="1", fail="create")
    Thing("after", pulumi.ResourceOptions(depends_on=[bad]), value="1")
    """
    seen = lab.up(program, "--parallel", "1", code=1)
    assert seen.messages == ["create of bad failed as asked", "update failed"]
    assert "after" not in seen.ops
    assert lab.pending() == []


def test_a_large_resource_that_half_failed_is_kept(lab: Lab) -> None:
    """Its state comes with the error, far above the 16 KiB that gRPC's trailers have by default."""
    lab.up('Thing("a", value="x" * 100_000, fail="create-partial")', code=1)
    resource = lab.resources()["a"]
    assert resource["initErrors"] == ["not ready"]
    assert len(resource["outputs"]["value"]) == 100_000


def test_half_an_update_keeps_the_old_inputs_and_the_new_outputs(lab: Lab) -> None:
    lab.up('Thing("a", value="1")')
    lab.up('Thing("a", value="2", fail="update-partial")', code=1)
    resource = lab.resources()["a"]
    assert (resource["inputs"]["value"], resource["outputs"]["value"]) == ("1", "2")
    assert resource["initErrors"] == ["not ready"]
    seen = lab.up('Thing("a", value="2")')
    assert seen.ended["a"] == ["update"]
    assert "initErrors" not in lab.resources()["a"]


def test_a_plugin_that_dies_in_a_create_leaves_a_pending_operation(lab: Lab) -> None:
    seen = lab.up('Thing("a", value="1", fail="die")', code=1)
    assert seen.said("the plugin has ended")
    assert lab.pending() == [("creating", "a")]
    assert (lab.cloud / "a-1").exists()
    seen = lab.up('Thing("b", value="1")')
    assert seen.said("::a, interrupted while creating")
    assert lab.pending() == [("creating", "a")]
    lab.up('Thing("b", value="1"); Thing("a", value="1")')
    assert lab.pending() == []


# -- refresh, replace, targets


def test_a_run_can_refresh_first(lab: Lab) -> None:
    lab.up('Thing("a", value="1"); Thing("gone", value="1")')
    (lab.cloud / "a-1").write_text('"drifted"')
    (lab.cloud / "gone-1").rename(lab.cloud / ".gone-1")
    seen = lab.run("up", "--refresh")
    assert seen.ops["a"] == ["refresh", "update"]
    assert seen.ops["gone"] == ["refresh", "create"]
    # What the refresh found is not what the run did.
    assert seen.changes == {"same": 1, "update": 1, "create": 1}
    assert json.loads((lab.cloud / "a-1").read_text()) == "1"


def test_a_refresh_counts_what_it_found(lab: Lab) -> None:
    lab.up('a = Thing("a", value="1"); Thing("b", value=a.made); Thing("gone", value="1")')
    (lab.cloud / "a-1").write_text('"drifted"')
    (lab.cloud / "gone-1").rename(lab.cloud / ".gone-1")
    seen = lab.run("refresh")
    assert seen.changes == {"same": 2, "update": 1, "delete": 1}
    assert lab.resources()["a"]["inputs"]["value"] == "drifted"
    assert "gone" not in lab.resources()


def test_a_replacement_can_be_asked_for(lab: Lab) -> None:
    program = 'a = Thing("a", value="1"); Thing("b", value=a.made); Thing("c", value="1")'
    lab.up(program)
    urn = "urn:pulumi:dev::tested::lab:index:Thing::"
    assert lab.run("preview", "--replace", f"{urn}a").ops["a"] == ["replace"]
    seen = lab.run("up", "--replace", f"{urn}a")
    assert seen.ops["a"] == ["create-replacement", "replace", "delete-replaced"]
    assert seen.ops["b"] == ["update"]
    seen = lab.run("up", "--target-replace", f"{urn}b")
    assert seen.ended["b"] == ["create-replacement", "replace", "delete-replaced"]
    assert seen.ended["a"] == ["same"]
    # The untargeted resource gave its outputs, and was not checked.
    assert [c for c in seen.calls if c.startswith("Check")] == ["Check b"]
    assert lab.resources()["b"]["inputs"]["value"] == "made-a-2"


def test_a_resource_is_replaced_with_another(lab: Lab) -> None:
    def text(key: str) -> str:
        return f"""
        a = Thing("a", value="1", key="{key}")
        Thing("b", pulumi.ResourceOptions(replace_with=[a]), value="1")
        Thing("c", value="1")
        """

    lab.up(text("1"))
    lab.program(text("2"))
    assert {name: ops for name, ops in lab.run("preview").ops.items() if ops != ["same"]} == {
        "a": ["replace"],
        "b": ["replace"],
    }
    seen = lab.run("up")
    assert [c for c in seen.calls if c.startswith("Create")] == ["Create a", "Create b"]
    assert sorted(c for c in seen.calls if c.startswith("Delete")) == ["Delete a", "Delete b"]
    assert lab.run("up").changes == {"same": 4}


def test_a_target_that_is_not_there_is_told(lab: Lab) -> None:
    lab.up('Thing("a", value="1")')
    for command in ("preview", "up", "refresh", "destroy"):
        seen = lab.run(command, "--target", "urn:pulumi:dev::tested::lab:index:Thing::nope", code=1)
        assert seen.said("::nope' could not be found in the stack")
    assert "a" in lab.resources()


def test_patterns_choose_targets(lab: Lab) -> None:
    lab.up('Thing("a-1", value="1"); Thing("a-2", value="1"); Thing("b", value="1")')
    seen = lab.run("destroy", "--target", "urn:pulumi:dev::tested::lab:index:Thing::a-*", "--target-dependents")
    assert seen.changes["delete"] == 2
    assert "b" in lab.resources()


@pytest.mark.parametrize("protect", [False, True])
def test_deleting_first_takes_dependents_along_unless_one_is_protected(lab: Lab, protect: bool) -> None:
    def text(dbr: str) -> str:
        return f"""
        a = Thing("a", value="1", dbr="{dbr}")
        Thing("b", pulumi.ResourceOptions(protect={protect}), value="1", key=a.made)
        """

    lab.up(text("1"))
    seen = lab.up(text("2"), code=int(protect))
    if protect:
        assert seen.said("as part of replacing")
        assert not [c for c in seen.calls if c.startswith(("Delete", "Create"))]
    else:
        assert [c for c in seen.calls if c.startswith(("Delete", "Create"))] == [
            "Delete b",
            "Delete a",
            "Create a",
            "Create b",
        ]


def test_a_dependent_that_went_first_and_is_not_wanted_any_more_leaves_nothing(lab: Lab) -> None:
    lab.up('a = Thing("a", value="1", dbr="1"); Thing("b", value="1", key=a.made)')
    lab.up('Thing("a", value="1", dbr="2")')
    assert "b" not in lab.resources()
    lab.up('Thing("a", value="1", dbr="2")', "--expect-no-changes")


def test_an_interrupted_replacement_is_taken_up_again(lab: Lab) -> None:
    lab.up('Thing("a", value="1", dbr="1")')
    lab.up('Thing("a", value="1", dbr="2", fail="create")', code=1)
    assert lab.resources()["a"]["pendingReplacement"] is True
    seen = lab.up('Thing("a", value="1", dbr="2")')
    assert [c for c in seen.calls if c.startswith(("Delete", "Create"))] == ["Create a"]
    assert "pendingReplacement" not in lab.resources()["a"]


def test_a_delete_that_was_left_over_is_done_by_the_next_run(lab: Lab) -> None:
    lab.up('Thing("a", value="1", key="1")')
    lab.up('a = Thing("a", value="1", key="2"); Thing("b", value=a.made, fail="create")', "--parallel", "1", code=1)
    assert sum(r["urn"].endswith("::a") for r in lab.state()["resources"]) == 2
    seen = lab.up('a = Thing("a", value="1", key="2"); Thing("b", value=a.made)')
    assert "Delete a" in seen.calls
    assert sum(r["urn"].endswith("::a") for r in lab.state()["resources"]) == 1


# -- old plugins, providers that are not configured, components


def test_an_old_plugin_gets_plain_values_and_its_secrets_stay_secret(lab: Lab) -> None:
    program = 'Thing("a", value="{}", hidden=pulumi.Output.secret("s3cret"))'
    lab.program(program.format("1"))
    seen = lab.run("preview", LAB_OLD="1")
    assert seen.ops["a"] == ["create"]
    assert "Create a" not in seen.calls
    seen = lab.run("up", LAB_OLD="1")
    assert seen.ended["a"] == ["create"]
    hidden = lab.resources()["a"]["outputs"]["hidden"]
    assert (hidden["plaintext"], "ciphertext" in hidden) == ('"s3cret"', False)
    # It cannot compare: the engine does.
    assert lab.up(program.format("2"), LAB_OLD="1").ended["a"] == ["update"]
    assert lab.run("up", LAB_OLD="1").ended["a"] == ["same"]


def test_a_provider_whose_configuration_is_unknown_is_not_asked(lab: Lab) -> None:
    lab.program(
        """
        a = Thing("a", value="1")
        p = Lab("p", region=a.made)
        here = pulumi.ResourceOptions(provider=p)
        Thing("b", here, value="1")
        Remote("Pair", "pair", here, value="v")
        """
    )
    seen = lab.run("preview")
    assert seen.ops["b"] == ["create"]
    assert not [c for c in seen.calls if c.endswith((" b", " p"))]
    seen = lab.run("up")
    assert {"Configure p", "Create b", "Create pair-first"} <= set(seen.calls)


def test_a_plugin_builds_components_and_serves_their_methods(lab: Lab) -> None:
    lab.up(
        """
        a = Thing("a", value="1")
        pair = Remote("Pair", "pair", value=a.made)
        pulumi.export("made", pair.made)
        pulumi.export("value", pulumi.Output.unsecret(pair.value))
        said = pulumi.runtime.call("lab:index:Pair/say", {"word": pair.value}, res=pair)
        pulumi.export("said", said.apply(lambda result: result["said"]))
        """
    )
    outputs = lab.resources()["tested-dev"]["outputs"]
    assert outputs == {"made": "made-pair-first-1", "value": "made-a-1", "said": "said made-a-1"}
    assert lab.resources()["pair-first"]["parent"].endswith("lab:index:Pair::pair")
    assert lab.resources()["pair-first"]["dependencies"] == ["urn:pulumi:dev::tested::lab:index:Thing::a"]


# -- programs
