"""Pods of replicas, judged by a real API server that enforces the restricted standard."""

import copy
from pathlib import Path
from typing import Any

import pytest

from aks_inference.service.replicas import Replica, budget, deployment
from aks_inference.service.rollouts import PROGRESS_S
from aks_inference.service.spec import plan_service
from aks_inference_runtime.api import kubernetes as k8s
from aks_inference_runtime.api.target import KubernetesTarget, format_target

TARGET = KubernetesTarget(
    name="prod", namespace="aks-inference-system", image="runtime:1", otlp_endpoint="http://o:4318"
)
COLLECTS = {
    "collect_model_data": True,
    "model_data_store": "az://account/container",
    "model_secret_name": "access",
}


def replica(namespace: str, **arguments: Any) -> Replica:
    config = {"entry_script": "score.py", "source_directory": "code"}
    given = {"target": format_target(TARGET), "image": "scoring:1", "inference_config": config, **arguments}
    found, findings = plan_service("churn", given)
    assert found is not None, findings
    assert found.target.kubernetes is not None
    (version,) = found.versions
    return Replica(found.name, namespace, version.version, found.target.kubernetes, version.placing)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text("def init(): pass\ndef run(data): return data\n")


@pytest.mark.parametrize("arguments", [{}, COLLECTS], ids=["plain", "model-data"])
def test_pods_hold_the_restricted_standard(cluster: Any, namespace: str, until: Any, arguments: dict[str, Any]) -> None:
    enforced = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    body = {"apiVersion": "v1", "kind": "Namespace", **enforced}
    assert cluster.api.apply(f"/api/v1/namespaces/{namespace}", body).status == 200
    # Without its account no pod of a namespace is taken.
    until(lambda: cluster.api.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/default").status == 200)
    template = deployment(replica(namespace, **arguments))["spec"]["template"]
    spec = {name: value for name, value in template["spec"].items() if name != "topologySpreadConstraints"}
    pod = {"metadata": {"generateName": "try-", "labels": template["metadata"]["labels"]}, "spec": spec}
    path = f"/api/v1/namespaces/{namespace}/pods"
    answer = cluster.api.create(path, pod, dryRun="All", fieldValidation="Strict")
    assert answer.status == 201, answer.message
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for kind in ("initContainers", "containers"):
        for number, container in enumerate(spec[kind]):
            security = container["securityContext"]
            assert security["capabilities"] == {"drop": ["ALL"]}, container["name"]
            assert security["readOnlyRootFilesystem"] is True, container["name"]
            weak = copy.deepcopy(pod)
            weak["spec"][kind][number]["securityContext"]["allowPrivilegeEscalation"] = True
            assert cluster.api.create(path, weak, dryRun="All").status == 403, container["name"]


def applied(cluster: Any, group: str, plural: str, manifest: dict[str, Any]) -> dict[str, Any]:
    metadata = manifest["metadata"]
    path = f"/apis/{group}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"
    answer = cluster.api.apply(path, manifest, fieldValidation="Strict")
    assert answer.status == 201, answer.message
    spec: dict[str, Any] = answer.body["spec"]
    return spec


def test_how_replicas_come_go_and_are_spread(cluster: Any, namespace: str) -> None:
    one = replica(namespace)
    kept = applied(cluster, "policy/v1", "poddisruptionbudgets", budget(one))
    assert (kept["maxUnavailable"], kept["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert kept["selector"]["matchLabels"] == one.selector
    kept = applied(cluster, "apps/v1", "deployments", deployment(one))
    assert kept["progressDeadlineSeconds"] > PROGRESS_S + 310, "more than the liveness probe leaves it"
    pod = kept["template"]["spec"]
    (scoring,) = pod["containers"]
    ended = {"path": "/drained", "port": k8s.GATE_READY_PORT, "scheme": "HTTP"}
    assert scoring["lifecycle"]["preStop"]["httpGet"] == ended
    spread = {c["topologyKey"]: c for c in pod["topologySpreadConstraints"]}
    assert list(spread) == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    for constraint in spread.values():
        assert constraint["labelSelector"]["matchLabels"] == one.selector
        assert constraint["matchLabelKeys"] == ["pod-template-hash"], "old pods do not count beside new ones"
        assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"
