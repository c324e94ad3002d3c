"""A state that cannot be used: named with its file and what there is in its place, marked where stacks are listed."""

import json
from collections.abc import Callable
from typing import Any

import pytest

ROOT = "urn:pulumi:dev::tested::pulumi:pulumi:Stack::tested-dev"
RESOURCE = {"urn": "urn:a", "custom": True, "type": "a:b:C"}
SHAPELESS = '{"version":3,"checkpoint":{"latest":{"resources":[1,{"urn":5}]}}}'
STRANGER = json.dumps({"version": 3, "checkpoint": {"latest": {"resources": [{**RESOURCE, "parent": "urn:gone"}]}}})


def root(**outputs: Any) -> dict[str, Any]:
    return {"urn": ROOT, "custom": False, "type": "pulumi:pulumi:Stack", "outputs": outputs}


def refused(done: Any) -> str:
    assert done.returncode == 255
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    return str(done.stderr)


@pytest.mark.parametrize(
    "damage", ["", "{", '{"version": 4, "checkpoint": {}}', '{"version":3,"checkpoint":{"latest":[]}}', SHAPELESS]
)
@pytest.mark.parametrize("command", [["stack", "output"], ["stack", "export"], ["stack", "rm", "--yes"]])
def test_a_damaged_or_newer_state_is_refused_and_not_touched(stack: Any, damage: str, command: list[str]) -> None:
    stack.state_file.write_text(damage)
    assert "dev.json" in refused(stack.run(*command))
    assert stack.state_file.read_text() == damage


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("", "it is not JSON"),
        (SHAPELESS, "deployment: `an entry of resources or pending_operations` must be an object, not int"),
        (STRANGER, "urn:a is a child of urn:gone"),
    ],
)
def test_a_damaged_stack_is_marked_and_the_others_are_listed(
    stack: Any, import_state: Callable[..., None], damage: str, says: str
) -> None:
    import_state([root()])
    import_state([root(a="new")])
    stack.must("stack", "init", "other", "--no-select")
    stack.state_file.write_text(damage)
    said = f"the state file {stack.state_file} is damaged: {says}"
    before = f"Nothing was changed. The state before the last write is in {stack.state_file}.bak."
    listed = stack.run("stack", "ls")
    assert listed.returncode == 0
    assert listed.stderr.startswith(f"warning: {said}")
    assert listed.stderr.endswith(f"{before}\n")
    rows = [line.split(maxsplit=2) for line in listed.stdout.splitlines()[1:]]
    assert rows == [["dev*", "n/a", "cannot be read"], ["other", "n/a", "n/a"]]
    done = stack.run("stack", "ls", "--json")
    damaged, other = json.loads(done.stdout)
    assert (damaged["name"], damaged["current"]) == ("dev", True)
    assert damaged["error"].startswith(said)
    assert other == {"name": "other", "current": False, "updateInProgress": False}
    told = refused(stack.run("stack", "output"))
    assert said in told
    assert before in told


def test_a_state_with_a_missing_parent_is_refused(stack: Any, import_state: Callable[..., None]) -> None:
    import_state([root()])
    content = json.loads(stack.state_file.read_text())
    content["checkpoint"]["latest"]["resources"].append({**RESOURCE, "parent": "urn:gone"})
    stack.state_file.write_text(json.dumps(content))
    assert "is a child of urn:gone" in refused(stack.run("stack", "output"))
