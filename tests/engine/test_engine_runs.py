"""Whole runs of a real program with a real provider: what is shown, what is kept, and what a kill leaves."""

import fcntl
import json
import os
import pty
import resource
import select
import signal
import termios
import time

import pytest
from engine_cloud import LIMIT_S, Run, told_of_all, wait_until

NO_WRAP, WRAP = "\x1b[?7l", "\x1b[?7h"
"""Around each drawing of the tree on a terminal."""


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
    assert process.returncode == 130, out + err
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
        # Preview and update are drawn again and again, and the terminal is given back as it was.
        assert seen.count(NO_WRAP) == seen.count(WRAP) >= 2
        assert NO_WRAP in seen[: seen.index("[no]: ")]
        assert NO_WRAP in seen[seen.rindex("[no]: ") :]
        assert "+ 3 created" in seen[seen.rindex(WRAP) :]
        assert set(run.things()) == set(run.cloud_by_urn()) != set()
    else:
        assert process.returncode == (255 if answers == ["no"] else 130)
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
