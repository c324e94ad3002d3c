"""TrainingJob in a program: its rules, its run by the engine, its outputs as a model, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from aks_inference.findings import Casing
from aks_inference.registered_model.spec import plan_model
from aks_inference.training_job.spec import plan_job
from aks_inference_provider.resources.training_run import TrainingRun, check
from aks_inference_runtime.api.target import KubernetesTarget, LocalTarget, RegistrySettings, format_target
from aks_inference_runtime.jobs.manifests import Pod, manifest
from aks_inference_runtime.jobs.model import Job
from aks_inference_runtime.local.environments import hash_of

ROOT = Path(__file__).resolve().parents[2]
SALT = "v1:fXzlv8jotfE=:v1:ieTyVVKSWX0nl+mJ:Aumk86Qp7BmQSzDPsNQtmY07dL08bg=="
"""Of the passphrase "x"."""
PROGRAM = """
import json, pathlib
import pulumi
from aks_inference import RegisteredModel, TrainingJob

told = json.loads(pathlib.Path("told.json").read_text())
job = TrainingJob("ridge", target=told["target"], entry_script="train.py", source_directory="project",
                  arguments=told["arguments"], environment={"environment_variables": {"ALPHA": "0.5"}})
model = RegisteredModel("ridge", store=told["store"], model_path="model.txt", job_outputs=job)
pulumi.export("outputs", job.outputs_path)
pulumi.export("model", model.model_id)
"""
TRAIN = """
import os, pathlib, sys
print("trains with", os.environ["ALPHA"], *sys.argv[1:])
pathlib.Path("outputs").mkdir()
pathlib.Path("outputs/model.txt").write_text(" ".join(sys.argv[1:]))
"""
WAITS = "import os, time; print('pid', os.getpid(), flush=True); time.sleep(600)"


class Stack:
    """A program of its own, with an environment that is there already."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "app"
        (self.folder / "project").mkdir(parents=True)
        (folder / "state").mkdir()
        environment = folder / "cache" / "aks-inference" / "environments" / hash_of(())
        (environment / "bin").mkdir(parents=True)
        (environment / "bin" / "python").symlink_to(sys.executable)
        (environment / "environment.json").write_text(json.dumps({"serverVersion": "1.5.1"}))
        plugin = {"providers": [{"name": "aks-inference", "path": str(ROOT / "provider")}]}
        (self.folder / "Pulumi.yaml").write_text(json.dumps({"name": "t", "runtime": "python", "plugins": plugin}))
        (self.folder / "Pulumi.dev.yaml").write_text(f"encryptionsalt: {SALT}\n")
        (self.folder / "__main__.py").write_text(PROGRAM)
        (folder / "temporary").mkdir()
        self.temporary = folder / "temporary"
        target = LocalTarget(name="local", state_directory=str(folder / "cluster"))
        self.told = {"target": format_target(target), "store": str(folder / "store"), "arguments": ["first"]}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")}
        self.environment = kept | {
            "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_CONFIG_PASSPHRASE": "x",
            "XDG_CACHE_HOME": str(folder / "cache"),
            "TMPDIR": str(self.temporary),
        }
        assert self.run("stack", "init", "dev").returncode == 0

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        (self.folder / "told.json").write_text(json.dumps(self.told))
        return subprocess.Popen(
            [sys.executable, "-m", "embedded_engine", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        with self.start(*arguments) as process:
            try:
                text, _ = process.communicate(timeout=120)
            finally:
                process.kill()
        return subprocess.CompletedProcess(arguments, process.returncode, text)

    def up(self) -> str:
        done = self.run("up", "--yes", "--stack", "dev")
        assert done.returncode == 0, done.stdout
        return done.stdout

    def outputs(self) -> dict[str, Any]:
        done = self.run("stack", "output", "--json", "--stack", "dev")
        return dict(json.loads(done.stdout))

    def left(self) -> list[str]:
        return [path.name for path in self.temporary.iterdir() if path.name.startswith("aks-inference-job")]


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    made = Stack(tmp_path)
    (made.folder / "project" / "train.py").write_text(TRAIN)
    return made


@pytest.mark.long
def test_a_job_feeds_a_model(stack: Stack) -> None:
    previewed = stack.run("preview", "--stack", "dev").stdout
    assert "will run `python train.py first` on this machine" in previewed
    shown = stack.up()
    assert "trains with 0.5 first" in shown
    told = stack.outputs()
    assert told["model"] == "ridge:1"
    assert Path(told["outputs"], "model.txt").read_text() == "first"
    again = stack.up()
    assert "trains with" not in again, "the same program is no other run"
    stack.told["arguments"] = ["second"]
    assert "trains with 0.5 second" in stack.up()
    after = stack.outputs()
    assert after["model"] == "ridge:2"
    assert not Path(told["outputs"]).exists(), "the results of the run before went with it"
    assert stack.run("destroy", "--yes", "--stack", "dev").returncode == 0
    assert not Path(after["outputs"]).exists()
    assert stack.left() == []


def test_a_failing_script_fails_the_update_with_its_log(stack: Stack) -> None:
    (stack.folder / "project" / "train.py").write_text("raise RuntimeError('no such column')")
    done = stack.run("up", "--yes", "--stack", "dev")
    assert done.returncode != 0
    assert "no such column" in done.stdout
    assert "ended with code 1" in done.stdout
    assert "RegisteredModel" not in [line for line in done.stdout.splitlines() if "created" in line]
    assert stack.left() == []
    (stack.folder / "project" / "train.py").write_text(TRAIN)
    stack.up()


def test_ctrl_c(stack: Stack, until: Any) -> None:
    (stack.folder / "project" / "train.py").write_text(WAITS)
    with stack.start("up", "--yes", "--stack", "dev") as process:
        try:
            assert process.stdout is not None
            pid = next(int(line.split("pid ")[1].split()[0]) for line in process.stdout if "pid " in line)
            os.kill(process.pid, signal.SIGINT)
            process.stdout.read()
            assert process.wait(60) != 0
        finally:
            process.kill()
    until(lambda: not psutil.pid_exists(pid), "the script's end")
    until(lambda: stack.left() == [], "the folder's end")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "train.py").write_text("")
    return tmp_path


LOCAL = format_target(LocalTarget(name="local", state_directory="/nowhere"))
BARE = KubernetesTarget(name="prod", namespace="aks-inference-system", image="runtime:1")
CLUSTER = format_target(BARE.model_copy(update={"registry": RegistrySettings(server="registry.example")}))
GOOD = {"target": LOCAL, "entry_script": "train.py", "source_directory": "project"}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"target": None}, "target: is required"),
    ({"entry_script": "none.py"}, 'entry_script = "none.py": is not in'),
    ({"entry_script": str(Path(__file__))}, "is not in"),
    ({"source_directory": "nowhere"}, "nowhere is not a folder"),
    ({"outputs_directory": "project/train.py"}, 'outputs_directory = "project/train.py": is not a folder'),
    ({"outputs_directory": "project/train.py/results"}, "project/train.py is not a folder"),
    ({"outputs_directory": "/proc/results"}, "cannot be made: /proc cannot be written"),
    ({"job_name": "Bad"}, 'job_name = "Bad": a name has'),
    ({"timeout_minutes": 0}, "timeout_minutes = 0: must be above 0"),
    ({"gpu_cores": 1}, "gpu_cores = 1: is only for a Kubernetes target"),
    ({"environment": {"pip_packages": ["not a requirement"]}}, "environment.pip_packages[0]"),
    ({"environment": {"docker": {"base_image": "a:1"}}}, "environment.docker.base_image"),
    ({"target": format_target(BARE)}, "target: has no registry"),
    ({"argumets": ["x"]}, "argumets: is not known here; did you mean `arguments`?"),
]


@pytest.mark.parametrize(("change", "said"), WRONG)
def test_a_broken_rule(project: Path, change: dict[str, Any], said: str) -> None:
    given = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    plan, findings = plan_job("ridge", given)
    assert plan is None
    texts = [finding.text(Casing.SNAKE) for finding in findings]
    assert any(text.startswith(said) or said in text for text in texts), texts


def test_on_a_cluster_it_is_an_image(project: Path) -> None:
    environment = {"pip_packages": ["numpy"], "docker": {"base_image": "a:1"}, "environment_variables": {"A": "1"}}
    plan, findings = plan_job("ridge", {**GOOD, "target": CLUSTER, "environment": environment, "gpu_cores": 1})
    assert plan is not None, findings
    assert plan.image is not None
    assert plan.image["environment"] == {"pipPackages": ["numpy"], "docker": {"baseImage": "a:1"}}
    assert plan.image["sourceDirectory"] == str(project / "project")
    assert "scoringServer" not in plan.image


def test_arguments_of_a_pod_are_what_they_are() -> None:
    """Kubernetes would put a variable's value in place of its name in brackets."""
    job = Job("j-1", "train.py", "pro$$ject", {}, Path("/results"), ("$(AZUREML_RUN_ID)", "$$(A)", "5 $", "$HOME"))
    pod = manifest(job, Pod("image:1", "keeper:1"))["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
    made = pod["containers"]
    expanded = [[word.replace("$$", "$") for word in words] for words in (made[0]["command"], made[1]["args"])]
    assert expanded[0][3:] == ["/var/azureml-app/pro$$ject", "train.py", *job.arguments]
    assert expanded[1][0] == "/work/pro$$ject"


MODEL_WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model_path": "../elsewhere"}, "lies outside of job_outputs"),
    ({"model_path": "/absolute"}, "lies outside of job_outputs"),
    ({"job_outputs": 3}, "an object of type int is not a training job"),
    ({"unpack": True}, "unpack = true: cannot be combined with job_outputs"),
]


@pytest.mark.parametrize(("change", "said"), MODEL_WRONG)
def test_a_model_of_a_jobs_outputs(project: Path, change: dict[str, Any], said: str) -> None:
    given = {"store": str(project / "store"), "job_outputs": "/results/one/outputs"}
    good, findings = plan_model("ridge", given)
    assert good is not None, findings
    plan, findings = plan_model("ridge", {**given, **change})
    assert plan is None
    assert any(said in finding.text(Casing.SNAKE) for finding in findings)


async def test_the_resources_own_rules(project: Path) -> None:
    """Programs in other languages reach it, too."""
    wrong = {"name": "Bad", "entryScript": "a", "sourceDirectory": "b", "outputsDirectory": "c", "timeoutMinutes": -1}
    limits = {"maxMb": -1, "maxFiles": 0}
    found = [failure.path for failure in check({**wrong, "image": "i", **limits})]
    assert found == [
        *limits,
        "name",
        "sourceDirectory",
        "outputsDirectory",
        "timeoutMinutes",
        "keeperImage",
    ]
    good = {"name": "a", "entryScript": "no.py", "sourceDirectory": str(project / "project"), "outputsDirectory": "/o"}
    checked = await TrainingRun().check(None, {}, good)  # type: ignore[arg-type]
    assert [(f.path, "is not in" in f.reason) for f in checked.failures] == [("entryScript", True)]
    (project / "project" / "more.py").write_text("")
    checked = await TrainingRun().check(None, {}, {**good, "maxFiles": 1})  # type: ignore[arg-type]
    assert [f.path for f in checked.failures] == ["sourceDirectory"]
    assert checked.failures[0].reason.endswith("or raise maxFiles")


def test_a_command_is_told_as_a_shell_takes_it() -> None:
    job = Job("r", "train.py", "p", {}, Path(), ("--name", "a b", "$HOME", ""))
    assert job.command == "python train.py --name 'a b' '$HOME' ''"
    assert "\n" not in Job("r", "train.py", "p", {}, Path(), ("two\nlines",)).command
