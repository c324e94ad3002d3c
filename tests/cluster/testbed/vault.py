"""The Secrets Store CSI driver with Azure's provider, as far as pods and Secrets show it: no kubelet mounts here.

Written from the driver's and the provider's sources (controllers/syncsecret, pkg/provider): while a pod mounts a volume
of the driver, the Secrets of its SecretProviderClass are made from what the vault has, belong to the pod's owners, and
follow the vault.
"""

import base64
import threading
from typing import Any

import yaml

DRIVER = "secrets-store.csi.k8s.io"
GROUP = "secrets-store.csi.x-k8s.io"
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_DATA = {"type": "object", "properties": {"key": {"type": "string"}, "objectName": {"type": "string"}}}
_SECRET = {
    "type": "object",
    "properties": {
        "secretName": {"type": "string"},
        "type": {"type": "string"},
        "labels": TEXTS,
        "annotations": TEXTS,
        "data": {"type": "array", "items": _DATA},
    },
}
_SPEC = {
    "type": "object",
    "properties": {
        "provider": {"type": "string"},
        "parameters": TEXTS,
        "secretObjects": {"type": "array", "items": _SECRET},
    },
}
_SCHEMA = {"openAPIV3Schema": {"type": "object", "properties": {"spec": _SPEC}}}
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"secretproviderclasses.{GROUP}"},
    "spec": {
        "group": GROUP,
        "names": {"kind": "SecretProviderClass", "plural": "secretproviderclasses"},
        "scope": "Namespaced",
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": _SCHEMA}],
    },
}


class VaultDriver(threading.Thread):
    """Of one namespace. `vault`: (vault, object) → chain and key; changes of it are renewals."""

    def __init__(self, api: Any, namespace: str, identity: str, vault: dict[tuple[str, str], tuple[bytes, bytes]]):
        super().__init__(daemon=True)
        self.api, self.namespace, self.identity, self.vault = api, namespace, identity, vault
        self.over = threading.Event()
        self.refused: list[str] = []

    def run(self) -> None:
        while not self.over.wait(0.2):
            for pod in self.api.get(f"/api/v1/namespaces/{self.namespace}/pods").body.get("items") or ():
                for volume in pod["spec"].get("volumes") or ():
                    if (volume.get("csi") or {}).get("driver") == DRIVER and not pod["metadata"].get(
                        "deletionTimestamp"
                    ):
                        self._mount(pod, volume["csi"]["volumeAttributes"]["secretProviderClass"])

    def _mount(self, pod: dict[str, Any], name: str) -> None:
        found = self.api.get(f"/apis/{GROUP}/v1/namespaces/{self.namespace}/secretproviderclasses/{name}")
        if found.status != 200:
            self.refused.append(f"no SecretProviderClass {name}")
            return
        spec = found.body["spec"]
        told = spec["parameters"]
        if told.get("userAssignedIdentityID") != self.identity or not told.get("tenantID"):
            self.refused.append(f"identity {told.get('userAssignedIdentityID')}, tenant {told.get('tenantID')}")
            return
        objects = [yaml.safe_load(text) for text in yaml.safe_load(told["objects"])["array"]]
        files = {one["objectName"]: self.vault[told["keyvaultName"], one["objectName"]] for one in objects}
        for kept in spec["secretObjects"]:
            data = {}
            for part in kept["data"]:
                chain, key = files[part["objectName"]]
                data[part["key"]] = base64.b64encode(key if part["key"] == "tls.key" else chain).decode()
            self._keep(kept, data, pod["metadata"].get("ownerReferences") or [])

    def _keep(self, kept: dict[str, Any], data: dict[str, str], owners: list[dict[str, Any]]) -> None:
        secrets = f"/api/v1/namespaces/{self.namespace}/secrets"
        there = self.api.get(f"{secrets}/{kept['secretName']}")
        mine = [{key: one[key] for key in ("apiVersion", "kind", "name", "uid")} for one in owners]
        if there.status == 404:
            metadata = {"name": kept["secretName"], "ownerReferences": mine}
            self.api.create(secrets, {"metadata": metadata, "type": kept["type"], "data": data})
            return
        before = there.body["metadata"].get("ownerReferences") or []
        more = [one for one in mine if one["uid"] not in {each["uid"] for each in before}]
        if more or there.body.get("data") != data:
            body = {"metadata": {"ownerReferences": [*before, *more]}, "data": data}
            self.api.merge(f"{secrets}/{kept['secretName']}", body)
