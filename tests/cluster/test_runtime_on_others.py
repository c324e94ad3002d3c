"""What a runtime needs of others on the cluster, and what TLS ends that it served: looked at before it is applied."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aks_inference_provider.errors import ResourceFailed
from aks_inference_provider.progress import EngineLog, Progress
from aks_inference_provider.resources.base import Caution, Operation, State, Urn
from aks_inference_provider.resources.cluster_kinds import ClusterKinds
from aks_inference_provider.resources.plain_port import PlainPort
from aks_inference_provider.wire import UNKNOWN
from aks_inference_runtime.api import kubernetes as k8s
from testbed.certificates import make_certificate
from testbed.project import Project, settings_of

URN = Urn.parse("urn:pulumi:dev::shop::aks-inference:index:ClusterKinds::runtime-kinds")
OPERATION = Operation(URN, Progress(EngineLog(""), URN.text))
KINDS, PORT = ClusterKinds(), PlainPort()
GROUP = "monitoring.coreos.com"
WANTED = [f"{GROUP}/v1/PodMonitor", f"{GROUP}/v1/PrometheusRule"]
NOWHERE = "/nowhere/kubeconfig"


def definition(kind: str, plural: str, group: str) -> dict[str, Any]:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": anything},
        "subresources": {"status": {}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


@pytest.fixture
def define(cluster: Any, until: Callable[..., None]) -> Iterator[Callable[..., None]]:
    """`define(kind, plural)`: as the Prometheus operator brings it, or who has another group."""
    made = []

    def make(kind: str, plural: str, group: str = GROUP) -> None:
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.{group}"
        assert cluster.api.apply(path, definition(kind, plural, group)).status == 201
        made.append(path)

        def served() -> bool:
            found = cluster.api.get(f"/apis/{group}/v1").body.get("resources", ())
            return any(one["kind"] == kind for one in found)

        until(served)

    yield make
    for path in made:
        cluster.api.delete(path)
    until(lambda: all(cluster.api.get(path).status == 404 for path in made))


@pytest.fixture
def asked(cluster: Any) -> dict[str, Any]:
    brings = "the Prometheus operator"
    given = {"argument": "prometheus_operator", "kinds": WANTED, "brings": brings}
    return {**given, "kubeconfig": str(cluster.kubeconfig)}


async def test_kinds_that_the_cluster_lacks(asked: dict[str, Any], define: Callable[..., None]) -> None:
    ((_, why),) = (await KINDS.check(URN, {}, asked)).failures
    assert why.startswith(f"prometheus_operator: the cluster has no {', '.join(WANTED)}, which the Prometheus operator")
    assert why.endswith("or leave out prometheus_operator")
    with pytest.raises(ResourceFailed, match="the cluster has no"):
        await KINDS.create(OPERATION, asked)
    # What the runtime waits for may bring them: that is seen once it is there.
    checked = await KINDS.check(URN, {}, {**asked, "later": True})
    assert not checked.failures
    (note,) = checked.notes
    assert isinstance(note, Caution)
    assert "must bring them" in note
    # On a cluster that the stack makes nothing can be before: the same run may bring them in time.
    checked = await KINDS.check(URN, {}, {**asked, "made": True})
    assert not checked.failures
    (note,) = checked.notes
    assert isinstance(note, Caution)
    assert note.endswith("apply without it, install it, then add it")
    assert (await KINDS.create(OPERATION, {**asked, "made": True})).id == URN.name
    define("PodMonitor", "podmonitors")
    ((_, why),) = (await KINDS.check(URN, {}, asked)).failures
    assert f"the cluster has no {WANTED[1]}, which" in why
    define("PrometheusRule", "prometheusrules")
    checked = await KINDS.check(URN, {}, asked)
    assert not checked.failures
    assert not checked.notes
    assert (await KINDS.create(OPERATION, asked)).id == URN.name


async def test_a_cluster_that_cannot_be_asked(asked: dict[str, Any]) -> None:
    for kubeconfig, says in ((UNKNOWN, "not looked up, as it is not known yet"), (NOWHERE, "not looked up what")):
        checked = await KINDS.check(URN, {}, {**asked, "kubeconfig": kubeconfig})
        assert not checked.failures
        (note,) = checked.notes
        assert says in note
    with pytest.raises(ResourceFailed, match="not known what the cluster has"):
        await KINDS.create(OPERATION, {**asked, "kubeconfig": NOWHERE})


@pytest.fixture
def routed(cluster: Any, namespace: str) -> Iterator[Callable[..., None]]:
    """`routed(**settings)`: there is a router that was told this."""
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{k8s.ROUTER_NAME}"

    def make(**settings: Any) -> None:
        labels = {"app": "router"}
        env = [{"name": k8s.SETTINGS_VARIABLE, "value": json.dumps({"namespace": namespace, **settings})}]
        spec = {"containers": [{"name": "router", "image": "a:1", "env": env}]}
        template = {"metadata": {"labels": labels}, "spec": spec}
        spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": k8s.ROUTER_NAME}, "spec": spec}
        assert cluster.api.apply(path, body).status in (200, 201)

    yield make
    cluster.api.delete(path)


@pytest.mark.parametrize(
    ("settings", "served"),
    [
        (None, False),
        ({}, True),
        ({"httpsPort": 8443}, False),
        ({"httpsPort": 8443, "allowInsecureConnections": True}, True),
        ({"httpsPort": 8443, "plainUntilCertificate": True}, True),
    ],
)
async def test_what_tls_ends(
    cluster: Any, namespace: str, routed: Callable[..., None], settings: dict[str, Any] | None, served: bool
) -> None:
    """Known in the preview, and the same ever after."""
    if settings is not None:
        routed(**settings)
    given = {"namespace": namespace, "issued": True, "kubeconfig": str(cluster.kubeconfig)}
    inputs = (await PORT.check(URN, {}, given)).inputs
    assert PORT.preview(inputs, None) == {"untilCertificate": served}
    notes = await PORT.notes(inputs, None)
    assert len(notes) == served
    if served:
        assert notes[0].startswith("HTTP ends on port 80 as soon as the certificate is there: it is then answered 400")
    made = await PORT.create(OPERATION, inputs)
    assert made.computed == {"untilCertificate": served}
    routed(httpsPort=8443)
    assert (await PORT.check(URN, inputs, given)).inputs == inputs
    assert await PORT.notes(inputs, State(made.id, inputs, {})) == []
    own = (await PORT.check(URN, inputs, {**given, "issued": False})).inputs
    assert PORT.preview(own, None) == {"untilCertificate": False}, "there is a certificate from the beginning"
    issued = (await PORT.check(URN, {**own, "served": True}, given)).inputs
    assert PORT.preview(issued, None) == {"untilCertificate": False}, "it served with TLS alone meanwhile"


async def test_http_ends_for_good_once_the_certificate_is_there(
    cluster: Any, namespace: str, routed: Callable[..., None]
) -> None:
    """A router that cannot read it later would serve without TLS again."""
    routed()
    given = {"namespace": namespace, "issued": True, "kubeconfig": str(cluster.kubeconfig)}
    waits = (await PORT.check(URN, {}, given)).inputs
    path = f"/api/v1/namespaces/{namespace}/secrets/{k8s.ISSUED_TLS_NAME}"
    parts = zip((k8s.TLS_CHAIN_FIELD, k8s.TLS_KEY_FIELD), make_certificate("scoring.example.com"), strict=True)
    data = {name: base64.b64encode(part).decode() for name, part in parts}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": k8s.ISSUED_TLS_NAME}}

    # cert-manager keeps the key there while the certificate is being issued.
    assert cluster.api.apply(path, {**body, "data": {**data, k8s.TLS_CHAIN_FIELD: ""}}).status == 201
    assert (await PORT.check(URN, waits, given)).inputs == waits
    assert cluster.api.apply(path, {**body, "data": data}).status == 200
    over = (await PORT.check(URN, waits, given)).inputs
    assert PORT.preview(over, None) == {"untilCertificate": False}
    before = State("x", waits, {})
    assert (await PORT.diff(before, over)).properties
    (note,) = await PORT.notes(over, before)
    assert note.startswith("the certificate is there: HTTP has ended for good")
    unreachable = {**waits, "kubeconfig": NOWHERE}
    assert (await PORT.check(URN, unreachable, {**given, "kubeconfig": NOWHERE})).inputs == unreachable

    # Looked at anew, it has ended all the same; and it stays so.
    routed(httpsPort=8443, plainUntilCertificate=True)
    assert (await PORT.check(URN, {}, given)).inputs == over
    cluster.api.delete(path)
    assert (await PORT.check(URN, over, given)).inputs == over
    assert await PORT.notes(over, State("x", over, {})) == []


async def test_what_tls_ends_where_nobody_can_say(namespace: str) -> None:
    given = {"namespace": namespace, "issued": True}
    for kubeconfig in (UNKNOWN, NOWHERE):
        checked = await PORT.check(URN, {}, {**given, "kubeconfig": kubeconfig})
        assert not checked.failures
        assert PORT.preview(checked.inputs, None) == {"untilCertificate": UNKNOWN}
    with pytest.raises(ResourceFailed, match="not known whether the runtime serves without TLS"):
        await PORT.create(OPERATION, {**given, "kubeconfig": NOWHERE})


PROGRAM = """
import json, pathlib
from aks_inference import InferenceRuntime

told = json.loads(pathlib.Path("told.json").read_text())
InferenceRuntime("runtime", image="runtime:1", kubeconfig=told["kubeconfig"], namespace=told["runtime"],
                 service_type="ClusterIP", cluster_purpose="DevTest", **told["more"])
"""


@pytest.fixture
def project(cluster: Any, fake_nodes: list[str], namespace: str, tmp_path: Any) -> Iterator[Project]:
    runtime = f"runtime-{namespace[5:]}"
    yield Project(tmp_path, PROGRAM, kubeconfig=str(cluster.kubeconfig), runtime=runtime, more={})
    for kind in ("clusterroles", "clusterrolebindings"):
        for name in (k8s.ROUTER_NAME, k8s.AUTOSCALER_NAME):
            cluster.api.delete(f"/apis/rbac.authorization.k8s.io/v1/{kind}/{runtime}:{name}")
    cluster.api.delete(f"/api/v1/namespaces/{runtime}")


@pytest.mark.long
def test_the_preview_says_it_before_anything_is_applied(
    cluster: Any, project: Project, define: Callable[..., None]
) -> None:
    runtime = project.told["runtime"]
    project.told["more"] = {"prometheus_operator": True}
    with pytest.raises(AssertionError, match=r"prometheus_operator: the cluster has no monitoring\.coreos\.com"):
        project.must("preview", "--stack", "dev")
    define("PodMonitor", "podmonitors")
    define("PrometheusRule", "prometheusrules")
    project.up()
    assert settings_of(cluster.api, runtime).https_port is None
    project.told["more"] |= {"acme_server": "https://acme.example.com/directory", "ssl_cname": "scoring.example.com"}
    lacks = r"acme_server: the cluster has no cert-manager\.io/v1/Issuer, cert-manager\.io/v1/Certificate, which cert-"
    with pytest.raises(AssertionError, match=lacks):
        project.must("preview", "--stack", "dev")
    assert settings_of(cluster.api, runtime).https_port is None

    # Once they are there: routers that serve without TLS go on so until there is a certificate
    define("Issuer", "issuers", "cert-manager.io")
    define("Certificate", "certificates", "cert-manager.io")
    shown = project.must("preview", "--stack", "dev", "--diff")
    assert "HTTP ends on port 80 as soon as the certificate is there" in shown
    assert "plainUntilCertificate" in shown, "what the routers will be told is known"
    certificate = f"/apis/cert-manager.io/v1/namespaces/{runtime}/certificates/{k8s.ISSUED_TLS_NAME}"
    over = threading.Event()

    def issue() -> None:
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": ""}]}}
        while not over.wait(0.3):
            if cluster.api.get(certificate).status == 200:
                cluster.api.merge(f"{certificate}/status", ready)

    issuing = threading.Thread(target=issue)
    issuing.start()
    try:
        project.up()
        told = settings_of(cluster.api, runtime)
        assert (told.https_port, told.plain_until_certificate) == (k8s.HTTPS_PORT, True)
        again = project.up()
    finally:
        over.set()
        issuing.join()
    assert " updated" not in again
    assert " created" not in again
    assert "HTTP ends" not in again
    project.must("destroy", "--yes", "--stack", "dev")
