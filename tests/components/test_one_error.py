"""All findings of a program: one error after its body, nothing registered, no traceback."""

from collections.abc import Callable
from typing import Any

import pytest

BODY = """
    import pulumi
    from aks_inference import AksInferenceCluster, ControlledRolloutEndpoint, LocalInferenceCluster, RegisteredModel

    class Other(pulumi.CustomResource):
        def __init__(self, name, props, opts=None):
            super().__init__("other:index:Thing", name, props, opts)

    before = Other("before", {"size": 1})
    cluster = LocalInferenceCluster("local")
    model = RegisteredModel("ridge", target=cluster, model_path="model.joblib")
    Other("after", {"id_of_model": model.model_id})
    config = {"entry_script": "score.py"}
    endpoint = ControlledRolloutEndpoint("rollout", target=cluster, versions=[
        {"version_name": "ver-a", "traffic_percentile": 70, "inference_config": config},
        {"version_name": "ver-b", "traffic_percentile": 60, "inference_config": config},
    ])
    AksInferenceCluster("production", cluster_purpose="FastProd", agent_count=2, vm_size="Standard_D3_v2")
    pulumi.export("uri", endpoint.scoring_uri)
    pulumi.export("later", endpoint.scoring_uri.apply(lambda uri: uri + "/x"))
"""


@pytest.mark.parametrize("preview", [True, False], ids=["preview", "up --skip-preview"])
def test_both_errors_at_once_and_nothing_registered(run_program: Callable[..., Any], preview: bool) -> None:
    outcome = run_program(BODY, preview=preview)
    assert outcome.code == 1
    assert "Traceback" not in outcome.stderr
    assert outcome.error.splitlines() == [
        "2 errors; nothing was changed",
        'ControlledRolloutEndpoint "rollout":',
        "  versions: the traffic percentiles sum to 130 (ver-a 70 + ver-b 60); at most 100: "
        "lower some traffic_percentile; what no version has goes to the default",
        'AksInferenceCluster "production":',
        "  agent_count: agent_count 2 × Standard_D3_v2 (4 vCPU) = 8 vCPU; FastProd needs at least 12: "
        "use agent_count ≥ 3, a larger vm_size, or cluster_purpose DevTest",
    ]
    assert {r.type for r in outcome.engine.registered} <= {"pulumi:pulumi:Stack"}
    assert outcome.engine.said() == ""


def test_what_cannot_be_sent_is_a_finding_beside_the_others(run_program: Callable[..., Any]) -> None:
    outcome = run_program(
        """
        from aks_inference import AksInferenceCluster, LocalInferenceCluster, RegisteredModel
        deep = {}
        for _ in range(5000):
            deep = {"a": deep}
        cluster = LocalInferenceCluster("local", state_directory="a\\ud800")
        AksInferenceCluster("production", vm_size="a\\ud800")
        for name in ("one", "two"):
            RegisteredModel(name, model_name=deep, model_path="model.joblib", target="none")
        """,
        preview=True,
    )
    assert outcome.code == 1
    assert "Traceback" not in outcome.stderr
    assert "  state_directory: holds half of a character" in outcome.error
    assert "  vm_size: holds half of a character" in outcome.error
    assert outcome.error.count("  model_name = a dict: must be a text") == 2


def test_without_the_mistakes_everything_is_registered(run_program: Callable[..., Any]) -> None:
    sound = BODY.replace("60, ", "30, ").replace("agent_count=2", "agent_count=3")
    outcome = run_program(sound, preview=False)
    assert outcome.code == 0, outcome.error
    assert {r.name for r in outcome.engine.of("Thing")} == {"before", "after"}
    assert not [r for r in outcome.engine.of("Thing") if r.name == "before" and r.request.dependencies]
    assert "FastProd needs at least 12: ok" in outcome.engine.said()


@pytest.mark.parametrize(
    "value", ["object()", "b'bytes'", "{1, 2}", "[[1]]", "float('nan')", "print", "pulumi.FileAsset('score.py')"]
)
def test_values_that_cannot_be_sent_are_findings_like_others(run_program: Callable[..., Any], value: str) -> None:
    outcome = run_program(
        f"""
        import pulumi
        from aks_inference import LocalInferenceCluster, ModelWebService
        cluster = LocalInferenceCluster("local")
        service = ModelWebService("service", target=cluster, inference_config={{"entry_script": {value}}},
                                  num_replicas={value}, tags={{"a": {value}}}, models=[{value}])
        pulumi.export("x", service.state)
    """,
        preview=False,
    )
    assert outcome.code == 1
    assert "Traceback" not in outcome.stderr
    for start in ("num_replicas", "tags.a", "models[0]", "inference_config.entry_script"):
        assert f"  {start}" in outcome.error, outcome.error


def test_an_error_of_the_program_is_still_shown(run_program: Callable[..., Any]) -> None:
    outcome = run_program("""
        from aks_inference import LocalInferenceCluster
        LocalInferenceCluster("local")
        raise KeyError("my own mistake")
    """)
    assert outcome.code == 1
    assert "my own mistake" in outcome.stderr


def test_an_invoke_in_the_middle_of_the_body(run_program: Callable[..., Any]) -> None:
    outcome = run_program(
        """
        import pulumi
        from aks_inference import LocalInferenceCluster, RegisteredModel
        cluster = LocalInferenceCluster("local")
        assert pulumi.runtime.invoke("other:index:getThing", {}) is not None
        RegisteredModel("missing", target=cluster, model_path="nowhere")
    """,
        preview=False,
    )
    assert outcome.code == 1
    assert 'RegisteredModel "missing":' in outcome.error
    assert {r.type for r in outcome.engine.registered} <= {"pulumi:pulumi:Stack"}


def test_an_invoke_that_waits_for_a_resource(run_program: Callable[..., Any]) -> None:
    outcome = run_program(
        """
        import pulumi
        import aks_inference.program
        from aks_inference import LocalInferenceCluster
        aks_inference.program.LONGEST_WAIT_S = 0.5

        class Other(pulumi.ProviderResource):
            def __init__(self, name, props):
                super().__init__("other", name, props)

        cluster = LocalInferenceCluster("local")
        provider = Other("explicit", {"target": cluster.target})
        pulumi.runtime.invoke("other:index:getThing", {}, pulumi.InvokeOptions(provider=provider))
        LocalInferenceCluster("second", port=8899)
    """,
        preview=False,
    )
    assert outcome.code == 0, outcome.error + outcome.stderr
    assert {r.name for r in outcome.engine.of("LocalRuntime")} == {"local", "second"}


def test_an_asynchronous_program(run_program: Callable[..., Any]) -> None:
    outcome = run_program("""
        import pulumi
        from aks_inference import LocalInferenceCluster, RegisteredModel

        async def main():
            cluster = LocalInferenceCluster("local")
            target = await cluster.target.future()
            assert target.startswith("aks-inference+local:"), target
            RegisteredModel("missing", target=target, model_path="nowhere")
            return {"target": target}

        pulumi.run(main)
    """)
    assert outcome.code == 1
    assert "Traceback" not in outcome.stderr
    assert 'RegisteredModel "missing":' in outcome.error
    assert {r.type.rsplit(":", 1)[-1] for r in outcome.engine.registered} == {
        "Stack", "LocalInferenceCluster", "LocalRuntime",
    }  # fmt: skip


def test_names_and_ports_are_unique_on_a_target(run_program: Callable[..., Any]) -> None:
    outcome = run_program("""
        from aks_inference import ControlledRolloutEndpoint, LocalInferenceCluster, ModelWebService, RegisteredModel
        cluster = LocalInferenceCluster("local")
        config = {"entry_script": "score.py"}
        ModelWebService("first", target=cluster, inference_config=config, service_name="same", port=9001)
        ModelWebService("second", target=cluster.target, inference_config=config, service_name="same", port=9001)
        ControlledRolloutEndpoint("third", target=cluster, endpoint_name="same",
                                  versions=[{"version_name": "ver-a", "inference_config": config}], port=8890)
        RegisteredModel("m1", target=cluster, model_path="model.joblib", model_name="m")
        RegisteredModel("m2", target=cluster, model_path="model.joblib", modelName="m")
        other = LocalInferenceCluster("other")
        ModelWebService("fourth", target=other, inference_config=config, service_name="same")
    """)
    assert outcome.code == 1
    lines = [line.strip() for line in outcome.error.splitlines()]
    assert "service_name = \"same\": is also the name of ModelWebService 'first' on this target" in outcome.error
    assert "port = 9001: is also the port of ModelWebService 'first'; choose another port" in lines
    assert "port = 8890: is the port of the cluster itself; choose another port, or leave it out" in lines
    assert "model_name = \"m\": is also the name of RegisteredModel 'm1' on this target" in outcome.error
    assert "port = 8890: is also that of LocalInferenceCluster 'local'; give one of them another port" in lines
    assert "fourth" not in outcome.error


def test_names_that_are_taken_are_told_beside_other_mistakes(run_program: Callable[..., Any]) -> None:
    outcome = run_program("""
        from aks_inference import ControlledRolloutEndpoint, LocalInferenceCluster, ModelWebService, RegisteredModel
        cluster = LocalInferenceCluster("local")
        config = {"entry_script": "score.py"}
        ModelWebService("first", target=cluster, inference_config=config, service_name="same", port=9001,
                        num_replicas=0)
        ModelWebService("second", target=cluster, inference_config=config, service_name="same", port=9001,
                        cpu_cores=-1)
        ControlledRolloutEndpoint("third", target=cluster, endpoint_name="same", versions=[])
        RegisteredModel("m1", target=cluster, model_path="nowhere", model_name="m")
        RegisteredModel("m2", target=cluster, model_path="model.joblib", modelName="m")
    """)
    assert outcome.code == 1
    assert outcome.error.count("service_name = \"same\": is also the name of ModelWebService 'first'") == 1
    assert "port = 9001: is also the port of ModelWebService 'first'" in outcome.error
    assert "endpoint_name = \"same\": is also the name of ModelWebService 'first'" in outcome.error
    assert "model_name = \"m\": is also the name of RegisteredModel 'm1'" in outcome.error
    for other in ("num_replicas = 0", "cpu_cores = -1", "versions = []", "model_path"):
        assert other in outcome.error


def test_services_that_do_not_fit_on_this_machine_together(run_program: Callable[..., Any]) -> None:
    outcome = run_program("""
        from aks_inference import LocalInferenceCluster, ModelWebService
        from aks_inference.machine import this_machine
        cluster = LocalInferenceCluster("local")
        most = this_machine().cores
        for name in ("one", "two"):
            ModelWebService(f"svc-{name}", target=cluster, inference_config={"entry_script": "score.py"},
                            cpu_cores=most * 0.6)
        ModelWebService("giant", target=cluster, inference_config={"entry_script": "score.py"}, cpu_cores=most + 1)
    """)
    assert outcome.code == 1
    assert "this machine has" in outcome.error
    assert "some replicas would stay Unschedulable" in outcome.error
    # The giant is told once, as what it is, and not in the sum again.
    assert outcome.error.count("Unschedulable; use") == 1
    assert "cores at the minimum of replicas: svc-one" in outcome.error
    assert "giant " not in outcome.error.partition("at the minimum of replicas")[2]


def test_nothing_runs_on_an_aks_cluster_without_the_runtime(run_program: Callable[..., Any]) -> None:
    outcome = run_program("""
        from aks_inference import AksInferenceCluster, ModelWebService, RegisteredModel
        cluster = AksInferenceCluster("prod", location="westeurope")
        RegisteredModel("m", target=cluster, model_path="model.joblib")
        ModelWebService("svc", target=cluster.target, inference_config={"entry_script": "score.py"})
    """)
    assert outcome.code == 1
    assert outcome.error.count("names a cluster without the inference runtime") == 1
    assert outcome.error.count("names a cluster that keeps no models") == 1


def test_a_secret_in_the_place_of_a_model_is_not_shown(run_program: Callable[..., Any]) -> None:
    outcome = run_program("""
        import pulumi
        from aks_inference import LocalInferenceCluster, ModelWebService
        cluster = LocalInferenceCluster("local")
        ModelWebService("svc", target=cluster, models=[pulumi.Output.secret("the-key-1")],
                        inference_config={"entry_script": "score.py"})
    """)
    assert outcome.code == 1
    assert "models[0]: the output that is given is not a model id" in outcome.error
    assert "the-key-1" not in outcome.error + outcome.stderr
