"""A HAProxy that runs and answers nothing is told of, and only of the endpoints that it serves."""

import os
import signal

import pytest

from aks_inference_runtime.router import admin, fleet, hints


@pytest.mark.parametrize("name", ["p0", "p1", "port"])
async def test_a_hung_haproxy_is_told_until_it_answers_again(bed, make_state, monkeypatch, unused_port, name):
    monkeypatch.setattr(hints, "OTHERS_SECONDS", 0.3)
    monkeypatch.setattr(admin, "COMMAND_SECONDS", 0.3)
    monkeypatch.setattr(fleet, "SILENT_S", 0.6)
    replica = await bed.replica()
    router = await bed.router()
    # No slot of the first process has this waiting time: a second one has it.
    waits, port = (1_234 if name == "p1" else 500), None
    if name == "port":
        name, port = f"port-{unused_port}", unused_port
    await router.apply(make_state({"A": (10_000, [replica])}, port=port, max_request_wait_time=waits))
    assert router.problems() == {}
    pid = bed.haproxy_pid(name)

    async def told() -> bool:
        return bool(router.problems())

    async def quiet() -> bool:
        return not router.problems()

    os.kill(pid, signal.SIGSTOP)
    try:
        await bed.until(told)
        problem = router.problems()["svc"]
        assert problem.startswith(f"the router does not answer (haproxy {name}, pid {pid})")
    finally:
        os.kill(pid, signal.SIGCONT)
    await bed.until(quiet)
    assert (await bed.ask()).status == 200


async def test_a_hung_haproxy_that_is_ended_is_started_anew(bed, make_state, monkeypatch):
    """As the message says."""
    monkeypatch.setattr(admin, "COMMAND_SECONDS", 0.3)
    monkeypatch.setattr(fleet, "SILENT_S", 0.6)
    replica = await bed.replica()
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}))
    pid = bed.haproxy_pid()

    async def told() -> bool:
        return "svc" in router.problems()

    async def anew() -> bool:
        return bed.haproxy_pid() != pid and not router.problems()

    os.kill(pid, signal.SIGSTOP)
    try:
        await bed.until(told)
    finally:
        os.kill(pid, signal.SIGKILL)
    await bed.until(anew)
    assert (await bed.ask()).status == 200
