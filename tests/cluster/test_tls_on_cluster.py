"""InferenceRuntime with TLS on a real control plane: applied, applied again, the certificate renewed, another name.

Nodes are kept by kwok: what the routers do with the Secret is tested in test_router_secrets.py.
"""

import base64
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.api import kubernetes as k8s
from testbed.certificates import make_certificate
from testbed.project import Project, settings_of

PROGRAM = """
import json, pathlib
import pulumi
from aks_inference import InferenceRuntime

told = json.loads(pathlib.Path("told.json").read_text())
runtime = InferenceRuntime("runtime", image="runtime:1", kubeconfig=told["kubeconfig"], namespace=told["runtime"],
                           service_type="ClusterIP", **told["tls"])
pulumi.export("url", runtime.url)
pulumi.export("address", runtime.address)
"""
HOST = "scoring.example.com"


@pytest.fixture
def project(cluster, fake_nodes, namespace, tmp_path):
    runtime = f"runtime-{namespace[5:]}"
    yield Project(tmp_path, PROGRAM, kubeconfig=str(cluster.kubeconfig), runtime=runtime, tls={})
    for kind in ("clusterroles", "clusterrolebindings"):
        for name in (k8s.ROUTER_NAME, k8s.AUTOSCALER_NAME):
            cluster.api.delete(f"/apis/rbac.authorization.k8s.io/v1/{kind}/{runtime}:{name}")
    cluster.api.delete(f"/api/v1/namespaces/{runtime}")


def write(folder: Path, *names: str) -> tuple[bytes, str]:
    """The files; the certificate, and a line that only the key has."""
    chain, key = make_certificate(*names)
    (folder / "chain.pem").write_bytes(chain)
    (folder / "key.pem").write_bytes(key)
    return chain, key.decode().splitlines()[2]


@pytest.mark.long
def test_the_life_of_a_certificate(cluster: Any, project: Project) -> None:
    api, runtime = cluster.api, project.told["runtime"]
    secret = f"/api/v1/namespaces/{runtime}/secrets/{k8s.TLS_NAME}"
    routers = f"/apis/apps/v1/namespaces/{runtime}/deployments/{k8s.ROUTER_NAME}"

    def served() -> bytes:
        return base64.b64decode(api.get(secret).body["data"][k8s.TLS_CHAIN_FIELD])

    def generation() -> int:
        return int(api.get(routers).body["metadata"]["generation"])

    project.up()
    assert api.get(secret).status == 404
    token = f"/api/v1/namespaces/{runtime}/secrets/{k8s.ROUTER_TOKEN_NAME}"
    first = api.get(token).body["data"]
    assert len(base64.b64decode(first[k8s.ROUTER_TOKEN_FIELD])) >= 32

    # TLS on is an update
    project.told["tls"] = {"ssl_cname": HOST, "ssl_cert_pem_file": "chain.pem", "ssl_key_pem_file": "key.pem"}
    chain, line = write(project.folder, HOST)
    shown = project.must("preview", "--stack", "dev", "--diff")
    assert f"TLS at {HOST}: 1.2 or newer" in shown
    assert f"DNS: {HOST} needs a record in your zone" in shown
    assert "replace" not in shown
    applied = project.up()
    assert served() == chain
    assert project.outputs() == {"url": f"https://{HOST}", "address": ""}
    begun = generation()

    # The key is nowhere in clear
    encoded = base64.b64encode(line.encode()).decode()[4:-8]
    states = [path.read_text() for path in project.folder.parent.rglob("*.json") if "state" in path.parts]
    assert states
    for text in [shown, applied, *states]:
        assert line not in text
        assert encoded not in text

    # The same again changes nothing (I9)
    again = project.up()
    assert " updated" not in again
    assert " created" not in again

    # A renewed certificate reaches the Secret, and no router is made anew for it
    renewed, _ = write(project.folder, HOST, "*.example.org")
    project.up()
    assert served() == renewed
    assert generation() == begun

    # Another name is another setting of the routers
    write(project.folder, "other.example.com")
    project.told["tls"]["ssl_cname"] = "other.example.com"
    project.up()
    assert generation() > begun
    assert settings_of(api, runtime).url == "https://other.example.com"
    assert api.get(token).body["data"] == first, "what routers show each other stays"

    project.must("destroy", "--yes", "--stack", "dev")
    assert api.get(f"/api/v1/namespaces/{runtime}").status == 404
