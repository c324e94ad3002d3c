"""What a gate tells Prometheus. Apart from the others' names: a gate loads nothing that it does not need."""

from collections.abc import Mapping

from aks_inference_runtime.kubernetes.metrics import family, histogram
from aks_inference_runtime.router.gate.telemetry import BOUNDS_S, Telemetry

PREFIX = "aks_inference"


def gate_metrics(telemetry: Telemetry, labels: Mapping[str, str], lines_lost: int = 0) -> str:
    """Of one gate; `labels`: endpoint and version. The replica is the pod, which Prometheus names itself.

    `lines_lost`: of the access log.
    """
    answers = ({**labels, "code": str(code), "reason": reason} for code, reason in sorted(telemetry.answers))
    return "".join(
        [
            family(
                f"{PREFIX}_answers_total",
                "counter",
                "Answers by status and reason; no reason: the model's own status.",
                zip(answers, (telemetry.answers[key] for key in sorted(telemetry.answers)), strict=True),
            ),
            histogram(
                f"{PREFIX}_service_seconds",
                "From the moment that the replica has the request until its last byte.",
                labels,
                BOUNDS_S,
                telemetry.served.counts,
                telemetry.served.sum,
            ),
            histogram(
                f"{PREFIX}_queue_wait_seconds",
                "In the router's queue, of the requests that reached a replica.",
                labels,
                BOUNDS_S,
                telemetry.waited.counts,
                telemetry.waited.sum,
            ),
            family(
                f"{PREFIX}_log_lines_lost_total",
                "counter",
                "Lines of the access log that could not be written in time.",
                [(labels, lines_lost)],
            ),
        ]
    )
