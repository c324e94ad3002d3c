"""Further processes of a router that shares the work with others: its first process knows which there are."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from aks_inference_runtime.router.admin import AdminSocket
from aks_inference_runtime.router.model import RouterState
from aks_inference_runtime.router.ownership import Epoch, Phase, Tenure
from aks_inference_runtime.router.peers import Cluster
from aks_inference_runtime.router.process import sockets_directory
from aks_inference_runtime.router.slots import MAX_PROCESSES
from testbed.processes import free_ports


def held(state: RouterState) -> RouterState:
    """This router owns it."""
    endpoint = replace(state.endpoints["svc"], tenure=Tenure(Phase.HOLDING, Epoch(1, "a")))
    return RouterState({"svc": endpoint})


async def looked_at(bed: Any) -> set[int]:
    """The processes that the first one looks at."""
    stat = await AdminSocket(sockets_directory(bed.directory / "router") / "p0.admin").run("show stat")
    rows = {f"hop{number}": number for number in range(2, MAX_PROCESSES)}
    lines = [line.split(",") for line in stat.splitlines()]
    status = lines[0].index("status")
    found = {rows[line[0]]: line[status] for line in lines if line[0] in rows and line[1] == "next"}
    assert len(found) == len(rows)
    return {number for number, said in found.items() if said != "MAINT"}


async def test_what_is_not_there_is_not_looked_at(bed: Any, make_state: Callable[..., RouterState]) -> None:
    replica = await bed.replica()
    cluster = Cluster(owner_host="127.0.0.1", owner_port=free_ports(1)[0])
    router = await bed.router(cluster=cluster)
    usual = held(make_state({"A": (10_000, [replica])}))
    # No process is prepared for such times: the version gets one of its own.
    odd, other = (held(make_state({"A": (10_000, [replica])}, max_request_wait_time=ms)) for ms in (4_321, 5_432))
    await router.apply(usual)
    assert await looked_at(bed) == set()
    await router.apply(odd)
    assert await looked_at(bed) == {2}
    assert (await bed.ask()).status == 200
    # Started again, the first process begins with what there is.
    killed = bed.haproxy_pid()
    os.kill(killed, signal.SIGKILL)

    async def again() -> bool:
        return bool(bed.haproxy_pid() != killed)

    await bed.until(again)
    assert await looked_at(bed) == {2}
    assert (await bed.ask()).status == 200
    # Another agent finds out what there is.
    await bed.routers.pop().detach()
    await AdminSocket(sockets_directory(bed.directory / "router") / "p0.admin").run("set server hop2/next state maint")
    router = await bed.router(cluster=cluster)
    await router.apply(odd)
    assert await looked_at(bed) == {2}
    assert (await bed.ask()).status == 200
    await router.apply(other)
    assert await looked_at(bed) == {2, 3}
