"""The stack's own names among the hosts that a cluster must reach."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from aks_inference.aks_cluster.attach import AttachPlan
from aks_inference.aks_cluster.hosts import attached_hosts, hosts_of, image_host, service_names, store_names
from aks_inference.aks_cluster.spec import ClusterPlan, plan_cluster
from aks_inference.cluster_rules.hosts import StackNames
from aks_inference.service.serving import hosts_told
from aks_inference.service.spec import plan_service
from aks_inference_runtime.api.target import KubernetesTarget, format_target

TARGET = format_target(KubernetesTarget(name="prod", namespace="aks-inference-system", image="i:1"))


@pytest.mark.parametrize(
    ("image", "host"),
    [
        ("acme.azurecr.io/models/churn:1", "acme.azurecr.io"),
        ("localhost:5000/churn", "localhost:5000"),
        ("registry:5000/churn@sha256:00", "registry:5000"),
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
        ("oci://registry.example:5000/models", StackNames(registries=("registry.example:5000",))),
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


def test_a_port_is_asked_where_one_is_named() -> None:
    plan, _ = plan_cluster("prod", {"runtime": {"image": "registry.example:5000/runtime:1"}}, date(2026, 11, 21))
    assert isinstance(plan, ClusterPlan)
    names = StackNames(registries=("acme.azurecr.io",), identity_providers=("login.example:8443",))
    asked = {(one.host, one.port) for one in hosts_of(plan, (), None, names)}
    assert {("registry.example", 5000), ("acme.azurecr.io", 443), ("login.example", 8443)} <= asked


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


def test_who_issues_the_certificate_of_a_leaf_domain() -> None:
    """The authority that is named, and the scoring name itself: it is asked for by HTTP."""
    runtime = {"image": "acme.azurecr.io/runtime:1", "acme_server": "https://issuer.example:8443/dir"}
    leaf = {"leaf_domain_label": "churn", "runtime": runtime}
    own, _ = plan_cluster("prod", {"location": "westeurope", **leaf}, date(2026, 11, 21))
    other, _ = plan_cluster("a", {"resource_group": "g", "cluster_name": "c", **leaf}, date(2026, 11, 21))
    assert isinstance(own, ClusterPlan)
    assert isinstance(other, AttachPlan)
    name = "churn<suffix>.westeurope.cloudapp.azure.com"
    for hosts in (hosts_of(own, ()), attached_hosts(other, "westeurope", None)):
        found = {(one.host, one.port, one.protocol): one for one in hosts}
        assert found["issuer.example", 8443, "HTTPS"].needed_for == "certificate of the leaf domain label"
        assert found[name, 443, "HTTPS"].needed_for == "scoring address"
        assert "by cert-manager first" in found[name, 80, "HTTP"].needed_for
        assert not any("letsencrypt" in one.host for one in hosts)


def test_an_attached_one_with_a_name_of_its_own() -> None:
    secret = "https://keys.vault.azure.net/certificates/scoring"
    tls = {"ssl_cname": "scoring.example.com", "ssl_key_vault_secret_id": secret}
    given = {"resource_group": "g", "cluster_name": "c", "runtime": {"image": "runtime:1"}, **tls}
    plan, findings = plan_cluster("a", given, date(2026, 11, 21))
    assert isinstance(plan, AttachPlan), findings
    found = {(one.host, one.port) for one in attached_hosts(plan, "westeurope", None)}
    assert ("scoring.example.com", 443) in found
    assert ("scoring.example.com", 80) not in found
