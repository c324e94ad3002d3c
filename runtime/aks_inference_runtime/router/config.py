"""HAProxy's configuration. Pure: text from what is asked for. Nothing in it changes while the process lives."""

import shlex
from functools import partial
from pathlib import Path

from aks_inference_runtime.router import refusals, rooms
from aks_inference_runtime.router.calls import call_answers, unserved_rules
from aks_inference_runtime.router.cors import cors_answers, cors_rules
from aks_inference_runtime.router.defaults import HEADER_SECONDS, MESSAGES, base_lines
from aks_inference_runtime.router.gate.grpc_wire import OF_STATUS
from aks_inference_runtime.router.gate.settings import MAX_BODY_BYTES
from aks_inference_runtime.router.gate.wire import (
    ELSEWHERE,
    KEEP_HEADER,
    MASKED,
    SINCE_HEADER,
    STATUS_HEADER,
    TURN_HEADER,
)
from aks_inference_runtime.router.paths import Paths, argument, quoted
from aks_inference_runtime.router.peers import (
    KNOWN,
    OF_BUCKET,
    ONCE,
    PLAIN,
    ROUTE_LINE,
    Cluster,
    asked_lines,
    bracketed,
    first_globals,
    first_lines,
    front_address,
    hop,
    hop_defaults,
    leaving_lines,
    owner_lines,
)
from aks_inference_runtime.router.refusals import LARGE, Refusal
from aks_inference_runtime.router.slots import MAX_PROCESSES, PUBLIC_ID, SLOT_ID, Layout
from aks_inference_runtime.router.tls import (
    CHALLENGE_PATH,
    Tls,
    challenge_rule,
    closing_rules,
    plain_lines,
    public_binds,
)

ANSWERS = "answers"
"""The map in which HAProxy counts what it answers itself: see `answers`."""
HINTS = ("ready", "retry", "gone", ANSWERS)
"""Maps by slot that the agent keeps (see `hints`): `<process>.<kind>`."""
HARD_STOP = "  hard-stop-after 10s"
OURS = "x-aks-inference-"
"""How the names of headers begin that only routers and gates may set. A client's wish for a version is read before."""
PUBLIC = "public"
"""The frontend that clients reach."""
PARK_ID = 9_999
"""Number of the frontend through which the slots are parked."""


def _global(paths: Paths, name: str, connections: int) -> list[str]:
    return [
        "global",
        "  nbthread 1",
        "  no strict-limits",
        # Two processes on one port would share its connections in silence.
        "  noreuseport",
        f"  maxconn {connections}",
        f"  stats socket {quoted(paths.socket(name, 'admin'))} mode 600 level admin",
        "  stats timeout 10s",
        "  stats maxconn 20",
        "  tune.http.maxhdr 128",
        # Buffers have 16 KiB, and each of some hundred connections takes and gives back a few: the default holds 32.
        "  tune.memory.hot-size 4194304",
        # To look a pattern up in the cache takes longer than to compare the few that there are.
        "  tune.pattern.cache-size 0",
    ]


def _refusals() -> list[str]:
    entries = "~".join("|".join(map(str, (r.service, f"{OF_STATUS[r.value[0]]:d}", *r.value))) for r in Refusal)
    return [
        f"  setenv REFUSALS {shlex.quote(entries)}",
        f"  setenv REFUSED_SECONDS {refusals.DROP_SECONDS}",
        f"  lua-load {quoted(Path(__file__).with_name('refuse.lua'))}",
    ]


def _answers() -> list[str]:
    """What the answers that HAProxy makes itself say; a replica's own pass unchanged."""
    slot = "var(txn.route),field(2,|)"
    return [
        "  http-response set-var(txn.replied) int(1) if { status ge 400 }",
        "  http-after-response allow if { status lt 400 }",
        *_counted("{ var(txn.replied) -m found } !{ srv_id -m found }"),
        # Of a call, from `refuse.lua`.
        "  http-after-response set-status 200 if { res.hdr(grpc-status) -m found } !{ srv_id -m found }",
        "  http-after-response allow if { var(txn.replied) -m found }",
        "  http-after-response set-header x-aks-inference-version %[var(txn.route),field(5,|)]"
        " if { var(txn.route) -m found } !{ var(txn.route) -m str none }",
        # A server was chosen and could not be reached: the replica is lost; else the request waited in the queue.
        "  http-after-response set-header x-aks-inference-reason replica-lost if { status 503 } { srv_id -m found }",
        "  http-after-response set-status 502 if { status 503 } { srv_id -m found }",
        "  http-after-response set-header x-aks-inference-reason no-replica if { status 503 }"
        f" !{{ {slot},map_str(@READY@) -m found }}",
        "  http-after-response set-header x-aks-inference-reason router-lost if { status 502 }"
        " { var(txn.hop) -m found }",
        f"  http-after-response set-header retry-after %[{slot},map_str(@RETRY@,1)] if {{ status 429 503 }}",
        *_counted("TRUE"),
        *call_answers({status: message for status, (_, message) in MESSAGES.items()}),
    ]


def _counted(condition: str) -> list[str]:
    key = "%[var(txn.meta),field(3,|)]/%[var(txn.route),field(2,|)]/%[status]/%[res.hdr(x-aks-inference-reason)]"
    return [
        f"  http-after-response set-var-fmt(txn.answer) {key} if {condition}",
        "  http-after-response set-map(@ANSWERS@) %[var(txn.answer)] %[var(txn.answer),map_str(@ANSWERS@,0),add(1)]"
        " if { var(txn.answer) -m found }",
    ]


def first_process(
    paths: Paths,
    host: str,
    port: int,
    layout: Layout,
    connections: int,
    cluster: Cluster | None = None,
    *,
    tokens: bool = False,
    tls: Tls | None = None,
) -> str:
    """The process that clients reach: admits, authenticates, splits; has slots; hops to the others.

    `tokens`: the agent says on the socket `p0.verify` whether a token is good. `tls`: where TLS is spoken, too, or
    alone.
    """
    name = "p0"
    routes = argument(paths.routes(name))
    at = partial(front_address, cluster, host)
    # What a certificate authority asks for comes in clear, and is no endpoint.
    unknown = f"!served !{{ path_beg {CHALLENGE_PATH} }}" if tls and tls.one_frontend else "!served"
    lines = [
        *_global(paths, name, connections),
        # Among several routers it is asked to let its connections finish, however long they take.
        *([] if cluster else [HARD_STOP]),
        *first_globals(quoted(Path(__file__).with_name("pause.lua")), quoted(paths.routes(name))),
        *(_verify_globals(paths) if tokens else []),
        *_park_globals(paths, name, layout),
        *_refusals(),
        *base_lines(),
        f"frontend {PUBLIC} from base",
        f"  id {PUBLIC_ID}",
        f"  maxconn {rooms.clients(connections, layout)}",
        *(public_binds(tls, at, port, quoted(paths.certificate)) if tls else [f"  bind {at(port)}"]),
        f"  bind {quoted(paths.socket(name, 'in'))} mode 600",
        *leaving_lines(cluster),
        # Each rule costs every request: most end at their first condition.
        f"  http-request set-var(txn.meta) path,map_str({routes})",
        "  acl served var(txn.meta) -m found",
        "  http-request return status 200 content-type text/plain string Healthy if !served { path / }"
        " { method GET HEAD }",
        *(closing_rules(tls) if tls else []),
        *unserved_rules(routes, KNOWN),
        Refusal.ENDPOINT.rule(unknown),
        *cors_rules(routes),
        *_authentication(routes, tokens=tokens),
        Refusal.METHOD.rule("!{ method GET POST }"),
        Refusal.SWAGGER.rule("{ method POST } { path_end /swagger.json }"),
        # Without a method that has a body the gate counts, should there be one.
        Refusal.SIZE.rule(f"!{{ method GET }} {{ req.hdr(content-length),add(0) gt {MAX_BODY_BYTES} }}"),
        # The body, or as much of it as fits the buffer, is there before a replica is taken; but not a call's, whose
        # messages may be answers. From the choice of a route to the queue nothing may wait: the slot could be given up
        # meanwhile.
        f"  http-request wait-for-body time {HEADER_SECONDS}s unless {{ var(txn.grpc) -m found }}",
        "  http-request lua.parked if { nbsrv(parked) eq 0 }",
        # No other protocol is spoken behind this: who asks to change it is answered in this one.
        "  http-request del-header upgrade",
        # The key is the router's business: it must not reach the model server or its logs.
        "  http-request del-header authorization if good || keyed || tokened",
        "  http-request set-var(txn.asked) req.hdr(x-aks-inference-version)"
        " if { req.hdr(x-aks-inference-version) -m found } { var(txn.meta),field(2,|) 1 }",
        # What router, gate and other routers say to each other is nobody else's to say.
        f"  http-request del-header {OURS} -m beg",
        # The number that `meta` begins with.
        "  http-request set-var(txn.bucket) rand(10000),mod(txn.meta)",
        f"  http-request set-var(txn.route) path,concat({OF_BUCKET},txn.bucket),map_str({routes})",
        # The endpoint has changed while the body came: fewer buckets, or none.
        "  http-request lua.draw if !{ var(txn.route) -m found }",
        *asked_lines(cluster, routes),
        *cors_answers(),
        *_answers(),
        *([challenge_rule()] if tls and tls.one_frontend else []),
        "  use_backend %[var(txn.route),field(1,|)]",
        *(plain_lines(tls, at(port)) if tls else []),
        # Where no version is called as was asked.
        "backend none from base",
        Refusal.VERSION.rule("TRUE"),
        *_slots(paths, name, layout, f"fe_conn({PUBLIC}) ge {rooms.waiting(connections, layout)}"),
        *(_shared(paths, cluster, routes, rooms.kept(connections)) if cluster else _hops(paths)),
    ]
    return _text(paths, name, lines)


def _authentication(routes: str, *, tokens: bool) -> list[str]:
    """The bearer key's digest must stand in the map. A connection's last good key is remembered while the endpoint's
    set of keys (a part of `meta`) stays what it is: hashing would be the most expensive rule."""
    unknown = f"!{{ http_auth_bearer,sha2(256),hex,lower,concat(\\#,txn.meta),map_str({routes}) -m found }}"
    return [
        *LARGE,
        "  acl keyed var(txn.meta) -m end |key",
        "  acl tokened var(txn.meta) -m end |token",
        # What is remembered has been proven to an endpoint with keys.
        "  http-request set-var(txn.good) int(1) if { http_auth_bearer,concat(\\#,txn.meta),strcmp(sess.seen) eq 0 }",
        "  acl good var(txn.good) -m found",
        # Many wrong keys may come: the cheaper way where it is enough.
        Refusal.KEY.rule_small(f"!good keyed !large {unknown}"),
        Refusal.KEY.rule(f"!good keyed large {unknown}"),
        "  http-request set-var(sess.seen) http_auth_bearer,concat(\\#,txn.meta) if !good keyed",
        # Not remembered by connection: a token ends. Where nobody verifies them none is good.
        *([f"  http-request lua.verify if !good tokened {unknown}"] if tokens else []),
        *([Refusal.LATER.rule("!good tokened { var(txn.later) -m found }")] if tokens else []),
        Refusal.KEY.rule(f"!good tokened {unknown}"),
    ]


def _verify_globals(paths: Paths) -> list[str]:
    return [
        f"  setenv VERIFY_SOCKET {quoted(paths.socket('p0', 'verify'))}",
        f"  lua-load {quoted(Path(__file__).with_name('verify.lua'))}",
    ]


def further_process(paths: Paths, number: int, layout: Layout, connections: int, cluster: Cluster | None = None) -> str:
    """A process that owns slots which the first one has not; it gets requests from there, and from other routers."""
    name = f"p{number}"
    again = quoted(paths.socket("p0", "again"))
    others = owner_lines(cluster, argument(paths.routes(name)), again, _answers()) if cluster and number == 1 else []
    lines = [
        *_global(paths, name, connections),
        HARD_STOP,
        *_park_globals(paths, name, layout),
        *_refusals(),
        *base_lines(),
        "frontend hopped from base",
        f"  bind {quoted(paths.socket(name, 'in'))} mode 600",
        "  http-request lua.parked if { nbsrv(parked) eq 0 }",
        "  http-request set-var(txn.route) req.hdr(x-aks-inference-route)",
        "  http-request del-header x-aks-inference-route",
        # Should it be passed on: which version was drawn.
        *(["  http-request set-header x-aks-inference-version %[var(txn.route),field(5,|)]"] if cluster else []),
        *_answers(),
        "  use_backend %[var(txn.route),field(2,|)]",
        *others,
        *_slots(
            paths, name, layout, f"fe_conn({'peers' if others else 'hopped'}) ge {rooms.waiting(connections, layout)}"
        ),
    ]
    return _text(paths, name, lines)


def port_process(
    paths: Paths, name: str, host: str, port: int, endpoint: str, first_port: int, connections: int
) -> str:
    """A process that serves one endpoint at /score of a port of its own, by way of the first process."""
    lines = [
        *_global(paths, name, connections),
        HARD_STOP,
        *_refusals(),
        *base_lines(),
        "frontend port from base",
        f"  bind {bracketed(host)}:{port}",
        "  http-request return status 200 content-type text/plain string Healthy if { path / } { method GET HEAD }",
        Refusal.PATH.rule("!{ path /score /swagger.json }"),
        f"  http-request set-path /api/v1/service/{endpoint}%[path]",
        "  http-response set-var(txn.replied) int(1)",
        "  http-after-response set-header x-aks-inference-reason router-lost"
        " if { status 502 503 } !{ var(txn.replied) -m found }",
        "  http-after-response set-status 502 if { status 503 } !{ var(txn.replied) -m found }",
        "  default_backend router",
        "defaults hop from base",
        "  retries 20",
        "  timeout connect 2s",
        # By TCP, so that the system can tell whether who asked is still there: see `leavers`.
        *_hop("router", bracketed(_reached(host)) + f":{first_port}", []),
    ]
    return "\n".join(lines) + "\n"


def _park_globals(paths: Paths, name: str, layout: Layout) -> list[str]:
    return [
        f"  setenv PARK_COUNT {len(layout.timeouts_ms)}",
        f"  setenv PARK_SOCKET {quoted(paths.socket(name, 'park'))}",
        f"  lua-load {quoted(Path(__file__).with_name('park.lua'))}",
    ]


def _slots(paths: Paths, name: str, layout: Layout, full: str) -> list[str]:
    """`full`: when nothing more may wait in the process, whose queue it ever is."""
    masked = f"res.hdr({STATUS_HEADER.decode()}) -m str"
    crowded = "{ var(txn.most) -m found } { queue,sub(txn.most) ge 0 }"
    lines = [
        # Its server is made ready by Lua once all slots are parked: the cheapest thing to ask for each request.
        "backend parked from base",
        "  server all 127.0.0.1:1 disabled",
        "frontend park from base",
        f"  id {PARK_ID}",
        f"  bind {quoted(paths.socket(name, 'park'))} mode 600",
        "  timeout client 24d",
        "  use_backend %[req.hdr(x-slot)]",
        "frontend hold from base",
        f"  bind {quoted(paths.socket(name, 'hold'))} mode 600",
        "  timeout client 24d",
        "  timeout tarpit 24d",
        "  http-request tarpit",
        "defaults slot from base",
        "  balance roundrobin",
        # Each attempt that fails takes a server out: their number is the bound, not this one.
        "  retries 100",
        # A request goes elsewhere when nothing of it was given to a replica, and only then: the connection was refused,
        # or the gate says so (of the whole of a request that fits the buffer; others are lost).
        # Or its gate was killed, whatever that had done with it: on a connection to a gate that was used before, it
        # would leave the client without any answer. So as often as gates die of it, but where the endpoint says `ONCE`.
        f"  retry-on conn-failure empty-response {ELSEWHERE}",
        # Most answers end here: each rule costs every request.
        "  http-response allow if { status lt 400 }",
        f"  http-response set-status 502 if {{ status {ELSEWHERE} }}",
        f"  http-response set-status {ELSEWHERE} if {{ status {MASKED} }} {{ {masked} {ELSEWHERE} }}",
        f"  http-response del-header {STATUS_HEADER.decode()} if {{ status {ELSEWHERE} }}",
    ]
    for number, timeout in enumerate(layout.timeouts_ms):
        lines += [
            f"backend s{number} from slot",
            f"  id {SLOT_ID + number}",
            f"  timeout queue {timeout}ms",
            # Of who parks there is no route, and this does nothing.
            "  http-request set-timeout server var(txn.route),field(3,|)",
            # Keeping a copy of each request costs; without a gate nobody asks for it.
            f"  http-request disable-l7-retry if {{ var(txn.route) -m end {PLAIN} {ONCE} }}",
            # So that the next request finds a connection. For those others each has one of its own, which HAProxy
            # answers for when it breaks.
            f"  http-request set-header {KEEP_HEADER.decode()} 1 unless {{ var(txn.route) -m end {PLAIN} {ONCE} }}",
            # Asked once: most requests find a free slot, and each condition costs.
            "  http-request allow unless { be_conn_free le 0 }",
            # Who has left keeps its place in the queue, but takes nobody else's: see `leavers`.
            "  http-request set-var(txn.gone) be_name,map_str(@GONE@,0)",
            "  http-request set-var(txn.most) var(txn.route),field(4,|),add(txn.gone) if { var(txn.route) -m found }",
            f"  http-request set-var(txn.most) int(0) if {{ var(txn.most) -m found }} {{ {full} }}",
            *LARGE,
            "  http-request set-var(txn.retry) be_name,map_str(@RETRY@,1) if large",
            Refusal.QUEUE.rule(f"large {crowded}"),
            # `deny`, because HAProxy counts that; it does not count the answers to large bodies.
            Refusal.QUEUE.rule_small(crowded, "deny"),
            f"  http-request set-header {TURN_HEADER.decode()} %pid-%rt",
            f"  http-request set-header {SINCE_HEADER.decode()} %[date(0,ms)]+{timeout}",
            f"  use-server park if {{ fe_id {PARK_ID} }}",
            f"  server park {quoted(paths.socket(name, 'hold'))} maxconn 1",
        ]
    return lines


def _shared(paths: Paths, cluster: Cluster, routes: str, kept: int) -> list[str]:
    again, lost = (quoted(paths.socket("p0", kind)) for kind in ("again", "lost"))
    further = {number: quoted(paths.socket(f"p{number}", "in")) for number in range(2, MAX_PROCESSES)}
    return [*hop_defaults(cluster), *first_lines(cluster, routes, again, lost, further, kept)]


def _hops(paths: Paths) -> list[str]:
    lines = ["defaults hop from base", "  retries 20", "  timeout connect 2s"]
    for number in range(1, MAX_PROCESSES):
        extra = ["  http-request set-var(txn.hop) int(1)", ROUTE_LINE]
        lines += _hop(hop(number), quoted(paths.socket(f"p{number}", "in")), extra)
    return lines


def _hop(name: str, address: str, extra: list[str]) -> list[str]:
    # No slot hangs on this connection: the next process must learn that the client has left.
    return [f"backend {name} from hop", "  option abortonclose", *extra, f"  server next {address}"]


def _text(paths: Paths, name: str, lines: list[str]) -> str:
    text = "\n".join(lines) + "\n"
    for kind in HINTS:
        text = text.replace(f"@{kind.upper()}@", argument(paths.directory / f"{name}.{kind}"))
    return text


def _reached(host: str) -> str:
    """Where a process of this machine reaches what listens there."""
    return {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "::": "::1"}.get(host, host)
