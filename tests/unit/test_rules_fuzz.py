"""Whatever is given, a plan or findings come back: never an exception, never a plan with errors."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aks_inference.aks_cluster import groups
from aks_inference.aks_cluster.spec import AksInferenceClusterSpec, plan_cluster
from aks_inference.findings import Casing, Severity
from aks_inference.local_cluster.spec import LocalInferenceClusterSpec, plan_local
from aks_inference.registered_model.spec import RegisteredModelSpec, plan_model
from aks_inference.rollout.spec import ControlledRolloutEndpointSpec, VersionSpec, plan_rollout
from aks_inference.service.environment import CondaSpec, DockerSpec, EnvironmentSpec, PythonSpec
from aks_inference.service.inference import InferenceSpec
from aks_inference.service.spec import ModelWebServiceSpec, plan_service

TARGET = 'aks-inference+local:{"name": "local", "port": 8890, "stateDirectory": "/tmp/state"}'
SCALARS = (
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers(-5, 5)
    | st.text(max_size=5)
    | st.sampled_from(
        [TARGET, "score.py", "local", "azure", "10.0.0.0/16", "10.0.0.10", "Standard_D3_v2", "Control", "m:1"]
    )
    | st.just(object())
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


def arguments(spec: Any, **known: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    fields = {name: known.get(name, ANYTHING) | ANYTHING for name in spec.model_fields}
    return st.fixed_dictionaries({}, optional=fields)


CONDA = arguments(CondaSpec)
PYTHON = arguments(PythonSpec, conda_dependencies=CONDA)
ENVIRONMENT = arguments(EnvironmentSpec, python=PYTHON, docker=arguments(DockerSpec))
INFERENCE = arguments(InferenceSpec, environment=ENVIRONMENT, entry_script=st.just("score.py"))
DEPLOYMENT = st.fixed_dictionaries(
    {"computeType": st.sampled_from(["aks", "local", "aksendpoint"]) | ANYTHING},
    optional={"keys": ANYTHING, "autoScaler": ANYTHING, "numReplicas": ANYTHING, "port": ANYTHING, "x": ANYTHING},
)
COMMON: dict[str, st.SearchStrategy[Any]] = {
    "target": st.just(TARGET),
    "inference_config": INFERENCE,
    "deployment_config": DEPLOYMENT,
}
PLANS: list[tuple[Callable[..., Any], st.SearchStrategy[dict[str, Any]]]] = [
    (plan_service, arguments(ModelWebServiceSpec, **COMMON)),
    (
        plan_rollout,
        arguments(
            ControlledRolloutEndpointSpec, target=COMMON["target"], versions=st.lists(arguments(VersionSpec, **COMMON))
        ),
    ),
    (plan_model, arguments(RegisteredModelSpec, target=COMMON["target"], model_path=st.just("score.py"))),
    (lambda _, declared: plan_local(declared), arguments(LocalInferenceClusterSpec)),
    (
        lambda name, declared: plan_cluster(name, declared, date(2026, 11, 21)),
        arguments(
            AksInferenceClusterSpec,
            network=arguments(groups.NetworkSpec),
            system_pool=arguments(groups.SystemPoolSpec),
            egress=arguments(groups.EgressSpec),
            access=arguments(groups.AccessSpec),
            identity=arguments(groups.IdentitySpec),
            security=arguments(groups.SecuritySpec),
            pools=st.lists(
                arguments(groups.PoolSpec, name=st.just("cpu"), vm_size=st.just("Standard_D4s_v5")), max_size=2
            ),
            maintenance_windows=st.lists(arguments(groups.MaintenanceWindowSpec), max_size=2),
            resource_id=st.none(),
            resource_group=st.none(),
        ),
    ),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("plan", "strategy"), PLANS, ids=["service", "rollout", "model", "local", "aks"])
@given(data=st.data())
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_a_plan_or_findings(plan: Callable[..., Any], strategy: Any, data: st.DataObject) -> None:
    made, findings = plan("the-name", data.draw(strategy))
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    assert (made is None) == bool(errors)
    for finding in findings:
        for casing in Casing:
            assert finding.text(casing)
