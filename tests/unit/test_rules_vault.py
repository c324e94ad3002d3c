"""A certificate in a Key Vault: where it is, who fetches it, what is declared, and whether it can be served."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pulumi
import pytest
import yaml

from aks_inference.aks_cluster.attach import AttachPlan
from aks_inference.aks_cluster.capacity import runtime_services
from aks_inference.aks_cluster.component import describe as describe_cluster
from aks_inference.aks_cluster.hosts import attached_hosts, hosts_of
from aks_inference.aks_cluster.inputs import cluster_inputs
from aks_inference.aks_cluster.spec import ClusterPlan, plan_cluster
from aks_inference.aks_cluster.vault import addon_identity
from aks_inference.findings import Casing, Severity
from aks_inference.inference_runtime.component import describe
from aks_inference.inference_runtime.monitoring import monitoring, rules
from aks_inference.inference_runtime.spec import RuntimePlan, plan_runtime
from aks_inference.inference_runtime.tls import tls_objects
from aks_inference.inference_runtime.vault import keeper, parse_secret
from aks_inference_provider.resources.aks_attached import findings_of
from aks_inference_runtime.api import kubernetes as k8s
from aks_inference_runtime.kubernetes.certificate import Brought, brought, verdict
from aks_inference_runtime.kubernetes.quantities import quantity
from testbed.certificates import make_certificate

HOST = "scoring.example.com"
SECRET = "https://team-keys.vault.azure.net/secrets/scoring"
VAULT = "/subscriptions/1/resourceGroups/keys/providers/Microsoft.KeyVault/vaults/team-keys"
CLUSTER = "/subscriptions/1/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/prod"
GIVEN = {
    "ssl_cname": HOST,
    "ssl_key_vault_secret_id": SECRET,
    "ssl_key_vault_client_id": "the-client",
    "ssl_key_vault_tenant_id": "the-tenant",
}
ON_CLUSTER = {"ssl_cname": HOST, "ssl_key_vault_secret_id": SECRET, "runtime": {"image": "runtime:1"}}
NOW = datetime.now(UTC)


def runtime(**arguments: Any) -> tuple[RuntimePlan | None, list[str]]:
    plan, found = plan_runtime("runtime", {"image": "runtime:1", **arguments})
    return plan, [one.text(Casing.SNAKE) for one in found if one.severity is Severity.ERROR]


def cluster(**arguments: Any) -> tuple[Any, list[str]]:
    declared = arguments if "resource_id" in arguments else {"location": "westeurope", **arguments}
    plan, found = plan_cluster("prod", declared, date(2026, 11, 21))
    return plan, [one.text(Casing.SNAKE) for one in found if one.severity is Severity.ERROR]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (SECRET, ("team-keys", "scoring", "", "AzurePublicCloud")),
        (f"{SECRET}/", ("team-keys", "scoring", "", "AzurePublicCloud")),
        (f"{SECRET}/{'0a' * 16}", ("team-keys", "scoring", "0a" * 16, "AzurePublicCloud")),
        ("https://Keys1.vault.azure.cn/certificates/C-1", ("keys1", "C-1", "", "AzureChinaCloud")),
        ("https://abc.vault.usgovcloudapi.net/secrets/c", ("abc", "c", "", "AzureUSGovernmentCloud")),
        ("https://a-b.vault.azure.net/secrets/c", ("a-b", "c", "", "AzurePublicCloud")),
        (f"https://{'a' * 24}.vault.azure.net/secrets/c", ("a" * 24, "c", "", "AzurePublicCloud")),
        (f"https://{'a-' * 11}aa.vault.azure.net/secrets/c", ("a-" * 11 + "aa", "c", "", "AzurePublicCloud")),
        ("https://ab.vault.azure.net/secrets/c", None),
        ("https://abc-.vault.azure.net/secrets/c", None),
        (f"https://{'a' * 25}.vault.azure.net/secrets/c", None),
        (f"https://{'a-' * 12}a.vault.azure.net/secrets/c", None),
        ("https://1keys.vault.azure.net/secrets/c", None),
        ("https://a--b.vault.azure.net/secrets/c", None),
        ("https://keys.vault.azure.net/keys/c", None),
        ("https://keys.vault.azure.net/secrets/c_1", None),
        ("https://keys.vault.azure.net/secrets/c/1", None),
        ("https://keys.vault.azure.net.example.com/secrets/c", None),
        ("http://keys.vault.azure.net/secrets/c", None),
        ("keys/c", None),
    ],
)
def test_where_it_is(text: str, parts: tuple[str, ...] | None) -> None:
    found = parse_secret(text)
    assert (None if found is None else (found.vault, found.name, found.version, found.cloud)) == parts


@pytest.mark.parametrize(
    ("change", "path", "says"),
    [
        ({"ssl_key_vault_secret_id": "keys/c"}, "ssl_key_vault_secret_id", "no identifier of a secret"),
        ({"ssl_cname": None}, "ssl_key_vault_secret_id", "there is no ssl_cname"),
        ({"ssl_key_vault_client_id": None}, "ssl_key_vault_client_id", "is needed with ssl_key_vault_secret_id"),
        ({"ssl_key_vault_tenant_id": None}, "ssl_key_vault_tenant_id", "is needed with ssl_key_vault_secret_id"),
        ({"acme_server": "https://acme.example/d"}, "acme_server", "is given beside ssl_key_vault_secret_id"),
    ],
)
def test_what_goes_together(change: dict[str, Any], path: str, says: str) -> None:
    plan, found = runtime(**GIVEN | change)
    assert plan is None
    assert [text.split(":")[0].split(" = ")[0] for text in found if says in text] == [path]


def test_the_identity_goes_with_a_vault_only() -> None:
    _, found = runtime(ssl_key_vault_client_id="c", ssl_key_vault_tenant_id="t")
    assert len([text for text in found if "goes only with ssl_key_vault_secret_id" in text]) == 2


def test_what_the_driver_is_asked_for() -> None:
    plan, found = runtime(**GIVEN)
    assert found == []
    assert plan is not None
    assert plan.tls is not None
    (asked,) = tls_objects(plan.tls, plan.namespace)
    assert (asked["apiVersion"], asked["kind"]) == ("secrets-store.csi.x-k8s.io/v1", "SecretProviderClass")
    parameters = asked["spec"]["parameters"]
    assert all(isinstance(value, str) for value in parameters.values()), "the definition knows texts only"
    told = {"userAssignedIdentityID": "the-client", "tenantID": "the-tenant", "keyvaultName": "team-keys"}
    assert parameters | told == parameters
    # As the driver reads it: YAML with a list of texts, each of which is YAML.
    (one,) = [yaml.safe_load(text) for text in yaml.safe_load(parameters["objects"])["array"]]
    assert one == {"objectName": "scoring", "objectType": "secret", "objectVersion": ""}
    (kept,) = asked["spec"]["secretObjects"]
    assert (kept["secretName"], kept["type"]) == (k8s.VAULT_TLS_NAME, "kubernetes.io/tls")
    assert {each["key"]: each["objectName"] for each in kept["data"]} == {"tls.crt": "scoring", "tls.key": "scoring"}
    settings = plan.settings(None)
    assert settings.tls_secrets[0] == k8s.VAULT_TLS_NAME, "the others serve while it is being made"
    assert any("scoring in the Key Vault team-keys" in line for line in describe(plan))
    pinned, _ = runtime(**GIVEN | {"ssl_key_vault_secret_id": f"{SECRET}/{'0' * 32}"})
    assert pinned is not None
    assert any("for good" in line for line in describe(pinned))


def kept(**change: Any) -> dict[str, Any]:
    plan, _ = runtime(**GIVEN | change)
    assert plan is not None
    assert plan.tls is not None
    assert plan.tls.vault is not None
    _, deployment = keeper(plan.tls.vault, plan.tls.host, plan.namespace, plan.image, plan.pull)
    return deployment


def test_the_pod_that_mounts_it() -> None:
    deployment = kept()
    template = deployment["spec"]["template"]
    assert template["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux"}
    (volume,) = template["spec"]["volumes"]
    assert volume["csi"]["driver"] == "secrets-store.csi.k8s.io"
    assert volume["csi"]["volumeAttributes"] == {"secretProviderClass": k8s.VAULT_TLS_NAME}
    (container,) = template["spec"]["containers"]
    assert {"name": k8s.CERTIFICATE_HOST_VARIABLE, "value": HOST} in container["env"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert template == kept()["spec"]["template"]
    others = [{"ssl_key_vault_secret_id": f"{SECRET}2"}, {"ssl_key_vault_client_id": "other"}]
    annotations = [kept(**change)["spec"]["template"]["metadata"]["annotations"] for change in others]
    assert template["metadata"]["annotations"] not in annotations, "another place is mounted by another pod"


def test_on_a_new_cluster() -> None:
    plan, found = cluster(**ON_CLUSTER)
    assert found == []
    assert isinstance(plan, ClusterPlan)
    assert plan.runtime is not None
    assert plan.runtime["ssl_key_vault_secret_id"] == SECRET
    assert "ssl_key_vault_client_id" not in plan.runtime, "known once the cluster is there"
    addon = cluster_inputs(plan, "rg", None, None)["addonProfiles"]["azureKeyvaultSecretsProvider"]
    assert addon == {"enabled": True, "config": {"enableSecretRotation": "true"}}
    assert any(one.host == "team-keys.vault.azure.net" for one in hosts_of(plan, ()))
    assert any("must have Key Vault Secrets User" in line for line in describe_cluster(plan))
    plan, found = cluster(**ON_CLUSTER, ssl_key_vault_id=VAULT)
    assert found == []
    assert any("gets Key Vault Secrets User" in line for line in describe_cluster(plan))
    plan, _ = cluster(runtime={"image": "runtime:1"})
    assert "addonProfiles" not in cluster_inputs(plan, "rg", None, None)


def test_its_pod_is_fitted_on_the_nodes() -> None:
    plan, _ = cluster(**ON_CLUSTER)
    (one,) = [each for each in runtime_services(plan) if each.workload.name == "certificate"]
    (container,) = kept()["spec"]["template"]["spec"]["containers"]
    asked = container["resources"]["requests"]
    assert one.workload.each.cpu_m == round(1000 * quantity(asked["cpu"]))
    assert one.workload.each.memory_mib == quantity(asked["memory"]) / 2**20
    plan, _ = cluster(runtime={"image": "runtime:1"})
    assert [each.workload.name for each in runtime_services(plan)] == ["router", "autoscaler"]


def test_who_is_told_when_it_ends() -> None:
    plan, _ = runtime(**GIVEN, prometheus_operator=True)
    assert plan is not None
    monitors = [
        one["spec"]
        for one in monitoring(plan.namespace, operator=plan.prometheus_operator)
        if one["kind"] == "PodMonitor"
    ]
    pod = kept()["spec"]["template"]
    asked = [one for one in monitors if one["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()]
    assert len(asked) == 1
    ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
    assert {each["port"] for each in asked[0]["podMetricsEndpoints"]} <= ports
    (rule,) = [one for one in rules()["groups"][0]["rules"] if "certificate" in one["expr"]]
    assert rule["expr"] == "min(aks_inference_certificate_ends_seconds) - time() < 1209600"


def test_on_an_attached_cluster() -> None:
    plan, found = cluster(**ON_CLUSTER, ssl_key_vault_id=VAULT, resource_id=CLUSTER)
    assert found == []
    assert isinstance(plan, AttachPlan)
    assert plan.ssl_key_vault_id == VAULT
    assert any(one.host == "team-keys.vault.azure.net" for one in attached_hosts(plan, "westeurope", "api"))


@pytest.mark.parametrize(
    ("change", "path", "says"),
    [
        ({"runtime": None}, "ssl_cname", "there is no runtime on the cluster"),
        ({"ssl_key_vault_secret_id": "keys/c"}, "ssl_key_vault_secret_id", "no identifier of a secret"),
        ({"ssl_key_vault_id": VAULT.replace("team-keys", "others")}, "ssl_key_vault_id", "is in team-keys"),
        ({"ssl_key_vault_id": CLUSTER}, "ssl_key_vault_id", "is not the resource id of a Key Vault"),
        ({"ssl_key_vault_secret_id": None, "ssl_cname": None, "ssl_key_vault_id": VAULT}, "ssl_key_vault_id",
         "goes only with ssl_key_vault_secret_id"),
        ({"load_balancer_type": "InternalLoadBalancer", "ssl_cname": None}, "ssl_cname", "is needed"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("attached", [{}, {"resource_id": CLUSTER}])
def test_what_is_wrong_on_a_cluster(change: dict[str, Any], path: str, says: str, attached: dict[str, str]) -> None:
    plan, found = cluster(**{**ON_CLUSTER, **change, **attached})
    assert plan is None
    assert len(found) == 1, found
    assert found[0].startswith(path)
    assert says in found[0]


ADDON = {"enabled": True, "config": {"enableSecretRotation": "true"}, "identity": {"clientId": "c", "objectId": "o"}}


def of(addon: dict[str, Any] | None) -> dict[str, Any]:
    return {} if addon is None else {"addonProfiles": {"azureKeyvaultSecretsProvider": addon}}


def test_the_add_on_of_an_attached_cluster() -> None:
    def look(addon: dict[str, Any] | None) -> tuple[list[str], list[str]]:
        pools = [{"name": "a", "count": 3, "vmSize": "Standard_D4s_v5"}]
        body = {"name": "prod", "id": CLUSTER, "properties": {"agentPoolProfiles": pools, **of(addon)}}
        news = {"resourceId": CLUSTER, "purpose": "FastProd", "keyVaultAddon": True}
        failures, notes = findings_of(body, news, "me")
        return [one.reason for one in failures], [note for note in notes if "rotate" in note]

    assert look(ADDON) == ([], [])
    assert "enable-addons" in look(None)[0][0]
    assert "enable-addons" in look({**ADDON, "enabled": False})[0][0]
    assert "--enable-secret-rotation" in look({**ADDON, "config": {"enableSecretRotation": "false"}})[1][0]


def test_the_identity_of_the_add_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert addon_identity(of(ADDON)) == {"clientId": "c", "objectId": "o"}
    # A preview of the change that turns it on.
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: True)
    assert addon_identity({})["clientId"].startswith("(known")
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: False)
    for addon in (None, {**ADDON, "enabled": False}, {"enabled": True}):
        with pytest.raises(pulumi.RunError, match="has no add-on for Key Vault"):
            addon_identity(of(addon))


@pytest.mark.parametrize(
    ("make", "ready", "says"),
    [
        (lambda: make_certificate(HOST), True, "until"),
        (lambda: make_certificate("*.example.com"), True, "until"),
        (lambda: make_certificate(HOST, alone=True), True, "issued by itself"),
        (lambda: make_certificate(HOST, days=3), True, "renew"),
        (lambda: make_certificate("other.example.com"), False, "which is for other.example.com"),
        (lambda: make_certificate(HOST, days=-0.5), False, "ended on"),
        (lambda: (make_certificate(HOST)[0], make_certificate(HOST)[1]), False, "does not belong"),
        (lambda: (b"", b""), False, "no certificate in PEM form"),
    ],
)
def test_whether_it_can_be_served(make: Callable[[], tuple[bytes, bytes]], ready: bool, says: str) -> None:
    found = verdict(Brought(*make()), HOST, NOW)
    assert found.ready is ready
    assert says in found.text or (ready and says == "renew" and "ends on" in found.text)


def test_what_is_not_there_yet() -> None:
    assert not verdict(None, HOST, NOW).ready
    chain, key = make_certificate(HOST)
    assert verdict(Brought(chain, key), None, NOW).ready
    assert not verdict(Brought(chain, key), HOST, NOW + timedelta(days=91)).ready
    assert brought({"metadata": {"name": "x"}}) == Brought(b"", b"")
    assert key.decode().splitlines()[1] not in json.dumps(verdict(Brought(chain, key), HOST, NOW).text)
