"""An init() that hangs is named while it hangs."""

from typing import Any

import pytest

from aks_inference_runtime.local import replicaset

HANGS = """
import time

def init():
    print("loads", "a", "model")
    time.sleep(600)

def run(data):
    return {}
"""


async def test_an_init_that_hangs_is_named_with_what_it_said_last(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicaset, "SLOW_START_S", 0.2)
    await cluster.supervisor.put_endpoint(cluster.endpoint("svc", cluster.version("a-1", cluster.code("hangs", HANGS))))

    def message() -> str:
        return str(cluster.status("svc").versions[0].message)

    await cluster.until(lambda: "loads a model" in message(), "the hanging replica is named", 120)
    (replica,) = cluster.supervisor.endpoint("svc").replicas()
    assert message().startswith(f"replica {replica.id} has been starting for ")
    assert "s and is given up after " in message()


async def test_a_replica_that_starts_in_time_is_not_named(cluster: Any) -> None:
    await cluster.supervisor.put_endpoint(cluster.endpoint("svc", cluster.version("a-1")))
    await cluster.served("svc")
    (found,) = cluster.supervisor.endpoint("svc")._sets.values()
    assert found.slow_start() == ""
