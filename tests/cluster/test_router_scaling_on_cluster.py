"""Routers that scale themselves, by a real API server: who owns the number, resizing in place, events; under load."""

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from aks_inference_runtime.api.kubernetes import AUTOSCALER_NAME, ROUTER_NAME, SETTINGS_VARIABLE, RuntimeSettings
from aks_inference_runtime.kubernetes import router_scaling
from testbed.control_plane import fake_node
from testbed.processes import Running
from testbed.router_scaling import LABELS, QUICK, SLOW, Told, deployment, holds, scaling
from testbed.routers import KEY, Bed, Load, served

MERGE = "application/merge-patch+json"
NODE = "node-of-the-test"
HEARD_S = 2.0
"""After which clients hear of a pod's end: later than the pod."""


def container(image: str = "none:1") -> dict[str, Any]:
    return {"name": "router", "image": image, "resources": {"requests": {"cpu": "250m", "memory": "64Mi"}}}


class World:
    """The routers' Deployment in a namespace, and pods that the test says are ready."""

    def __init__(self, cluster: Any, namespace: str) -> None:
        self.api, self.namespace = cluster.api, namespace
        self.pods = f"/api/v1/namespaces/{namespace}/pods"
        self.deployments = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        self.path = f"{self.deployments}/{ROUTER_NAME}"
        # Controllers would make it some seconds later.
        self.api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "default"}})

    def apply(self, image: str) -> None:
        """As who declares it does."""
        # No account: controllers make no pods of it, those of this test are the ones there are.
        body = deployment(None, {"serviceAccountName": "nobody", "containers": [container(image)]})
        answer = self.api.apply(self.path, body)
        assert answer.status in (200, 201), answer.message

    def replicas(self) -> int:
        return int(self.api.get(self.path).body["spec"]["replicas"])

    def pod(self, number: int, *, placed: bool = True) -> None:
        spec = {"containers": [container()], "automountServiceAccountToken": False}
        # Nothing places it where no scheduler has this name.
        spec |= {"nodeName": NODE} if placed else {"schedulerName": "nobody"}
        body = {"metadata": {"name": f"router-{number}", "labels": LABELS}, "spec": spec}
        deadline = time.monotonic() + 20
        while (answer := self.api.create(self.pods, body)).status != 201:
            assert time.monotonic() < deadline, answer.message  # the namespace's account is still to come
            time.sleep(0.05)
        if not placed:
            return
        address = f"127.0.0.{40 + number}"
        ready = {"type": "Ready", "status": "True"}
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [ready]}
        answer = self.api.call("PATCH", f"{self.pods}/router-{number}/status", {"status": status}, MERGE)
        assert answer.status == 200, answer.message

    def cpu(self) -> list[str]:
        found = self.api.get(self.pods).body["items"]
        return [pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] for pod in found]

    def events(self) -> list[str]:
        found = self.api.get(f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events").body["items"]
        return [one["reason"] for one in found if one["regarding"].get("name") == ROUTER_NAME and "action" in one]


async def test_cores_then_pods_and_no_apply_sets_the_number_back(
    cluster: Any, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_scaling, "LOOK_S", 0.05)
    world, told = World(cluster, namespace), Told(NODE, cores=32)
    await asyncio.to_thread(world.apply, "router:1")
    assert world.replicas() == 1, "as the API server makes it where nobody says a number"
    settings = RuntimeSettings(
        namespace=namespace,
        router_min_pods=2,
        router_max_pods=3,
        router_max_cores=0.5,
        router_scale_up_delay_s=0.3,
        router_scale_down_delay_s=0.3,
    )
    async with scaling(cluster.kubeconfig, settings, told) as scaler:
        await holds("the minimum", lambda: world.replicas() == 2)
        managers = {m["manager"] for m in cluster.api.get(world.path).body["metadata"]["managedFields"]}
        assert AUTOSCALER_NAME in managers
        await asyncio.to_thread(lambda: [world.pod(number) for number in range(2)])
        told.figures = SLOW
        await holds("more cores", lambda: world.cpu() == ["500m", "500m"], tell=lambda: scaler.decision)
        await holds("a pod more", lambda: world.replicas() == 3, tell=lambda: scaler.decision)
        await asyncio.to_thread(world.apply, "router:2")
        assert world.replicas() == 3, "an apply of another template leaves the number alone"
        await asyncio.to_thread(world.pod, 2)
        await holds("the new one is resized, too", lambda: world.cpu() == ["500m"] * 3, tell=lambda: scaler.decision)
        told.figures = QUICK
        await holds("fewer cores", lambda: world.cpu() == ["250m"] * 3, tell=lambda: scaler.decision)
        await holds("fewer pods", lambda: world.replicas() == 2, tell=lambda: scaler.decision)
        await holds("told", lambda: {"MoreCores", "MorePods", "FewerCores", "FewerPods"} <= set(world.events()))
        told.hpa = "somebody"
        await holds("an HPA is not fought", lambda: "somebody" in str(scaler.decision))


async def test_a_pod_that_fits_nowhere_keeps_no_cores_from_the_others(
    cluster: Any, namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(router_scaling, "LOOK_S", 0.05)
    caplog.set_level(logging.INFO)
    world, told = World(cluster, namespace), Told(NODE, cores=32)
    await asyncio.to_thread(world.apply, "router:1")
    settings = RuntimeSettings(
        namespace=namespace,
        router_min_pods=3,
        router_max_pods=4,
        router_max_cores=0.5,
        router_scale_up_delay_s=0.3,
    )
    async with scaling(cluster.kubeconfig, settings, told) as scaler:
        await asyncio.to_thread(lambda: [world.pod(number, placed=number < 2) for number in range(3)])
        told.figures = SLOW
        wanted = ["500m", "500m", "250m"]
        await holds("more cores where there are pods", lambda: world.cpu() == wanted, tell=lambda: scaler.decision)
        why = "waits for 1 pod that is not ready"
        await holds("the log says what is missing", lambda: why in caplog.text, tell=lambda: scaler.decision)
        assert world.replicas() == 3


class Kubelet:
    """Runs the Deployment's router pods as processes of this machine, on a node that is there as long as this is."""

    def __init__(self, bed: Bed) -> None:
        self.bed, self.api = bed, bed.cluster.api
        self.pods = f"/api/v1/namespaces/{bed.namespace}/pods"
        self.node = f"node-{uuid.uuid4().hex[:6]}"
        self.serving: list[str] = []
        """As kube-proxies have them: ready, and not known to leave."""
        self.most = 0
        self._leaving: set[str] = set()

    async def run(self, session: aiohttp.ClientSession) -> None:
        node = fake_node(self.node)
        del node["metadata"]["annotations"]  # type: ignore[attr-defined]
        await asyncio.to_thread(self.api.create, "/api/v1/nodes", node)
        beat = 0.0
        while True:
            if time.monotonic() - beat > 5:
                beat = time.monotonic()
                now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": now, "reason": "KubeletReady"}
                await self._patch(f"/api/v1/nodes/{self.node}/status", {"conditions": [ready]})
            found = (await asyncio.to_thread(self.api.get, self.pods)).body["items"]
            for pod in found:
                await self._keep(session, pod)
            await asyncio.sleep(0.1)

    async def _keep(self, session: aiohttp.ClientSession, pod: dict[str, Any]) -> None:
        name, bed = pod["metadata"]["name"], self.bed
        if not pod["spec"].get("nodeName"):
            return
        if name not in bed.routers:
            bed.addresses[name] = f"127.0.0.{50 + len(bed.addresses)}"
            bed.start_router(name)
        elif "deletionTimestamp" in pod["metadata"]:
            if name not in self._leaving:
                self._leaving.add(name)
                bed.routers[name].process.send_signal(signal.SIGTERM)
                asyncio.get_running_loop().call_later(HEARD_S, self._heard, name)
            elif bed.routers[name].process.poll() is not None:
                assert bed.routers[name].process.returncode == 0, bed.routers[name].tail()
                await asyncio.to_thread(bed.remove_pod, name)
            return
        ready = name in self.serving or await self._ready(session, bed.addresses[name])
        if ready and name not in self.serving:
            self.serving.append(name)
            self.most = max(self.most, len(self.serving))
        address = bed.addresses[name]
        conditions = [{"type": "Ready", "status": str(ready)}]
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": conditions}
        if pod["status"].get("podIP") != address or str(ready) not in str(pod["status"].get("conditions")):
            await self._patch(f"{self.pods}/{name}/status", status)

    def _heard(self, name: str) -> None:
        self.serving = [one for one in self.serving if one != name]

    async def _ready(self, session: aiohttp.ClientSession, address: str) -> bool:
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(f"http://{address}:{self.bed.agent_port}/readyz") as answer:
                return answer.status == 200
        return False

    async def _patch(self, path: str, status: dict[str, Any]) -> None:
        answer = await asyncio.to_thread(self.api.call, "PATCH", path, {"status": status}, MERGE)
        assert answer.status in (200, 404), answer.message


@contextlib.asynccontextmanager
async def autoscaling(bed: Bed, **settings: Any) -> AsyncIterator[None]:
    """The autoscaler's program, until the block ends."""
    told = bed.folder / f"autoscaler-{uuid.uuid4().hex[:6]}.json"
    told.write_text(json.dumps({"namespace": bed.namespace, "agentPort": bed.agent_port, **settings}))
    environment = {**os.environ, "KUBECONFIG": str(bed.cluster.kubeconfig), "POD_NAME": told.stem}
    environment |= {"POD_IP": "127.0.0.39", SETTINGS_VARIABLE: str(told)}
    environment.pop("KUBERNETES_SERVICE_HOST", None)
    command = [sys.executable, "-m", "aks_inference_runtime.kubernetes.autoscaler"]
    one = Running(told.stem, command, told.with_suffix(".log"), env=environment)
    bed.running.append(one)
    try:
        yield
        assert one.process.poll() is None, one.tail()
    finally:
        await asyncio.to_thread(one.end)


async def of_a_service(bed: Bed, kubelet: Kubelet, endpoint: str, answers: Counter[int]) -> None:
    """A client that gets another router for each connection, as a Service gives it."""
    timeout = aiohttp.ClientTimeout(20)
    headers = {"authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True), timeout=timeout) as session:
        while True:
            url = bed.url(random.choice(kubelet.serving), endpoint)
            try:
                async with session.post(url, data=b"{}", headers=headers) as answer:
                    await answer.read()
                    answers[answer.status] += 1
            except aiohttp.ClientError:
                answers[0] += 1
            await asyncio.sleep(0.01)


@pytest.mark.long
async def test_two_to_three_to_two_under_load_loses_nothing(bed: Bed, session: aiohttp.ClientSession) -> None:
    """Routers with their own figures, their hand-over, the real autoscaler, controllers that choose who goes."""
    if not bed.cluster.has_controllers:
        pytest.skip("no controllers here: Deployments do not become pods")
    world, kubelet = World(bed.cluster, bed.namespace), Kubelet(bed)
    names = [f"svc-{bed.namespace[-4:]}-{letter}" for letter in "abcd"]
    for name in names:
        bed.endpoint(name, requests={"maxRequestWaitTime": 5_000})
        bed.replica(name, 0, sleep_ms=5)
    pod = {"containers": [container()], "automountServiceAccountToken": False}
    bed.create(world.deployments, deployment(2, {**pod, "terminationGracePeriodSeconds": 60}))
    bounds = {"routerMinPods": 2, "routerMaxPods": 3, "routerScaleUpDelayS": 2, "routerScaleDownDelayS": 3}
    working = [asyncio.create_task(kubelet.run(session))]
    try:
        await holds("two routers", lambda: len(kubelet.serving) == 2, 60)
        first = kubelet.serving[0]
        for name in names:
            await served(session, bed.url(first, name))
        kept = Load(session, bed.url(first, names[0]), 3)
        answers: Counter[int] = Counter()
        working += [asyncio.create_task(of_a_service(bed, kubelet, name, answers)) for name in names]
        await kept.serves()
        # What any router takes is too long.
        async with autoscaling(bed, **bounds, routerLatencyThresholdMs=0.001):
            await holds("a third one serves", lambda: len(kubelet.serving) == 3, 60)
            await kept.serves(100)
            assert world.replicas() == 3, "no more than there may be"
        assert not any(task.done() for task in working), [task for task in working if task.done()]
        async with autoscaling(bed, **bounds, routerLatencyThresholdMs=1_000):
            await holds("two again", lambda: len(bed.cluster.api.get(world.pods).body["items"]) == 2, 90)
        await kept.serves(100)
        await kept.end()
        assert not any(task.done() for task in working), [task for task in working if task.done()]
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        await asyncio.to_thread(bed.cluster.api.delete, f"/api/v1/nodes/{kubelet.node}")
    assert kubelet.most == 3
    assert set(kept.answers) == {200}, kept.answers
    assert set(answers) == {200}, answers
    assert {"MorePods", "FewerPods"} <= set(world.events())
