"""Whole runs of a real program with a real provider: what is shown, what is kept, and what a kill leaves."""

import fcntl
import json
import os
import pty
import random
import resource
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from embedded_engine.secrets import crypter_of

LIMIT_S = 60
PROGRAM = """
import os
import pulumi

class Thing(pulumi.CustomResource):
    made: pulumi.Output[str]
    def __init__(self, name, opts=None, **inputs):
        super().__init__("cloud:index:Thing", name, {"made": None, **inputs}, opts)

config = pulumi.Config()
first = Thing("first", value=config.get("value") or "v", delay=float(config.get("delay") or 0))
things = [
    Thing(f"thing-{i}", value=first.made, key=config.get("key") or "k", n=config.get("value") or "v",
          delay=float(config.get("delay") or 0), fail=config.get("fail") == str(i))
    for i in range(int(config.get("count") or 3))
]
pulumi.export("made", first.made)
pulumi.export("closed", pulumi.Output.secret("s3cret-text"))
"""


class Run:
    """A stack whose program makes `count` things in a folder that is its cloud."""

    def __init__(self, workspace: Any) -> None:
        self.workspace = workspace
        self.cloud: Path = workspace.folder / "cloud"
        self.plugins: Path = workspace.folder / "plugins"
        self.cloud.mkdir()
        workspace.environment["CLOUD_FOLDER"] = str(self.cloud)
        source = Path(__file__).parent / "cloud"
        (workspace.project / "Pulumi.yaml").write_text(
            json.dumps(
                {
                    "name": "tested",
                    "runtime": "python",
                    "plugins": {"providers": [{"name": "cloud", "path": str(source)}]},
                }
            )
        )
        (workspace.project / "__main__.py").write_text(PROGRAM)

    def configure(self, **config: Any) -> None:
        path = self.workspace.project / "Pulumi.dev.yaml"
        salt = "v1:fXzlv8jotfE=:v1:ieTyVVKSWX0nl+mJ:Aumk86Qp7BmQSzDPsNQtmY07dL08bg=="
        content = {"encryptionsalt": salt, "config": {f"tested:{key}": str(value) for key, value in config.items()}}
        path.write_text(json.dumps(content))

    def up(self, *flags: str) -> str:
        done = self.workspace.process("up", "--yes", "--skip-preview", *flags)
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    def cloud_by_urn(self) -> dict[str, dict[str, Any]]:
        contents = [json.loads(path.read_text()) for path in self.cloud.glob("*.json")]
        return {content["urn"]: content for content in contents}

    def state(self) -> dict[str, Any]:
        content = json.loads(self.workspace.state_file.read_text())
        return dict(content["checkpoint"].get("latest") or {})

    def things(self) -> dict[str, dict[str, Any]]:
        return {r["urn"]: r for r in self.state().get("resources", []) if r["type"] == "cloud:index:Thing"}

    def wait_for_plugins(self) -> None:
        """Every plugin process that was started has ended."""
        pids = [int(path.name) for path in self.plugins.glob("*")] if self.plugins.exists() else []
        deadline = time.monotonic() + LIMIT_S
        while alive := [pid for pid in pids if psutil.pid_exists(pid) and not ended(pid)]:
            assert time.monotonic() < deadline, f"plugins that are left over: {alive}"
            time.sleep(0.02)


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def run(stack: Any) -> Run:
    return Run(stack)


def test_from_nothing_to_nothing_as_a_person_sees_it(run: Run) -> None:
    run.configure(count=1)
    preview = run.workspace.process("preview")
    assert (preview.returncode, preview.stderr) == (0, "")
    assert preview.stdout == (
        """Previewing update (dev):
     Type                  Name        Plan    Info
 +   pulumi:pulumi:Stack   tested-dev  create
 +   ├─ cloud:index:Thing  first       create
 +   └─ cloud:index:Thing  thing-0     create

Outputs:
  + closed: [secret]
  + made  : output<string>

Resources:
    + 3 to create

"""
    )
    assert run.things() == {}
    assert "    + 3 created\n" in run.up()
    assert "    3 unchanged\n" in run.up("--expect-no-changes")
    run.configure(count=1, value="w", key="l")
    text = run.workspace.process("preview", "--diff").stdout
    assert '      ~ value: "v" => "w"\n' in text
    assert '      ~ key: "k" => "l" (forces replacement)\n' in text
    done = run.workspace.process("preview", "--expect-no-changes")
    assert done.returncode != 0
    assert "no changes were expected" in done.stderr
    assert "+- 1 replaced" in run.up()
    done = run.workspace.process("destroy", "--yes")
    assert done.returncode == 0
    assert run.things() == run.cloud_by_urn() == {}
    run.wait_for_plugins()


def test_no_secret_is_in_plain_text_anywhere(run: Run) -> None:
    run.configure(count=1)
    printed = run.up() + run.up("--json") + run.up("--diff") + run.workspace.process("preview", "--json").stdout
    assert "s3cret-text" not in printed
    for path in run.workspace.folder.rglob("*"):
        if path.is_file() and "app" not in path.parts:
            assert b"s3cret-text" not in path.read_bytes()
    assert json.loads(run.workspace.must("stack", "output", "--json", "--show-secrets"))["closed"] == "s3cret-text"


def test_an_unchanged_up_keeps_every_ciphertext(run: Run) -> None:
    run.configure(count=1)
    run.up()
    before = run.state()["resources"]
    run.up()
    assert [r.get("outputs") for r in run.state()["resources"]] == [r.get("outputs") for r in before]
    assert "ciphertext" in json.dumps(before)


def test_a_wrong_passphrase_is_noticed_before_anything_is_made(run: Run) -> None:
    run.configure(count=1)
    done = run.workspace.process("up", "--yes", "--skip-preview", PULUMI_CONFIG_PASSPHRASE="y")
    assert (done.returncode, done.stderr) == (255, "error: incorrect passphrase\n")
    assert run.cloud_by_urn() == {}


def test_of_two_at_once_one_is_refused(run: Run) -> None:
    run.configure(count=2, delay=1)
    first = run.workspace.start("up", "--yes", "--skip-preview")
    wait_until(lambda: any(run.workspace.lock_folder.glob("*.json")))
    second = run.workspace.process("up", "--yes", "--skip-preview")
    assert second.returncode == 255
    assert "currently locked by 1 lock(s)" in second.stderr
    assert f"(pid {first.pid})" in second.stderr
    out, err = first.communicate(timeout=LIMIT_S)
    assert first.returncode == 0, out + err
    assert list(run.workspace.lock_folder.glob("*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_keeps_what_it_made(run: Run, number: signal.Signals) -> None:
    run.configure(count=6, delay=0.6)
    process = run.workspace.start("up", "--yes", "--skip-preview", "--parallel", "2")
    wait_until(lambda: len(run.cloud_by_urn()) >= 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode not in (0, None), out + err
    assert "Traceback" not in err
    assert len(run.cloud_by_urn()) < 7
    told_of_all(run)
    run.wait_for_plugins()
    assert list(run.workspace.lock_folder.glob("*")) == []
    run.up()
    assert set(run.things()) == set(run.cloud_by_urn())


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_reader_that_leaves_does_not_end_the_run(run: Run, flags: list[str]) -> None:
    run.configure(count=6, delay=0.2)
    process = run.workspace.start("up", "--yes", "--skip-preview", *flags)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert err == "warning: the output ends here (Broken pipe); the run goes on\n"
    assert len(run.things()) == 7
    assert set(run.things()) == set(run.cloud_by_urn())


def test_a_failure_exits_with_one_and_is_told(run: Run) -> None:
    run.configure(count=2, fail=1)
    done = run.workspace.process("up", "--yes", "--skip-preview")
    assert (done.returncode, done.stderr) == (1, "")
    assert "**creating failed**" in done.stdout
    assert "    error: create failed as asked\n" in done.stdout
    told_of_all(run)


def test_a_disk_that_is_full_in_the_middle_leaves_the_last_state_whole(run: Run) -> None:
    run.configure(count=30, delay=0.01)
    process = run.workspace.start(
        "up",
        "--yes",
        "--skip-preview",
        "--parallel",
        "2",
        # The program and the plugin write no files of that size.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000)),
    )
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode not in (0, None)
    assert (out + err).count("no room is left on the disk") == 1
    assert "Traceback" not in out + err
    assert 0 < len(run.cloud_by_urn()) < 31
    told_of_all(run)
    run.wait_for_plugins()
    run.up()
    assert set(run.things()) == set(run.cloud_by_urn())
    assert len(run.things()) == 31


@pytest.mark.parametrize(
    "damage", ["", '{"version":3,"checkpoint":{"latest":{"resources":[{}]}}}', '{"version":9,"checkpoint":{}}']
)
@pytest.mark.parametrize("command", ["preview", "up", "refresh", "destroy"])
def test_a_damaged_or_newer_state_is_not_touched(run: Run, command: str, damage: str) -> None:
    run.configure()
    run.workspace.state_file.write_text(damage)
    flags = [] if command == "preview" else ["--yes", "--skip-preview"]
    done = run.workspace.run(command, *flags)
    assert done.returncode == 255
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stdout + done.stderr
    assert run.workspace.state_file.read_text() == damage
    assert list(run.workspace.lock_folder.glob("*")) == []


@pytest.mark.parametrize("answers", [["details", "yes"], ["no"], ["\x03"]])
def test_a_person_is_asked(run: Run, answers: list[str]) -> None:
    run.configure(count=1)
    main, side = pty.openpty()
    environment = {**run.workspace.environment, "TERM": "xterm"}
    process = run.workspace.start(
        "up", stdin=side, stdout=side, stderr=side, env=environment, start_new_session=True, preexec_fn=take_terminal
    )
    os.close(side)
    seen = ""
    for answer in answers:
        seen += read_until(main, "[no]: ")
        os.write(main, f"{answer}\n".encode())
    process.wait(LIMIT_S)
    seen += read_until(main, None)
    os.close(main)
    if answers[-1] == "yes":
        assert "cloud:index:Thing (first): (create)" in seen
        assert process.returncode == 0
        assert set(run.things()) == set(run.cloud_by_urn()) != set()
    else:
        assert process.returncode == 255
        assert ("confirmation declined" if answers == ["no"] else "interrupted") in seen
        assert run.cloud_by_urn() == {}
    assert list(run.workspace.lock_folder.glob("*")) == []


def take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def read_until(descriptor: int, text: str | None) -> str:
    """What comes up to that text, or up to the end."""
    seen = b""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if select.select([descriptor], [], [], 0.1)[0]:
            try:
                piece = os.read(descriptor, 10_000)
            except OSError:
                # Nobody holds the other side any more.
                return seen.decode()
            seen += piece
        if text is not None and text.encode() in seen:
            return seen.decode()
    raise AssertionError(f"{text!r} did not come, but {seen.decode()!r}")


def test_a_stack_can_refer_to_another(run: Run) -> None:
    run.configure(count=1)
    run.up()
    run.workspace.must("stack", "init", "other", "--no-select")
    (run.workspace.project / "__main__.py").write_text(
        """
import pulumi

dev = pulumi.StackReference("organization/tested/dev")
pulumi.export("made", dev.get_output("made"))
pulumi.export("closed", dev.get_output("closed"))
"""
    )
    run.up("--stack", "other")
    made = next(iter(r for urn, r in run.things().items() if urn.endswith("::first")))["id"]
    outputs = json.loads(run.workspace.must("stack", "output", "--json", "--stack", "other"))
    assert outputs == {"made": made, "closed": "[secret]"}
    shown = json.loads(run.workspace.must("stack", "output", "--json", "--show-secrets", "--stack", "other"))
    assert shown["closed"] == "s3cret-text"


def test_a_reference_to_no_stack_is_said(run: Run) -> None:
    run.configure()
    (run.workspace.project / "__main__.py").write_text(
        'import pulumi\npulumi.export("x", pulumi.StackReference("nothing").get_output("a"))\n'
    )
    done = run.workspace.process("preview")
    assert done.returncode != 0
    assert "no stack named 'nothing' found" in done.stdout + done.stderr


def test_every_run_begins_with_a_refresh_where_the_project_says_so(run: Run) -> None:
    run.configure(count=1)
    run.up()
    for path in run.cloud.glob("*.json"):
        path.unlink()
    assert "    3 unchanged\n" in run.up()
    file = run.workspace.project / "Pulumi.yaml"
    file.write_text(json.dumps({**json.loads(file.read_text()), "options": {"refresh": "always"}}))
    assert "    3 unchanged\n" in run.up("--refresh=false")
    assert "    + 2 created\n" in run.up()
    assert set(run.things()) == set(run.cloud_by_urn()) != set()


PHASES = ["create", "update", "replace", "destroy"]


def kill_and_look(run: Run, command: list[str], wait_s: float) -> bool:
    """Starts the command and kills it after that time; whether it was still running. Nothing may be lost in silence."""
    process = run.workspace.start(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(wait_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        run.wait_for_plugins()
        told_of_all(run)
        return True
    return False


def told_of_all(run: Run) -> None:
    """Everything in the cloud is in the state or a pending operation, and the state can be read."""
    state = run.state()
    told = set(run.things()) | {o["resource"]["urn"] for o in state.get("pending_operations", [])}
    assert set(run.cloud_by_urn()) <= told


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kills(run: Run, rounds: int, seed: int) -> int:
    """Kills a run again and again at random moments, until each phase has come to its end; the number of kills."""
    chance = random.Random(seed)
    hits = 0
    for phase in PHASES:
        values = {"create": ("a", "k"), "update": ("b", "k"), "replace": ("b", "l"), "destroy": ("b", "l")}[phase]
        run.configure(count=8, delay=0.05, value=values[0], key=values[1])
        name = "destroy" if phase == "destroy" else "up"
        command = [name, "--yes", "--skip-preview", "--parallel", "3"]
        hits += sum(kill_and_look(run, command, chance.uniform(0.4, 1.6)) for _ in range(rounds))
        pending = run.state().get("pending_operations", [])
        done = run.workspace.process(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        for operation in pending:
            assert operation["resource"]["urn"] in done.stdout
            assert operation["type"] in done.stdout
        things, cloud = run.things(), run.cloud_by_urn()
        assert set(things) == set(cloud)
        assert len(things) == (0 if phase == "destroy" else 9)
        assert len(list(run.cloud.glob("*.json"))) == len(cloud)
        assert run.state().get("pending_operations", []) == []
    return hits


def test_a_killed_run_loses_nothing_in_silence(run: Run) -> None:
    assert kills(run, 1, seed=7) >= 1


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(5))
def test_runs_killed_many_times_lose_nothing_in_silence(run: Run, seed: int) -> None:
    assert kills(run, 6, seed) >= 6


def test_what_was_being_created_is_told_until_it_is_settled_or_taken_off(run: Run) -> None:
    run.configure(count=1, delay=600)
    process = run.workspace.start("up", "--yes", "--skip-preview", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: "Thing::first" in json.dumps(run.state().get("pending_operations")))
    process.kill()
    process.wait()
    run.wait_for_plugins()
    told = "cloud:index:Thing::first, interrupted while creating"
    for command in (["preview"], ["preview", "--refresh"], ["refresh", "--yes"]):
        done = run.workspace.process(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        assert told in done.stdout
    assert len(run.state()["pending_operations"]) == 1
    assert run.workspace.process("destroy", "--yes", "--skip-preview").returncode == 0
    refused = run.workspace.process("stack", "rm", "--yes")
    assert refused.returncode == 255
    assert "left operations of which the end is not known" in refused.stderr
    assert told in run.workspace.process("refresh", "--yes", "--skip-preview", "--clear-pending-creates").stdout
    assert "pending_operations" not in run.state()
    run.workspace.must("stack", "rm", "--yes")


def test_the_state_of_a_killed_run_is_encrypted_and_whole(run: Run) -> None:
    run.configure(count=8, delay=0.05)
    run.up()
    run.configure(count=8, delay=0.05, value="w")
    kill_and_look(run, ["up", "--yes", "--skip-preview"], 1.0)
    text = run.workspace.state_file.read_text()
    assert "s3cret-text" not in text
    salt = run.state()["secrets_providers"]["state"]["salt"]
    hidden = next(r for r in run.state()["resources"] if r["type"] == "pulumi:pulumi:Stack")["outputs"]["closed"]
    assert json.loads(crypter_of("x", salt).decrypt(hidden["ciphertext"])) == "s3cret-text"
    assert run.workspace.state_file.stat().st_mode & 0o077 == 0
