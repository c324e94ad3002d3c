"""The one map that HAProxy's frontend decides by. Pure.

| key | value |
| --- | --- |
| `<path>` | `<number of buckets>|<1: a version may be asked for>|<fingerprint of name and keys>|<key, token or none>` |
| `<sha256 of a key>#<value of the path>` | `1` |
| `<origin>&<value of the path>` | the origin, which pages may come from |
| `<path>?<bucket>` | route |
| `<path>?@<version>` | route |
| `known` | `1` |
| `grpc/<endpoint>` | the path that its calls become |

Paths are `/api/v1/service/<endpoint>/score` and, with one bucket, `…/swagger.json`: a path finds its entry at once.

A route is `<backend>|<slot backend>|<server timeout ms>|<most waiting>|<version>`, and its marks: `|rpc` where replicas
speak gRPC, `|plain` where no replica has a gate, `|once` where nothing is sent again. Backend is a slot of this process
or the hop to another one. One map, so that one commit can change everything at once; `deltas` says when it need not.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from types import MappingProxyType

from aks_inference_runtime.api.endpoint import LONGEST_MS, AuthMode
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.traffic import HUNDREDTHS
from aks_inference_runtime.router.calls import GRPC, RPC
from aks_inference_runtime.router.cors import cors_entries
from aks_inference_runtime.router.model import EndpointRoute, RouterState, TokenRules, VersionKey, VersionRoute
from aks_inference_runtime.router.peers import KNOWN, OF_BUCKET, OF_VERSION, ONCE, PLAIN, hop
from aks_inference_runtime.router.peers import backend as peer_backend
from aks_inference_runtime.router.slots import Slot

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What the map's syntax allows; the rules for names proper are checked where endpoints are declared."""
BACKSTOP_MS = 2_000
"""HAProxy's own timeout is so far above what the gate enforces: it counts only when a gate is stuck."""


OF_ALL: Mapping[str, str] = MappingProxyType({KNOWN: "1"})
"""Entries of the first process that are no endpoint's."""


def check(endpoints: Mapping[str, EndpointRoute]) -> None:
    """Raises InvalidInput when a name cannot be served or shares do not add up."""
    for key, endpoint in endpoints.items():
        names = [endpoint.name, *(v.name for v in endpoint.versions)]
        names += [r.id for v in endpoint.versions for r in v.replicas]
        bad = [name for name in names if not NAME.fullmatch(name)]
        if bad or key != endpoint.name:
            raise InvalidInput(f"endpoint {key!r}: not a name that can be served: {', '.join(map(repr, bad or [key]))}")
        total = sum(v.traffic for v in endpoint.versions)
        if total != HUNDREDTHS:
            raise InvalidInput(f"endpoint {key!r}: the shares add up to {total} hundredths of a percent, not 10000")


def queue_timeout_ms(version: VersionRoute) -> int:
    """How long its requests may wait now."""
    requests = version.requests
    wanted = requests.cold_start_timeout_ms if version.scaled_to_zero else requests.max_request_wait_time
    return min(wanted, LONGEST_MS)


def route(version: VersionRoute, slot: Slot, *, ends: str = "") -> str:
    """A route as the first process has it. `ends`: of its endpoint (`_ends`)."""
    requests = version.requests
    backend = slot.backend if slot.process == 0 else hop(slot.process)
    # HAProxy takes none of the new state where one timer is too long, so that one endpoint would stop all others.
    backstop = min(requests.scoring_timeout_ms, LONGEST_MS) + min(requests.max_request_wait_time, LONGEST_MS)
    backstop += BACKSTOP_MS
    plain = bool(version.replicas) and all(replica.control is None for replica in version.replicas)
    if plain:
        ends = PLAIN + ends
    return f"{backend}|{slot.backend}|{backstop}|{requests.max_queued_requests}|{version.name}{ends}"


def _ends(endpoint: EndpointRoute) -> str:
    """How its routes end: what is lost of it is not sent again; a call is none that HAProxy could keep."""
    if endpoint.grpc:
        return RPC + ONCE
    return "" if endpoint.retry_lost_requests else ONCE


def buckets(versions: tuple[VersionRoute, ...]) -> list[int]:
    """For each of the smallest number of equal parts of the traffic, the index of the version that gets it."""
    unit = math.gcd(*(v.traffic for v in versions), HUNDREDTHS)
    return [index for index, v in enumerate(versions) for _ in range(v.traffic // unit)]


def entries(
    endpoint: EndpointRoute, slots: Mapping[VersionKey, Slot], numbers: Mapping[str, int] = MappingProxyType({})
) -> dict[str, str]:
    """An endpoint's entries of the first process. `slots`: of its versions. `numbers`: of the other routers."""
    if endpoint.owner is None:
        found = [route(v, slots[VersionKey(endpoint.name, v.name)], ends=_ends(endpoint)) for v in endpoint.versions]
    else:
        peer = peer_backend(numbers[endpoint.owner])
        found = [f"{peer}||||{v.name}{_ends(endpoint)}" for v in endpoint.versions]
    return _endpoint(endpoint, found)


def owner_entries(endpoint: EndpointRoute, slots: Mapping[VersionKey, Slot], process: int) -> dict[str, str]:
    """What a process with slots serves of an endpoint for other routers: `<path>?@<version>` → route."""
    if endpoint.owner is not None:
        return {}
    return {
        f"/api/v1/service/{endpoint.name}/{file}{OF_VERSION}{v.name}": route(v, slot, ends=_ends(endpoint))
        for v in endpoint.versions
        if (slot := slots[VersionKey(endpoint.name, v.name)]).process == process
        for file in ("score", "swagger.json")
    }


def token_rules(state: RouterState) -> dict[str, TokenRules]:
    """By path, of the endpoints that ask for tokens."""
    return {
        f"/api/v1/service/{endpoint.name}/{file}": endpoint.token
        for endpoint in state.endpoints.values()
        if endpoint.auth is AuthMode.TOKEN and endpoint.token is not None
        for file in ("score", "swagger.json")
    }


def fingerprint(endpoint: EndpointRoute) -> str:
    """Of its name and of who may ask: what a connection has proven stands while this stays what it is."""
    digests = sorted(digest.lower() for digest in endpoint.key_digests)
    return sha256("\n".join([endpoint.name, *digests, repr(endpoint.token)]).encode()).hexdigest()[:32]


def _endpoint(endpoint: EndpointRoute, routes: Sequence[str]) -> dict[str, str]:
    digests = sorted(digest.lower() for digest in endpoint.key_digests)
    auth = endpoint.auth.value
    parts = buckets(endpoint.versions)
    largest = max(range(len(routes)), key=lambda index: endpoint.versions[index].traffic)
    entries: dict[str, str] = {}
    if endpoint.grpc:
        entries[f"{GRPC}{endpoint.name}"] = f"/api/v1/service/{endpoint.name}/score"
    for file, chosen in (("score", parts), ("swagger.json", [largest])):
        path = f"/api/v1/service/{endpoint.name}/{file}"
        entries[path] = meta = f"{len(chosen)}|{int(endpoint.version_header_enabled)}|{fingerprint(endpoint)}|{auth}"
        entries.update({f"{digest}#{meta}": "1" for digest in digests})
        entries.update(cors_entries(endpoint.cors_origins, meta))
        entries.update({f"{path}{OF_BUCKET}{number}": routes[index] for number, index in enumerate(chosen)})
        entries.update({f"{path}{OF_VERSION}{v.name}": text for v, text in zip(endpoint.versions, routes, strict=True)})
    return entries


def slots_to_json(versions: Mapping[VersionKey, Sequence[Slot]]) -> str:
    """Which slots each version has, oldest first: what a later agent cannot see in HAProxy."""
    return json.dumps([[*key, [list(slot) for slot in slots]] for key, slots in versions.items()])


def slots_from_json(text: str) -> dict[VersionKey, list[Slot]]:
    """Back from `slots_to_json`. Raises ValueError."""
    try:
        return {
            VersionKey(str(endpoint), str(version)): [Slot(int(process), int(number)) for process, number in slots]
            for endpoint, version, slots in json.loads(text)
        }
    except TypeError as error:
        raise ValueError(str(error)) from None
