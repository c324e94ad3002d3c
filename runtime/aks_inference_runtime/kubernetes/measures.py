"""The metrics' stable names."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from aks_inference_runtime.autoscaler.policy import Decision
from aks_inference_runtime.autoscaler.routers import Decision as RoutersDecision
from aks_inference_runtime.autoscaler.routers import Figures
from aks_inference_runtime.kubernetes.agent import Agent
from aks_inference_runtime.kubernetes.lane import pod_of
from aks_inference_runtime.observability.prometheus import PREFIX, family
from aks_inference_runtime.observability.versions import answer_samples, decision_metrics, load_metrics
from aks_inference_runtime.router.model import VersionKey


def router_metrics(agent: Agent, figures: Figures | None = None) -> str:
    """Of a router: what it owns, how it goes there, who the others are. `figures`: its own; None: not measured yet."""
    own = () if figures is None else (figures,)
    certificate, _ = agent.known.tls
    pods = {pod_of(lane) for lane in agent.heartbeats.view().live}
    return "".join(
        [
            load_metrics(agent.load()),
            family(
                f"{PREFIX}_answers_total",
                "counter",
                "Answers of the router itself by status and reason.",
                answer_samples(agent.answers),
            ),
            family(f"{PREFIX}_owned_endpoints", "gauge", "Endpoints held here.", [({}, agent.held)]),
            family(
                f"{PREFIX}_owner_changes_total", "counter", "Endpoints taken or let go.", [({}, agent.owner_changes)]
            ),
            family(f"{PREFIX}_routers_alive", "gauge", "Routers, this one included.", [({}, len(pods))]),
            family(
                f"{PREFIX}_router_lanes",
                "gauge",
                "Pairs of HAProxy processes of it: one for clients, one with queues.",
                [({}, len(agent.lanes))],
            ),
            family(
                f"{PREFIX}_routing_seconds",
                "gauge",
                "What routing takes, without any wait for a replica; median of a second.",
                (({}, round(one.routing_ms / 1000, 6)) for one in own),
            ),
            family(f"{PREFIX}_router_cpu_cores", "gauge", "Used by all processes of it.", (({}, x.cores) for x in own)),
            certificate_metrics(None if certificate is None else certificate.ends),
        ]
    )


def certificate_metrics(ends: datetime | None) -> str:
    """Of a router, and of the pod of a certificate from a Key Vault. `ends`: None, while there is none."""
    text = "When the certificate ends, in seconds since 1970."
    found = () if ends is None else (ends.timestamp(),)
    return family(f"{PREFIX}_certificate_ends_seconds", "gauge", text, (({}, each) for each in found))


def autoscaler_metrics(
    leader: bool,
    decisions: Mapping[VersionKey, Decision],
    written: int,
    decided: Mapping[VersionKey, Mapping[str, int]] = MappingProxyType({}),
) -> str:
    """Of an autoscaler: whether it leads, what it wants."""
    return "".join(
        [
            family(f"{PREFIX}_autoscaler_leader", "gauge", "1 for the one that scales.", [({}, int(leader))]),
            family(f"{PREFIX}_scale_writes_total", "counter", "Scales that were written.", [({}, written)]),
            decision_metrics(decisions, decided),
        ]
    )


def routers_metrics(decision: RoutersDecision | None, changes: Mapping[str, int]) -> str:
    """Of an autoscaler: what it wants of the routers. `changes`: by direction."""
    sizes = () if decision is None else (decision.size,)
    return "".join(
        [
            family(f"{PREFIX}_wanted_routers", "gauge", "Router pods.", (({}, x.pods) for x in sizes)),
            family(
                f"{PREFIX}_wanted_router_cores",
                "gauge",
                "That each router's pod asks for.",
                (({}, x.cpu_m / 1000) for x in sizes),
            ),
            family(
                f"{PREFIX}_router_scalings_total",
                "counter",
                "Changes of the routers' number and cores.",
                (({"direction": direction}, count) for direction, count in sorted(changes.items())),
            ),
        ]
    )
