"""Two keys that are one are refused wherever keys are given."""

import pytest

from aks_inference_provider.resources import endpoint_keys
from aks_inference_provider.wire import UNKNOWN
from aks_inference_runtime.api.endpoint import ScoringEndpoint
from aks_inference_runtime.api.supervisor import EndpointSubmission
from aks_inference_runtime.local.checks import _problems


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
