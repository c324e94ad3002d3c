"""Kill -9 at every point at which the state is written or a provider has made something: nothing is lost in silence."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LIMIT_S = 60
SALT = "v1:fXzlv8jotfE=:v1:ieTyVVKSWX0nl+mJ:Aumk86Qp7BmQSzDPsNQtmY07dL08bg=="
PROGRAM = """
import pulumi

class Thing(pulumi.CustomResource):
    made: pulumi.Output[str]
    def __init__(self, name, opts=None, **inputs):
        super().__init__("cloud:index:Thing", name, {"made": None, **inputs}, opts)

config = pulumi.Config()
first = Thing("first", value=config.require("value"), key=config.require("key"))
Thing("second", value=first.made, key=config.require("key"))
"""
# The engine, ended by itself just before or just after it has put a state file in its place for the n-th time.
SCRIPT = """
import os, pathlib, signal, sys
point, after = int(sys.argv.pop(1)), sys.argv.pop(1) == "after"
replace, count = os.replace, 0

def counted(source, target, **options):
    global count
    count += pathlib.Path(target).name == "dev.json"
    hit = count == point and pathlib.Path(target).name == "dev.json"
    if hit and not after:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target, **options)
    if hit:
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = counted
os.environ["ENGINE_PID"] = str(os.getpid())
from embedded_engine.cli import main
main()
"""
# What is in force before a phase, and what the phase makes of it; None is a destroy.
PHASES = {
    "create": (None, ("a", "k")),
    "update": (("a", "k"), ("b", "k")),
    "replace": (("a", "k"), ("a", "l")),
    "destroy": (("a", "k"), None),
}


class Cut:
    """A stack of two things in a folder that is its cloud, one new folder for each run that is cut."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cloud = folder, folder / "cloud"
        for name in ("app", "state", "home", "cloud"):
            (folder / name).mkdir(parents=True)
        provider = {"name": "cloud", "path": str(Path(__file__).parent / "cloud")}
        project = {"name": "tested", "runtime": "python", "plugins": {"providers": [provider]}}
        (folder / "app/Pulumi.yaml").write_text(json.dumps(project))
        (folder / "app/__main__.py").write_text(PROGRAM)
        (folder / "engine.py").write_text(SCRIPT)
        self.configure(("a", "k"))
        assert self.engine("stack", "init", "dev").returncode == 0

    def configure(self, values: tuple[str, str]) -> None:
        config = {"tested:value": values[0], "tested:key": values[1]}
        content = {"encryptionsalt": SALT, "config": config}
        (self.folder / "app/Pulumi.dev.yaml").write_text(json.dumps(content))

    def engine(
        self, *arguments: str, point: int = 0, after: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PULUMI_")}
        kept |= {
            "PULUMI_BACKEND_URL": f"file://{self.folder / 'state'}",
            "PULUMI_HOME": str(self.folder / "home"),
            "PULUMI_CONFIG_PASSPHRASE": "x",
            "CLOUD_FOLDER": str(self.cloud),
        }
        done = subprocess.run(
            [sys.executable, str(self.folder / "engine.py"), str(point), "after" if after else "before", *arguments],
            cwd=self.folder / "app",
            env=kept | environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + LIMIT_S
        while any(map(alive, self.plugins())):
            assert time.monotonic() < deadline, "a plugin outlives its engine"
            time.sleep(0.01)
        return done

    def plugins(self) -> list[int]:
        return [int(path.name) for path in (self.folder / "plugins").glob("*")]

    def go(self, values: tuple[str, str] | None, **options: Any) -> subprocess.CompletedProcess[str]:
        """Brings the stack to these values, or to nothing."""
        if values is not None:
            self.configure(values)
        command = ("destroy" if values is None else "up", "--yes", "--skip-preview", "--parallel", "1")
        return self.engine(*command, **options)

    def state(self) -> dict[str, Any]:
        (file,) = self.folder.glob("state/.pulumi/stacks/tested/dev.json")
        return dict(json.loads(file.read_text())["checkpoint"].get("latest") or {})

    def identities(self) -> set[str]:
        return {path.stem for path in self.cloud.glob("*.json")}


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def cut_and_look(folder: Path, phase: str, **options: Any) -> bool:
    """Cuts a run of the phase and lets the next one end it; whether there was anything to cut."""
    cut = Cut(folder)
    before, wanted = PHASES[phase]
    if before is not None:
        assert cut.go(before).returncode == 0
    done = cut.go(wanted, **options)
    killed = done.returncode == -signal.SIGKILL
    assert killed or done.returncode == 0, done.stdout + done.stderr
    state = cut.state()
    things = [r for r in state.get("resources", []) if r["type"] == "cloud:index:Thing"]
    pending = [o["resource"]["urn"] for o in state.get("pending_operations", [])]
    known = {r["id"] for r in things}
    creating = {o["resource"]["urn"] for o in state.get("pending_operations", []) if o["type"] == "creating"}
    for identity in cut.identities() - known:
        assert json.loads((cut.cloud / f"{identity}.json").read_text())["urn"] in creating
    assert {r["urn"] for r in things if r["id"] not in cut.identities()} <= set(pending)
    again = cut.go(wanted)
    assert again.returncode == 0, again.stdout + again.stderr
    assert all(f"{urn}, interrupted while" in again.stdout for urn in pending)
    assert bool(pending) == ("interrupted while" in again.stdout)
    left = cut.state()
    things = [r for r in left.get("resources", []) if r["type"] == "cloud:index:Thing"]
    assert {r["id"] for r in things} == cut.identities()
    assert len(things) == (0 if wanted is None else 2)
    assert not left.get("pending_operations")
    return killed


@given(
    phase=st.sampled_from(sorted(PHASES)),
    point=st.integers(1, 12),
    after=st.booleans(),
)
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_cut_at_some_writes_nothing_is_lost(
    tmp_path_factory: pytest.TempPathFactory, phase: str, point: int, after: bool
) -> None:
    cut_and_look(tmp_path_factory.mktemp("cut"), phase, point=point, after=after)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("phase", sorted(PHASES))
@pytest.mark.parametrize("after", [False, True])
def test_cut_at_every_write_nothing_is_lost(tmp_path: Path, phase: str, after: bool) -> None:
    point = 0
    while True:
        point += 1
        if not cut_and_look(tmp_path / str(point), phase, point=point, after=after):
            break
    assert point > 3


USUAL = {("create", "before"), ("create", "after"), ("replace", "after"), ("destroy", "before")}


@pytest.mark.parametrize(
    ("phase", "place"),
    [
        pytest.param(phase, place, marks=() if (phase, place) in USUAL else pytest.mark.long)
        for phase in sorted(PHASES)
        for place in ("before", "after")
    ],
)
def test_cut_beside_the_providers_own_change_nothing_is_lost(tmp_path: Path, phase: str, place: str) -> None:
    assert cut_and_look(tmp_path / "cut", phase, CLOUD_CUT=place)
