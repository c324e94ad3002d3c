"""The local components in a real program: what they register, what they say."""

import json
from collections.abc import Callable
from typing import Any

import pytest

PROGRAM = """
    import pulumi
    from aks_inference import ControlledRolloutEndpoint, LocalInferenceCluster, ModelWebService, RegisteredModel

    cluster = LocalInferenceCluster("local", port=8891, state_directory=None)
    model = RegisteredModel("ridge", target=cluster, model_path="model.joblib", model_framework="ScikitLearn")
    config = {
        "entry_script": "score.py",
        "environment": {"pip_packages": ["scikit-learn"],
                        "environment_variables": {"RATE": pulumi.Output.from_input("3")}},
    }
    service = ModelWebService("service", target=cluster, models=[model], inference_config=config,
                              primary_key="first-key", description=pulumi.Output.from_input("late"))
    endpoint = ControlledRolloutEndpoint("rollout", target=cluster.target, versions=[
        {"version_name": "ver-a", "traffic_percentile": 20, "models": [model], "inference_config": config},
        {"version_name": "ver-b", "traffic_percentile": 10.5, "models": [model.model_id], "type": "Control",
         "inference_config": config, "num_replicas": 2},
    ])
    pulumi.export("uri", service.scoring_uri)
    pulumi.export("key", service.primary_key)
    pulumi.export("traffic", endpoint.effective_traffic)
"""
SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}


@pytest.mark.parametrize("preview", [True, False])
def test_children_are_registered_under_their_components(run_program: Callable[..., Any], preview: bool) -> None:
    outcome = run_program(PROGRAM, preview=preview)
    assert outcome.code == 0, outcome.stderr + outcome.error
    token = "aks-inference:index:"
    urn = f"urn:pulumi:dev::proj::{token}"
    assert sorted(
        (r.type.removeprefix(token), r.name, r.parent.removeprefix(urn)) for r in outcome.engine.registered
    ) == [
        ("ControlledRolloutEndpoint", "rollout", "urn:pulumi:dev::proj::pulumi:pulumi:Stack::proj-dev"),
        ("LocalEndpoint", "rollout", "ControlledRolloutEndpoint::rollout"),
        ("LocalEndpoint", "service", "ModelWebService::service"),
        ("LocalInferenceCluster", "local", "urn:pulumi:dev::proj::pulumi:pulumi:Stack::proj-dev"),
        ("LocalRuntime", "local", "LocalInferenceCluster::local"),
        ("Model", "ridge", "RegisteredModel::ridge"),
        ("ModelWebService", "service", "urn:pulumi:dev::proj::pulumi:pulumi:Stack::proj-dev"),
        ("RegisteredModel", "ridge", "urn:pulumi:dev::proj::pulumi:pulumi:Stack::proj-dev"),
        ("pulumi:pulumi:Stack", "proj-dev", ""),
    ]


def test_inputs_of_the_children(run_program: Callable[..., Any], tmp_path: Any) -> None:
    engine = run_program(PROGRAM, preview=False).engine
    (runtime,) = engine.of("LocalRuntime")
    assert runtime.inputs == {"name": "local", "port": 8891}
    (model,) = engine.of("Model")
    assert model.inputs["path"] == str(tmp_path / "model.joblib")
    assert model.inputs["framework"] == "ScikitLearn"
    assert model.inputs["target"].startswith("aks-inference+local:")
    service, rollout = sorted(engine.of("LocalEndpoint"), key=lambda r: r.name, reverse=True)
    assert service.inputs["effectiveTraffic"] == {"default": 100}
    assert service.inputs["primaryKey"] == {**SECRET, "value": "first-key"}
    spec = service.inputs["endpoint"]["spec"]
    assert spec["description"] == "late"
    (version,) = spec["versions"]
    assert version["models"] == [{"name": "ridge", "version": 1}]
    assert version["environment"]["environmentVariables"] == {"RATE": "3"}
    assert version["code"]["entryScript"] == str(tmp_path / "score.py")
    assert version["scaling"]["autoscaleEnabled"] is True
    assert rollout.inputs["effectiveTraffic"] == {"ver-a": 89.5, "ver-b": 10.5}
    first, second = rollout.inputs["endpoint"]["spec"]["versions"]
    assert (first["isDefault"], first["type"], second["isDefault"], second["type"]) == (
        True, "Treatment", False, "Control",
    )  # fmt: skip
    assert second["models"] == [{"name": "ridge", "version": 1}]
    assert "deleteBeforeReplaceDefined" not in str(runtime.inputs)
    assert runtime.request.deleteBeforeReplace is True
    assert set(service.request.additionalSecretOutputs) == {"primaryKey", "secondaryKey"}


def test_a_components_inputs_are_in_its_state_and_the_key_is_secret(run_program: Callable[..., Any]) -> None:
    engine = run_program(PROGRAM, preview=False).engine
    (service,) = engine.of("ModelWebService")
    assert service.inputs["primaryKey"] == {**SECRET, "value": "first-key"}
    assert service.inputs["models"] == ["ridge:1"]
    assert service.inputs["target"].startswith("aks-inference+local:")
    assert engine.outputs["service"]["scoringUri"].endswith("/service/score")


def test_keys_of_a_deployment_configuration_are_secret(run_program: Callable[..., Any]) -> None:
    outcome = run_program("""
        from aks_inference import LocalInferenceCluster, ModelWebService
        index = "--extra-index-url https://user:hush@example.invalid/simple"
        ModelWebService("service", target=LocalInferenceCluster("local").target,
                        inference_config={"entry_script": "score.py", "environment": {"pip_packages": [index, "x"]}},
                        deployment_config={"computeType": "aks", "keys": {"primaryKey": "first-key"}})
    """)
    assert outcome.code == 0, outcome.error
    (service,), (endpoint,) = outcome.engine.of("ModelWebService"), outcome.engine.of("LocalEndpoint")
    assert service.inputs["deploymentConfig"]["keys"]["primaryKey"] == {**SECRET, "value": "first-key"}
    assert endpoint.inputs["primaryKey"] == {**SECRET, "value": "first-key"}
    assert "runs" in outcome.engine.said()
    assert "hush" not in outcome.engine.said()


def test_checks_are_said_with_their_figures(run_program: Callable[..., Any]) -> None:
    outcome = run_program(PROGRAM)
    said = outcome.engine.said()
    assert "ver-a  89.50 % (default, Treatment): 1 to 10 replicas at 70 % busy, 1 at once each; models ridge" in said
    assert "ver-b  10.50 % (Control): 2 replicas, 1 at once each" in said
    assert "capacity check: minimum of replicas asks for 0.1 of" in said
    assert {urn for severity, urn, _ in outcome.engine.logs if severity != "DEBUG"} == {
        "local",
        "ridge",
        "service",
        "rollout",
    }


def test_the_same_program_registers_the_same(run_program: Callable[..., Any]) -> None:
    def registered() -> list[tuple[str, str, str]]:
        engine = run_program(PROGRAM, preview=False).engine
        return sorted((r.type, r.name, json.dumps(r.inputs, sort_keys=True)) for r in engine.registered)

    assert registered() == registered()


def test_arguments_as_a_dict(run_program: Callable[..., Any]) -> None:
    outcome = run_program("""
        import pulumi
        from aks_inference import LocalInferenceCluster, RegisteredModel
        options = pulumi.ResourceOptions(
            protect=True, retain_on_delete=True, custom_timeouts=pulumi.CustomTimeouts(create="9m"))
        cluster = LocalInferenceCluster("local", {"port": 8899}, options)
        RegisteredModel("m", {"target": cluster.target, "model_path": "model.joblib"})
    """)
    assert outcome.code == 0, outcome.error
    (runtime,) = outcome.engine.of("LocalRuntime")
    assert runtime.inputs["port"] == 8899
    assert runtime.request.protect is True
    assert runtime.request.retainOnDelete is True
    assert runtime.request.customTimeouts.create == "9m"


def test_who_is_told_what_goes_on(run_program: Callable[..., Any]) -> None:
    outcome = run_program(
        """
        import pulumi
        from aks_inference import LocalInferenceCluster
        LocalInferenceCluster("one", state_webhook=pulumi.Output.from_input("https://hooks/a"), access_log=True,
                              otlp_endpoint="http://127.0.0.1:4318", metrics_port=9464)
        LocalInferenceCluster("two", port=8899, state_webhook="https://hooks/b")
        """,
        preview=False,
    )
    assert outcome.code == 0, outcome.error
    one, two = sorted(outcome.engine.of("LocalRuntime"), key=lambda r: r.name)
    assert one.inputs == {
        "name": "one",
        "port": 8890,
        "stateWebhook": {**SECRET, "value": "https://hooks/a"},
        "otlpEndpoint": "http://127.0.0.1:4318",
        "traceRatio": 0.1,
        "accessLog": True,
        "metricsPort": 9464,
    }
    assert two.inputs == {"name": "two", "port": 8899, "stateWebhook": {**SECRET, "value": "https://hooks/b"}}
    component, _ = sorted(outcome.engine.of("LocalInferenceCluster"), key=lambda r: r.name)
    assert component.inputs["stateWebhook"] == {**SECRET, "value": "https://hooks/a"}


def test_ports_of_metrics_that_collide(run_program: Callable[..., Any]) -> None:
    outcome = run_program("""
        from aks_inference import LocalInferenceCluster, ModelWebService
        one = LocalInferenceCluster("one", metrics_port=9464)
        LocalInferenceCluster("two", port=9464)
        LocalInferenceCluster("three", port=8892, metrics_port=8890)
        LocalInferenceCluster("four", port=8893, metrics_port=9464)
        ModelWebService("service", target=one, port=9464, inference_config={"entry_script": "score.py"})
    """)
    assert outcome.code == 1
    mend = "give one of them another port"
    assert outcome.error.splitlines() == [
        "5 errors; nothing was changed",
        'LocalInferenceCluster "two":',
        f"  port = 9464: is the metrics_port of LocalInferenceCluster 'one'; {mend}",
        'LocalInferenceCluster "three":',
        f"  metrics_port = 8890: is also that of LocalInferenceCluster 'one'; {mend}",
        'LocalInferenceCluster "four":',
        f"  metrics_port = 9464: is also that of LocalInferenceCluster 'one'; {mend}",
        f"  metrics_port = 9464: is also that of LocalInferenceCluster 'two'; {mend}",
        'ModelWebService "service":',
        "  port = 9464: is the port of the cluster's metrics; choose another port, or leave it out",
    ]


def test_a_binary_that_is_no_haproxy_is_told_at_preview(run_program: Callable[..., Any]) -> None:
    outcome = run_program("""
        from aks_inference import LocalInferenceCluster
        LocalInferenceCluster("local", haproxy="true", state_directory="/dev/null/x")
        LocalInferenceCluster("other", haproxy="true", port=8891)
    """)
    assert outcome.code == 1
    assert "state_directory" in outcome.error, outcome.error
    assert "is no HAProxy: `-vv` shows no version of it; give the path of an haproxy binary" in outcome.error
    assert not outcome.engine.of("LocalRuntime")
