"""What a local cluster mends by itself once it can, and what it says until then."""

import asyncio
import contextlib
import errno
import io
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_disks import SmallDisks

from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.api.status import EndpointStatus, ServiceState, VersionStatus
from aks_inference_runtime.cli import show
from aks_inference_runtime.local import publisher as publishing
from aks_inference_runtime.local.environments import BuiltEnvironment
from aks_inference_runtime.local.publisher import Publisher
from aks_inference_runtime.local.replicaset import ReplicaSet
from aks_inference_runtime.router.model import RouterState


async def test_a_full_disk_is_told_in_the_status_and_goes_on_once_there_is_room(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full, tries, sync = True, 0, os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal tries
        if full and Path(f"/proc/self/fd/{descriptor}").readlink() == cluster.paths.endpoints / ".svc.json.new":
            tries += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    await cluster.supervisor.put_endpoint(cluster.endpoint("svc", cluster.version("a-1")))
    monkeypatch.setattr(os, "fsync", fsync)
    await cluster.until(lambda: tries >= 3, "written again and again")
    status = cluster.status("svc")
    says = (
        f"{cluster.paths.endpoints / 'svc.json'} cannot be written: No space left on device; "
        f"the disk is full: make room; it is tried again by itself"
    )
    assert (status.state, status.observed_generation, status.message) == (ServiceState.TRANSITIONING, 0, says)
    full = False
    status = await cluster.served("svc", 20)
    await cluster.until(lambda: cluster.status("svc").message == "", "nothing to say any more", 5)
    assert cluster.status("svc").state is ServiceState.HEALTHY
    told = [record for record in caplog.records if says in record.getMessage()]
    assert [record.levelno for record in told] == [logging.ERROR], "once, not at each try"


PRINTS = """
def init():
    print("x" * 100_000, flush=True)

def run(data):
    print("scored")
    return "ok"
"""


async def test_a_replica_starts_and_scores_while_the_disk_of_its_log_is_full(
    cluster: Any, request: pytest.FixtureRequest
) -> None:
    """Its lines are lost, and come again once there is room."""
    disks = SmallDisks()
    request.addfinalizer(disks.unmount)
    cluster.paths.logs.mkdir(parents=True, exist_ok=True)
    disks.mount(cluster.paths.logs, 64)
    with contextlib.suppress(OSError), (cluster.paths.logs / "filling").open("wb", buffering=0) as filling:
        while True:
            filling.write(bytes(1024))
    await cluster.supervisor.put_endpoint(cluster.endpoint("svc", cluster.version("a-1", cluster.code("code", PRINTS))))
    await cluster.served("svc", 60)
    (target,) = cluster.router.targets(ready=True)
    assert await cluster.score(target) == (200, "ok")
    (log,) = (cluster.paths.logs / "svc" / "a-1").glob("*.log")
    assert log.stat().st_size == 0
    (cluster.paths.logs / "filling").unlink()
    assert await cluster.score(target) == (200, "ok")
    assert "scored" in log.read_text()


async def test_a_router_that_does_not_take_the_state_is_logged_once_per_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(publishing, "RETRY_S", 0.0)
    answers: list[Exception | None] = [OperationFailed(text) for text in ("full", "full", "full", "cut")]
    answers += [None, OperationFailed("cut")]
    done = asyncio.Event()

    class Router:
        async def apply(self, _: RouterState) -> None:
            answer = answers.pop(0) if answers else done.set()
            if answer is not None:
                raise answer

    versions = iter(range(1_000_000))
    publisher = Publisher(Router(), lambda: RouterState({str(next(versions)): None}))  # type: ignore[arg-type,dict-item]
    work = asyncio.create_task(publisher.keep_trying())
    try:
        await asyncio.wait_for(done.wait(), 20)
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await publisher.close()
    assert [str(r.exc_info[1]) for r in caplog.records if r.exc_info] == ["full", "cut", "cut"]


async def test_a_version_whose_environment_lost_its_python_asks_for_it_anew(cluster: Any, tmp_path: Path) -> None:
    python = tmp_path / "environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    asked = 0

    class Environments:
        async def get(self, *_: object) -> BuiltEnvironment:
            nonlocal asked
            asked += 1
            python.unlink(missing_ok=True)
            python.symlink_to("/bin/sh")
            return BuiltEnvironment("key", tmp_path / "environment", "1.5.1")

    version = cluster.version("a-1")
    host = cluster.supervisor._host
    host.environments = Environments()
    await asyncio.to_thread(host.codes.put, version.code)
    replicas = ReplicaSet("svc", version, "template", host, lambda: None)
    await cluster.until(replicas.prepared, "prepared", 10)
    assert (asked, replicas.prepared()) == (1, True)
    python.unlink()
    python.symlink_to(tmp_path / "removed-by-an-upgrade")
    assert not replicas.prepared()
    await cluster.until(replicas.prepared, "prepared anew", 10)
    assert (asked, replicas.failed) == (2, "")


async def test_exit_code_3_of_a_replica_that_was_ready_is_not_blamed_on_its_start(
    cluster: Any, caplog: pytest.LogCaptureFixture
) -> None:
    script = "import os\ndef init():\n    pass\ndef run(data):\n    os._exit(3)\n"
    await cluster.supervisor.put_endpoint(cluster.endpoint("svc", cluster.version("a-1", cluster.code("code", script))))
    await cluster.served("svc")
    (target,) = cluster.router.targets(ready=True)
    score = asyncio.create_task(cluster.score(target))

    def told() -> list[str]:
        return [text for record in caplog.records if target.id in (text := record.getMessage())]

    try:
        await cluster.until(told, "the end is told", 30)
    finally:
        await asyncio.gather(score, return_exceptions=True)
    assert told()[0] == f"replica {target.id}: the scoring server ended with exit code 3"


def test_what_is_wrong_with_an_endpoint_is_shown_to_people() -> None:
    status = EndpointStatus(
        name="svc", state=ServiceState.TRANSITIONING, generation=1, message="a.json cannot be [written]"
    )
    for shown in (lambda c: show.overview(c, "heading", [status]), lambda c: show.details(c, status)):
        console = Console(file=io.StringIO(), width=20)
        shown(console)
        assert "a.json cannot be [written]" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_message_that_is_a_versions_is_shown_once() -> None:
    version = VersionStatus(name="blue", state=ServiceState.FAILED, message="no such file")
    status = EndpointStatus(
        name="svc", state=ServiceState.FAILED, generation=1, message="blue: no such file", versions=(version,)
    )
    console = Console(file=io.StringIO(), width=100)
    show.details(console, status)
    assert console.file.getvalue().count("no such file") == 1  # type: ignore[attr-defined]
