"""What a run refuses or cannot do is told in words that help."""

import json
from pathlib import Path

import pytest
from engine_lab import HEAD, Lab


def test_wrong_inputs_of_a_component_are_told_with_path_and_value(lab: Lab) -> None:
    seen = lab.up('Remote("Bad", "bad", size={"x": -1})', code=1)
    assert seen.said("lab:index:Bad resource 'bad' has a problem: Invalid arguments")
    assert seen.said("property size.x with value '{-1}' has a problem: must not be negative")
    assert not seen.said("Traceback")


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
        (
            "Thing('a', value=float('nan'))",
            "lab:index:Thing resource 'a': property value is nan, which no state can hold",
        ),
        ("pulumi.export('a', {'b': [1, float('-inf')]})", "property a.b[1] is -inf, which no state can hold"),
    ],
)
def test_why_a_program_failed_is_told_without_machinery(lab: Lab, program: str, said: str) -> None:
    lab.program(program)
    for command in ("preview", "up"):
        seen = lab.run(command, code=1)
        assert seen.said(said), seen.messages
        assert not any("runpy" in message or "runner.py" in message for message in seen.messages)


@pytest.mark.parametrize(
    "ends",
    [
        "os._exit(0)",
        "os.execvp('true', ['true'])",
        "pulumi.Output.from_input(1).apply(lambda _: os._exit(0))",
        "pulumi.Output.from_input(1).apply(lambda _: sys.exit(0))",
    ],
)
def test_a_program_that_ends_before_it_is_complete_deletes_nothing(lab: Lab, ends: str) -> None:
    lab.up("Thing('a', value='1')")
    lab.program(f"import os, sys; Thing('b', value='1'); {ends}")
    for command in ("preview", "up"):
        seen = lab.run(command, code=1)
        assert seen.said("the program ended with 0 before it was complete"), seen.messages
        assert "Delete a" not in seen.calls
    assert "a" in lab.resources()


def test_a_program_may_end_itself_with_sys_exit(lab: Lab) -> None:
    lab.up("import sys; Thing('a', value='1'); sys.exit()")
    assert "a" in lab.resources()


@pytest.mark.parametrize(
    ("program", "what"),
    [
        ("pulumi.runtime.register_resource_transform(lambda args: None)", "stack transforms"),
        ("pulumi.runtime.register_invoke_transform(lambda args: None)", "invoke transforms"),
        ("Thing('a', pulumi.ResourceOptions(transforms=[lambda args: None]))", "transforms"),
        ("Thing('a', pulumi.ResourceOptions(replacement_trigger='x'))", "the option replacement_trigger"),
        (
            "from pulumi.runtime.proto import resource_pb2\n"
            "wanted = resource_pb2.RegisterPackageRequest(name='bridge', version='1.0.0')\n"
            "pulumi.runtime.settings.get_monitor().RegisterPackage(wanted)",
            "parameterized packages",
        ),
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
