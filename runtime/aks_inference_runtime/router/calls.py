"""gRPC calls: how HAProxy tells whose they are, and how it refuses them. Pure.

A call's path is its method's (`/package.Service/Method`), which clients cannot change. So it names its endpoint in the
metadata `x-aks-inference-endpoint`, or by the first label of its authority, and becomes a request to the endpoint's own
path, with the method as the query: all that follows is as for any request. Requests that find an endpoint by their path
pay nothing for it; what HAProxy answers itself becomes an answer of gRPC's at its very end, where errors alone come by.
"""

import shlex

from aks_inference_runtime.router.gate.grpc_wire import CONTENT_TYPE, OF_STATUS, Code

GRPC = "grpc/"
"""Before an endpoint's name, in the first process's map: it takes calls."""
RPC = "|rpc"
"""In a route, as its sixth field: calls."""
_FIELD = "field(6,|)"
_IS_CALL = f"{{ var(txn.route),{_FIELD} -m str {RPC[1:]} }}"


def unserved_rules(routes: str, known: str) -> list[str]:
    """Before an endpoint is said to be unknown: calls name theirs otherwise, and in the first moments of a router all
    are looked up once more."""
    return [
        f"  acl odd str({known}),map_str({routes},none) -m str none",
        f"  acl odd req.hdr(content-type) -m beg {CONTENT_TYPE.decode()}",
        "  http-request lua.unserved if !served odd",
    ]


def no_body_of_calls(body: str) -> str:
    """What a message of HAProxy's own says: nothing to calls, whose answers of the kind have a head only."""
    # 0 for the three letters of `rpc`; the other marks of routes have more.
    return shlex.quote(f"%[var(txn.route,none),{_FIELD},length,xor({len(RPC) - 1}),iif('{body}',)]")


def call_answers(messages: dict[int, str]) -> list[str]:
    """What HAProxy answers itself, as gRPC has it. `messages`: by status."""
    lines = [
        f"  http-after-response allow if !{{ var(txn.grpc) -m found }} !{_IS_CALL}",
        f"  http-after-response set-header grpc-status {Code.UNKNOWN:d}",
    ]
    for code in sorted(set(OF_STATUS.values())):
        statuses = " ".join(str(status) for status, of in OF_STATUS.items() if of is code)
        lines.append(f"  http-after-response set-header grpc-status {code:d} if {{ status {statuses} }}")
    lines += [
        f'  http-after-response set-header grpc-message "{message}" if {{ status {status} }}'
        " !{ res.hdr(grpc-message) -m found }"
        for status, message in messages.items()
    ]
    return [
        *lines,
        f"  http-after-response set-header content-type {CONTENT_TYPE.decode()}",
        "  http-after-response set-status 200",
    ]
