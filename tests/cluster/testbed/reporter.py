"""The status of endpoints, where nothing runs that would write it."""

import threading
from typing import Any

from aks_inference_runtime.api.endpoint import API_VERSION, KIND


class Reporter(threading.Thread):
    """Writes what the runtime would: every endpoint of a namespace is ready."""

    def __init__(self, api: Any, namespace: str) -> None:
        super().__init__(daemon=True)
        self.api, self.path = api, f"/apis/{API_VERSION}/namespaces/{namespace}/scoringendpoints"
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.3):
            for item in self.api.get(self.path).body.get("items") or ():
                name, generation = item["metadata"]["name"], item["metadata"]["generation"]
                if item.get("status", {}).get("observedGeneration") == generation:
                    continue
                ready = {
                    "type": "Ready",
                    "status": "True",
                    "reason": "Healthy",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                    "observedGeneration": generation,
                }
                uri = f"http://router/api/v1/service/{name}"
                status = {
                    "state": "Healthy",
                    "observedGeneration": generation,
                    "scoringUri": f"{uri}/score",
                    "swaggerUri": f"{uri}/swagger.json",
                    "conditions": [ready],
                }
                body = {"apiVersion": API_VERSION, "kind": KIND, "status": status}
                self.api.apply(f"{self.path}/{name}/status", body, manager="runtime")


class Balancer(threading.Thread):
    """Gives Services of type LoadBalancer an address, as a cloud does."""

    def __init__(self, api: Any, namespace: str) -> None:
        super().__init__(daemon=True)
        self.api, self.path = api, f"/api/v1/namespaces/{namespace}/services"
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.3):
            for item in self.api.get(self.path).body.get("items") or ():
                if item["spec"]["type"] == "LoadBalancer" and not item["status"].get("loadBalancer"):
                    status = {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}
                    self.api.merge(f"{self.path}/{item['metadata']['name']}/status", {"status": status})
