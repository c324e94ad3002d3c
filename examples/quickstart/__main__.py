"""Two models on this machine or a Kubernetes cluster: a web service, and an endpoint whose traffic two versions share.

Configuration, all optional: `modelsDirectory` (written by train.py), `traffic` (percent by version), `port`,
`stateDirectory`, `scaleDownDelaySeconds`, and `productionNodes`: plans an AKS cluster of that many Standard_D3_v2.
With `target` kubernetes: `registry` (of models and images), `kubeconfig`, `context`, `image` or `baseImage`, `secret`
(with a login of the registry, in the namespace `default`), `serviceType`.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pulumi

from aks_inference import (
    AksInferenceCluster,
    ControlledRolloutEndpoint,
    InferenceRuntime,
    LocalInferenceCluster,
    ModelWebService,
    RegisteredModel,
)


def percentage(value: float | str) -> float | str:
    """The number that a text holds; any other text as it is."""
    try:
        return float(value)
    except ValueError:
        return value


config = pulumi.Config()
MODELS = ("ridge", "boosted")
# `config set` keeps 12.5 as text. What is wrong with a percentage, the component says.
given: dict[str, float | str] = config.get_object("traffic") or {"ridge": 100}
if unknown := sorted(set(given) - set(MODELS)):
    raise pulumi.RunError(f"traffic.{unknown[0]}: no such model; the models are {', '.join(MODELS)}")
# In this order: the configuration keeps none, and an order that moves is a change.
traffic = {name: percentage(given[name]) for name in MODELS if name in given}
models_directory = Path(config.get("modelsDirectory") or "models")

INFERENCE_CONFIG = {
    "entry_script": "score.py",
    "source_directory": "source",
    # The models were trained with this version: the scoring environment has the same.
    "environment": {"name": "diabetes", "pip_packages": [f"scikit-learn=={version('scikit-learn')}"]},
}
SCALING = {
    "autoscale_enabled": True,
    "autoscale_min_replicas": 1,
    "autoscale_max_replicas": 4,
    "autoscale_scale_down_delay_seconds": config.get_float("scaleDownDelaySeconds") or 60.0,
}

cluster: LocalInferenceCluster | InferenceRuntime
on_cluster: dict[str, Any] = {}
if config.get("target") == "kubernetes":
    registry = config.require("registry")
    cluster = InferenceRuntime(
        "cluster",
        kubeconfig=config.get("kubeconfig"),
        context=config.get("context"),
        cluster_purpose="DevTest",
        service_type=config.get("serviceType"),
        image=config.get("image"),
        registry=None if config.get("image") else {"server": registry, "base_image": config.get("baseImage")},
        model_store=f"oci://{registry.rstrip('/')}/models",
        # Nothing is to be left on the nodes.
        model_cache="",
    )
    if config.get("image"):
        on_cluster["image"] = config.get("image")
    if secret := config.get("secret"):
        on_cluster |= {"image_pull_secrets": [secret], "model_secret_name": secret}
else:
    cluster = LocalInferenceCluster(
        "local", port=config.get_int("port") or 8890, state_directory=config.get("stateDirectory")
    )
    pulumi.export("stateDirectory", cluster.state_directory)

models = {
    name: RegisteredModel(
        f"diabetes-{name}",
        target=cluster,
        model_path=str(models_directory / name / "model.joblib"),
        model_framework="ScikitLearn",
        tags={"data": "diabetes"},
    )
    for name in traffic
}

service = ModelWebService(
    "diabetes-service",
    target=cluster,
    models=[models["ridge"]],
    inference_config=INFERENCE_CONFIG,
    **SCALING,
    **on_cluster,
)

endpoint = ControlledRolloutEndpoint(
    "diabetes",
    target=cluster,
    versions=[
        {
            "version_name": name,
            "traffic_percentile": percent,
            "is_default": name == "ridge",
            "models": [models[name]],
            "inference_config": INFERENCE_CONFIG,
            "num_replicas": 1,
            # While a version comes up beside it, a small machine has little left for the one that serves.
            "max_request_wait_time": 10_000,
            **on_cluster,
        }
        for name, percent in traffic.items()
    ],
)

if nodes := config.get_int("productionNodes"):
    AksInferenceCluster("production", cluster_purpose="FastProd", agent_count=nodes, vm_size="Standard_D3_v2")

pulumi.export("serviceUri", service.scoring_uri)
pulumi.export("serviceKey", service.primary_key)
pulumi.export("endpointUri", endpoint.scoring_uri)
pulumi.export("endpointKey", endpoint.primary_key)
