"""Every command of the README is run, in order, as one shell session of a new user, and its program is previewed."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from testbed.processes import free_ports

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 280


def test_every_command_of_the_readme_works(tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    commands = "\n".join(blocks)
    assert "stack init dev\n" in commands
    port = f"embedded-engine config set --stack dev port {free_ports(1)[0]}"
    commands = commands.replace("stack init dev\n", f"stack init dev\n{port}\n")
    # What the user would see fail must fail here; what is left running after that is ended all the same.
    ending = "embedded-engine destroy --stack dev --yes; embedded-engine stack rm --stack dev --yes --force"
    script = f"set -eu\nended() {{ code=$?; [ $code = 0 ] || {{ {ending}; }} >&2; exit $code; }}\ntrap ended EXIT\n"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PULUMI_", "XDG_STATE"))}
    # The cache of scoring environments is the user's; state is this test's.
    environment |= {
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
    }
    done = subprocess.run(
        ["bash", "-c", script + commands],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (ROOT / "Pulumi.dev.yaml").exists()
    state = tmp_path / ".local" / "state" / "aks-inference"
    assert not list(state.rglob("supervisor.json"))


def test_the_program_of_the_readme_works(tmp_path: Path) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert 'LocalInferenceCluster("local")' in program
    program = program.replace('("local")', f'("local", port={free_ports(1)[0]})', 1)
    (tmp_path / "__main__.py").write_text(program)
    provider = {"name": "aks-inference", "path": str(ROOT / "provider")}
    project = {"name": "readme", "runtime": "python", "plugins": {"providers": [provider]}}
    # JSON is YAML.
    (tmp_path / "Pulumi.yaml").write_text(json.dumps(project))
    shutil.copytree(ROOT / "examples/quickstart/source", tmp_path / "source")
    (tmp_path / "models/ridge").mkdir(parents=True)
    (tmp_path / "models/ridge/model.joblib").write_bytes(b"a model")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PULUMI_")}
    environment |= {"PULUMI_BACKEND_URL": f"file://{tmp_path}", "PULUMI_CONFIG_PASSPHRASE": "x", "HOME": str(tmp_path)}
    for command in (["stack", "init", "dev"], ["preview", "--stack", "dev"]):
        done = subprocess.run(
            [str(ROOT / ".venv/bin/embedded-engine"), *command, "--non-interactive"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"ridge 100\.00 % \(default\): 1 to 4 replicas", done.stdout), done.stdout
