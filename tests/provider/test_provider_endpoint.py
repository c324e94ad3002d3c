"""The custom resource of an endpoint over the real protocol, against a stand-in supervisor."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from aks_inference_runtime.api.status import ServiceState
from provider_inputs import NONE, SOME, Json, endpoint, kinds, wait_for


class TestLocalEndpoint:
    def inputs(self, plugin: Any, supervisor: Any, value: Json | None = None, **more: Any) -> Json:
        checked = plugin.check("LocalEndpoint", {"target": supervisor.target, "endpoint": value or endpoint(), **more})
        assert not checked.failures
        return dict(checked.inputs)

    def test_check_fills_in_traffic_and_timeout(self, plugin: Any, supervisor: Any) -> None:
        inputs = self.inputs(plugin, supervisor, endpoint(a=80.5, b=9.25))
        assert inputs["effectiveTraffic"] == {"a": 90.75, "b": 9.25}
        assert inputs["timeoutSeconds"] == 600

    @pytest.mark.parametrize(
        ("change", "path", "reason"),
        [
            (("spec", {"port": 0}), "endpoint.spec.port", "greater than or equal to 1"),
            (("spec", {"prot": 80}), "endpoint.spec.prot", "did you mean 'port'?"),
            (("spec", {"auth": "basic"}), "endpoint.spec.auth", "'key'"),
            (("spec", {"port": "80"}), "endpoint.spec.port", "valid integer"),
            (("spec", {"port": True}), "endpoint.spec.port", "valid integer"),
            (("spec", {"versions": []}), "endpoint.spec.versions", "at least 1 item"),
            (("version", {"trafficPercentil": 1}), "endpoint.spec.versions[0].trafficPercentil", "'trafficPercentile'"),
            (("version", {"code": None}), "endpoint.spec.versions[0].code", ""),
            (("version", {"isDefault": False}), "endpoint.spec", "exactly one version must be the default"),
            (("version", {"scaling": {"autoscaleMinReplicas": 2.5}}),
             "endpoint.spec.versions[0].scaling.autoscaleMinReplicas", "valid integer"),
            (("version", {"trafficPercentile": 12.345}), "endpoint.spec.versions", "more than two decimals"),
        ],
    )  # fmt: skip
    def test_a_wrong_endpoint_is_refused(
        self, plugin: Any, supervisor: Any, change: Any, path: str, reason: str
    ) -> None:
        value = endpoint()
        place = value["spec"]["versions"][0] if change[0] == "version" else value["spec"]
        place.update(change[1])
        failures = plugin.check("LocalEndpoint", {"target": supervisor.target, "endpoint": value}).failures
        assert list(failures) == [path]
        assert reason in failures[path]

    def test_check_says_everything_at_once(self, plugin: Any) -> None:
        value = endpoint(a=80, b=50)
        news = {
            "target": "x",
            "endpoint": value,
            "primary_key": "k",
            "secondaryKey": "",
            "timeoutSeconds": 0,
            "effectiveTraffic": {"a": "80"},
        }
        failures = plugin.check("LocalEndpoint", news).failures
        assert set(failures) == {
            "target", "endpoint.spec", "primary_key", "secondaryKey", "timeoutSeconds", "effectiveTraffic.a",
        }  # fmt: skip
        assert "did you mean 'primaryKey'" in failures["primary_key"]
        assert "sum to 130" in failures["endpoint.spec"]

    def test_traffic_that_the_endpoint_does_not_have(self, plugin: Any, supervisor: Any) -> None:
        news = {"target": supervisor.target, "endpoint": endpoint(a=90, b=10), "effectiveTraffic": {"a": 100}}
        assert "the endpoint makes it" in plugin.check("LocalEndpoint", news).failures["effectiveTraffic"]

    def test_properties_never_change_once_set(self, plugin: Any, supervisor: Any) -> None:
        def declared(shared: Json, version: Json, name: str = "svc") -> Json:
            content = endpoint(name, a=90, b=10)
            content["spec"]["properties"] = shared
            content["spec"]["versions"][1]["properties"] = version
            return {"target": supervisor.target, "endpoint": content}

        olds = declared({"owner": "x"}, {"data": "1"})
        assert not plugin.check("LocalEndpoint", declared({"owner": "x", "more": "y"}, {"data": "1"}), olds).failures
        failures = plugin.check("LocalEndpoint", declared({}, {"data": "2"}), olds).failures
        assert set(failures) == {"endpoint.spec.properties.owner", "endpoint.spec.versions[1].properties.data"}
        assert "never change once set" in failures["endpoint.spec.versions[1].properties.data"]
        assert not plugin.check("LocalEndpoint", declared({}, {"data": "2"}, name="other"), olds).failures

    def test_keys_need_auth_by_key(self, plugin: Any, supervisor: Any) -> None:
        news = {"target": supervisor.target, "endpoint": endpoint(auth="none"), "primaryKey": "first-key"}
        assert list(plugin.check("LocalEndpoint", news).failures) == ["primaryKey"]

    @pytest.mark.parametrize("key", ["hush hush", "hüsh-hüsh", "hush-hu\nsh", "hush"])
    def test_a_key_known_only_late_is_refused_by_the_same_rule(
        self, plugin: Any, supervisor: Any, values: Any, key: str
    ) -> None:
        news = {"target": supervisor.target, "endpoint": endpoint(), "secondaryKey": values.secret(key)}
        failures = plugin.check("LocalEndpoint", news).failures
        assert list(failures) == ["secondaryKey"]
        assert key not in failures["secondaryKey"]
        assert "or leave it out to have one generated" in failures["secondaryKey"]

    def test_each_unknown_leaf_is_tolerated(self, plugin: Any, supervisor: Any, values: Any) -> None:
        value = endpoint(a=90, b=10)

        def places(inside: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
            inner = inside.items() if isinstance(inside, dict) else enumerate(inside)
            deeper = [(k, v) for k, v in inner if not isinstance(v, str | int | float | bool)]
            own = [(*path, k) for k, _ in (inside.items() if isinstance(inside, dict) else enumerate(inside))]
            return own + [each for k, v in deeper for each in places(v, (*path, k))]

        for path in places(value):
            for unknown in (values.UNKNOWN, values.output(), values.output(secret=True)):
                changed: Any = endpoint(a=90, b=10)
                place = changed
                for key in path[:-1]:
                    place = place[key]
                place[path[-1]] = unknown
                checked = plugin.check("LocalEndpoint", {"target": values.UNKNOWN, "endpoint": changed})
                assert not checked.failures, path
                diff = plugin.diff("LocalEndpoint", {"target": "t", "endpoint": value}, checked.inputs)
                assert diff.changes == SOME
                plugin.create("LocalEndpoint", checked.inputs, preview=True)

    def test_the_preview_knows_what_it_can(self, plugin: Any, supervisor: Any, values: Any) -> None:
        value = endpoint()
        value["spec"]["versions"][0]["models"][0]["version"] = values.UNKNOWN
        inputs = self.inputs(plugin, supervisor, value, primaryKey=values.secret("my-own-key"))
        outputs = plugin.create("LocalEndpoint", inputs, preview=True).outputs
        assert outputs["scoringUri"] == "http://127.0.0.1:8890/api/v1/service/svc/score"
        assert outputs["swaggerUri"] == "http://127.0.0.1:8890/api/v1/service/svc/swagger.json"
        assert outputs["primaryKey"] == values.secret("my-own-key")
        assert outputs["secondaryKey"] == values.secret(values.UNKNOWN)
        assert outputs["state"] == values.UNKNOWN

    def test_a_port_of_its_own_is_where_it_is_served(self, plugin: Any, supervisor: Any, values: Any) -> None:
        value = endpoint()
        for port, base in ((9001.0, "http://127.0.0.1:9001"), (values.UNKNOWN, None)):
            value["spec"]["port"] = port
            outputs = plugin.create("LocalEndpoint", self.inputs(plugin, supervisor, value), preview=True).outputs
            places = [outputs["scoringUri"], outputs["swaggerUri"]]
            assert places == ([f"{base}/score", f"{base}/swagger.json"] if base else [values.UNKNOWN] * 2)

    def test_life(self, plugin: Any, supervisor: Any, values: Any) -> None:
        olds = self.inputs(plugin, supervisor, endpoint(a=100))
        made = plugin.create("LocalEndpoint", olds)
        assert made.id == f"{supervisor.directory}/endpoints/svc"
        assert made.outputs == {
            **olds,
            "scoringUri": "http://127.0.0.1:8890/api/v1/service/svc/score",
            "swaggerUri": "http://127.0.0.1:8890/api/v1/service/svc/swagger.json",
            "primaryKey": values.secret("generated-1"),
            "secondaryKey": values.secret("generated-2"),
            "state": "Healthy",
        }
        assert plugin.create("LocalEndpoint", olds).outputs == made.outputs, "a create is idempotent by its URN"
        assert supervisor.endpoints["svc"][1] == 1

        news = self.inputs(plugin, supervisor, endpoint(a=90, b=10))
        diff = plugin.diff("LocalEndpoint", olds, news)
        assert kinds(diff) == {
            "effectiveTraffic.a": "UPDATE",
            "effectiveTraffic.b": "ADD",
            "endpoint.spec.versions[0].trafficPercentile": "UPDATE",
            "endpoint.spec.versions[1]": "ADD",
        }
        assert not diff.replaces
        preview = plugin.update("LocalEndpoint", made, olds, news, preview=True)
        assert preview["primaryKey"] == values.secret("generated-1")
        outputs = plugin.update("LocalEndpoint", made, olds, news)
        assert outputs["primaryKey"] == values.secret("generated-1")

        read = plugin.read("LocalEndpoint", made.id, news, outputs)
        assert values.plain(_dict(read.inputs)) == values.plain(news), "what nobody changed has no drift"
        plugin.delete("LocalEndpoint", made, news)
        assert not supervisor.endpoints
        plugin.delete("LocalEndpoint", made, news)
        assert plugin.read("LocalEndpoint", made.id, news, outputs).id == ""

    def test_drift_is_read(self, plugin: Any, supervisor: Any) -> None:
        olds = self.inputs(plugin, supervisor, endpoint(a=100, b=0))
        made = plugin.create("LocalEndpoint", olds)
        declared, generation = supervisor.endpoints["svc"]
        versions = tuple(
            v.model_copy(update={"traffic_percentile": share})
            for v, share in zip(declared.spec.versions, (50, 50), strict=True)
        )
        changed = declared.model_copy(update={"spec": declared.spec.model_copy(update={"versions": versions})})
        supervisor.endpoints["svc"] = (changed, generation + 1)
        read = plugin.read("LocalEndpoint", made.id, olds, made.outputs)
        inputs = _dict(read.inputs)
        assert inputs["effectiveTraffic"] == {"a": 50, "b": 50}
        assert inputs["endpoint"]["spec"]["versions"][1]["trafficPercentile"] == 50

    def test_what_a_killed_apply_left_is_a_difference(self, plugin: Any, supervisor: Any, values: Any) -> None:
        olds = self.inputs(plugin, supervisor, endpoint(a=100), primaryKey=values.secret("my-own-key"))
        made = plugin.create("LocalEndpoint", olds)
        assert plugin.diff("LocalEndpoint", olds, olds, id=made.id).changes == NONE
        other = self.inputs(plugin, supervisor, endpoint(a=50, b=50), primaryKey=values.secret("another-key"))
        for news, away in (
            (other, {"endpoint.spec.versions": "ADD", "primaryKey": "ADD"}),
            (
                self.inputs(plugin, supervisor, endpoint(a=90), primaryKey=values.secret("my-own-key")),
                {"endpoint.spec.versions[0].trafficPercentile": "ADD"},
            ),
        ):
            plugin.update("LocalEndpoint", made, olds, news)
            plugin.engine.logs.clear()
            diff = plugin.diff("LocalEndpoint", olds, olds, id=made.id)
            assert kinds(diff) == away
            assert not diff.replaces
            plugin.update("LocalEndpoint", made, olds, olds, preview=True)
            (note,) = plugin.engine.logs
            assert all(path in note.message for path in away)
            assert "another-key" not in note.message
            plugin.update("LocalEndpoint", made, olds, olds)
            assert plugin.diff("LocalEndpoint", olds, olds, id=made.id).changes == NONE

    def test_one_that_the_supervisor_lost_comes_back_with_its_keys(
        self, plugin: Any, supervisor: Any, values: Any
    ) -> None:
        olds = self.inputs(plugin, supervisor, endpoint())
        made = plugin.create("LocalEndpoint", olds)
        before = {**made.outputs, "primaryKey": values.secret("known-to-clients")}
        supervisor.delete_endpoint("svc")
        assert kinds(plugin.diff("LocalEndpoint", olds, olds, id=made.id)) == {"endpoint": "ADD"}
        outputs = plugin.update("LocalEndpoint", type(made)(made.id, before), olds, olds)
        assert outputs["primaryKey"] == values.secret("known-to-clients")
        assert plugin.diff("LocalEndpoint", olds, olds, id=made.id).changes == NONE

    def test_keys_that_are_left_out_stay_and_the_preview_says_so(
        self, plugin: Any, supervisor: Any, values: Any
    ) -> None:
        given = {key: values.secret(f"my-{key}") for key in ("primaryKey", "secondaryKey")}
        olds = self.inputs(plugin, supervisor, endpoint(), **given)
        made = plugin.create("LocalEndpoint", olds)
        news = self.inputs(plugin, supervisor, endpoint())
        plugin.engine.logs.clear()
        assert plugin.update("LocalEndpoint", made, olds, news, preview=True)["primaryKey"] == given["primaryKey"]
        (note,) = plugin.engine.logs
        assert "primaryKey and secondaryKey: no longer given; the keys stay as they are" in note.message
        assert plugin.update("LocalEndpoint", made, olds, news)["secondaryKey"] == given["secondaryKey"]

    def test_secret_variables_stay_secret_where_drift_is_read(self, plugin: Any, supervisor: Any, values: Any) -> None:
        content = endpoint()
        content["spec"]["versions"][0]["environment"] = {"environmentVariables": {"TOKEN": values.secret("hush")}}
        olds = self.inputs(plugin, supervisor, content)
        made = plugin.create("LocalEndpoint", olds)
        declared, generation = supervisor.endpoints["svc"]
        changed = declared.model_copy(update={"spec": declared.spec.model_copy(update={"description": "other"})})
        supervisor.endpoints["svc"] = (changed, generation + 1)
        read = plugin.read("LocalEndpoint", made.id, olds, made.outputs)
        for found in (_dict(read.inputs), _dict(read.properties)):
            assert found["endpoint"]["spec"]["description"] == "other"
            variables = found["endpoint"]["spec"]["versions"][0]["environment"]["environmentVariables"]
            assert variables == values.secret({"TOKEN": "hush"})

    @pytest.mark.parametrize(
        ("old", "new", "replaces", "first"),
        [
            (endpoint("svc"), endpoint("other"), ["endpoint"], False),
            ({**endpoint("svc")}, {**endpoint("svc")}, [], True),
        ],
    )
    def test_another_name_is_another_endpoint(
        self, plugin: Any, supervisor: Any, old: Json, new: Json, replaces: list[str], first: bool
    ) -> None:
        diff = plugin.diff(
            "LocalEndpoint",
            {"target": supervisor.target, "endpoint": old},
            {"target": supervisor.target, "endpoint": new},
        )
        assert list(diff.replaces) == replaces
        assert diff.deleteBeforeReplace == first

    def test_ignored_changes(self, plugin: Any, supervisor: Any) -> None:
        olds = self.inputs(plugin, supervisor, endpoint(a=100, b=0))
        news = self.inputs(plugin, supervisor, endpoint(a=90, b=10))
        ignored = ("endpoint.spec.versions", "effectiveTraffic")
        assert plugin.diff("LocalEndpoint", olds, news, ignore=ignored).changes == NONE

    def test_a_failed_deployment_is_there_with_its_log(
        self, plugin: Any, supervisor: Any, left_by: Any, values: Any
    ) -> None:
        supervisor.becomes = ServiceState.FAILED
        supervisor.message = "score.py: ZeroDivisionError in init"
        inputs = self.inputs(plugin, supervisor)
        with pytest.raises(grpc.RpcError) as caught:
            plugin.create("LocalEndpoint", inputs)
        left = left_by(caught.value)
        assert left.id == f"{supervisor.directory}/endpoints/svc"
        assert "ZeroDivisionError in init" in left.reasons[0]
        assert left.properties["state"] == "Failed"
        assert _dict(left.properties)["primaryKey"] == values.secret("generated-1")
        assert "Traceback" not in left.reasons[0]
        supervisor.becomes = ServiceState.HEALTHY
        made = type("Made", (), {"id": left.id, "outputs": _dict(left.properties)})
        assert plugin.update("LocalEndpoint", made, inputs, inputs)["state"] == "Healthy"

    def test_a_deployment_that_takes_too_long(self, plugin: Any, supervisor: Any, left_by: Any) -> None:
        supervisor.becomes = ServiceState.TRANSITIONING
        with pytest.raises(grpc.RpcError, match=r"Transitioning after 0\.3 s") as caught:
            plugin.create("LocalEndpoint", self.inputs(plugin, supervisor), timeout=0.3)
        assert left_by(caught.value).properties["state"] == "Transitioning"
        with pytest.raises(grpc.RpcError, match=r"Transitioning after 0\.2 s"):
            plugin.create("LocalEndpoint", self.inputs(plugin, supervisor, timeoutSeconds=0.2))

    def test_progress_reaches_the_engine(self, plugin: Any, supervisor: Any) -> None:
        supervisor.message = "building the environment"
        plugin.create("LocalEndpoint", self.inputs(plugin, supervisor))
        messages = [(log.message, log.ephemeral, log.urn) for log in plugin.engine.logs]
        assert messages == [("Healthy (building the environment), a 0/0 ready", True, plugin.urn("LocalEndpoint"))]

    def test_somebody_elses_endpoint_is_left_alone(self, plugin: Any, supervisor: Any) -> None:
        inputs = self.inputs(plugin, supervisor)
        made = plugin.create("LocalEndpoint", inputs)
        plugin_urn = plugin.urn
        try:
            plugin.urn = lambda kind, name="res": plugin_urn(kind, "another")
            with pytest.raises(grpc.RpcError, match=r"already served there, declared by urn:.*::res"):
                plugin.create("LocalEndpoint", inputs)
            plugin.delete("LocalEndpoint", made, inputs)
        finally:
            plugin.urn = plugin_urn
        assert "svc" in supervisor.endpoints

    def test_cancel_ends_a_wait(self, start_plugin: Any, supervisor: Any, left_by: Any) -> None:
        plugin = start_plugin()
        supervisor.becomes = ServiceState.TRANSITIONING
        inputs = self.inputs(plugin, supervisor)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(plugin.create, "LocalEndpoint", inputs)
            wait_for(lambda: supervisor.calls.count("GET /endpoints/svc") > 2)
            plugin.stub.Cancel(_empty())
            with pytest.raises(grpc.RpcError, match="cancelled while endpoint svc was Transitioning") as caught:
                waiting.result(10)
        assert left_by(caught.value).id.endswith("/endpoints/svc")

    def test_a_wait_holds_nobody_up(self, plugin: Any, supervisor: Any) -> None:
        supervisor.becomes = ServiceState.TRANSITIONING
        names = [f"svc-{index}" for index in range(8)]
        begun = threading.Barrier(len(names))

        def deploy(name: str) -> str:
            inputs = self.inputs(plugin, supervisor, endpoint(name))
            begun.wait(10)
            return str(plugin.create("LocalEndpoint", inputs).outputs["state"])

        with ThreadPoolExecutor(len(names)) as pool:
            waiting = [pool.submit(deploy, name) for name in names]
            wait_for(lambda: set(supervisor.endpoints) == set(names))
            assert not plugin.check("LocalRuntime", {"name": "local"}, {"name": "local", "port": 8890}).failures
            supervisor.becomes = ServiceState.HEALTHY
            assert {each.result(20) for each in waiting} == {"Healthy"}


def _dict(message: Any) -> Json:

    return dict(json_format.MessageToDict(message))


def _empty() -> Any:
    from google.protobuf import empty_pb2

    return empty_pb2.Empty()
