"""The supervisor with real replicas and gates; only the router is a stand-in."""

import asyncio
import errno
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.api.client import LocalSettings, ModelRegistration, SupervisorClient, read_record
from aks_inference_runtime.api.errors import Conflict, OperationFailed
from aks_inference_runtime.api.status import ServiceState
from aks_inference_runtime.autoscaler.policy import Decision
from aks_inference_runtime.local import supervisor
from aks_inference_runtime.local.capacity import machine
from aks_inference_runtime.local.checks import check
from aks_inference_runtime.local.serve import serve
from aks_inference_runtime.router.model import VersionKey
from testbed.processes import free_ports


async def test_deploys_scores_and_deletes(cluster: Any) -> None:
    status = await cluster.supervisor.put_endpoint(cluster.endpoint("svc", cluster.version("a-1")))
    assert (status.state, status.generation, status.observed_generation) == (ServiceState.TRANSITIONING, 1, 0)
    status = await cluster.served("svc")
    assert (status.state, status.versions[0].replicas_ready) == (ServiceState.HEALTHY, 1)
    (target,) = cluster.router.targets(ready=True)
    code, body = await cluster.score(target)
    assert (code, body["answer"]) == (200, 1)
    await cluster.supervisor.delete_endpoint("svc")
    assert cluster.router.targets() == []
    assert list(cluster.paths.replicas.iterdir()) == []
    assert list(cluster.paths.endpoints.iterdir()) == []
    assert list(cluster.paths.keys.iterdir()) == []
    await asyncio.sleep(0)


async def test_a_changed_script_rolls_without_a_gap(cluster: Any) -> None:
    await cluster.supervisor.put_endpoint(cluster.endpoint("svc", cluster.version("a-1")))
    await cluster.served("svc")
    first = cluster.router.targets(ready=True)
    mark = len(cluster.router.history)
    changed = cluster.version("a-1", cluster.code("code2", answer=2))
    status = await cluster.supervisor.put_endpoint(cluster.endpoint("svc", changed))
    assert (status.generation, status.observed_generation) == (2, 1)
    await cluster.served("svc")
    second = cluster.router.targets(ready=True)
    assert {t.id for t in first}.isdisjoint(t.id for t in second)
    for state in cluster.router.history[mark:]:
        (version,) = state.endpoints["svc"].versions
        assert any(t.ready for t in version.replicas), "a moment without a ready replica"
    code, body = await cluster.score(second[0])
    assert (code, body["answer"]) == (200, 2)
    await cluster.until(lambda: len(list(cluster.paths.replicas.glob("*.json"))) == 1, "the old replica is gone")


async def test_an_old_replica_finishes_what_it_has(cluster: Any) -> None:
    await cluster.supervisor.put_endpoint(cluster.endpoint("svc", cluster.version("a-1")))
    await cluster.served("svc")
    (target,) = cluster.router.targets(ready=True)
    running = asyncio.create_task(cluster.score(target, {"sleep": 4}))
    await cluster.supervisor.put_endpoint(
        cluster.endpoint("svc", cluster.version("a-1", cluster.code("code2", answer=2)))
    )
    await cluster.served("svc")
    assert not running.done(), "the change waited for the request"
    assert (await running)[0] == 200


async def test_weights_keys_and_waits_touch_no_replica(cluster: Any) -> None:
    a = cluster.version("a-1", traffic_percentile=100)
    await cluster.supervisor.put_endpoint(cluster.endpoint("svc", a))
    await cluster.served("svc")
    before = {t.id for t in cluster.router.targets()}
    b = cluster.version("b-1", traffic_percentile=10, is_default=False)
    await cluster.supervisor.put_endpoint(cluster.endpoint("svc", a.model_copy(update={"traffic_percentile": 90}), b))
    shares = []
    for _ in range(400):
        shares.append({v.name: v.traffic for v in cluster.router.state.endpoints["svc"].versions})
        if cluster.status("svc").observed_generation == 2:
            break
        await asyncio.sleep(0.05)
    assert shares[0] == {"a-1": 10_000}, "B gets nothing before it is ready"
    assert {v.name: v.traffic for v in cluster.router.state.endpoints["svc"].versions} == {"a-1": 9_000, "b-1": 1_000}
    both = {t.id for t in cluster.router.targets()}
    assert before < both
    submission = cluster.endpoint("svc", a.model_copy(update={"traffic_percentile": 20}), b)
    await cluster.supervisor.put_endpoint(submission.model_copy(update={"primary_key": "new-key-1"}))
    await cluster.served("svc")
    assert {t.id for t in cluster.router.targets()} == both
    assert cluster.supervisor.keys("svc").primary_key == "new-key-1"
    # The same again is nothing new, although no key is given.
    status = await cluster.supervisor.put_endpoint(submission)
    assert status.generation == status.observed_generation == 3


async def test_a_script_that_throws_in_init_fails_and_the_others_go_on(cluster: Any) -> None:
    await cluster.supervisor.put_endpoint(cluster.endpoint("good", cluster.version("a-1")))
    await cluster.served("good")
    bad = cluster.code("bad", "def init():\n    raise RuntimeError('no such weights')\ndef run(data):\n    return 1\n")
    await cluster.supervisor.put_endpoint(cluster.endpoint("bad", cluster.version("a-1", bad)))
    await cluster.until(lambda: cluster.status("bad").state is ServiceState.FAILED, "Failed")
    message = cluster.status("bad").versions[0].message
    assert "no such weights" in message
    assert "exit code 3" in message
    assert cluster.status("good").state is ServiceState.HEALTHY
    await cluster.until(lambda: len(list(cluster.paths.replicas.glob("*.json"))) == 1, "nothing is left of the failed")
    # Mended, it comes up.
    await cluster.supervisor.put_endpoint(cluster.endpoint("bad", cluster.version("a-1")))
    assert cluster.status("bad").state is ServiceState.TRANSITIONING
    await cluster.served("bad")


async def test_a_bad_new_version_leaves_the_old_one_serving(cluster: Any) -> None:
    await cluster.supervisor.put_endpoint(cluster.endpoint("svc", cluster.version("a-1")))
    await cluster.served("svc")
    bad = cluster.code("bad", "def init():\n    raise RuntimeError('no')\ndef run(data):\n    return 1\n")
    await cluster.supervisor.put_endpoint(cluster.endpoint("svc", cluster.version("a-1", bad)))
    await cluster.until(lambda: cluster.status("svc").state is ServiceState.FAILED, "Failed")
    (target,) = cluster.router.targets(ready=True)
    assert (await cluster.score(target))[0] == 200


async def test_a_killed_replica_is_replaced(cluster: Any) -> None:
    await cluster.supervisor.put_endpoint(cluster.endpoint("svc", cluster.version("a-1")))
    await cluster.served("svc")
    (replica,) = cluster.supervisor.endpoint("svc").replicas()
    os.kill(replica.record.server_pid, signal.SIGKILL)
    await cluster.until(lambda: not cluster.router.targets(ready=True), "taken off the router", 5)
    await cluster.until(lambda: cluster.router.targets(ready=True), "a new one", 30)
    assert cluster.router.targets(ready=True)[0].id != replica.id
    assert cluster.status("svc").state is ServiceState.HEALTHY


async def test_a_replica_leaves_once_the_router_can_be_told(cluster: Any) -> None:
    """A full disk, for instance: until then it goes on serving, and afterwards it is not forgotten."""
    two, one = (cluster.version("a-1", scaling={"autoscale_enabled": False, "num_replicas": n}) for n in (2, 1))
    await cluster.supervisor.put_endpoint(cluster.endpoint("svc", two))
    await cluster.served("svc")
    apply, until = cluster.router.apply, time.monotonic() + 1

    async def full_at_first(state: Any) -> None:
        if time.monotonic() < until:
            raise OSError(errno.ENOSPC, "No space left on device")
        await apply(state)

    cluster.router.apply = full_at_first
    await cluster.supervisor.put_endpoint(cluster.endpoint("svc", one))
    await cluster.until(lambda: len(list(cluster.paths.replicas.glob("*.json"))) == 1, "one has left", 20)
    assert len(cluster.router.targets(ready=True)) == 1


async def test_a_model_is_not_deleted_while_an_endpoint_that_names_it_is_declared(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "weights").write_text("w")
    await cluster.supervisor.put_model(ModelRegistration(name="m", source_path=str(tmp_path / "weights")))
    looked, go_on = threading.Event(), threading.Event()

    def slow(*given: Any) -> None:
        check(*given)
        looked.set()
        go_on.wait(20)

    monkeypatch.setattr(supervisor, "check", slow)
    version = cluster.version("a-1", models=[{"name": "m", "version": 1}])
    declaring = asyncio.create_task(cluster.supervisor.put_endpoint(cluster.endpoint("svc", version)))
    await asyncio.to_thread(looked.wait, 20)
    deleting = asyncio.create_task(cluster.supervisor.delete_model("m", 1))
    await asyncio.wait({deleting}, timeout=0.3)
    go_on.set()
    await declaring
    with pytest.raises(Conflict, match="used by svc"):
        await deleting


async def test_room_is_less_by_what_is_already_wanted(cluster: Any) -> None:
    """Replicas that are still to come have their place: the next decision must not count it as free (I5)."""
    cores = machine().cpu_cores
    version = cluster.version("a-1", resources={"cpu_cores": cores / 4}, scaling={"autoscale_refresh_seconds": 3_600})
    await cluster.supervisor.put_endpoint(cluster.endpoint("svc", version))
    await cluster.served("svc")
    key = VersionKey("svc", "a-1")
    before = cluster.supervisor.targets()[key]
    assert (before.current, before.room()) == (1, 3)
    cluster.supervisor.scale(key, Decision(3, "for the test"))
    after = cluster.supervisor.targets()[key]
    assert (after.current, after.room()) == (3, 1)
    assert before.room() == 1, "also for who was asked in the same round"


async def test_a_shutdown_that_did_not_end_all_says_so(cluster: Any, tmp_path: Path) -> None:
    directory = tmp_path / "other"
    directory.mkdir(mode=0o700)
    router = type(cluster.router)()

    async def stop() -> None:
        raise RuntimeError("one is still there")

    router.stop = stop
    ready = asyncio.Event()
    settings = LocalSettings(name="other", state_directory=str(directory), port=free_ports(1)[0])
    serving = asyncio.create_task(serve(settings, lambda *_: router, lambda _: ready.set(), "1"))
    async with asyncio.timeout(30):
        await ready.wait()
        with pytest.raises(OperationFailed, match="one is still there"):
            await SupervisorClient(directory).shutdown(remove=True)
        await serving
    record = read_record(directory)
    assert record is not None
    shutil.rmtree(record.run_directory)
