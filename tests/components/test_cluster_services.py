"""Services on an AksInferenceCluster with the runtime: their target, and whether they fit on its nodes."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic.alias_generators import to_camel

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

PROGRAM = """
from aks_inference import AksInferenceCluster, ModelWebService
cluster = AksInferenceCluster("prod", location="westeurope", vm_size="Standard_D4s_v5",
                              network=dict(plugin="azure", plugin_mode="overlay"){more})
for name, settings in {services}:
    ModelWebService(name, target=cluster, image="registry.example/m:1", inference_config=dict(entry_script="score.py"),
                    **settings)
"""
SECRET_VARIABLE = """
import pulumi
from aks_inference import InferenceRuntime, ModelWebService
runtime = InferenceRuntime("runtime", image="registry.example/runtime:1")
environment = dict(environment_variables=dict(TOKEN=pulumi.Output.secret("{value}")))
ModelWebService("churn", target=runtime, image="registry.example/m:1",
                inference_config=dict(entry_script="score.py", environment=environment))
"""
ADDRESSED = """
from aks_inference import InferenceRuntime, ModelWebService
cluster = InferenceRuntime("prod", image="registry.example/runtime:1", **{settings})
ModelWebService("churn", target=cluster, image="registry.example/m:1",
                inference_config=dict(entry_script="score.py"))
calls = dict(image="registry.example/m:1", port=8001, protocol="grpc")
ModelWebService("calls", target=cluster.target, custom_image=calls)
"""
RUNTIME = ', runtime=dict(image="registry.example/runtime:1")'
ON_OTHERS = """
import pulumi
from aks_inference import AksInferenceCluster

class Chart(pulumi.CustomResource):
    def __init__(self, name):
        super().__init__("other:index:Chart", name, {{}})

AksInferenceCluster("prod", {place}, cluster_purpose="DevTest", opts={opts},
                    runtime=dict(image="registry.example/runtime:1", prometheus_operator=True))
"""
MADE = 'location="westeurope", vm_size="Standard_D4s_v5", network=dict(plugin="azure", plugin_mode="overlay")'
ATTACHED = (
    'resource_id="/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/ml/providers/'
    'Microsoft.ContainerService/managedClusters/prod"'
)


def program(services: list[tuple[str, dict[str, Any]]], more: str = RUNTIME) -> str:
    return PROGRAM.format(services=services, more=more)


def test_the_runtime_comes_with_the_cluster(run_program: Callable[..., Any]) -> None:
    outcome = run_program(program([("churn", {"num_replicas": 2})]))
    assert outcome.code == 0, outcome.error + outcome.stderr
    runtime = outcome.engine.of("InferenceRuntime")[0]
    assert runtime.parent.endswith("AksInferenceCluster::prod")
    assert outcome.engine.of("ScoringEndpoint")
    said = outcome.engine.said()
    assert "at the services' minimum: fits; nodes in use: " in said


@pytest.mark.parametrize(
    ("access", "told"),
    [
        ({}, []),
        (
            {"entra_id": True, "azure_rbac": True},
            ["RBAC Cluster Admin, at the resource group", "be a member of a group"],
        ),
        ({"entra_id": True, "admin_group_ids": ["g"]}, ["must be a member of one of admin_group_ids"]),
        ({"entra_id": True}, ["neither azure_rbac nor admin_group_ids"]),
    ],
)
def test_what_who_applies_must_be_allowed_to(
    run_program: Callable[..., Any], access: dict[str, Any], told: list[str]
) -> None:
    outcome = run_program(program([], f"{RUNTIME}, access={access}"))
    assert outcome.code == 0, outcome.error + outcome.stderr
    said = outcome.engine.said()
    assert ("rights: who applies this" in said) is bool(told)
    assert all(words in said for words in told)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (", agent_count=3, access=dict(entra_id=True, azure_rbac=False)", "agent_count"),
        (
            ', agentCount=3, tier="Standard", clusterName="prod", access=dict(entraId=True, azureRbac=False)',
            "agentCount",
        ),
    ],
)
def test_what_was_checked_names_arguments_as_the_program_does(
    run_program: Callable[..., Any], more: str, named: str
) -> None:
    spelled = str if "_" in named else to_camel
    written = program([], RUNTIME + more)
    for name in ("vm_size", "plugin_mode") if "_" not in named else ():
        written = written.replace(name, to_camel(name))
    outcome = run_program(written)
    assert outcome.code == 0, outcome.error + outcome.stderr
    said = outcome.engine.said()
    assert f"vCPU check: {named} 3 × Standard_D4s_v5 (4 vCPU) = 12 vCPU" in said
    assert f"the output {spelled('required_hosts')} and `aks-inference doctor`" in said
    assert f"There are neither {spelled('azure_rbac')} nor {spelled('admin_group_ids')}" in said


def test_an_internal_address(run_program: Callable[..., Any]) -> None:
    more = RUNTIME + ', load_balancer_type="InternalLoadBalancer", load_balancer_subnet="inner"'
    outcome = run_program(program([], more))
    assert outcome.code == 0, outcome.error + outcome.stderr
    (router,) = (s for s in outcome.engine.of("Service") if s.inputs["metadata"]["name"] == "aks-inference-router")
    annotations = router.inputs["metadata"]["annotations"]
    assert annotations["service.beta.kubernetes.io/azure-load-balancer-internal"] == "true"
    assert annotations["service.beta.kubernetes.io/azure-load-balancer-internal-subnet"] == "inner"


@pytest.mark.parametrize(
    ("place", "opts", "told"),
    [
        (MADE, "None", {"made": True}),
        (ATTACHED, "None", {}),
        (ATTACHED, 'pulumi.ResourceOptions(depends_on=[Chart("operator")])', {"later": True}),
        (ATTACHED, 'pulumi.ResourceOptions(depends_on=Chart("operator"))', {"later": True}),
    ],
)
def test_what_others_bring_to_the_cluster_of_a_runtime(
    run_program: Callable[..., Any], place: str, opts: str, told: dict[str, bool]
) -> None:
    """The runtime waits for what its cluster depends on, first to look."""
    outcome = run_program(ON_OTHERS.format(place=place, opts=opts))
    assert outcome.code == 0, outcome.error + outcome.stderr
    (look,) = outcome.engine.of("ClusterKinds")
    assert look.inputs["argument"] == "runtime.prometheus_operator"
    assert {name: look.inputs.get(name) for name in ("made", "later") if name in look.inputs} == told
    chart = "urn:pulumi:dev::proj::other:index:Chart::operator"
    assert (chart in look.request.dependencies) is ("later" in told)


def test_what_cannot_fit_is_refused(run_program: Callable[..., Any]) -> None:
    outcome = run_program(program([("large", {"num_replicas": 30, "cpu_cores": 3, "memory_gb": 10})]))
    assert outcome.code == 1
    assert "cannot fit on the nodes of prod at the services' minimum: large/default: unschedulable at" in outcome.error
    assert not outcome.engine.of("ManagedCluster")


def test_what_may_not_fit_at_most_is_a_warning(run_program: Callable[..., Any]) -> None:
    scaled = {"autoscale_enabled": True, "autoscale_max_replicas": 40, "cpu_cores": 3, "memory_gb": 10}
    outcome = run_program(program([("large", scaled)]))
    assert outcome.code == 0, outcome.error
    assert "at the services' maximum: large/default: unschedulable at" in outcome.engine.said("WARNING")


def test_a_gpu_that_no_pool_has(run_program: Callable[..., Any]) -> None:
    outcome = run_program(program([("deep", {"num_replicas": 1, "gpu_cores": 1})]))
    assert outcome.code == 1
    assert "gpu_cores: asks for a GPU, and no pool of the cluster prod has one" in outcome.error
    pools = RUNTIME + (
        ', pools=[dict(name="cpu", vm_size="Standard_D4s_v5", count=3), '
        'dict(name="gpu", vm_size="Standard_NC4as_T4_v3", count=1)]'
    )
    text = program([("deep", {"num_replicas": 1, "gpu_cores": 1})], pools)
    outcome = run_program(text.replace('vm_size="Standard_D4s_v5",\n', "\n", 1))
    assert outcome.code == 0, outcome.error


def test_spot_nodes_are_for_services_that_say_so(run_program: Callable[..., Any]) -> None:
    """20 cores on the pool that lasts, 32 more on spot nodes."""
    pools = RUNTIME + (
        ', pools=[dict(name="cpu", vm_size="Standard_D4s_v5", count=5), '
        'dict(name="spare", vm_size="Standard_D8s_v5", count=4, spot=True)]'
    )
    large = {"num_replicas": 12, "cpu_cores": 2, "memory_gb": 2}
    for spot in (False, True):
        text = program([("large", large | {"spot": spot})], pools)
        outcome = run_program(text.replace('vm_size="Standard_D4s_v5",\n', "\n", 1))
        assert outcome.code == (0 if spot else 1), outcome.error
        assert ("cannot fit" in outcome.error) is not spot
    outcome = run_program(program([("small", {"num_replicas": 1, "spot": True})]))
    assert outcome.code == 0
    assert "spot = true: has no effect: no pool of the cluster prod is of spot nodes" in outcome.engine.said("WARNING")


def test_without_the_runtime_services_are_refused(run_program: Callable[..., Any]) -> None:
    outcome = run_program(program([("churn", {"num_replicas": 2})], ""))
    assert outcome.code == 1
    assert "give the AksInferenceCluster its runtime" in outcome.error


@pytest.mark.parametrize(
    ("network", "value"),
    [
        ('plugin="azure", plugin_mode="overlay"', ""),
        ('plugin="azure", plugin_mode="overlay", policy="none"', ' = "none"'),
    ],
)
def test_pods_that_reach_gates_past_the_routers_are_told(
    run_program: Callable[..., Any], network: str, value: str
) -> None:
    text = program([("churn", {"num_replicas": 2})])
    outcome = run_program(text.replace('plugin="azure", plugin_mode="overlay"', network))
    assert outcome.code == 0, outcome.error + outcome.stderr
    said = outcome.engine.said("WARNING")
    assert f"network.policy{value}: no NetworkPolicy is enforced: every pod of the cluster can score without a" in said
    assert 'use policy "cilium" with dataplane "cilium", or policy "calico"' in said


@pytest.mark.parametrize(
    ("network", "more"),
    [
        ('plugin="azure", policy="calico"', RUNTIME),
        ('plugin="azure", dataplane="cilium"', RUNTIME),
        ('plugin="azure"', ""),
    ],
)
def test_where_policies_are_enforced_nothing_is_told(run_program: Callable[..., Any], network: str, more: str) -> None:
    outcome = run_program(program([], more).replace('plugin="azure", plugin_mode="overlay"', network))
    assert outcome.code == 0, outcome.error + outcome.stderr
    assert "NetworkPolicy" not in outcome.engine.said("WARNING")


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "http://aks-inference-router.aks-inference-system.svc"),
        ({"url": "https://a.example/"}, "https://a.example"),
    ],
)
def test_addresses_are_those_of_the_runtime_in_sight(
    run_program: Callable[..., Any], settings: dict[str, Any], url: str
) -> None:
    """The endpoint's own state does not change with them; and nobody hears of them before it is served."""
    text = ADDRESSED.format(settings=settings)
    outcome = run_program(text, preview=False)
    assert outcome.code == 0, outcome.error + outcome.stderr
    told = outcome.engine.outputs
    assert told["churn"]["scoringUri"] == f"{url}/api/v1/service/churn/score"
    assert told["churn"]["swaggerUri"] == f"{url}/api/v1/service/churn/swagger.json"
    host = url.partition("://")[2]
    assert told["calls"]["scoringUri"] == (f"grpcs://{host}:443/calls" if "https" in url else f"grpc://{host}:80/calls")
    assert told["calls"]["swaggerUri"] == ""
    new = run_program(text, preview=True).engine.outputs
    assert [new[name]["scoringUri"] for name in ("churn", "calls")] == [UNKNOWN, UNKNOWN]


def test_secret_variables_have_a_secret_of_their_own_by_what_they_are(run_program: Callable[..., Any]) -> None:
    """Its name says nothing that could be tried out, and changes with them; the endpoint's version with its pods."""

    def made(value: str) -> tuple[Any, Any, Any]:
        outcome = run_program(SECRET_VARIABLE.format(value=value), preview=False)
        assert outcome.code == 0, outcome.error + outcome.stderr
        (secret,) = [s for s in outcome.engine.of("Secret") if "-environment-" in s.inputs["metadata"]["name"]]
        (deployment,) = [d for d in outcome.engine.of("Deployment") if d.inputs["metadata"]["name"] == "churn-default"]
        (endpoint,) = outcome.engine.of("ScoringEndpoint")
        return secret, deployment, endpoint

    (secret, deployment, endpoint), (other, _, moved), (again, _, same) = made("one"), made("two"), made("one")
    name = secret.inputs["metadata"]["name"]
    assert secret.inputs["immutable"] is True
    (scoring,) = deployment.inputs["spec"]["template"]["spec"]["containers"]
    assert scoring["envFrom"] == [{"secretRef": {"name": name}}]
    assert other.inputs["metadata"]["name"] != name == again.inputs["metadata"]["name"]
    # One is made before the other goes, and the way back makes nothing that is about to go.
    assert other.name != secret.name == again.name
    digests = [one.inputs["spec"]["versions"][0]["podTemplate"] for one in (endpoint, moved, same)]
    assert digests[0] == digests[2] != digests[1]
    assert deployment.inputs["metadata"]["annotations"]["aks-inference.dev/pod-template"] == digests[0]
    assert endpoint.request.deleteBeforeReplace
