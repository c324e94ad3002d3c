"""`aks-inference` as a whole: `--json` wherever it may stand, and a reader that has enough."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from interrupting import interrupted_at

COMMAND = Path(sys.executable).with_name("aks-inference")
CLUSTER = "component: AksInferenceCluster\nargs: {location: westeurope, vmSize: Standard_D4s_v5, agentCount: 3}\n"
SIMULATE = ("simulate", "--traffic", "constant:5", "--duration", "10", "--service-ms", "10")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    (tmp_path / "preview.json").write_text('{"steps": [], "changeSummary": {}}')
    (tmp_path / "requirements.txt").write_text("numpy==2.1.0\n")
    (tmp_path / "models").mkdir()
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--json", "check", "cluster.yaml"),
        ("--json", "doctor", "cluster.yaml", "--list"),
        ("--json", "report", "--preview", "preview.json"),
        ("--json", *SIMULATE),
        ("--json", "image", "key", "requirements.txt", "--offline"),
        ("image", "--json", "key", "requirements.txt", "--offline"),
        ("--json", "models", "list", "--store", "models"),
        ("models", "--json", "list", "--store", "models"),
    ],
)
def test_json_in_front_of_a_command(folder: Path, arguments: tuple[str, ...]) -> None:
    first = run(folder, *arguments)
    behind = [*(word for word in arguments if word != "--json"), "--json"]
    assert (first.returncode, first.stderr) == (0, "")
    json.loads(first.stdout)
    assert first.stdout == run(folder, *behind).stdout


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("click", ["status"]), ("aks_inference_runtime.cli", ["status"]), ("aks_inference_provider.cli.check", ["check"])],
)
def test_ctrl_c_while_modules_are_loaded_is_a_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, arguments: list[str]
) -> None:
    """`sitecustomize` sends it as soon as the module is asked for."""
    monkeypatch.setenv("PYTHONPATH", interrupted_at(folder, module))
    done = run(folder, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


def closed(command: list[str | Path], folder: Path) -> tuple[int, str]:
    """Exit code and errors of a command whose output nobody reads."""
    ours, theirs = os.pipe()
    os.close(ours)
    # Without a buffer argparse passes over what it cannot write.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdout=theirs,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        os.close(theirs)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("check", "cluster.yaml", "--json"),
        ("check", "--help"),
        ("doctor", "cluster.yaml", "--list"),
        ("report", "--preview", "preview.json"),
        SIMULATE,
        ("models", "list", "--store", "models", "--json"),
        ("image", "key", "requirements.txt", "--offline"),
    ],
)
def test_a_reader_that_has_enough(folder: Path, arguments: tuple[str, ...]) -> None:
    assert closed([COMMAND, *arguments], folder) == (141, ""), "as a shell says it of a closed pipe"


@pytest.mark.parametrize(
    ("command", "arguments", "unbuffered", "code"),
    [
        ("aks-inference", ("--help",), "", 1),
        ("aks-inference", ("check", "cluster.yaml", "--json"), "1", 1),
        ("aks-inference", ("models", "list", "--store", "models", "--json"), "", 1),
        ("embedded-engine", ("up", "--help"), "", 255),
    ],
)
def test_a_full_disk_under_the_output(
    folder: Path, command: str, arguments: tuple[str, ...], unbuffered: str, code: int
) -> None:
    done = on_a_full_disk(folder, [COMMAND.with_name(command), *arguments], subprocess.PIPE, unbuffered)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert done.stderr.startswith("error: ")
    assert "No space left on device" in done.stderr


def test_a_full_disk_under_output_and_errors(folder: Path) -> None:
    assert on_a_full_disk(folder, [COMMAND, "check", "cluster.yaml"], subprocess.STDOUT).returncode == 1


def on_a_full_disk(
    folder: Path, command: list[str | Path], errors: int, unbuffered: str = ""
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        return subprocess.run(
            command, cwd=folder, env=environment, stdout=full, stderr=errors, text=True, check=False, timeout=60
        )


def test_an_output_that_the_caller_closed(folder: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec '{COMMAND}' --help >&-"], stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_of_the_engine_that_has_enough(tmp_path: Path) -> None:
    assert closed([COMMAND.with_name("embedded-engine"), "up", "--help"], tmp_path) == (141, "")


@pytest.mark.parametrize("command", ["check", "report", "doctor"])
@pytest.mark.parametrize("option", [("--cluster", "x"), ("--kubeconfig", "x", "--json"), ("--state-directory", "x")])
def test_options_that_mean_a_running_cluster_in_front_of_what_looks_at_none(
    folder: Path, command: str, option: tuple[str, ...]
) -> None:
    done = run(folder, *option, command, "cluster.yaml", "--list")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"`{command}` looks at no running cluster: leave out the options in front of it" in done.stderr


@pytest.mark.parametrize("command", ["score", "wait", "keys"])
def test_a_command_loads_nothing_of_the_others(command: str) -> None:
    others = ("aks_inference_runtime.images", "aks_inference_runtime.models", "rich", "yaml", "kubernetes", "pulumi")
    code = (
        "import sys; from click import Context; from aks_inference_runtime.cli import main; "
        f"assert main.get_command(Context(main), {command!r}); "
        f"print(sorted(set(sys.modules) & set({others!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
