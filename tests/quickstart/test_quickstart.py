"""`./quickstart` as a new user runs it: the story's figures, its transcript, Ctrl-C, --keep."""

import contextlib
import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from left_running import running_under

ROOT = Path(__file__).resolve().parents[2]
STACK_FILE = ROOT / "Pulumi.quickstart.yaml"
LIMIT_S = 280
STEPS = ["train", "preview", "apply", "score", "rollout", "scale", "again", "destroy"]


def quickstart(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "quickstart"), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("port", ["0", "99999", "-1", "http", "", "1" * 5000])
def test_what_is_no_port_is_told_and_nothing_is_made(
    port: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = quickstart("--port", port)
    assert done.returncode == 2
    assert "number from 1 to 65,535" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.glob("aks-inference-quickstart-*")) == []


@pytest.mark.long
def test_the_story_in_json() -> None:
    """Its figures. The story itself fails where one is wrong, so that the run of the transcript looks at them, too."""
    done = quickstart("--json")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert list(lines) == STEPS
    assert all(line["ok"] for line in lines.values())
    assert lines["preview"]["changes"]["create"] >= 6
    assert lines["score"]["wrong_key"] == 401
    assert lines["score"]["largest_difference"] <= 1e-9
    rollout = lines["rollout"]
    assert rollout["during"]["failed"] == rollout["after"]["failed"] == 0
    assert rollout["during"]["sent"] >= 1000
    assert rollout["within_bound"] is True
    # The diff says that the endpoint changes, and nothing of the service does.
    assert "delete" not in rollout["changes"]
    assert "replace" not in rollout["changes"]
    assert not any("service" in name for name in rollout["diff"])
    assert any("boosted" in path or "versions" in path for paths in rollout["diff"].values() for path in paths)
    assert lines["scale"]["peak"] >= 3
    assert lines["scale"]["replicas"][-1] == 1
    assert lines["again"]["untouched"] is True
    assert lines["again"]["mistakes_named"] == 2
    assert lines["destroy"]["left"] == {"processes": 0, "ports": 0, "files": 0}
    assert not STACK_FILE.exists()


@pytest.mark.parametrize(
    ("hits", "within"), [(100, True), (69, True), (68, False), (131, True), (132, False), (0, False), (1000, False)]
)
def test_the_bound_of_the_split(hits: int, within: bool) -> None:
    """Of 1,000 at 10 %: 100 and 31.7 to both sides, which is 3.29 standard deviations and a half."""
    spec = importlib.util.spec_from_file_location("story_scoring", ROOT / "examples/quickstart/story/scoring.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # Its data classes look themselves up there.
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    assert module.within_binomial_bound(hits, 1_000, 0.1) is within


def shape(line: str) -> str:
    """A line without what differs from run to run: figures, bars, folders, spaces."""
    line = re.sub(r"\S*/aks-inference-quickstart-\w+", "<work>", line)
    # Siblings come in the order in which they were registered.
    line = re.sub(r"[├└│─]", " ", line)
    line = re.sub(r"█+", "█", line)
    # A minute and more is told as 1m5s.
    line = re.sub(r"\b\d+m(?=\d+s\b)", "", line)
    line = re.sub(r"-?\d+(\.\d+)?(e[-+]?\d+)?", "N", line)
    return re.sub(r"\s+", " ", line).strip()


def test_the_transcript_of_the_readme_is_true() -> None:
    transcript = re.search(r"^```text\n\$ \./quickstart\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert transcript, "the README shows a transcript"
    done = quickstart()
    assert done.returncode == 0, done.stdout + done.stderr
    now = {shape(line) for line in done.stdout.splitlines()}
    told = [shape(line) for line in transcript[1].splitlines() if line.strip() and not line.endswith("│ …")]
    # How often the count of replicas moves, and for which need, depends on the machine.
    told = [line for line in told if not re.match(r"N s █", line)]
    assert len(told) > 40
    assert [line for line in told if line not in now] == []
    headings = [line for line in done.stdout.splitlines() if re.match(r"\d\. ", line)]
    assert headings == [line for line in transcript[1].splitlines() if re.match(r"\d\. ", line)]


@pytest.mark.parametrize("sign", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_ctrl_c_in_the_middle_leaves_nothing(sign: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [str(ROOT / "quickstart"), "--json"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        # Until the first preview is over: the next thing is the apply, which is cut in its middle.
        lines = [json.loads(process.stdout.readline()) for _ in STEPS[:2]]
        assert [(line["step"], line["name"], line["ok"]) for line in lines] == [
            (1, "train", True),
            (2, "preview", True),
        ]
        assert lines[1]["changes"]["create"] >= 6
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("*/runtime/supervisor.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(sign)
        _, complaint = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, complaint
    assert "Traceback" not in complaint
    assert list(tmp_path.iterdir()) == []
    assert running_under(tmp_path) == {}
    assert not STACK_FILE.exists()


@pytest.mark.long
def test_kept_running_until_the_command_that_it_prints(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [str(ROOT / "quickstart"), "--json", "--keep"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    kept = json.loads(done.stdout.splitlines()[-1])
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        assert kept["name"] == "keep"
        look = subprocess.run(
            ["sh", "-c", kept["look"]], capture_output=True, text=True, check=True, env={"PATH": "/bin"}
        )
        assert "Healthy" in look.stdout
        (keys,) = Path(kept["keys"]).glob("diabetes.json")
        uri = urlsplit(kept["endpointUri"])
        with contextlib.closing(http.client.HTTPConnection(uri.netloc)) as connection:
            connection.request("POST", uri.path, b"{}")
            assert connection.getresponse().status == 401
        assert keys.stat().st_mode & 0o077 == 0
        again = subprocess.run([str(ROOT / "quickstart")], capture_output=True, text=True, check=False, timeout=60)
        assert again.returncode == 1
        assert "kept running" in again.stderr
    finally:
        ended = subprocess.run(["sh", "-c", kept["destroy"]], capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert list(tmp_path.iterdir()) == []
    assert running_under(tmp_path) == {}
    assert not STACK_FILE.exists()


@pytest.mark.long
@pytest.mark.skipif(shutil.which("pulumi") is None, reason="there is no `pulumi` on PATH")
def test_the_story_with_the_pulumi_cli() -> None:
    done = quickstart("--engine", "pulumi", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert list(lines) == STEPS
    assert all(line["ok"] for line in lines.values())
    assert lines["again"]["untouched"] is True
    assert lines["again"]["mistakes_named"] == 2
    assert lines["destroy"]["left"] == {"processes": 0, "ports": 0, "files": 0}
    assert not STACK_FILE.exists()


def test_pulumi_where_it_is_not_installed() -> None:
    environment = os.environ | {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [str(ROOT / ".venv/bin/python"), str(ROOT / "examples/quickstart/story"), "--engine", "pulumi"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "no `pulumi` on PATH" in done.stderr
    assert "Traceback" not in done.stderr
