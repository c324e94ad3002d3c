"""What a router and an autoscaler tell Prometheus of each version."""

from collections.abc import Mapping

from aks_inference_runtime.autoscaler.policy import Decision
from aks_inference_runtime.observability.prometheus import PREFIX, Labels, family
from aks_inference_runtime.router.answers import AnswerKey
from aks_inference_runtime.router.model import VersionKey, VersionLoad


def load_metrics(loads: Mapping[VersionKey, VersionLoad]) -> str:
    """How it goes at what a router owns."""
    found = [(labels_of(key), load) for key, load in loads.items()]
    return "".join(
        [
            family(f"{PREFIX}_busy", "gauge", "Requests at replicas.", ((k, x.busy) for k, x in found)),
            family(f"{PREFIX}_queued", "gauge", "Requests that wait.", ((k, x.queued) for k, x in found)),
            family(f"{PREFIX}_ready_replicas", "gauge", "Usable replicas.", ((k, x.ready_replicas) for k, x in found)),
            family(
                f"{PREFIX}_requests_total", "counter", "Requests that came.", ((k, x.requests_total) for k, x in found)
            ),
            family(
                f"{PREFIX}_rejected_total",
                "counter",
                "Requests that the router answered with 429 or 503.",
                ((k, x.rejected_total) for k, x in found),
            ),
        ]
    )


def answer_samples(answers: Mapping[AnswerKey, int]) -> list[tuple[Labels, float]]:
    """Of `aks_inference_answers_total`: what a router answered itself."""
    return [
        ({"endpoint": k.endpoint, "version": k.version, "code": str(k.code), "reason": k.reason}, count)
        for k, count in sorted(answers.items())
    ]


def decision_metrics(decisions: Mapping[VersionKey, Decision], decided: Mapping[VersionKey, Mapping[str, int]]) -> str:
    """What an autoscaler wants. `decided`: how many decisions of each direction."""
    return "".join(
        [
            family(
                f"{PREFIX}_decisions_total",
                "counter",
                "Decisions by direction.",
                (
                    ({**labels_of(key), "direction": direction}, count)
                    for key, counts in decided.items()
                    for direction, count in sorted(counts.items())
                ),
            ),
            family(
                f"{PREFIX}_wanted_replicas",
                "gauge",
                "Replicas by the last decision.",
                ((labels_of(key), decision.replicas) for key, decision in decisions.items()),
            ),
        ]
    )


def labels_of(key: VersionKey) -> dict[str, str]:
    """Of a version."""
    return {"endpoint": key.endpoint, "version": key.version}
