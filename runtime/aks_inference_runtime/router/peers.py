"""HAProxy's configuration where several routers share the work. Pure: text from what is asked for.

A request's way: any router's first process (admits, authenticates, splits) → the owner's process with slots, on this
host or another → a replica's gate. The first process never has slots: it goes on when an owner's process dies, and
sends again what had no byte of an answer, as far as the whole request fits its buffer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from aks_inference_runtime.router.slots import Layout

MAX_PEERS = 32
"""Other routers that a process is prepared for."""
LANE_PEERS = 40
"""The same where pods may have several lanes: eight of four, and one pod more while they are replaced."""
ONCE = "|once"
"""End of a route whose requests are never sent again."""
PLAIN = "|plain"
"""End of a route whose replicas nobody guards: no answer of theirs may be taken for a gate's."""
SENT_HEADER = "x-aks-inference-sent"
"""On a request that may have been given to a replica already."""
UNSENT_HEADER = "x-aks-inference-unsent"
"""On a request that goes to `lost` because nothing else is up."""
LOST_ID = 4
"""Of the socket that such requests come by, among the first process's."""
TOKEN_HEADER = "x-aks-inference-router"  # noqa: S105 - a header's name
HOPS_HEADER = "x-aks-inference-hops"
ASKED_HEADER = "x-aks-inference-asked"
"""On a request whose client itself asked for the version: for no other one it would do."""
OF_BUCKET = "?"
OF_VERSION = "?@"
"""Between a path and a bucket or a version, in the key of a route: no path has a question mark."""
KNOWN = "known"
"""Key of the first process's map: the agent has told what is served."""
PAUSE_HOPS = 1
"""From the second time on that a request is passed on it waits a moment (`pause.lua`, 30 ms): its owner is being
started again, or is about to be found lost, or two routers are about to agree."""
MOST_HOPS = 120
CONNECT_MS = 100
RETRIES = 100
"""To an owner's process. The first refusal takes it out (`WATCHED`), the next attempt goes to `again`. Until then each
attempt may find one more kept connection of the process that died: their number is the bound, not this one."""
WATCHED = "check inter 100ms fall 2 rise 1 observe layer4 error-limit 1 on-error mark-down"
NEAR = "check inter 5s fastinter 100ms downinter 100ms fall 2 rise 1 observe layer4 error-limit 1 on-error mark-down"
"""A process of this host: its first refusal tells all, and until then nobody needs to know."""
ROUTE_LINE = "  http-request set-header x-aks-inference-route %[var(txn.route)]"
"""For a process that has no map."""
ONWARD = "onward"
"""Name of the server that passes on what waits in a slot whose endpoint another router owns."""

OWNER_LAYOUT = Layout.of({500: 160, 60_000: 64, 100: 8, 1_000: 24, 2_000: 16, 5_000: 16, 10_000: 16, 30_000: 16})
"""Of the process with slots: see `slots.DEFAULT_LAYOUT`, for more versions."""


@dataclass(frozen=True)
class Cluster:
    """What the processes of one router need to know of the others."""

    owner_host: str = "0.0.0.0"
    owner_port: int = 0
    """Where other routers pass requests on."""
    token: str | None = None
    """What routers prove to each other that they are routers with; None: the network alone keeps others away."""
    retry_lost_requests: bool = True
    addresses: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    """Other routers by their number here."""
    further: frozenset[int] = frozenset()
    """Processes of this router after the second one that there are, by number."""
    sockets: Mapping[int, int] = field(default_factory=dict)
    """Port → number of the open file of a socket that the agent keeps for several first processes; empty: there is one
    first process, which has its own."""

    @property
    def peers(self) -> int:
        """Other routers that there is room for."""
        return LANE_PEERS if self.sockets else MAX_PEERS

    def at(self, addresses: Mapping[int, tuple[str, int]]) -> "Cluster":
        """With these addresses."""
        return replace(self, addresses=dict(addresses))


def front_address(cluster: Cluster | None, host: str, port: int) -> str:
    """Where clients reach a first process, as `bind` has it."""
    if cluster is not None and port in cluster.sockets:
        return f"fd@{cluster.sockets[port]}"
    return f"{bracketed(host)}:{port}"


def leaving_lines(cluster: Cluster | None) -> list[str]:
    """Of a frontend of clients: how connections without a request end while the process finishes.

    A lane goes while its pod stays, as often as cores change: such a connection ends with the answer to its next
    request, or by its timeout, so that none is closed just as a request comes. Otherwise it ends at once.
    """
    return ["  option idle-close-on-response"] if cluster is not None and cluster.sockets else []


def backend(number: int) -> str:
    """Of another router."""
    return f"peer{number}"


def hop(number: int) -> str:
    """Of a process of this router."""
    return f"hop{number}"


def asked_lines(cluster: Cluster | None, routes: str) -> list[str]:
    """The last of the first process's rules for a request: it gets the version that its client asked for."""
    route = f"  http-request set-var(txn.route) path,concat({OF_VERSION},txn.asked),map_str({routes},none)"
    if cluster is None:
        return [f"{route} if {{ var(txn.asked) -m found }}"]
    # One condition for most, whatever comes after it.
    return [
        "  http-request allow unless { var(txn.asked) -m found }",
        route,
        f"  http-request set-header {ASKED_HEADER} 1",
    ]


def hop_defaults(cluster: Cluster) -> list[str]:
    """Of the way to a process with slots."""
    retry_on = "conn-failure empty-response" if cluster.retry_lost_requests else "conn-failure"
    return [
        "defaults hop from base",
        f"  retries {RETRIES}",
        f"  timeout connect {CONNECT_MS}ms",
        "  option redispatch 1",
        f"  retry-on {retry_on}",
        "  balance roundrobin",
        # No slot hangs on this connection: the owner must learn that the client has left.
        "  option abortonclose",
    ]


def first_globals(lua: str, routes: str) -> list[str]:
    """Beside the others of the first process."""
    # Also servers that are disabled have a timer each: an idle process wakes for all of them together.
    return [f"  setenv ROUTES {routes}", f"  lua-load {lua}", "  max-spread-checks 1"]


def first_lines(
    cluster: Cluster, routes: str, again: str, lost: str, further: Mapping[int, str], kept: int
) -> list[str]:
    """Of the first process: the ways to processes with slots and to other routers, and what asks the map once more.
    `further`: where processes of this router after the second one would listen, by number.

    `again`: nothing of these requests was given to a replica by this way; `lost`: they may have been, and no router
    sends them a third time. `kept`: idle connections to each of them, at most.
    """
    watched, near = (f"{options} pool-max-conn {kept}" for options in (WATCHED, NEAR))
    token = [f"  http-request set-header {TOKEN_HEADER} {cluster.token}"] if cluster.token else []
    passed = [
        "  http-request set-var(txn.hop) int(1)",
        "  http-request set-header x-aks-inference-version %[var(txn.route),field(5,|)]",
        f"  http-request disable-l7-retry if {{ var(txn.sent) -m found }} || {{ var(txn.route) -m end {ONCE} }}",
        # Who finds the owner's process out was not given to anybody.
        f"  http-request set-header {UNSENT_HEADER} 1 if !{{ srv_is_up(next) }}",
    ]
    lines = [
        "frontend again from base",
        f"  bind {again} mode 600",
        f"  bind {lost} mode 600 id {LOST_ID}",
        f"  http-request set-header {SENT_HEADER} 1 if {{ so_id {LOST_ID} }} !{{ req.hdr({UNSENT_HEADER}) -m found }}",
        f"  http-request del-header {UNSENT_HEADER}",
        # Of who was to pass it on and found nobody up.
        f"  http-request del-header {TOKEN_HEADER}",
        f"  http-request set-var(txn.sent) int(1) if {{ req.hdr({SENT_HEADER}) -m found }}",
        "  http-request set-var(txn.asked) req.hdr(x-aks-inference-version)",
        f"  http-request set-var(txn.route) path,concat({OF_VERSION},txn.asked),map_str({routes},none)",
        # Another router knows it: this one is about to be told, or that one.
        "  http-request lua.unmet if { var(txn.route) -m str none }",
        '  http-request return status 404 content-type application/json string \'{"message": "no such version"}\''
        " hdr x-aks-inference-reason not-found if { var(txn.route) -m str none }",
        "  http-request set-var(txn.hops) int(1)",
        f"  http-request set-var(txn.hops) req.hdr({HOPS_HEADER}),add(1) if {{ req.hdr({HOPS_HEADER}) -m found }}",
        f"  http-request set-header {HOPS_HEADER} %[var(txn.hops)]",
        '  http-request return status 502 content-type application/json string \'{"message": "no router owns it"}\''
        f" hdr x-aks-inference-reason router-lost if {{ var(txn.hops) -m int gt {MOST_HOPS} }}",
        f"  http-request lua.pause if {{ var(txn.hops) -m int gt {PAUSE_HOPS} }}",
        "  http-response set-var(txn.replied) int(1)",
        "  http-after-response set-header x-aks-inference-reason router-lost"
        " if { status 502 503 } !{ var(txn.replied) -m found }",
        "  http-after-response set-status 502 if { status 503 } !{ var(txn.replied) -m found }",
        "  use_backend %[var(txn.route),field(1,|)]",
    ]
    own = "127.0.0.1" if cluster.owner_host == "0.0.0.0" else bracketed(cluster.owner_host)
    # On a connection that had a request before, HAProxy ends one that died without any answer, for it to be sent again;
    # as `lost` gets it, it would be a third time. So none is kept.
    backup = f"  server again {lost} backup pool-max-conn 0"
    lines += [
        f"backend {hop(1)} from hop",
        *passed,
        *token,
        f"  server next {own}:{cluster.owner_port} {watched}",
        backup,
    ]
    for number, address in further.items():
        where = address if number in cluster.further else f"{address} disabled"
        # A socket that only this router reaches: nothing is to be proven there.
        lines += [f"backend {hop(number)} from hop", *passed, ROUTE_LINE, f"  server next {where} {near}", backup]
    for number in range(cluster.peers):
        other = cluster.addresses.get(number)
        where = f"{bracketed(other[0])}:{other[1]}" if other is not None else "127.0.0.1:1 disabled"
        lines += [
            f"backend {backend(number)} from hop",
            *passed,
            *token,
            f"  server next {where} {watched}",
            # When that one is out: whoever owns it by then.
            backup,
        ]
    return lines


def owner_lines(cluster: Cluster, routes: str, again: str, answers: list[str]) -> list[str]:
    """Of the process with slots that other routers reach."""
    token = []
    if cluster.token:
        token = [
            '  http-request return status 401 content-type application/json string \'{"message": "for routers only"}\''
            f" hdr x-aks-inference-reason auth unless {{ req.hdr({TOKEN_HEADER}) -m str {cluster.token} }}",
            f"  http-request del-header {TOKEN_HEADER}",
        ]
    return [
        "frontend peers from base",
        f"  bind {bracketed(cluster.owner_host)}:{cluster.owner_port}",
        *token,
        "  http-request lua.parked if { nbsrv(parked) eq 0 }",
        "  http-request set-var(txn.asked) req.hdr(x-aks-inference-version)",
        f"  http-request set-var(txn.route) path,concat({OF_VERSION},txn.asked),map_str({routes},none)",
        *answers,
        "  use_backend onward if { var(txn.route) -m str none }",
        "  use_backend %[var(txn.route),field(2,|)]",
        "backend onward from base",
        f"  server again {again}",
    ]


def bracketed(host: str) -> str:
    """As it stands before a port."""
    return f"[{host}]" if ":" in host else host
