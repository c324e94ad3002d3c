"""What the wire knows and what the rules know is the same, and documented the same way."""

import inspect
import re
from typing import Any

import pytest
from pulumi.provider.experimental.analyzer import Analyzer

import aks_inference
from aks_inference.aks_cluster import groups, groups_args
from aks_inference.aks_cluster.args import AksInferenceClusterArgs
from aks_inference.aks_cluster.spec import AksInferenceClusterSpec
from aks_inference.local_cluster.args import LocalInferenceClusterArgs
from aks_inference.local_cluster.spec import LocalInferenceClusterSpec
from aks_inference.registered_model.args import RegisteredModelArgs
from aks_inference.registered_model.spec import RegisteredModelSpec
from aks_inference.rollout.args import ControlledRolloutEndpointArgs, VersionArgs
from aks_inference.rollout.spec import ControlledRolloutEndpointSpec, VersionSpec
from aks_inference.service.args import EnvironmentArgs, InferenceConfigArgs, ModelWebServiceArgs
from aks_inference.service.environment import EnvironmentSpec
from aks_inference.service.inference import InferenceSpec
from aks_inference.service.spec import ModelWebServiceSpec

LAYERS = [
    (AksInferenceClusterArgs, AksInferenceClusterSpec),
    (groups_args.NetworkArgs, groups.NetworkSpec),
    (groups_args.EgressArgs, groups.EgressSpec),
    (groups_args.AccessArgs, groups.AccessSpec),
    (groups_args.IdentityArgs, groups.IdentitySpec),
    (groups_args.SystemPoolArgs, groups.SystemPoolSpec),
    (groups_args.PoolArgs, groups.PoolSpec),
    (groups_args.SecurityArgs, groups.SecuritySpec),
    (groups_args.ClusterRuntimeArgs, groups.ClusterRuntimeSpec),
    (groups_args.MaintenanceWindowArgs, groups.MaintenanceWindowSpec),
    (LocalInferenceClusterArgs, LocalInferenceClusterSpec),
    (RegisteredModelArgs, RegisteredModelSpec),
    (VersionArgs, VersionSpec),
    (ControlledRolloutEndpointArgs, ControlledRolloutEndpointSpec),
    (EnvironmentArgs, EnvironmentSpec),
    (InferenceConfigArgs, InferenceSpec),
    (ModelWebServiceArgs, ModelWebServiceSpec),
]


def docs(args: type) -> dict[str, str]:
    analyzer = Analyzer("x")
    return {name: analyzer.get_docstring(args, name) or "" for name in args.__annotations__}


@pytest.mark.parametrize(("args", "spec"), LAYERS, ids=lambda layer: layer.__name__)
def test_both_layers_have_the_same_fields(args: type, spec: Any) -> None:
    assert set(args.__annotations__) == set(spec.model_fields)


@pytest.mark.parametrize(("args", "spec"), LAYERS, ids=lambda layer: layer.__name__)
def test_every_argument_says_whether_it_is_needed(args: Any, spec: type) -> None:
    for name, text in docs(args).items():
        needed = name in args.__required_keys__
        assert text.startswith("Required. " if needed else ("Optional. ", "Conditional. ")), name


def test_versions_and_services_document_the_same_settings_the_same_way() -> None:
    service, version, endpoint = docs(ModelWebServiceArgs), docs(VersionArgs), docs(ControlledRolloutEndpointArgs)
    for other in (version, endpoint):
        for name in service.keys() & other.keys():
            assert other[name] == service[name], name
    assert len(service.keys() & version.keys()) > 25


@pytest.mark.parametrize("args", [args for args, _ in LAYERS], ids=lambda args: args.__name__)
def test_documented_defaults_are_the_ones_that_apply(args: Any) -> None:
    spec: Any = dict(LAYERS)[args]
    for name, text in docs(args).items():
        stated = re.search(r"Default:\s+([\d,.]+)[.;]?(?:\s|$)", text)
        default = spec.model_fields[name].default
        if stated and isinstance(default, int | float) and not isinstance(default, bool):
            assert float(stated[1].replace(",", "").rstrip(".")) == default, name


def test_component_modules_have_real_annotations() -> None:
    for component in aks_inference.COMPONENTS:
        source = inspect.getsource(inspect.getmodule(component) or component)
        assert "from __future__ import annotations" not in source


def test_the_analyzer_understands_all_components() -> None:
    result = Analyzer("aks-inference").analyze(list(aks_inference.COMPONENTS))
    service = result["component_definitions"]["ModelWebService"]
    assert {name for name, p in service.inputs.items() if not p.optional} == {"target"}
    assert service.inputs["numReplicas"].plain
    assert not service.inputs["target"].plain
    assert set(service.outputs) == {"scoringUri", "swaggerUri", "primaryKey", "secondaryKey", "state"}
    for definition in result["component_definitions"].values():
        assert definition.description
        assert all(output.description for output in definition.outputs.values())
