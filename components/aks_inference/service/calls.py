"""What an endpoint whose containers speak gRPC does not have, or must agree in."""

from collections.abc import Iterator, Sequence

from aks_inference.findings import Finding, Severity
from aks_inference.service.endpoint import EndpointSettings, VersionPlan
from aks_inference_runtime.api.endpoint import Protocol


def call_rules(settings: EndpointSettings, versions: Sequence[VersionPlan]) -> Iterator[Finding]:
    """Of the endpoint. `versions`: those that are right by themselves."""
    spoken = {plan.version.name: _protocol(plan) for plan in versions}
    calls = [name for name, protocol in spoken.items() if protocol is Protocol.GRPC]
    if not calls:
        return
    if others := [name for name, protocol in spoken.items() if protocol is not Protocol.GRPC]:
        rule = f"speak gRPC ({', '.join(calls)}) and HTTP ({', '.join(others)}): a caller of one address speaks one"
        yield Finding(("versions",), rule, "give each protocol an endpoint of its own")
    if settings.cors_origins:
        rule = "has no use with gRPC, which pages of browsers cannot speak"
        yield Finding(("cors_origins",), rule, "leave it out", list(settings.cors_origins))
    if settings.retry_lost_requests:
        rule = "has no effect with gRPC: the router keeps no copy of a call, its client may send it again"
        yield Finding(("retry_lost_requests",), rule, "leave it out", True, Severity.WARNING)


def _protocol(plan: VersionPlan) -> Protocol:
    container = plan.version.container
    return Protocol.HTTP if container is None else container.protocol
