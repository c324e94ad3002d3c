"""The listener with TLS, as HAProxy is configured with it. Pure.

With TLS the plain port answers `GET /` (load balancers ask there) and refuses the rest: a redirect would come after the
key was sent in clear. `plain` opens it again, as `allowInsecureConnections` of Azure ML's extension does;
`until_certificate` leaves it open until there is a certificate, where it served before TLS was asked for. What a
certificate authority asks for by HTTP goes to the pods that answer for cert-manager.
"""

from collections.abc import Callable
from dataclasses import dataclass

from aks_inference_runtime.router.refusals import Refusal

CHALLENGE_PATH = "/.well-known/acme-challenge/"
"""RFC 8555 8.3."""
MOST_SOLVERS = 4
"""Challenges that are open at once; there is one for each name of a certificate."""
OPEN = "clear"
"""Backend whose server is ready while the plain port serves for want of a certificate; nothing is sent there."""
_PLAIN_ID = 80
"""Of the plain port's address among those of the frontend that serves."""
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
    until_certificate: bool = False
    """Whether it does until there is a certificate."""
    waits: bool = False
    """Whether there is none while the process begins."""

    @property
    def one_frontend(self) -> bool:
        """Whether the plain port is the serving frontend's, too."""
        return self.plain or self.until_certificate

    @property
    def closes(self) -> bool:
        """Whether the plain port serves first, and refuses then."""
        return self.until_certificate and not self.plain


def public_binds(tls: Tls, at: Callable[[int], str], port: int, certificate: str) -> list[str]:
    """Addresses of the frontend that serves. `at`: by port. `certificate`: the file's path, quoted."""
    lowest = _VERSIONS[tls.minimum_version]
    secure = f"  bind {at(tls.port)} ssl crt {certificate} alpn h2,http/1.1 ssl-min-ver {lowest} ciphers {_CIPHERS}"
    return [secure, *([f"  bind {at(port)} id {_PLAIN_ID}"] if tls.one_frontend else [])]


def closing_rules(tls: Tls) -> list[str]:
    """For the frontend that serves: the plain port refuses once there is a certificate."""
    if not tls.closes:
        return []
    return [Refusal.PLAIN.rule(f"{{ so_id {_PLAIN_ID} }} {{ nbsrv({OPEN}) eq 0 }} !{{ path_beg {CHALLENGE_PATH} }}")]


def challenge_rule() -> str:
    """For a frontend that others reach in clear."""
    return f"  use_backend challenges if {{ path_beg {CHALLENGE_PATH} }}"


def plain_lines(tls: Tls, address: str) -> list[str]:
    """The plain port where it does not serve, and the way to who answers challenges."""
    lines = []
    if tls.closes:
        lines = [f"backend {OPEN} from base", f"  server all 127.0.0.1:1{'' if tls.waits else ' disabled'}"]
    if not tls.one_frontend:
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
