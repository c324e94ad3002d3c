"""What gates tell Prometheus. Apart from the others' names: a gate loads nothing that it does not need."""

from collections.abc import Iterable, Sequence

from aks_inference_runtime.observability.prometheus import PREFIX, Labels, family, histogram
from aks_inference_runtime.router.gate.settings import GateFigures
from aks_inference_runtime.router.gate.telemetry import BOUNDS_S


def gate_metrics(gates: Sequence[tuple[Labels, GateFigures]], router: Iterable[tuple[Labels, float]] = ()) -> str:
    """Of gates, each with its labels: endpoint and version, and the replica where Prometheus cannot name it itself.

    `router`: samples of what a router that is told of in the same text answered itself.
    """
    answers = [
        ({**labels, "code": str(code), "reason": reason}, count)
        for labels, figures in gates
        for code, reason, count in figures.answers
    ]
    return "".join(
        [
            family(
                f"{PREFIX}_answers_total",
                "counter",
                "Answers by status and reason; no reason: the model's own status.",
                [*router, *answers],
            ),
            histogram(
                f"{PREFIX}_service_seconds",
                "From the moment that the replica has the request until its last byte.",
                BOUNDS_S,
                [(labels, figures.served.counts, figures.served.sum) for labels, figures in gates],
            ),
            histogram(
                f"{PREFIX}_queue_wait_seconds",
                "In the router's queue, of the requests that reached a replica.",
                BOUNDS_S,
                [(labels, figures.waited.counts, figures.waited.sum) for labels, figures in gates],
            ),
            family(
                f"{PREFIX}_log_lines_lost_total",
                "counter",
                "Lines of the access log that could not be written in time.",
                [(labels, figures.lines_lost) for labels, figures in gates],
            ),
        ]
    )
