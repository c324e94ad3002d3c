"""Pages of other origins: HAProxy answers their preflights and tells browsers who may read an answer. Pure.

An entry `<origin>&<value of the path>` → `<origin>` of the map allows one. Requests without an Origin cost one look at
their headers.
"""

from collections.abc import Iterable

MAX_AGE_SECONDS = 600
"""How long a browser remembers a preflight: what Chromium allows at most is 7,200, a change should be seen sooner."""
_EXPOSED = "x-request-id, x-aks-inference-reason, x-aks-inference-version, retry-after"
_ALLOWED = "{ var(txn.cors) -m found }"


def cors_entries(origins: Iterable[str], meta: str) -> dict[str, str]:
    """Of the map, for a path with this value."""
    return {f"{origin}&{meta}": origin for origin in origins}


def cors_rules(routes: str) -> list[str]:
    """Of requests, once the path's value is known and before who asks must prove anything: preflights carry no key."""
    return [
        f"  http-request set-var(txn.cors) req.fhdr(origin),concat(&,txn.meta),map_str({routes})",
        "  http-request return status 204"
        " hdr access-control-allow-origin %[var(txn.cors)]"
        ' hdr access-control-allow-methods "GET, POST"'
        " hdr access-control-allow-headers %[req.fhdr(access-control-request-headers)]"
        f" hdr access-control-max-age {MAX_AGE_SECONDS} hdr vary origin"
        f" if {{ method OPTIONS }} {_ALLOWED} {{ req.hdr(access-control-request-method) -m found }}",
    ]


def cors_answers() -> list[str]:
    """Of all answers, the router's own too: a page should see why it was refused."""
    return [
        # Most answers end here.
        f"  http-after-response allow if {{ status lt 400 }} !{_ALLOWED}",
        f"  http-after-response set-header access-control-allow-origin %[var(txn.cors)] if {_ALLOWED}",
        f'  http-after-response set-header access-control-expose-headers "{_EXPOSED}" if {_ALLOWED}',
        f"  http-after-response add-header vary origin if {_ALLOWED}",
    ]
