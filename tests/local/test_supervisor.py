"""The supervisor with real replicas and gates; only the router is a stand-in."""

import asyncio

from aks_inference_runtime.api.status import ServiceState


async def test_deploys_scores_and_deletes(cluster):
    status = await cluster.supervisor.put_endpoint(cluster.endpoint("svc", cluster.version("a-1")))
    assert (status.state, status.generation, status.observed_generation) == (ServiceState.TRANSITIONING, 1, 0)
    status = await cluster.served("svc", 120)
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
