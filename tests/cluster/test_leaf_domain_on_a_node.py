"""`leaf_domain_label` with cert-manager itself: a certificate by ACME over the routers, renewed while requests come.

cert-manager's controllers and Pebble, Let's Encrypt's authority for tests, are built from their Go modules; routers and
the pods that answer challenges run on a real node. Azure's stand-in makes the cluster, and the test its DNS.
"""

import asyncio
import collections
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from aks_inference.aks_cluster.scoring_address import leaf_host, leaf_label
from aks_inference_runtime.api import kubernetes as k8s
from testbed import acme, build
from testbed.azure import DATA, AzureBed
from testbed.project import Project

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not DATA.is_dir(), reason="no tables of Azure's API; AKS_INFERENCE_DATA names them"),
]

REGION = "westeurope"
VALID_S = 240
"""Renewed after two thirds of it: what is left is for a busy machine."""
PROGRAM = f"""
import json, pathlib
import pulumi
from aks_inference import AksInferenceCluster, ModelWebService

told = json.loads(pathlib.Path("told.json").read_text())
cluster = AksInferenceCluster("prod", location="{REGION}", cluster_purpose="DevTest", vm_size="Standard_D4s_v5",
                              network={{"plugin": "azure", "plugin_mode": "overlay", "pod_cidr": "10.244.0.0/16"}},
                              leaf_domain_label="churn",
                              runtime={{"image": told["image"], "acme_server": told["acme"]}})
service = ModelWebService("churn", target=cluster, image=told["image"], autoscale_enabled=False, num_replicas=1,
                          inference_config={{"entry_script": "score.py", "source_directory": "code"}})
pulumi.export("uri", service.scoring_uri)
pulumi.export("key", service.primary_key)
"""
RUNTIME = k8s.RUNTIME_NAMESPACE
CERTIFICATE = f"/apis/cert-manager.io/v1/namespaces/{RUNTIME}/certificates/{k8s.ISSUED_TLS_NAME}"


@dataclass
class Leaf:
    """What the test has: the authority, the names that load balancers were given, Azure and a project on it."""

    acme: acme.Acme
    domains: acme.LeafDomains
    azure: AzureBed
    project: Project


@pytest.fixture
def leaf(node: Any, tmp_path: Path, until: Callable[..., None]) -> Iterator[Leaf]:
    if missing := build.missing(acme.NEEDED):
        pytest.skip(f"not built here: {', '.join(missing)} (python -m testbed.build; minutes)")
    node.bed.load(acme.solver_image(tmp_path))
    azure = AzureBed(tmp_path, node.kubeconfig)
    authority = acme.Acme(tmp_path / "acme", node.kubeconfig, VALID_S)
    domains = acme.LeafDomains(node.api, RUNTIME, authority, REGION)
    project = Project(tmp_path, PROGRAM, image=node.image, acme=authority.directory)
    project.environment |= azure.environment
    with acme.defined(node.api, until):
        try:
            authority.start()
            domains.start()
            yield Leaf(authority, domains, azure, project)
        finally:
            domains.over.set()
            if domains.ident is not None:
                domains.join()
            authority.stop()
            for made in node.api.get("/api/v1/nodes", labelSelector=acme.AZURES_NODES).body["items"]:
                node.api.delete(f"/api/v1/nodes/{made['metadata']['name']}")


class Names(AbstractResolver):
    """One name, as the test's DNS has it."""

    def __init__(self, host: str, address: str) -> None:
        self._host, self._address = host, address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        assert host == self._host
        return [
            ResolveResult(
                hostname=host,
                host=self._address,
                port=port,
                family=socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class Load:
    """What a client was answered that makes a connection for each request and takes no wrong certificate."""

    answers: collections.Counter[int | str] = field(default_factory=collections.Counter)


@contextlib.asynccontextmanager
async def loaded(uri: str, key: str, address: str, trusted: ssl.SSLContext) -> AsyncIterator[Load]:
    load, over = Load(), asyncio.Event()
    names = Names(str(urlsplit(uri).hostname), address)
    connector = aiohttp.TCPConnector(force_close=True, ssl=trusted, resolver=names)

    async def client(session: aiohttp.ClientSession) -> None:
        while not over.is_set():
            try:
                async with session.post(uri, json={}, headers={"Authorization": f"Bearer {key}"}) as answer:
                    await answer.read()
                    load.answers[answer.status] += 1
            except aiohttp.ClientError as error:
                load.answers[repr(error)] += 1
            await asyncio.sleep(0.05)

    async with aiohttp.ClientSession(connector=connector) as session:
        task = asyncio.create_task(client(session))
        try:
            yield load
        finally:
            over.set()
            await task


async def serial(host: str, address: str, trusted: ssl.SSLContext) -> str | None:
    """Of the certificate that is served for a name; None: of none that is trusted."""
    try:
        _, writer = await asyncio.open_connection(address, 443, ssl=trusted, server_hostname=host)
    except ssl.SSLCertVerificationError:
        return None
    found = writer.get_extra_info("peercert")["serialNumber"]
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return str(found)


@pytest.mark.timeout(1_200)
async def test_a_certificate_is_issued_and_renewed(leaf: Leaf, node: Any) -> None:
    """I4: over HTTP-01 through the routers, from the first to the next, without a failed request."""
    project, authority = leaf.project, leaf.acme
    shown = await asyncio.to_thread(project.must, "preview", "--stack", "dev")
    assert f"issued and renewed by cert-manager from {authority.directory}" in shown
    try:
        await asyncio.to_thread(project.up)
    except AssertionError as error:
        raise AssertionError(
            f"{error}\n{authority.log('controller')[-4_000:]}\n{authority.log('pebble')[-2_000:]}"
        ) from None
    told = project.outputs()
    host = str(urlsplit(told["uri"]).hostname)
    assert host == leaf_host(leaf_label("churn", leaf.azure.cluster_id()), REGION)
    assert told["uri"] == f"https://{host}/api/v1/service/churn/score"
    address, trusted = leaf.domains.addresses[host], ssl.create_default_context(cadata=authority.root())

    async def another(before: str | None, seconds: float) -> str:
        deadline = time.monotonic() + seconds
        while (found := await serial(host, address, trusted)) in (None, before):
            assert time.monotonic() < deadline, authority.log("controller")[-4_000:]
            await asyncio.sleep(0.2)
        return str(found)

    first = await another(None, 20)
    async with loaded(told["uri"], told["key"], address, trusted) as load:
        await another(first, VALID_S)
        served = load.answers[200]
        async with asyncio.timeout(60):
            while load.answers[200] < served + 20:
                await asyncio.sleep(0.05)
    assert set(load.answers) == {200}, load.answers
    # Each time by a challenge of its own, at the name's port 80.
    asked = authority.log("pebble").count(
        f"Attempting to validate w/ HTTP: http://{host}:80/.well-known/acme-challenge/"
    )
    assert asked >= 2
    status = node.api.get(CERTIFICATE).body["status"]
    assert status["revision"] >= 2

    # What cert-manager writes into its objects is no change of ours (I9).
    again = await asyncio.to_thread(project.up)
    assert " updated" not in again
    assert " created" not in again
    await asyncio.to_thread(project.must, "destroy", "--yes", "--stack", "dev")
    assert node.api.get(f"/api/v1/namespaces/{RUNTIME}").status == 404
