"""The listener with TLS, as HAProxy is configured with it. Pure.

With TLS the plain port answers `GET /` (load balancers ask there) and refuses the rest: a redirect would come after the
key was sent in clear. `plain` opens it again, as `allowInsecureConnections` of Azure ML's extension does. What a
certificate authority asks for by HTTP goes to the pods that answer for cert-manager.
"""

from collections.abc import Callable
from dataclasses import dataclass

from aks_inference_runtime.router.refusals import Refusal

CHALLENGE_PATH = "/.well-known/acme-challenge/"
"""RFC 8555 8.3."""
MOST_SOLVERS = 4
"""Challenges that are open at once; there is one for each name of a certificate."""
# Forward secrecy and authenticated encryption only (RFC 9325 4.2); 1.3 has no others.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_VERSIONS = {"1.2": "TLSv1.2", "1.3": "TLSv1.3"}


@dataclass(frozen=True)
class Tls:
    """Where the router speaks TLS, and how."""

    port: int
    minimum_version: str = "1.2"
    """`1.2` or `1.3`."""
    plain: bool = False
    """Whether the plain port serves, too."""


def public_binds(tls: Tls, at: Callable[[int], str], port: int, certificate: str) -> list[str]:
    """Addresses of the frontend that serves. `at`: by port. `certificate`: the file's path, quoted."""
    lowest = _VERSIONS[tls.minimum_version]
    secure = f"  bind {at(tls.port)} ssl crt {certificate} alpn h2,http/1.1 ssl-min-ver {lowest} ciphers {_CIPHERS}"
    return [secure, *([f"  bind {at(port)}"] if tls.plain else [])]


def challenge_rule() -> str:
    """For a frontend that others reach in clear."""
    return f"  use_backend challenges if {{ path_beg {CHALLENGE_PATH} }}"


def plain_lines(tls: Tls, address: str) -> list[str]:
    """The plain port where it does not serve, and the way to who answers challenges."""
    lines = []
    if not tls.plain:
        lines = [
            "frontend plain from base",
            f"  bind {address}",
            "  http-request return status 200 content-type text/plain string Healthy if { path / } { method GET HEAD }",
            Refusal.PLAIN.rule(f"!{{ path_beg {CHALLENGE_PATH} }}"),
            "  default_backend challenges",
        ]
    lines += ["backend challenges from base", "  balance roundrobin"]
    lines += [f"  server s{number} 127.0.0.1:1 disabled" for number in range(MOST_SOLVERS)]
    return lines
