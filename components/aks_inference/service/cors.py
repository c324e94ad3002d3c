"""Origins whose pages may call an endpoint from a browser: their rules."""

import re
from collections.abc import Iterator, Sequence

from aks_inference.findings import Finding
from aks_inference_runtime.api.endpoint import MAX_ORIGINS, ORIGIN

_EXAMPLE = "write each as browsers send it: https://app.example.com"


def origin_findings(origins: Sequence[str]) -> Iterator[Finding]:
    """What is wrong with them."""
    seen: set[str] = set()
    for index, origin in enumerate(origins):
        path = ("cors_origins", index)
        if origin in ("*", "null"):
            rule = "would let any page call the endpoint" if origin == "*" else "is what pages without an origin send"
            yield Finding(path, rule, "name each origin", origin)
        elif not re.fullmatch(ORIGIN, origin):
            lower = origin.lower().rstrip("/")
            mend = f"did you mean `{lower}`?" if re.fullmatch(ORIGIN, lower) else _EXAMPLE
            yield Finding(path, "is no exact origin: scheme, host and port in lower case, and no path", mend, origin)
        elif origin in seen:
            yield Finding(path, "is given twice", "give it once", origin)
        seen.add(origin)
    if len(origins) > MAX_ORIGINS:
        rule = f"has {len(origins)} origins, and there is room for {MAX_ORIGINS}"
        yield Finding(("cors_origins",), rule, "put a gateway in front of the endpoint")
