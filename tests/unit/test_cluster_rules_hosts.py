"""Required hosts: which, when, for whom."""

# ruff: noqa: E501 (a case is a line)

from dataclasses import replace

import pytest

from aks_inference.cluster_rules import (
    Access,
    CloudNames,
    Cluster,
    Egress,
    Network,
    Pool,
    Security,
    Tls,
    cloud_of,
)
from aks_inference.cluster_rules.hosts import From, Phase, RequiredHost, StackNames, required_hosts
from aks_inference.vm_sizes import VmSize

GPU = Pool("gpu", "Standard_NC4as_T4_v3", VmSize("Standard_NC4as_T4_v3", 4, 28, 1))
PLAIN = Cluster(location="West Europe")
NAMES = StackNames(
    api_server="scoring-ab12cd34.hcp.westeurope.azmk8s.io",
    registries=("acme.azurecr.io",),
    storage_accounts=("acmemodels",),
)


def hosts(
    cluster: Cluster = PLAIN, names: StackNames = NAMES, cloud: CloudNames | None = None
) -> dict[str, RequiredHost]:
    return {one.host: one for one in required_hosts(cluster, names, cloud)}


@pytest.mark.parametrize(
    ("cluster", "host", "phase"),
    [
        (PLAIN, "mcr.microsoft.com", Phase.ROUTER_START),
        (PLAIN, "management.azure.com", Phase.CREATE),
        (PLAIN, "login.microsoftonline.com", Phase.CREATE),
        (PLAIN, "packages.aks.azure.com", Phase.CREATE),
        (PLAIN, "acme.azurecr.io", Phase.SERVICE_DEPLOYMENT),
        (PLAIN, "acme.westeurope.data.azurecr.io", Phase.SERVICE_DEPLOYMENT),
        (PLAIN, "acmemodels.blob.core.windows.net", Phase.SERVICE_DEPLOYMENT),
        (PLAIN, "scoring-ab12cd34.hcp.westeurope.azmk8s.io", Phase.ROUTER_RUNNING),
        (replace(PLAIN, pools=(GPU,)), "us.download.nvidia.com", Phase.CREATE),
        (replace(PLAIN, security=Security(azure_policy=True)), "data.policy.core.windows.net", Phase.CREATE),
        (replace(PLAIN, security=Security(container_insights=True)), "*.ods.opinsights.azure.com", Phase.ROUTER_RUNNING),
        (replace(PLAIN, security=Security(managed_prometheus=True)), "westeurope.handler.control.monitor.azure.com", Phase.ROUTER_RUNNING),
        (replace(PLAIN, security=Security(defender=True)), "*.cloud.defender.microsoft.com", Phase.ROUTER_RUNNING),
        (replace(PLAIN, security=Security(key_vault_secrets=True)), "vault.azure.net", Phase.ROUTER_START),
        (replace(PLAIN, tls=Tls("a.example", key_vault_secret_id="s")), "vault.azure.net", Phase.ROUTER_RUNNING),
        (replace(PLAIN, tls=Tls("a.example")), "a.example", Phase.ROUTER_RUNNING),
        (replace(PLAIN, tls=Tls(leaf_domain_label="scoring")), "scoring<suffix>.westeurope.cloudapp.azure.com", Phase.ROUTER_RUNNING),
        (replace(PLAIN, tls=Tls(leaf_domain_label="scoring")), "acme-v02.api.letsencrypt.org", Phase.ROUTER_START),
        (replace(PLAIN, azure_ml=True), "westeurope.api.azureml.ms", Phase.CREATE),
        (replace(PLAIN, network=Network(dns_servers=("10.9.0.4",))), "10.9.0.4", Phase.CREATE),
        (Cluster(location="usgovvirginia"), "management.usgovcloudapi.net", Phase.CREATE),
        (Cluster(location="usgovvirginia"), "acmemodels.blob.core.usgovcloudapi.net", Phase.SERVICE_DEPLOYMENT),
        (Cluster(location="usgovvirginia", security=Security(azure_policy=True)), "data.policy.azure.us", Phase.CREATE),
        (Cluster(location="chinaeast2"), "*.azk8s.cn", Phase.CREATE),
        (Cluster(location="chinanorth3"), "management.chinacloudapi.cn", Phase.CREATE),
    ],
)  # fmt: skip
def test_host_is_named_with_its_phase(cluster: Cluster, host: str, phase: Phase) -> None:
    found = hosts(cluster)
    assert host in found, sorted(found)
    assert phase in found[host].phases
    assert found[host].without_it
    assert found[host].source_of_traffic


@pytest.mark.parametrize(
    "host",
    [
        "us.download.nvidia.com",
        "acme-v02.api.letsencrypt.org",
        "data.policy.core.windows.net",
        "*.ods.opinsights.azure.com",
        "vault.azure.net",
    ],
)
def test_what_is_off_needs_no_host(host: str) -> None:
    plain = Pool("cpu", "Standard_D4s_v5", VmSize("Standard_D4s_v5", 4, 16, 0))
    found = hosts(replace(PLAIN, pools=(plain,)))
    assert host not in found
    assert not [name for name in found if "None" in name or "cloudapp" in name]


def test_driver_that_others_install_needs_no_driver_hosts() -> None:
    assert "us.download.nvidia.com" not in hosts(replace(PLAIN, pools=(replace(GPU, gpu_driver="None"),)))


@pytest.mark.parametrize(
    ("access", "prefix", "host"),
    [
        (Access(), "scoring", "scoring-<suffix>.hcp.westeurope.azmk8s.io"),
        (Access(), None, "<dns prefix>-<suffix>.hcp.westeurope.azmk8s.io"),
        (Access(private_cluster=True), "scoring", "scoring-<suffix>.privatelink.westeurope.azmk8s.io"),
        (Access(private_cluster=True, fqdn_subdomain="own"), None, "own.privatelink.westeurope.azmk8s.io"),
        (Access(private_cluster=True, vnet_integration=True), "s", "s-<suffix>.private.westeurope.azmk8s.io"),
        (Access(private_cluster=True, private_dns_zone="none"), "s", "s-<suffix>.hcp.westeurope.azmk8s.io"),
    ],
)
def test_api_server(access: Access, prefix: str | None, host: str) -> None:
    found = hosts(replace(PLAIN, access=access, dns_prefix=prefix), StackNames())
    assert host in found
    assert found[host].can_be_checked == ("<" not in host)
    assert ("private zone" in found[host].needed_for) == access.private_cluster


def test_api_server_has_one_row() -> None:
    assert [host for host in hosts() if "azmk8s.io" in host] == [NAMES.api_server]


def test_isolated_cluster_needs_no_public_images() -> None:
    isolated = replace(PLAIN, egress=Egress("none", bootstrap_cache_registry_id="acr"))
    assert "mcr.microsoft.com" not in hosts(isolated)
    assert "acme.azurecr.io" in hosts(isolated)


def test_tokens_and_vault() -> None:
    found = hosts(
        names=replace(NAMES, identity_providers=("login.example",), key_vault="certs", scoring_host="s.example")
    )
    assert found["login.example"].source_of_traffic == (From.RUNTIME, From.CLIENTS)
    assert "certs.vault.azure.net" in found
    assert "s.example" in found


def test_private_cloud_brings_its_own_names() -> None:
    own = CloudNames(
        name="AzureStackCloud",
        api_server="aks.<region>.cloud.example",
        resource_manager="management.cloud.example",
        sign_in="login.cloud.example",
        registry="registry.cloud.example",
        blob="blob.cloud.example",
        key_vault="vault.cloud.example",
        scoring="<region>.app.cloud.example",
        tables=None,
    )
    found = hosts(
        Cluster(location="north"), replace(NAMES, registries=("r.registry.cloud.example",), api_server=None), own
    )
    assert all("cloud.example" in host for host in found), sorted(found)


def test_what_the_stack_does_not_know_yet_is_a_pattern() -> None:
    found = hosts(Cluster(), StackNames())
    assert "<registry>.azurecr.io" in found
    assert "<storage account>.blob.core.windows.net" in found
    assert not found["<registry>.azurecr.io"].can_be_checked
    assert hosts()["acme.azurecr.io"].can_be_checked
    assert "Microsoft container images" in hosts()["mcr.microsoft.com"].needed_for
    assert hosts(Cluster(location="usgovvirginia"))["packages.microsoft.com"].needed_for == "aks-core"
    assert not hosts()["*.data.mcr.microsoft.com"].can_be_checked


def test_doubles_are_joined() -> None:
    everything = replace(
        PLAIN,
        pools=(GPU,),
        azure_ml=True,
        security=Security(
            workload_identity=True, defender=True, azure_policy=True, container_insights=True, key_vault_secrets=True
        ),
    )
    found = required_hosts(everything, NAMES)
    assert len({(one.host, one.port, one.protocol) for one in found}) == len(found)
    sign_in = hosts(everything)["login.microsoftonline.com"]
    assert set(sign_in.phases) == set(Phase)
    assert {From.NODES, From.OPERATOR, From.CLUSTER, From.SERVICES} <= set(sign_in.source_of_traffic)
    assert sign_in.required


def test_order_is_by_phase_then_name() -> None:
    found = required_hosts(PLAIN, NAMES)
    first = [min(list(Phase).index(phase) for phase in one.phases) for one in found]
    assert first == sorted(first)


def test_recommended_hosts_say_so() -> None:
    assert not hosts()["security.ubuntu.com"].required
    assert hosts()["security.ubuntu.com"].port == 80


@pytest.mark.parametrize(
    ("location", "cloud"),
    [("westeurope", "AzureCloud"), ("usgovtexas", "AzureUSGovernment"), ("China East", "AzureChinaCloud"), ("chinanorth3", "AzureChinaCloud"), ("China East 3", "AzureChinaCloud"), ("usdodwest", "AzureUSGovernment"), (None, "AzureCloud"), ("mars", "AzureCloud")],
)  # fmt: skip
def test_cloud_of_a_region(location: str | None, cloud: str) -> None:
    assert cloud_of(location).name == cloud
