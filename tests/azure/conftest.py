"""Stacks on the stand-in of Azure: the real components, the embedded engine, the provider protocol in between."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
STANDIN = Path(__file__).parent / "standin"
DATA = Path(os.environ.get("AKS_INFERENCE_DATA", ROOT.parent / "shared" / "data"))
TODAY = "2026-11-21"

ENGINE = Path(sys.executable).parent / "embedded-engine"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if DATA.is_dir():
        return
    skip = pytest.mark.skip(reason="no tables of Azure's API; AKS_INFERENCE_DATA names their folder")
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(skip)


class AzureStack:
    """A project with a stack of its own; several share one Azure."""

    def __init__(self, folder: Path, azure_folder: Path, name: str) -> None:
        self.project, self.name, self.patience_s = folder / name, name, 120
        self.project.mkdir(parents=True)
        launcher = folder / "bin" / "pulumi-resource-azure-native"
        launcher.parent.mkdir(exist_ok=True)
        launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STANDIN / "standin_provider.py"}" "$@"\n')
        launcher.chmod(0o755)
        described = {
            "name": name,
            "runtime": {"name": "python", "options": {"toolchain": "pip", "virtualenv": sys.prefix}},
            "plugins": {"providers": [{"name": "aks-inference", "path": str(ROOT / "provider")}]},
            "config": {"azure-native:location": {"value": "westeurope"}},
        }
        (self.project / "Pulumi.yaml").write_text(json.dumps(described))
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PULUMI_", "ARM_", "AZURE_"))}
        self.environment = kept | {
            "PATH": f"{launcher.parent}{os.pathsep}{os.environ['PATH']}",
            "PULUMI_BACKEND_URL": f"file://{self.project}",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_CONFIG_PASSPHRASE": "x",
            "STANDIN_FOLDER": str(azure_folder),
            "STANDIN_DATA": str(DATA),
            "STANDIN_TODAY": TODAY,
        }
        self.run("stack", "init", "dev", stack=False)

    def program(self, *arguments: str, resource: str = "prod", head: str = "") -> None:
        text = "import pulumi\nfrom aks_inference import AksInferenceCluster\n" + head
        text += f'cluster = AksInferenceCluster("{resource}", {", ".join(arguments)})\n'
        text += 'pulumi.export("name", cluster.cluster_name)\npulumi.export("hosts", cluster.required_hosts)\n'
        (self.project / "__main__.py").write_text(text)

    def run(self, *arguments: str, stack: bool = True, code: int = 0) -> str:
        done = subprocess.run(
            [str(ENGINE), *arguments, *(["--stack", "dev"] if stack else []), "--non-interactive"],
            cwd=self.project,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=self.patience_s,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def preview(self, code: int = 0) -> str:
        return self.run("preview", code=code)

    def steps(self) -> dict[str, int]:
        """Operation → how many, of a preview."""
        text = self.run("preview", "--json")
        return dict(json.loads(text[text.index("{") :])["changeSummary"])

    def up(self, code: int = 0) -> str:
        return self.run("up", "--yes", "--skip-preview", code=code)

    def destroy(self, code: int = 0) -> str:
        return self.run("destroy", "--yes", "--skip-preview", code=code)

    def state(self) -> dict[str, Any]:
        return dict(json.loads(self.run("stack", "export")))


@pytest.fixture
def azure(tmp_path: Path) -> Any:
    """The stand-in itself, in a folder of its own."""
    from standin_arm import Azure

    return Azure(tmp_path / "azure", DATA, date.fromisoformat(TODAY))


@pytest.fixture
def make_stack(tmp_path: Path, azure: Any) -> Callable[[str], AzureStack]:
    return lambda name="platform": AzureStack(tmp_path, tmp_path / "azure", name)


@pytest.fixture
def stack(make_stack: Callable[[str], AzureStack]) -> AzureStack:
    return make_stack("platform")


@pytest.fixture
def as_outputs() -> Callable[[AzureStack], dict[str, Any]]:
    """The outputs of a stack."""
    return lambda stack: dict(json.loads(stack.run("stack", "output", "--json")))


@pytest.fixture(scope="session")
def tables() -> Any:
    """How Pulumi's inputs and Azure's bodies belong together."""
    from standin_bodies import Tables

    return Tables(DATA / "arm")


@pytest.fixture(scope="session")
def new_azure(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Any]:
    """Makes one that is empty."""
    from standin_arm import Azure

    folder = tmp_path_factory.mktemp("azure")
    return lambda: Azure(folder / uuid.uuid4().hex, DATA, date.fromisoformat(TODAY))
