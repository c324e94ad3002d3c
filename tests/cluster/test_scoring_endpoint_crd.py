"""The API server itself holds to the limits of a ScoringEndpoint: each accepted at its edge, refused beyond it."""

import copy
from typing import Any

import pytest

from aks_inference_runtime.api.crd import crd
from aks_inference_runtime.api.endpoint import (
    API_VERSION,
    KIND,
    LONGEST_MS,
    LONGEST_S,
    MAX_VERSIONS,
    MOST,
    EndpointSpec,
    ScoringEndpoint,
)

CODE = {"entryScript": "score.py", "digest": f"sha256:{'0' * 64}"}


def version(name: str = "default", **fields: Any) -> dict[str, Any]:
    return {"name": name, "code": CODE, **fields}


def only(**fields: Any) -> dict[str, Any]:
    return {"versions": [version(isDefault=True, **fields)]}


def endpoint(spec: dict[str, Any], name: str = "churn") -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}


def path(namespace: str, name: str = "") -> str:
    return f"/apis/{API_VERSION}/namespaces/{namespace}/scoringendpoints" + (f"/{name}" if name else "")


@pytest.fixture
def refusal(cluster, namespace):
    """What the server says to a spec in a dry run; empty when it takes it."""

    def ask(spec: dict[str, Any], name: str = "churn") -> str:
        answer = cluster.api.create(path(namespace), endpoint(spec, name), dryRun="All", fieldValidation="Strict")
        assert answer.status in (201, 400, 422), answer
        return "" if answer.status == 201 else answer.message

    return ask


TWO = [version("blue", isDefault=True, trafficPercentile=90), version("green", trafficPercentile=10)]

ACCEPTED = {
    "the least": only(),
    "open": {**only(), "auth": "none"},
    "two versions": {"versions": TWO},
    "two decimals": only(trafficPercentile=33.33),
    "many decimals of a double": only(trafficPercentile=0.07),
    "as many versions as there may be": {
        "versions": [version(f"v-{i}", isDefault=i == 0, trafficPercentile=16.66) for i in range(MAX_VERSIONS)]
    },
    "one control": {"versions": [version("blue", isDefault=True, type="Control"), version("red", type="Treatment")]},
    "fixed replicas": only(scaling={"autoscaleEnabled": False, "numReplicas": 3}),
    "a minimum that is the maximum": only(scaling={"autoscaleMinReplicas": 4, "autoscaleMaxReplicas": 4}),
    "full utilization": only(scaling={"autoscaleTargetUtilization": 100}),
    "limits equal to requests": only(resources={"cpuCores": 2, "cpuCoresLimit": 2, "memoryGb": 1, "memoryGbLimit": 1}),
    "a container": only(container={"image": "models/churn:3", "port": 65_535, "healthPort": 1}),
    "calls": {
        "versions": [
            version("blue", isDefault=True, container={"image": "a", "protocol": "grpc", "healthProtocol": "grpc"}),
            version("green", container={"image": "b", "protocol": "grpc"}),
        ]
    },
    "the longest and the most": only(
        scaling={"autoscaleMaxReplicas": MOST},
        requests={"scoringTimeoutMs": LONGEST_MS, "maxRequestWaitTime": LONGEST_MS, "maxQueuedRequests": MOST},
        livenessProbe={"initialDelaySeconds": LONGEST_S, "failureThreshold": MOST},
    ),
    "no queue": only(requests={"maxQueuedRequests": 0}),
    "tokens": {**only(), "auth": "token", "token": {"issuer": "https://i.example", "audiences": ["scoring"]}},
    "tokens of this machine": {
        **only(),
        "auth": "token",
        "token": {"issuer": "http://127.0.0.1:8080", "audiences": ["a"], "jwksUri": "http://localhost/keys"},
    },
    "origins": {**only(), "corsOrigins": ["https://app.example.com", "http://[::1]:3000"], "retryLostRequests": False},
    "a model": only(models=[{"name": "churn", "version": 1}]),
}

REFUSED = [
    ({"versions": []}, "spec.versions"),
    ({}, "spec.versions"),
    ({"versions": [version(f"v-{i}", isDefault=i == 0) for i in range(MAX_VERSIONS + 1)]}, "must have at most 6 items"),
    ({"versions": [version("blue", isDefault=True), version("blue")]}, "Duplicate value"),
    ({"versions": [version("blue"), version("green")]}, "exactly one version must be the default"),
    ({"versions": [version("blue", isDefault=True), version("green", isDefault=True)]}, "exactly one version"),
    (
        {"versions": [version("blue", isDefault=True, type="Control"), version("green", type="Control")]},
        "at most one version may be the control",
    ),
    (
        {
            "versions": [
                version("blue", isDefault=True, trafficPercentile=90),
                version("green", trafficPercentile=10.01),
            ]
        },
        "sum to more than 100",
    ),
    (only(trafficPercentile=33.333), "up to two decimals"),
    (only(trafficPercentile=-0.01), "greater than or equal to 0"),
    (only(trafficPercentile=100.01), "less than or equal to 100"),
    (only(type="Champion"), "Unsupported value"),
    ({"versions": [version("B", isDefault=True)]}, "spec.versions[0].name"),
    ({"versions": [{"name": "blue", "isDefault": True}]}, "spec.versions[0].code: Required"),
    ({**only(), "auth": "password"}, "Unsupported value"),
    ({**only(), "port": 6000}, 'unknown field "spec.port"'),
    ({**only(), "auth": "token"}, "auth token needs token: issuer and audiences"),
    ({**only(), "auth": "token", "token": {"issuer": "https://i.example", "audiences": []}}, "audiences"),
    ({**only(), "auth": "token", "token": {"issuer": "http://i.example", "audiences": ["a"]}}, "spec.token.issuer"),
    (
        {
            **only(),
            "auth": "token",
            "token": {"issuer": "https://i.example", "audiences": ["a"], "jwksUri": "http://localhost.example/keys"},
        },
        "spec.token.jwksUri",
    ),
    ({**only(), "corsOrigins": ["*"]}, "spec.corsOrigins[0]"),
    ({**only(), "corsOrigins": ["https://app.example.com/"]}, "spec.corsOrigins[0]"),
    ({**only(), "colour": "blue"}, 'unknown field "spec.colour"'),
    (only(scaling={"autoscaleEnabled": False}), "numReplicas is required"),
    (only(scaling={"numReplicas": 0}), "greater than 0"),
    (only(scaling={"autoscaleMinReplicas": 5, "autoscaleMaxReplicas": 4}), "above autoscaleMaxReplicas"),
    (only(scaling={"autoscaleMinReplicas": 11}), "above autoscaleMaxReplicas"),
    (only(scaling={"autoscaleMinReplicas": -1}), "autoscaleMinReplicas"),
    (only(scaling={"autoscaleMaxReplicas": 0}), "autoscaleMaxReplicas"),
    (only(scaling={"autoscaleTargetUtilization": 100.5}), "autoscaleTargetUtilization"),
    (only(scaling={"autoscaleTargetUtilization": 0}), "autoscaleTargetUtilization"),
    (only(scaling={"autoscaleRefreshSeconds": 0}), "autoscaleRefreshSeconds"),
    (only(scaling={"autoscaleScaleDownDelaySeconds": -1}), "autoscaleScaleDownDelaySeconds"),
    (only(resources={"cpuCores": 0}), "cpuCores"),
    (only(resources={"memoryGb": 0}), "memoryGb"),
    (only(resources={"gpuCores": -1}), "gpuCores"),
    (only(resources={"cpuCores": 2, "cpuCoresLimit": 1}), "cpuCoresLimit is below cpuCores"),
    (only(resources={"memoryGb": 2, "memoryGbLimit": 1}), "memoryGbLimit is below memoryGb"),
    (only(requests={"scoringTimeoutMs": 0}), "scoringTimeoutMs"),
    (only(requests={"replicaMaxConcurrentRequests": 0}), "replicaMaxConcurrentRequests"),
    (only(requests={"maxRequestWaitTime": 0}), "maxRequestWaitTime"),
    (only(requests={"maxQueuedRequests": -1}), "maxQueuedRequests"),
    (only(requests={"maxQueuedRequests": MOST + 1}), "maxQueuedRequests"),
    (only(requests={"coldStartTimeoutMs": 0}), "coldStartTimeoutMs"),
    (only(livenessProbe={"periodSeconds": 0}), "periodSeconds"),
    (only(scaling={"autoscaleMaxReplicas": MOST + 1}), "autoscaleMaxReplicas"),
    (only(requests={"scoringTimeoutMs": LONGEST_MS + 1}), "scoringTimeoutMs"),
    (only(requests={"maxRequestWaitTime": LONGEST_MS + 1}), "maxRequestWaitTime"),
    (only(livenessProbe={"initialDelaySeconds": LONGEST_S + 1}), "initialDelaySeconds"),
    (only(container={"port": 80}), "spec.versions[0].container.image: Required"),
    (only(container={"image": "x", "port": 65_536}), "port"),
    (only(container={"image": "x", "protocol": "h2"}), "Unsupported value"),
    (only(container={"image": "x", "scorePath": "score"}), "scorePath"),
    (only(container={"image": "x", "swaggerPath": ""}), "swaggerPath"),
    (only(container={"image": "x", "healthPath": "health"}), "healthPath"),
    (
        {"versions": [version("blue", isDefault=True, container={"image": "x", "protocol": "grpc"}), version("green")]},
        "all versions must speak the same protocol",
    ),
    (only(models=[{"name": "churn", "version": 0}]), "version"),
]


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED)
def test_what_the_server_takes(refusal, spec):
    assert refusal(spec) == ""
    EndpointSpec.model_validate(spec)


@pytest.mark.parametrize(("spec", "reason"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
def test_what_the_server_refuses(refusal, spec, reason):
    assert reason in refusal(spec)


@pytest.mark.parametrize("name", ["ab", "9lives", "a" * 33, "a.b.c", "ends-"])
def test_names_that_are_refused(refusal, name):
    said = refusal(only(), name)
    assert "3 to 32 characters" in said or "RFC 1123" in said


def test_the_defaults_are_those_of_the_models(cluster, namespace):
    """Written by hand with `kubectl apply` or declared: the same endpoint."""
    stored = cluster.api.create(path(namespace), endpoint(only()), dryRun="All").body
    told = ScoringEndpoint.model_validate(
        {**stored, "metadata": {"name": "churn", "namespace": namespace}},
    )
    declared = ScoringEndpoint.model_validate(
        {**endpoint(only()), "metadata": {"name": "churn", "namespace": namespace}}
    )
    assert told == declared


def test_what_is_declared_comes_back_as_it_was(cluster, namespace):
    """Nothing is pruned and nothing added: the second apply changes nothing (I9)."""
    spec = EndpointSpec.model_validate(ACCEPTED["a container"] | {"tags": {"team": "a"}}).to_wire()
    first = cluster.api.apply(path(namespace, "churn"), endpoint(copy.deepcopy(spec))).body
    second = cluster.api.apply(path(namespace, "churn"), endpoint(spec)).body
    assert first["spec"] == spec
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    assert second["metadata"]["generation"] == 1


def labelled(of_endpoint: dict[str, str], **of_versions: dict[str, str]) -> dict[str, Any]:
    """An endpoint with properties of its own and of its versions; the first is the default."""
    versions = [version(name, properties=found, isDefault=not n) for n, (name, found) in enumerate(of_versions.items())]
    spec = {"versions": versions, "properties": of_endpoint}
    for one in (spec, *versions):
        if not one["properties"]:
            del one["properties"]
    return spec


KEPT = labelled({"team": "a"}, blue={"data": "v1"}, green={})


@pytest.mark.parametrize(
    ("after", "where"),
    [
        (labelled({"team": "a", "more": "b"}, green={"data": "v9"}, blue={"data": "v1"}), None),
        (labelled({"team": "a"}, green={"data": "v1"}), None),
        (labelled({"team": "b"}, blue={"data": "v1"}, green={}), "spec"),
        (labelled({"more": "a"}, blue={"data": "v1"}, green={}), "spec"),
        (labelled({}, blue={"data": "v1"}, green={}), "spec"),
        (labelled({"team": "a"}, green={}, blue={"data": "v2"}), "spec.versions[1]"),
        (labelled({"team": "a"}, blue={}, green={}), "spec.versions[0]"),
    ],
)
def test_properties_never_change_once_set(cluster, namespace, after, where):
    """As the local target has it; of a version by its name, wherever it stands now."""
    made = cluster.api.apply(path(namespace, "churn"), endpoint(copy.deepcopy(KEPT)))
    assert made.status == 201, made.message
    answer = cluster.api.apply(path(namespace, "churn"), endpoint(after))
    if where is None:
        assert answer.status == 200, answer.message
    else:
        assert answer.status == 422, answer
        assert f"{where}: Invalid value" in answer.message
        assert "properties never change once set; set them back, or use tags for what may change" in answer.message


def test_the_status_is_apart_from_the_specification(cluster, namespace):
    cluster.api.apply(path(namespace, "churn"), endpoint(only()))
    status = {
        "state": "Healthy",
        "replicas": "2/3",
        "observedGeneration": 1,
        "scoringUri": "http://localhost/api/v1/service/churn/score",
        "versions": [{"name": "default", "state": "Healthy", "replicasReady": 2, "lastScaling": "2 to 3"}],
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Healthy", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        ],
    }
    written = cluster.api.apply(
        path(namespace, "churn") + "/status", {"apiVersion": API_VERSION, "kind": KIND, "status": status}
    )
    assert written.status == 200, written.message
    assert written.body["status"]["versions"][0]["lastScaling"] == "2 to 3"
    assert written.body["metadata"]["generation"] == 1, "a status is no change of what is declared"
    wrong = cluster.api.apply(
        path(namespace, "churn") + "/status", {"apiVersion": API_VERSION, "kind": KIND, "status": {"state": "Fine"}}
    )
    assert "Unsupported value" in wrong.message


def test_a_list_reads_well(cluster, namespace):
    """The columns of `kubectl get scoringendpoints`."""
    cluster.api.apply(path(namespace, "churn"), endpoint({"versions": TWO}))
    status = {"state": "Healthy", "replicas": "2/3", "scoringUri": "http://h/api/v1/service/churn/score"}
    status["traffic"] = "blue 90, green 10"
    cluster.api.apply(path(namespace, "churn") + "/status", {"apiVersion": API_VERSION, "kind": KIND, "status": status})
    cluster.api._headers["Accept"] = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    try:
        table = cluster.api.get(path(namespace)).body
    finally:
        cluster.api._headers["Accept"] = "application/json"
    shown = {c["name"]: cell for c, cell in zip(table["columnDefinitions"], table["rows"][0]["cells"], strict=True)}
    assert shown["Name"] == "churn"
    assert (shown["State"], shown["Ready"], shown["URI"]) == ("Healthy", "2/3", status["scoringUri"])
    assert shown["Traffic"] == "blue 90, green 10"


def test_the_schema_is_closed_and_bounded():
    """Every text and list has an end: the cost of the rules is estimated from these."""

    def walk(schema: dict[str, Any], where: str) -> None:
        if schema["type"] == "string" and "enum" not in schema and "format" not in schema:
            assert "maxLength" in schema, where
        for name, part in schema.get("properties", {}).items():
            walk(part, f"{where}.{name}")
        if "items" in schema:
            walk(schema["items"], f"{where}[]")

    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    walk(schema["properties"]["spec"], "spec")
