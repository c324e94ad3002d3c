"""What an endpoint has and a change does not take away: its models, its keys."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2
from pulumi.runtime.proto import provider_pb2

from provider_inputs import Json, endpoint


class TestModelsThatAreNotThere:
    """A model that is named by its id must be stored, unless this deployment registers it."""

    path = "endpoint.spec.versions[0].models[0]"

    def news(self, supervisor: Any, name: str, version: Any = 1) -> Json:
        content = endpoint()
        content["spec"]["versions"][0]["models"] = [{"name": name, "version": version}]
        return {"target": supervisor.target, "endpoint": content}

    def test_is_refused_with_what_there_is(self, plugin: Any, supervisor: Any) -> None:
        said = plugin.check("LocalEndpoint", self.news(supervisor, "stored", 3)).failures
        assert list(said) == [self.path]
        assert "no model stored:3 is stored on the target (there is stored:1)" in said[self.path]
        assert "RegisteredModel" in said[self.path]
        assert (
            "did you mean stored?" in plugin.check("LocalEndpoint", self.news(supervisor, "store")).failures[self.path]
        )
        supervisor.has_stored = False
        assert "it has no models" in plugin.check("LocalEndpoint", self.news(supervisor, "zz")).failures[self.path]

    @pytest.mark.parametrize(
        ("component", "path"),
        [("ModelWebService", "models[0]"), ("ControlledRolloutEndpoint", "versions[0].models[0]")],
    )
    def test_has_the_path_of_the_component(self, plugin: Any, supervisor: Any, component: str, path: str) -> None:
        kinds_of = f"aks-inference:index:{component}$aks-inference:index:LocalEndpoint"
        news = json_format.ParseDict(self.news(supervisor, "store"), struct_pb2.Struct())
        urn = f"urn:pulumi:dev::proj::{kinds_of}::res"
        (failure,) = plugin.stub.Check(provider_pb2.CheckRequest(urn=urn, news=news)).failures
        assert failure.property == ""
        assert failure.reason.startswith(f"{path}: no model 'store' is stored on the target (did you mean stored?)")

    def test_one_that_this_deployment_registers_passes(self, plugin: Any, supervisor: Any, model_file: Path) -> None:
        news = self.news(supervisor, "fresh")
        assert plugin.check("LocalEndpoint", news).failures
        plugin.check("Model", {"target": supervisor.target, "name": "fresh", "path": str(model_file)})
        assert not plugin.check("LocalEndpoint", news).failures

    def test_what_is_not_known_or_was_there_before_is_not_asked_for(
        self, plugin: Any, supervisor: Any, values: Any
    ) -> None:
        assert not plugin.check("LocalEndpoint", self.news(supervisor, "late", values.UNKNOWN)).failures
        old = self.news(supervisor, "older")
        supervisor.calls.clear()
        assert not plugin.check("LocalEndpoint", old, old).failures
        assert supervisor.calls == [], "an unchanged program costs no call"

    def test_a_cluster_that_is_not_there_refuses_nothing(self, plugin: Any, supervisor: Any) -> None:
        (supervisor.directory / "supervisor.json").unlink()
        assert not plugin.check("LocalEndpoint", self.news(supervisor, "nomodel")).failures


class TestKeysThatStay:
    """Generated keys are what clients hold: neither a replacement nor an argument that goes changes them."""

    def inputs(self, supervisor: Any, **more: Any) -> Json:
        return {"target": supervisor.target, "endpoint": endpoint(), "timeoutSeconds": 5.0, **more}

    def test_a_replacement_has_the_keys_of_the_one_before(self, plugin: Any, supervisor: Any, values: Any) -> None:
        inputs = self.inputs(supervisor)
        made = plugin.create("LocalEndpoint", inputs)
        supervisor.keys["svc"] = supervisor.keys["svc"].model_copy(update={"primary_key": "of-the-first"})
        outputs = {**made.outputs, "primaryKey": values.secret("of-the-first")}
        olds = {**inputs, **outputs}
        moved = {**inputs, "target": values.UNKNOWN}
        answer = plugin.stub.Diff(
            provider_pb2.DiffRequest(
                id=made.id,
                urn=plugin.urn("LocalEndpoint"),
                olds=_struct(olds),
                old_inputs=_struct(inputs),
                news=_struct(moved),
            )
        )
        assert list(answer.replaces) == ["target"]
        plugin.delete("LocalEndpoint", made, inputs)
        assert supervisor.keys == {}, "nothing of them is left there"
        again = plugin.create("LocalEndpoint", inputs).outputs
        assert again["primaryKey"] == values.secret("of-the-first")
        assert again["secondaryKey"] == made.outputs["secondaryKey"]

    def test_a_key_that_is_given_counts_more(self, plugin: Any, supervisor: Any, values: Any) -> None:
        inputs = self.inputs(supervisor, primaryKey=values.secret("given-key"))
        assert plugin.create("LocalEndpoint", inputs).outputs["primaryKey"] == values.secret("given-key")

    def test_an_argument_that_goes_leaves_the_key(self, plugin: Any, supervisor: Any, values: Any) -> None:
        given = self.inputs(supervisor, primaryKey=values.secret("given-key"))
        made = plugin.create("LocalEndpoint", given)
        without = self.inputs(supervisor)
        assert plugin.update("LocalEndpoint", made, given, without, preview=True)["primaryKey"] == values.secret(
            "given-key"
        )
        assert plugin.update("LocalEndpoint", made, given, without)["primaryKey"] == values.secret("given-key")


def _struct(values: Json) -> struct_pb2.Struct:
    return json_format.ParseDict(values, struct_pb2.Struct())
