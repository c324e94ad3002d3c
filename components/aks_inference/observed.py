"""The rules of who is told what goes on: the same for every kind of cluster."""

from collections.abc import Iterator

from aks_inference.findings import Finding
from aks_inference.values import is_late

TRACE_RATIO = 0.1
"""Of the requests whose caller does not decide: enough to see where time goes, little to send."""


def observed_findings(
    state_webhook: object, otlp_endpoint: str | None, trace_ratio: float | None, *, whole: bool
) -> Iterator[Finding]:
    """`whole`: neither of the two about traces was wrong in itself."""
    if isinstance(state_webhook, str) and not is_late(state_webhook) and not _is_address(state_webhook):
        yield Finding(("state_webhook",), "is no web address", "begin it with https://")
    if otlp_endpoint is not None and not _is_address(otlp_endpoint):
        mend = "begin it with http:// or https://"
        yield Finding(("otlp_endpoint",), "is no web address", mend, otlp_endpoint)
    if trace_ratio is not None and otlp_endpoint is None and whole:
        yield Finding(("trace_ratio",), "has no effect without @otlp_endpoint", "add @otlp_endpoint", trace_ratio)


def _is_address(text: str) -> bool:
    return text.startswith(("https://", "http://"))
