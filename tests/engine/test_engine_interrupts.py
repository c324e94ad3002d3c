"""Ctrl-C twice: what a person sees of a run that was ended at once."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from interrupting import interrupted_at

LIMIT_S = 120
PROGRAM = """
import pulumi

class Thing(pulumi.CustomResource):
    def __init__(self, name, **inputs):
        super().__init__("cloud:index:Thing", name, {"made": None, **inputs})

Thing("slow", value="v", key="k", n="v", delay=600.0)
"""


@pytest.mark.parametrize("command", [["preview"], ["preview", "--json"], ["up", "--yes"]])
def test_a_preview_that_is_stopped_ends_with_the_code_of_ctrl_c_and_nothing_follows(
    stack: Any, command: list[str]
) -> None:
    project = {"name": "tested", "runtime": "python"}
    (stack.project / "Pulumi.yaml").write_text(json.dumps(project))
    begun = stack.project / "begun"
    (stack.project / "__main__.py").write_text(f"import time\nopen({str(begun)!r}, 'a').write('x')\ntime.sleep(600)\n")
    process = stack.start(*command)
    deadline = time.monotonic() + LIMIT_S
    while not begun.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, out + err
    assert "Traceback" not in out + err
    assert begun.read_text() == "x"


@pytest.mark.parametrize("module", ["click", "embedded_engine.cli.app"])
def test_ctrl_c_while_modules_are_loaded_is_a_line(workspace: Any, module: str) -> None:
    """`sitecustomize` sends it as soon as the module is asked for."""
    done = workspace.process("stack", "ls", PYTHONPATH=interrupted_at(workspace.folder, module))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_run_that_is_stopped_twice_says_so_once(stack: Any, flags: list[str]) -> None:
    (stack.folder / "cloud").mkdir()
    stack.environment["CLOUD_FOLDER"] = str(stack.folder / "cloud")
    plugin = {"name": "cloud", "path": str(Path(__file__).parent / "cloud")}
    project = {"name": "tested", "runtime": "python", "plugins": {"providers": [plugin]}}
    (stack.project / "Pulumi.yaml").write_text(json.dumps(project))
    (stack.project / "__main__.py").write_text(PROGRAM)
    process = stack.start("up", "--yes", "--skip-preview", *flags)
    deadline = time.monotonic() + LIMIT_S
    while "Thing::slow" not in stack.state_file.read_text() or "creating" not in stack.state_file.read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    seen = ""
    while "stopping: nothing more is begun" not in seen:
        line = process.stdout.readline()
        assert line, seen + process.stderr.read()
        seen += line
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    text = seen + out + err
    assert text.count("interrupted again: what was under way is kept in the state as pending operations") == 1
    for word in ("Traceback", "rpc error", "RPC", "UNAVAILABLE", "Socket closed", "Duration: 0.00s", '"duration": 0,'):
        assert word not in text, text
    assert "Thing::slow" in json.dumps(json.loads(stack.state_file.read_text())["checkpoint"]["latest"])
