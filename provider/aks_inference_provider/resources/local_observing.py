"""Who is told what goes on in a local cluster, as inputs of its resource."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from aks_inference_provider.fields import Failure, Field, Kind
from aks_inference_provider.wire import UNKNOWN
from aks_inference_runtime.api.supervisor import OBSERVING_FILE, Observing, ObservingRecord

OBSERVING = (
    Field(
        "stateWebhook",
        Kind.STRING,
        "Optional. Where each changed state of an endpoint is told to (a POST of JSON). Default: nowhere.",
        secret=True,
    ),
    Field(
        "otlpEndpoint",
        Kind.STRING,
        "Optional. OpenTelemetry collector (OTLP over HTTP) of the requests' traces. Default: nothing is traced.",
    ),
    Field(
        "traceRatio",
        Kind.NUMBER,
        "Optional. Share of the requests whose caller does not decide it that are traced, 0 to 1. Default 0.1.",
    ),
    Field("accessLog", Kind.BOOLEAN, "Optional. A line of JSON for each request in its replica's log. Default false."),
    Field("metricsPort", Kind.INTEGER, "Optional. Port of `/metrics` on 127.0.0.1. Default: none."),
)


def observing_failures(news: Mapping[str, Any]) -> list[Failure]:
    """What is wrong with plain inputs, but for ports."""
    failures = []
    for key in ("stateWebhook", "otlpEndpoint"):
        address = news.get(key)
        if isinstance(address, str) and address != UNKNOWN and not address.startswith(("https://", "http://")):
            # What is given may be a secret.
            failures.append(Failure(key, "is no web address; begin it with http:// or https://"))
    ratio = news.get("traceRatio")
    if isinstance(ratio, int | float) and not isinstance(ratio, bool) and not 0 <= ratio <= 1:
        failures.append(Failure("traceRatio", f"{ratio:g} is no share: 0 to 1"))
    return failures


def observing_of(inputs: Mapping[str, Any]) -> Observing:
    """As plain inputs declare it."""
    given = {field: inputs.get(to_camel(field)) for field in Observing.model_fields}
    return Observing.model_validate({field: value for field, value in given.items() if value is not None})


def kept(directory: str) -> dict[str, Any]:
    """What was declared of who is told what, but for the secret."""
    with contextlib.suppress(OSError, ValidationError):
        found = ObservingRecord.model_validate_json((Path(directory) / OBSERVING_FILE).read_text())
        kept = found.model_dump(by_alias=True, exclude_defaults=True, exclude={"record_version"})
        return {**kept, "traceRatio": found.trace_ratio} if found.otlp_endpoint is not None else kept
    return {}
