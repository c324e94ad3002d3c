"""camelCase and snake_case are the same argument: what the engine keeps and compares of a component is one spelling."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from aks_inference import AksInferenceCluster, ModelWebService
from aks_inference.component import shown_inputs
from aks_inference.findings import Casing, Finding
from aks_inference.spelling import arguments_of, spelled, spelling_of

PROGRAM = """
    import pulumi
    from aks_inference import ControlledRolloutEndpoint, LocalInferenceCluster, ModelWebService, RegisteredModel

    cluster = LocalInferenceCluster("local", port=8891)
    model = RegisteredModel("ridge", target=cluster, model_path="model.joblib", model_framework="ScikitLearn",
                            resource_configuration={"memory_in_gb": 1}, tags={"made_by": "me", "madeBy": "you"})
    config = {
        "entry_script": "score.py",
        "environment": {"pip_packages": ["scikit-learn"], "environment_variables": {"pip_packages": "none"}},
    }
    ModelWebService("service", target=cluster, models=[model], inference_config=config, primary_key="first-key",
                    deployment_config={"computeType": "aks", "numReplicas": 2},
                    description=pulumi.Output.from_input("late"))
    ControlledRolloutEndpoint("rollout", target=cluster, versions=[
        {"version_name": "ver-a", "traffic_percentile": 20, "models": [model], "inference_config": config},
        {"version_name": "ver-b", "traffic_percentile": 10, "models": [model], "inference_config": config},
    ])
"""
NAMES = (
    "model_path",
    "model_framework",
    "resource_configuration",
    "memory_in_gb",
    "entry_script",
    "environment_variables",
    "inference_config",
    "primary_key",
    "deployment_config",
    "version_name",
    "traffic_percentile",
)


def camel(name: str) -> str:
    return re.sub("_(.)", lambda match: match[1].upper(), name)


def test_a_program_in_the_other_spelling_registers_the_same(run_program: Callable[..., Any]) -> None:
    other = PROGRAM.replace('"environment": {"pip_packages"', '"environment": {"pipPackages"')
    for name in NAMES:
        other = other.replace(name, camel(name))
    seen = []
    for program in (PROGRAM, other):
        outcome = run_program(program, preview=True)
        assert outcome.code == 0, outcome.stderr + outcome.error
        seen.append({(r.type, r.name): r.inputs for r in outcome.engine.registered})
    assert seen[0] == seen[1]
    recorded = seen[0]["aks-inference:index:ModelWebService", "service"]
    # Keys of free maps are the user's own.
    assert recorded["inferenceConfig"]["environment"]["environmentVariables"] == {"pip_packages": "none"}
    assert seen[0]["aks-inference:index:RegisteredModel", "ridge"]["tags"] == {"made_by": "me", "madeBy": "you"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"pools": [{"vm_size": "a", "minCount": 1}]}, {"pools": [{"vmSize": "a", "minCount": 1}]}),
        ({"pools": ({"vm_size": "a", "labels": {"a_b": "c"}},)}, {"pools": [{"vmSize": "a", "labels": {"a_b": "c"}}]}),
        (
            {"system_pool": {"vm_size": "a"}, "tags": {"a_b": "c"}},
            {"systemPool": {"vmSize": "a"}, "tags": {"a_b": "c"}},
        ),
        ({"not_known": {"a_b": 1}}, {"not_known": {"a_b": 1}}),
        ({"pools": "no list", "network": [1]}, {"pools": "no list", "network": [1]}),
    ],
)
def test_names_of_arguments_only(value: dict[str, Any], expected: dict[str, Any]) -> None:
    assert spelled(arguments_of(AksInferenceCluster), value) == expected
    assert spelled(arguments_of(AksInferenceCluster), expected) == expected


@pytest.mark.parametrize(
    ("given", "path", "said"),
    [
        ({"numReplicas": 0}, ("num_replicas",), "numReplicas: see numReplicas"),
        ({"num_replicas": 0}, ("num_replicas",), "num_replicas: see num_replicas"),
        ({}, ("num_replicas",), "num_replicas: see num_replicas"),
        ({"target": "x", "tags": {"a_b": "c", "aB": "c"}, "port": 1}, ("num_replicas",), "num_replicas: see num_"),
        # Each as it is written; what is not there as the others are.
        ({"numReplicas": 0, "cpu_cores": 1, "memoryGb": 1}, ("cpu_cores",), "cpu_cores: see numReplicas"),
        ({"numReplicas": 0, "cpu_cores": 1}, ("numReplicas",), "numReplicas: see num_replicas"),
        (
            {"inferenceConfig": {"entry_script": "x", "sourceDirectory": "y"}, "tags": {"a_b": "c"}},
            ("inference_config", "entry_script"),
            "inferenceConfig.entry_script: see numReplicas",
        ),
        (
            {"inferenceConfig": {"environment": {"environmentVariables": {"my_name": 1}}}},
            ("inference_config", "environment", "environment_variables", "my_name"),
            "inferenceConfig.environment.environmentVariables.my_name: see numReplicas",
        ),
        ({"models": ["a"], "num_replicas": 1}, ("models", 7, "x"), "models[7].x: see num_replicas"),
    ],
)
def test_findings_name_arguments_as_they_are_written(given: dict[str, Any], path: Any, said: str) -> None:
    spelling = spelling_of(arguments_of(ModelWebService), given)
    assert spelling.text(Finding(path, "see @num_replicas", "")).startswith(said)


def test_a_place_in_a_deployment_configuration_follows_the_argument() -> None:
    finding = Finding(("deployment_config",), "is wrong", "", place="deployment_config: numReplicas")
    spelling = spelling_of(arguments_of(ModelWebService), {"deploymentConfig": {"numReplicas": 0}})
    assert spelling.text(finding) == "deploymentConfig: numReplicas: is wrong"


def test_what_nests_without_end_has_names_as_well() -> None:
    deep: Any = "x"
    for _ in range(5_000):
        deep = {"entry_script": [deep]}
    given = {"inferenceConfig": deep, "scoringTimeoutMs": 1}
    assert spelling_of(arguments_of(ModelWebService), given).casing is Casing.CAMEL


def test_a_program_in_camel_case_gets_its_findings_so(run_program: Callable[..., Any]) -> None:
    outcome = run_program("""
        from aks_inference import ControlledRolloutEndpoint, LocalInferenceCluster, ModelWebService
        cluster = LocalInferenceCluster("local")
        config = {"entryScript": "gone.py", "environment": {"pipPackages": [7]}}
        ModelWebService("service", target=cluster, inferenceConfig=config, scoringTimeoutMs=-1, numReplica=2)
        ModelWebService("other", target=cluster, inference_config={"entry_script": "score.py"}, scoring_timeout_ms=-1)
        ControlledRolloutEndpoint("rollout", target=cluster, versions=[
            {"versionName": "ver-a", "trafficPercentile": 101, "inferenceConfig": {"entryScript": "score.py"}},
        ])
    """)
    assert outcome.code == 1
    for part in (
        "  scoringTimeoutMs = -1: ",
        "  numReplica: is not known here; did you mean `numReplicas`?",
        '  inferenceConfig.entryScript = "gone.py": does not exist',
        "  inferenceConfig.environment.pipPackages[0] = 7: must be a text",
        "  scoring_timeout_ms = -1: ",
        "  versions[0].trafficPercentile = 101: ",
    ):
        assert part in outcome.error, outcome.error


def test_a_subclass_has_the_arguments_of_its_base() -> None:
    class Own(ModelWebService):
        def __init__(self, name: str) -> None:
            super().__init__(name)

    assert arguments_of(Own) == arguments_of(ModelWebService) is not None
    assert arguments_of(object) is None


def test_what_is_not_given_is_not_shown() -> None:
    assert shown_inputs({"num_replicas": 2, "port": None}, arguments_of(ModelWebService)) == {"numReplicas": 2}
