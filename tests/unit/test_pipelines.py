"""The pipeline files: YAML, every command of ours in them exists with these flags, and all of their scripts run."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "pipelines"
FILES = sorted(FOLDER.iterdir())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_they_are_yaml_and_name_what_there_is(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from aks_inference_provider.cli import check, report

    text = file.read_text("utf-8")
    assert yaml.safe_load(text)
    commands = re.findall(r"aks-inference (check|report)((?: --[a-z-]+)*)", text)
    assert commands
    for name, flags in commands:
        with pytest.raises(SystemExit):
            {"check": check, "report": report}[name].run(["--help"])
        shown = capsys.readouterr().out
        assert all(flag in shown for flag in flags.split())


PROGRAM = """
import pathlib
import pulumi
from aks_inference import RegisteredModel

folder = pathlib.Path(__file__).parent
model = RegisteredModel("churn", store=str(folder / "store"), model_path=str(folder / "model.joblib"))
pulumi.export("model", model.model_id)
"""
DECLARED = """
component: AksInferenceCluster
name: scoring
args: {location: westeurope, vmSize: Standard_D4s_v5, agentCount: 3, network: {plugin: azure, pluginMode: overlay}}
"""
SAID = re.compile(r"\$\{\{\s*([\w.]+)\s*\}\}|\$\(([\w.]+)\)")
VALUES = {"github.event.number": "7", "stack": "prod", "System.CollectionUri": "https://example.test/"}
"""Of the expressions; of all others their own name."""
Step = tuple[str, str, dict[str, str]]
"""Job, script, variables."""


@dataclass(frozen=True)
class Runner:
    """A checkout on a machine with stand-ins of pip, gh and curl, and Pulumi's commands by the embedded engine."""

    folder: Path
    environment: dict[str, str]

    def run(self, step: Step, *, code: int = 0) -> str:
        """As the services run a step: bash that ends at the first error."""
        _, script, variables = step
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=self.folder,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def calls(self, program: str) -> list[str]:
        """Of a stand-in."""
        log = self.folder.parent / f"{program}.calls"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    folder, programs, home = tmp_path / "checkout", tmp_path / "bin", tmp_path / "home"
    for one in (folder / "declarations", programs, home / ".pulumi" / "bin", tmp_path / "state"):
        one.mkdir(parents=True)
    engine = f'#!/bin/sh\nexec "{sys.executable}" -m embedded_engine "$@"\n'
    stand_ins = {name: f'#!/bin/sh\necho "$@" >> "{tmp_path}/{name}.calls"\n' for name in ("pip", "gh", "curl")}
    # The first comment of a pull request is none to edit.
    stand_ins["gh"] += 'case "$*" in *--edit-last*) exit 1 ;; esac\n'
    for path, text in [
        *((programs / name, text) for name, text in {**stand_ins, "pulumi": engine}.items()),
        (home / ".pulumi" / "bin" / "pulumi", engine),
    ]:
        path.write_text(text)
        path.chmod(0o755)
    plugin = {"providers": [{"name": "aks-inference", "path": str(FOLDER.parents[1] / "provider")}]}
    described = {"name": "pipeline", "runtime": "python", "plugins": plugin}
    (folder / "Pulumi.yaml").write_text(json.dumps(described))
    (folder / "__main__.py").write_text(PROGRAM)
    (folder / "model.joblib").write_bytes(b"weights")
    (folder / "declarations" / "cluster.yaml").write_text(DECLARED)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PULUMI_", "ARM_", "AZURE_"))}
    own = Path(sys.executable).parent
    made = Runner(
        folder,
        kept
        | {
            "PATH": f"{programs}{os.pathsep}{own}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "PULUMI_BACKEND_URL": f"file://{tmp_path / 'state'}",
            "PULUMI_HOME": str(tmp_path / "pulumi"),
            "PULUMI_CONFIG_PASSPHRASE": "x",
        },
    )
    made.run(("", "pulumi stack init prod", {}))
    return made


def filled(text: str) -> str:
    return SAID.sub(lambda found: VALUES.get(found[1] or found[2], found[1] or found[2]), text)


def variables(given: dict[str, Any]) -> dict[str, str]:
    """Without those that name services that are not here."""
    return {name: filled(str(value)) for name, value in given.items() if not name.startswith(("ARM_", "PULUMI_"))}


def steps(name: str) -> list[Step]:
    """The scripts of a file, in their order."""
    described = yaml.safe_load((FOLDER / name).read_text("utf-8"))
    found = []
    if name.startswith("github"):
        for job, one in described["jobs"].items():
            for step in one["steps"]:
                if "run" in step:
                    found.append((job, filled(step["run"]), variables({**described["env"], **step.get("env", {})})))
        return found
    for stage in described["stages"]:
        for step in stage["jobs"][0]["steps"]:
            script = step.get("script") or step.get("bash") or step.get("inputs", {}).get("inlineScript")
            if script:
                found.append((stage["stage"], filled(script), variables(step.get("env", {}))))
    return found


@pytest.mark.long
@pytest.mark.parametrize("name", ["github-actions.yml", "azure-pipelines.yml"])
def test_their_commands_run(runner: Runner, name: str) -> None:
    """All of them: checks, a preview with its report as a comment, up; and a mistake ends the checks."""
    found = steps(name)
    assert {job for job, _, _ in found} == {"check", "preview", "up"}
    for step in found:
        runner.run(step)
    report = (runner.folder / "report.md").read_text()
    assert "churn" in report
    assert json.loads((runner.folder / "preview.json").read_text())["changeSummary"]["create"] >= 2
    assert runner.calls("pip") == ["install --require-hashes -r requirements.lock"] * 3
    if name.startswith("github"):
        assert [line.split(" --")[0] for line in runner.calls("gh")] == ["pr comment 7"] * 2
    else:
        (thread,) = [json.loads((runner.folder / "thread.json").read_text())]
        assert thread["comments"][0]["content"] == report
        assert any("-d @thread.json https://example.test/" in line for line in runner.calls("curl"))
    # What was applied is there: the same preview has nothing to do.
    runner.run(next(step for step in found if "preview --stack" in step[1]))
    assert set(json.loads((runner.folder / "preview.json").read_text())["changeSummary"]) == {"same"}

    declared = runner.folder / "declarations" / "cluster.yaml"
    declared.write_text(DECLARED.replace("agentCount: 3", "agentCount: 1"))
    check = next(step for step in found if "aks-inference check" in step[1])
    assert "FastProd needs at least 12" in runner.run(check, code=1)


@pytest.mark.long
def test_the_hook_runs(runner: Runner) -> None:
    (hook,) = yaml.safe_load((FOLDER / "pre-commit-hooks.yaml").read_text("utf-8"))[0]["hooks"]
    there = ["Pulumi.yaml", "declarations/cluster.yaml", "declarations/notes.md"]
    given = [name for name in there if re.search(hook["files"], name)]
    assert given == ["declarations/cluster.yaml"]
    assert "1 document: 0 errors" in runner.run(("", f"{hook['entry']} {' '.join(given)}", {}))
