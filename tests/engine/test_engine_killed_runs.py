"""Whole runs that are killed: nothing is lost in silence, and what was being made is told."""

import json
import random
import subprocess

import pytest
from engine_cloud import Run, told_of_all, wait_until

from embedded_engine.secrets import crypter_of

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
