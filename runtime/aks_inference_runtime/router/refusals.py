"""What HAProxy answers before a request has a replica: the rules. Pure."""

from enum import Enum

from aks_inference_runtime.router.gate.settings import MAX_BODY_BYTES

DROP_SECONDS = 30
"""For so long the rest of a body is read and dropped after the answer (`refuse.lua`, `late`)."""

LARGE = [
    # Bodies that may not be whole in the buffer.
    # Not `hdr_val`: its numbers have 32 bits, and three billion is below zero.
    "  acl large req.hdr(content-length),add(0) gt 8192",
    "  acl large req.hdr(transfer-encoding) -m found",
    "  acl large var(txn.grpc) -m found",
]


RETRY = ("retry-after", "10")
"""As often an issuer is asked again that does not answer (`tokens.keys.UNKNOWN_S`)."""


class Refusal(Enum):
    """What HAProxy answers itself, before the request has a replica."""

    ENDPOINT = (404, "not-found", "no such endpoint", "", "")
    VERSION = (404, "not-found", "no such version", "", "")
    PLAIN = (400, "bad-request", "this address is served with TLS only: use https", "", "")
    PATH = (404, "not-found", "only /score and /swagger.json are served here", "", "")
    KEY = (401, "auth", "the key or token is missing or wrong", "www-authenticate", "Bearer")
    LATER = (503, "issuer-unavailable", "the token cannot be verified now: its issuer is not reached", *RETRY)
    METHOD = (405, "method", "only GET and POST", "allow", "GET, POST")
    SWAGGER = (405, "method", "only GET", "allow", "GET")
    SIZE = (413, "too-large", f"the body is larger than {MAX_BODY_BYTES} bytes", "", "")
    QUEUE = (429, "queue-full", "too many requests wait already", "", "")

    @property
    def service(self) -> str:
        """Its name in `refuse.lua`."""
        return f"refuse-{self.name.lower()}"

    def rule(self, condition: str) -> str:
        """Refuses if the condition holds; the body is read to its end, so that the client sees the answer."""
        return f"  http-request use-service lua.{self.service} if {condition}"

    def rule_small(self, condition: str, action: str = "return") -> str:
        """The same, cheaper, where the body is there already; `action`: `return` or `deny`."""
        status, reason, message, name, value = self.value
        extra = f' hdr {name} "{value}"' if name else ""
        return (
            f"  http-request {action} status {status} content-type application/json"
            f' string \'{{"message": "{message}"}}\' hdr x-aks-inference-reason {reason}{extra} if {condition}'
        )
