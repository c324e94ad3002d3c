"""What InferenceRuntime declares, judged by a real API server: every object, every right, the security of its pods."""

import copy
import uuid
from typing import Any

import pytest

from aks_inference.inference_runtime.access import accounts, policies
from aks_inference.inference_runtime.spec import RuntimePlan, plan_runtime
from aks_inference.inference_runtime.workloads import priority, workloads
from aks_inference.service.replicas import policy as replica_policy
from aks_inference_runtime.api import kubernetes as k8s
from aks_inference_runtime.api.target import KubernetesTarget
from aks_inference_runtime.kubernetes.pod import settings as told_settings

CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "PriorityClass"}


def planned(**arguments: Any) -> RuntimePlan:
    plan, findings = plan_runtime("runtime", {"image": "runtime:1", **arguments})
    assert plan is not None, findings
    return plan


def path(manifest: dict[str, Any]) -> str:
    version, kind = manifest["apiVersion"], manifest["kind"]
    plural = {"NetworkPolicy": "networkpolicies", "PriorityClass": "priorityclasses"}.get(kind, f"{kind.lower()}s")
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    inside = "" if kind in CLUSTER_WIDE else f"/namespaces/{manifest['metadata']['namespace']}"
    return f"{root}{inside}/{plural}/{manifest['metadata']['name']}"


def everything(plan: RuntimePlan) -> list[dict[str, Any]]:
    return [*accounts(plan), *policies(plan), priority(plan), *workloads(plan, "of-a-token")]


@pytest.fixture(scope="module")
def plan(cluster):
    """A runtime whose objects are all applied, in a namespace with the restricted security standard."""
    plan = planned(namespace=f"runtime-{uuid.uuid4().hex[:8]}", image_pull_secrets=["pull"])
    space = {"metadata": {"name": plan.namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    assert cluster.api.create("/api/v1/namespaces", space).status == 201
    for manifest in everything(plan):
        answer = cluster.api.apply(path(manifest), manifest, fieldValidation="Strict")
        assert answer.status == 201, answer.message
    yield plan
    for manifest in everything(plan):
        if manifest["kind"] in CLUSTER_WIDE:
            cluster.api.delete(path(manifest))
    cluster.api.delete(f"/api/v1/namespaces/{plan.namespace}")


def test_the_second_apply_changes_nothing(cluster, plan):
    """I9, as the server counts: the same resource version."""
    for manifest in everything(plan):
        before = cluster.api.get(path(manifest)).body
        after = cluster.api.apply(path(manifest), manifest).body
        if manifest["kind"] == "Deployment":
            # Its status is being written by controllers.
            assert before["metadata"]["generation"] == after["metadata"]["generation"]
        else:
            assert before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"], manifest["kind"]


@pytest.mark.parametrize("name", [k8s.ROUTER_NAME, k8s.AUTOSCALER_NAME])
def test_pods_hold_the_restricted_standard(cluster, plan, name):
    template = cluster.api.get(f"/apis/apps/v1/namespaces/{plan.namespace}/deployments/{name}").body["spec"]["template"]
    pod = {"metadata": {"generateName": "try-", "labels": template["metadata"]["labels"]}, "spec": template["spec"]}
    answer = cluster.api.create(f"/api/v1/namespaces/{plan.namespace}/pods", pod, dryRun="All")
    assert answer.status == 201, answer.message
    weak = copy.deepcopy(pod)
    weak["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    assert cluster.api.create(f"/api/v1/namespaces/{plan.namespace}/pods", weak, dryRun="All").status == 403
    for container in template["spec"]["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


OWN, OTHER = "own", "other"
RIGHTS = [
    # account, verb, group, resource, subresource, where, allowed
    (k8s.ROUTER_NAME, "watch", "aks-inference.dev", "scoringendpoints", "", OTHER, True),
    (k8s.ROUTER_NAME, "watch", "discovery.k8s.io", "endpointslices", "", OTHER, True),
    (k8s.ROUTER_NAME, "get", "", "secrets", "", OWN, True),
    (k8s.ROUTER_NAME, "get", "", "secrets", "", OTHER, False),
    (k8s.ROUTER_NAME, "list", "", "pods", "", OWN, True),
    (k8s.ROUTER_NAME, "patch", "aks-inference.dev", "scoringendpoints", "", OTHER, False),
    (k8s.ROUTER_NAME, "patch", "apps", "deployments", "scale", OTHER, False),
    (k8s.ROUTER_NAME, "create", "", "pods", "exec", OWN, False),
    (k8s.ROUTER_NAME, "create", "events.k8s.io", "events", "", OWN, False),
    (k8s.ROUTER_NAME, "get", "", "configmaps", "", OWN, False),
    (k8s.AUTOSCALER_NAME, "update", "apps", "deployments", "scale", OTHER, False),
    (k8s.AUTOSCALER_NAME, "create", "", "events", "", OTHER, False),
    (k8s.AUTOSCALER_NAME, "list", "", "services", "", OWN, False),
    (k8s.AUTOSCALER_NAME, "patch", "apps", "deployments", "scale", OTHER, True),
    (k8s.AUTOSCALER_NAME, "patch", "apps", "deployments", "", OTHER, False),
    (k8s.AUTOSCALER_NAME, "delete", "", "pods", "", OTHER, False),
    (k8s.AUTOSCALER_NAME, "patch", "", "pods", "resize", OWN, True),
    (k8s.AUTOSCALER_NAME, "patch", "", "pods", "resize", OTHER, False),
    (k8s.AUTOSCALER_NAME, "patch", "", "pods", "", OWN, False),
    (k8s.AUTOSCALER_NAME, "patch", "aks-inference.dev", "scoringendpoints", "status", OTHER, True),
    (k8s.AUTOSCALER_NAME, "patch", "aks-inference.dev", "scoringendpoints", "", OTHER, False),
    (k8s.AUTOSCALER_NAME, "get", "", "secrets", "", OWN, False),
    (k8s.AUTOSCALER_NAME, "get", "", "secrets", "", OTHER, False),
    (k8s.AUTOSCALER_NAME, "update", "coordination.k8s.io", "leases", "", OWN, True),
    (k8s.AUTOSCALER_NAME, "update", "coordination.k8s.io", "leases", "", OTHER, False),
    (k8s.AUTOSCALER_NAME, "get", "", "pods", "log", OTHER, True),
    (k8s.AUTOSCALER_NAME, "list", "", "nodes", "", OTHER, True),
    (k8s.AUTOSCALER_NAME, "list", "autoscaling", "horizontalpodautoscalers", "", OTHER, True),
]


@pytest.mark.parametrize("right", RIGHTS, ids=lambda right: " ".join(filter(None, map(str, right))))
def test_rights(cluster, plan, right):
    """The router reads what it routes, the autoscaler changes scale, neither reads other secrets."""
    account, verb, group, resource, subresource, where, allowed = right
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{plan.namespace}:{account}",
            "resourceAttributes": {
                "verb": verb,
                "group": group,
                "resource": resource,
                "subresource": subresource,
                "namespace": plan.namespace if where == OWN else "default",
            },
        },
    }
    answer = cluster.api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    assert answer.status == 201, answer.message
    assert answer.body["status"]["allowed"] is allowed


def test_the_autoscaler_reads_the_routers_service_and_no_other(cluster, plan):
    for name, allowed in ((k8s.ROUTER_NAME, True), ("other", False)):
        attributes = {"verb": "watch", "resource": "services", "namespace": plan.namespace, "name": name}
        user = f"system:serviceaccount:{plan.namespace}:{k8s.AUTOSCALER_NAME}"
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": attributes},
        }
        answer = cluster.api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        assert answer.body["status"]["allowed"] is allowed


def test_routers_are_spread_and_go_one_at_a_time():
    made = {(m["kind"], m["metadata"]["name"]): m for m in workloads(planned())}
    router = made["Deployment", k8s.ROUTER_NAME]
    keys = [c["topologyKey"] for c in router["spec"]["template"]["spec"]["topologySpreadConstraints"]]
    assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert "replicas" not in router["spec"], "the autoscaler's"
    budget = made["PodDisruptionBudget", k8s.ROUTER_NAME]["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    constraints = router["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert all(c["matchLabelKeys"] == ["pod-template-hash"] for c in constraints), "new pods apart from old ones"
    assert router["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > 600, "a score of ten minutes survives"


def test_a_cluster_for_development_has_one_of_each():
    made = {(m["kind"], m["metadata"]["name"]): m for m in workloads(planned(cluster_purpose="DevTest"))}
    assert made["Deployment", k8s.AUTOSCALER_NAME]["spec"]["replicas"] == 1
    assert ("PodDisruptionBudget", k8s.ROUTER_NAME) not in made


def test_the_load_balancer_keeps_connections_of_long_scores():
    made = {(m["kind"], m["metadata"]["name"]): m for m in workloads(planned(service_annotations={"a": "b"}))}
    annotations = made["Service", k8s.ROUTER_NAME]["metadata"]["annotations"]
    assert annotations["service.beta.kubernetes.io/azure-load-balancer-tcp-idle-timeout"] == "30"
    assert annotations["a"] == "b"


def test_the_settings_are_what_the_runtime_reads():
    """They stand in the pods: one that was made with others keeps those, whatever is declared since."""
    made = {(m["kind"], m["metadata"]["name"]): m for m in workloads(planned(url="https://scoring.example.com/"))}
    assert not [kind for kind, _ in made if kind == "ConfigMap"]
    for name in (k8s.ROUTER_NAME, k8s.AUTOSCALER_NAME):
        (container,) = made["Deployment", name]["spec"]["template"]["spec"]["containers"]
        settings = told_settings({one["name"]: one.get("value", "") for one in container["env"]})
        assert settings.url == "https://scoring.example.com"
        assert settings.router_min_pods == 3


def test_another_token_makes_new_routers_and_no_new_autoscalers():
    def annotations(digest):
        made = {m["metadata"]["name"]: m for m in workloads(planned(), digest) if m["kind"] == "Deployment"}
        names = (k8s.ROUTER_NAME, k8s.AUTOSCALER_NAME)
        return [made[name]["spec"]["template"]["metadata"].get("annotations") for name in names]

    assert annotations("one")[0] != annotations("other")[0]
    assert annotations("one")[1] is None


def test_routers_and_autoscaler_come_before_replicas():
    """On full nodes a lost router's successor takes the place of a replica, which has no class."""
    runtime = planned(namespace="own")
    made = priority(runtime)
    assert made["value"] > 0
    for manifest in workloads(runtime):
        if manifest["kind"] == "Deployment":
            assert manifest["spec"]["template"]["spec"]["priorityClassName"] == made["metadata"]["name"]
    assert made["metadata"]["name"] != priority(planned(namespace="other"))["metadata"]["name"]


def test_replicas_are_reached_by_routers_alone(cluster, namespace):
    """The bridge of a test node enforces none: the object is what can be looked at."""
    policy = replica_policy("churn", namespace, KubernetesTarget(name="c", namespace="aks-inference-system"))
    assert cluster.api.apply(path(policy), policy, fieldValidation="Strict").status == 201
    rule, metrics = policy["spec"]["ingress"]
    (source,) = rule["from"]
    assert source["podSelector"]["matchLabels"][k8s.COMPONENT_LABEL] == k8s.ROUTER_COMPONENT
    assert source["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "aks-inference-system"}
    assert [p["port"] for p in rule["ports"]] == [k8s.GATE_PORT, k8s.GATE_CONTROL_PORT]
    # Namespaces that say so read the gates' metrics, and nothing else.
    assert metrics["from"] == [{"namespaceSelector": {"matchLabels": {"aks-inference.dev/monitoring": "true"}}}]
    assert [p["port"] for p in metrics["ports"]] == [k8s.GATE_READY_PORT]


WRONG = [
    ({}, "image: is required"),
    ({"namespace": "default"}, "is shared"),
    ({"namespace": "Runtime"}, "lower-case"),
    ({"cluster_purpose": "Prod"}, "FastProd"),
    ({"cluster_purpose": "DevTest", "router_replicas": 3}, "DevTest has one router"),
    ({"router_replicas": 0}, "at least 1"),
    ({"service_type": "Ingress"}, "LoadBalancer"),
    ({"url": "scoring.example.com"}, "is no web address"),
    ({"kubeconfig": " "}, "is empty"),
    ({"imagee": "x"}, "did you mean"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_a_broken_rule(arguments, said):
    from aks_inference.findings import Casing

    given = arguments if "image" in said else {"image": "runtime:1", **arguments}
    plan, findings = plan_runtime("runtime", given)
    assert plan is None
    assert any(said in finding.text(Casing.SNAKE) for finding in findings), findings


def test_names_of_workloads():
    assert k8s.workload_name("churn", "default") == "churn-default"
    long = k8s.workload_name("e" * 32, "v" * 32)
    assert len(long) <= 52
    assert long != k8s.workload_name("e" * 32, "v" * 31 + "w")
    assert k8s.version_label("blue") == "blue"
    assert len(k8s.version_label("_" * 80)) <= 63
