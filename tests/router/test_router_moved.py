"""A pod whose sandbox is made anew, or whose node began anew, comes back with its uid and another address."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any

from aks_inference_runtime.api.endpoint import EndpointSpec
from aks_inference_runtime.api.kubernetes import ENDPOINT_LABEL, GATE_VARIABLE, REPLICA_VARIABLE, VERSION_LABEL
from aks_inference_runtime.kubernetes import objects, routing
from aks_inference_runtime.router.model import RouterState, VersionKey
from aks_inference_runtime.router.ownership import AWAY
from testbed.processes import free_ports

UID = "5f6b9d1c-0c66-4f0e-9d3a-3f7f4f1f0a11"
CODE = {"entryScript": "score.py", "digest": f"sha256:{'0' * 64}"}
GATE = """
import asyncio, os, sys
from pathlib import Path
from aks_inference_runtime.kubernetes import gate
asyncio.run(gate.run(gate.settings_of(os.environ, Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])))
"""


class Pod:
    """A replica whose gate listens as in a pod, at the addresses that it has had."""

    def __init__(self, bed: Any, replica: Any) -> None:
        self._bed = bed
        self._upstream = str(bed.directory / f"{replica.id}.app")
        self._ports = free_ports(3)

    def start(self, address: str) -> subprocess.Popen[bytes]:
        data, control, ready = map(str, self._ports)
        told = {"version": "A", "listenHost": address, "listenPort": int(data), "upstreamPath": self._upstream}
        environment = {**os.environ, GATE_VARIABLE: json.dumps(told), REPLICA_VARIABLE: UID}
        socket = str(self._bed.directory / f"{address}.gate")
        gate = subprocess.Popen([sys.executable, "-c", GATE, socket, control, ready], env=environment)
        self._bed.others.append(gate)
        return gate

    def state(self, *addresses: str) -> RouterState:
        """As a router makes it of the version's EndpointSlice."""
        found = objects.slice_of(
            {
                "metadata": {"namespace": "ns", "labels": {ENDPOINT_LABEL: "svc", VERSION_LABEL: "A"}},
                "ports": [{"name": "gate", "port": self._ports[0]}, {"name": "gate-control", "port": self._ports[1]}],
                "endpoints": [{"addresses": [address], "targetRef": {"uid": UID}} for address in addresses],
            }
        )
        assert found is not None
        versions = [{"name": "A", "isDefault": True, "trafficPercentile": 100, "code": CODE}]
        spec = EndpointSpec.model_validate({"versions": versions, "auth": "none"})
        declared = objects.Declared("ns", "svc", "uid", 1, "2026-01-01T00:00:00Z", spec)
        replicas = routing.replicas_of([found])
        made = routing.route(declared, spec, replicas, frozenset(), routing.Part(None, AWAY))
        return RouterState({"svc": replace(made, tenure=None)})


async def serves(bed: Any, router: Any) -> None:
    async def answered() -> bool:
        load = router.load().get(VersionKey("svc", "A"))
        return load is not None and load.ready_replicas == 1 and (await bed.ask()).status == 200

    await bed.until(answered)


async def test_a_pod_that_comes_back_at_another_address_serves(bed: Any) -> None:
    pod, router = Pod(bed, await bed.replica()), await bed.router()
    first = pod.start("127.0.0.2")
    await router.apply(pod.state("127.0.0.2"))
    await serves(bed, router)
    first.kill()
    first.wait()
    pod.start("127.0.0.3")
    await router.apply(pod.state("127.0.0.3"))
    await serves(bed, router)


async def test_what_a_pod_had_before_its_node_was_lost_does_not_hold_it_up(bed: Any) -> None:
    pod, router = Pod(bed, await bed.replica()), await bed.router()
    first = pod.start("127.0.0.2")
    await router.apply(pod.state("127.0.0.2"))
    await serves(bed, router)
    held = asyncio.create_task(bed.ask(x_sleep_ms="60000", timeout=60))
    await bed.counts(router, busy=1)
    first.send_signal(signal.SIGSTOP)  # nothing ends the connection
    await router.apply(pod.state())
    pod.start("127.0.0.3")
    await router.apply(pod.state("127.0.0.3"))
    await serves(bed, router)
    # The stub took it twice: it was sent again, or answered, as with every lost replica.
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)
