"""The stack's own names among the hosts that a cluster must reach."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from aks_inference.aks_cluster.attach import AttachPlan
from aks_inference.aks_cluster.hosts import attached_hosts, hosts_of, image_host, service_names, store_names
from aks_inference.aks_cluster.spec import ClusterPlan, plan_cluster
from aks_inference.cluster_rules import StackNames
from aks_inference.service.serving import hosts_told
from aks_inference.service.spec import plan_service
from aks_inference_runtime.api.target import KubernetesTarget, format_target

TARGET = format_target(KubernetesTarget(name="prod", namespace="aks-inference-system", image="i:1"))


@pytest.mark.parametrize(
    ("image", "host"),
    [
        ("acme.azurecr.io/models/churn:1", "acme.azurecr.io"),
        ("localhost:5000/churn", "localhost"),
        ("registry:5000/churn@sha256:00", "registry"),
        ("churn:1", "registry-1.docker.io"),
        ("acme/churn", "registry-1.docker.io"),
    ],
)
def test_where_an_image_comes_from(image: str, host: str) -> None:
    assert image_host(image) == host


@pytest.mark.parametrize(
    ("store", "names"),
    [
        ("az://acmemodels/models/prod", StackNames(storage_accounts=("acmemodels",))),
        ("oci://acme.azurecr.io/models", StackNames(registries=("acme.azurecr.io",))),
        ("/srv/models", StackNames()),
    ],
)
def test_where_models_come_from(store: str, names: StackNames) -> None:
    assert store_names(store) == names


def service(folder: Path, **more: Any) -> Any:
    (folder / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    inference = {"entry_script": "score.py", "source_directory": str(folder)}
    image = "acme.azurecr.io/churn:1"
    plan, findings = plan_service("churn", {"target": TARGET, "image": image, "inference_config": inference, **more})
    assert plan is not None, findings
    return plan


def test_services_name_registries_and_issuers(tmp_path: Path) -> None:
    token = {"token_auth_enabled": True, "auth_enabled": False}
    issuer = {"token_issuer": "https://login.example/tenant/v2.0", "token_audiences": ["api"]}
    names = service_names([service(tmp_path), service(tmp_path, **token, **issuer)])
    assert names == StackNames(registries=("acme.azurecr.io",), identity_providers=("login.example",))


def test_services_name_where_they_collect(tmp_path: Path) -> None:
    collecting = {"collect_model_data": True, "model_data_store": "az://acmedata/modeldata"}
    collects = service(tmp_path, **collecting)
    names = service_names([collects, collects])
    assert (names.data_accounts, names.storage_accounts) == (("acmedata",), ())
    (told,) = hosts_told(collects)
    assert "model data to the storage of acmedata" in told
    assert "models from" not in told
    runtime = {"image": "acme.azurecr.io/runtime:1", "model_store": "az://acmemodels/models"}
    plan, _ = plan_cluster("prod", {"location": "westeurope", "runtime": runtime}, date(2026, 11, 21))
    assert isinstance(plan, ClusterPlan)
    hosts = {one.host.partition(".")[0]: one for one in hosts_of(plan, (), None, names)}
    assert hosts["acmedata"].needed_for == "model data that services collect"
    assert hosts["acmemodels"].needed_for == "models and code of services"
    # One account for both.
    both = {one.host: one for one in hosts_of(plan, (), None, StackNames(data_accounts=("acmemodels",)))}
    assert "models and code of services; model data" in both["acmemodels.blob.core.windows.net"].needed_for


def test_a_cluster_with_its_runtime_and_services() -> None:
    runtime = {"image": "acme.azurecr.io/runtime:1", "model_store": "az://acmemodels/models"}
    plan, findings = plan_cluster("prod", {"location": "westeurope", "runtime": runtime}, date(2026, 11, 21))
    assert isinstance(plan, ClusterPlan), findings
    found = {one.host for one in hosts_of(plan, (), None, StackNames(identity_providers=("login.example",)))}
    assert {"acme.azurecr.io", "acmemodels.blob.core.windows.net", "login.example"} <= found
    assert not any("<registry>" in host or "<storage" in host for host in found)


def test_an_attached_one() -> None:
    runtime = {"image": "acme.azurecr.io/runtime:1"}
    plan, _ = plan_cluster("a", {"resource_group": "g", "cluster_name": "c", "runtime": runtime}, date(2026, 11, 21))
    assert isinstance(plan, AttachPlan)
    found = {one.host for one in attached_hosts(plan, "northeurope", "shared.hcp.northeurope.azmk8s.io")}
    assert {"shared.hcp.northeurope.azmk8s.io", "acme.azurecr.io", "mcr.microsoft.com"} <= found
