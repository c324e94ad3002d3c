"""Parts of the runtime with the rights that it declares for them, and no others."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import yaml

from aks_inference.inference_runtime.access import accounts
from aks_inference.inference_runtime.spec import plan_runtime

DENIED = 'User "system:serviceaccount:'
"""How the API server begins to say what an account may not."""
_RBAC = "/apis/rbac.authorization.k8s.io/v1"


def with_rights_of(account: str, cluster: Any, namespace: str, folder: Path) -> Any:
    """The cluster as this account of a runtime in the namespace reaches it; what looks on keeps its own rights."""
    plan, findings = plan_runtime("runtime", {"image": "none", "namespace": namespace})
    assert plan is not None, findings
    for manifest in accounts(plan):
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        inside = f"/namespaces/{namespace}" if "namespace" in manifest["metadata"] else ""
        root = "/api/v1" if kind == "ServiceAccount" else _RBAC
        answer = cluster.api.apply(f"{root}{inside}/{kind.lower()}s/{name}", manifest)
        assert answer.status in (200, 201), answer.message
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = cluster.api.create(path, asked)
    assert answer.status == 201, answer.message
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    for user in config["users"]:
        user["user"] = {"token": answer.body["status"]["token"]}
    made = folder / f"{account}.kubeconfig"
    made.touch(mode=0o600)
    made.write_text(json.dumps(config))
    return dataclasses.replace(cluster, kubeconfig=made)


def take_back(cluster: Any, namespace: str) -> None:
    """What of these rights no namespace takes with it."""
    plan, _ = plan_runtime("runtime", {"image": "none", "namespace": namespace})
    assert plan is not None
    for manifest in accounts(plan):
        if "namespace" not in manifest["metadata"]:
            cluster.api.delete(f"{_RBAC}/{manifest['kind'].lower()}s/{manifest['metadata']['name']}")
