"""What `status`, `top` and `score` say to a person and to a pipeline."""

import io
from typing import Any

import pytest
from rich.console import Console

from aks_inference_runtime.api.status import EndpointStatus, ServiceState, VersionStatus
from aks_inference_runtime.cli import show
from aks_inference_runtime.cli.scoring import Answer


def endpoint(observed: int, *states: str, generation: int = 4) -> EndpointStatus:
    versions = [
        VersionStatus(
            name=f"version-{number}",
            state=ServiceState(state),
            traffic=33.25,
            replicas_ready=2,
            replicas_desired=3,
            last_scaling="2 to 3: utilization 91 % of 70 %",
        )
        for number, state in enumerate(states)
    ]
    return EndpointStatus(
        name="fraud-detection",
        state=versions[0].state,
        generation=generation,
        observed_generation=observed,
        scoring_uri="http://127.0.0.1:8890/api/v1/service/fraud-detection/score",
        versions=tuple(versions),
    )


def printed(what: Any, *arguments: Any, width: int = 200) -> str:
    out = io.StringIO()
    what(Console(file=out, width=width, highlight=False), *arguments)
    return out.getvalue()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (endpoint(4, "Healthy"), ""),
        (endpoint(4, "Unhealthy"), ""),
        (endpoint(0, "Failed"), ""),
        (endpoint(3, "Healthy", "Failed"), "generation 3 still serves: 4 failed (version-1)"),
        (endpoint(3, "Transitioning"), "generation 3 still serves: 4 is not ready yet"),
    ],
)
def test_what_serves_while_what_is_declared_does_not(status: EndpointStatus, said: str) -> None:
    assert show.note(status) == said
    assert show.as_json(status) == {**status.to_wire(), "note": said}
    everything, one = printed(show.overview, "cluster x", [status]), printed(show.details, status)
    assert ("still serves" in everything, "still serves" in one) == (bool(said), bool(said))
    assert said in one
    assert f"fraud-detection: {said}\n" in everything or not said
    assert ("no generation is served whole" in one) == (status.observed_generation == 0)


@pytest.mark.parametrize("width", [1, 10, 20, 40, 60, 200])
def test_no_word_is_cut_on_a_narrow_terminal(width: int) -> None:
    statuses = [endpoint(3, "Transitioning", "Unschedulable"), endpoint(4, "Healthy")]
    everything = printed(show.overview, "cluster local", statuses, width=width)
    for word in ("fraud-detection", "version-1", "Transitioning", "Unschedulable", "33.25 %", "2/3", "still serves"):
        assert word in everything
    assert "…" not in everything
    one, busiest = printed(show.details, statuses[0], width=width), printed(show.busiest, statuses, width=width)
    for word in ("fraud-detection", "version-1", "utilization"):
        assert word in one
        assert word in busiest
    assert "…" not in one + busiest


@pytest.mark.parametrize(
    ("status", "reason", "version", "hint"),
    [
        (200, None, "ver-a", ""),
        (400, None, "ver-a", ""),
        (500, None, "ver-a", "the model answered so: see `aks-inference logs svc --version ver-a`"),
        (502, None, None, "the model answered so: see `aks-inference logs svc`"),
        (502, "replica-lost", "ver-a", "a replica ended with it: see `aks-inference logs svc --version ver-a --all`"),
        (503, "no-replica", None, "why: `aks-inference status svc`"),
        (503, "queue-timeout", "ver-a", ""),
        (504, "scoring-timeout", "ver-a", "the model took too long: see `aks-inference logs svc --version ver-a`"),
    ],
)
def test_where_to_look_after_an_error(status: int, reason: str | None, version: str | None, hint: str) -> None:
    assert Answer(status, "", version, reason, 0.1).hint("svc") == hint
