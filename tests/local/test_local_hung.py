"""A scoring server that hangs: it accepts connections, and answers nothing."""

import os
import signal
from typing import Any

from aks_inference_runtime.api.status import ServiceState
from aks_inference_runtime.local import replica as replicas
from aks_inference_runtime.local import replicaset


async def test_a_hung_scoring_server_is_replaced_with_its_reason(cluster: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(replicas, "HUNG_AFTER_S", 0.5)
    # As one that served for long: it is replaced at once, and all the same its reason is told meanwhile.
    monkeypatch.setattr(replicaset, "STEADY_S", 0.0)
    version = cluster.version("a-1", requests={"scoring_timeout_ms": 1_000})
    await cluster.supervisor.put_endpoint(cluster.endpoint("svc", version))
    await cluster.served("svc")
    (replica,) = cluster.supervisor.endpoint("svc").replicas()
    (target,) = cluster.router.targets(ready=True)
    group = os.getpgid(replica.record.server_pid)
    assert group != os.getpgid(0)
    os.killpg(group, signal.SIGSTOP)
    try:
        assert (await cluster.score(target))[0] == 504
        await cluster.until(lambda: not cluster.router.targets(ready=True), "taken off the router", 15)
        status = cluster.status("svc").versions[0]
        assert status.state is ServiceState.UNHEALTHY
        assert f"replica {replica.id}: hung: no answer" in status.message
        await cluster.until(lambda: cluster.router.targets(ready=True), "a new one")
    finally:
        if replica.id in {r.id for r in cluster.supervisor.endpoint("svc").replicas()}:
            os.killpg(group, signal.SIGCONT)
    (new,) = cluster.router.targets(ready=True)
    assert new.id != replica.id
    assert (await cluster.score(new))[0] == 200
    assert "hung: no answer" in replica.record.log.read_text()
