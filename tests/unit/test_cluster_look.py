"""`aks-inference status | top | wait` on a cluster: the command as a process."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from looked_at import COMMAND, ApiServer, endpoint, pod, run, serving

from aks_inference_runtime.kubernetes.status import FIGURES


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    async with serving(tmp_path) as made:
        yield made


async def test_status_and_top(server: ApiServer, tmp_path: Path) -> None:
    older = endpoint("fraud", "team-a", "2025-01-01T00:00:00Z", version={"utilization": 10.0})
    server.endpoints = [endpoint("churn"), older, endpoint("fraud", "team-b", state="Unhealthy")]
    server.pods = [pod("churn-1"), pod("churn-2", ready=False, restarts=4, waiting="CrashLoopBackOff")]
    (code, out, err), (_, lines, _), (_, one, _), (_, busy, _), (_, busy_json, _) = await asyncio.gather(
        run(tmp_path, "status"),
        run(tmp_path, "--json", "status", "churn"),
        run(tmp_path, "--namespace", "team-b", "status", "fraud"),
        run(tmp_path, "top"),
        run(tmp_path, "--json", "top", "churn", "--count", "2", "--interval", "0.1"),
    )
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"cluster {server.url}"
    assert [line.split()[:3] for line in out.splitlines()[2:4]] == [
        ["churn", "blue", "Healthy"],
        ["fraud", "blue", "Healthy"],
    ]
    (version,) = json.loads(lines)["versions"]
    states = [(r["id"], r["state"], r["restarts"], r["address"]) for r in version["replicas"]]
    assert states == [("churn-1", "Ready", 0, "10.0.0.1"), ("churn-2", "BackOff", 4, "10.0.0.1")]
    assert (json.loads(lines)["generation"], json.loads(lines)["observedGeneration"]) == (4, 4)
    assert "endpoint fraud: Unhealthy" in one
    # What is used most comes first.
    rows = [line.split() for line in busy.splitlines()[1:]]
    assert [row[0] for row in rows] == ["churn", "fraud", "fraud"]
    assert rows[0][1:8] == ["blue", "200", "%", "3", "1", "1", "2"]
    told = [json.loads(line)["endpoints"] for line in busy_json.splitlines()]
    assert [[e["name"] for e in look] for look in told] == [["churn"], ["churn"]]
    assert told[0][0]["versions"][0]["utilization"] == 200.0


async def test_waits_and_says_what_failed(server: ApiServer, tmp_path: Path) -> None:
    failed = endpoint("bad", state="Failed", message="blue: no such model file", conditions=[])
    later = endpoint("later", state="Transitioning", conditions=[])
    server.endpoints = [endpoint("churn"), failed, later]
    found = await asyncio.gather(
        run(tmp_path, "wait", "churn"),
        run(tmp_path, "wait", "bad"),
        run(tmp_path, "wait", "later", "--timeout", "0.2"),
        run(tmp_path, "score", "churn", "--data", "/dev/null"),
        run(tmp_path, "keys", "churn"),
        run(tmp_path, "--cluster", "local", "status"),
        run(tmp_path, "status", "none"),
    )
    assert [code for code, _, _ in found] == [0, 1, 1, 2, 2, 2, 3]
    said = ["", "endpoint bad failed: blue: no such model file", "endpoint later is not served whole after 0.2 s"]
    said += ["keys never reach the cluster", "this command is for a local cluster", "give options of one kind"]
    said += ["no endpoint none (endpoints: bad, churn, later)"]
    for (_, _, err), text in zip(found, said, strict=True):
        assert text in err


async def test_figures_that_are_lost_are_not_zero(server: ApiServer, tmp_path: Path) -> None:
    lost = endpoint("churn")
    for name in FIGURES - {"lastScaling"}:
        del lost["status"]["versions"][0][name]
    server.endpoints = [lost, endpoint("idle", version={"busy": 0, "queued": 0, "utilization": 0.0})]
    rows, one, busy, *told = await asyncio.gather(
        run(tmp_path, "status"),
        run(tmp_path, "status", "churn"),
        run(tmp_path, "top"),
        run(tmp_path, "--json", "status", "churn"),
        run(tmp_path, "--json", "wait", "churn"),
        run(tmp_path, "--json", "top", "churn", "--count", "1"),
    )
    assert [line.split()[-2:] for line in rows[1].splitlines()[2:]] == [["-", "-"], ["0", "0"]]
    assert "1 of 2 replicas ready, - busy, - queued, utilization -" in one[1]
    assert [line.split()[:5] for line in busy[1].splitlines()[1:]] == [
        ["idle", "blue", "0", "%", "0"],
        ["churn", "blue", "-", "-", "-"],
    ]
    for _, out, _ in told:
        found = json.loads(out)
        (version,) = found.get("endpoints", [found])[0]["versions"]
        assert [version[name] for name in ("busy", "queued", "utilization")] == [None, None, None]


async def test_what_is_said_of_an_older_generation_is_not_believed(server: ApiServer, tmp_path: Path) -> None:
    """Declared anew after it failed, and not looked at yet: neither what failed nor what was well is of that."""
    before: Any = {
        "observedGeneration": 3,
        "conditions": [{"type": "Ready", "status": "False", "observedGeneration": 3}],
    }
    said = {"state": "Failed", "message": "no such model file"}
    server.endpoints = [endpoint("mended", version=said, **said, **before), endpoint("well", **before)]
    waits = asyncio.create_task(run(tmp_path, "wait", "mended", "--timeout", "60"))
    shown, told, table = await asyncio.gather(
        run(tmp_path, "status"),
        run(tmp_path, "--json", "status", "well"),
        run(tmp_path, "--json", "top", "--count", "1"),
    )
    assert [line.split()[2] for line in shown[1].splitlines()[2:4]] == ["Transitioning", "Transitioning"]
    assert "no such model file" not in shown[1]
    assert "mended: the autoscaler has not looked at generation 4 yet" in shown[1]
    well = json.loads(told[1])
    assert [well["state"], well["versions"][0]["state"], well["versions"][0]["busy"]] == [*2 * ["Transitioning"], 3]
    assert {one["state"] for one in json.loads(table[1])["endpoints"]} == {"Transitioning"}
    assert not waits.done()
    server.endpoints[0] = endpoint("mended")
    assert (await waits)[0] == 0


async def test_who_logs_in_by_a_program(server: ApiServer, tmp_path: Path) -> None:
    server.endpoints = [endpoint("churn")]
    good, missing, unknown, none = await asyncio.gather(
        run(tmp_path, "--context", "program", "status"),
        run(tmp_path, "--context", "missing", "status"),
        run(tmp_path, "--context", "other", "status"),
        run(tmp_path / "nowhere", "status"),
    )
    assert good[0] == 0, good
    assert missing[0] == 2
    assert "logs in by 'no-such-login', which is not installed: get it" in missing[2]
    assert "has no context 'other' (there are: token, program, missing, team-b)" in unknown[2]
    assert (none[0], "no kubeconfig: " in none[2]) == (2, True)
    server.known = False
    code, _, err = await run(tmp_path, "status")
    assert (code, "the inference runtime is not on this cluster" in err) == (4, True)


async def test_who_logs_in_by_a_program_logs_in_again(server: ApiServer, tmp_path: Path) -> None:
    """Once, however many requests were refused."""
    server.endpoints = [endpoint("churn")]
    process = await asyncio.create_subprocess_exec(
        *(COMMAND, "--kubeconfig", str(tmp_path / "kubeconfig"), "--context", "program"),
        *("--json", "top", "--interval", "0.1"),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert b"churn" in await process.stdout.readline()
            (tmp_path / "token").write_text("another")
            server.token = "another"
            server.endpoints = [endpoint("later")]
            while b"later" not in (line := await process.stdout.readline()):
                assert b"churn" in line
    finally:
        process.terminate()
        await process.wait()
    assert (tmp_path / "logins").read_text() == "in\nin\n"


async def test_the_contexts_namespace(server: ApiServer, tmp_path: Path) -> None:
    server.endpoints = [endpoint("churn", "team-a"), endpoint("fraud", "team-b")]
    here, named, every, none, both = await asyncio.gather(
        run(tmp_path, "--context", "team-b", "status"),
        run(tmp_path, "--context", "team-b", "-n", "team-a", "status", "churn"),
        run(tmp_path, "--context", "team-b", "--all-namespaces", "status"),
        run(tmp_path, "--context", "team-b", "status", "churn"),
        run(tmp_path, "-n", "team-b", "-A", "status"),
    )
    assert here[1].splitlines()[0] == f"cluster {server.url}, namespace team-b"
    assert [line.split()[0] for line in here[1].splitlines()[2:]] == ["fraud"]
    assert "endpoint churn: Healthy" in named[1]
    assert [line.split()[0] for line in every[1].splitlines()[2:]] == ["churn", "fraud"]
    assert (none[0], "no endpoint churn in the namespace team-b (endpoints: fraud)" in none[2]) == (3, True)
    assert (both[0], "--namespace or --all-namespaces, not both" in both[2]) == (2, True)


async def test_what_is_asked_for_a_token(server: ApiServer, tmp_path: Path) -> None:
    """No pods: who calls an endpoint need not see them. Of one endpoint's state those of its own namespace."""
    server.endpoints = [endpoint("churn", "team-a")]
    code, _, err = await run(tmp_path, "token", "churn")
    assert (code, "endpoint churn takes no tokens" in err) == (2, True)
    assert server.asked == ["endpoints of None"]
    await run(tmp_path, "status", "churn")
    assert server.asked[1:] == ["endpoints of None", "pods of team-a"]
