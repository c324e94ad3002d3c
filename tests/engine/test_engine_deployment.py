"""Whole runs over the real protocol: what fails half, what goes on, what is refreshed, replaced, refused, lost."""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HEAD = """
import pulumi

class Thing(pulumi.CustomResource):
    made: pulumi.Output[str]
    def __init__(self, name, opts=None, /, **inputs):
        super().__init__("lab:index:Thing", name, {"made": None, **inputs}, opts)

class Lab(pulumi.ProviderResource):
    def __init__(self, name, opts=None, /, **config):
        super().__init__("lab", name, config, opts)

class Remote(pulumi.ComponentResource):
    made: pulumi.Output[str]
    value: pulumi.Output[str]
    def __init__(self, kind, name, opts=None, /, **inputs):
        super().__init__(f"lab:index:{kind}", name, {"made": None, "value": None, **inputs}, opts, remote=True)

class Box(pulumi.ComponentResource):
    def __init__(self, name, opts=None, /):
        super().__init__("lab:index:Box", name, {}, opts)
"""


class Lab:
    """A stack whose provider is the one in `lab/`, and what is seen of it."""

    def __init__(self, workspace: Any) -> None:
        self.workspace = workspace
        self.cloud: Path = workspace.folder / "cloud"
        self.log: Path = workspace.folder / "log"
        self.cloud.mkdir()
        workspace.environment |= {"LAB_CLOUD": str(self.cloud), "LAB_LOG": str(self.log)}
        source = Path(__file__).parent / "lab"
        project = {
            "name": "tested",
            "runtime": "python",
            "plugins": {"providers": [{"name": "lab", "path": str(source)}]},
        }
        (workspace.project / "Pulumi.yaml").write_text(json.dumps(project))

    def program(self, text: str) -> None:
        (self.workspace.project / "__main__.py").write_text(HEAD + textwrap.dedent(text))

    def run(self, command: str, *flags: str, code: int = 0, **environment: str) -> "Seen":
        self.log.write_text("")
        how = ("preview", "--json") if command == "preview" else (command, "--json", "--yes", "--skip-preview")
        done = self.workspace.run(*how, "--non-interactive", "--stack", "dev", *flags, **environment)
        assert done.returncode == code, done.stdout + done.stderr
        return Seen(done.stdout, self.log.read_text().splitlines())

    def up(self, text: str, *flags: str, code: int = 0, **environment: str) -> "Seen":
        self.program(text)
        return self.run("up", *flags, code=code, **environment)

    def state(self) -> dict[str, Any]:
        return dict(self.workspace.export("--show-secrets")["deployment"])

    def resources(self) -> dict[str, dict[str, Any]]:
        return {r["urn"].rpartition("::")[2]: r for r in self.state().get("resources", [])}

    def pending(self) -> list[tuple[str, str]]:
        found = self.state().get("pending_operations", [])
        return sorted((o["type"], o["resource"]["urn"].rpartition("::")[2]) for o in found)


class Seen:
    """The events of a run by name, its messages, and the calls to the provider."""

    def __init__(self, stdout: str, calls: list[str]) -> None:
        self.calls = calls
        self.ops: dict[str, list[str]] = {}
        self.ended: dict[str, list[str]] = {}
        self.messages: list[str] = []
        self.changes: dict[str, int] = {}
        for event in self._events(stdout):
            for kind, found in (("resourcePreEvent", self.ops), ("resOutputsEvent", self.ended)):
                if kind in event:
                    metadata = event[kind]["metadata"]
                    found.setdefault(metadata["urn"].rpartition("::")[2], []).append(metadata["op"])
            if "diagnosticEvent" in event:
                self.messages.append(event["diagnosticEvent"]["message"])
            if "summaryEvent" in event:
                self.changes = event["summaryEvent"]["resourceChanges"]

    def _events(self, stdout: str) -> Iterator[dict[str, Any]]:
        if stdout.startswith("{\n"):
            digest = json.loads(stdout)
            self.changes = digest.get("changeSummary", {})
            self.messages = [d["message"] for d in digest.get("diagnostics", [])]
            for step in digest.get("steps", []):
                self.ops.setdefault(step["urn"].rpartition("::")[2], []).append(step["op"])
            return
        yield from (json.loads(line) for line in stdout.splitlines())

    def said(self, text: str) -> bool:
        return any(text in message for message in self.messages)


@pytest.fixture
def lab(stack: Any) -> Lab:
    return Lab(stack)


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


def test_wrong_inputs_of_a_component_are_told_with_path_and_value(lab: Lab) -> None:
    seen = lab.up('Remote("Bad", "bad", size={"x": -1})', code=1)
    assert seen.said("lab:index:Bad resource 'bad' has a problem: Invalid arguments")
    assert seen.said("property size.x with value '{-1}' has a problem: must not be negative")
    assert not seen.said("Traceback")


# -- programs


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("raise pulumi.RunError('two errors:\\n- a\\n- b')", "two errors:\n- a\n- b"),
        ("import sys; sys.exit(3)", "program exited with non-zero exit code: 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "the program was ended by signal SIGKILL"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError: invalid syntax"),
        ("Thing('a', value=pulumi.FileAsset('nope.txt'))", "lab:index:Thing resource 'a': nope.txt: No such file"),
        ("Thing('a'); Thing('a')", "Duplicate resource URN"),
        ("print('hello'); raise pulumi.RunError('x')", "hello"),
    ],
)
def test_why_a_program_failed_is_told_without_machinery(lab: Lab, program: str, said: str) -> None:
    lab.program(program)
    for command in ("preview", "up"):
        seen = lab.run(command, code=1)
        assert seen.said(said), seen.messages
        assert not any("runpy" in message or "runner.py" in message for message in seen.messages)


@pytest.mark.parametrize(
    ("program", "what"),
    [
        ("pulumi.runtime.register_resource_transform(lambda args: None)", "stack transforms"),
        ("pulumi.runtime.register_invoke_transform(lambda args: None)", "invoke transforms"),
        ("Thing('a', pulumi.ResourceOptions(transforms=[lambda args: None]))", "transforms"),
        ("Thing('a', pulumi.ResourceOptions(replacement_trigger='x'))", "the option replacement_trigger"),
        (
            "hook = pulumi.ResourceHook('h', lambda args: None)\n"
            "Thing('a', pulumi.ResourceOptions(hooks=pulumi.ResourceHookBinding(before_create=[hook])))",
            "resource hooks",
        ),
    ],
)
def test_what_is_not_supported_is_refused_by_name(lab: Lab, program: str, what: str) -> None:
    lab.program(program)
    seen = lab.run("preview", code=1)
    assert seen.said(f"embedded-engine does not support {what}; use the pulumi CLI for this program")
    assert not seen.said("Traceback")
    assert "Create a" not in seen.calls


def test_a_missing_plugin_says_where_was_looked(lab: Lab) -> None:
    lab.program("pulumi.runtime.invoke('nopkg:index:f', {})")
    seen = lab.run("preview", code=1)
    assert seen.said("no provider plugin nopkg: it is not under `plugins.providers` in Pulumi.yaml")


def test_places_in_source_are_those_of_the_project(lab: Lab) -> None:
    lab.up('Thing("a", value="1")')
    line = HEAD.count("\n") + 1
    resource = lab.resources()["a"]
    assert resource["sourcePosition"].startswith("project:///__main__.py#")
    assert any(f"#{line}" in frame["sourcePosition"] for frame in resource["stackTrace"])
    assert str(Path(__file__).parents[2]) not in json.dumps(lab.state())
