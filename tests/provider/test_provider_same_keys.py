"""Two keys that are one are refused wherever keys are given."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aks_inference_provider.resources import endpoint_keys
from aks_inference_provider.wire import UNKNOWN
from aks_inference_runtime.api.endpoint import ScoringEndpoint
from aks_inference_runtime.api.keys import kept_keys
from aks_inference_runtime.api.supervisor import EndpointKeys, EndpointSubmission
from aks_inference_runtime.local.checks import _problems
from aks_inference_runtime.local.supervisor import Supervisor


@pytest.mark.parametrize(
    ("primary", "secondary", "refused"),
    [
        ("first-key", "first-key", True),
        ("first-key", "other-key", False),
        ("first-key", None, False),
        (None, None, False),
        (UNKNOWN, UNKNOWN, False),
    ],
)
def test_in_the_provider(primary: str | None, secondary: str | None, refused: bool) -> None:
    _, failures = endpoint_keys.check({"primaryKey": primary, "secondaryKey": secondary})
    assert [failure.path for failure in failures] == (["secondaryKey"] if refused else [])
    assert "first-key" not in str(failures)


def test_at_the_supervisor() -> None:
    code = {"entry_script": "score.py", "digest": "sha256:0"}
    version = {"name": "ver-a", "is_default": True, "traffic_percentile": 100, "code": code}
    endpoint = ScoringEndpoint.model_validate({"metadata": {"name": "svc"}, "spec": {"versions": [version]}})
    both = EndpointSubmission(endpoint=endpoint, primary_key="first-key", secondary_key="first-key")
    (problem,) = _problems(both)
    assert problem.startswith("secondaryKey: is the same as the primary one")
    assert list(_problems(both.model_copy(update={"secondary_key": "other-key"}))) == []
    # What is secret is known here at last.
    endpoint.spec.versions[0].environment.environment_variables.update(A="x" * 200_000, B="x")
    long = both.model_copy(update={"primary_key": "k" * 4_097, "secondary_key": None})
    key, variable = _problems(long)
    assert key.startswith("primaryKey: is longer than 4,096 characters")
    assert variable.startswith("spec.versions.ver-a.environment.environmentVariables.A: has 200,003 bytes")


OLD = ("old-primary", "old-secondary")


@pytest.mark.parametrize(
    ("declared", "before", "expected"),
    [
        ((None, None), (None, None), (None, None)),
        ((None, None), OLD, OLD),
        (("new-key", None), OLD, ("new-key", "old-secondary")),
        ((None, "new-key"), OLD, ("old-primary", "new-key")),
        (("old-secondary", None), OLD, ("old-secondary", "old-primary")),
        ((None, "old-primary"), OLD, ("old-secondary", "old-primary")),
        (("new-key", None), (None, None), ("new-key", None)),
        ((None, None), ("same", "same"), ("same", None)),
        (("same", None), ("same", "same"), ("same", None)),
        (("old-primary", None), (None, "old-primary"), ("old-primary", None)),
        ((None, None), (None, "old-primary"), (None, "old-primary")),
    ],
)
def test_what_stays_beside_what_is_given(declared: Any, before: Any, expected: Any) -> None:
    assert kept_keys(*declared, before) == expected


KEY = st.sampled_from(["a", "b", "c"]) | st.none()


@given(KEY, KEY, st.tuples(KEY, KEY))
def test_two_keys_are_never_one(primary: Any, secondary: Any, before: Any) -> None:
    assume(primary is None or primary != secondary)
    found = kept_keys(primary, secondary, before)
    assert found[0] is None or found[0] != found[1]
    assert primary in (None, found[0])
    assert secondary in (None, found[1])
    assert kept_keys(primary, secondary, found) == found, "the same again changes nothing"
    lost = {key for key in before if key} - set(found)
    assert len(lost) <= len({key for key in (primary, secondary) if key} - set(before)), "each new key ends one at most"


class TestAnEndpointOfThisMachine:
    def test_the_second_key_becomes_the_first_one(self, plugin: Any, supervisor: Any, values: Any) -> None:
        code = {"entryScript": "score.py", "digest": "sha256:0"}
        version = {"name": "ver-a", "isDefault": True, "trafficPercentile": 100.0, "code": code}
        declared = {"metadata": {"name": "svc"}, "spec": {"versions": [version]}}
        inputs = {"target": supervisor.target, "endpoint": declared, "timeoutSeconds": 5.0}
        made = plugin.create("LocalEndpoint", inputs)
        both = made.outputs["primaryKey"], made.outputs["secondaryKey"]
        pinned = {**inputs, "primaryKey": both[1]}
        previewed = plugin.update("LocalEndpoint", made, inputs, pinned, preview=True)
        assert (previewed["primaryKey"], previewed["secondaryKey"]) == (both[1], both[0])
        asked = []
        supervisor.put_endpoint, put = lambda s: asked.append(s) or put(s), supervisor.put_endpoint
        plugin.update("LocalEndpoint", made, inputs, pinned)
        (submission,) = asked
        assert (submission.primary_key, submission.secondary_key) == (both[1]["value"], None)
        # What the real one makes of it.
        present = SimpleNamespace(keys=EndpointKeys(primary_key=both[0]["value"], secondary_key=both[1]["value"]))
        made_of_it = Supervisor._keys(submission, present)  # type: ignore[arg-type]
        assert made_of_it is not None
        assert (made_of_it.primary_key, made_of_it.secondary_key) == (both[1]["value"], both[0]["value"])
