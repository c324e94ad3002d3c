"""A cluster for tests: the one that AKS_INFERENCE_TEST_KUBECONFIG names, else real parts as processes of this machine.

The variable is one of its own: a KUBECONFIG of daily work is nothing to test on. (`kind get kubeconfig` writes one.)
The programs are built from Go modules once (minutes): `PYTHONPATH=tests/cluster python -m testbed.build`.
"""

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from aks_inference_runtime.api.crd import CRD_NAME, crd
from testbed import build, image
from testbed import node as bed_node
from testbed.api import Answer, Api
from testbed.control_plane import ControlPlane, fake_node
from testbed.routers import routed_name, routers_bed, routers_session

__all__ = ["routed_name", "routers_bed", "routers_session"]
GIVEN = "AKS_INFERENCE_TEST_KUBECONFIG"


@dataclass(frozen=True)
class Cluster:
    """A cluster that answers."""

    kubeconfig: Path
    server: str
    has_controllers: bool
    """Deployments become pods, and pods are bound to nodes."""
    api: Api


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Of this machine."""
    if missing := build.missing(build.API):
        pytest.skip(f"no {GIVEN}, and not built here: {', '.join(missing)} (python -m testbed.build; minutes)")
    plane = ControlPlane(tmp_path_factory.mktemp("control-plane"))
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()


@pytest.fixture(scope="session")
def bare_cluster(request: pytest.FixtureRequest) -> Cluster:
    """As it comes, without our definitions."""
    if given := os.environ.get(GIVEN):
        api = Api(Path(given))
        return Cluster(Path(given), api.server, True, api)
    plane = request.getfixturevalue("control_plane")
    return Cluster(plane.kubeconfig, plane.server, plane.has_controllers, Api(plane.kubeconfig))


@pytest.fixture(scope="session")
def kept_nodes(request: pytest.FixtureRequest) -> None:
    """Nodes with kwok's annotation are kept: their pods only say that they run."""
    if os.environ.get(GIVEN):
        pytest.skip(f"no fake nodes in a given cluster: its own pods would be put on them (without {GIVEN}: here)")
    control_plane: ControlPlane = request.getfixturevalue("control_plane")
    if missing := build.missing((*build.CONTROL, *build.FAKE_NODES)):
        pytest.skip(f"not built here: {', '.join(missing)} (python -m testbed.build; minutes)")
    if not any(one.name == "kwok" for one in control_plane.running):
        control_plane.keep_fake_nodes()


@pytest.fixture
def fake_nodes(kept_nodes: None, cluster: Cluster) -> Iterator[list[str]]:
    """Three nodes in two zones whose pods only say that they run."""
    names = [f"fake-{uuid.uuid4().hex[:6]}" for _ in range(3)]
    for index, name in enumerate(names):
        answer = cluster.api.create("/api/v1/nodes", fake_node(name, zone=str(index % 2)))
        assert answer.status == 201, answer.message
    yield names
    for name in names:
        cluster.api.delete(f"/api/v1/nodes/{name}")


@pytest.fixture(scope="module")
def cluster(bare_cluster: Cluster) -> Cluster:
    """With the definition of ScoringEndpoint, established."""
    define(bare_cluster)
    return bare_cluster


@pytest.fixture
def defined_again(cluster: Cluster) -> Iterator[None]:
    """For a test that destroys a runtime, which has the definition: it is there afterwards."""
    yield
    define(cluster)


def define(cluster: Cluster) -> None:
    """Applies the definition, once a deleted one is gone."""
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{CRD_NAME}"
    eventually(lambda: not cluster.api.get(path).body.get("metadata", {}).get("deletionTimestamp"))
    answer = cluster.api.apply(path, crd())
    assert answer.status in (200, 201), answer.message
    eventually(lambda: _established(cluster.api.get(path).body))


@dataclass(frozen=True)
class RealNode:
    """A cluster of one real node: pods run, on this machine."""

    kubeconfig: Path
    api: Api
    image: str
    """Holds the runtime and the scoring server."""
    with_packages: Callable[..., str]
    """The name of an image that has further packages for scoring, loaded into the node."""
    bed: bed_node.Node
    """Its processes."""


@contextlib.contextmanager
def real_node(folder: Path, *, gates: Sequence[str] = (), newer: bool = False) -> Iterator[RealNode]:
    """A control plane of its own with a real node; `newer`: its containerd mounts images."""
    needed = (*build.API, *build.CONTROL, *(build.NEWER_RUNTIME if newer else ()))
    if missing := [*build.missing(needed), *bed_node.missing()]:
        pytest.skip(f"a real node needs here: {', '.join(missing)} (python -m testbed.build; apt-get install)")
    plane = ControlPlane(folder, bed_node.address(), gates)
    one = bed_node.Node(plane, newer=newer)
    try:
        plane.start()
        try:
            one.start()
            api = Api(plane.kubeconfig)
            eventually(lambda: _ready(api.get(f"/api/v1/nodes/{bed_node.NAME}")), 60)

            def with_packages(*packages: str) -> str:
                name, archive = image.science(one.folder, *packages)
                one.load(archive)
                return name

            yield RealNode(plane.kubeconfig, api, image.APPLICATION, with_packages, one)
        finally:
            one.stop()
    finally:
        plane.stop()


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNode]:
    """With Debian's containerd."""
    with real_node(tmp_path_factory.mktemp("node-plane")) as made:
        yield made


@pytest.fixture(scope="module")
def newer_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNode]:
    """One that mounts images as volumes: API server, kubelet and containerd have it."""
    with real_node(tmp_path_factory.mktemp("newer-plane"), gates=["ImageVolume"], newer=True) as made:
        yield made


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A machine has one node at a time, and `node` stays to the end: what takes the other one goes first."""
    items.sort(key=lambda item: "newer_node" not in getattr(item, "fixturenames", ()))


@pytest.fixture
def namespace(bare_cluster: Cluster) -> Iterator[str]:
    """A namespace for one test."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    answer = bare_cluster.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    assert answer.status == 201, answer.message
    yield name
    bare_cluster.api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """`until(condition, seconds=30)`: waits for a condition with a deadline."""
    return eventually


def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.05)


def _ready(found: Answer) -> bool:
    conditions = found.body["status"].get("conditions") or [] if found.status == 200 else []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _established(definition: dict[str, object]) -> bool:
    status = definition.get("status")
    conditions = (status.get("conditions") or []) if isinstance(status, dict) else []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
