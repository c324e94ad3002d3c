"""What all of HAProxy's frontends and backends have in common. Pure."""

from aks_inference_runtime.router.calls import no_body_of_calls

MESSAGES = {
    400: ("bad-request", "the request is not valid HTTP"),
    408: ("client-timeout", "the client is too slow in sending the request"),
    500: ("router-lost", "the router failed"),
    502: ("replica-lost", "the replica closed the connection before it answered"),
    503: ("queue-timeout", "no replica took the request in time"),
    504: ("scoring-timeout", "no answer in time"),
}
"""What HAProxy answers of its own accord: by status the reason, and a text."""
HEADER_SECONDS = 10
"""For a request's headers (and as much of its body as fits the buffer); then 408. Ends slow-loris connections."""
SILENT_SECONDS = 60
"""Of a connection, after which the system asks whether the other end is there: AKS's load balancer forgets a silent one
after 4 to 30 minutes and Azure's network from 4 on, while a score may take longer."""


def base_lines() -> list[str]:
    """The defaults section `base`: timeouts, and what HAProxy answers itself."""
    lines = [
        "defaults base",
        "  mode http",
        "  option http-keep-alive",
        "  option http-no-delay",
        "  http-reuse always",
        *(line for end in ("cli", "srv") for line in (f"  option {end}tcpka", f"  {end}tcpka-idle {SILENT_SECONDS}s")),
        "  retries 3",
        "  option redispatch 1",
        f"  timeout http-request {HEADER_SECONDS}s",
        "  timeout http-keep-alive 65s",
        # The gate and the model decide how long an answer may take; this one only ends clients that vanished.
        "  timeout client 75s",
        "  timeout client-fin 10s",
        "  timeout connect 1s",
        "  timeout server 24d",
    ]
    for status, (reason, message) in MESSAGES.items():
        body = f'{{"message": "{message}"}}'
        # Those that the client is to blame for may come before there is a request.
        early = status < 500
        told = f"string '{body}'" if early else f"lf-string {no_body_of_calls(body)}"
        extra = " hdr connection close" if early else ""
        lines.append(
            f"  http-error status {status} content-type application/json {told}"
            f" hdr x-aks-inference-reason {reason}{extra}"
        )
    return lines
