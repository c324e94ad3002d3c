"""The four local components in a real program: what they register, what they say."""

from collections.abc import Callable

import pytest

PROGRAM = """
    import pulumi
    from aks_inference import ControlledRolloutEndpoint, LocalInferenceCluster, ModelWebService, RegisteredModel

    cluster = LocalInferenceCluster("local", port=8891)
    model = RegisteredModel("ridge", target=cluster, model_path="model.joblib", model_framework="ScikitLearn")
    config = {"entry_script": "score.py", "environment": {"pip_packages": ["scikit-learn"]}}
    service = ModelWebService("service", target=cluster, models=[model], inference_config=config)
    endpoint = ControlledRolloutEndpoint("rollout", target=cluster.target, versions=[
        {"version_name": "ver-a", "traffic_percentile": 20, "models": [model], "inference_config": config},
        {"version_name": "ver-b", "traffic_percentile": 10.5, "models": [model.model_id],
         "inference_config": config, "num_replicas": 2},
    ])
    pulumi.export("uri", service.scoring_uri)
    pulumi.export("key", service.primary_key)
    pulumi.export("traffic", endpoint.effective_traffic)
"""


@pytest.mark.parametrize("preview", [True, False])
def test_children_are_registered(run_program: Callable, preview: bool) -> None:
    outcome = run_program(PROGRAM, preview=preview)
    assert outcome.code == 0, outcome.stderr + outcome.error
    engine = outcome.engine
    types = sorted((r.type, r.name) for r in engine.registered)
    assert types
