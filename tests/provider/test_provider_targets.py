"""Targets of programs in other languages: what Construct brings of `${cluster.target}`, at preview and at apply."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from aks_inference_runtime.api.target import KubernetesTarget, format_target

Json = dict[str, Any]
PREFIX = "aks-inference:index:"
KUBECONFIG = "apiVersion: v1"
SERVED = sorted(
    [
        "kubernetes:networking.k8s.io/v1:NetworkPolicy",
        PREFIX + "EndpointKeys",
        "kubernetes:core/v1:Secret",
        "kubernetes:core/v1:ConfigMap",
        "kubernetes:core/v1:Service",
        "kubernetes:apps/v1:Deployment",
        "kubernetes:aks-inference.dev/v1:ScoringEndpoint",
    ]
)
"""What a service on a cluster is made of."""


@pytest.fixture
def plugin(start_plugin: Callable[..., Any]) -> Any:
    """One of its own: components of a deployment know each other."""
    return start_plugin()


@pytest.fixture
def service(tmp_path: Path) -> Json:
    script = tmp_path / "score.py"
    script.write_text("def init():\n    pass\n\n\ndef run(data):\n    return data\n")
    return {"inferenceConfig": {"entryScript": str(script)}, "image": "scoring:1", "primaryKey": "key-k1-long"}


def on_cluster(**more: Any) -> str:
    return format_target(KubernetesTarget(name="prod", namespace="system", image="runtime:1", **more))


@pytest.mark.parametrize("preview", [True, False])
@pytest.mark.parametrize("form", ["secret", "secret output"])
def test_a_secret_target_is_known(plugin: Any, service: Json, values: Any, preview: bool, form: str) -> None:
    """As `${cluster.target}` of a cluster with a kubeconfig arrives once the cluster is there."""
    text = on_cluster(kubeconfig=KUBECONFIG)
    target = values.secret(text) if form == "secret" else values.output(text, secret=True)
    plugin.construct("ModelWebService", {**service, "target": target}, name="churn", preview=preview)
    assert sorted(plugin.monitor.types()[1:]) == sorted(["pulumi:providers:kubernetes", *SERVED])
    made = {each.type: json_format.MessageToDict(each.object) for each in plugin.monitor.registered}
    assert made["pulumi:providers:kubernetes"]["kubeconfig"] == values.secret(KUBECONFIG)
    for each in plugin.monitor.registered:
        if each.type not in (PREFIX + "ModelWebService", "pulumi:providers:kubernetes"):
            assert KUBECONFIG not in json.dumps(json_format.MessageToDict(each.object)), each.type


def test_what_is_wrong_on_a_secret_target_is_said_at_preview_without_the_secret(
    plugin: Any, service: Json, values: Any, errors_of: Any
) -> None:
    bare = KubernetesTarget(name="prod", kubeconfig=KUBECONFIG)
    del service["image"]
    for text in (format_target(bare), f"no-target {KUBECONFIG}"):
        with pytest.raises(grpc.RpcError) as caught:
            plugin.construct("ModelWebService", {**service, "target": values.secret(text)}, preview=True)
        found = errors_of(caught.value)
        assert set(found) == {"target"}
        assert KUBECONFIG not in str(caught.value.details()) + str(found)
